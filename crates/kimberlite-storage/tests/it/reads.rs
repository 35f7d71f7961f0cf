//! Reading gives what was written, whichever way the bytes come into memory and whoever asks.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kimberlite_crypto::internal_hash;
use kimberlite_disk::{Access, Disk, WriteMode};
use kimberlite_storage::{
    Durability, FrameCursor, LogBase, LogReader, LogWriter, ReadMode, StorageError, Witness,
    closed_segments, create_log, open_observer, open_writer, scrub_segment, verify,
};
use kimberlite_testkit::{Rng, SimulatedDisk};
use kimberlite_types::{Position, Timestamp};

use crate::counting::Counting;
use crate::rig::{self, Group, check_records, dir, log_id, one};

fn options(read_mode: ReadMode, tail_bytes_max: usize) -> kimberlite_storage::LogOptions {
    let mut options = rig::options(1);
    options.read_mode = read_mode;
    options.tail_bytes_max = tail_bytes_max;
    options
}

fn open(disk: &Arc<dyn Disk>, options: kimberlite_storage::LogOptions) -> LogWriter {
    let opened = open_writer(disk, dir(), options, &Witness::default(), &mut |_| Ok(()));
    opened.unwrap().0
}

fn append(writer: &mut LogWriter, model: &mut Vec<Vec<u8>>, group: &Group) {
    let frames = rig::frames(writer.next_position().get(), group);
    writer.commit(frames, Durability::Group).unwrap();
    model.extend(group.iter().flatten().cloned());
}

/// Frames of one record and of many, in groups of one frame and of several, over three segments.
fn groups() -> Vec<Group> {
    let mut rng = Rng::new(7);
    let mut groups = Vec::new();
    for round in 0..240_usize {
        let mut payloads =
            |count: usize, bytes: usize| (0..count).map(|_| rng.bytes(bytes)).collect::<Vec<_>>();
        groups.push(match round % 4 {
            0 => vec![payloads(1, 300)],
            1 => vec![payloads(1, 20); 1 + round % 3],
            2 => vec![payloads(60, 250)],
            _ => vec![payloads(2, 0), payloads(1, 9_000)],
        });
    }
    groups
}

/// Reads with cursors that go forward, backward and anywhere.
fn check_cursors(reader: &LogReader, model: &[Vec<u8>]) {
    let end = reader.end().get();
    assert_eq!(end, u64::try_from(model.len()).unwrap());
    let mut rng = Rng::new(3);
    let anywhere = (0..end).map(|_| rng.below(end)).collect::<Vec<_>>();
    let forward = (0..end).collect::<Vec<_>>();
    let backward = (0..end).rev().collect::<Vec<_>>();
    for positions in [forward, backward, anywhere] {
        let mut cursor = FrameCursor::new(reader.clone());
        for position in positions {
            let at = Position::new(position);
            let (header, content) = cursor.content(at).unwrap().unwrap();
            assert!(header.base_position <= at && at < header.end_position());
            let index = usize::try_from(position).unwrap();
            assert_eq!(content.payload().unwrap(), &model[index], "{position}");
        }
        assert!(cursor.frame(Position::new(end)).unwrap().is_none());
    }
}

