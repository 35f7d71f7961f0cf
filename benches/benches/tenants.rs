//! What an open tenant takes of disk and memory, where there are very many of them.
//!
//! `cargo bench --locked -p kimberlite-benches --bench tenants [-- 10000]`; the directory is the target
//! directory's, or the one that `KIMBERLITE_BENCH_DIR` names.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench that fails has nothing to measure; it looks at its own process and files"
)]

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use kimberlite::{Database, Event, ExpectedVersion};

const PAGE_BYTES: u64 = 4096;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let given = arguments.find_map(|argument| argument.parse::<u64>().ok());
    let smoke = std::env::args().any(|argument| argument == "--test");
    let count = given.unwrap_or(if smoke { 3 } else { 1_000 });
    let chosen = std::env::var_os("KIMBERLITE_BENCH_DIR");
    let scratch = chosen.map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    let dir = tempfile::tempdir_in(scratch).unwrap();
    let db = Database::open(dir.path()).unwrap();
    // What the first one takes is the process's.
    fill(&db, 0);
    let (disk, memory) = (disk_bytes(dir.path()), resident_bytes());
    let begun = Instant::now();
    for nth in 1..=count {
        fill(&db, nth);
    }
    report("made", count, begun, resident_bytes() - memory);
    let disk = (disk_bytes(dir.path()) - disk) / count;
    println!("tenants: {count}, on disk {:.1} KiB each", kib(disk));
    let begun = Instant::now();
    db.close().unwrap();
    println!("tenants: closed, {:.2} s", begun.elapsed().as_secs_f64());
    let db = Database::open(dir.path()).unwrap();
    db.tenant("tenant-0").unwrap();
    let begun = Instant::now();
    for nth in 1..=count {
        db.tenant(&format!("tenant-{nth}")).unwrap();
    }
    // All that the process has, by then without those that made them.
    report("opened again", count, begun, resident_bytes());
}

fn fill(db: &Database, nth: u64) {
    let tenant = db.tenant(&format!("tenant-{nth}")).unwrap();
    let stream = tenant.stream("events").unwrap();
    for data in ["one", "two", "three"] {
        stream
            .append(ExpectedVersion::Any, &[Event::new("noted", data)])
            .unwrap();
    }
}

fn report(what: &str, count: u64, begun: Instant, memory: u64) {
    let seconds = begun.elapsed().as_secs_f64();
    let each = kib(memory / count);
    println!("tenants: {count} {what} in {seconds:.2} s, in memory {each:.1} KiB each");
}

fn kib(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes).unwrap_or(u32::MAX)) / 1024.0
}

/// The memory of this process that stands in pages of its own or of files.
fn resident_bytes() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    let resident = pages.split_whitespace().nth(1).unwrap();
    resident.parse::<u64>().unwrap() * PAGE_BYTES
}

/// The space that a directory and all below it take.
fn disk_bytes(path: &Path) -> u64 {
    let own = fs::symlink_metadata(path).unwrap();
    let mut bytes = own.blocks() * 512;
    if own.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            bytes += disk_bytes(&entry.unwrap().path());
        }
    }
    bytes
}
