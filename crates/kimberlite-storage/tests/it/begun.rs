//! A new segment, whose header page and name become durable with its first frames.

use std::sync::{Arc, Mutex};

use kimberlite_disk::{Disk, DiskError, OpenMode, WriteMode};
use kimberlite_storage::{DamageKind, Durability, SegmentHeaderError, StorageError};
use kimberlite_testkit::{CrashMode, Rng, SimulatedDisk};
use kimberlite_types::Position;

use crate::rig::{Rig, corrupt, create, layout, observe, one, seal, segment, segment_name};

const PAGE: [u8; 4096] = [0; 4096];

/// A log whose last segment begins at 2, with a few records in it, synced or not.
fn with_new_segment(records: u8, durability: Durability) -> Rig {
    let mut rig = Rig::new(1);
    rig.append(&one(b"first"));
    rig.roll(256 << 10);
    for record in 0..records {
        let payload = Rng::new(record.into()).bytes(700);
        rig.commit(&one(&payload), durability).unwrap();
    }
    rig
}

/// The same, beside a last segment without its header page.
fn without_page(rig: &Rig, base: u64) -> SimulatedDisk {
    let disk = rig.disk.snapshot();
    disk.overwrite(segment(base), 0, &PAGE);
    disk
}

fn refused_for_its_page(disk: &SimulatedDisk, base: u64, error: SegmentHeaderError) {
    let damage = corrupt(disk);
    assert_eq!((damage.segment, damage.byte), (segment_name(base), 0));
    assert_eq!(damage.kind, DamageKind::SegmentHeader(error));
}

#[test]
fn a_last_segment_without_its_header_page_was_not_begun_and_what_stands_in_it_is_kept() {
    for records in 0..4 {
        let rig = with_new_segment(records, Durability::Later);
        let disk = without_page(&rig, 2);
        let end = layout(&disk).last().unwrap().end;
        let (reader, report) = observe(&disk, &rig.model);
        assert_eq!((reader.end().get(), report.damage.len()), (2, 0));
        assert_eq!(report.tail_torn.is_some(), records > 0);
        let torn = disk.contents(segment(2));
        let mut found = Rig::open(&disk, 3).unwrap();
        assert_eq!(found.end(), 2);
        match found.report.tail_discarded.clone() {
            None => assert_eq!(records, 0),
            Some(cut) => {
                assert!(records > 0);
                assert_eq!((cut.position.get(), cut.segment_base.get()), (2, 2));
                assert_eq!(cut.byte, 4096);
                let kept = disk.contents(&cut.kept_in);
                assert_eq!(kept, torn[4096..4096 + kept.len()]);
                let used = usize::try_from(end).unwrap();
                assert!(torn[4096 + kept.len()..used].iter().all(|&byte| byte == 0));
            }
        }
        let page = kimberlite_storage::SegmentHeader::decode(&disk.contents(segment(2))).unwrap();
        assert_ne!(page.salt, [0; 16], "each file has its own");
        found.append(&one(b"second"));
        found.check();
        found.reopen().check();
    }
}

#[test]
fn a_lost_header_page_is_damage_where_something_tells_that_it_was_synced() {
    let lost = SegmentHeaderError::Magic;
    let without_seals = |rig: &Rig| {
        let disk = without_page(rig, 2);
        disk.remove(&seal(0)).unwrap();
        disk
    };
    // The seal of the segment before.
    let rig = with_new_segment(1, Durability::Group);
    refused_for_its_page(&without_page(&rig, 2), 2, lost);
    assert_eq!(Rig::open(&without_seals(&rig), 3).unwrap().end(), 2);
    // A later frame.
    let rig = with_new_segment(2, Durability::Group);
    refused_for_its_page(&without_seals(&rig), 2, lost);
    // A watermark.
    let mut rig = with_new_segment(1, Durability::Group);
    rig.writer.write_watermark().unwrap();
    refused_for_its_page(&without_seals(&rig), 2, lost);
    // A checkpoint.
    let mut rig = with_new_segment(1, Durability::Group);
    rig.checkpoint().unwrap();
    refused_for_its_page(&without_seals(&rig), 2, lost);
    // The next segment, and its own seal.
    let mut rig = with_new_segment(1, Durability::Group);
    rig.roll(1 << 20);
    rig.append(&one(b"in the next one"));
    let disk = without_seals(&rig);
    refused_for_its_page(&disk, 2, lost);
    disk.remove(&segment(3)).unwrap();
    refused_for_its_page(&disk, 2, lost);
    disk.remove(&seal(2)).unwrap();
    assert_eq!(Rig::open(&disk, 3).unwrap().end(), 2);
}

