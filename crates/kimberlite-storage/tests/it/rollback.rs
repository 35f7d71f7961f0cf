//! Logs that lack their end, a segment, or a file's end, and files from elsewhere.

use kimberlite_disk::{Disk, OpenMode};
use kimberlite_storage::{
    DamageKind, StorageError, Witness, first_record, log_exists, open_writer,
};
use kimberlite_testkit::{Rng, SimulatedDisk};

use crate::rig::{
    Rig, corrupt, dir, dyn_disk, layout, observe, one, options, refused, seal, segment,
    segment_name,
};

/// A log of four segments that begin at 0, 3, 5 and 7, with records of one and several sectors.
fn four_segments(seed: u64) -> Rig {
    let mut rig = Rig::new(seed);
    let mut rng = Rng::new(seed);
    rig.append(&one(&rng.bytes(100)));
    rig.append(&one(&rng.bytes(900)));
    rig.roll(256 << 10);
    rig.append(&one(&rng.bytes(50)));
    rig.append(&one(&rng.bytes(60)));
    rig.roll(1 << 20);
    rig.append(&vec![vec![rng.bytes(10), rng.bytes(20)]]);
    rig.roll(4 << 20);
    rig.append(&one(&rng.bytes(70)));
    rig
}

fn set_bytes(disk: &SimulatedDisk, base: u64, bytes: u64) {
    let file = disk.open(&segment(base), OpenMode::ReadWrite).unwrap();
    file.set_bytes(bytes).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn a_log_cut_at_a_frame_border_below_a_checkpoint_was_rolled_back() {
    let mut rig = Rig::new(1);
    for round in 0..10 {
        rig.append(&one(&[round; 33]));
    }
    rig.checkpoint().unwrap();
    rig.append(&one(b"behind the checkpoint"));
    let places = layout(&rig.disk);
    for place in &places {
        let disk = rig.disk.snapshot();
        let end = places.last().unwrap().end;
        let zeros = vec![0; usize::try_from(end - place.at).unwrap()];
        disk.overwrite(segment(0), place.at, &zeros);
        if place.position >= 11 {
            assert_eq!(Rig::open(&disk, 2).unwrap().end(), 11);
            continue;
        }
        match refused(&disk) {
            StorageError::RolledBack { end, witnessed } => {
                assert_eq!((end.get(), witnessed.get()), (place.position, 11));
            }
            other => panic!("{other:?}"),
        }
        let (reader, report) = observe(&disk, &rig.model);
        assert_eq!(reader.end().get(), place.position);
        assert_eq!(report.rolled_back.map(u64::from), Some(11));
    }
}

#[test]
fn a_missing_segment_is_named() {
    let rig = four_segments(1);
    for (missing, at) in [(3, 3), (5, 5), (7, 7)] {
        let disk = rig.disk.snapshot();
        disk.remove(&segment(missing)).unwrap();
        let damage = corrupt(&disk);
        assert_eq!(damage.position.get(), at, "{damage}");
        let missing_kind = matches!(
            damage.kind,
            DamageKind::MissingSegment | DamageKind::MissingFrames { .. }
        );
        assert!(missing_kind, "{damage}");
        let (reader, report) = observe(&disk, &rig.model);
        assert_eq!((reader.end().get(), report.damage), (at, vec![damage]));
    }
    let disk = rig.disk.snapshot();
    disk.remove(&segment(0)).unwrap();
    assert_eq!(corrupt(&disk).kind, DamageKind::MissingSegment);
    let missing = log_exists(&disk, dir());
    assert!(matches!(missing, Err(StorageError::FirstSegmentMissing)));
}

#[test]
fn the_last_segment_cannot_vanish_behind_a_checkpoint_or_the_seal_before_it() {
    let mut rig = four_segments(1);
    rig.checkpoint().unwrap();
    for (sealed, checkpoint) in [(true, true), (true, false), (false, true)] {
        let disk = rig.disk.snapshot();
        disk.remove(&segment(7)).unwrap();
        if !sealed {
            disk.remove(&seal(5)).unwrap();
        }
        if !checkpoint {
            disk.remove(&dir().join(format!("checkpoints/{:020}.note", 8)))
                .unwrap();
        }
        match refused(&disk) {
            StorageError::Corrupt(damage) if sealed => {
                assert_eq!(damage.segment, segment_name(7));
                assert_eq!(damage.kind, DamageKind::MissingSegment);
            }
            StorageError::RolledBack { end, witnessed } if !sealed => {
                assert_eq!((end.get(), witnessed.get()), (7, 8));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_segment_file_of_the_wrong_size_is_named() {
    let rig = four_segments(1);
    for place in layout(&rig.disk) {
        let whole = u64::try_from(rig.disk.contents(segment(place.segment)).len()).unwrap();
        for bytes in [
            0,
            100,
            4095,
            4096,
            place.end - 1,
            place.end,
            whole - 1,
            whole + 1,
        ] {
            let disk = rig.disk.snapshot();
            set_bytes(&disk, place.segment, bytes);
            let damage = corrupt(&disk);
            assert_eq!(damage.segment, segment_name(place.segment), "{damage}");
            if place.segment == 0 && bytes < 4096 {
                continue;
            }
            let (reader, report) = observe(&disk, &rig.model);
            assert!(!report.damage.is_empty());
            // What precedes the cut can be read.
            assert!(reader.end().get() >= place.segment);
            if bytes >= place.end {
                assert!(reader.end().get() >= place.position + place.count);
            }
        }
    }
}

#[test]
fn a_segment_of_another_log_is_foreign() {
    let [mut rig, other] = [four_segments(1), four_segments(2)];
    for base in [3, 5, 7] {
        let disk = rig.disk.snapshot();
        disk.overwrite(segment(base), 0, &other.disk.contents(segment(base)));
        // Both have the same log id, their chains tell them apart.
        let damage = corrupt(&disk);
        assert_eq!(damage.segment, segment_name(base), "{damage}");
        assert_eq!(damage.kind, DamageKind::ChainBroken);
    }
    // Before the first segment all chains of a log are the same: its end tells it apart.
    let disk = rig.disk.snapshot();
    disk.overwrite(segment(0), 0, &other.disk.contents(segment(0)));
    for sealed in [true, false] {
        if !sealed {
            disk.remove(&seal(0)).unwrap();
        }
        let damage = corrupt(&disk);
        assert_eq!(
            (damage.segment, damage.kind),
            (segment_name(3), DamageKind::ChainBroken)
        );
    }
    // What stands before a checkpoint is not computed again at opening where it has a seal: but that of
    // another file is none.
    rig.checkpoint().unwrap();
    let disk = rig.disk.snapshot();
    disk.overwrite(segment(0), 0, &other.disk.contents(segment(0)));
    let damage = corrupt(&disk);
    assert_eq!(
        (damage.segment, damage.kind),
        (segment_name(3), DamageKind::ChainBroken)
    );
    // A segment under the name of another one.
    let disk = rig.disk.snapshot();
    disk.overwrite(segment(5), 0, &rig.disk.contents(segment(3)));
    let damage = corrupt(&disk);
    assert_eq!(
        (damage.segment, damage.kind),
        (segment_name(5), DamageKind::ForeignSegment)
    );
}

#[test]
fn a_segment_that_is_not_the_one_that_was_sealed_is_told_by_verification() {
    // The same in all, salts too, but for one payload.
    let [mut rig, mut other] = [Rig::new(1), Rig::new(1)];
    for (rig, payload) in [(&mut rig, b"one payload"), (&mut other, b"another one")] {
        rig.append(&one(payload));
        rig.roll(256 << 10);
        rig.append(&one(b"behind it"));
        rig.checkpoint().unwrap();
    }
    let disk = rig.disk.snapshot();
    disk.overwrite(segment(0), 0, &other.disk.contents(segment(0)));
    // What stands before a checkpoint and has a seal is not computed again at opening.
    let damage = Rig::open(&disk, 2).unwrap().verify().damage;
    assert_eq!(damage[0].segment, segment_name(0), "{damage:?}");
    assert_eq!(damage[0].kind, DamageKind::SealMismatch);
}

#[test]
fn a_segment_with_another_log_id_is_foreign() {
    let rig = four_segments(1);
    let disk = rig.disk.snapshot();
    let page = disk.contents(segment(5));
    let mut header = kimberlite_storage::SegmentHeader::decode(&page).unwrap();
    header.log_id = kimberlite_types::LogId::new([8; 32]);
    disk.overwrite(segment(5), 0, &header.encode());
    let damage = corrupt(&disk);
    assert_eq!(
        (damage.segment, damage.kind),
        (segment_name(5), DamageKind::ForeignSegment)
    );
}

#[test]
fn a_last_segment_of_an_older_copy_is_found_by_its_chain() {
    let mut rig = four_segments(1);
    let copy = rig.disk.snapshot();
    rig.append(&one(b"one history"));
    let mut fork = Rig::open(&copy, 4).unwrap();
    fork.append(&one(b"another one"));
    fork.checkpoint().unwrap();
    // The fork's checkpoint beside a log of the same length that it was not made of.
    let disk = rig.disk.snapshot();
    disk.create_dir_all(&dir().join("checkpoints")).unwrap();
    for ending in ["note", "state"] {
        let path = dir().join(format!("checkpoints/{:020}.{ending}", 9));
        let content = copy.contents(&path);
        disk.write_new_atomic(&path, &content, kimberlite_disk::Access::Shared)
            .unwrap();
    }
    let damage = corrupt(&disk);
    assert_eq!(
        (damage.position.get(), damage.kind),
        (9, DamageKind::CheckpointMismatch)
    );
}

#[test]
fn a_log_that_differs_from_its_checkpoint_is_refused_wherever_the_checkpoint_ends() {
    // At a border between frames, in a closed segment, at a border between segments, at the end.
    for size in [2, 4, 5, 8] {
        let rig = four_segments(1);
        let fork = four_segments(2);
        // With the state beside the note, with that of an older one, and with none.
        for state_at in [Some(size), Some(1), None] {
            let open = |disk: &SimulatedDisk, signed: &Rig| {
                let witness = Witness {
                    newest: Some(signed.history_at(size).statement()),
                    history: state_at.map(|at| signed.history_at(at)),
                    base: None,
                };
                let options = options(3);
                open_writer(&dyn_disk(disk), dir(), options, &witness, &mut |_| Ok(())).map(drop)
            };
            open(&rig.disk.twin(), &rig).unwrap();
            match open(&rig.disk, &fork) {
                Err(StorageError::Corrupt(damage)) => {
                    assert_eq!(damage.kind, DamageKind::CheckpointMismatch, "{damage}");
                    assert_eq!(damage.position.get(), size, "{damage}");
                }
                other => panic!("size {size}, state at {state_at:?}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_first_record_that_is_cut_off_is_damage() {
    let rig = four_segments(1);
    let first = || first_record(&dyn_disk(&rig.disk), dir());
    assert_eq!(first().unwrap().payload().as_ref(), crate::rig::genesis());
    for bytes in [4096, 4096 + 60, 4096 + 112, 4096 + 122] {
        set_bytes(&rig.disk, 0, bytes);
        match first() {
            Err(StorageError::Corrupt(damage)) => {
                assert_eq!((damage.segment, damage.byte), (segment_name(0), 4096));
            }
            other => panic!("{bytes} bytes: {other:?}"),
        }
    }
}
