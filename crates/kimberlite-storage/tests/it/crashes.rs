//! A crash at every operation of a mixed workload.
//!
//! The workload runs once to count its operations, then once for each with a fault there. Whatever
//! is found afterwards must open as a prefix of what was tried, ending at a commit group, with all
//! that was acknowledged; it must verify, take appends, and survive the next crash, which may come
//! in the middle of opening it.

use kimberlite_disk::WriteMode;
use kimberlite_storage::{Durability, StorageError, TailDiscarded, log_exists};
use kimberlite_testkit::{CrashMode, Rng, SimulatedDisk};
use kimberlite_types::Position;

use crate::rig::{self, Group, Rig, dir, one};

/// One act of the workload.
#[derive(Debug)]
enum Step {
    Commit(Group, Durability),
    Sync,
    Watermark,
    Checkpoint,
    Reopen,
}

fn steps() -> Vec<Step> {
    use Durability::{EachFrame, Group as Whole, Later};
    let mut rng = Rng::new(77);
    let mut frame = |records: usize, bytes: usize| -> Vec<Vec<u8>> {
        (0..records).map(|_| rng.bytes(bytes)).collect()
    };
    vec![
        Step::Commit(vec![frame(1, 100)], Whole),
        Step::Commit(vec![frame(3, 400), frame(1, 30), frame(2, 700)], Whole),
        Step::Commit(vec![frame(2, 333), frame(2, 10), frame(1, 150)], EachFrame),
        Step::Watermark,
        Step::Commit(vec![frame(1, 5000)], Later),
        Step::Commit(vec![frame(1, 20), frame(4, 90)], Later),
        Step::Sync,
        Step::Checkpoint,
        Step::Commit(vec![frame(2, 600)], Later),
        Step::Reopen,
        Step::Commit(vec![frame(1, 130 << 10)], Whole),
        Step::Commit(vec![frame(1, 300)], Later),
        // Does not fit any more.
        Step::Commit(vec![frame(2, 50 << 10), frame(1, 60 << 10)], Whole),
        Step::Commit(vec![frame(1, 800)], Later),
        Step::Watermark,
        Step::Checkpoint,
        Step::Commit(vec![frame(1, 60), frame(1, 61)], EachFrame),
    ]
}

/// A run of the workload up to its end or its first error.
struct Run {
    disk: SimulatedDisk,
    mode: WriteMode,
    /// Records that were acknowledged as durable.
    acknowledged: u64,
    model: Vec<Vec<u8>>,
    borders: Vec<u64>,
}

const MODES: [WriteMode; 2] = [WriteMode::Buffered, WriteMode::Direct];

fn run(disk: &SimulatedDisk, mode: WriteMode) -> Run {
    let mut run = Run {
        disk: disk.clone(),
        mode,
        acknowledged: 0,
        model: vec![rig::genesis()],
        borders: vec![0, 1],
    };
    let _ = run_steps(&mut run);
    run
}

fn run_steps(run: &mut Run) -> Result<(), StorageError> {
    rig::create(&run.disk, 1)?;
    run.acknowledged = 1;
    let mut rig = Rig::open_by(&run.disk, 2, run.mode)?;
    for step in steps() {
        let stepped = match step {
            Step::Commit(group, durability) => rig.commit(&group, durability),
            Step::Sync => rig.writer.sync(),
            Step::Watermark => rig.writer.write_watermark(),
            Step::Checkpoint => rig.checkpoint(),
            Step::Reopen => {
                drop(rig.writer);
                rig.writer = Rig::open_by(&run.disk, 3, run.mode)?.writer;
                Ok(())
            }
        };
        run.acknowledged = rig.writer.durable().get();
        run.model.clone_from(&rig.model);
        run.borders.clone_from(&rig.borders);
        stepped?;
    }
    Ok(())
}

impl Run {
    /// Opens what is found after the fault, if there is a log.
    fn open(&self, found: &SimulatedDisk, why: &str) -> Option<Rig> {
        if !log_exists(found, dir()).unwrap() {
            assert_eq!(self.acknowledged, 0, "{why}");
            return None;
        }
        let rig = Rig::open_by(found, 4, self.mode);
        let rig = rig.unwrap_or_else(|error| panic!("{why}: {error:?}"));
        self.check_prefix(&rig, why);
        Some(rig)
    }

