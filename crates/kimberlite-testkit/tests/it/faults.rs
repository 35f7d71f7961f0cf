//! Planned faults: failed syncs and writes, a full disk, a crash at an operation.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use kimberlite_disk::{Access, Disk, DiskError, OpenMode};
use kimberlite_testkit::{CrashMode, SECTOR_BYTES, SimulatedDisk};

use crate::bytes::disk_with;

#[test]
fn what_a_failed_sync_gave_up_is_seen_but_no_later_sync_saves_it() {
    let (disk, file) = disk_with("/f", b"old.");
    file.write_all_at(&[b"new"], 0).unwrap();
    disk.fail_sync_at(disk.ops() + 1);
    let error = file.sync_data().unwrap_err();
    assert!(
        matches!(error, DiskError::Io { operation: "sync", source, .. }
        if source.raw_os_error() == Some(5))
    );
    file.sync_data().unwrap();
    file.write_all_at(&[b"!"], 3).unwrap();
    file.sync_all().unwrap();
    assert_eq!(disk.contents("/f"), b"new!");
    for mode in [
        CrashMode::KeepUnsynced,
        CrashMode::LoseUnsynced,
        CrashMode::Mixed(1),
    ] {
        assert_eq!(disk.twin().crash(mode).contents("/f"), b"old!");
    }
}

#[test]
fn given_up_bytes_outlive_a_kill_and_are_saved_only_when_written_again() {
    let (disk, file) = disk_with("/f", b"old");
    file.write_all_at(&[b"new"], 0).unwrap();
    disk.fail_sync_at(1);
    file.sync_data().unwrap_err();
    let next = disk.process_kill();
    assert_eq!(next.contents("/f"), b"new");
    let file = next.open(Path::new("/f"), OpenMode::ReadWrite).unwrap();
    file.sync_all().unwrap();
    assert_eq!(next.snapshot().contents("/f"), b"new");
    assert_eq!(next.durable_contents("/f"), b"old");
    file.write_all_at(&[b"new"], 0).unwrap();
    file.sync_all().unwrap();
    assert_eq!(next.crash(CrashMode::LoseUnsynced).contents("/f"), b"new");
}

#[test]
fn a_failed_directory_sync_gives_its_names_up() {
    let (disk, _file) = disk_with("/f", b"old");
    disk.create(Path::new("/g"), Access::Shared).unwrap();
    disk.fail_sync_at(disk.ops() + 1);
    disk.sync_dir(Path::new("/")).unwrap_err();
    disk.sync_dir(Path::new("/")).unwrap();
    assert_eq!(disk.files().len(), 2);
    assert_eq!(
        disk.twin().crash(CrashMode::KeepUnsynced).files(),
        [PathBuf::from("/f")]
    );
}

#[test]
fn a_failed_write_fails_once_and_leaves_some_sectors_from_its_start() {
    let mut parts = std::collections::BTreeSet::new();
    let (one, two) = ([1; 400], [2; 800]);
    let written = [&[0; 10], one.as_slice(), two.as_slice()].concat();
    for seed in 0..200 {
        let disk = SimulatedDisk::new(seed);
        let file = disk.create(Path::new("/f"), Access::Shared).unwrap();
        disk.fail_write_at(2);
        let error = file.write_all_at(&[&one, &two], 10).unwrap_err();
        assert!(matches!(
            error,
            DiskError::Io {
                operation: "write",
                ..
            }
        ));
        let content = disk.contents("/f");
        assert!(content.is_empty() || written.starts_with(&content));
        parts.insert(content.len());
        file.write_all_at(&[b"ab", b"cd"], 0).unwrap();
    }
    assert_eq!(
        parts.into_iter().collect::<Vec<_>>(),
        [0, SECTOR_BYTES, 2 * SECTOR_BYTES, written.len()]
    );
}

#[test]
fn a_failed_change_of_length_changes_nothing() {
    let (disk, file) = disk_with("/f", b"old");
    disk.fail_write_at(1);
    file.set_bytes(1).unwrap_err();
    assert_eq!(disk.contents("/f"), b"old");
    file.set_bytes(1).unwrap();
}

#[test]
fn a_lost_write_is_seen_and_synced_and_gone_after_power_loss() {
    let (disk, file) = disk_with("/f", b"old");
    disk.lose_write_at(disk.ops() + 1);
    file.write_all_at(&[b"newer"], 0).unwrap();
    file.sync_all().unwrap();
    assert_eq!(disk.contents("/f"), b"newer");
    assert_eq!(disk.process_kill().contents("/f"), b"newer");
    assert_eq!(
        disk.crash(CrashMode::KeepUnsynced).contents("/f"),
        b"old\0\0"
    );
}

#[test]
fn a_misdirected_write_is_seen_where_it_belongs_and_found_elsewhere_after_power_loss() {
    let (disk, file) = disk_with("/f", b"01234567");
    disk.misdirect_write_at(1, 5);
    file.write_all_at(&[b"ab"], 0).unwrap();
    file.write_all_at(&[b"c"], 3).unwrap();
    file.sync_all().unwrap();
    assert_eq!(disk.contents("/f"), b"ab2c4567");
    assert_eq!(
        disk.crash(CrashMode::LoseUnsynced).contents("/f"),
        b"012c4ab7"
    );
}

