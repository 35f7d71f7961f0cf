//! Segments that are written anew without payloads: history, crashes, faults, readers beside it.

use kimberlite_disk::Disk as _;
use kimberlite_storage::{
    Damage, DamageKind, FrameCursor, FrameHeader, FrameView, LogReader, LogWriter, PurgeOutcome,
    ReadMode, StorageError, open_observer, open_writer,
};
use kimberlite_testkit::{CrashMode, Rng, SimulatedDisk};
use kimberlite_types::Position;

use crate::flips;
use crate::rig::{
    self, FRAMES_AT, Rig, dyn_disk, layout, observe, one, seal, segment, segment_name, verify_all,
};

/// Three segments, based at 0, 6 and 11; 13 records; a checkpoint in the middle.
fn log(seed: u64) -> Rig {
    let mut rig = Rig::new(seed);
    let mut rng = Rng::new(4);
    rig.append(&vec![
        vec![rng.bytes(900), vec![], rng.bytes(7)],
        vec![rng.bytes(20_000), rng.bytes(90)],
    ]);
    rig.checkpoint().unwrap();
    rig.roll(256 << 10);
    rig.append(&vec![vec![rng.bytes(3000)], vec![rng.bytes(3), vec![]]]);
    rig.writer.write_watermark().unwrap();
    rig.append(&vec![vec![rng.bytes(600), rng.bytes(1)]]);
    rig.checkpoint().unwrap();
    rig.roll(1 << 20);
    rig.append(&vec![vec![rng.bytes(13), rng.bytes(14)]]);
    rig.writer.write_watermark().unwrap();
    assert_eq!(rig.end(), 13);
    rig
}

fn below(until: u64) -> impl Fn(&FrameHeader) -> bool {
    move |header| header.end_position().get() <= until
}

fn purge(rig: &Rig, until: u64) -> Result<PurgeOutcome, StorageError> {
    let choice = below(until);
    let position = Position::new(until);
    rig.writer.purger().purge(position, &choice, &mut |_| ())
}

/// Whether an event is in a frame that ends at or before `until` and stands in a closed segment.
fn is_purged(position: u64, until: u64) -> bool {
    let ends = [1, 4, 6, 7, 9, 11];
    let end = ends.iter().find(|&&end| position < end);
    position > 0 && end.is_some_and(|&end| end <= until)
}

/// Checks that each record has its payload or is purged as `purged` allows, and that all of it
/// verifies.
fn check(rig: &Rig, disk: &SimulatedDisk, model: &[Vec<u8>], purged: impl Fn(u64, bool) -> bool) {
    let reader = rig.writer.reader();
    check_records(&reader, model, purged);
    let verified = verify_all(&reader, disk);
    assert_eq!(verified.damage, []);
    assert_eq!(verified.chain, rig.writer.history().chain());
    assert_eq!(verified.root, rig.writer.history().root());
}

fn check_records(reader: &LogReader, model: &[Vec<u8>], purged: impl Fn(u64, bool) -> bool) {
    assert_eq!(reader.end().get(), u64::try_from(model.len()).unwrap());
    let end = u64::try_from(model.len()).unwrap();
    let mut cursor = FrameCursor::new(reader.clone());
    // Forward, backward, and jumping.
    let jumps = (0..end).map(|nth| nth * 5 % end);
    for position in (0..end).chain((0..end).rev()).chain(jumps) {
        let position = Position::new(position);
        let record = reader.record(position).unwrap().unwrap();
        let (_, content) = cursor.content(position).unwrap().unwrap();
        assert_eq!(content.payload().is_none(), record.purged().is_some());
        assert_eq!(content, record.into_content());
    }
    for (position, payload) in (0..).zip(model) {
        let record = reader.record(Position::new(position)).unwrap().unwrap();
        assert!(purged(position, record.purged().is_some()), "{position}");
        match record.purged() {
            Some(left) => {
                assert_eq!(left.bytes, u32::try_from(payload.len()).unwrap());
                let digest = kimberlite_crypto::payload_digest(payload);
                assert_eq!(left.digest, digest);
            }
            None => assert_eq!(record.payload(), payload),
        }
    }
}

