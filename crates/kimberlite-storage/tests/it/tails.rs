//! Torn or damaged: what a bad end of the last segment means.

use kimberlite_storage::{DamageKind, Durability};
use kimberlite_testkit::{CrashMode, Rng};

use crate::rig::{FramePlace, Rig, SECTOR, corrupt, layout, observe, one, segment, segment_name};

/// A log whose last group is one record of a few random sectors, synced or not.
fn with_last(durability: Durability) -> (Rig, FramePlace) {
    let mut rig = Rig::new(1);
    rig.append(&one(b"first"));
    let payload = Rng::new(9).bytes(3000);
    rig.commit(&one(&payload), durability).unwrap();
    let last = *layout(&rig.disk).last().unwrap();
    assert_eq!(last.position, 2);
    (rig, last)
}

#[test]
fn rot_in_the_very_last_group_without_a_lost_sector_is_damage() {
    for marked in [false, true] {
        let (mut rig, last) = with_last(Durability::Group);
        if marked {
            rig.writer.write_watermark().unwrap();
        }
        for byte in (last.at..last.end).step_by(37) {
            let disk = rig.disk.snapshot();
            disk.flip(segment(0), byte, 0x40);
            let damage = corrupt(&disk);
            assert_eq!(damage.segment, segment_name(0));
            assert_eq!(damage.position.get(), 2);
            assert!((last.at..last.end).contains(&damage.byte));
            let (reader, report) = observe(&disk, &rig.model);
            assert_eq!((reader.end().get(), report.damage), (2, vec![damage]));
        }
    }
}

#[test]
fn a_sector_that_was_lost_is_torn_only_above_the_watermark() {
    let (mut rig, last) = with_last(Durability::Group);
    let sectors = (last.at / SECTOR..last.end.div_ceil(SECTOR)).collect::<Vec<_>>();
    for marked in [false, true] {
        if marked {
            rig.writer.write_watermark().unwrap();
        }
        for &sector in &sectors {
            let from = (sector * SECTOR).max(last.at);
            let end = ((sector + 1) * SECTOR).min(last.end);
            let zeros = vec![0; usize::try_from(end - from).unwrap()];
            let disk = rig.disk.snapshot();
            disk.overwrite(segment(0), from, &zeros);
            if marked {
                let damage = corrupt(&disk);
                assert_eq!(
                    (damage.position.get(), damage.segment),
                    (2, segment_name(0))
                );
                continue;
            }
            let kept = disk.contents(segment(0));
            let mut found = Rig::open(&disk, 3).unwrap();
            let cut = found.report.tail_discarded.clone().unwrap();
            assert_eq!((cut.position.get(), cut.byte), (2, last.at));
            assert_eq!(found.end(), 2);
            let tail = usize::try_from(last.at).unwrap();
            let tail = &kept[tail..][..usize::try_from(cut.bytes).unwrap()];
            assert_eq!(disk.contents(&cut.kept_in), tail);
            found.append(&one(b"other"));
            let again = found.reopen();
            assert_eq!(again.report.tail_discarded, None);
            again.check();
        }
    }
}

#[test]
fn a_torn_end_never_comes_back_after_a_sync_of_its_zeros_that_failed() {
    let (rig, last) = with_last(Durability::Group);
    drop(rig.writer);
    let lost = (last.at / SECTOR + 1) * SECTOR - last.at;
    let zeros = vec![0; usize::try_from(lost).unwrap()];
    rig.disk.overwrite(segment(0), last.at, &zeros);
    let mut failed = 0;
    for op in 1..100 {
        let disk = rig.disk.snapshot();
        disk.fail_sync_at(disk.ops() + op);
        let Err(error) = Rig::open(&disk, 3) else {
            break;
        };
        if disk.failed_directory_syncs() > 0 {
            continue;
        }
        failed += 1;
        let mut found = Rig::open(&disk, 4).unwrap();
        assert!(found.report.tail_discarded.is_some(), "op {op}, {error}");
        found.append(&one(b"other"));
        found.disk = disk.crash(CrashMode::LoseUnsynced);
        let again = found.reopen();
        assert_eq!(again.report.tail_discarded, None, "op {op}, {error}");
        again.check();
    }
    assert!(failed > 0);
}

