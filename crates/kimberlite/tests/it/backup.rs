//! Backups: what is copied is a consistent log that verifies, what is there is not copied again, what
//! was interrupted is never taken for whole, and nothing but a backup of the same history is replaced.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kimberlite::{
    BackupOptions, BackupReport, Database, Error, ErrorKind, ExpectedVersion, PurgeOptions,
    RepairOptions, RestoreOptions,
};
use kimberlite_disk::{Access, Disk};
use kimberlite_testkit::{CrashMode, SimulatedDisk};

use crate::support::{builder, contents, event, open_at};

const BACKUP: &str = "/backup";

fn append(db: &Database, from: u64, count: u64, bytes: usize) {
    let stream = db.tenant("t").unwrap().stream("s").unwrap();
    for n in from..from + count {
        let text = format!("{n}-{}", "x".repeat(bytes));
        stream
            .append(ExpectedVersion::Any, &[event(&text)])
            .unwrap();
    }
}

fn back_up(db: &Database) -> Result<BackupReport, Error> {
    let options = BackupOptions::new().with_root_key(true);
    db.backup(Path::new(BACKUP), &options, &mut |_| {})
}

/// The numbers of the events in a database that opens for reading and verifies.
fn numbers(disk: &SimulatedDisk, path: &str) -> Vec<u64> {
    let db = open_at(disk, path, 7).read_only(true).open().unwrap();
    let report = db.existing_tenant("t").unwrap().verify().unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
    assert!(report.checkpoints > 0);
    let number = |text: String| text.split('-').next().unwrap().parse().unwrap();
    let db = open_at(disk, path, 7).read_only(true).open().unwrap();
    contents(&db, "t").into_iter().map(number).collect()
}

fn segment(base: &str) -> PathBuf {
    Path::new(BACKUP).join(format!("tenants/t/log/{base}"))
}

#[test]
fn a_backup_opens_for_reading_and_holds_what_was_appended_before_it() {
    let disk = SimulatedDisk::new(1);
    let db = builder(&disk, 1).open().unwrap();
    append(&db, 0, 40, 20_000);
    let report = back_up(&db).unwrap();
    assert_eq!(report.tenants[0].records_behind, 0);
    assert!(!report.resumed && report.files_kept == 0);
    append(&db, 40, 5, 10);
    assert_eq!(numbers(&disk, BACKUP), (0..40).collect::<Vec<_>>());
    let refused = open_at(&disk, BACKUP, 2).open().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ReadOnly, "{refused}");
}

#[test]
fn a_second_backup_copies_what_is_new_and_mends_what_rotted() {
    let disk = SimulatedDisk::new(1);
    let db = builder(&disk, 1).open().unwrap();
    append(&db, 0, 100, 20_000);
    let first = back_up(&db).unwrap();
    append(&db, 100, 3, 100);
    let second = back_up(&db).unwrap();
    assert!(first.bytes_copied > 2_000_000, "{first:?}");
    assert!(second.files_kept > 5, "{second:?}");
    assert!(second.bytes_copied < first.bytes_copied, "{second:?}");
    let third = back_up(&db).unwrap();
    assert_eq!(
        (third.files_copied, third.bytes_copied),
        (0, 0),
        "{third:?}"
    );
    let sealed = segment("00000000000000000000.seg");
    disk.flip(&sealed, 5000, 1);
    let mended = back_up(&db).unwrap();
    assert_eq!(mended.files_copied, 1, "{mended:?}");
    assert_eq!(numbers(&disk, BACKUP), (0..103).collect::<Vec<_>>());
}

#[test]
fn the_root_key_stays_behind_unless_it_is_asked_for_and_keys_stay_private() {
    let disk = SimulatedDisk::new(1);
    let db = builder(&disk, 1).open().unwrap();
    append(&db, 0, 1, 1);
    let options = BackupOptions::new();
    db.backup(Path::new(BACKUP), &options, &mut |_| {}).unwrap();
    let root = Path::new(BACKUP).join("keys/root.key");
    assert!(!disk.exists(&root).unwrap());
    back_up(&db).unwrap();
    for key in ["keys/root.key", "keys/t/signer.pem", "keys/t/keyring.a"] {
        let path = Path::new(BACKUP).join(key);
        let file = disk.open(&path, kimberlite_disk::OpenMode::Read).unwrap();
        assert!(file.is_private().unwrap(), "{key}");
    }
    // Nothing deletes a root key, and a restore takes none that the backup was made without.
    db.backup(Path::new(BACKUP), &options, &mut |_| {}).unwrap();
    assert!(disk.exists(&root).unwrap());
    let restored = open_at(&disk, "/restored", 2)
        .restore(Path::new(BACKUP), &RestoreOptions::new(), &mut |_| {})
        .unwrap();
    assert!(restored.lacks_root_key);
}

#[test]
fn damage_is_not_copied() {
    let disk = SimulatedDisk::new(1);
    let db = builder(&disk, 1).open().unwrap();
    append(&db, 0, 40, 20_000);
    disk.flip("/db/tenants/t/log/00000000000000000000.seg", 9000, 1);
    let refused = back_up(&db).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
    assert!(
        !disk
            .exists(&Path::new(BACKUP).join("backup.manifest"))
            .unwrap()
    );
}