/// Opens a log whose bytes were changed behind a checkpoint and a seal, which an opening passes over.
fn reopen_unread(rig: Rig) -> (SimulatedDisk, LogWriter) {
    let disk = rig.disk.clone();
    drop(rig);
    let witness = rig::witness(&disk);
    let (files, options) = (dyn_disk(&disk), rig::options(9797));
    let mut ignore = |_: &FrameView| Ok(());
    let opened = open_writer(&files, rig::dir(), options, &witness, &mut ignore);
    let (writer, _) = opened.unwrap();
    (disk, writer)
}

fn refused(writer: &LogWriter) -> Damage {
    let until = Position::new(11);
    let refused = writer.purger().purge(until, &below(11), &mut |_| ());
    match refused.unwrap_err() {
        StorageError::Corrupt(damage) => damage,
        other => panic!("{other:?}"),
    }
}

fn reopen(rig: Rig) -> Rig {
    let disk = rig.disk.clone();
    drop(rig);
    Rig::open(&disk, 9898).unwrap()
}

#[test]
fn a_purge_keeps_the_history_frees_space_and_is_done_once() {
    for until in 0..=13 {
        let mut rig = log(1);
        let model = rig.model.clone();
        let history = rig.writer.history();
        let before = rig.disk.used_bytes();
        let position = Position::new(until);
        let planned = rig.writer.purger().plan(position, &below(until)).unwrap();
        let outcome = purge(&rig, until).unwrap();
        assert_eq!(outcome, planned);
        let purged = (0..13).filter(|&position| is_purged(position, until));
        let events = u64::try_from(purged.count()).unwrap();
        assert_eq!(outcome.events, events, "{until}");
        assert_eq!(outcome.events_left, if until == 13 { 2 } else { 0 });
        let segments = u64::from(until >= 4) + u64::from(until >= 7);
        assert_eq!(outcome.segments_rewritten, segments);
        assert_eq!(before - rig.disk.used_bytes(), outcome.bytes_freed);
        assert_eq!(outcome.bytes_freed > 200 << 10, segments > 0);
        let as_told = |position, purged| purged == is_purged(position, until);
        check(&rig, &rig.disk, &model, as_told);
        let files = rig.disk.files();
        assert!(!files.iter().any(|path| path.ends_with("purge.tmp")));

        let (ops, seals) = (
            rig.disk.ops(),
            [0, 6].map(|base| rig.disk.contents(seal(base))),
        );
        let again = purge(&rig, until).unwrap();
        assert_eq!((again.events, again.bytes_freed), (0, 0));
        assert_eq!(rig.disk.ops(), ops, "nothing is done twice");

        rig = reopen(rig);
        assert_eq!(rig.writer.history(), history);
        let made_anew = [0, 6].map(|base| rig.disk.contents(seal(base)));
        assert_eq!(
            made_anew, seals,
            "a purge makes the seals that an opening would"
        );
        check(&rig, &rig.disk, &model, as_told);
        for (seed, read_mode) in [(11, ReadMode::Copied), (12, ReadMode::Mapped)] {
            let mut options = rig::options(seed);
            (options.read_mode, options.tail_bytes_max) = (read_mode, 0);
            let by_mode = Rig::open_with(&rig.disk.twin(), options).unwrap();
            check(&by_mode, &by_mode.disk, &model, as_told);
        }
        rig.append(&one(b"after"));
        let (reader, report) = {
            let witness = rig::witness(&rig.disk);
            let (disk, options) = (dyn_disk(&rig.disk), rig::options(6));
            let mut ignore = |_: &FrameView| Ok(());
            open_observer(&disk, rig::dir(), &options, &witness, &mut ignore).unwrap()
        };
        assert_eq!(report.damage, []);
        let model = [model, vec![b"after".to_vec()]].concat();
        check_records(&reader, &model, as_told);
    }
}

#[test]
fn chosen_frames_are_purged_and_their_neighbours_are_not() {
    let rig = log(2);
    let only = |header: &FrameHeader| header.base_position.get() == 4;
    let until = Position::new(13);
    let outcome = rig
        .writer
        .purger()
        .purge(until, &only, &mut |_| ())
        .unwrap();
    assert_eq!((outcome.events, outcome.payload_bytes), (2, 20_090));
    let chosen = |position, purged| purged == (4..6).contains(&position);
    check(&rig, &rig.disk, &rig.model, chosen);
    // What is left is purged later, beside what was.
    let outcome = purge(&rig, 6).unwrap();
    assert_eq!((outcome.events, outcome.segments_rewritten), (3, 1));
    let all = |position, purged| purged == is_purged(position, 6);
    check(&rig, &rig.disk, &rig.model, all);
}

