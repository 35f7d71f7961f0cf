//! Logs with records of erasure, which a later version writes.

use std::error::Error as _;

use kimberlite_kernel::{Command, ErasureAct, Generation, Scope};
use kimberlite_types::{RecordKind, ShredId};

use super::*;
use crate::engine::Group;

/// Appends a record of this kind, and opens another session for what comes behind.
fn record(tenant: &Tenant, kind: RecordKind, command: Command, payload: &[u8]) -> Position {
    let inner = tenant.inner();
    let recorded = inner.with_engine(|engine| {
        let mut group = Group::default();
        let slot = engine.record(&mut group, kind, command, payload).unwrap();
        engine.session = None;
        inner.commit(engine, group)?;
        Ok(slot.position)
    });
    tenant.flush().unwrap();
    recorded.unwrap()
}

fn erase(tenant: &Tenant, act: ErasureAct, payload: &[u8]) -> Position {
    let time = Timestamp::from_nanoseconds(1_800_000_000_000_000_000);
    let seal = None;
    let command = Command::Erasure { act, seal, time };
    record(tenant, act.kind(), command, payload)
}

fn written() -> (SimulatedDisk, Database, Tenant) {
    let disk = SimulatedDisk::new(1);
    let db = builder(&disk, 1).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    append(&tenant, "s", 2, 10);
    (disk, db, tenant)
}

#[test]
fn what_a_shred_ends_is_ended_for_who_opens_the_log_from_a_snapshot_or_from_its_beginning() {
    let (disk, _db, tenant) = written();
    let tail = |word: u64| [&[1, 0, 0, 0], word.to_le_bytes().as_slice()].concat();
    let scope = Scope::Tenant;
    let shred = erase(&tenant, ErasureAct::Shred { scope }, &tail(u64::MAX));
    let shred = ShredId::new(shred);
    // No session is open in the state that this snapshot has.
    tenant.checkpoint().unwrap();
    assert!(compare(&disk, "pending") > 0);
    let (db, opened) = open(&disk.twin()).unwrap();
    let refused = opened.hold("too late").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Rejected);
    assert_eq!(opened.read_all(..).count(), 2, "its key is still there");
    drop((db, opened));

    append(&tenant, "s", 1, 10);
    let complete = ErasureAct::Complete { shred };
    erase(&tenant, complete, &tail(shred.position().get()));
    tenant.checkpoint().unwrap();
    assert!(compare(&disk, "complete") > 0);
    let (_db, opened) = open(&disk.twin()).unwrap();
    opened.hold("of what comes behind").unwrap();
    assert_eq!(opened.read_all(..).count(), 3);
}

#[test]
fn a_writer_refuses_acts_that_it_cannot_read_and_a_reader_passes_over_them() {
    let time = Timestamp::from_nanoseconds(1_800_000_000_000_000_000);
    let (seal, scope) = (None, Scope::Tenant);
    let rotate = Command::Rotate {
        generation: Generation::new(1),
        seal,
        time,
    };
    let shred = Command::Erasure {
        act: ErasureAct::Shred { scope },
        seal,
        time,
    };
    for (kind, command) in [
        (RecordKind::KeyRotation, rotate),
        (RecordKind::Shred, shred),
    ] {
        let (disk, db, tenant) = written();
        record(&tenant, kind, command, b"of a later version");
        drop((db, tenant));
        let refused = open(&disk.twin()).unwrap_err();
        let mut told = Vec::new();
        let mut cause = refused.source();
        while let Some(error) = cause {
            told.push(error.to_string());
            cause = error.source();
        }
        let kind = kind.to_string();
        assert!(told.iter().any(|it| it.contains(&kind)), "{told:?}");
        let (_db, observed) = observe(&disk);
        assert_eq!(observed.read_all(..).count(), 2);
    }
}