#[test]
fn both_modes_read_what_was_written_and_only_one_maps() {
    for (mode, tail) in [
        (ReadMode::Mapped, 0),
        (ReadMode::Mapped, 4 << 20),
        (ReadMode::Copied, 0),
        (ReadMode::Copied, 4 << 20),
    ] {
        let counting = Counting::new(SimulatedDisk::new(1));
        let disk: Arc<dyn Disk> = Arc::new(counting.clone());
        let genesis = rig::frame(0, &[rig::genesis()]);
        create_log(&disk, dir(), &options(mode, tail), log_id(), genesis).unwrap();
        let mut writer = open(&disk, options(mode, tail));
        let mut model = vec![rig::genesis()];
        let reader = writer.reader();
        for (round, group) in groups().iter().enumerate() {
            append(&mut writer, &mut model, group);
            if round % 80 == 7 {
                check_records(&reader, &model);
                check_cursors(&reader, &model);
            }
        }
        let segments = reader.segments(&counting).unwrap();
        assert!(segments.len() > 2, "{segments:?}");
        check_records(&reader, &model);
        check_cursors(&reader, &model);
        drop(writer);
        let writer = open(&disk, options(mode, tail));
        check_cursors(&writer.reader(), &model);
        check_records(&writer.reader(), &model);
        let verified = verify(&writer.reader(), &counting, &[], &mut |_| ()).unwrap();
        assert_eq!(verified.damage, []);
        let witness = Witness::default();
        let observed = open_observer(
            &disk,
            dir(),
            &options(mode, tail),
            &witness,
            &mut |_| Ok(()),
        );
        check_cursors(&observed.unwrap().0, &model);
        assert_eq!(counting.maps() > 0, mode == ReadMode::Mapped);
    }
}

#[test]
fn an_active_segment_is_mapped_once_for_many_reads_and_never_past_what_is_visible() {
    let counting = Counting::new(SimulatedDisk::new(1));
    let disk: Arc<dyn Disk> = Arc::new(counting.clone());
    let genesis = rig::frame(0, &[rig::genesis()]);
    let options = options(ReadMode::Mapped, 0);
    create_log(&disk, dir(), &options, log_id(), genesis).unwrap();
    let mut writer = open(&disk, options);
    let mut model = vec![rig::genesis()];
    for n in 0..50_u8 {
        append(&mut writer, &mut model, &one(&[n; 100]));
    }
    let reader = writer.reader();
    let before = counting.maps();
    for _ in 0..100 {
        check_records(&reader, &model);
    }
    assert_eq!(counting.maps(), before + 1);
    // What is written and not synced is in the file, and nobody sees it.
    let frames = rig::frames(writer.next_position().get(), &one(b"unsynced"));
    writer.commit(frames, Durability::Later).unwrap();
    for _ in 0..100 {
        check_records(&reader, &model);
    }
    check_cursors(&reader, &model);
    writer.sync().unwrap();
    model.push(b"unsynced".to_vec());
    for _ in 0..100 {
        check_records(&reader, &model);
    }
    check_cursors(&reader, &model);
    assert_eq!(counting.maps(), before + 2);
}

#[test]
fn a_damaged_record_is_told_by_whoever_copies_it_and_its_neighbours_are_read() {
    let counting = Counting::new(SimulatedDisk::new(1));
    let disk: Arc<dyn Disk> = Arc::new(counting.clone());
    let genesis = rig::frame(0, &[rig::genesis()]);
    let options = options(ReadMode::Copied, 0);
    create_log(&disk, dir(), &options, log_id(), genesis).unwrap();
    let mut writer = open(&disk, options);
    let mut model = vec![rig::genesis()];
    for n in 0..3_u8 {
        append(&mut writer, &mut model, &vec![vec![vec![n; 100]; 3]]);
    }
    let reader = writer.reader();
    let place = rig::layout(&counting.disk)[2];
    for byte in place.at..place.end {
        let file: PathBuf = rig::segment(0);
        counting.disk.flip(&file, byte, 0x10);
        for position in 0..reader.end().get() {
            let index = usize::try_from(position).unwrap();
            match reader.record(Position::new(position)) {
                Ok(record) => assert_eq!(record.unwrap().payload(), &model[index]),
                Err(StorageError::Corrupt(damage)) => {
                    assert!(position >= place.position);
                    assert!((place.at..place.end).contains(&damage.byte), "{damage:?}");
                }
                Err(other) => panic!("{other}"),
            }
        }
        counting.disk.flip(&file, byte, 0x10);
    }
    check_records(&reader, &model);
}

