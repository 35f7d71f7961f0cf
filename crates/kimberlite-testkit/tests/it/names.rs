//! What power loss does to the names of files.

use std::collections::BTreeSet;
use std::path::Path;

use kimberlite_disk::{Access, Disk};
use kimberlite_testkit::{CrashMode, SimulatedDisk};

const SEEDS: u64 = 200;

/// Makes a file with synced content, and leaves its name unsynced.
fn create(disk: &SimulatedDisk, path: &str, content: &[u8]) {
    let file = disk.create(Path::new(path), Access::Shared).unwrap();
    file.write_all_at(&[content], 0).unwrap();
    file.sync_all().unwrap();
}

fn sync(disk: &SimulatedDisk, path: &str) {
    disk.sync_dir(Path::new(path)).unwrap();
}

/// The files and contents that are there, as "name=content name=content".
fn state(disk: &SimulatedDisk) -> String {
    let shown = |path: std::path::PathBuf| {
        format!(
            "{}={}",
            path.display(),
            String::from_utf8(disk.contents(&path)).unwrap()
        )
    };
    disk.files()
        .into_iter()
        .map(shown)
        .collect::<Vec<_>>()
        .join(" ")
}

fn outcomes(disk: &SimulatedDisk) -> BTreeSet<String> {
    (0..SEEDS)
        .map(|seed| state(&disk.twin().crash(CrashMode::Mixed(seed))))
        .collect()
}

fn check(disk: &SimulatedDisk, expected: &[&str]) {
    assert_eq!(
        outcomes(disk),
        expected.iter().map(|&s| s.to_owned()).collect()
    );
}

#[test]
fn a_file_whose_directory_was_not_synced_can_vanish_with_its_synced_content() {
    let disk = SimulatedDisk::new(1);
    create(&disk, "/a", b"1");
    assert_eq!(state(&disk), "/a=1");
    check(&disk, &["", "/a=1"]);
    assert_eq!(state(&disk.twin().crash(CrashMode::LoseUnsynced)), "");
    assert_eq!(state(&disk.twin().crash(CrashMode::KeepUnsynced)), "/a=1");
    sync(&disk, "/");
    check(&disk, &["/a=1"]);
}

#[test]
fn names_are_lost_and_kept_in_any_order() {
    let disk = SimulatedDisk::new(1);
    create(&disk, "/a", b"1");
    create(&disk, "/b", b"2");
    check(&disk, &["", "/a=1", "/b=2", "/a=1 /b=2"]);
}

#[test]
fn a_synced_name_of_an_unsynced_file_is_an_empty_file() {
    let disk = SimulatedDisk::new(1);
    let file = disk.create(Path::new("/a"), Access::Shared).unwrap();
    file.write_all_at(&[b"1"], 0).unwrap();
    sync(&disk, "/");
    assert_eq!(state(&disk.twin().crash(CrashMode::LoseUnsynced)), "/a=");
}

#[test]
fn a_rename_over_a_file_leaves_the_old_or_the_new_one() {
    let disk = SimulatedDisk::new(1);
    create(&disk, "/a", b"old");
    create(&disk, "/b", b"new");
    sync(&disk, "/");
    disk.rename(Path::new("/b"), Path::new("/a")).unwrap();
    check(&disk, &["/a=old /b=new", "/a=new"]);
    sync(&disk, "/");
    check(&disk, &["/a=new"]);
}

#[test]
fn a_name_never_skips_what_happened_to_it() {
    let disk = SimulatedDisk::new(1);
    create(&disk, "/a", b"1");
    sync(&disk, "/");
    disk.rename(Path::new("/a"), Path::new("/b")).unwrap();
    create(&disk, "/a", b"2");
    check(&disk, &["/a=1", "/b=1", "/a=2 /b=1"]);
    disk.remove(Path::new("/a")).unwrap();
    check(&disk, &["/a=1", "/b=1", "/a=2 /b=1"]);
}

#[test]
fn a_removed_file_comes_back_unless_the_directory_was_synced() {
    let disk = SimulatedDisk::new(1);
    create(&disk, "/a", b"1");
    sync(&disk, "/");
    disk.remove(Path::new("/a")).unwrap();
    check(&disk, &["", "/a=1"]);
    sync(&disk, "/");
    check(&disk, &[""]);
}

