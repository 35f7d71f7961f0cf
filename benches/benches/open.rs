//! Opening a tenant with many records, after it was closed and after its process was killed, beside
//! the floor: listing its directories and reading the bytes that an opening has to look at.
//!
//! `cargo bench --locked -p kimberlite-benches --bench open [-- 10000000]`: the number of records,
//! 300,000 where none is said. They are events of 256 bytes in batches of 100, encrypted, that go to
//! four streams in turn. The files are in the page cache.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench that fails has nothing to measure, and its figures are what it is for"
)]

use std::fs;
use std::hint::black_box;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kimberlite::{Database, DatabaseBuilder, Event, ExpectedVersion, SyncPolicy, Tenant};

const BATCH: u64 = 100;
const EVENT_BYTES: usize = 256;
const STREAMS: u64 = 4;
const RECORDS: u64 = 300_000;
/// As often as a database makes them by itself.
const CHECKPOINT_RECORDS: u64 = 100_000;
const ROUNDS: usize = 5;
const DENSITY_RECORDS: u64 = 500_000;

fn main() {
    let arguments = std::env::args().skip(1).collect::<Vec<_>>();
    let smoke = arguments.iter().any(|argument| argument == "--test");
    let wanted = arguments.iter().find_map(|argument| argument.parse().ok());
    let records = if smoke {
        2_000
    } else {
        wanted.unwrap_or(RECORDS)
    };
    let behind = (CHECKPOINT_RECORDS - BATCH).min(records);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let log = Log(dir.path().join("db"));
    log.make(records);
    let (mut killed, mut closed, mut floor) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..if smoke { 1 } else { ROUNDS } {
        // Without background threads nobody makes a checkpoint of what is new.
        let db = log.builder().background(false).open().unwrap();
        append(&db.tenant("t").unwrap(), behind);
        drop(db);
        let (took, db) = log.open();
        killed.push(took);
        db.close().unwrap();
        let (took, db) = log.open();
        closed.push(took);
        db.close().unwrap();
        floor.push(log.read_floor());
    }
    let name = format!("open/{records} records");
    print(&format!("{name}/closed"), closed);
    print(
        &format!("{name}/killed, {behind} records behind the checkpoint"),
        killed,
    );
    print(
        &format!("{name}/floor: list, read what an opening reads"),
        floor,
    );
    log.print_memory(&name);
    log.remove_snapshots();
    let (took, _db) = log.open();
    print(&format!("{name}/closed, without a snapshot"), vec![took]);
    for (stride, batch) in [1, 4, 16, 64]
        .into_iter()
        .flat_map(|it| [(it, 1), (it, BATCH)])
    {
        density(
            stride << 10,
            batch,
            if smoke { 100 } else { DENSITY_RECORDS },
        );
    }
}

/// What an index costs in memory that has an entry for each so many bytes of frames, and how long a
/// read takes with it, of frames of one event and of many.
fn density(stride_bytes: u64, batch: u64, records: u64) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let builder = Database::builder(dir.path().join("db"))
        .sync_policy(SyncPolicy::OnFlush)
        .index_stride_bytes(stride_bytes)
        .tail_bytes_max(0);
    let tenant = builder.open().unwrap().tenant("t").unwrap();
    append_batches(&tenant, records, batch);
    tenant.flush().unwrap();
    let stats = tenant.stats().unwrap();
    // What is not in the active segment is read from mappings.
    let end = tenant
        .inspect()
        .unwrap()
        .segments
        .last()
        .unwrap()
        .base
        .get();
    let end = if end == 0 { stats.records } else { end };
    let reads = records.min(100_000);
    let mut took = Duration::ZERO;
    for warm in [false, true] {
        let begun = Instant::now();
        for nth in 0..reads {
            let position = 3 + nth * 7_919 % (end - 3);
            black_box(tenant.read_position(position.into()).unwrap());
        }
        took = if warm { begun.elapsed() } else { took };
    }
    let name = format!("open/index of {stride_bytes} bytes, batches of {batch}");
    print_bytes(&name, stats.index_bytes, stats.records);
    let reads = u32::try_from(reads).unwrap();
    println!(
        "{name}: {:.2} µs a read",
        took.as_secs_f64() * 1e6 / f64::from(reads)
    );
}

struct Log(PathBuf);

