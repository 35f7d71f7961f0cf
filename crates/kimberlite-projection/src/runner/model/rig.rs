//! A log that grows, two projections of it, and a clock, for models.

use std::collections::BTreeSet;
use std::ops::RangeTo;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use kimberlite_types::{ChainHash, LogId, Position};
use shuttle::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use shuttle::sync::{Condvar, Mutex, MutexGuard};
use shuttle::thread::{self, JoinHandle};

use crate::batch::Batch;
use crate::runner::pool::Pool;
use crate::runner::{Follower, Followers, Named, Runner, RunnerOptions, WaitError};
use crate::source::{BatchSize, ReadBatch, Source, SourceError};
use crate::store::{Applied, Identity};
use crate::target::{Target, TargetError};

/// Records of a batch: enough for a flush when the log is quiet.
const BATCH: u64 = 1_000;

/// Nobody waits for so long: time stands still.
pub(super) const LONG: Duration = Duration::from_mins(1);

pub(super) fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A log of batches, which are told by their numbers.
pub(super) struct Log {
    /// How many there are.
    pub(super) end: AtomicU64,
    /// So many times the second one cannot be read.
    pub(super) fails: AtomicUsize,
    /// How many each projection has taken in, as its target says it.
    taken: Mutex<Vec<u64>>,
    was_taken: Condvar,
    /// And how many it has flushed.
    flushed: Mutex<Vec<u64>>,
    /// By whom and from where a batch was read.
    reads: Mutex<BTreeSet<(usize, u64)>>,
    repeated: AtomicBool,
    /// Whoever reads for the first projection waits until the second one has so many.
    pub(super) held_until: AtomicU64,
}

impl Log {
    pub(super) fn new(fails: usize) -> Arc<Self> {
        Arc::new(Self {
            end: AtomicU64::new(0),
            fails: AtomicUsize::new(fails),
            taken: Mutex::new(vec![0; 2]),
            was_taken: Condvar::new(),
            flushed: Mutex::new(vec![0; 2]),
            reads: Mutex::default(),
            repeated: AtomicBool::new(false),
            held_until: AtomicU64::new(0),
        })
    }

    /// Waits, without saying so to anybody, until these projections have so many batches.
    pub(super) fn wait_until_taken(&self, projections: RangeTo<usize>, batches: u64) {
        let is_behind = |taken: &mut Vec<u64>| taken[projections].iter().any(|it| *it < batches);
        drop(self.was_taken.wait_while(hold(&self.taken), is_behind));
    }
}

/// The log, as one of two projections reads it.
struct LogOf(Arc<Log>, usize);

struct Read(Position);

fn identity() -> Identity {
    Identity::new(LogId::new([7; 32]), "model", 1)
}

/// Where a batch begins.
pub(super) fn begin(batch: u64) -> Position {
    Position::new(batch * BATCH)
}

fn applied(position: Position) -> Applied {
    let chain = ChainHash::new([1; 32]);
    Applied { position, chain }
}

impl Source for LogOf {
    fn end(&self) -> Position {
        begin(self.0.end.load(Ordering::SeqCst))
    }

    fn identity(&self, _: &str, _: u32) -> Identity {
        identity()
    }

    fn read(
        &self,
        from: Position,
        _: BatchSize,
    ) -> Result<Option<Box<dyn ReadBatch>>, SourceError> {
        let Self(log, nth) = self;
        if from >= self.end() {
            // It takes a while to say so, in which more may come.
            for _ in 0..4 {
                thread::yield_now();
            }
            return Ok(None);
        }
        let less = |fails: usize| fails.checked_sub(1);
        let fails = log
            .fails
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        if from == begin(1) && fails.is_ok() {
            return Err(SourceError {
                position: from,
                source: "it was told to".into(),
            });
        }
        let end = log.held_until.load(Ordering::SeqCst);
        let is_held = |taken: &mut Vec<u64>| *nth == 0 && taken[1] < end;
        drop(log.was_taken.wait_while(hold(&log.taken), is_held));
        if !hold(&log.reads).insert((*nth, from.get())) {
            log.repeated.store(true, Ordering::SeqCst);
        }
        Ok(Some(Box::new(Read(from))))
    }
}

impl ReadBatch for Read {
    fn identity(&self, _: &str, _: u32) -> Identity {
        identity()
    }

    fn end(&self) -> Position {
        Position::new(self.0.get() + BATCH)
    }

    fn give(
        &self,
        take: &mut dyn FnMut(&Batch<'_>) -> Result<(), TargetError>,
    ) -> Result<(), TargetError> {
        let batch = Batch::new(self.0, &[], applied(self.end()));
        take(&batch.expect("a batch without events fits"))
    }
}

/// Counts what it takes in.
struct Count {
    log: LogOf,
    applied: Applied,
}

impl Target for Count {
    fn identity(&self) -> Identity {
        identity()
    }

    fn applied(&self) -> Applied {
        self.applied
    }

    fn readable(&self) -> Position {
        self.applied.position
    }

    fn is_rebuilding(&self) -> bool {
        false
    }

    fn is_damaged(&self) -> bool {
        false
    }