#[test]
fn a_checkpoint_of_what_stands_before_it_does_not_tell_of_a_segment() {
    let mut rig = Rig::new(1);
    rig.append(&one(b"first"));
    rig.checkpoint().unwrap();
    rig.roll(256 << 10);
    let disk = without_page(&rig, 2);
    let mut found = Rig::open(&disk, 3).unwrap();
    found.append(&one(b"second"));
    found.check();
    found.reopen().check();
}

#[test]
fn only_a_header_page_of_zeros_was_lost() {
    let rig = with_new_segment(1, Durability::Later);
    for byte in [0, 9, 100, 600, 4095] {
        let disk = without_page(&rig, 2);
        disk.overwrite(segment(2), byte, &[1]);
        let expected = SegmentHeaderError::Magic;
        refused_for_its_page(&disk, 2, expected);
    }
    // In the first segment it was synced before the name.
    let rig = Rig::new(1);
    refused_for_its_page(&without_page(&rig, 0), 0, SegmentHeaderError::Magic);
    // Space is there before the name, too.
    let rig = with_new_segment(0, Durability::Later);
    for (bytes, error) in [
        (100, SegmentHeaderError::Short),
        (8192, SegmentHeaderError::Magic),
    ] {
        let disk = without_page(&rig, 2);
        let file = disk.open(&segment(2), OpenMode::ReadWrite).unwrap();
        file.set_bytes(bytes).unwrap();
        file.sync_all().unwrap();
        refused_for_its_page(&disk, 2, error);
    }
}

#[test]
fn damage_before_a_segment_that_was_not_begun_is_damage() {
    let rig = with_new_segment(1, Durability::Later);
    let last = layout(&rig.disk);
    let last = last.iter().rfind(|place| place.segment == 0).unwrap();
    let disk = without_page(&rig, 2);
    // Torn it would look, were it not for the name behind it.
    let zeros = vec![0; usize::try_from(last.end - last.at).unwrap()];
    disk.overwrite(segment(0), last.at, &zeros);
    let damage = corrupt(&disk);
    assert_eq!(damage.segment, segment_name(0));
}

/// A log that begins a segment with its next group of 100 KiB, for which a file was made ahead.
fn before_roll(disk: &SimulatedDisk, mode: WriteMode) -> Rig {
    create(disk, 1).unwrap();
    let mut rig = Rig::open_by(disk, 1, mode).unwrap();
    rig.append(&one(b"first"));
    rig.roll(256 << 10);
    for _ in 0..10 {
        rig.append(&one(&Rng::new(1).bytes(100 << 10)));
    }
    assert_eq!(layout(disk).last().unwrap().segment, 2);
    rig
}

#[test]
fn an_append_that_begins_a_segment_syncs_its_file_and_the_directory_once() {
    for mode in [WriteMode::Buffered, WriteMode::Direct] {
        let disk = SimulatedDisk::new(1);
        let mut rig = before_roll(&disk, mode);
        let synced = Arc::new(Mutex::new(Vec::new()));
        let files = Arc::clone(&synced);
        disk.set_sync_observer(Arc::new(move |path| {
            files.lock().unwrap().push(path.to_owned());
        }));
        let before = disk.syncs();
        rig.append(&one(&Rng::new(2).bytes(100 << 10)));
        assert_eq!(layout(&disk).last().unwrap().segment, 12);
        let files = synced.lock().unwrap();
        let is_seal = |path: &&std::path::PathBuf| path.to_str().unwrap().contains(".seal");
        let seals = files.iter().filter(is_seal).count();
        assert_eq!((files.len(), seals), (2, 1), "{files:?}");
        let directories = disk.syncs() - before - 2;
        // That of the seal is another one.
        assert_eq!(directories, 2);
    }
}

