//! Handles, mappings and tails that all logs of a process share.

use std::path::Path;
use std::sync::Arc;

use kimberlite_disk::{Disk, OsDisk};
use kimberlite_storage::{
    Budget, Durability, LogOptions, LogReader, LogWriter, ReadMode, Witness, create_log,
    open_writer, verify,
};
use kimberlite_testkit::Rng;
use kimberlite_types::Position;

use crate::rig::{self, check_records, log_id, one};

const SEGMENTS: u64 = 60;
const OPEN_MAX: usize = 4;
const READERS: usize = 4;

fn options(read_mode: ReadMode, budget: &Arc<Budget>) -> LogOptions {
    let mut options = rig::options(1);
    options.read_mode = read_mode;
    options.tail_bytes_max = 0;
    options.budget = Arc::clone(budget);
    options
}

fn disk() -> Arc<dyn Disk> {
    Arc::new(OsDisk::new())
}

fn open(dir: &Path, options: LogOptions) -> LogWriter {
    let opened = open_writer(&disk(), dir, options, &Witness::default(), &mut |_| Ok(()));
    opened.unwrap().0
}

/// Makes a log of many segments with one record each, beside the genesis record.
fn write(dir: &Path, options: &LogOptions) -> (LogWriter, Vec<Vec<u8>>) {
    let genesis = rig::frame(0, &[rig::genesis()]);
    create_log(&disk(), dir, options, log_id(), genesis).unwrap();
    let mut writer = open(dir, options.clone());
    let mut model = vec![rig::genesis()];
    for position in 1..=SEGMENTS {
        let payload = format!("record {position}").into_bytes();
        let frames = rig::frames(position, &one(&payload));
        writer.commit(frames, Durability::Group).unwrap();
        writer.close_segment().unwrap();
        model.push(payload);
    }
    (writer, model)
}

/// How many files of this directory the process has open, and how many it has mapped.
#[expect(
    clippy::disallowed_methods,
    reason = "what the process holds is asked of the system"
)]
fn held(dir: &Path) -> (usize, usize) {
    let dir = dir.to_str().unwrap();
    let handles = std::fs::read_dir("/proc/self/fd").unwrap();
    let links = handles.filter_map(|handle| std::fs::read_link(handle.ok()?.path()).ok());
    let is_ours = |path: &std::path::PathBuf| path.to_string_lossy().starts_with(dir);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    (
        links.filter(is_ours).count(),
        maps.lines().filter(|line| line.contains(dir)).count(),
    )
}

fn read_at_random(reader: &LogReader, model: &[Vec<u8>], seed: u64) {
    let mut rng = Rng::new(seed);
    for _ in 0..400 {
        let position = rng.below(reader.end().get());
        let record = reader.record(Position::new(position)).unwrap().unwrap();
        let index = usize::try_from(position).unwrap();
        assert_eq!(record.payload(), &model[index]);
    }
}

#[test]
fn closed_segments_are_let_go_of_when_too_many_are_open_and_opened_again() {
    for read_mode in [ReadMode::Mapped, ReadMode::Copied] {
        let dir = tempfile::tempdir().unwrap();
        let budget = Arc::new(Budget::new(OPEN_MAX, 1 << 20));
        let options = options(read_mode, &budget);
        let (writer, model) = write(dir.path(), &options);
        for writer in [writer, open(dir.path(), options.clone())] {
            let reader = writer.reader();
            let check_held = || {
                assert!(budget.open_segments() <= OPEN_MAX);
                let (handles, maps) = held(dir.path());
                // Beside them the active segment, and for each reader the segment that it reads at this
                // moment, its seal, and one that it lets go of.
                let besides = 1 + 3 * READERS;
                assert!(
                    handles <= OPEN_MAX + besides,
                    "{handles} handles, {read_mode:?}"
                );
                assert!(maps <= OPEN_MAX + besides, "{maps} mappings, {read_mode:?}");
            };
            check_held();
            // What a reader holds it keeps.
            let first = reader.record(Position::new(1)).unwrap().unwrap();
            std::thread::scope(|scope| {
                for seed in (0..).take(READERS) {
                    let (reader, model) = (&reader, &model);
                    scope.spawn(move || read_at_random(reader, model, seed));
                }
                for _ in 0..20 {
                    check_held();
                }
            });
            check_held();
            check_records(&reader, &model);
            let verified = verify(&reader, &OsDisk::new(), &[], &mut |_| check_held()).unwrap();
            assert_eq!(verified.damage, []);
            check_held();
            assert_eq!(first.payload(), &model[1]);
        }
        assert_eq!(held(dir.path()), (0, 0));
    }
}

#[test]
fn a_segment_that_is_read_again_and_again_stays_open() {
    let dir = tempfile::tempdir().unwrap();
    let budget = Arc::new(Budget::new(OPEN_MAX, 1 << 20));
    let (writer, _) = write(dir.path(), &options(ReadMode::Mapped, &budget));
    let reader = writer.reader();
    let mapped = |position: u64| {
        let record = reader.record(Position::new(position)).unwrap().unwrap();
        record.payload().as_ptr()
    };
    let hot = mapped(1);
    for position in 2..SEGMENTS {
        mapped(position);
        // Where the bytes are is where they were mapped first.
        assert_eq!(mapped(1), hot, "{position}");
    }
}

#[test]
fn the_tail_of_a_quiet_log_makes_room_for_those_that_are_written() {
    let budget = Arc::new(Budget::new(OPEN_MAX, 10_000));
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let mut options = options(ReadMode::Mapped, &budget);
    options.tail_bytes_max = 1 << 20;
    let [mut quiet, mut busy] = dirs.each_ref().map(|dir| {
        let genesis = rig::frame(0, &[rig::genesis()]);
        create_log(&disk(), dir.path(), &options, log_id(), genesis).unwrap();
        open(dir.path(), options.clone())
    });
    let append = |writer: &mut LogWriter| {
        let position = writer.next_position().get();
        let frames = rig::frames(position, &one(&[7; 1000]));
        writer.commit(frames, Durability::Group).unwrap();
        assert!(budget.tail_bytes() <= 10_000);
    };
    for _ in 0..20 {
        append(&mut quiet);
    }
    let crowded = budget.tail_bytes();
    assert!(crowded > 8_000);
    quiet.write_watermark().unwrap();
    assert_eq!(budget.tail_bytes(), 0);
    for _ in 0..20 {
        append(&mut busy);
    }
    assert_eq!(budget.tail_bytes(), crowded);
    drop((quiet, busy));
    assert_eq!(budget.tail_bytes(), 0);
}
