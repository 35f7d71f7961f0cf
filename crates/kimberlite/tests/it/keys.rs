//! Key files: wrong, missing, damaged, readable by others.

use std::path::Path;

use kimberlite::{ErrorKind, ExpectedVersion};
use kimberlite_disk::{Access, Disk};
use kimberlite_testkit::SimulatedDisk;

use crate::support::{builder, contents, event};

fn written() -> SimulatedDisk {
    let disk = SimulatedDisk::new(1);
    let db = builder(&disk, 1).open().unwrap();
    let stream = db.tenant("t").unwrap().stream("s").unwrap();
    stream.append(ExpectedVersion::Any, &[event("0")]).unwrap();
    drop(stream);
    db.close().unwrap();
    disk
}

fn kind_of_opening(disk: &SimulatedDisk) -> ErrorKind {
    let opened = builder(disk, 9)
        .open()
        .and_then(|db| db.tenant("t").map(drop));
    opened.unwrap_err().kind()
}

#[test]
fn another_root_key_is_refused() {
    let (disk, other) = (written(), SimulatedDisk::new(2));
    drop(builder(&other, 5).open().unwrap());
    let path = Path::new("/db/keys/root.key");
    disk.write_new_atomic(path, &other.contents(path), Access::Private)
        .unwrap();
    assert_eq!(kind_of_opening(&disk), ErrorKind::WrongKey);
}

#[test]
fn a_missing_root_key_is_never_replaced() {
    let disk = written();
    disk.remove(Path::new("/db/keys/root.key")).unwrap();
    assert_eq!(kind_of_opening(&disk), ErrorKind::KeyFile);
}

#[test]
fn key_files_that_others_can_read_are_refused() {
    for file in [
        "/db/keys/root.key",
        "/db/keys/t/keyring.a",
        "/db/keys/t/signer.pem",
    ] {
        let disk = written();
        let path = Path::new(file);
        let bytes = disk.contents(path);
        disk.remove(path).unwrap();
        disk.write_new_atomic(path, &bytes, Access::Shared).unwrap();
        assert_eq!(kind_of_opening(&disk), ErrorKind::KeyFile, "{file}");
    }
}

#[test]
fn a_damaged_newest_keyring_slot_is_mended_and_two_damaged_ones_are_refused() {
    let (newer, older) = (
        Path::new("/db/keys/t/keyring.b"),
        Path::new("/db/keys/t/keyring.a"),
    );
    let disk = written();
    disk.flip(newer, 40, 0x80);
    drop(builder(&disk, 7).open().unwrap().tenant("t").unwrap());
    disk.flip(older, 40, 0x80);
    drop(builder(&disk, 7).open().unwrap().tenant("t").unwrap());
    disk.flip(newer, 40, 0x80);
    assert_eq!(kind_of_opening(&disk), ErrorKind::KeyFile);
}

#[test]
fn a_log_that_is_gone_is_not_begun_anew() {
    let disk = written();
    for path in disk.files() {
        if path.starts_with("/db/tenants") {
            disk.remove(&path).unwrap();
        }
    }
    assert_eq!(kind_of_opening(&disk), ErrorKind::RolledBack);
}

#[test]
fn making_a_tenant_survives_a_crash_at_every_step() {
    let whole = SimulatedDisk::new(1);
    drop(builder(&whole, 1).open().unwrap().tenant("t").unwrap());
    for op in 1..=whole.ops() {
        for seed in 0..4 {
            let disk = SimulatedDisk::new(1);
            disk.crash_after(op);
            let _ = builder(&disk, 1)
                .open()
                .and_then(|db| db.tenant("t").map(drop));
            let disk = disk.crash(kimberlite_testkit::CrashMode::Mixed(seed));
            let db = builder(&disk, 2 + seed).open().unwrap();
            let stream = db.tenant("t").unwrap().stream("s").unwrap();
            stream.append(ExpectedVersion::Any, &[event("0")]).unwrap();
            assert_eq!(contents(&db, "t"), ["0"], "op {op}, seed {seed}");
        }
    }
}
