//! Appending, reading and verifying through the facade, each beside its floor; `log` does the same
//! with the log by itself.
//!
//! `cargo bench --locked -p kimberlite-benches --bench storage [-- log]`.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench that fails has nothing to measure, and its figures are what it is for"
)]

#[path = "storage/backends.rs"]
mod backends;
#[path = "storage/latencies.rs"]
mod latencies;
#[path = "storage/log.rs"]
mod log;
#[path = "storage/purges.rs"]
mod purges;
#[path = "storage/reads.rs"]
mod reads;
#[path = "storage/rolls.rs"]
mod rolls;
#[path = "storage/threads.rs"]
mod threads;

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt as _;

use criterion::{Criterion, Throughput, criterion_group};
use kimberlite::{Database, Encryption, Event, ExpectedVersion, SyncPolicy, Tenant, WriteMode};
use latencies::{Case, compare};

const BATCH: usize = 100;
const EVENT_BYTES: usize = 1024;
/// Appends of a round.
const APPENDS: u64 = 3_000;
/// As large as the largest usual segment.
const FLOOR_FILE_BYTES: u64 = 64 << 20;

fn database(encryption: Encryption, sync_policy: SyncPolicy) -> (tempfile::TempDir, Database) {
    database_by(WriteMode::default(), encryption, sync_policy)
}

fn database_by(
    write_mode: WriteMode,
    encryption: Encryption,
    sync_policy: SyncPolicy,
) -> (tempfile::TempDir, Database) {
    let dir = tempfile::tempdir_in(latencies::scratch()).unwrap();
    let builder = Database::builder(dir.path().join("db"));
    let db = builder
        .encryption(encryption)
        .sync_policy(sync_policy)
        .write_mode(write_mode)
        .open()
        .unwrap();
    (dir, db)
}

fn events() -> Vec<Event> {
    (0..BATCH)
        .map(|_| Event::new("measured", vec![7; EVENT_BYTES]))
        .collect()
}

fn append() {
    let ours = |name, encryption, sync_policy| Case {
        name,
        elements: BATCH as u64,
        prepare: Box::new(move || {
            let (dir, db) = database(encryption, sync_policy);
            let stream = db.tenant("t").unwrap().stream("s").unwrap();
            let events = events();
            Box::new(move |_| {
                let _ = (&dir, &db);
                stream.append(ExpectedVersion::Any, &events).unwrap();
            })
        }),
    };
    let floor = |name, sync| Case {
        name,
        elements: BATCH as u64,
        prepare: Box::new(move || {
            let file = floor_file();
            let bytes = vec![7; BATCH * (EVENT_BYTES + 64)];
            let places = FLOOR_FILE_BYTES / bytes.len() as u64;
            Box::new(move |nth| {
                let at = nth % places * bytes.len() as u64;
                file.write_all_at(&bytes, at).unwrap();
                if sync {
                    file.sync_data().unwrap();
                }
            })
        }),
    };
    let cases = [
        ours("synced encrypted", Encryption::On, SyncPolicy::EveryBatch),
        floor("floor: write and sync into zeros", true),
        ours("unsynced encrypted", Encryption::On, SyncPolicy::OnFlush),
        ours("unsynced plain", Encryption::Off, SyncPolicy::OnFlush),
        floor("floor: write into zeros", false),
    ];
    compare("append_100_of_1_kib", APPENDS, &cases);
}

/// A file that was written with zeros ahead, as segments are.
fn floor_file() -> File {
    let file = tempfile::tempfile_in(latencies::scratch()).unwrap();
    let zeros = vec![0; 1 << 20];
    for at in (0..FLOOR_FILE_BYTES).step_by(zeros.len()) {
        file.write_all_at(&zeros, at).unwrap();
    }
    file.sync_all().unwrap();
    file
}

fn filled(batches: usize) -> (tempfile::TempDir, Database, Tenant) {
    let (dir, db) = database(Encryption::On, SyncPolicy::OnFlush);
    let tenant = db.tenant("t").unwrap();
    let stream = tenant.stream("s").unwrap();
    let events = events();
    for _ in 0..batches {
        stream.append(ExpectedVersion::Any, &events).unwrap();
    }
    tenant.flush().unwrap();
    (dir, db, tenant)
}

fn verify(c: &mut Criterion) {
    let mut group = c.benchmark_group("verify");
    group.sample_size(10);
    let (_dir, _db, tenant) = filled(1000);
    group.throughput(Throughput::Bytes(1000 * BATCH as u64 * EVENT_BYTES as u64));
    group.bench_function("100k_records_of_1_kib", |b| {
        b.iter(|| tenant.verify().unwrap());
    });
    let bytes = vec![7; EVENT_BYTES];
    group.bench_function("floor_payload_digests_on_one_core", |b| {
        b.iter(|| {
            for _ in 0..1000 * BATCH {
                black_box(kimberlite_crypto::payload_digest(black_box(&bytes)));
            }
        });
    });
    group.finish();
}

criterion_group!(benches, verify, log::verify_log);

fn main() {
    append();
    threads::compare();
    backends::compare();
    rolls::rolls();
    reads::read();
    reads::scan();
    log::append();
    log::read();
    purges::compare();
    benches();
    Criterion::default().configure_from_args().final_summary();
}