    fn check_prefix(&self, rig: &Rig, why: &str) {
        assert!(rig.end() >= self.acknowledged, "{why}: records are lost");
        assert!(self.model.starts_with(&rig.model), "{why}: other records");
        assert!(self.borders.contains(&rig.end()), "{why}: half a group");
    }
}

/// Appends to a log, crashes, and finds all of it again.
fn goes_on(mut rig: Rig, mode: CrashMode, why: &str) {
    rig.check();
    for round in 0..2 {
        rig.append(&vec![vec![vec![round; 700]], vec![b"after".to_vec(); 3]]);
    }
    let found = rig.disk.crash(mode);
    let again = Rig::open(&found, 8).unwrap_or_else(|error| panic!("{why}: {error:?}"));
    assert_eq!(again.model, rig.model, "{why}");
    assert_eq!(again.report.tail_discarded, None, "{why}");
    again.check();
}

#[test]
fn a_crash_at_any_operation_keeps_every_acknowledged_record() {
    for mode in MODES {
        crash_at_any_operation(mode);
    }
}

fn crash_at_any_operation(write_mode: WriteMode) {
    let counted = SimulatedDisk::new(1);
    let whole = run(&counted, write_mode);
    assert_eq!(
        whole.acknowledged,
        u64::try_from(whole.model.len()).unwrap()
    );
    assert!(counted.ops() > 80, "{} operations", counted.ops());
    let mut discarded = 0;
    for op in 1..=counted.ops() {
        let disk = SimulatedDisk::new(op);
        disk.crash_after(op);
        let run = run(&disk, write_mode);
        let mixed = (0..5).map(CrashMode::Mixed);
        for mode in [CrashMode::LoseUnsynced, CrashMode::KeepUnsynced]
            .into_iter()
            .chain(mixed)
        {
            let why = format!("{write_mode:?}: crash in operation {op}, {mode:?}");
            let found = disk.crash(mode);
            let copy = found.twin();
            if let Some(rig) = run.open(&found, &why) {
                let cut = rig.report.tail_discarded.as_ref();
                discarded += u32::from(cut.is_some());
                crash_while_opening(&run, &copy, (op, cut), &why);
                goes_on(rig, CrashMode::LoseUnsynced, &why);
            }
        }
    }
    assert!(discarded > 10, "only {discarded} torn tails were seen");
}

/// Opens a copy, crashes again in the middle of that, and opens what is left.
///
/// What an undisturbed opening says that it cut off is told all the same, and kept.
fn crash_while_opening(
    run: &Run,
    copy: &SimulatedDisk,
    (seed, cut): (u64, Option<&TailDiscarded>),
    why: &str,
) {
    let torn = cut.map(|cut| {
        let bytes = copy.contents(dir().join("log").join(&cut.segment));
        let range = cut.byte..cut.byte + cut.bytes;
        bytes[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()].to_vec()
    });
    let mut rng = Rng::new(seed);
    copy.crash_after(1 + rng.below(12));
    let opened = Rig::open(copy, 4);
    let shown = opened.map_or(0, |rig| rig.end());
    let found = copy.crash(CrashMode::Mixed(rng.next_u64()));
    if let Some(rig) = run.open(&found, &format!("{why}, and again while opening")) {
        assert!(rig.end() >= shown, "{why}: shown records are lost");
        rig.check();
        let told = rig.report.tail_discarded.as_ref();
        assert_eq!(
            told.map(|cut| (cut.position, &cut.segment, cut.byte, cut.bytes)),
            cut.map(|cut| (cut.position, &cut.segment, cut.byte, cut.bytes)),
            "{why}: the discarded tail is forgotten"
        );
        let kept = found.files().into_iter().filter(|path| {
            let extension = path.extension();
            extension.is_some_and(|extension| extension == "tail")
        });
        let kept = kept.map(|path| found.contents(path)).collect::<Vec<_>>();
        assert!(
            torn.is_none_or(|torn| kept.contains(&torn)),
            "{why}: it is lost"
        );
    }
}

#[test]
fn what_a_reopened_log_shows_after_a_kill_survives_a_power_loss_right_then() {
    for mode in MODES {
        let counted = SimulatedDisk::new(1);
        run(&counted, mode);
        for op in 1..=counted.ops() {
            let disk = SimulatedDisk::new(op);
            disk.crash_after(op);
            let run = run(&disk, mode);
            let why = format!("{mode:?}: kill in operation {op}");
            shown_records_last(&run, &disk.process_kill(), &why);
        }
    }
}

