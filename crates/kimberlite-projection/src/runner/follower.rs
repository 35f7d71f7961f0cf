//! A projection that follows a log, as whoever started it sees it.

use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use kimberlite_types::Position;

use super::pool::Pool;
use super::work::{Stopped, Work};
use super::{Followers, Named};
use crate::source::Source;
use crate::sync::{AtomicBool, Condvar, Mutex, MutexGuard};
use crate::target::TargetError;

/// A projection in the runner's hands.
pub(super) struct Task {
    named: Named,
    /// None once its follower is gone.
    work: Mutex<Option<Work>>,
    progress: Mutex<Progress>,
    changed: Condvar,
    pool: Arc<Pool>,
    /// Whether it is to be looked at.
    pub(super) noticed: AtomicBool,
    /// Set and read under the lock of the pool.
    pub(super) is_running: AtomicBool,
    /// Likewise: whether somebody waits for it since it runs.
    pub(super) is_hastened: AtomicBool,
    /// Likewise: whether the pool has noted that there is something to flush.
    pub(super) is_noted: AtomicBool,
}

#[derive(Debug, Default)]
struct Progress {
    applied: Position,
    readable: Position,
    is_rebuilding: bool,
    /// Whether something is worth a flush.
    is_unflushed: bool,
    stopped: Option<Arc<Stopped>>,
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What becomes of one that stands still once something was done with it.
#[derive(Clone, Copy)]
enum Afterwards {
    AsBefore,
    GoesOn,
}

impl Task {
    pub(super) fn new(named: Named, work: Work, pool: Arc<Pool>) -> Self {
        let progress = Progress {
            applied: work.applied(),
            readable: work.readable(),
            is_rebuilding: work.is_rebuilding(),
            ..Progress::default()
        };
        Self {
            named,
            work: Mutex::new(Some(work)),
            progress: Mutex::new(progress),
            changed: Condvar::new(),
            pool,
            noticed: AtomicBool::new(false),
            is_running: AtomicBool::new(false),
            is_hastened: AtomicBool::new(false),
            is_noted: AtomicBool::new(false),
        }
    }

    pub(super) fn named(&self) -> &Named {
        &self.named
    }

    pub(super) fn notice(self: &Arc<Self>) {
        self.pool.notice(self);
    }

    pub(super) fn hasten(self: &Arc<Self>) {
        self.pool.hasten(self);
    }

    /// Takes in the next batch; `true` when there is more.
    pub(super) fn step(&self) -> bool {
        let mut held = hold(&self.work);
        let Some(work) = held.as_mut() else {
            return false;
        };
        let stopped = hold(&self.progress).stopped.clone();
        if stopped.is_some_and(|stopped| !stopped.passes()) {
            return false;
        }
        let stepped = work.step();
        let has_more = *stepped.as_ref().unwrap_or(&false);
        if let Err(stopped) = &stepped {
            tracing::warn!(
                projection = self.named.name,
                position = work.applied().get(),
                error = stopped as &dyn Error,
                "a projection stands still"
            );
        }
        self.tell(work, stepped.err().map(Arc::new));
        has_more
    }

    fn tell(&self, work: &Work, stopped: Option<Arc<Stopped>>) {
        *hold(&self.progress) = Progress {
            applied: work.applied(),
            readable: work.readable(),
            is_rebuilding: work.is_rebuilding(),
            is_unflushed: work.is_flush_due(),
            stopped,
        };
        self.changed.notify_all();
    }

    pub(super) fn is_unflushed(&self) -> bool {
        hold(&self.progress).is_unflushed
    }

    /// Makes durable what was taken in, if it is worth that, while more may be taken in.
    pub(super) fn flush_if_due(self: &Arc<Self>) {
        // One that was under way may leave what came beside it.
        for _ in 0..2 {
            if self.is_unflushed() {
                self.flush_what_is_due();
            }
        }
    }

    fn flush_what_is_due(self: &Arc<Self>) {
        let mut begun = None;
        // Whoever asks for its state is told what goes wrong.
        let _ = self.act(
            |work| {
                begun = work.begin_flush()?;
                Ok(())
            },
            Afterwards::AsBefore,
        );
        if let Some(flush) = begun {
            flush.run();
            let _ = self.act(Work::end_flush, Afterwards::AsBefore);
        }
    }

    /// Makes durable what was taken in. One that stands still goes on to do so.
    pub(super) fn flush(self: &Arc<Self>) -> Result<(), Parked> {
        self.act(Work::flush, Afterwards::AsBefore)
    }

    /// Does something with the work between two steps, unless it is gone.
    fn act(
        self: &Arc<Self>,
        act: impl FnOnce(&mut Work) -> Result<(), TargetError>,
        afterwards: Afterwards,
    ) -> Result<(), Parked> {
        let mut held = hold(&self.work);
        let Some(work) = held.as_mut() else {
            return Ok(());
        };
        let acted = catch_unwind(AssertUnwindSafe(|| act(work)));
        let acted = match acted {
            Ok(acted) => acted.map_err(Stopped::from),
            Err(_) => Err(Stopped::Panicked),
        };
        match acted {
            Ok(()) => {
                // Nobody steps meanwhile, so it stands still for the reason for which it did before.
                let stopped = match afterwards {
                    Afterwards::AsBefore => hold(&self.progress).stopped.clone(),
                    Afterwards::GoesOn => None,
                };
                self.tell(work, stopped);
                Ok(())
            }
            Err(error) => {
                // What is damaged is rebuilt by the next step.
                let is_rebuilt = work.has_to_rebuild(Some(&error));
                let stopped = Arc::new(error);
                self.tell(work, (!is_rebuilt).then(|| Arc::clone(&stopped)));
                drop(held);
                if is_rebuilt {
                    self.hasten();
                }
                Err(Parked(stopped))
            }
        }
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("named", &self.named)
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}

/// A projection that follows a log. When it goes, what was taken in is flushed and the projection stops.
#[derive(Debug)]
pub struct Follower {
    task: Arc<Task>,
    source: NotShown,
    followers: Arc<Followers>,
}

struct NotShown(Arc<dyn Source>);

impl fmt::Debug for NotShown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}

/// Where a projection is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FollowerStatus {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// What it has taken in: everything before this position; while it is derived anew, how far that is.
    pub applied: Position,
    /// What is read of it has everything before this position.
    pub readable: Position,
    /// What it may take in: everything before this position is durable.
    pub end: Position,
    /// What it is doing.
    pub state: FollowerState,
}