/// Where an opening can begin that reads nothing of the segments before the last.
fn at_end(disk: &SimulatedDisk, writer: &LogWriter) -> Witness {
    let (history, end) = (writer.history(), writer.next_position());
    let closed = writer.reader().sealed_before(disk, end);
    let base = LogBase {
        log_id: log_id(),
        position: end,
        chain: history.chain(),
        time: Timestamp::default(),
        closed: closed.unwrap().unwrap(),
    };
    assert!(!base.closed.is_empty());
    Witness {
        newest: None,
        history: Some(history),
        base: Some(base),
    }
}

/// Makes a log of several segments, closes it, and returns its end to begin at.
fn written(disk: &SimulatedDisk) -> (Witness, Vec<Vec<u8>>) {
    let files: Arc<dyn Disk> = Arc::new(disk.clone());
    rig::create(disk, 1).unwrap();
    let mut writer = open(&files, options(ReadMode::Mapped, 0));
    let mut model = vec![rig::genesis()];
    for group in groups() {
        append(&mut writer, &mut model, &group);
    }
    let witness = at_end(disk, &writer);
    let segments = disk.files();
    let segments = segments
        .iter()
        .filter(|path| path.extension() == Some("seg".as_ref()));
    assert!(segments.count() > 2);
    (witness, model)
}

/// Opens such a log at its end, for writing and for reading; nothing else of it is read.
fn open_at_end(counting: &Counting, mode: ReadMode, witness: &Witness) -> (LogWriter, LogReader) {
    let disk: Arc<dyn Disk> = Arc::new(counting.clone());
    let mut none = |_: &kimberlite_storage::FrameView| panic!("no frame stands behind");
    let opened = open_writer(&disk, dir(), options(mode, 0), witness, &mut none);
    let (writer, report) = opened.unwrap();
    assert_eq!(report.snapshot, Some(writer.next_position()));
    let opened = open_observer(&disk, dir(), &options(mode, 0), witness, &mut none);
    let (observer, report) = opened.unwrap();
    assert_eq!(report.snapshot, Some(writer.next_position()));
    (writer, observer)
}

/// Replays a log from every 50th frame on.
fn check_replays(disk: &SimulatedDisk, reader: &LogReader, model: &[Vec<u8>]) {
    for place in rig::layout(disk)
        .iter()
        .filter(|place| place.count > 0)
        .step_by(50)
    {
        let mut next = place.position;
        let from = Position::new(place.position);
        let replayed = reader.replay(from, reader.end(), &mut |frame| {
            assert_eq!(frame.header().base_position.get(), next);
            next = frame.header().end_position().get();
            Ok(())
        });
        replayed.unwrap();
        assert_eq!(next, u64::try_from(model.len()).unwrap());
    }
}

#[test]
fn segments_that_are_opened_when_they_are_first_read_are_read_in_their_mode() {
    let disk = SimulatedDisk::new(1);
    let (witness, model) = written(&disk);
    for mode in [ReadMode::Mapped, ReadMode::Copied] {
        let counting = Counting::new(disk.twin());
        let (writer, observer) = open_at_end(&counting, mode, &witness);
        for reader in [writer.reader(), observer] {
            check_records(&reader, &model);
            check_cursors(&reader, &model);
            check_replays(&counting.disk, &reader, &model);
            let verified = verify(&reader, &counting, &[], &mut |_| ()).unwrap();
            assert_eq!(verified.damage, []);
            for segment in closed_segments(&reader) {
                let damage = scrub_segment(&reader, &counting, &segment, &mut |_| ());
                assert_eq!(damage.unwrap(), []);
            }
        }
        assert_eq!(counting.maps() > 0, mode == ReadMode::Mapped);
    }
}

#[test]
fn what_a_missing_seal_would_tell_is_read_from_the_segment_in_its_mode() {
    let disk = SimulatedDisk::new(1);
    let (witness, model) = written(&disk);
    for mode in [ReadMode::Mapped, ReadMode::Copied] {
        let counting = Counting::new(disk.twin());
        let (writer, _) = open_at_end(&counting, mode, &witness);
        counting.disk.remove(&rig::seal(0)).unwrap();
        check_records(&writer.reader(), &model);
        assert_eq!(counting.maps() > 0, mode == ReadMode::Mapped);
    }
}

