//! Purging a segment, beside a bare copy of its file.

use std::fs::File;
use std::io::Write as _;
use std::time::{Duration, Instant};

use kimberlite_disk::OsDisk;
use kimberlite_storage::{Durability, FrameHeader};
use kimberlite_types::Position;

use crate::latencies::{is_smoke_run, is_wanted, scratch};
use crate::log::{commit, frame_of, new_log_by};

const PAYLOAD_BYTES: usize = 1024;
const RECORDS: u64 = 100;
/// A segment of 64 MiB is closed by then, and the last one.
const LOG_RECORDS: u64 = 84_000;
const ROUNDS: usize = 5;

/// Which appends of the segment are purged.
#[derive(Clone, Copy)]
enum Purged {
    All,
    EveryOther,
}

/// Every round purges new logs, and copies the segment that it purges before that.
pub(crate) fn compare() {
    if !is_wanted("purge") {
        return;
    }
    let rounds = if is_smoke_run() { 1 } else { ROUNDS };
    let (mut all, mut half, mut floor) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (copied, purged) = round(Purged::All);
        floor.push(copied);
        all.push(purged);
        half.push(round(Purged::EveryOther).1);
    }
    print("purge/64 MiB, all payloads", &mut all);
    print("purge/64 MiB, every other append", &mut half);
    print("purge/floor: read, write and sync the file", &mut floor);
}

/// Returns the bytes a second of a copy, and those of a purge, by the size of the old file.
#[expect(clippy::disallowed_methods, reason = "the floor is the bare system")]
fn round(purged: Purged) -> (f64, f64) {
    let (dir, mut writer) = new_log_by(kimberlite_disk::WriteMode::default(), 0);
    let payload = [7; PAYLOAD_BYTES];
    while writer.next_position().get() < LOG_RECORDS {
        let frame = frame_of(usize::try_from(RECORDS).unwrap(), &payload);
        commit(&mut writer, frame, Durability::Later);
    }
    writer.close_segment().unwrap();
    // What the writer left to the background is done, and nothing of it is written back meanwhile.
    writer
        .purger()
        .purge(Position::ZERO, &|_| false, &mut |_| ())
        .unwrap();
    let segments = writer.reader().segments(&OsDisk::new()).unwrap();
    let largest = segments.iter().rev().nth(1).unwrap();
    assert_eq!(largest.file_bytes, 64 << 20);
    let path = dir.path().join("log").join(&largest.name);
    File::open(&path).unwrap().sync_all().unwrap();
    let begun = now();
    let bytes = std::fs::read(&path).unwrap();
    let mut copy = tempfile::tempfile_in(scratch()).unwrap();
    copy.write_all(&bytes).unwrap();
    copy.sync_all().unwrap();
    let copied = rate(bytes.len(), begun.elapsed());
    let (base, end) = (largest.base, largest.end);
    let choice = |header: &FrameHeader| {
        let nth = header.base_position.get() / RECORDS;
        let chosen = matches!(purged, Purged::All) || nth.is_multiple_of(2);
        header.base_position >= base && chosen
    };
    let begun = now();
    let outcome = writer.purger().purge(end, &choice, &mut |_| ()).unwrap();
    let purged = rate(bytes.len(), begun.elapsed());
    assert_eq!(outcome.segments_rewritten, 1);
    (copied, purged)
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn now() -> Instant {
    Instant::now()
}

fn rate(bytes: usize, spent: Duration) -> f64 {
    f64::from(u32::try_from(bytes).unwrap()) / spent.as_secs_f64()
}

fn print(name: &str, rates: &mut [f64]) {
    rates.sort_by(f64::total_cmp);
    let megabytes = |rate: f64| rate / 1e6;
    let (least, middle, most) = (rates[0], rates[rates.len() / 2], rates[rates.len() - 1]);
    println!(
        "{name}: {:.0} MB/s of the old file (rounds {:.0} to {:.0})",
        megabytes(middle),
        megabytes(least),
        megabytes(most)
    );
}
