//! Appending, reading and verifying through the facade, each beside its floor; `log` does the same
//! with the log by itself.
//!
//! `cargo bench --locked -p kimberlite-benches --bench storage [-- log]`.
#![expect(
    clippy::unwrap_used,
    reason = "a bench that fails has nothing to measure"
)]

#[path = "storage/log.rs"]
mod log;

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt as _;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kimberlite::{Database, Encryption, Event, ExpectedVersion, SyncPolicy, Tenant};

const BATCH: usize = 100;
const EVENT_BYTES: usize = 1024;

fn database(encryption: Encryption, sync_policy: SyncPolicy) -> (tempfile::TempDir, Database) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let builder = Database::builder(dir.path().join("db"));
    let db = builder
        .encryption(encryption)
        .sync_policy(sync_policy)
        .open()
        .unwrap();
    (dir, db)
}

fn events() -> Vec<Event> {
    (0..BATCH)
        .map(|_| Event::new("measured", vec![7; EVENT_BYTES]))
        .collect()
}

fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("append_batch_100_of_1_kib");
    group.throughput(Throughput::Elements(BATCH as u64));
    let cases = [
        ("unsynced_encrypted", Encryption::On, SyncPolicy::OnFlush),
        ("unsynced_plain", Encryption::Off, SyncPolicy::OnFlush),
        ("synced_encrypted", Encryption::On, SyncPolicy::EveryBatch),
    ];
    for (name, encryption, sync_policy) in cases {
        let (_dir, db) = database(encryption, sync_policy);
        let stream = db.tenant("t").unwrap().stream("s").unwrap();
        let events = events();
        group.bench_function(name, |b| {
            b.iter(|| stream.append(ExpectedVersion::Any, &events).unwrap());
        });
    }
    for (name, sync) in [
        ("floor_unsynced_write", false),
        ("floor_synced_write", true),
    ] {
        let file = floor_file();
        let bytes = vec![7; BATCH * (EVENT_BYTES + 64)];
        let mut at = 0;
        group.bench_function(name, |b| {
            b.iter(|| {
                file.write_all_at(&bytes, at).unwrap();
                at = (at + bytes.len() as u64) % (60 << 20);
                if sync {
                    file.sync_data().unwrap();
                }
            });
        });
    }
    group.finish();
}

/// A file that was written with zeros ahead, as segments are.
fn floor_file() -> File {
    let file = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    file.write_all_at(&vec![0; 64 << 20], 0).unwrap();
    file.sync_all().unwrap();
    file
}

fn filled(encryption: Encryption, batches: usize) -> (tempfile::TempDir, Database, Tenant) {
    let (dir, db) = database(encryption, SyncPolicy::OnFlush);
    let tenant = db.tenant("t").unwrap();
    let stream = tenant.stream("s").unwrap();
    let events = events();
    for _ in 0..batches {
        stream.append(ExpectedVersion::Any, &events).unwrap();
    }
    tenant.flush().unwrap();
    (dir, db, tenant)
}

/// Percentiles of reads at jumping positions, through the facade, all of the log in the page cache.
fn read(_: &mut Criterion) {
    for (name, encryption) in [("encrypted", Encryption::On), ("plain", Encryption::Off)] {
        let (_dir, _db, tenant) = filled(encryption, 1000);
        let end = tenant.durable_position().get();
        log::percentiles(
            &format!("read_record_by_position/{name}"),
            3..end,
            |position| {
                black_box(tenant.read_position(position.into()).unwrap());
            },
        );
    }
}

fn verify(c: &mut Criterion) {
    let mut group = c.benchmark_group("verify");
    group.sample_size(10);
    let (_dir, _db, tenant) = filled(Encryption::On, 1000);
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

criterion_group!(
    benches,
    append,
    read,
    verify,
    log::append,
    log::read,
    log::verify_log
);
criterion_main!(benches);