impl FollowerStatus {
    /// How many records what is read of it is behind. How far it is derived anew meanwhile,
    /// [`applied`](Self::applied) tells.
    pub fn lag(&self) -> u64 {
        self.end.get().saturating_sub(self.readable.get())
    }
}

/// What a projection is doing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum FollowerState {
    /// It has the whole log, and takes in what comes.
    Following,
    /// It takes in what it does not have yet.
    CatchingUp,
    /// It is derived anew, from the first record.
    Rebuilding,
    /// It stands still, for this reason, until it is tried again.
    Parked(Parked),
}

/// Why a projection stands still.
#[derive(Clone, Debug)]
pub struct Parked(Arc<Stopped>);

impl fmt::Display for Parked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Error for Parked {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// Why it was not waited for a projection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// It stands still.
    #[error("the projection stands still and has to be tried again")]
    Parked(#[source] Parked),
    /// It took too long.
    #[error("the projection has taken in everything before position {applied} only")]
    TimedOut {
        /// How far it was.
        applied: Position,
    },
}

impl Follower {
    pub(super) fn new(task: Arc<Task>, source: Arc<dyn Source>, followers: Arc<Followers>) -> Self {
        Self {
            task,
            source: NotShown(source),
            followers,
        }
    }

    /// Where it is.
    pub fn status(&self) -> FollowerStatus {
        let end = self.source.0.end();
        let progress = hold(&self.task.progress);
        let state = match &progress.stopped {
            Some(stopped) => FollowerState::Parked(Parked(Arc::clone(stopped))),
            None if progress.is_rebuilding => FollowerState::Rebuilding,
            None if progress.applied < end => FollowerState::CatchingUp,
            None => FollowerState::Following,
        };
        FollowerStatus {
            name: self.task.named.name.clone(),
            version: self.task.named.version,
            applied: progress.applied,
            readable: progress.readable,
            end,
            state,
        }
    }

    /// Waits until what is read has the record at `position`, which has to be durable for that.
    ///
    /// # Errors
    ///
    /// [`WaitError::Parked`] when the projection stands still, [`WaitError::TimedOut`] when it has not got
    /// there in time.
    pub fn wait_for(&self, position: Position, timeout: Duration) -> Result<(), WaitError> {
        let is_behind = |progress: &Progress| progress.readable <= position;
        if is_behind(&hold(&self.task.progress)) {
            if self.task.pool.is_inline() {
                while self.task.step() {}
            } else {
                self.task.hasten();
            }
        }
        let waits = |progress: &mut Progress| is_behind(progress) && progress.stopped.is_none();
        let timeout = if self.task.pool.is_inline() {
            Duration::ZERO
        } else {
            timeout
        };
        let progress = hold(&self.task.progress);
        let waited = self
            .task
            .changed
            .wait_timeout_while(progress, timeout, waits);
        let (progress, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match &progress.stopped {
            _ if !is_behind(&progress) => Ok(()),
            Some(stopped) => Err(WaitError::Parked(Parked(Arc::clone(stopped)))),
            None => Err(WaitError::TimedOut {
                applied: progress.readable,
            }),
        }
    }

    /// Derives all anew. What is there can be read until that is done.
    ///
    /// # Errors
    ///
    /// [`Parked`] when it could not begin.
    pub fn rebuild(&self) -> Result<(), Parked> {
        self.task.act(Work::rebuild, Afterwards::GoesOn)?;
        self.task.hasten();
        Ok(())
    }

    /// Tries again what a projection stands still at.
    ///
    /// # Errors
    ///
    /// [`Parked`] when it could not begin; what comes of it is told by [`status`](Self::status).
    pub fn retry(&self) -> Result<(), Parked> {
        self.task.act(Work::recover, Afterwards::GoesOn)?;
        self.task.hasten();
        Ok(())
    }

    /// Makes durable what was taken in, so that it need not be derived again. This happens by itself.
    ///
    /// # Errors
    ///
    /// [`Parked`] when it cannot.
    pub fn flush(&self) -> Result<(), Parked> {
        self.task.flush()
    }
}

impl Follower {
    /// Ends it without a flush, after the step that runs: whoever has it waits for nothing more.
    pub fn discard(&self) {
        if self.task.pool.is_of_this_process() {
            let work = hold(&self.task.work).take();
            drop(work);
            self.followers.remove(&self.task);
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if !self.task.pool.is_of_this_process() {
            // The files are those of the process that this one was forked from, of which a thread may have had the
            // work when that was copied.
            if let Ok(mut work) = self.task.work.try_lock() {
                std::mem::forget(work.take());
            }
            return;
        }
        let _ = self.task.flush();
        // After the step that runs. What it holds of the log goes on this thread.
        let work = hold(&self.task.work).take();
        drop(work);
        // Only now may another one have its name, and its files.
        self.followers.remove(&self.task);
    }
}
