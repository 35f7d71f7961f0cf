//! The thread that leads syncs which nobody blocks for.
//!
//! One for a database, started by the first append that asks for it. Logs take turns, the one that
//! is due first before the others, and a turn is one sync: a log that wants more by then goes to the
//! end. Where nobody but blocking appenders come there is no such thread.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use kimberlite_disk::DirectoryLock;

use crate::background::Process;
use crate::sync::{
    Builder, Condvar, JoinHandle, Moment, Mutex, MutexGuard, between, current, now, wait_while,
};
use crate::sync_stage::SyncStage;

/// No sync is put off for longer: a year, so that there is such a time.
const DELAY_MAX: Duration = Duration::from_hours(365 * 24);

/// Leads syncs for those who do not block for them.
///
/// Clones share the thread. It ends, after every turn that was asked for, with the last clone.
#[derive(Clone, Debug)]
pub struct SyncDriver(Arc<Worker>);

struct Worker {
    turns: Arc<Turns>,
    thread: Mutex<Option<JoinHandle<()>>>,
    process: Process,
    lock: Option<Arc<dyn DirectoryLock>>,
}

#[derive(Default)]
struct Turns {
    state: Mutex<State>,
    /// A turn was asked for, or the thread is to end.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// In the order in which they are due.
    line: VecDeque<Turn>,
    ended: bool,
}

struct Turn {
    due: Moment,
    stage: Arc<SyncStage>,
}

impl SyncDriver {
    /// Makes a driver, whose thread is started when it is needed.
    pub fn new() -> Self {
        Self::holding(None)
    }

    /// Makes one whose thread holds a lock for as long as it runs: a waker may let go of everything
    /// else, and with it of the last clone, while there are turns left.
    pub fn holding(lock: Option<Arc<dyn DirectoryLock>>) -> Self {
        Self(Arc::new(Worker {
            turns: Arc::default(),
            thread: Mutex::new(None),
            process: Process::default(),
            lock,
        }))
    }

    /// Has `stage` driven when its delay is over, by the caller where there is no thread to be had.
    pub(crate) fn ask(&self, stage: &Arc<SyncStage>) {
        if self.0.start() {
            self.0.turns.add(Arc::clone(stage));
        } else {
            while stage.drive() {}
        }
    }
}

impl Default for SyncDriver {
    fn default() -> Self {
        Self::new()
    }
}

impl Worker {
    /// Starts the thread where it does not run yet; whether it runs.
    fn start(&self) -> bool {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_none() {
            let turns = Arc::clone(&self.turns);
            let builder = Builder::new().name("kimberlite-sync".to_owned());
            let lock = self.lock.clone();
            let run = move || {
                turns.run();
                drop(lock);
            };
            *thread = builder.spawn(run).ok();
        }
        thread.is_some()
    }
}

impl Turns {
    fn add(&self, stage: Arc<SyncStage>) {
        let due = now() + stage.delay().min(DELAY_MAX);
        let mut state = self.state();
        let at = state.line.partition_point(|turn| turn.due <= due);
        state.line.insert(at, Turn { due, stage });
        drop(state);
        self.changed.notify_one();
    }

    fn run(&self) {
        while let Some(stage) = self.next() {
            // A panic has made the outcome unknown, and whoever waits has been told.
            let more = catch_unwind(AssertUnwindSafe(|| stage.drive()));
            if matches!(more, Ok(true)) {
                self.add(stage);
            }
        }
    }

    /// Waits for the next turn; `None` when there is none to come.
    fn next(&self) -> Option<Arc<SyncStage>> {
        let mut state = self.state();
        loop {
            let Some(due) = state.line.front().map(|turn| turn.due) else {
                if state.ended {
                    return None;
                }
                let changed = self.changed.wait(state);
                state = changed.unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let rest = between(now(), due);
            let is_due = rest.is_zero() || state.ended || {
                let same = |state: &mut State| {
                    !state.ended && state.line.front().is_some_and(|turn| turn.due == due)
                };
                let (guard, is_due) = wait_while(&self.state, &self.changed, state, rest, same);
                state = guard;
                is_due
            };
            if is_due {
                return state.line.pop_front().map(|turn| turn.stage);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // A forked process has not got the thread, and perhaps not even its locks.
        if !self.process.is_this() {
            return;
        }
        let thread = self.thread.get_mut();
        let Some(thread) = thread.unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        self.turns.state().ended = true;
        self.turns.changed.notify_one();
        // A waker may hold the last clone, and be dropped by the very thread that would be joined. That
        // goes on with its turns, and holds the lock until then.
        if thread.thread().id() != current().id() {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncDriver").finish_non_exhaustive()
    }
}