#[test]
fn a_crash_at_any_operation_of_a_roll_leaves_a_segment_that_was_begun_or_not() {
    let (mut not_begun, mut unnamed, mut whole) = (0, 0, 0);
    let group = one(&Rng::new(2).bytes(100 << 10));
    for mode in [WriteMode::Buffered, WriteMode::Direct] {
        let counted = SimulatedDisk::new(1);
        let mut rig = before_roll(&counted, mode);
        let first = counted.ops() + 1;
        rig.append(&group);
        for op in first..=counted.ops() {
            let disk = SimulatedDisk::new(op);
            let mut rig = before_roll(&disk, mode);
            disk.crash_after(op);
            let acknowledged = match rig.commit(&group, Durability::Group) {
                Ok(()) => 13,
                Err(_) => rig.writer.durable().get(),
            };
            for seed in 0..12 {
                let found = disk.crash(CrashMode::Mixed(seed));
                let why = format!("{mode:?}: operation {op}, seed {seed}");
                match found.files().contains(&segment(12)) {
                    false => unnamed += 1,
                    true if found.contents(segment(12))[..4096] == PAGE => not_begun += 1,
                    true => whole += 1,
                }
                let found = Rig::open_by(&found, 3, mode);
                let mut found = found.unwrap_or_else(|error| panic!("{why}: {error:?}"));
                assert!(found.end() >= acknowledged, "{why}");
                assert!(rig.model.starts_with(&found.model), "{why}");
                found.append(&group);
                found.append(&one(b"behind it"));
                found.check();
                let again = Rig::open(&found.disk.crash(CrashMode::LoseUnsynced), 4).unwrap();
                assert_eq!(again.model, found.model, "{why}");
            }
        }
    }
    let seen = [not_begun, unnamed, whole];
    assert!(seen.iter().all(|&count| count > 5), "{seen:?}");
}

#[test]
fn a_segment_whose_first_sync_fails_is_written_anew() {
    let group = one(&Rng::new(2).bytes(100 << 10));
    let disk = SimulatedDisk::new(1);
    let mut rig = before_roll(&disk, WriteMode::Buffered);
    let first = disk.ops() + 1;
    rig.append(&group);
    for op in first..=disk.ops() {
        let disk = SimulatedDisk::new(op);
        let mut rig = before_roll(&disk, WriteMode::Buffered);
        disk.fail_sync_at(op);
        if rig.commit(&group, Durability::Group).is_ok() {
            continue;
        }
        assert!(rig.writer.is_poisoned());
        let cached = disk.process_kill();
        let shown = Rig::open(&cached, 3).unwrap();
        assert_eq!(shown.end(), 13, "the page cache has it");
        for seed in 0..4 {
            let found = cached.twin().crash(CrashMode::Mixed(seed));
            let found = Rig::open(&found, 4).unwrap();
            assert_eq!(found.model, shown.model, "operation {op}");
            found.check();
        }
    }
}

#[test]
fn an_opening_that_finds_no_space_to_write_a_segment_anew_succeeds_later() {
    let rig = with_new_segment(2, Durability::Later);
    let disk = rig.disk.process_kill();
    disk.set_space_bytes(Some(disk.used_bytes() + (256 << 10) - 1));
    let full = Rig::open(&disk, 3).map(drop);
    let is_full = matches!(full, Err(StorageError::Disk(DiskError::Full { .. })));
    assert!(is_full, "{full:?}");
    disk.set_space_bytes(None);
    assert_eq!(Rig::open(&disk, 3).unwrap().model, rig.model);
}