#[test]
fn a_checkpoint_makes_a_lost_sector_of_the_last_group_damage() {
    let (mut rig, last) = with_last(Durability::Group);
    rig.checkpoint().unwrap();
    rig.disk.overwrite(segment(0), last.at, &[0; 112]);
    assert_eq!(corrupt(&rig.disk).position.get(), 2);
}

#[test]
fn unsynced_groups_behind_a_lost_one_go_with_it() {
    let mut rig = Rig::new(1);
    rig.append(&one(b"durable"));
    for round in 0..5 {
        rig.commit(&one(&Rng::new(round).bytes(900)), Durability::Later)
            .unwrap();
    }
    let lost = layout(&rig.disk)[3];
    let disk = rig.disk.snapshot();
    let zeros = vec![0; usize::try_from(lost.end - lost.at).unwrap()];
    disk.overwrite(segment(0), lost.at, &zeros);
    let found = Rig::open(&disk, 2).unwrap();
    assert_eq!(found.end(), 3);
    assert!(found.report.tail_discarded.is_some());
    found.reopen().check();
}

#[test]
fn a_frame_synced_by_itself_before_a_lost_one_of_its_group_is_no_damage() {
    // The frames share a sector: its first part was synced, the rest of it is lost.
    let mut rig = Rig::new(1);
    rig.append(&one(b"durable"));
    let group = vec![vec![vec![1; 40]], vec![vec![2; 40]]];
    rig.commit(&group, Durability::EachFrame).unwrap();
    let last = *layout(&rig.disk).last().unwrap();
    assert_ne!(last.at % SECTOR, 0);
    let disk = rig.disk.snapshot();
    let zeros = vec![0; usize::try_from(last.end - last.at).unwrap()];
    disk.overwrite(segment(0), last.at, &zeros);
    let found = Rig::open(&disk, 2).unwrap();
    assert_eq!(found.end(), 2);
    found.reopen().check();
}

#[test]
fn a_torn_tail_an_append_and_another_torn_tail_leave_the_appended_record() {
    let mut rig = Rig::new(1);
    for round in 0..30 {
        rig.append(&one(&[round; 50]));
        let durable = rig.model.clone();
        let lost = Rng::new(u64::from(round)).bytes(5000);
        let group = vec![vec![lost.clone()], vec![lost]];
        rig.commit(&group, Durability::Later).unwrap();
        let found = rig.disk.crash(CrashMode::Mixed(u64::from(round)));
        rig = Rig::open(&found, 4).unwrap();
        assert!(rig.model.starts_with(&durable));
        rig.check();
    }
}

#[test]
fn bytes_of_a_frame_of_another_place_are_not_taken_for_a_record() {
    let mut rig = Rig::new(1);
    rig.append(&one(b"first"));
    rig.roll(256 << 10);
    rig.append(&one(b"second"));
    let places = layout(&rig.disk);
    let end = places.last().unwrap().end;
    for from in &places {
        let bytes = rig.disk.contents(segment(from.segment));
        let range = usize::try_from(from.at).unwrap()..usize::try_from(from.end).unwrap();
        let disk = rig.disk.snapshot();
        disk.overwrite(segment(2), end, &bytes[range]);
        // No torn write leaves a stale block in zeroed space.
        let damage = corrupt(&disk);
        assert_eq!((damage.position.get(), damage.byte), (3, end));
        assert!(
            matches!(damage.kind, DamageKind::FrameHeader(_)),
            "{damage}"
        );
        let (reader, _) = observe(&disk, &rig.model);
        assert_eq!(reader.end().get(), 3);
    }
}

#[test]
fn a_frame_of_another_log_at_the_same_place_is_not_taken_for_a_record() {
    let mut logs = [Rig::new(1), Rig::new(2)];
    for rig in &mut logs {
        rig.append(&one(b"same"));
    }
    let [rig, other] = logs;
    let place = *layout(&rig.disk).last().unwrap();
    let bytes = other.disk.contents(segment(0));
    let range = usize::try_from(place.at).unwrap()..usize::try_from(place.end).unwrap();
    rig.disk.overwrite(segment(0), place.at, &bytes[range]);
    assert_eq!(corrupt(&rig.disk).position.get(), 1);
}

