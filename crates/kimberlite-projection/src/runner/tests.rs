//! A runner over a log that is told when to change and to fail, with no thread and with some.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use kimberlite_disk::Disk;
use kimberlite_testkit::SimulatedDisk;
use kimberlite_types::{ChainHash, LogId, Offset, Position, StreamId, Timestamp};

use super::*;
use crate::batch::{Batch, Content, Event};
use crate::projection::{ApplyError, Projection};
use crate::source::{ReadBatch, SourceError};
use crate::store::{Applied, Identity, Snapshot, StoreOptions, WriteTransaction};
use crate::store_target::StoreTarget;
use crate::table::Table;
use crate::target::TargetError;

const BATCHES: u64 = 40;
const LONG: Duration = Duration::from_mins(1);

/// A log of batches of one event, which says by how many purges it was read.
#[derive(Default)]
struct Log {
    purges: AtomicU32,
    /// A purge is ordered just before the batch at this position is read, or just behind, once.
    purged_before: AtomicU64,
    purged_behind: AtomicU64,
    /// So many times the batch at this position cannot be read; or reading it panics.
    failing: AtomicU64,
    fails: AtomicU32,
    panics: AtomicU32,
    /// So many times it panics where it is asked which log it is.
    panics_at_identity: AtomicU32,
}

impl Log {
    fn order_purge(&self, at: &AtomicU64, from: Position) {
        if from != Position::ZERO && at.load(Ordering::SeqCst) == from.get() {
            at.store(0, Ordering::SeqCst);
            self.purges.fetch_add(1, Ordering::SeqCst);
        }
    }
}

struct Read {
    from: Position,
    purges: u32,
}

fn identity_of(purges: u32, name: &str, version: u32) -> Identity {
    Identity::new(LogId::new([7; 32]), &format!("{name} {purges}"), version)
}

fn take_one(left: &AtomicU32) -> bool {
    let less = |left: u32| left.checked_sub(1);
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
        .is_ok()
}

impl Source for Log {
    fn end(&self) -> Position {
        Position::new(BATCHES)
    }

    fn identity(&self, name: &str, version: u32) -> Identity {
        assert!(!take_one(&self.panics_at_identity), "it was told to");
        identity_of(self.purges.load(Ordering::SeqCst), name, version)
    }

    fn read(
        &self,
        from: Position,
        _: BatchSize,
    ) -> Result<Option<Box<dyn ReadBatch>>, SourceError> {
        if from >= self.end() {
            return Ok(None);
        }
        self.order_purge(&self.purged_before, from);
        if from.get() == self.failing.load(Ordering::SeqCst) {
            assert!(!take_one(&self.panics), "it was told to");
            if take_one(&self.fails) {
                return Err(SourceError {
                    position: from,
                    source: "it was told to".into(),
                });
            }
        }
        let purges = self.purges.load(Ordering::SeqCst);
        self.order_purge(&self.purged_behind, from);
        Ok(Some(Box::new(Read { from, purges })))
    }
}

impl ReadBatch for Read {
    fn identity(&self, name: &str, version: u32) -> Identity {
        identity_of(self.purges, name, version)
    }

    fn end(&self) -> Position {
        Position::new(self.from.get() + 1)
    }

    fn give(
        &self,
        take: &mut dyn FnMut(&Batch<'_>) -> Result<(), TargetError>,
    ) -> Result<(), TargetError> {
        let data = self.purges.to_le_bytes();
        let event = Event {
            position: self.from,
            stream: "s",
            stream_id: StreamId::new(Position::ZERO),
            offset: Offset::new(self.from.get()),
            time: Timestamp::default(),
            content: Content::Payload {
                event_type: "t",
                metadata: b"",
                data: &data,
            },
        };
        let end = Applied {
            position: self.end(),
            chain: ChainHash::new([1; 32]),
        };
        take(&Batch::new(self.from, &[event], end).unwrap())
    }
}

/// By how many purges each event was read, and a long value with it.
struct Purges(Mutex<Vec<(Position, u32)>>);

const PURGES: Table<Position, Vec<u8>> = Table::new(1);

impl Projection for Purges {
    type View = Snapshot;

    fn name(&self) -> &'static str {
        "purges"
    }

    fn version(&self) -> u32 {
        1
    }