    fn apply(&mut self, batch: &Batch<'_>) -> Result<(), TargetError> {
        let LogOf(log, nth) = &self.log;
        self.applied = batch.end();
        hold(&log.taken)[*nth] = self.applied.position.get() / BATCH;
        log.was_taken.notify_all();
        Ok(())
    }

    fn pending_bytes(&self) -> usize {
        0
    }

    fn flush(&mut self) -> Result<(), TargetError> {
        let LogOf(log, nth) = &self.log;
        hold(&log.flushed)[*nth] = self.applied.position.get() / BATCH;
        Ok(())
    }

    fn rebuild(&mut self, _: Identity) -> Result<(), TargetError> {
        Ok(())
    }

    fn caught_up(&mut self) -> Result<(), TargetError> {
        Ok(())
    }

    fn recover(&mut self) -> Result<(), TargetError> {
        // What was read ahead was let go of, and is read again.
        let LogOf(log, nth) = &self.log;
        let from = self.applied.position.get();
        hold(&log.reads).retain(|(by, read)| by != nth || *read < from);
        Ok(())
    }
}

pub(super) fn runner(threads_max: usize) -> Runner {
    Runner::new(RunnerOptions {
        threads_max,
        ..RunnerOptions::default()
    })
}

/// A runner with two projections of one log.
pub(super) struct Rig {
    pub(super) log: Arc<Log>,
    pub(super) followers: Arc<Followers>,
    pub(super) projections: Vec<Arc<Follower>>,
    pub(super) runner: Runner,
}

impl Rig {
    pub(super) fn new(threads_max: usize, fails: usize) -> Self {
        Self::over(Log::new(fails), threads_max)
    }

    pub(super) fn over(log: Arc<Log>, threads_max: usize) -> Self {
        let runner = runner(threads_max);
        let followers = Arc::new(Followers::new());
        let follow = |nth: usize| {
            let named = Named {
                name: nth.to_string(),
                version: 1,
            };
            let target = Count {
                log: LogOf(Arc::clone(&log), nth),
                applied: applied(Position::ZERO),
            };
            let source = Arc::new(LogOf(Arc::clone(&log), nth));
            let handle = runner.handle();
            let follower = handle.follow(&followers, named, source, Box::new(target));
            Arc::new(follower.expect("each has a name of its own"))
        };
        let projections = (0..2).map(follow).collect();
        Self {
            log,
            followers,
            projections,
            runner,
        }
    }

    /// A thread that appends so often, and says so each time; then it waits for one of the projections, if it is to.
    pub(super) fn append(&self, appends: u64, awaited: Option<usize>) -> JoinHandle<()> {
        let (log, followers) = (Arc::clone(&self.log), Arc::clone(&self.followers));
        let awaited = awaited.map(|nth| Arc::clone(&self.projections[nth]));
        thread::spawn(move || {
            for _ in 0..appends {
                let batch = log.end.fetch_add(1, Ordering::SeqCst);
                followers.notice();
                if let Some(projection) = &awaited {
                    wait_for(projection, batch);
                }
            }
        })
    }

    /// Has time pass until the thread that counts it goes to sleep.
    pub(super) fn wait_until_quiet(&self) {
        while !self.runner.pool.pass_time() {
            thread::yield_now();
        }
    }

    /// Has time pass until these projections have flushed so many batches.
    pub(super) fn wait_until_flushed(&self, projections: RangeTo<usize>, batches: u64) {
        let has_flushed = |it: &u64| *it == batches;
        while !hold(&self.log.flushed)[projections].iter().all(has_flushed) {
            self.runner.pool.pass_time();
            thread::yield_now();
        }
    }

    /// Ends all, and looks at what is left.
    pub(super) fn end(self) {
        let Self {
            log,
            followers,
            projections,
            runner,
        } = self;
        drop(projections);
        assert_eq!(Arc::strong_count(&log), 1, "somebody holds the log");
        drop(followers);
        let pool = Arc::downgrade(&runner.pool);
        drop(runner);
        assert!(pool.upgrade().is_none(), "somebody holds the pool");
        assert!(
            !log.repeated.load(Ordering::SeqCst),
            "a batch was read twice"
        );
    }
}

/// Waits for a batch, and tries again what a projection stands still at.
pub(super) fn wait_for(projection: &Follower, batch: u64) {
    let position = begin(batch);
    while let Err(error) = projection.wait_for(position, LONG) {
        assert!(matches!(error, WaitError::Parked(_)), "{error}");
        projection.retry().expect("nothing is done by that");
    }
    assert!(projection.status().readable > position);
}

/// Ends ticks until it goes.
pub(super) struct Clock {
    has_ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Clock {
    pub(super) fn new(pool: &Arc<Pool>) -> Self {
        let (pool, has_ended) = (Arc::clone(pool), Arc::new(AtomicBool::new(false)));
        let ended = Arc::clone(&has_ended);
        let thread = thread::spawn(move || {
            while !ended.load(Ordering::SeqCst) {
                pool.pass_time();
                thread::yield_now();
            }
        });
        let thread = Some(thread);
        Self { has_ended, thread }
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::SeqCst);
        // What failed in another thread ends all of them.
        if let Some(thread) = self.thread.take()
            && !std::thread::panicking()
        {
            join([thread]);
        }
    }
}

pub(super) fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    for thread in threads {
        thread
            .join()
            .expect("what fails in a thread ends the model");
    }
}