#[test]
fn readers_keep_what_they_hold_and_find_the_new_file_afterwards() {
    let rig = log(3);
    let reader = rig.writer.reader();
    let frame = reader.frame(Position::new(4)).unwrap().unwrap();
    let held = frame.record(Position::new(4)).unwrap();
    let (other, _) = observe(&rig.disk, &rig.model);
    purge(&rig, 11).unwrap();
    assert_eq!(held.payload(), &rig.model[4]);
    let again = frame.record(Position::new(5)).unwrap();
    assert_eq!(again.payload(), &rig.model[5]);
    // One who opened the log before, also in another process, reads on from the old files.
    check_records(&other, &rig.model, |_, purged| !purged);
    assert_eq!(verify_all(&other, &rig.disk).damage, []);
    let now = |position, purged| purged == is_purged(position, 11);
    check_records(&reader, &rig.model, now);
}

#[test]
fn a_segment_is_closed_for_a_purge_and_the_next_is_no_larger() {
    let mut rig = log(4);
    let sizes = |disk: &SimulatedDisk| [11, 13].map(|base| disk.contents(segment(base)).len());
    rig.writer.close_segment().unwrap();
    let [old, new] = sizes(&rig.disk);
    assert_eq!(old, new);
    let ops = rig.disk.ops();
    rig.writer.close_segment().unwrap();
    assert_eq!(rig.disk.ops(), ops, "there is nothing to close");
    assert_eq!(purge(&rig, 13).unwrap().events, 12);
    check(&rig, &rig.disk, &rig.model, |position, purged| {
        purged == (position > 0)
    });
    let model = rig.model.clone();
    let mut rig = reopen(rig);
    rig.model = model;
    rig.append(&one(b"after"));
    check(&rig, &rig.disk, &rig.model, |position, purged| {
        purged == (1..13).contains(&position)
    });
}

/// Purges, and says whether all of it was done; whatever happened, this process reads on, unless the
/// machine has stopped.
fn run(disk: &SimulatedDisk, read: Option<&[Vec<u8>]>) -> bool {
    let Ok(rig) = Rig::open(disk, 5005) else {
        return false;
    };
    let done = purge(&rig, 11).is_ok();
    if let Some(model) = read {
        let any = |position, purged: bool| !purged || is_purged(position, 11);
        check_records(&rig.writer.reader(), model, any);
    }
    done
}

#[test]
fn a_crash_at_any_operation_of_a_purge_leaves_each_segment_whole_and_the_next_purge_completes_it() {
    let base = log(5);
    let (model, history) = (base.model.clone(), base.writer.history());
    let disk = base.disk.clone();
    drop(base);
    let counted = disk.twin();
    assert!(run(&counted, Some(&model)));
    assert!(counted.ops() > 20, "{} operations", counted.ops());
    let mut halves = 0;
    for op in 1..=counted.ops() {
        let crashed = disk.twin();
        crashed.crash_after(op);
        run(&crashed, None);
        let mixed = (0..3).map(CrashMode::Mixed);
        for mode in [CrashMode::LoseUnsynced, CrashMode::KeepUnsynced]
            .into_iter()
            .chain(mixed)
        {
            let why = format!("crash in operation {op}, {mode:?}");
            let found = crashed.crash(mode);
            let rig = Rig::open(&found, 6006).unwrap_or_else(|error| panic!("{why}: {error:?}"));
            assert_eq!(rig.writer.history(), history, "{why}");
            let any = |position, purged: bool| !purged || is_purged(position, 11);
            check(&rig, &found, &model, any);
            let outcome = purge(&rig, 11).unwrap();
            halves += u64::from(outcome.segments_rewritten == 1);
            let all = |position, purged| purged == is_purged(position, 11);
            check(&rig, &found, &model, all);
            assert!(!found.files().iter().any(|path| path.ends_with("purge.tmp")));
            check(&reopen(rig), &found, &model, all);
        }
    }
    assert!(halves > 10, "{halves} times one of two segments was left");
}

#[test]
fn a_purge_that_the_disk_refuses_anywhere_changes_no_record_and_is_completed_later() {
    let base = log(6);
    let model = base.model.clone();
    let disk = base.disk.clone();
    drop(base);
    let counted = disk.twin();
    assert!(run(&counted, Some(&model)));
    for op in 1..=counted.ops() {
        for sync in [false, true] {
            let failing = disk.twin();
            if sync {
                failing.fail_sync_at(op);
            } else {
                failing.fail_write_at(op);
            }
            run(&failing, Some(&model));
            let found = failing.process_kill();
            let rig = Rig::open(&found, 7007).unwrap();
            purge(&rig, 11).unwrap();
            let all = |position, purged| purged == is_purged(position, 11);
            check(&rig, &found, &model, all);
        }
    }
}