    fn apply(&self, batch: &Batch<'_>, write: &mut WriteTransaction<'_>) -> Result<(), ApplyError> {
        for event in batch.events() {
            let (_, data) = event.payload().unwrap();
            let purges = u32::from_le_bytes(*data.first_chunk().unwrap());
            self.0.lock().unwrap().push((event.position, purges));
            PURGES.put(write, event.position, &[data, &[0; 5_000]].concat())?;
        }
        Ok(())
    }
}

struct Followed {
    projection: Arc<Purges>,
    reads: crate::store_target::Reads,
    follower: Follower,
    runner: Runner,
}

fn follow(disk: &SimulatedDisk, log: &Arc<Log>, threads_max: usize) -> Followed {
    follow_after(disk, log, threads_max, || ())
}

/// Does something once the store is there and before anything is taken in.
fn follow_after(
    disk: &SimulatedDisk,
    log: &Arc<Log>,
    threads_max: usize,
    first: impl FnOnce(),
) -> Followed {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let directory = Path::new("/p");
    disk.create_dir_all(directory).unwrap();
    let projection = Arc::new(Purges(Mutex::default()));
    let derived = (Arc::clone(&projection), log.identity("purges", 1));
    let target = StoreTarget::open(disk, directory, derived, StoreOptions::default(), &|_| true);
    let target = target.unwrap();
    let reads = target.reads();
    first();
    let runner = Runner::new(RunnerOptions {
        threads_max,
        flush_bytes: 40_000,
        ..RunnerOptions::default()
    });
    let named = Named {
        name: "purges".to_owned(),
        version: 1,
    };
    let source = Arc::clone(log) as Arc<dyn Source>;
    let followers = Arc::new(Followers::new());
    let follower = runner
        .handle()
        .follow(&followers, named, source, Box::new(target));
    Followed {
        projection,
        reads,
        follower: follower.unwrap(),
        runner,
    }
}

impl Followed {
    fn wait(&self) -> Result<(), WaitError> {
        let last = Position::new(BATCHES - 1);
        self.follower.wait_for(last, LONG)?;
        // What is read may be what was there before a rebuild that is not done yet.
        while matches!(self.follower.status().state, FollowerState::Rebuilding) {
            self.follower
                .wait_for(Position::new(BATCHES), Duration::from_millis(1))
                .ok();
        }
        Ok(())
    }

    fn check(&self, purges: u32, what: &str) {
        let snapshot = self.reads.snapshot();
        let entries: Vec<_> = PURGES.range(&snapshot, ..).map(Result::unwrap).collect();
        assert_eq!(entries.len(), usize::try_from(BATCHES).unwrap(), "{what}");
        for (position, value) in entries {
            assert_eq!(value[..4], purges.to_le_bytes(), "{what}: {position}");
        }
    }
}

#[test]
fn a_batch_is_taken_in_by_what_it_was_read_for_alone() {
    for threads_max in [0, 1, 3] {
        for at in [1, 2, 17, BATCHES - 1] {
            for is_before in [true, false] {
                let log = Arc::new(Log::default());
                let place = if is_before {
                    &log.purged_before
                } else {
                    &log.purged_behind
                };
                place.store(at, Ordering::SeqCst);
                let what = format!("{threads_max} threads, purge at {at}, {is_before}");
                let followed = follow(&SimulatedDisk::new(1), &log, threads_max);
                followed.wait().unwrap();
                followed.follower.wait_for(Position::new(0), LONG).unwrap();
                followed.follower.rebuild().unwrap();
                followed.wait().unwrap();
                followed.check(1, &what);
                // Nothing that was read by one number of purges came behind what was read by another.
                let taken = followed.projection.0.lock().unwrap();
                let mut before = (Position::ZERO, 0);
                for (position, purges) in &*taken {
                    assert!(
                        *position == Position::ZERO || *purges == before.1,
                        "{what}: {position}"
                    );
                    before = (*position, *purges);
                }
            }
        }
    }
}

#[test]
fn what_goes_wrong_ahead_is_told_by_the_batch_that_it_goes_wrong_with() {
    for threads_max in [0, 1, 3] {
        let log = Arc::new(Log::default());
        log.failing.store(9, Ordering::SeqCst);
        // Ahead, and again when it is needed; where nothing is read ahead, when it is tried again.
        log.fails.store(2, Ordering::SeqCst);
        let followed = follow(&SimulatedDisk::new(1), &log, threads_max);
        let mut parked = 0;
        while let Err(WaitError::Parked(_)) = followed.wait() {
            let status = followed.follower.status();
            assert_eq!(status.applied, Position::new(9), "{threads_max} threads");
            parked += 1;
            followed.follower.retry().unwrap();
        }
        assert!(parked > 0, "{threads_max} threads");
        followed.check(0, "an error");

        let log = Arc::new(Log::default());
        log.failing.store(9, Ordering::SeqCst);
        log.panics.store(1, Ordering::SeqCst);
        let followed = follow(&SimulatedDisk::new(1), &log, threads_max);
        while let Err(WaitError::Parked(_)) = followed.wait() {
            followed.follower.retry().unwrap();
        }
        followed.check(0, "a panic");
    }
}

