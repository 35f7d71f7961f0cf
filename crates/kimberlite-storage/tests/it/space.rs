//! A full disk, and a roll that fails at any of its operations.

use kimberlite_disk::DiskError;
use kimberlite_storage::{Durability, StorageError};
use kimberlite_testkit::{CrashMode, Rng, SimulatedDisk};

use crate::rig::{Rig, layout, one};

#[test]
fn an_append_that_finds_no_space_for_a_segment_fails_cleanly_and_goes_on_later() {
    let mut rig = Rig::new(1);
    let payload = Rng::new(1).bytes(200 << 10);
    rig.append(&one(&payload));
    let used = rig.disk.used_bytes();
    for free in [0, 1, 4096, 100 << 10, (1 << 20) - 1] {
        rig.disk.set_space_bytes(Some(used + free));
        let position = rig.writer.next_position();
        let frames = crate::rig::frames(position.get(), &one(&payload));
        let full = rig.writer.commit(frames, Durability::Group);
        let is_full = matches!(full, Err(StorageError::Disk(DiskError::Full { .. })));
        assert!(is_full, "{full:?}");
        assert!(!rig.writer.is_poisoned());
        assert_eq!(rig.writer.next_position(), position);
        rig.append(&one(b"fits into the old segment"));
        assert_eq!(rig.disk.used_bytes(), used);
    }
    rig.disk.set_space_bytes(None);
    rig.append(&one(&payload));
    rig.check();
    rig.reopen().check();
}

/// A log that is about to roll, with frames that are not synced yet.
fn before_roll(seed: u64) -> Rig {
    let mut rig = Rig::new(seed);
    rig.append(&one(&Rng::new(1).bytes(200 << 10)));
    rig.commit(&one(b"unsynced"), Durability::Later).unwrap();
    rig
}

#[test]
fn a_roll_that_fails_at_any_operation_fails_cleanly_or_poisons() {
    let group = one(&Rng::new(2).bytes(100 << 10));
    let mut counted = before_roll(1);
    let first = counted.disk.ops() + 1;
    counted.append(&group);
    let last = counted.disk.ops();
    let (mut clean, mut poisoned) = (0, 0);
    for op in first..=last {
        for sync in [true, false] {
            let mut rig = before_roll(1);
            let plan = if sync {
                SimulatedDisk::fail_sync_at
            } else {
                SimulatedDisk::fail_write_at
            };
            plan(&rig.disk, op);
            let durable = rig.writer.durable();
            let failed = rig.commit(&group, Durability::Group);
            if let Err(StorageError::Disk(_)) = failed {
                clean += 1;
                rig.append(&group);
                rig.check();
            } else if failed.is_err() {
                assert!(rig.writer.is_poisoned());
                poisoned += 1;
            }
            let model = rig.model.clone();
            for found in [
                rig.disk.twin().process_kill(),
                rig.disk.twin().crash(CrashMode::LoseUnsynced),
                rig.disk.twin().crash(CrashMode::Mixed(op)),
            ] {
                let mut found = Rig::open(&found, 3).unwrap();
                assert!(model.starts_with(&found.model));
                assert!(found.end() >= durable.get());
                found.append(&group);
                found.check();
                found.reopen().check();
            }
        }
    }
    assert!(
        clean >= 3 && poisoned >= 3,
        "{clean} clean, {poisoned} poisoned"
    );
}

#[test]
fn a_segment_that_was_prepared_ahead_is_used_and_none_is_left_over() {
    let mut rig = Rig::new(1);
    let payload = Rng::new(1).bytes(150 << 10);
    for _ in 0..12 {
        rig.append(&one(&payload));
        if rig.end().is_multiple_of(4) {
            // Too large for what was prepared: it is given back.
            rig.append(&one(&Rng::new(rig.end()).bytes(9 << 20)));
        }
    }
    rig.check();
    let temporary = |rig: &Rig| {
        let files = rig.disk.files();
        let is_temporary =
            |path: &&std::path::PathBuf| path.extension().is_some_and(|e| e == "tmp");
        files.iter().filter(is_temporary).count()
    };
    assert!(temporary(&rig) <= 1);
    let rig = rig.reopen();
    assert_eq!(temporary(&rig), 0);
}

#[test]
fn a_watermark_has_its_place_behind_a_group_that_fills_its_segment() {
    let segment_bytes = 256 << 10;
    let group_bytes = |payload: u64| (112 + 8 + payload).next_multiple_of(8);
    for left in (0..240).step_by(8) {
        let mut rig = Rig::new(1);
        let end = layout(&rig.disk).last().unwrap().end;
        let payload = segment_bytes - end - left - 120;
        assert_eq!(end + group_bytes(payload) + left, segment_bytes);
        rig.append(&one(&vec![7; usize::try_from(payload).unwrap()]));
        rig.writer.write_watermark().unwrap();
        let last = *layout(&rig.disk).last().unwrap();
        assert_eq!(last.count, 0, "{left} bytes were left");
        rig.reopen().check();
    }
}
