//! Checkpoints: what they are worth when their files are lost, damaged or forged.

use std::path::{Path, PathBuf};

use kimberlite::{Checkpoint, Database, ErrorKind, ExpectedVersion};
use kimberlite_disk::{Access, Disk};
use kimberlite_testkit::SimulatedDisk;

use crate::support::{builder, contents, event};

const SHOWN: &str = "/db/tenants/t/checkpoint";

fn file(size: u64, ending: &str) -> PathBuf {
    PathBuf::from(format!("/db/tenants/t/checkpoints/{size:020}.{ending}"))
}

fn append(db: &Database, data: &str) {
    let stream = db.tenant("t").unwrap().stream("s").unwrap();
    stream.append(ExpectedVersion::Any, &[event(data)]).unwrap();
}

fn checkpoint(db: &Database) -> Checkpoint {
    db.tenant("t").unwrap().checkpoint().unwrap()
}

fn replace(disk: &SimulatedDisk, path: impl AsRef<Path>, content: &[u8]) {
    disk.write_new_atomic(path.as_ref(), content, Access::Shared)
        .unwrap();
}

/// Two checkpoints with an event before each; returns the sizes.
fn written(disk: &SimulatedDisk) -> [u64; 2] {
    let db = builder(disk, 1).open().unwrap();
    append(&db, "0");
    let first = checkpoint(&db).size();
    append(&db, "1");
    let second = checkpoint(&db).size();
    db.close().unwrap();
    [first, second]
}

/// Two logs of one beginning, of the same length and with the same keys, as somebody who holds a copy
/// can make them.
fn two_histories() -> [SimulatedDisk; 2] {
    ["one history", "other tales"].map(|data| {
        let disk = SimulatedDisk::new(1);
        let db = builder(&disk, 1).open().unwrap();
        append(&db, data);
        checkpoint(&db);
        db.close().unwrap();
        disk
    })
}

/// The note lies beside the log, and nobody has to make a state for it to be believed.
#[test]
fn a_rewritten_log_is_refused_by_its_notes_alone() {
    let [disk, other] = two_histories();
    let log = Path::new("/db/tenants/t/log/00000000000000000000.seg");
    disk.overwrite(log, 0, &other.contents(log));
    for path in disk.files() {
        if path.extension().is_some_and(|ending| ending == "state") {
            disk.remove(&path).unwrap();
        }
    }
    let refused = builder(&disk, 4).open().unwrap().tenant("t").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
    assert!(refused.to_string().contains("checkpoint"), "{refused}");
}

/// Whoever can write files but holds no key can make a state that looks sound, of another tree.
#[test]
fn a_forged_tree_beside_a_checkpoint_is_never_signed() {
    let disk = SimulatedDisk::new(1);
    let [_, size] = written(&disk);
    let mut forged = disk.contents(file(size, "state"));
    forged[48 + 10] ^= 1;
    let body = forged.len() - 32;
    let digest = kimberlite_crypto::internal_hash(&forged[..body]);
    forged[body..].copy_from_slice(digest.as_bytes());
    replace(&disk, file(size, "state"), &forged);
    let db = builder(&disk, 2).open().unwrap();
    append(&db, "2");
    let signed = checkpoint(&db);
    let report = db.tenant("t").unwrap().verify().unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
    assert_eq!(
        (report.records, report.root),
        (signed.size(), signed.root())
    );
}

#[test]
fn a_log_that_is_not_the_one_that_was_signed_is_refused() {
    let (disk, fork) = (SimulatedDisk::new(1), SimulatedDisk::new(1));
    let db = builder(&disk, 1).open().unwrap();
    append(&db, "0");
    checkpoint(&db);
    drop(db);
    for path in disk.files() {
        let access = if path.starts_with("/db/keys") {
            Access::Private
        } else {
            Access::Shared
        };
        fork.create_dir_all(path.parent().unwrap()).unwrap();
        fork.write_new_atomic(&path, &disk.contents(&path), access)
            .unwrap();
    }
    // From one beginning, two histories of the same length.
    let (db, other) = (
        builder(&disk, 2).open().unwrap(),
        builder(&fork, 3).open().unwrap(),
    );
    append(&db, "one history");
    append(&other, "other tales");
    let size = checkpoint(&db).size();
    db.close().unwrap();
    other.close().unwrap();
    let log = Path::new("/db/tenants/t/log/00000000000000000000.seg");
    disk.overwrite(log, 0, &fork.contents(log));
    let refused = builder(&disk, 4).open().unwrap().tenant("t").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
    assert!(refused.to_string().contains("checkpoint"), "{refused}");
    let db = builder(&disk, 5).read_only(true).open().unwrap();
    let report = db.existing_tenant("t").unwrap().verify().unwrap();
    assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
    assert!(report.findings[0].what.contains(&size.to_string()));
}

