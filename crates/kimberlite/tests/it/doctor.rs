//! What a look at a database says of every state that it can be in, and that it changes nothing.

use std::path::Path;

use kimberlite::{Condition, Diagnosis, ErrorKind, ExpectedVersion};
use kimberlite_disk::{Access, Disk};
use kimberlite_testkit::{CrashMode, SimulatedDisk};

use crate::support::{builder, event, open_at};

const SEGMENT: &str = "/db/tenants/t/log/00000000000000000000.seg";

fn written() -> SimulatedDisk {
    let disk = SimulatedDisk::new(1);
    let db = builder(&disk, 1).open().unwrap();
    let stream = db.tenant("t").unwrap().stream("s").unwrap();
    for bytes in [10, 4000, 300_000] {
        let event = event(&"x".repeat(bytes));
        stream.append(ExpectedVersion::Any, &[event]).unwrap();
    }
    drop(stream);
    db.close().unwrap();
    disk
}

fn diagnose(disk: &SimulatedDisk) -> Diagnosis {
    let ops = disk.ops();
    let diagnosis = builder(disk, 9).diagnose().unwrap();
    assert_eq!(disk.ops(), ops, "it changed something");
    diagnosis
}

/// The conditions of the only tenant.
fn conditions(disk: &SimulatedDisk) -> Vec<Condition> {
    let diagnosis = diagnose(disk);
    let symptoms = diagnosis.tenants[0].1.iter();
    symptoms.map(|symptom| symptom.condition).collect()
}

#[test]
fn a_database_that_was_closed_is_in_order_and_one_that_is_open_is_in_use() {
    let disk = written();
    assert_eq!(diagnose(&disk).worst(), None);
    let db = builder(&disk, 2).open().unwrap();
    let found = diagnose(&disk);
    assert_eq!(found.worst(), Some(Condition::InUse));
    assert_eq!(found.database.len(), 1);
    drop(db);
    let none = open_at(&disk, "/none", 3).diagnose().unwrap_err();
    assert_eq!(none.kind(), ErrorKind::NotFound);
}

#[test]
fn damage_is_told_with_its_place() {
    let disk = written();
    disk.flip(SEGMENT, 4096 + 20, 1);
    let found = diagnose(&disk);
    let symptom = &found.tenants[0].1[0];
    assert_eq!(symptom.condition, Condition::Corrupt);
    assert_eq!(symptom.segment.as_deref(), Some("00000000000000000000.seg"));
    assert_eq!(
        (symptom.byte, symptom.position.map(u64::from)),
        (Some(4096), Some(0))
    );
}

#[test]
fn a_log_that_lost_its_end_was_rolled_back() {
    let disk = written();
    for path in disk.files() {
        let last = path.to_str().unwrap();
        if last.starts_with("/db/tenants/t/log/") && !last.contains("00000000000000000000.") {
            disk.remove(&path).unwrap();
        }
    }
    disk.remove(Path::new("/db/tenants/t/log/00000000000000000000.seal"))
        .unwrap();
    assert_eq!(conditions(&disk), [Condition::RolledBack]);
    disk.remove(Path::new(SEGMENT)).unwrap();
    assert_eq!(conditions(&disk), [Condition::RolledBack]);
}

#[test]
fn a_torn_end_and_what_is_left_of_it_are_told_apart() {
    let disk = SimulatedDisk::new(1);
    let db = builder(&disk, 1).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    let stream = tenant.stream("s").unwrap();
    let large = event(&"x".repeat(4000));
    let at = stream.append(ExpectedVersion::Any, &[large]).unwrap();
    let (byte, header) = tenant.frame(at.first_position()).unwrap().unwrap();
    drop((db, tenant, stream));
    let disk = disk.crash(CrashMode::LoseUnsynced);
    let lost = (byte + 1024).next_multiple_of(512);
    let zeros = byte + u64::from(header.length) - lost;
    disk.overwrite(SEGMENT, lost, &vec![0; usize::try_from(zeros).unwrap()]);
    assert_eq!(conditions(&disk), [Condition::TornTail]);
    drop(builder(&disk, 2).open().unwrap().tenant("t").unwrap());
    assert_eq!(conditions(&disk), [Condition::KeptTails]);
}

#[test]
fn keys_that_cannot_be_used_are_told() {
    for (file, condition) in [
        ("/db/keys/t/signer.pem", Condition::KeyFile),
        ("/db/keys/root.key", Condition::KeyFile),
    ] {
        let disk = written();
        disk.remove(Path::new(file)).unwrap();
        assert_eq!(diagnose(&disk).worst(), Some(condition), "{file}");
    }
    let (disk, other) = (written(), SimulatedDisk::new(2));
    drop(builder(&other, 5).open().unwrap());
    let root = Path::new("/db/keys/root.key");
    disk.write_new_atomic(root, &other.contents(root), Access::Private)
        .unwrap();
    assert_eq!(conditions(&disk), [Condition::WrongKey]);
}

#[test]
fn leftovers_missing_seals_and_bad_checkpoints_are_told() {
    let disk = written();
    disk.create(Path::new("/db/tenants/t/log/next.tmp"), Access::Shared)
        .unwrap();
    disk.remove(Path::new("/db/tenants/t/log/00000000000000000000.seal"))
        .unwrap();
    let note = disk
        .files()
        .into_iter()
        .find(|path| path.extension().is_some_and(|it| it == "note"));
    disk.flip(note.unwrap(), 3, 1);
    let expected = [
        Condition::BadCheckpoint,
        Condition::MissingSeal,
        Condition::TemporaryFiles,
    ];
    assert_eq!(conditions(&disk), expected);
}

#[test]
fn a_tenant_that_never_came_into_being_is_told() {
    let disk = SimulatedDisk::new(1);
    drop(builder(&disk, 1).open().unwrap());
    let made = disk.ops();
    disk.crash_after(made + 20);
    let _ = builder(&disk, 1)
        .open()
        .and_then(|db| db.tenant("t").map(drop));
    let disk = disk.crash(CrashMode::KeepUnsynced);
    assert!(conditions(&disk).contains(&Condition::UnfinishedCreation));
}