/// Moves all entries of a seal's index but the first away from their frames.
fn mislead(disk: &SimulatedDisk, path: &Path) {
    let mut seal = disk.contents(path);
    let count = u32::from_le_bytes(seal[12..16].try_into().unwrap());
    let body = seal.len() - 32;
    let entries = body - 8 * usize::try_from(count).unwrap();
    assert!(count > 10);
    for entry in seal[entries + 8..body].chunks_exact_mut(8) {
        entry[4] ^= 1;
    }
    let digest = internal_hash(&seal[..body]);
    seal[body..].copy_from_slice(digest.as_bytes());
    disk.write_new_atomic(path, &seal, Access::Shared).unwrap();
}

#[test]
fn a_seal_with_a_wrong_index_costs_time_alone_in_either_mode() {
    let disk = SimulatedDisk::new(1);
    let (witness, model) = written(&disk);
    for extent in rig::layout(&disk).chunk_by(|a, b| a.segment == b.segment) {
        let seal = rig::seal(extent[0].segment);
        if disk.exists(&seal).unwrap() {
            mislead(&disk, &seal);
        }
    }
    for mode in [ReadMode::Mapped, ReadMode::Copied] {
        let counting = Counting::new(disk.twin());
        let (writer, observer) = open_at_end(&counting, mode, &witness);
        for reader in [writer.reader(), observer] {
            check_records(&reader, &model);
            check_cursors(&reader, &model);
            check_replays(&counting.disk, &reader, &model);
        }
    }
}

#[test]
fn a_header_page_that_rotted_is_told_by_whoever_reads_the_segment() {
    let disk = SimulatedDisk::new(1);
    let (witness, model) = written(&disk);
    for mode in [ReadMode::Mapped, ReadMode::Copied] {
        let counting = Counting::new(disk.twin());
        let (writer, _) = open_at_end(&counting, mode, &witness);
        let reader = writer.reader();
        let rotten = reader.segments(&counting).unwrap()[1].clone();
        let inside = rotten.base.get()..rotten.end.get();
        counting.disk.flip(rig::segment(inside.start), 20, 1);
        let mut cursor = FrameCursor::new(reader.clone());
        for (position, payload) in (0..).zip(&model) {
            let at = Position::new(position);
            let record = reader.record(at);
            let found = cursor
                .content(at)
                .map(|found| found.map(|(_, content)| content.payload().unwrap().clone()));
            let frame = reader.frame(at);
            if inside.contains(&position) {
                let told = [record.map(drop), found.map(drop), frame.map(drop)];
                for told in told {
                    let Err(StorageError::Corrupt(damage)) = told else {
                        panic!("{told:?}");
                    };
                    assert_eq!(damage.segment, rig::segment_name(inside.start));
                }
            } else {
                assert_eq!(record.unwrap().unwrap().payload(), payload);
                assert_eq!(found.unwrap().unwrap(), payload);
                assert!(frame.unwrap().is_some());
            }
        }
    }
}

#[test]
fn an_active_segment_that_is_written_past_the_page_cache_is_not_mapped() {
    for is_refused in [false, true] {
        let counting = Counting::new(SimulatedDisk::new(1));
        if is_refused {
            counting.disk.refuse_direct();
        }
        rig::create(&counting.disk, 1).unwrap();
        let disk: Arc<dyn Disk> = Arc::new(counting.clone());
        let mut options = options(ReadMode::Mapped, 0);
        options.write_mode = WriteMode::Direct;
        let mut writer = open(&disk, options);
        let mut model = vec![rig::genesis()];
        let reader = writer.reader();
        let opened = counting.maps();
        for n in 0..50_u8 {
            append(&mut writer, &mut model, &one(&[n; 100]));
            check_records(&reader, &model);
        }
        check_cursors(&reader, &model);
        assert_eq!(counting.maps() > opened, is_refused);
        // Its successor is not mapped either; it is, once it is closed.
        let active = counting.maps();
        writer.reserve(256 << 10).unwrap();
        append(&mut writer, &mut model, &one(&[0; 100]));
        let closed = counting.maps();
        assert!(closed > active, "it is sealed");
        for n in 0..50_u8 {
            append(&mut writer, &mut model, &one(&[n; 100]));
            check_records(&reader, &model);
        }
        assert_eq!(counting.maps() > closed, is_refused);
    }
}

