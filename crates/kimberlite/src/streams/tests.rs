//! What becomes of the store where something other than its bytes goes wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use kimberlite_testkit::{CrashMode, SimulatedDisk};

use crate::{Database, DatabaseBuilder, Error, Event, ExpectedVersion, Position, Tenant};

fn small(disk: &SimulatedDisk) -> DatabaseBuilder {
    Database::builder("/db")
        .disk(Arc::new(disk.clone()))
        .background(false)
        .snapshot_growth_min(0)
        .stream_runs_max(4)
}

fn append(tenant: &Tenant, count: u64) -> Result<(), Error> {
    for n in 0..count {
        let stream = tenant.stream(&format!("s{}", n % 4))?;
        stream.append(ExpectedVersion::Any, &[Event::new("t", "d")])?;
    }
    Ok(())
}

fn read(tenant: &Tenant) -> u64 {
    let streams = (0..4).map(|n| tenant.stream(&format!("s{n}")).unwrap());
    let counts = streams.map(|stream| stream.read(..).map(Result::unwrap).count());
    counts.sum::<usize>().try_into().unwrap()
}

fn is_stored(disk: &SimulatedDisk) -> bool {
    let mut files = disk.files().into_iter();
    files.any(|path| path.ends_with("_streams/store"))
}

/// A tenant of 48 events with a store of runs, of which eight are behind its checkpoint.
fn with_store(disk: &SimulatedDisk, process_id: fn() -> u32) -> (Database, Tenant) {
    let db = small(disk).process_id(process_id).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    append(&tenant, 40).unwrap();
    tenant.checkpoint().unwrap();
    append(&tenant, 8).unwrap();
    (db, tenant)
}

#[test]
fn a_forked_process_leaves_the_store_alone() {
    static PROCESS: AtomicU32 = AtomicU32::new(7);
    let disk = SimulatedDisk::new(1);
    let (db, tenant) = with_store(&disk, || PROCESS.load(Ordering::Relaxed));
    // Taken in, and not flushed.
    let last = Position::new(tenant.durable_position().get() - 1);
    tenant.inner().shown.runs().take_in(last);
    assert!(is_stored(&disk));
    assert_eq!(read(&tenant), 48);
    PROCESS.store(8, Ordering::Relaxed);
    let ops = disk.ops();
    drop((tenant, db));
    assert_eq!(disk.ops(), ops);
    assert!(is_stored(&disk));
}

#[test]
fn a_forked_process_that_is_misled_removes_nothing() {
    static PROCESS: AtomicU32 = AtomicU32::new(7);
    let disk = SimulatedDisk::new(1);
    let (_db, tenant) = with_store(&disk, || PROCESS.load(Ordering::Relaxed));
    PROCESS.store(8, Ordering::Relaxed);
    let ops = disk.ops();
    let (_, number) = tenant.inner().shown.runs().view().unwrap();
    tenant.inner().misled(number);
    assert_eq!(read(&tenant), 48);
    assert_eq!(disk.ops(), ops);
    assert!(is_stored(&disk));
}

#[test]
fn a_store_that_stands_still_is_made_anew() {
    let mut stood = 0;
    for op in 1..40 {
        let disk = SimulatedDisk::new(1);
        let db = small(&disk).open().unwrap();
        let tenant = db.tenant("t").unwrap();
        append(&tenant, 40).unwrap();
        tenant.checkpoint().unwrap();
        append(&tenant, 40).unwrap();
        // One of the writes behind the checkpoint's own fails, which may be the store's.
        disk.fail_write_at(disk.ops() + op);
        if tenant.checkpoint().is_err() || append(&tenant, 4).is_err() {
            continue;
        }
        append(&tenant, 36).unwrap();
        stood += u32::from(tenant.inner().shown.runs().view().is_none());
        for _ in 0..3 {
            append(&tenant, 40).unwrap();
            tenant.checkpoint().unwrap();
        }
        append(&tenant, 4).unwrap();
        assert_eq!(read(&tenant), 244, "op {op}");
        assert!(is_stored(&disk), "op {op}");
        let kept = tenant.inner().catalog().index.runs_here();
        assert!(kept < 100, "op {op}: {kept} runs in memory");
        drop((tenant, db));
        let db = small(&disk.crash(CrashMode::LoseUnsynced)).open().unwrap();
        assert_eq!(read(&db.tenant("t").unwrap()), 244, "op {op}");
    }
    assert!(stood > 0, "no write of the store failed");
}