#[test]
fn a_flush_that_fails_beside_what_is_taken_in_is_told_and_what_is_lost_is_derived_again() {
    for threads_max in [0, 1, 3] {
        let mut parked = 0;
        for op in 1..40 {
            let (log, disk) = (Arc::new(Log::default()), SimulatedDisk::new(1));
            let fail = || disk.fail_sync_at(disk.ops() + op);
            let followed = follow_after(&disk, &log, threads_max, fail);
            while let Err(WaitError::Parked(_)) = followed.wait() {
                parked += 1;
                followed.follower.retry().unwrap();
            }
            let _ = followed.follower.flush();
            followed.follower.retry().unwrap();
            followed.wait().unwrap();
            followed.check(0, "a failed sync");
        }
        assert!(parked > 0, "{threads_max} threads");
    }
}

#[test]
fn a_projection_that_goes_away_waits_for_what_is_done_beside_it() {
    for round in 0..50 {
        let (log, disk) = (Arc::new(Log::default()), SimulatedDisk::new(1));
        let followed = follow(&disk, &log, 3);
        let position = Position::new(round % BATCHES);
        followed.follower.wait_for(position, LONG).unwrap();
        let Followed {
            follower, runner, ..
        } = followed;
        drop(follower);
        // Nobody holds anything of the log, and nothing is written any more.
        assert_eq!(Arc::strong_count(&log), 1, "round {round}");
        let ops = disk.ops();
        drop(runner);
        assert_eq!(disk.ops(), ops);
    }
}

#[test]
fn a_full_disk_holds_up_what_is_taken_in_beside_a_flush_too() {
    for threads_max in [0, 1, 3] {
        let (log, disk) = (Arc::new(Log::default()), SimulatedDisk::new(1));
        let fill = || disk.set_space_bytes(Some(disk.used_bytes()));
        let followed = follow_after(&disk, &log, threads_max, fill);
        for _ in 0..2 * BATCHES {
            let waited = followed.wait();
            assert!(matches!(waited, Err(WaitError::Parked(_))), "{waited:?}");
            followed.follower.retry().unwrap();
        }
        disk.set_space_bytes(None);
        while followed.wait().is_err() {}
        followed.check(0, "a full disk");
    }
}

#[test]
fn a_rebuild_that_stands_still_does_not_leave_what_is_read_behind() {
    for threads_max in [0, 1, 3] {
        let log = Arc::new(Log::default());
        let followed = follow(&SimulatedDisk::new(1), &log, threads_max);
        followed.wait().unwrap();
        log.failing.store(9, Ordering::SeqCst);
        log.fails.store(u32::MAX, Ordering::SeqCst);
        followed.follower.rebuild().unwrap();
        let waited = followed.follower.wait_for(Position::new(BATCHES), LONG);
        assert!(matches!(waited, Err(WaitError::Parked(_))), "{waited:?}");
        let status = followed.follower.status();
        assert_eq!(status.applied, Position::new(9), "{threads_max} threads");
        assert_eq!(status.lag(), 0, "{threads_max} threads");
        log.fails.store(0, Ordering::SeqCst);
        followed.follower.retry().unwrap();
        followed.wait().unwrap();
        followed.check(0, "a rebuild");
    }
}

#[test]
fn a_panic_between_two_steps_is_told_and_the_projection_can_be_tried_again() {
    for threads_max in [0, 1, 3] {
        let (log, disk) = (Arc::new(Log::default()), SimulatedDisk::new(1));
        let followed = follow(&disk, &log, threads_max);
        followed.wait().unwrap();
        log.panics_at_identity.store(1, Ordering::SeqCst);
        let told = followed.follower.rebuild().unwrap_err();
        assert_eq!(told.to_string(), "the projection panicked");
        let state = followed.follower.status().state;
        assert!(matches!(state, FollowerState::Parked(_)), "{state:?}");
        followed.follower.retry().unwrap();
        followed.wait().unwrap();
        followed.check(0, "a panic");
    }
}