#[test]
fn a_payload_that_holds_frames_of_this_log_is_a_payload() {
    let mut rig = Rig::new(1);
    rig.append(&one(b"inner"));
    let bytes = rig.disk.contents(segment(0));
    let frames = bytes[4096..8192].to_vec();
    rig.append(&one(&frames));
    rig.append(&one(b"last"));
    rig.check();
    let mut rig = rig.reopen();
    // Torn in its header, the search for later frames runs through the payload.
    rig.commit(&one(&frames), Durability::Later).unwrap();
    let torn = *layout(&rig.disk).last().unwrap();
    let header = vec![0; usize::try_from(SECTOR - torn.at % SECTOR).unwrap()];
    let disk = rig.disk.snapshot();
    disk.overwrite(segment(0), torn.at, &header);
    let found = Rig::open(&disk, 2).unwrap();
    assert_eq!(found.end(), 4);
    assert!(found.report.tail_discarded.is_some());
    found.reopen().check();
}

#[test]
fn a_record_that_rots_behind_its_writer_is_located_by_its_first_byte() {
    let mut options = crate::rig::options(1);
    options.tail_bytes_max = 0;
    let disk = kimberlite_testkit::SimulatedDisk::new(1);
    crate::rig::create(&disk, 1).unwrap();
    let mut rig = Rig::open_with(&disk, options).unwrap();
    rig.append(&vec![vec![vec![1; 50], vec![2; 60], vec![3; 70]]]);
    let place = *layout(&disk).last().unwrap();
    let payload_at = place.at + 112 + 3 * 8 + 50;
    disk.flip(segment(0), payload_at + 9, 1);
    let reader = rig.writer.reader();
    let read = |position: u64| reader.record(kimberlite_types::Position::new(position));
    match read(place.position + 1) {
        Err(kimberlite_storage::StorageError::Corrupt(damage)) => {
            assert_eq!((damage.byte, damage.position.get()), (payload_at, 2));
            assert_eq!(damage.kind, DamageKind::PayloadChecksum);
        }
        other => panic!("{other:?}"),
    }
    for whole in [place.position, place.position + 2] {
        assert!(read(whole).unwrap().is_some());
    }
}

#[test]
fn the_first_copy_of_a_torn_tail_outlives_openings_that_are_cut_short() {
    let mut rig = Rig::new(1);
    rig.append(&one(b"first"));
    rig.append(&one(&Rng::new(9).bytes(9000)));
    let last = *layout(&rig.disk).last().unwrap();
    // One sector of many is lost.
    rig.disk
        .overwrite(segment(0), (last.at / SECTOR + 1) * SECTOR, &[0; 512]);
    let torn = rig.disk.snapshot();
    let whole = torn.twin();
    let cut = Rig::open(&whole, 3).unwrap().report.tail_discarded.unwrap();
    let kept = whole.contents(&cut.kept_in);
    assert!(kept.len() > 8000, "{} bytes", kept.len());
    let mut copied_again = 0;
    for op in 1..=whole.ops() - torn.ops() {
        for seed in 0..8 {
            let disk = torn.twin();
            disk.crash_after(disk.ops() + op);
            let _ = Rig::open(&disk, 3);
            let found = disk.crash(CrashMode::Mixed(seed));
            let told = Rig::open(&found, 4).unwrap().report.tail_discarded;
            let why = format!("operation {op}, seed {seed}");
            let told = told.unwrap_or_else(|| panic!("{why}: it is forgotten"));
            assert_eq!((told.byte, told.bytes), (cut.byte, cut.bytes), "{why}");
            assert_eq!(found.contents(&told.kept_in), kept, "{why}");
            let files = found.files().into_iter();
            let copies = files.filter(|path| path.extension() == told.kept_in.extension());
            copied_again += usize::from(copies.count() > 1);
        }
    }
    assert!(copied_again > 0, "no opening was cut short while it zeroed");
}
