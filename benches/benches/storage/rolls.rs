//! What an append takes that begins a new segment, beside those that do not and a bare write and sync of
//! as many bytes.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Instant;

use kimberlite::{Encryption, Event, ExpectedVersion, SyncPolicy};

use crate::latencies::{histogram, is_smoke_run, is_wanted, quantiles, scratch};

const EVENTS: usize = 16;
const EVENT_BYTES: usize = 16 << 10;
/// Of 256 KiB each: some twenty segments.
const APPENDS: u64 = 5_000;

#[expect(
    clippy::disallowed_methods,
    reason = "a bench measures time, and looks at files as anybody can"
)]
pub(crate) fn rolls() {
    if !is_wanted("rolls") {
        return;
    }
    let (dir, db) = super::database(Encryption::On, SyncPolicy::EveryBatch);
    let stream = db.tenant("t").unwrap().stream("s").unwrap();
    let log = dir.path().join("db/tenants/t/log");
    let events: Vec<Event> = (0..EVENTS)
        .map(|_| Event::new("measured", vec![7; EVENT_BYTES]))
        .collect();
    let segments = |log: &Path| {
        let names = std::fs::read_dir(log).unwrap().map(|entry| entry.unwrap());
        names
            .filter(|entry| entry.path().extension().is_some_and(|it| it == "seg"))
            .count()
    };
    let floor_dir = tempfile::tempdir_in(scratch()).unwrap();
    let floor = File::create(floor_dir.path().join("floor")).unwrap();
    let bytes = vec![7; EVENTS * EVENT_BYTES];
    for at in 0..256 {
        floor.write_all_at(&bytes, at * bytes.len() as u64).unwrap();
    }
    floor.sync_all().unwrap();

    let appends = if is_smoke_run() { 2 } else { APPENDS };
    let [mut plain, mut rolling, mut bare] = [histogram(), histogram(), histogram()];
    let mut known = segments(&log);
    for nth in 0..appends {
        let started = Instant::now();
        stream.append(ExpectedVersion::Any, &events).unwrap();
        let spent = nanoseconds(started);
        let now = segments(&log);
        let histogram = if now > known {
            &mut rolling
        } else {
            &mut plain
        };
        histogram.saturating_record(spent);
        known = now;
        let started = Instant::now();
        let at = nth % 256 * bytes.len() as u64;
        floor.write_all_at(&bytes, at).unwrap();
        floor.sync_data().unwrap();
        bare.saturating_record(nanoseconds(started));
    }
    for (name, histogram) in [
        ("appends that begin a segment", &rolling),
        ("other appends", &plain),
        ("floor: write and fdatasync", &bare),
    ] {
        println!(
            "rolls/{name} ({}): {}",
            histogram.len(),
            quantiles(histogram)
        );
    }
}

fn nanoseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