#[test]
fn a_write_that_lands_in_another_file_spoils_that_one_on_the_medium() {
    let (disk, file) = disk_with("/f", b"01234567");
    let other = Path::new("/g");
    disk.write_new_atomic(other, b"another file", Access::Shared)
        .unwrap();
    disk.misdirect_write_to(disk.ops() + 1, other, 10);
    file.write_all_at(&[b"abcd"], 0).unwrap();
    file.sync_all().unwrap();
    assert_eq!(disk.contents("/f"), b"abcd4567");
    assert_eq!(disk.contents(other), b"another file");
    let found = disk.crash(CrashMode::LoseUnsynced);
    assert_eq!(found.contents("/f"), b"01234567");
    assert_eq!(found.contents(other), b"another fiab");
}

#[test]
fn a_failed_read_fails_once_and_changes_nothing() {
    let (disk, file) = disk_with("/f", b"0123");
    let reads = disk.reads();
    disk.fail_read_at(reads + 2);
    let mut byte = [0];
    file.read_exact_at(&mut byte, 1).unwrap();
    let failed = file.map(4).unwrap_err();
    assert!(matches!(failed, DiskError::Io { source, .. } if source.raw_os_error() == Some(5)));
    disk.fail_read_at(0);
    let failed = file.read_exact_at(&mut byte, 1).unwrap_err();
    assert!(matches!(failed, DiskError::Io { source, .. } if source.raw_os_error() == Some(5)));
    assert_eq!(file.map(4).unwrap(), b"0123".as_slice());
    assert_eq!(disk.reads(), reads + 4);
}

#[test]
fn a_failed_change_of_names_fails_once_and_changes_nothing() {
    let (disk, _file) = disk_with("/f", b"old");
    let (f, g) = (Path::new("/f"), Path::new("/g"));
    let changes: [&dyn Fn() -> Result<(), DiskError>; 5] = [
        &|| disk.create(g, Access::Shared).map(drop),
        &|| disk.create_dir(g),
        &|| disk.rename(f, g),
        &|| disk.remove(f),
        &|| disk.lock(g).map(drop),
    ];
    for change in changes {
        disk.fail_names_at(0);
        assert!(matches!(change(), Err(DiskError::Io { .. })));
        assert_eq!(disk.files(), [PathBuf::from("/f")]);
    }
    disk.rename(f, g).unwrap();
}

#[test]
fn while_a_disk_has_no_space_for_anything_everything_that_changes_it_is_refused() {
    let (disk, file) = disk_with("/f", b"old");
    let (f, g) = (Path::new("/f"), Path::new("/g"));
    file.write_all_at(&[b"unsynced"], 0).unwrap();
    let ops = disk.ops();
    disk.fill_during(ops + 1..ops + 9);
    let refused = [
        file.sync_data(),
        disk.sync_dir(Path::new("/")),
        file.set_bytes(1),
        disk.create(g, Access::Shared).map(drop),
        disk.create_dir(g),
        disk.rename(f, g),
        disk.remove(f),
        file.write_all_at(&[b"new"], 0),
    ];
    for result in refused {
        assert!(matches!(result, Err(DiskError::Full { .. })), "{result:?}");
    }
    file.write_all_at(&[b"new"], 0).unwrap();
    file.sync_all().unwrap();
    assert_eq!(disk.contents(f), b"newynced");
    let found = disk.crash(CrashMode::KeepUnsynced);
    assert_eq!(found.files(), [f]);
    let durable = found.contents(f);
    assert!(durable.starts_with(b"new"), "what was given up is gone");
    assert!(!durable.ends_with(b"ynced"), "what was given up is gone");
}

#[test]
fn a_full_disk_takes_what_fits_and_overwriting_needs_no_space() {
    let (disk, file) = disk_with("/f", b"1234");
    disk.set_space_bytes(Some(6));
    assert_eq!(disk.used_bytes(), 4);
    let full = file.write_all_at(&[b"abcd"], 3).unwrap_err();
    assert!(matches!(full, DiskError::Full { .. }), "{full:?}");
    assert_eq!(disk.contents("/f"), b"123abc");
    file.write_all_at(&[b"123456"], 0).unwrap();
    assert!(matches!(file.set_bytes(7), Err(DiskError::Full { .. })));
    assert!(matches!(
        file.write_all_at(&[b"x"], 9),
        Err(DiskError::Full { .. })
    ));
    assert_eq!(disk.contents("/f"), b"123456");
    file.set_bytes(5).unwrap();
    let other = disk.create(Path::new("/g"), Access::Shared).unwrap();
    other.write_all_at(&[b"x"], 0).unwrap();
    disk.set_space_bytes(None);
    other.write_all_at(&[b"xyz"], 0).unwrap();
}