#[test]
fn what_is_purged_stays_purged_when_the_power_goes_also_without_a_seal() {
    let rig = log(3);
    for base in [0, 6] {
        rig.disk.remove(&seal(base)).unwrap();
    }
    purge(&rig, 11).unwrap();
    let model = rig.model.clone();
    for mode in [CrashMode::LoseUnsynced, CrashMode::KeepUnsynced] {
        let disk = rig.disk.crash(mode);
        let rig = Rig::open(&disk, 4).unwrap();
        check(&rig, &disk, &model, |position, purged| {
            purged == is_purged(position, 11)
        });
    }
}

#[test]
fn a_full_disk_refuses_a_purge_and_leaves_no_file_behind() {
    let rig = log(7);
    let used = rig.disk.used_bytes();
    rig.disk.set_space_bytes(Some(used + 5000));
    let refused = purge(&rig, 11).unwrap_err();
    assert!(matches!(refused, StorageError::Disk(_)), "{refused}");
    assert_eq!(rig.disk.used_bytes(), used);
    rig.check();
    rig.disk.set_space_bytes(None);
    assert_eq!(purge(&rig, 11).unwrap().segments_rewritten, 2);
}

#[test]
fn a_purge_needs_no_more_space_than_a_segment_has_afterwards() {
    let rig = log(7);
    let used = rig.disk.used_bytes();
    // Each of the two fits into three pages, the header page one of them, and its seal into one.
    let bytes = |base| {
        let purged = rig.disk.twin();
        let rig = Rig::open(&purged, 8).unwrap();
        purge(&rig, 11).unwrap();
        u64::try_from(purged.contents(segment(base)).len()).unwrap()
    };
    let most = bytes(0).max(bytes(6));
    assert!(most < 20_000, "{most}");
    rig.disk.set_space_bytes(Some(used + most - 1));
    purge(&rig, 11).unwrap_err();
    rig.disk.set_space_bytes(Some(used + most));
    assert_eq!(purge(&rig, 11).unwrap().segments_rewritten, 2);
}

#[test]
fn a_damaged_payload_is_told_and_not_purged() {
    let rig = log(8);
    let place = layout(&rig.disk)[2];
    let byte = place.at + 112 + 8 * place.count + 5000;
    rig.disk.flip(segment(0), byte, 1);
    let (disk, writer) = reopen_unread(rig);
    let before = disk.contents(segment(0));
    let damage = refused(&writer);
    assert_eq!(
        (damage.segment, damage.position.get()),
        (segment_name(0), 4)
    );
    assert_eq!(damage.kind, DamageKind::PayloadChecksum);
    assert_eq!(disk.contents(segment(0)), before);
}

/// Replaces a byte of a payload, with all checksums made to fit: only the hashes can tell.
fn forge(disk: &SimulatedDisk, place: rig::FramePlace) {
    let bytes = disk.contents(segment(place.segment));
    let at = usize::try_from(place.at).unwrap();
    let length = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap());
    let mut frame = bytes[at..at + usize::try_from(length).unwrap()].to_vec();
    assert_eq!(place.count, 1);
    frame[120] ^= 1;
    let payload = crc32c::crc32c(&frame[120..]).to_le_bytes();
    frame[116..120].copy_from_slice(&payload);
    let seeded = |part: &[u8]| {
        let seed = [&bytes[88..104], &place.at.to_le_bytes()].concat();
        crc32c::crc32c_append(crc32c::crc32c(&seed), part).to_le_bytes()
    };
    let table = seeded(&frame[112..120]);
    frame[12..16].copy_from_slice(&table);
    let header = seeded(&frame[8..112]);
    frame[4..8].copy_from_slice(&header);
    disk.overwrite(segment(place.segment), place.at, &frame);
}

