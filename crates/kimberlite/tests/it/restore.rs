//! Restored databases: checked file by file, a new incarnation each, and whole after any crash.

use std::path::Path;

use kimberlite::{
    BackupOptions, Database, Error, ErrorKind, ExpectedVersion, RecordKind, RestoreOptions,
    RestoreReport,
};
use kimberlite_disk::Disk;
use kimberlite_testkit::{CrashMode, SimulatedDisk};

use crate::support::{contents, event, kinds, open_at};

fn append(db: &Database, text: &str) -> Result<(), Error> {
    let stream = db.tenant("t")?.stream("s")?;
    stream
        .append(ExpectedVersion::Any, &[event(text)])
        .map(drop)
}

/// A database with three events, and the backup of the first two.
fn backed_up() -> SimulatedDisk {
    let disk = SimulatedDisk::new(1);
    let db = open_at(&disk, "/db", 1).open().unwrap();
    append(&db, "0").unwrap();
    append(&db, "1").unwrap();
    let options = BackupOptions::new().with_root_key(true);
    db.backup(Path::new("/backup"), &options, &mut |_| {})
        .unwrap();
    append(&db, "2").unwrap();
    db.close().unwrap();
    disk
}

fn restore(disk: &SimulatedDisk, to: &str, seed: u64) -> Result<RestoreReport, Error> {
    let options = RestoreOptions::new();
    open_at(disk, to, seed).restore(Path::new("/backup"), &options, &mut |_| {})
}

/// Opens a database for writing, and looks at everything.
fn check_restored(disk: &SimulatedDisk, path: &str, texts: &[&str]) -> String {
    let db = open_at(disk, path, 77).open().unwrap();
    assert_eq!(contents(&db, "t"), texts);
    let tenant = db.tenant("t").unwrap();
    let restores = kinds(&tenant).into_iter();
    assert_eq!(
        restores.filter(|kind| *kind == RecordKind::Restore).count(),
        1
    );
    let report = tenant.verify().unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
    let origin = tenant.inspect().unwrap().origin;
    drop(tenant);
    db.close().unwrap();
    origin
}

#[test]
fn a_restored_log_says_so_and_signs_under_a_name_of_its_own() {
    let disk = backed_up();
    let first = restore(&disk, "/a", 2).unwrap();
    let second = restore(&disk, "/b", 3).unwrap();
    assert!(!first.lacks_root_key && !first.later_backup_unfinished);
    let origins = [&first, &second].map(|report| report.tenants[0].origin.clone());
    assert_ne!(origins[0], origins[1], "two restores never share a name");
    let reader = open_at(&disk, "/a", 4).read_only(true).open().unwrap();
    assert!(
        reader
            .existing_tenant("t")
            .unwrap()
            .verify()
            .unwrap()
            .is_sound()
    );
    assert_eq!(check_restored(&disk, "/a", &["0", "1"]), origins[0]);
    let db = open_at(&disk, "/a", 5).open().unwrap();
    append(&db, "other").unwrap();
    let checkpoint = db.tenant("t").unwrap().checkpoint().unwrap();
    assert_eq!(checkpoint.origin(), origins[0]);
    db.close().unwrap();
    check_restored(&disk, "/a", &["0", "1", "other"]);
    // The record names what it was restored from.
    let db = open_at(&disk, "/a", 6).read_only(true).open().unwrap();
    let tenant = db.existing_tenant("t").unwrap();
    let at = kinds(&tenant)
        .iter()
        .position(|kind| *kind == RecordKind::Restore);
    assert_eq!(
        u64::try_from(at.unwrap()).unwrap(),
        first.tenants[0].records
    );
}

#[test]
fn a_restore_of_a_backup_of_a_restore_is_the_third_incarnation() {
    let disk = backed_up();
    restore(&disk, "/db2", 2).unwrap();
    let db = open_at(&disk, "/db2", 3).open().unwrap();
    append(&db, "2b").unwrap();
    let options = BackupOptions::new().with_root_key(true);
    db.backup(Path::new("/backup2"), &options, &mut |_| {})
        .unwrap();
    let refused = db.backup(Path::new("/backup"), &options, &mut |_| {});
    assert!(refused.is_ok(), "it goes on from what is there");
    drop(db);
    let builder = open_at(&disk, "/db3", 4);
    let options = RestoreOptions::new();
    let report = builder
        .restore(Path::new("/backup2"), &options, &mut |_| {})
        .unwrap();
    let origin = &report.tenants[0].origin;
    assert!(
        origin.split('/').next_back().unwrap().starts_with("3-"),
        "{origin}"
    );
    let db = open_at(&disk, "/db3", 5).open().unwrap();
    append(&db, "3c").unwrap();
    assert_eq!(contents(&db, "t"), ["0", "1", "2b", "3c"]);
    let tenant = db.tenant("t").unwrap();
    tenant.checkpoint().unwrap();
    let verified = tenant.verify().unwrap();
    assert!(verified.is_sound(), "{:?}", verified.findings);
    assert_eq!(verified.checkpoints, 3, "those of all incarnations count");
}