#[test]
fn a_crash_at_an_operation_ends_it_and_everything_after_it() {
    let (disk, file) = disk_with("/f", b"old");
    disk.crash_after(disk.ops() + 2);
    file.write_all_at(&[b"1"], 0).unwrap();
    let error = file.write_all_at(&[b"2"], 1).unwrap_err();
    assert!(matches!(error, DiskError::Io { .. }), "{error:?}");
    let ops = disk.ops();
    let root = Path::new("/");
    let refused = [
        file.read_exact_at(&mut [0], 0),
        file.write_all_at(&[b"x"], 0),
        file.sync_data(),
        file.sync_all(),
        file.set_bytes(0),
        file.bytes().map(|_| ()),
        file.map(1).map(|_| ()),
        file.is_private().map(|_| ()),
        disk.open(Path::new("/f"), OpenMode::Read).map(|_| ()),
        disk.create(Path::new("/g"), Access::Shared).map(|_| ()),
        disk.create_dir(Path::new("/d")),
        disk.rename(Path::new("/f"), Path::new("/g")),
        disk.remove(Path::new("/f")),
        disk.sync_dir(root),
        disk.list(root).map(|_| ()),
        disk.exists(root).map(|_| ()),
        disk.lock(Path::new("/LOCK")).map(|_| ()),
    ];
    for result in refused {
        assert!(matches!(result, Err(DiskError::Io { .. })), "{result:?}");
    }
    assert_eq!(disk.ops(), ops, "nothing is begun any more");
}

#[test]
fn the_write_in_which_the_disk_crashed_may_have_happened() {
    let (disk, file) = disk_with("/f", b"old");
    disk.crash_after(disk.ops() + 1);
    file.write_all_at(&[b"new"], 0).unwrap_err();
    assert_eq!(disk.crash(CrashMode::KeepUnsynced).contents("/f"), b"new");
    assert_eq!(
        disk.twin().crash(CrashMode::LoseUnsynced).contents("/f"),
        b"old"
    );
    let mut killed: Vec<_> = (0..50)
        .map(|_| disk.process_kill().contents("/f"))
        .collect();
    killed.sort();
    killed.dedup();
    assert_eq!(killed, [b"new", b"old"].map(|c: &[u8; 3]| c.to_vec()));
}

#[test]
fn the_sync_in_which_the_disk_crashed_may_have_happened() {
    let (disk, file) = disk_with("/f", b"old");
    file.write_all_at(&[b"new"], 0).unwrap();
    disk.crash_after(disk.ops() + 1);
    file.sync_data().unwrap_err();
    assert_eq!(
        disk.twin().crash(CrashMode::KeepUnsynced).contents("/f"),
        b"new"
    );
    assert_eq!(
        disk.twin().crash(CrashMode::LoseUnsynced).contents("/f"),
        b"old"
    );
}

#[test]
fn operations_and_syncs_are_counted() {
    let (disk, file) = disk_with("/f", b"old");
    assert_eq!((disk.ops(), disk.syncs()), (4, 2));
    file.write_all_at(&[b"a", b"b"], 0).unwrap();
    file.set_bytes(1).unwrap();
    disk.rename(Path::new("/f"), Path::new("/g")).unwrap();
    disk.remove(Path::new("/g")).unwrap();
    disk.create_dir(Path::new("/d")).unwrap();
    file.bytes().unwrap();
    disk.list(Path::new("/")).unwrap();
    assert_eq!((disk.ops(), disk.syncs()), (9, 2));
    disk.fail_sync_at(1);
    file.sync_data().unwrap_err();
    assert_eq!((disk.ops(), disk.syncs()), (10, 2));
}

#[test]
fn the_observer_sees_every_write_on_this_disk_and_on_those_that_follow() {
    let disk = SimulatedDisk::new(1);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    disk.set_write_observer(Arc::new(move |path: &Path, offset, bytes: &[u8]| {
        sink.lock()
            .unwrap()
            .push((path.to_path_buf(), offset, bytes.to_vec()));
    }));
    let path = Path::new("/f");
    let file = disk.create(path, Access::Shared).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    file.write_all_at(&[b"a", b"b"], 3).unwrap();
    disk.fail_write_at(1);
    file.write_all_at(&[b"refused"], 0).unwrap_err();
    for (next, byte) in [
        (disk.snapshot(), b"s"),
        (disk.twin().crash(CrashMode::LoseUnsynced), b"c"),
        (disk.process_kill(), b"k"),
    ] {
        next.open(path, OpenMode::ReadWrite)
            .unwrap()
            .write_all_at(&[byte], 0)
            .unwrap();
    }
    let expected: [(u64, &[u8]); 5] =
        [(3, b"ab"), (0, b"refused"), (0, b"s"), (0, b"c"), (0, b"k")];
    let expected = expected.map(|(offset, bytes)| (path.to_path_buf(), offset, bytes.to_vec()));
    assert_eq!(*seen.lock().unwrap(), expected);
}
