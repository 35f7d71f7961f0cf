//! The same log on the disk of this machine, with the work in the background on a thread.

use std::path::Path;
use std::sync::Arc;

use kimberlite_disk::{Disk, OpenMode, OsDisk, WriteMode};
use kimberlite_storage::{
    Background, Durability, LogOptions, LogReader, LogWriter, OpenReport, StorageError, Visibility,
    Witness, create_log, open_observer, open_writer, verify,
};
use kimberlite_testkit::{Rng, SimulatedDisk};
use kimberlite_types::Position;

use crate::rig::{self, Group, check_records, log_id, one};

fn disk() -> Arc<dyn Disk> {
    Arc::new(OsDisk::new())
}

fn options(tail_bytes_max: usize) -> LogOptions {
    let mut options = rig::options(1);
    options.background = Background::thread();
    options.tail_bytes_max = tail_bytes_max;
    options
}

fn open(dir: &Path, tail_bytes_max: usize) -> Result<(LogWriter, OpenReport), StorageError> {
    let options = options(tail_bytes_max);
    open_writer(&disk(), dir, options, &Witness::default(), &mut |_| Ok(()))
}

fn create(dir: &Path) -> LogWriter {
    let genesis = rig::frame(0, &[rig::genesis()]);
    create_log(&disk(), dir, &options(0), log_id(), genesis).unwrap();
    open(dir, 0).unwrap().0
}

fn append(writer: &mut LogWriter, model: &mut Vec<Vec<u8>>, group: &Group) {
    let position = writer.next_position().get();
    writer
        .commit(rig::frames(position, group), Durability::Later)
        .unwrap();
    model.extend(group.iter().flatten().cloned());
}

fn check(reader: &LogReader, model: &[Vec<u8>]) {
    check_records(reader, model);
    let verified = verify(reader, &OsDisk::new(), &[], &mut |_| ()).unwrap();
    assert_eq!(verified.damage, []);
    assert_eq!(verified.records, u64::try_from(model.len()).unwrap());
}

#[test]
fn a_log_of_several_segments_is_written_rolled_sealed_and_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = create(dir.path());
    let mut model = vec![rig::genesis()];
    let mut rng = Rng::new(1);
    for round in 0..100_u8 {
        let mut payloads = |count: usize| (0..count).map(|_| rng.bytes(5000)).collect::<Vec<_>>();
        let group = vec![payloads(10), payloads(1 + usize::from(round % 7))];
        append(&mut writer, &mut model, &group);
    }
    writer.sync().unwrap();
    check(&writer.reader(), &model);
    writer.write_watermark().unwrap();
    let segments = writer.reader().segments(&OsDisk::new()).unwrap();
    assert!(segments.len() >= 3, "{segments:?}");
    let history = writer.history();
    drop(writer);
    for tail_bytes_max in [0, 4 << 20] {
        let (writer, report) = open(dir.path(), tail_bytes_max).unwrap();
        assert_eq!((report.tail_discarded, report.damage), (None, vec![]));
        assert_eq!(writer.history(), history);
        check(&writer.reader(), &model);
    }
    let witness = Witness::default();
    let observed = open_observer(&disk(), dir.path(), &options(0), &witness, &mut |_| Ok(()));
    check(&observed.unwrap().0, &model);
}

#[test]
fn readers_on_other_threads_see_only_whole_groups_while_the_log_grows() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = create(dir.path());
    let reader = writer.reader();
    let groups = 400_u64;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let reader = reader.clone();
            scope.spawn(move || {
                let mut seen = 0;
                while seen < 1 + groups * 3 {
                    let end = reader.end().get();
                    assert!(end >= seen && end % 3 == 1, "{end} after {seen}");
                    for position in seen..end {
                        let record = reader.record(Position::new(position)).unwrap().unwrap();
                        assert_eq!(record.position().get(), position);
                    }
                    seen = end;
                    std::thread::yield_now();
                }
            });
        }
        let mut model = Vec::new();
        for round in 0..groups {
            let payload = vec![u8::try_from(round % 251).unwrap(); 1000];
            let group = vec![vec![payload.clone(), payload.clone()], vec![payload]];
            append(&mut writer, &mut model, &group);
            writer.sync().unwrap();
        }
    });
}