#[test]
fn a_sync_makes_a_segment_durable_in_which_nothing_stands() {
    let mut rig = with_new_segment(0, Durability::Later);
    let stands = |rig: &Rig| {
        let files = rig.disk.twin().crash(CrashMode::LoseUnsynced).files();
        [segment(2), seal(0)].map(|path| files.contains(&path))
    };
    rig.writer.reserve(1).unwrap();
    assert_eq!(stands(&rig), [false, false]);
    rig.writer.sync().unwrap();
    assert_eq!(stands(&rig), [true, true]);
    let syncs = rig.disk.syncs();
    rig.writer.sync().unwrap();
    assert_eq!(rig.disk.syncs(), syncs, "once");
}

#[test]
fn a_segment_that_is_closed_on_request_stands_when_that_returns() {
    let mut rig = Rig::new(1);
    rig.append(&one(b"first"));
    rig.writer.close_segment().unwrap();
    let found = rig.disk.crash(CrashMode::LoseUnsynced);
    assert!(found.files().contains(&segment(2)));
    assert!(found.files().contains(&seal(0)));
    let found = Rig::open(&found, 2).unwrap();
    assert_eq!(found.end(), 2);
}

/// Crashes at each operation of `act`, before which `before` has made a log, and opens what is found.
/// A log has at least as many records then as `act` says.
fn crash_in(
    before: impl Fn(&SimulatedDisk) -> Rig,
    act: impl Fn(&mut Rig) -> Result<u64, StorageError>,
) {
    let counted = SimulatedDisk::new(1);
    let mut rig = before(&counted);
    let (first, records) = (counted.ops() + 1, rig.end());
    act(&mut rig).unwrap();
    for op in first..=counted.ops() {
        let disk = SimulatedDisk::new(op);
        let mut rig = before(&disk);
        disk.crash_after(op);
        let acknowledged = act(&mut rig).unwrap_or(records);
        for seed in 0..6 {
            let why = format!("operation {op}, seed {seed}");
            let found = Rig::open(&disk.crash(CrashMode::Mixed(seed)), 3);
            let mut found = found.unwrap_or_else(|error| panic!("{why}: {error:?}"));
            assert!(found.end() >= acknowledged, "{why}");
            assert!(rig.model.starts_with(&found.model), "{why}");
            found.append(&one(b"behind it"));
        }
    }
}

#[test]
fn a_crash_while_a_segment_in_which_nothing_stands_is_replaced_leaves_one_of_the_two() {
    let empty = |disk: &SimulatedDisk| {
        create(disk, 1).unwrap();
        let mut rig = Rig::open(disk, 1).unwrap();
        rig.append(&one(b"first"));
        rig.writer.close_segment().unwrap();
        assert!(disk.files().contains(&seal(0)));
        rig
    };
    // More than the empty one holds.
    let group = one(&Rng::new(2).bytes(300 << 10));
    crash_in(empty, |rig| {
        rig.commit(&group, Durability::Group)?;
        Ok(rig.end())
    });
}

#[test]
fn a_segment_that_is_closed_on_request_is_followed_by_one_of_a_usual_size() {
    // The last segment is one that a purge has made small, as where a repair cuts off those behind it.
    let small = |disk: &SimulatedDisk| {
        create(disk, 1).unwrap();
        let mut rig = Rig::open(disk, 1).unwrap();
        for _ in 0..6 {
            rig.append(&one(&[7; 1000]));
        }
        rig.writer.close_segment().unwrap();
        let purger = rig.writer.purger();
        let all = |_: &_| true;
        purger.purge(Position::new(7), &all, &mut |_| {}).unwrap();
        drop(rig);
        disk.remove(&segment(7)).unwrap();
        disk.remove(&seal(0)).unwrap();
        disk.sync_dir(segment(0).parent().unwrap()).unwrap();
        let rig = Rig::open(disk, 2).unwrap();
        assert_eq!(disk.contents(segment(0)).len(), 8192);
        rig
    };
    let disk = SimulatedDisk::new(1);
    small(&disk).writer.close_segment().unwrap();
    assert_eq!(disk.contents(segment(7)).len(), 256 << 10);
    crash_in(small, |rig| {
        rig.writer.close_segment()?;
        Ok(rig.end())
    });
}
