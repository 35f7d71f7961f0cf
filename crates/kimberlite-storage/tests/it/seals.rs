//! Seals and checkpoint states are made anew when they are lost, and never believed when wrong.

use kimberlite_disk::{Access, Disk};
use kimberlite_storage::{SealFile, SegmentState};
use kimberlite_testkit::SimulatedDisk;

use crate::rig::{Rig, dir, one, seal};

/// Three segments, of which two are sealed; checkpoints in the middle of the last and at its end.
fn sealed(watermark: bool) -> Rig {
    let mut rig = Rig::new(1);
    rig.append(&one(b"one"));
    if watermark {
        rig.writer.write_watermark().unwrap();
    }
    rig.roll(256 << 10);
    rig.append(&vec![vec![b"two".to_vec(), b"three".to_vec()]]);
    rig.roll(1 << 20);
    rig.append(&one(b"four"));
    rig.checkpoint().unwrap();
    rig.append(&one(b"five"));
    rig
}

fn replace(disk: &SimulatedDisk, base: u64, content: &[u8]) {
    disk.write_new_atomic(&seal(base), content, Access::Shared)
        .unwrap();
}

fn check_sealed(disk: &SimulatedDisk, rig: &Rig) {
    let found = Rig::open(disk, 2).unwrap();
    assert_eq!(found.writer.history(), rig.writer.history());
    found.check();
    for base in [0, 2] {
        assert_eq!(disk.contents(seal(base)), rig.disk.contents(seal(base)));
    }
    let segments = found.writer.reader().segments(disk).unwrap();
    let states = segments.iter().map(|one| one.state).collect::<Vec<_>>();
    let expected = [
        SegmentState::Sealed,
        SegmentState::Sealed,
        SegmentState::Active,
    ];
    assert_eq!(states, expected);
}

#[test]
fn a_seal_that_is_missing_damaged_or_of_another_segment_is_made_anew() {
    for watermark in [false, true] {
        let rig = sealed(watermark);
        let contents = [0, 2].map(|base| rig.disk.contents(seal(base)));
        for (index, base) in [0, 2].into_iter().enumerate() {
            let missing = rig.disk.snapshot();
            missing.remove(&seal(base)).unwrap();
            check_sealed(&missing, &rig);
            for byte in 0..contents[index].len() {
                let damaged = rig.disk.snapshot();
                damaged.flip(seal(base), u64::try_from(byte).unwrap(), 1);
                if byte % 16 == 0 {
                    check_sealed(&damaged, &rig);
                } else {
                    assert!(SealFile::decode(&damaged.contents(seal(base))).is_err());
                }
            }
            let cut = rig.disk.snapshot();
            replace(&cut, base, &contents[index][..100]);
            check_sealed(&cut, &rig);
            let other = rig.disk.snapshot();
            replace(&other, base, &contents[1 - index]);
            check_sealed(&other, &rig);
        }
    }
}

#[test]
fn a_watermark_at_the_end_of_a_closed_segment_belongs_to_it() {
    let rig = sealed(true);
    rig.check();
    let before = rig.writer.reader().segments(&rig.disk).unwrap();
    let rig = rig.reopen();
    rig.check();
    assert_eq!(rig.writer.reader().segments(&rig.disk).unwrap(), before);
}

#[test]
fn unfinished_files_are_removed() {
    let rig = sealed(false);
    let disk = rig.disk.snapshot();
    let names = [
        "next.tmp",
        "prepared-1.tmp",
        "00000000000000000002.seal.tmp",
    ];
    for name in names {
        let path = dir().join("log").join(name);
        disk.create(&path, Access::Shared).unwrap();
    }
    check_sealed(&disk, &rig);
    assert_eq!(disk.files(), rig.disk.files());
}

#[test]
fn a_checkpoint_state_that_is_missing_damaged_or_of_another_log_is_not_needed() {
    let rig = sealed(false);
    let state = dir().join(format!("checkpoints/{:020}.state", 5));
    let missing = rig.disk.snapshot();
    missing.remove(&state).unwrap();
    check_sealed(&missing, &rig);
    for byte in (0..rig.disk.contents(&state).len()).step_by(7) {
        let damaged = rig.disk.snapshot();
        damaged.flip(&state, u64::try_from(byte).unwrap(), 0x80);
        check_sealed(&damaged, &rig);
    }

    let mut other = Rig::new(2);
    for payload in [b"a", b"b", b"c", b"d"] {
        other.append(&one(payload));
    }
    other.checkpoint().unwrap();
    let foreign = rig.disk.snapshot();
    let content = other.disk.contents(&state);
    foreign
        .write_new_atomic(&state, &content, Access::Shared)
        .unwrap();
    check_sealed(&foreign, &rig);
}

/// Whoever can write files but holds no key can make seals and states that look sound.
#[test]
fn a_forged_tree_in_a_seal_is_never_carried_into_the_log() {
    for checkpoint in [false, true] {
        let mut rig = Rig::new(1);
        rig.append(&one(b"one"));
        if checkpoint {
            rig.checkpoint().unwrap();
        }
        rig.append(&one(b"two"));
        rig.roll(256 << 10);
        rig.append(&one(b"three"));
        let sound = rig.disk.contents(seal(0));
        let mut forged = sound.clone();
        // A hash of the frontier, and the digest over all of it.
        forged[154 + 20] ^= 1;
        let body = forged.len() - 32;
        let digest = kimberlite_crypto::internal_hash(&forged[..body]);
        forged[body..].copy_from_slice(digest.as_bytes());
        assert!(SealFile::decode(&forged).is_ok());
        replace(&rig.disk, 0, &forged);
        let found = Rig::open(&rig.disk.twin(), 2).unwrap();
        assert_eq!(found.writer.history(), rig.writer.history());
        assert_eq!(found.disk.contents(seal(0)), sound);
        found.check();
    }
}