#[test]
fn an_observer_maps_nothing_that_another_process_may_append_to() {
    let disk = SimulatedDisk::new(1);
    let counting = Counting::new(disk.clone());
    rig::create(&disk, 1).unwrap();
    let mut writer = open(&rig::dyn_disk(&disk), options(ReadMode::Mapped, 0));
    let mut model = vec![rig::genesis()];
    for n in 0..50_u8 {
        append(&mut writer, &mut model, &one(&[n; 100]));
    }
    let files: Arc<dyn Disk> = Arc::new(counting.clone());
    let (options, witness) = (options(ReadMode::Mapped, 0), Witness::default());
    let observed = open_observer(&files, dir(), &options, &witness, &mut |_| Ok(()));
    let (reader, _) = observed.unwrap();
    for _ in 0..10 {
        check_records(&reader, &model);
        check_cursors(&reader, &model);
    }
    assert_eq!(counting.maps(), 0);
}

#[test]
fn a_mapping_that_goes_on_behind_the_end_shows_nobody_what_is_not_synced() {
    let disk = SimulatedDisk::new(1);
    rig::create(&disk, 1).unwrap();
    let mut writer = open(&rig::dyn_disk(&disk), options(ReadMode::Mapped, 0));
    let mut model = vec![rig::genesis()];
    for n in 0..50_u8 {
        append(&mut writer, &mut model, &one(&[n; 100]));
    }
    let frames = rig::frames(writer.next_position().get(), &one(b"unsynced"));
    writer.commit(frames, Durability::Later).unwrap();
    let reader = writer.reader();
    for _ in 0..10 {
        check_records(&reader, &model);
        check_cursors(&reader, &model);
    }
    writer.sync().unwrap();
    model.push(b"unsynced".to_vec());
    check_records(&reader, &model);
    check_cursors(&reader, &model);
}

#[test]
fn a_cursor_that_goes_backward_tells_every_damaged_payload() {
    let disk = SimulatedDisk::new(1);
    rig::create(&disk, 1).unwrap();
    let mut writer = open(&rig::dyn_disk(&disk), options(ReadMode::Mapped, 0));
    let mut model = vec![rig::genesis()];
    for n in 0..5_u8 {
        append(&mut writer, &mut model, &vec![vec![vec![n; 50]; 3]]);
    }
    writer.reserve(256 << 10).unwrap();
    append(&mut writer, &mut model, &one(b"in the next segment"));
    let (end, witness) = (writer.next_position(), at_end(&disk, &writer));
    drop(writer);
    let place = rig::layout(&disk)[3];
    let mut told = 0;
    for byte in place.at..place.end {
        let counting = Counting::new(disk.twin());
        counting.disk.flip(rig::segment(0), byte, 0x10);
        let (writer, _) = open_at_end(&counting, ReadMode::Mapped, &witness);
        let mut cursor = FrameCursor::new(writer.reader());
        for position in (0..end.get()).rev() {
            let index = usize::try_from(position).unwrap();
            match cursor.content(Position::new(position)) {
                Ok(found) => {
                    let (_, content) = found.unwrap();
                    assert_eq!(content.payload().unwrap(), &model[index], "byte {byte}");
                }
                Err(StorageError::Corrupt(damage)) => {
                    assert!((place.at..place.end).contains(&damage.byte), "{damage:?}");
                    told += 1;
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
    assert!(told >= 3 * 50);
}