#[test]
fn one_damaged_note_blocks_neither_opening_nor_later_checkpoints() {
    for shown in [true, false] {
        let disk = SimulatedDisk::new(1);
        let [first, second] = written(&disk);
        disk.flip(file(second, "note"), 10, 1);
        if !shown {
            disk.remove(Path::new(SHOWN)).unwrap();
        }
        let db = builder(&disk, 2).open().unwrap();
        let latest = db.tenant("t").unwrap().latest_checkpoint().unwrap();
        let expected = if shown { second } else { first };
        assert_eq!(latest.unwrap().size(), expected);
        let report = db.tenant("t").unwrap().verify().unwrap();
        assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
        append(&db, "2");
        assert!(checkpoint(&db).size() > second);
        db.close().unwrap();
        let db = builder(&disk, 3).open().unwrap();
        assert_eq!(contents(&db, "t"), ["0", "1", "2"]);
    }
}

#[test]
fn a_log_that_was_cut_before_its_checkpoint_was_rolled_back_by_any_copy_of_the_note() {
    for lost in [file(5, "note"), PathBuf::from(SHOWN)] {
        let disk = SimulatedDisk::new(1);
        let db = builder(&disk, 1).open().unwrap();
        append(&db, "0");
        let log = Path::new("/db/tenants/t/log/00000000000000000000.seg");
        let before = disk.contents(log);
        append(&db, "1");
        assert_eq!(checkpoint(&db).size(), 5);
        drop(db);
        disk.overwrite(log, 0, &before);
        disk.remove(&lost).unwrap();
        let refused = builder(&disk, 2).open().unwrap().tenant("t").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::RolledBack, "{refused}");
        let db = builder(&disk, 3).read_only(true).open().unwrap();
        let report = db.existing_tenant("t").unwrap().verify().unwrap();
        assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
        assert!(report.findings[0].what.contains("rolled back"));
    }
}

#[test]
fn a_note_that_nobody_signed_vouches_for_nothing() {
    let disk = SimulatedDisk::new(1);
    let [_, size] = written(&disk);
    replace(&disk, file(99_999, "note"), b"a stray file\n");
    let other = SimulatedDisk::new(2);
    written(&other);
    replace(&disk, file(88_888, "note"), &other.contents(SHOWN));
    replace(&disk, SHOWN, &other.contents(SHOWN));
    let db = builder(&disk, 2).open().unwrap();
    let latest = db.tenant("t").unwrap().latest_checkpoint().unwrap();
    assert_eq!(latest.unwrap().size(), size);
}

#[test]
fn the_note_that_other_tools_see_is_made_good_when_a_crash_left_the_older_one() {
    let disk = SimulatedDisk::new(1);
    let [first, second] = written(&disk);
    replace(&disk, SHOWN, &disk.contents(file(first, "note")));
    let db = builder(&disk, 2).open().unwrap();
    let verify = || db.tenant("t").unwrap().verify().unwrap();
    assert!(verify().is_sound());
    assert_eq!(checkpoint(&db).size(), second);
    disk.flip(SHOWN, 20, 1);
    assert_eq!(verify().findings.len(), 1, "{:?}", verify().findings);
    disk.flip(SHOWN, 20, 1);
    assert!(verify().is_sound());
    assert_eq!(disk.contents(SHOWN), disk.contents(file(second, "note")));
}

#[test]
fn a_reader_is_not_alarmed_by_a_checkpoint_that_was_made_since_it_opened() {
    let disk = SimulatedDisk::new(1);
    let db = builder(&disk, 1).open().unwrap();
    append(&db, "0");
    checkpoint(&db);
    let reading = builder(&disk, 2).read_only(true).open().unwrap();
    let reader = reading.existing_tenant("t").unwrap();
    append(&db, "1");
    checkpoint(&db);
    let report = reader.verify().unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
    assert_eq!(report.checkpoints, 1);
}

#[test]
fn the_note_that_other_tools_see_is_held_against_the_log_whatever_its_size() {
    let [disk, other] = two_histories();
    // Signed by the same key, of the same size, and of another history.
    replace(&disk, SHOWN, &other.contents(SHOWN));
    let db = builder(&disk, 2).read_only(true).open().unwrap();
    let report = db.existing_tenant("t").unwrap().verify().unwrap();
    assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
    assert!(builder(&disk, 3).open().unwrap().tenant("t").is_err());
}

#[test]
fn a_note_that_is_far_too_long_is_passed_over() {
    let disk = SimulatedDisk::new(1);
    let [_, size] = written(&disk);
    replace(&disk, file(99_999, "note"), &vec![b'x'; 1 << 20]);
    let db = builder(&disk, 2).open().unwrap();
    let latest = db.tenant("t").unwrap().latest_checkpoint().unwrap();
    assert_eq!(latest.unwrap().size(), size);
    assert_eq!(db.tenant("t").unwrap().verify().unwrap().findings.len(), 1);
}

#[test]
fn a_file_that_cannot_be_read_now_is_an_error_of_the_disk_and_never_a_finding() {
    let disk = SimulatedDisk::new(1);
    written(&disk);
    let db = builder(&disk, 2).read_only(true).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    let before = disk.reads();
    assert!(tenant.verify().unwrap().is_sound());
    let reads = disk.reads() - before;
    let mut failed = 0;
    for nth in 1..=reads {
        disk.fail_read_at(disk.reads() + nth);
        match tenant.verify() {
            Ok(report) => assert!(report.is_sound(), "read {nth}: {:?}", report.findings),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Io, "read {nth}");
                failed += 1;
            }
        }
    }
    assert!(failed >= 3, "two notes and a segment: {failed} of {reads}");
}