#[test]
fn a_flipped_byte_in_a_mapped_segment_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = create(dir.path());
    let mut model = vec![rig::genesis()];
    append(&mut writer, &mut model, &one(&[9; 50]));
    writer.reserve(256 << 10).unwrap();
    append(&mut writer, &mut model, &one(&[8; 50]));
    writer.sync().unwrap();
    let path = dir.path().join("log").join(rig::segment_name(0));
    let file = OsDisk::new().open(&path, OpenMode::ReadWrite).unwrap();
    file.write_all_at(&[&[7]], 4096 + 128 + 125).unwrap();
    let reader = writer.reader();
    match reader.record(Position::new(1)) {
        Err(StorageError::Corrupt(damage)) => {
            assert_eq!(damage.segment, rig::segment_name(0));
            assert_eq!(damage.position, Position::new(1));
        }
        other => panic!("{other:?}"),
    }
    let verified = verify(&reader, &OsDisk::new(), &[], &mut |_| ()).unwrap();
    assert_eq!(verified.damage.len(), 1);
    assert_eq!(verified.damage[0].position, Position::new(1));
}

/// Writes the same log in the given way: small groups and large ones, several segments, reopened
/// in between. Returns name and content of every file that it leaves.
fn files_of(disk: &Arc<dyn Disk>, dir: &Path, write_mode: WriteMode) -> Vec<(String, Vec<u8>)> {
    let options = |seed| {
        let mut options = rig::options(seed);
        options.background = Background::thread();
        options.write_mode = write_mode;
        options
    };
    let open = |seed| {
        let witness = Witness::default();
        let opened = open_writer(disk, dir, options(seed), &witness, &mut |_| Ok(()));
        opened.unwrap().0
    };
    let genesis = rig::frame(0, &[rig::genesis()]);
    create_log(disk, dir, &options(1), log_id(), genesis).unwrap();
    let mut rng = Rng::new(5);
    for life in 2..4 {
        let mut writer = open(life);
        for _ in 0..40 {
            let bytes = [10, 300, 4000, 60_000][usize::try_from(rng.below(4)).unwrap()];
            let group = one(&rng.bytes(bytes));
            let position = writer.next_position().get();
            let durability = [Durability::Later, Durability::Group, Durability::EachFrame]
                [usize::try_from(rng.below(3)).unwrap()];
            let frames = rig::frames(position, &group);
            writer.commit(frames, durability).unwrap();
        }
        // Larger than what is staged in memory.
        let large = rig::frames(writer.next_position().get(), &one(&rng.bytes(3 << 20)));
        writer.commit(large, Durability::Group).unwrap();
        writer.write_watermark().unwrap();
    }
    let log_dir = dir.join("log");
    let files = disk.list(&log_dir).unwrap().into_iter();
    let files = files.filter(|entry| {
        let extension = Path::new(&entry.name).extension();
        extension.is_some_and(|extension| extension == "seg" || extension == "seal")
    });
    let files = files.map(|entry| {
        let content = disk.read(&log_dir.join(&entry.name), u64::MAX).unwrap();
        (entry.name, content)
    });
    files.collect()
}

#[test]
fn every_way_to_the_disk_leaves_the_same_files() {
    let buffered = tempfile::tempdir().unwrap();
    let buffered = files_of(&disk(), buffered.path(), WriteMode::Buffered);
    assert!(buffered.len() > 4, "several segments and their seals");
    let direct = tempfile::tempdir().unwrap();
    let direct = files_of(&disk(), direct.path(), WriteMode::Direct);
    assert!(direct == buffered, "on the disk of this machine");
    let simulated = SimulatedDisk::new(1);
    let shared: Arc<dyn Disk> = Arc::new(simulated.clone());
    assert!(files_of(&shared, rig::dir(), WriteMode::Direct) == buffered);
    assert!(simulated.direct_opens() > 2);
}

#[test]
fn a_file_system_that_refuses_direct_writes_is_asked_once_for_each_opening() {
    let refuses = SimulatedDisk::new(1);
    refuses.refuse_direct();
    let shared: Arc<dyn Disk> = Arc::new(refuses.clone());
    let found = files_of(&shared, rig::dir(), WriteMode::Direct);
    assert_eq!(refuses.direct_opens(), 2);
    let takes = SimulatedDisk::new(1);
    let shared: Arc<dyn Disk> = Arc::new(takes);
    assert!(files_of(&shared, rig::dir(), WriteMode::Buffered) == found);
}

#[test]
fn a_log_that_shows_what_is_not_synced_keeps_it_where_readers_find_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(0);
    options.write_mode = WriteMode::Direct;
    options.visibility = Visibility::Written;
    let genesis = rig::frame(0, &[rig::genesis()]);
    create_log(&disk(), dir.path(), &options, log_id(), genesis).unwrap();
    let witness = Witness::default();
    let opened = open_writer(&disk(), dir.path(), options, &witness, &mut |_| Ok(()));
    let mut writer = opened.unwrap().0;
    let mut model = vec![rig::genesis()];
    append(&mut writer, &mut model, &one(&[9; 50]));
    assert_eq!(writer.durable(), Position::new(1), "nothing was synced");
    check_records(&writer.reader(), &model);
}
