//! Disks that say what they do not do: each lie shows, and no other.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kimberlite_disk::{Access, Disk, DiskFile};
use kimberlite_testkit::{CrashMode, Lie, SimulatedDisk};

use crate::bytes::disk_with;

/// What power loss leaves of "old." over which "new" was written and synced.
fn rewritten(lie: Lie) -> Vec<u8> {
    let (disk, file) = disk_with("/f", b"old.");
    disk.tell_lies(lie, 1);
    file.write_all_at(&[b"new"], 0).unwrap();
    file.sync_all().unwrap();
    let found = disk.crash(CrashMode::LoseUnsynced);
    found.durable_contents("/f")
}

#[test]
fn a_skipped_sync_and_a_lost_write_leave_the_old_bytes_and_the_others_do_not() {
    assert_eq!(rewritten(Lie::SkipSync), b"old.");
    assert_eq!(rewritten(Lie::LoseWrite), b"old.");
    assert_eq!(rewritten(Lie::ReorderAcrossSync), b"old.");
    assert_eq!(rewritten(Lie::SkipDirectorySync), b"new.");
    assert_eq!(rewritten(Lie::FlipOnRead), b"new.");
}

#[test]
fn a_skipped_sync_is_made_good_by_the_next_one_and_a_lost_write_by_none() {
    for (lie, durable) in [(Lie::SkipSync, b"new."), (Lie::LoseWrite, b"old.")] {
        let (disk, file) = disk_with("/f", b"old.");
        disk.tell_lies(lie, 1);
        file.write_all_at(&[b"new"], 0).unwrap();
        file.sync_all().unwrap();
        // A long time passes until the next lie.
        disk.tell_lies(lie, u64::MAX);
        file.sync_all().unwrap();
        let found = disk.crash(CrashMode::LoseUnsynced);
        assert_eq!(found.contents("/f"), durable);
    }
}

#[test]
fn a_sync_that_reorders_makes_an_older_write_durable_and_holds_the_newest_back() {
    let (disk, file) = disk_with("/f", b"....");
    disk.tell_lies(Lie::ReorderAcrossSync, 1);
    file.write_all_at(&[b"1"], 0).unwrap();
    file.write_all_at(&[b"2"], 1).unwrap();
    file.sync_all().unwrap();
    assert_eq!(disk.durable_contents("/f"), b"1...");
    file.write_all_at(&[b"3"], 2).unwrap();
    file.sync_all().unwrap();
    assert_eq!(disk.durable_contents("/f"), b"12..");
    assert_eq!(disk.contents("/f"), b"123.");
}

#[test]
fn a_skipped_sync_of_a_directory_leaves_its_names_to_chance() {
    let disk = SimulatedDisk::new(1);
    disk.tell_lies(Lie::SkipDirectorySync, 1);
    let file = disk.create(Path::new("/f"), Access::Shared).unwrap();
    file.sync_all().unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    let found = |mode| disk.twin().crash(mode).files();
    assert_eq!(found(CrashMode::LoseUnsynced), Vec::<PathBuf>::new());
    assert_eq!(found(CrashMode::KeepUnsynced), [PathBuf::from("/f")]);
}

#[test]
fn a_bit_that_is_flipped_on_reading_is_flipped_for_the_reader_alone() {
    let (disk, file) = disk_with("/f", &[0; 64]);
    disk.tell_lies(Lie::FlipOnRead, 1);
    let ones = |bytes: &[u8]| bytes.iter().map(|byte| byte.count_ones()).sum::<u32>();
    let mut read = [0; 64];
    file.read_exact_at(&mut read, 0).unwrap();
    assert_eq!(ones(&read), 1);
    assert_eq!(ones(&file.map(64).unwrap()), 1);
    assert_eq!(disk.contents("/f"), [0; 64]);
}

#[test]
fn lies_go_on_after_a_crash_and_are_as_frequent_as_was_said() {
    let lost = |file: &Arc<dyn DiskFile>, disk: &SimulatedDisk| {
        let writes = (0..400).filter(|_| {
            file.write_all_at(&[b"a"], 0).unwrap();
            file.sync_all().unwrap();
            let is_lost = disk.durable_contents("/f") != b"a";
            disk.overwrite("/f", 0, b".");
            is_lost
        });
        writes.count()
    };
    let (disk, file) = disk_with("/f", b".");
    assert_eq!(lost(&file, &disk), 0);
    disk.tell_lies(Lie::LoseWrite, 4);
    assert!((60..140).contains(&lost(&file, &disk)));
    let next = disk.crash(CrashMode::LoseUnsynced);
    let file = next
        .open(Path::new("/f"), kimberlite_disk::OpenMode::ReadWrite)
        .unwrap();
    assert!((60..140).contains(&lost(&file, &next)));
}