#[test]
fn a_directory_that_holds_something_else_is_left_alone() {
    let disk = SimulatedDisk::new(1);
    let db = builder(&disk, 1).open().unwrap();
    append(&db, 0, 1, 1);
    disk.create_dir_all(Path::new(BACKUP)).unwrap();
    let photo = Path::new(BACKUP).join("photo.jpg");
    disk.write_new_atomic(&photo, b"x", Access::Shared).unwrap();
    let ops = disk.ops();
    assert_eq!(back_up(&db).unwrap_err().kind(), ErrorKind::InvalidInput);
    let into_itself = db.backup(Path::new("/db"), &BackupOptions::new(), &mut |_| {});
    assert_eq!(into_itself.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(disk.ops(), ops);
}

#[test]
fn the_backup_of_another_history_is_never_replaced() {
    let disk = SimulatedDisk::new(1);
    let db = builder(&disk, 1).open().unwrap();
    append(&db, 0, 3, 10);
    drop(db);
    let old = disk.snapshot();
    let db = builder(&disk, 2).open().unwrap();
    append(&db, 3, 3, 10);
    back_up(&db).unwrap();
    drop(db);
    // The older copy goes on otherwise, until it is shorter, as long and longer.
    for (count, seed) in [(0, 3), (3, 4), (30, 5)] {
        let rewound = old.snapshot();
        for path in disk.files() {
            if path.starts_with(BACKUP) {
                rewound.create_dir_all(path.parent().unwrap()).unwrap();
                let bytes = disk.contents(&path);
                rewound
                    .write_new_atomic(&path, &bytes, Access::Private)
                    .unwrap();
            }
        }
        let db = builder(&rewound, seed).open().unwrap();
        append(&db, 100, count, 10);
        let refused = back_up(&db).unwrap_err();
        assert_eq!(
            refused.kind(),
            ErrorKind::InvalidInput,
            "{count}: {refused}"
        );
        assert_eq!(numbers(&rewound, BACKUP), (0..6).collect::<Vec<_>>());
    }
}

/// What is in the backup, but for its lock.
fn backup_files(disk: &SimulatedDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = disk.files();
    files.retain(|path| path.starts_with(BACKUP) && !path.ends_with("LOCK"));
    let contents = |path: PathBuf| (path.clone(), disk.contents(path));
    files.into_iter().map(contents).collect()
}

#[test]
fn a_repaired_log_never_replaces_the_backup_that_has_what_it_lost() {
    for lost_whole in [true, false] {
        let disk = SimulatedDisk::new(1);
        let db = builder(&disk, 1).open().unwrap();
        append(&db, 0, 60, 20_000);
        back_up(&db).unwrap();
        drop(db);
        let log = "/db/tenants/t/log";
        let mut segments = disk.files();
        segments
            .retain(|path| path.starts_with(log) && path.extension().is_some_and(|it| it == "seg"));
        // The last segment, or all but its beginning.
        let last = segments.last().unwrap();
        assert_eq!(segments.len(), 2);
        if lost_whole {
            disk.remove(last).unwrap();
        } else {
            disk.flip(last, 200_000, 1);
        }
        let options = RepairOptions::new().accept_loss(true);
        assert!(builder(&disk, 2).repair("t", &options).unwrap().done);
        let kept = backup_files(&disk);
        let db = builder(&disk, 3).open().unwrap();
        for count in [0, 100, 200] {
            append(&db, 1000, count, 20_000);
            let refused = back_up(&db).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{refused}");
            assert!(backup_files(&disk) == kept, "{lost_whole}, {count}");
        }
        assert_eq!(numbers(&disk, BACKUP), (0..60).collect::<Vec<_>>());
    }
}

#[test]
fn a_read_only_database_is_copied_up_to_its_newest_checkpoint() {
    let disk = SimulatedDisk::new(1);
    let db = builder(&disk, 1).open().unwrap();
    append(&db, 0, 3, 10);
    let reader = builder(&disk, 2).read_only(true).open().unwrap();
    assert_eq!(back_up(&reader).unwrap_err().kind(), ErrorKind::NotFound);
    db.tenant("t").unwrap().checkpoint().unwrap();
    append(&db, 3, 2, 10);
    let reader = builder(&disk, 2).read_only(true).open().unwrap();
    assert_eq!(back_up(&reader).unwrap().tenants[0].records_behind, 2);
    assert_eq!(numbers(&disk, BACKUP), [0, 1, 2]);
}

#[test]
fn a_backup_that_is_cut_short_anywhere_is_known_for_it_and_goes_on() {
    let prepared = |backed_up: bool| {
        let disk = SimulatedDisk::new(1);
        let db = builder(&disk, 1).open().unwrap();
        append(&db, 0, 3, 100);
        if backed_up {
            back_up(&db).unwrap();
            append(&db, 3, 2, 300_000);
        }
        (disk, db)
    };
    for backed_up in [false, true] {
        let (whole, db) = prepared(backed_up);
        let before = whole.ops();
        back_up(&db).unwrap();
        let all = if backed_up { 5 } else { 3 };
        let (mut resumed, mut old) = (0, 0);
        for op in before + 1..=whole.ops() {
            let (disk, db) = prepared(backed_up);
            disk.crash_after(op);
            let cut = back_up(&db).is_err();
            drop(db);
            for mode in [
                Some(CrashMode::LoseUnsynced),
                Some(CrashMode::KeepUnsynced),
                Some(CrashMode::Mixed(op)),
                None,
            ] {
                let disk = mode.map_or_else(|| disk.process_kill(), |mode| disk.crash(mode));
                let found = disk
                    .exists(&Path::new(BACKUP).join("backup.manifest"))
                    .unwrap();
                assert!(
                    found || !backed_up,
                    "op {op}, {mode:?}: the old backup is gone"
                );
                old += u32::from(found && cut);
                let marker = Path::new(BACKUP).join("backup.unfinished");
                if found || disk.exists(&marker).unwrap() {
                    let writer = open_at(&disk, BACKUP, 4).open().map(drop);
                    let refused = writer.unwrap_err();
                    assert_eq!(refused.kind(), ErrorKind::ReadOnly, "op {op}: {refused}");
                }
                let db = builder(&disk, 3).open().unwrap();
                let report = back_up(&db).unwrap();
                resumed += u32::from(report.resumed);
                drop(db);
                // Also what the one that was cut short had written is durable.
                let disk = disk.crash(CrashMode::LoseUnsynced);
                let expected = (0..all).collect::<Vec<_>>();
                assert_eq!(numbers(&disk, BACKUP), expected, "op {op}, {mode:?}");
            }
        }
        assert!(resumed > 20, "{resumed} were resumed");
        assert!(old > 0, "{old}");
    }
}

#[test]
fn what_was_not_written_as_it_was_read_fails_the_backup() {
    let disk = SimulatedDisk::new(1);
    let db = builder(&disk, 1).open().unwrap();
    append(&db, 0, 3, 100);
    db.tenant("t").unwrap().checkpoint().unwrap();
    let rotting = disk.clone();
    disk.set_sync_observer(Arc::new(move |path| {
        if path.starts_with(BACKUP) && path.to_str().unwrap().ends_with(".seg.tmp") {
            rotting.flip(path, 4500, 1);
        }
    }));
    let refused = back_up(&db).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
    assert!(
        refused.to_string().contains("00000000000000000000.seg"),
        "{refused}"
    );
}

#[test]
fn writers_go_on_while_a_backup_is_made() {
    let disk = SimulatedDisk::new(1);
    let db = Arc::new(builder(&disk, 1).open().unwrap());
    append(&db, 0, 30, 20_000);
    let mut appended = 30;
    let options = BackupOptions::new().with_root_key(true);
    let report = db
        .backup(Path::new(BACKUP), &options, &mut |progress| {
            assert!(progress.bytes_done <= progress.bytes_total);
            append(&db, appended, 1, 20_000);
            appended += 1;
        })
        .unwrap();
    assert!(appended > 31, "{appended}");
    assert_eq!(report.tenants[0].records_behind, appended - 30);
    assert_eq!(numbers(&disk, BACKUP), (0..30).collect::<Vec<_>>());
}

#[test]
fn a_read_that_fails_behind_a_purge_is_told_as_that_and_not_as_another_history() {
    let written = SimulatedDisk::new(1);
    let db = builder(&written, 1).open().unwrap();
    append(&db, 0, 3, 10);
    back_up(&db).unwrap();
    let tenant = db.tenant("t").unwrap();
    let options = PurgeOptions::new(tenant.durable_position());
    tenant.purge(&options, &mut |_| ()).unwrap();
    drop(tenant);
    db.close().unwrap();
    let mut failed = 0;
    for nth in 1..200 {
        let disk = written.snapshot();
        let db = builder(&disk, 2).open().unwrap();
        let before = disk.reads();
        disk.fail_read_at(before + nth);
        match back_up(&db) {
            Ok(_) if disk.reads() - before < nth => break,
            // A seal that is not read has its segment read instead.
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Io, "read {nth}: {error}");
                failed += 1;
            }
        }
    }
    assert!(failed > 5, "{failed}");
}

#[test]
fn a_restore_that_the_disk_fails_is_told_as_that_and_goes_on() {
    let disk = SimulatedDisk::new(1);
    let db = builder(&disk, 1).open().unwrap();
    append(&db, 0, 3, 10);
    back_up(&db).unwrap();
    let restore = |seed| {
        let options = RestoreOptions::new();
        open_at(&disk, "/restored", seed).restore(Path::new(BACKUP), &options, &mut |_| {})
    };
    // It is cut short, so that there is something to go on with.
    disk.fail_write_at(disk.ops() + 8);
    assert!(restore(2).is_err());
    let mut nth = 0;
    loop {
        disk.fail_read_at(disk.reads() + 1 + nth);
        match restore(3 + nth) {
            Ok(_) => break,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Io, "read {nth}: {error}"),
        }
        nth += 1;
    }
    assert!(nth > 5, "{nth}");
}
