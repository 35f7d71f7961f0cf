//! A tenant with many streams: opening it, and reading a stream whose events stand all over the log.
//!
//! `cargo bench --locked -p kimberlite-benches --bench streams [-- 100000]`: the number of streams, a million where
//! none is said. Each has one event of 256 bytes. Two have a thousand or more, all over the log: one by one, and in
//! appends of ten. Opening is timed beside reading the bytes of snapshot, state, note and last segment; reading the stream
//! beside reading the same events by position, also where opened events are kept. The files are in the page cache.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench that fails has nothing to measure, and its figures are what it is for"
)]

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kimberlite::{Database, Event, ExpectedVersion, Stream, SyncPolicy, Tenant};

const STREAMS: u64 = 1_000_000;
const EVENTS: u64 = 1_000;
const BATCH: u64 = 10;
const EVENT_BYTES: usize = 256;
const OPENINGS: usize = 7;
const READS: usize = 101;
/// Bytes of opened events that are kept, where they are.
const KEPT_BYTES: usize = 16 << 20;

fn main() {
    let arguments = std::env::args().skip(1).collect::<Vec<_>>();
    let smoke = arguments.iter().any(|argument| argument == "--test");
    let wanted = arguments.iter().find_map(|argument| argument.parse().ok());
    let streams = if smoke {
        3_000
    } else {
        wanted.unwrap_or(STREAMS)
    };
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("db");
    make(&path, streams);
    let name = format!("streams/{streams}");
    let (mut openings, mut floors) = (Vec::new(), Vec::new());
    for _ in 0..if smoke { 1 } else { OPENINGS } {
        floors.push(read_bytes(&path));
        let begun = Instant::now();
        let db = Database::open(&path).unwrap();
        let tenant = db.tenant("t").unwrap();
        openings.push(begun.elapsed());
        drop(tenant);
        db.close().unwrap();
    }
    print(&format!("{name}/open"), openings);
    print(
        &format!("{name}/floor: read the bytes that it needs"),
        floors,
    );
    let db = Database::open(&path).unwrap();
    let tenant = db.tenant("t").unwrap();
    for long in ["one by one", "ten by ten"] {
        let rounds = if smoke { 1 } else { READS };
        read(&tenant, long, rounds, &format!("{name}/{long}"));
    }
    print_index(&tenant, &name);
    drop(tenant);
    db.close().unwrap();
    let builder = Database::builder(&path).opened_bytes_max(KEPT_BYTES);
    let db = builder.open().unwrap();
    let tenant = db.tenant("t").unwrap();
    let rounds = if smoke { 1 } else { READS };
    read(
        &tenant,
        "one by one",
        rounds,
        &format!("{name}/one by one, kept"),
    );
}

fn print_index(tenant: &Tenant, name: &str) {
    let stats = tenant.stats().unwrap();
    println!(
        "{name}/index of streams in memory: {} bytes, {} a stream",
        stats.stream_index_bytes,
        stats.stream_index_bytes / stats.streams
    );
}

fn read(tenant: &Tenant, long: &str, rounds: usize, name: &str) {
    let stream = tenant.stream(long).unwrap();
    let events = usize::try_from(EVENTS).unwrap();
    let positions = stream
        .read(..EVENTS)
        .map(|record| record.unwrap().position());
    let positions = positions.collect::<Vec<_>>();
    assert_eq!(positions.len(), events);
    let (mut reads, mut floors, mut lasts) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        reads.push(timed(|| assert_eq!(stream.read(..EVENTS).count(), events)));
        lasts.push(timed(|| drop(black_box(stream.read(..).next_back()))));
        floors.push(timed(|| {
            for position in &positions {
                black_box(tenant.read_position(*position).unwrap());
            }
        }));
    }
    print(&format!("{name}/read {EVENTS} events"), reads);
    print(&format!("{name}/floor: read them by position"), floors);
    print(&format!("{name}/read the last event"), lasts);
}

fn make(path: &Path, streams: u64) {
    let builder = Database::builder(path).sync_policy(SyncPolicy::OnFlush);
    let db = builder.open().unwrap();
    let tenant = db.tenant("t").unwrap();
    let [ones, tens] = ["one by one", "ten by ten"].map(|name| tenant.stream(name).unwrap());
    let every = streams / EVENTS;
    let begun = Instant::now();
    for nth in 0..streams {
        append(&tenant.stream(&format!("patient/{nth}")).unwrap(), 1);
        if nth % every == 0 {
            append(&ones, 1);
        }
        if nth % (every * BATCH) == 0 {
            append(&tens, BATCH);
        }
        if nth % 100_000 == 99_999 {
            tenant.checkpoint().unwrap();
        }
    }
    let took = begun.elapsed();
    println!("streams/{streams}/made in {:.1} s", took.as_secs_f64());
    db.close().unwrap();
}

fn append(stream: &Stream, count: u64) {
    let events = (0..count).map(|_| Event::new("measured", vec![7; EVENT_BYTES]));
    let events = events.collect::<Vec<_>>();
    stream.append(ExpectedVersion::Any, &events).unwrap();
}

fn timed(act: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    act();
    begun.elapsed()
}

/// Reads the newest file of each sort that an opening reads.
fn read_bytes(path: &Path) -> Duration {
    let tenant = path.join("tenants/t");
    let newest = |directory: &str, ending: &str| {
        let names = std::fs::read_dir(tenant.join(directory)).unwrap();
        let names = names.map(|entry| entry.unwrap().path());
        let names = names.filter(|path| path.extension().is_some_and(|it| it == ending));
        names.max()
    };
    timed(|| {
        let files: [Option<PathBuf>; 4] = [
            newest("log", "seg"),
            newest("checkpoints", "snapshot"),
            newest("checkpoints", "state"),
            newest("checkpoints", "note"),
        ];
        for path in files.into_iter().flatten() {
            black_box(std::fs::read(path).unwrap());
        }
    })
}

fn print(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let milliseconds = |nth: usize| times[nth].as_secs_f64() * 1e3;
    println!(
        "{name}: {:.3} ms (rounds {:.3} to {:.3})",
        milliseconds(times.len() / 2),
        milliseconds(0),
        milliseconds(times.len() - 1)
    );
}