impl Log {
    fn builder(&self) -> DatabaseBuilder {
        Database::builder(&self.0)
    }

    fn make(&self, records: u64) {
        let builder = self.builder().sync_policy(SyncPolicy::OnFlush);
        let db = builder.open().unwrap();
        let tenant = db.tenant("t").unwrap();
        let mut left = records;
        while left > 0 {
            let some = left.min(CHECKPOINT_RECORDS);
            append(&tenant, some);
            tenant.checkpoint().unwrap();
            left -= some;
        }
        let stats = tenant.stats().unwrap();
        print_bytes(
            "open/index of positions while writing",
            stats.index_bytes,
            stats.records,
        );
        db.close().unwrap();
    }

    fn open(&self) -> (Duration, Database) {
        let begun = Instant::now();
        let db = self.builder().open().unwrap();
        let tenant = db.tenant("t").unwrap();
        let took = begun.elapsed();
        drop(tenant);
        (took, db)
    }

    fn tenant_dir(&self) -> PathBuf {
        self.0.join("tenants/t")
    }

    /// Lists both directories, and reads the last segment, the newest snapshot, state and note.
    fn read_floor(&self) -> Duration {
        let begun = Instant::now();
        let newest = |dir: &Path, ending: &str| {
            let names = fs::read_dir(dir)
                .unwrap()
                .map(|entry| entry.unwrap().path());
            let names = names.filter(|path| path.extension().is_some_and(|it| it == ending));
            names.max()
        };
        let (log, checkpoints) = (
            self.tenant_dir().join("log"),
            self.tenant_dir().join("checkpoints"),
        );
        let files = [
            newest(&log, "seg"),
            newest(&checkpoints, "snapshot"),
            newest(&checkpoints, "state"),
            newest(&checkpoints, "note"),
        ];
        let mut buffer = vec![0; 1 << 20];
        for path in files.into_iter().flatten() {
            let mut file = fs::File::open(path).unwrap();
            while file.read(&mut buffer).unwrap() > 0 {
                black_box(&buffer);
            }
        }
        begun.elapsed()
    }

    /// What the indexes take after an opening, and once every segment was read.
    fn print_memory(&self, name: &str) {
        let (_, db) = self.open();
        let tenant = db.tenant("t").unwrap();
        let opened = tenant.stats().unwrap();
        let mut position = 0;
        while position < opened.records {
            tenant.read_position(position.into()).unwrap();
            position += 1_000;
        }
        let read = tenant.stats().unwrap();
        print_bytes(
            &format!("{name}/index of positions, opened"),
            opened.index_bytes,
            opened.records,
        );
        print_bytes(
            &format!("{name}/index of positions, all segments read"),
            read.index_bytes,
            read.records,
        );
        print_bytes(
            &format!("{name}/index of streams"),
            opened.stream_index_bytes,
            opened.records,
        );
    }

    fn remove_snapshots(&self) {
        let entries = fs::read_dir(self.tenant_dir().join("checkpoints")).unwrap();
        for entry in entries {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|it| it == "snapshot") {
                println!(
                    "open/snapshot: {} bytes",
                    fs::metadata(&path).unwrap().len()
                );
                fs::remove_file(path).unwrap();
            }
        }
    }
}

fn append(tenant: &Tenant, records: u64) {
    append_batches(tenant, records, BATCH);
}

fn append_batches(tenant: &Tenant, records: u64, batch: u64) {
    let appends = usize::try_from(records / batch).unwrap();
    let batch = (0..batch).map(|_| Event::new("measured", vec![7; EVENT_BYTES]));
    let events = batch.collect::<Vec<_>>();
    let streams = (0..STREAMS).map(|nth| tenant.stream(&format!("s{nth}")).unwrap());
    let streams = streams.collect::<Vec<_>>();
    for stream in streams.iter().cycle().take(appends) {
        stream.append(ExpectedVersion::Any, &events).unwrap();
    }
}

fn print(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let milliseconds = |nth: usize| times[nth].as_secs_f64() * 1e3;
    println!(
        "{name}: {:.1} ms (rounds {:.1} to {:.1})",
        milliseconds(times.len() / 2),
        milliseconds(0),
        milliseconds(times.len() - 1)
    );
}

fn print_bytes(name: &str, bytes: u64, records: u64) {
    let of = |count: u64| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    println!("{name}: {:.3} bytes a record", of(bytes) / of(records));
}