#[test]
fn a_note_of_the_original_beyond_the_backup_is_about_another_history() {
    let disk = backed_up();
    let report = restore(&disk, "/a", 2).unwrap();
    let notes = Path::new("/db/tenants/t/checkpoints");
    let newest = disk.list(notes).unwrap();
    let is_note = |name: &str| Path::new(name).extension().is_some_and(|it| it == "note");
    let newest = newest.iter().rfind(|entry| is_note(&entry.name));
    let name = &newest.unwrap().name;
    let foreign = Path::new("/a/tenants/t/checkpoints").join(name);
    let bytes = disk.contents(notes.join(name));
    disk.write_new_atomic(&foreign, &bytes, kimberlite_disk::Access::Shared)
        .unwrap();
    let db = open_at(&disk, "/a", 3).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    let newest = tenant.latest_checkpoint().unwrap().unwrap();
    assert_eq!(newest.size(), report.tenants[0].records);
    assert!(
        !tenant.verify().unwrap().is_sound(),
        "and verify tells of it"
    );
}

#[test]
fn a_log_whose_incarnation_file_is_gone_or_foreign_is_refused() {
    for signed in [false, true] {
        let disk = backed_up();
        restore(&disk, "/a", 2).unwrap();
        let db = open_at(&disk, "/a", 3).open().unwrap();
        append(&db, "x").unwrap();
        if signed {
            db.tenant("t").unwrap().checkpoint().unwrap();
        }
        drop(db);
        let path = Path::new("/a/tenants/t/incarnation");
        let whole = disk.snapshot();
        disk.remove(path).unwrap();
        let opened = open_at(&disk, "/a", 4)
            .open()
            .unwrap()
            .tenant("t")
            .map(drop);
        assert_eq!(
            opened.unwrap_err().kind(),
            ErrorKind::Corrupt,
            "gone, {signed}"
        );
        restore(&whole, "/b", 5).unwrap();
        let other = whole.contents("/b/tenants/t/incarnation");
        whole
            .write_new_atomic(path, &other, kimberlite_disk::Access::Shared)
            .unwrap();
        let opened = open_at(&whole, "/a", 6)
            .open()
            .unwrap()
            .tenant("t")
            .map(drop);
        assert_eq!(
            opened.unwrap_err().kind(),
            ErrorKind::Corrupt,
            "foreign, {signed}"
        );
    }
}

#[test]
fn every_damaged_or_missing_file_of_a_backup_is_named() {
    let whole = backed_up();
    let files = whole.files();
    let files = files.iter().filter(|path| path.starts_with("/backup"));
    let mut refused = 0;
    for path in files.filter(|path| !path.ends_with("LOCK")) {
        for remove in [false, true] {
            let disk = whole.snapshot();
            if remove {
                disk.remove(path).unwrap();
            } else {
                disk.flip(path, 30, 1);
            }
            let error = restore(&disk, "/a", 2).unwrap_err();
            if path.ends_with("backup.manifest") && remove {
                assert_eq!(error.kind(), ErrorKind::Unfinished, "{error}");
            } else {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                let below = path.strip_prefix("/backup").unwrap().to_str().unwrap();
                assert!(error.to_string().contains(below), "{error}");
            }
            refused += 1;
        }
    }
    assert!(refused >= 12, "{refused}");
}

#[test]
fn a_restore_that_is_cut_short_anywhere_is_not_opened_and_goes_on() {
    let whole = backed_up();
    let before = whole.ops();
    restore(&whole, "/a", 2).unwrap();
    drop(
        open_at(&whole, "/a", 3)
            .open()
            .unwrap()
            .tenant("t")
            .unwrap(),
    );
    let (mut refused, mut opened) = (0, 0);
    for op in before + 1..=whole.ops() {
        let disk = backed_up();
        disk.crash_after(op);
        let _ = restore(&disk, "/a", 2)
            .and_then(|_| open_at(&disk, "/a", 3).open()?.tenant("t").map(drop));
        for mode in [
            Some(CrashMode::LoseUnsynced),
            Some(CrashMode::KeepUnsynced),
            Some(CrashMode::Mixed(op)),
            None,
        ] {
            let mut disk = mode.map_or_else(|| disk.process_kill(), |mode| disk.crash(mode));
            let looked = open_at(&disk, "/a", 4).read_only(true).open();
            match looked.and_then(|db| db.existing_tenant("t").map(drop)) {
                Ok(()) => opened += 1,
                Err(error) => {
                    let kinds = [ErrorKind::Unfinished, ErrorKind::NotFound];
                    assert!(kinds.contains(&error.kind()), "op {op}, {mode:?}: {error}");
                    refused += 1;
                    restore(&disk, "/a", 5).unwrap();
                    // Also what the one that was cut short had written is durable.
                    disk = disk.crash(CrashMode::LoseUnsynced);
                }
            }
            check_restored(&disk, "/a", &["0", "1"]);
        }
    }
    assert!(refused > 50 && opened > 10, "{refused}, {opened}");
}

#[test]
fn a_directory_that_is_not_empty_is_left_alone() {
    let disk = backed_up();
    let ops = disk.ops();
    assert_eq!(
        restore(&disk, "/db", 2).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    assert_eq!(disk.ops(), ops);
}
