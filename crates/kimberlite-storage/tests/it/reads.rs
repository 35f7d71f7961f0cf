//! Reading gives what was written, whichever way the bytes come into memory and whoever asks.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use kimberlite_disk::{
    Access, DirectoryLock, Disk, DiskDirectory, DiskError, DiskFile, Entry, OpenMode,
};
use kimberlite_storage::{
    Durability, FrameCursor, LogReader, LogWriter, ReadMode, StorageError, Witness, create_log,
    open_observer, open_writer, verify,
};
use kimberlite_testkit::{Rng, SimulatedDisk};
use kimberlite_types::Position;

use crate::rig::{self, Group, check_records, dir, log_id, one};

/// A disk that counts the mappings that are asked of it.
#[derive(Debug, Clone)]
struct Counting {
    disk: SimulatedDisk,
    maps: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct CountingFile(Arc<dyn DiskFile>, Arc<AtomicUsize>);

impl Counting {
    fn new() -> Self {
        Self {
            disk: SimulatedDisk::new(1),
            maps: Arc::default(),
        }
    }

    fn maps(&self) -> usize {
        self.maps.load(Ordering::Relaxed)
    }

    fn counted(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(CountingFile(file, Arc::clone(&self.maps)))
    }
}

impl Disk for Counting {
    fn create_dir(&self, path: &Path) -> Result<(), DiskError> {
        self.disk.create_dir(path)
    }

    fn create(&self, path: &Path, access: Access) -> Result<Arc<dyn DiskFile>, DiskError> {
        Ok(self.counted(self.disk.create(path, access)?))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DiskFile>, DiskError> {
        Ok(self.counted(self.disk.open(path, mode)?))
    }

    fn open_dir(&self, path: &Path) -> Result<Box<dyn DiskDirectory>, DiskError> {
        self.disk.open_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<(), DiskError> {
        self.disk.remove(path)
    }

    fn list(&self, path: &Path) -> Result<Vec<Entry>, DiskError> {
        self.disk.list(path)
    }

    fn exists(&self, path: &Path) -> Result<bool, DiskError> {
        self.disk.exists(path)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn DirectoryLock>, DiskError> {
        self.disk.lock(path)
    }
}

impl DiskFile for CountingFile {
    fn path(&self) -> &Path {
        self.0.path()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), DiskError> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, buffers: &[&[u8]], offset: u64) -> Result<(), DiskError> {
        self.0.write_all_at(buffers, offset)
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> Result<(), DiskError> {
        self.0.sync_all()
    }

    fn bytes(&self) -> Result<u64, DiskError> {
        self.0.bytes()
    }

    fn set_bytes(&self, bytes: u64) -> Result<(), DiskError> {
        self.0.set_bytes(bytes)
    }

    fn allocate(&self, range: Range<u64>) -> Result<(), DiskError> {
        self.0.allocate(range)
    }

    fn map(&self, bytes: u64) -> Result<Bytes, DiskError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.map(bytes)
    }

    fn is_private(&self) -> Result<bool, DiskError> {
        self.0.is_private()
    }
}

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
            let (header, payload) = cursor.payload(at).unwrap().unwrap();
            assert!(header.base_position <= at && at < header.end_position());
            let index = usize::try_from(position).unwrap();
            assert_eq!(payload, model[index], "{position}");
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
        let counting = Counting::new();
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
    let counting = Counting::new();
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
    for _ in 0..100 {
        check_records(&reader, &model);
    }
    assert_eq!(counting.maps(), 1);
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
    assert_eq!(counting.maps(), 2);
}

#[test]
fn a_damaged_record_is_told_by_whoever_copies_it_and_its_neighbours_are_read() {
    let counting = Counting::new();
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