#[test]
fn a_failed_write_or_sync_leaves_a_log_whose_shown_records_last() {
    for mode in MODES {
        fail_at_any_operation(mode);
    }
}

fn fail_at_any_operation(mode: WriteMode) {
    let counted = SimulatedDisk::new(1);
    run(&counted, mode);
    for op in 1..=counted.ops() {
        for sync in [true, false] {
            let disk = SimulatedDisk::new(op);
            if sync {
                disk.fail_sync_at(op);
            } else {
                disk.fail_write_at(op);
            }
            let run = run(&disk, mode);
            let why = format!("{mode:?}: operation {op} fails, as a sync: {sync}");
            shown_records_last(&run, &disk.process_kill(), &why);
        }
    }
}

/// Opens a log beside a page cache that may hold what the disk does not.
fn shown_records_last(run: &Run, cached: &SimulatedDisk, why: &str) {
    let Some(rig) = run.open(cached, why) else {
        return;
    };
    for mode in [CrashMode::LoseUnsynced, CrashMode::Mixed(1)] {
        let found = cached.twin().crash(mode);
        let again = run.open(&found, why).expect("the log was shown");
        assert_eq!(again.model, rig.model, "{why}: shown records are lost");
    }
    goes_on(rig, CrashMode::LoseUnsynced, why);
}

#[test]
fn after_a_failed_sync_nothing_is_written_and_reads_go_on() {
    let mut rig = Rig::new(3);
    rig.append(&one(b"durable"));
    rig.disk.fail_sync_at(rig.disk.ops());
    let failed = rig.commit(&one(b"unknown"), Durability::Group);
    assert!(matches!(failed, Err(StorageError::OutcomeUnknown(_))));
    assert!(rig.writer.is_poisoned());
    let ops = rig.disk.ops();
    let refused = [
        rig.commit(&one(b"refused"), Durability::Group),
        rig.writer.sync(),
        rig.writer.write_watermark(),
        rig.writer.reserve(1),
    ];
    for refused in refused {
        assert!(
            matches!(refused, Err(StorageError::Poisoned)),
            "{refused:?}"
        );
    }
    assert_eq!(rig.disk.ops(), ops);
    let reader = rig.writer.reader();
    assert_eq!(reader.end(), Position::new(2));
    assert!(reader.record(Position::new(1)).unwrap().is_some());
}

#[test]
fn after_a_watermark_whose_sync_failed_nothing_is_written() {
    let mut rig = Rig::new(3);
    rig.append(&one(b"durable"));
    rig.disk.fail_sync_at(rig.disk.ops() + 1);
    let failed = rig.writer.write_watermark();
    assert!(matches!(failed, Err(StorageError::OutcomeUnknown(_))));
    let ops = rig.disk.ops();
    let again = rig.writer.write_watermark();
    assert!(matches!(again, Err(StorageError::Poisoned)), "{again:?}");
    assert_eq!(rig.disk.ops(), ops);
    let reopened = Rig::open(&rig.disk.process_kill(), 4).unwrap();
    assert_eq!(reopened.end(), 2);
}

#[test]
fn a_sync_that_fails_ahead_of_a_writer_that_does_not_sync_is_told_by_the_next_one() {
    for fails in [false, true] {
        let disk = SimulatedDisk::new(1);
        rig::create(&disk, 1).unwrap();
        let mut options = rig::options(2);
        let background = kimberlite_storage::Background::thread();
        options.background = background.clone();
        let mut rig = Rig::open_with(&disk, options).unwrap();
        // A segment in which some megabytes can be written before half of it is full.
        for segment_bytes in [256 << 10, 1 << 20, 4 << 20, 16 << 20] {
            rig.append(&one(b"one"));
            rig.roll(segment_bytes);
        }
        // The jobs that make the seals have ended, their last syncs too: none of them is to fail.
        let (ended, wait) = std::sync::mpsc::channel();
        background.run(move || ended.send(()).unwrap());
        wait.recv().unwrap();
        if fails {
            disk.fail_sync_at(disk.ops());
        }
        // Two syncs are begun ahead, and the second one would succeed.
        for _ in 0..20 {
            let group = one(&vec![7; 1 << 20]);
            let written = rig.commit(&group, Durability::Later);
            assert!(fails || written.is_ok());
        }
        // The disk fails once, and the one that was begun ahead met it.
        let synced = rig.writer.sync();
        assert_eq!(synced.is_err(), fails, "{synced:?}");
        assert_eq!(rig.writer.is_poisoned(), fails);
    }
}