#[test]
fn a_directory_that_is_not_durable_takes_all_in_it_along() {
    let disk = SimulatedDisk::new(1);
    disk.create_dir(Path::new("/d")).unwrap();
    create(&disk, "/d/a", b"1");
    sync(&disk, "/d");
    check(&disk, &["", "/d/a=1"]);
    let lost = disk.twin().crash(CrashMode::LoseUnsynced);
    assert!(!lost.exists(Path::new("/d")).unwrap());
    sync(&disk, "/");
    check(&disk, &["/d/a=1"]);
}

#[test]
fn a_rename_between_directories_needs_both_synced() {
    let disk = SimulatedDisk::new(1);
    disk.create_dir_all(Path::new("/d")).unwrap();
    create(&disk, "/a", b"1");
    sync(&disk, "/");
    disk.rename(Path::new("/a"), Path::new("/d/a")).unwrap();
    check(&disk, &["/a=1", "/d/a=1"]);
    sync(&disk, "/d");
    check(&disk, &["/a=1 /d/a=1", "/d/a=1"]);
    sync(&disk, "/");
    check(&disk, &["/d/a=1"]);
}

#[test]
fn a_directory_tree_is_durable_when_its_making_returns() {
    let counted = SimulatedDisk::new(1);
    counted.create_dir_all(Path::new("/a/b/c")).unwrap();
    let made = |disk: &SimulatedDisk| disk.exists(Path::new("/a/b/c")).unwrap();
    assert!(made(&counted.twin().crash(CrashMode::LoseUnsynced)));
    // A process is killed anywhere on the way, the next one finishes, then power is lost.
    for op in 1..=counted.ops() {
        let disk = SimulatedDisk::new(1);
        disk.crash_after(op);
        disk.create_dir_all(Path::new("/a/b/c")).unwrap_err();
        let next = disk.process_kill();
        next.create_dir_all(Path::new("/a/b/c")).unwrap();
        assert!(
            made(&next.crash(CrashMode::LoseUnsynced)),
            "killed at operation {op}"
        );
    }
}

#[test]
fn an_atomic_write_is_whole_or_not_there_at_every_crash_and_durable_when_it_returns() {
    let path = Path::new("/f");
    let prepared = || {
        let disk = SimulatedDisk::new(1);
        disk.write_new_atomic(path, b"old", Access::Shared).unwrap();
        disk
    };
    let counted = prepared();
    let before = counted.ops();
    counted
        .write_new_atomic(path, b"the new content", Access::Shared)
        .unwrap();
    assert_eq!(
        counted.twin().crash(CrashMode::LoseUnsynced).contents(path),
        b"the new content"
    );

    let mut seen = BTreeSet::new();
    for op in before + 1..=counted.ops() {
        let disk = prepared();
        disk.crash_after(op);
        disk.write_new_atomic(path, b"the new content", Access::Shared)
            .unwrap_err();
        for seed in 0..32 {
            let found = disk.twin().crash(CrashMode::Mixed(seed));
            seen.insert(found.contents(path));
            // What is left over does not hinder the next one.
            found
                .write_new_atomic(path, b"next", Access::Shared)
                .unwrap();
            assert_eq!(found.crash(CrashMode::LoseUnsynced).contents(path), b"next");
        }
    }
    assert_eq!(
        seen,
        BTreeSet::from([b"old".to_vec(), b"the new content".to_vec()])
    );
}

#[test]
fn a_replacement_without_its_sync_is_caught() {
    // The harness proves itself: the same as an atomic write, with the sync of the content left
    // out, shows a file that is neither old nor new.
    let disk = SimulatedDisk::new(1);
    disk.write_new_atomic(Path::new("/f"), b"old", Access::Shared)
        .unwrap();
    let file = disk.create(Path::new("/f.tmp"), Access::Shared).unwrap();
    file.write_all_at(&[b"new"], 0).unwrap();
    disk.rename(Path::new("/f.tmp"), Path::new("/f")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    assert!(outcomes(&disk).contains("/f="), "the empty file");
}
