//! Locks, kills and copies: what a process holds and what outlives it.

use std::path::Path;

use kimberlite_disk::{Access, Disk, DiskError};
use kimberlite_testkit::{CrashMode, SimulatedDisk};

use crate::bytes::disk_with;

#[test]
fn a_lock_dies_with_its_process() {
    let disk = SimulatedDisk::new(1);
    let path = Path::new("/LOCK");
    let held = disk.lock(path).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    for next in [disk.process_kill(), disk.crash(CrashMode::LoseUnsynced)] {
        let taken = next.lock(path).unwrap();
        assert!(matches!(next.lock(path), Err(DiskError::Locked { .. })));
        drop(taken);
    }
    let next = disk.process_kill();
    let _taken = next.lock(path).unwrap();
    drop(held);
    assert!(
        next.lock(path).is_err(),
        "what the dead let go is not the lock of the living"
    );
}

#[test]
fn a_clone_is_the_same_disk_and_so_the_same_lock() {
    let disk = SimulatedDisk::new(1);
    let _held = disk.lock(Path::new("/LOCK")).unwrap();
    assert!(disk.clone().lock(Path::new("/LOCK")).is_err());
}

#[test]
fn a_kill_keeps_what_was_written_and_makes_none_of_it_durable() {
    let (disk, file) = disk_with("/f", b"old");
    file.write_all_at(&[b"new"], 0).unwrap();
    disk.create(Path::new("/g"), Access::Private).unwrap();
    let next = disk.process_kill();
    assert_eq!(next.contents("/f"), b"new");
    assert_eq!(next.files().len(), 2);
    assert_eq!(
        next.ops(),
        0,
        "the operations of the next process are counted anew"
    );
    let found = next.crash(CrashMode::LoseUnsynced);
    assert_eq!(found.contents("/f"), b"old");
    assert_eq!(found.files().len(), 1);
}

#[test]
fn the_handles_of_a_dead_process_do_nothing() {
    let (disk, file) = disk_with("/f", b"old");
    let next = disk.process_kill();
    file.write_all_at(&[b"new"], 0).unwrap_err();
    file.sync_all().unwrap_err();
    disk.remove(Path::new("/f")).unwrap_err();
    assert_eq!(next.contents("/f"), b"old");
}

#[test]
fn planned_faults_end_with_the_process() {
    let disk = SimulatedDisk::new(1);
    disk.crash_after(1);
    disk.create_dir(Path::new("/d")).unwrap_err();
    let next = disk.crash(CrashMode::LoseUnsynced);
    next.create_dir(Path::new("/d")).unwrap();
}

#[test]
fn a_snapshot_is_a_durable_copy_that_goes_its_own_way() {
    let (disk, file) = disk_with("/f", b"old");
    let _held = disk.lock(Path::new("/LOCK")).unwrap();
    file.write_all_at(&[b"new"], 0).unwrap();
    let copy = disk.snapshot();
    file.write_all_at(&[b"xxx"], 0).unwrap();
    copy.lock(Path::new("/LOCK")).unwrap();
    assert_eq!(copy.crash(CrashMode::LoseUnsynced).contents("/f"), b"new");
    assert_eq!(disk.contents("/f"), b"xxx");
}

#[test]
fn a_graft_puts_a_part_of_another_disk_in_place_durably_and_leaves_the_rest() {
    let write = |disk: &SimulatedDisk, path: &str, content: &[u8]| {
        disk.create_dir_all(Path::new(path).parent().unwrap())
            .unwrap();
        disk.write_new_atomic(Path::new(path), content, Access::Shared)
            .unwrap();
    };
    let (disk, copy) = (SimulatedDisk::new(1), SimulatedDisk::new(2));
    for (path, content) in [("/db/a", b"1"), ("/db/log/0", b"2"), ("/db/log/1", b"3")] {
        write(&disk, path, content);
    }
    for (path, content) in [
        ("/db/a", b"4"),
        ("/db/log/0", b"5"),
        ("/db/log/sub/2", b"6"),
    ] {
        write(&copy, path, content);
    }
    disk.graft("/db/log", &copy);
    let found = disk.crash(CrashMode::LoseUnsynced);
    let contents = found.files().into_iter().map(|path| {
        let content = String::from_utf8(found.contents(&path)).unwrap();
        format!("{}={content}", path.display())
    });
    let expected = ["/db/a=1", "/db/log/0=5", "/db/log/sub/2=6"];
    assert_eq!(contents.collect::<Vec<_>>(), expected);
    // A file alone is a branch too, and so is nothing.
    found.graft("/db/a", &copy);
    assert_eq!(found.contents("/db/a"), b"4");
    found.graft("/db/a", &SimulatedDisk::new(3));
    assert_eq!(found.files().len(), 2);
}