#[test]
fn a_forged_payload_is_not_made_to_vanish_by_a_purge() {
    let rig = log(9);
    let places = layout(&rig.disk);
    let place = places.iter().find(|place| place.position == 6).unwrap();
    forge(&rig.disk, *place);
    let model = rig.model.clone();
    let (_, writer) = reopen_unread(rig);
    let record = |position| {
        let record = writer.reader().record(Position::new(position));
        record.unwrap().unwrap()
    };
    assert_ne!(record(6).payload(), &model[6]);
    let damage = refused(&writer);
    assert_eq!(damage.kind, DamageKind::ChainBroken);
    assert_eq!(record(6).purged(), None);
    assert_ne!(record(6).payload(), &model[6]);
}

#[test]
fn a_forged_last_payload_of_a_segment_is_told_by_the_next_segment() {
    let mut rig = Rig::new(10);
    rig.append(&one(&[7; 300]));
    rig.checkpoint().unwrap();
    rig.writer.close_segment().unwrap();
    let place = layout(&rig.disk)[1];
    forge(&rig.disk, place);
    let (_, writer) = reopen_unread(rig);
    assert_eq!(refused(&writer).kind, DamageKind::ChainBroken);
}

#[test]
fn any_flipped_byte_of_a_purged_frame_is_found() {
    let rig = log(11);
    purge(&rig, 11).unwrap();
    let disk = rig.disk.clone();
    let model = rig.model.clone();
    drop(rig);
    let mut purged = 0;
    for place in layout(&disk).iter().filter(|place| place.segment < 11) {
        let digests = place.end - place.at == 112 + 40 * place.count && place.count > 0;
        purged += u64::from(digests && place.position > 0);
        for byte in place.at..place.end {
            let changed = disk.snapshot();
            changed.flip(segment(place.segment), byte, 1 << (byte % 8));
            let damage = flips::found(&changed);
            let first = damage.first().unwrap_or_else(|| panic!("byte {byte}"));
            assert_eq!(first.segment, segment_name(place.segment));
            assert!(
                (place.at..=byte).contains(&first.byte),
                "{first}, byte {byte}"
            );
        }
    }
    assert_eq!(purged, 5);
    assert!(disk.contents(segment(0)).len() < 3 * usize::try_from(FRAMES_AT).unwrap());
    let rig = Rig::open(&disk, 3).unwrap();
    check(&rig, &disk, &model, |position, purged| {
        purged == is_purged(position, 11)
    });
}

#[test]
fn the_seal_of_the_old_file_is_passed_over() {
    let rig = log(12);
    let old = [0, 6].map(|base| rig.disk.contents(seal(base)));
    purge(&rig, 11).unwrap();
    let new = [0, 6].map(|base| rig.disk.contents(seal(base)));
    let disk = rig.disk.clone();
    let model = rig.model.clone();
    for (base, bytes) in [0, 6].into_iter().zip(&old) {
        disk.overwrite(seal(base), 0, bytes);
    }
    assert_eq!(verify_all(&rig.writer.reader(), &disk).damage, []);
    drop(rig);
    let (_, report) = {
        let witness = rig::witness(&disk);
        let mut ignore = |_: &FrameView| Ok(());
        open_observer(
            &dyn_disk(&disk),
            rig::dir(),
            &rig::options(6),
            &witness,
            &mut ignore,
        )
        .unwrap()
    };
    assert_eq!(report.damage, []);
    let rig = Rig::open(&disk, 3).unwrap();
    check(&rig, &disk, &model, |position, purged| {
        purged == is_purged(position, 11)
    });
    assert_eq!([0, 6].map(|base| disk.contents(seal(base))), new);
}

#[test]
fn a_cursor_that_is_on_its_way_goes_on_through_a_segment_that_is_purged_meanwhile() {
    for (read_mode, tail_bytes_max) in [
        (ReadMode::Copied, 0),
        (ReadMode::Copied, 4 << 20),
        (ReadMode::Mapped, 0),
    ] {
        for until in 0..13 {
            let rig = log(3);
            let disk = rig.disk.clone();
            let model = rig.model.clone();
            drop(rig);
            let mut options = rig::options(77);
            (options.read_mode, options.tail_bytes_max) = (read_mode, tail_bytes_max);
            let rig = Rig::open_with(&disk, options).unwrap();
            let mut cursor = FrameCursor::new(rig.writer.reader());
            for (position, payload) in (0..).zip(&model) {
                let (_, content) = cursor.content(Position::new(position)).unwrap().unwrap();
                if let Some(found) = content.payload() {
                    assert_eq!(found, payload, "{position}");
                }
                if position == until {
                    purge(&rig, 11).unwrap();
                }
            }
        }
    }
}
