//! The sync stage: one sync at a time, shared by everybody who waits for it.
//!
//! Whoever waits for a position that is not durable yet, and finds no sync running, leads: it syncs
//! all that was written by then, shows it to readers and wakes the others. There is no thread of its
//! own, so that a lone writer syncs without a hop, and whoever writes next does so beside the sync.
//!
//! A leader that knows of others gathers first: those who shared the last sync come back, each with
//! its next append, about as soon as the leader itself. Waiting for them a fraction of what a sync
//! takes lets all of them share the next one, instead of half of them in turn with the other half.
//!
//! Invariants:
//!
//! * `durable <= written`, and what stands between the two was appended by `appender`, to the active segment.
//! * Never two syncs at once: the operating system tells a failure to one of those who ask.
//! * Once a write or a sync has failed, nothing becomes durable any more.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kimberlite_disk::{Appender, DiskError};
use kimberlite_types::Position;

use crate::error::StorageError;
use crate::reader::Shared;

/// The part of the last sync's time that a leader waits for the others at most.
const GATHER_PART: u32 = 2;

/// No leader waits longer than this, whatever the last sync took.
const GATHER_MAX: Duration = Duration::from_millis(1);

/// A log without a sync for this long is quiet: a few times what a sync takes.
const QUIET: Duration = Duration::from_millis(2);

/// What the writer of a log and those who wait for it share.
#[derive(Debug)]
pub struct SyncStage {
    shared: Arc<Shared>,
    /// How long every leader waits for others, whether it knows of any or not.
    delay: Duration,
    state: Mutex<State>,
    /// A sync has ended, or the log was poisoned.
    ended: Condvar,
    /// Somebody came to wait while a leader gathers.
    came: Condvar,
}

#[derive(Debug)]
struct State {
    appender: Arc<Appender>,
    written: Position,
    durable: Position,
    syncing: bool,
    poisoned: bool,
    /// Those who wait, the leader among them.
    waiting: usize,
    /// How many shared the last sync.
    cohort: usize,
    /// Syncs that have ended.
    syncs: u64,
    /// Bytes that were written to all files.
    bytes: u64,
    last_sync: Duration,
}

impl SyncStage {
    pub(crate) fn new(
        shared: Arc<Shared>,
        appender: Arc<Appender>,
        durable: Position,
        delay: Duration,
    ) -> Self {
        let state = State {
            appender,
            written: durable,
            durable,
            syncing: false,
            poisoned: false,
            waiting: 0,
            cohort: 1,
            syncs: 0,
            bytes: 0,
            last_sync: Duration::ZERO,
        };
        Self {
            shared,
            delay,
            state: Mutex::new(state),
            ended: Condvar::new(),
            came: Condvar::new(),
        }
    }

    /// Waits until everything before `end`, which has been written, is durable.
    ///
    /// # Errors
    ///
    /// [`StorageError::OutcomeUnknown`] when the sync that this call led failed, and
    /// [`StorageError::Poisoned`] when another one did: nobody knows what is durable.
    pub fn wait(&self, end: Position) -> Result<(), StorageError> {
        let mut state = self.state();
        assert!(
            state.poisoned || end <= state.written,
            "only what was written can be synced"
        );
        state.waiting += 1;
        self.came.notify_one();
        let outcome = loop {
            if state.durable >= end {
                break Ok(());
            }
            if state.poisoned {
                break Err(StorageError::Poisoned);
            }
            if state.syncing {
                let ended = self.ended.wait(state);
                state = ended.unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let synced = self.lead(state);
            state = self.state();
            if let Err(error) = synced {
                break Err(StorageError::OutcomeUnknown(error));
            }
        };
        state.waiting -= 1;
        outcome
    }

    /// Returns the position before which everything is durable.
    pub(crate) fn durable(&self) -> Position {
        self.state().durable
    }

    /// Whether the outcome of a write or a sync is unknown.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.state().poisoned
    }

    /// Notes that everything before `end` has been written, by `bytes` more bytes.
    pub(crate) fn written(&self, end: Position, bytes: u64) {
        let mut state = self.state();
        debug_assert!(state.written <= end);
        state.written = end;
        state.bytes += bytes;
    }

    /// Waits for the end of the next sync, and returns how many bytes were written so far; `None`
    /// when the log is quiet.
    ///
    /// Whoever uses the same disk for work that nobody waits for does it then: it stands in the way
    /// of one sync at most, and the next one has it behind itself.
    pub(crate) fn after_sync(&self) -> Option<u64> {
        let state = self.state();
        let syncs = state.syncs;
        let same = |state: &mut State| state.syncs == syncs && !state.poisoned;
        let ended = self.ended.wait_timeout_while(state, QUIET, same);
        let (state, timeout) = ended.unwrap_or_else(PoisonError::into_inner);
        (!timeout.timed_out()).then_some(state.bytes)
    }

    /// Makes the outcome of a write unknown, and tells those who wait.
    pub(crate) fn poison(&self) {
        self.state().poisoned = true;
        self.ended.notify_all();
    }

    /// Syncs what was appended, also when every record in it is durable.
    pub(crate) fn sync(&self) -> Result<(), StorageError> {
        let state = self.idle()?;
        self.lead(state).map_err(StorageError::OutcomeUnknown)
    }

    /// Turns to the next segment, when everything in the one before is durable.
    pub(crate) fn turn_to(&self, appender: Arc<Appender>) -> Result<(), StorageError> {
        let mut state = self.idle()?;
        assert_eq!(
            state.durable, state.written,
            "a segment is whole and synced before the next one is written"
        );
        state.appender = appender;
        Ok(())
    }

    /// Waits for the end of the sync that is running.
    fn idle(&self) -> Result<MutexGuard<'_, State>, StorageError> {
        let ended = self.ended.wait_while(self.state(), |state| state.syncing);
        let state = ended.unwrap_or_else(PoisonError::into_inner);
        if state.poisoned {
            return Err(StorageError::Poisoned);
        }
        Ok(state)
    }

    /// Syncs what was written, and lets go of the state meanwhile.
    fn lead(&self, mut state: MutexGuard<'_, State>) -> Result<(), DiskError> {
        state.syncing = true;
        let leading = Leading(self);
        let state = self.gather(state);
        let (appender, target) = (Arc::clone(&state.appender), state.written);
        let cohort = state.waiting;
        drop(state);
        let (synced, spent) = timed(|| appender.sync());
        let mut state = self.state();
        match &synced {
            Ok(()) => {
                state.durable = target;
                let mut view = self.shared.view_mut();
                view.durable = target;
                view.end = view.end.max(target);
            }
            Err(error) => {
                state.poisoned = true;
                tracing::error!(%error, "a sync failed, the log takes no more writes until it is reopened");
            }
        }
        (state.cohort, state.last_sync) = (cohort, spent);
        state.syncs += 1;
        drop(state);
        drop(leading);
        synced
    }

    /// Waits a little for others who will want the same sync.
    fn gather<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let for_known = (state.last_sync / GATHER_PART).min(GATHER_MAX);
        let known = state.cohort;
        if self.delay.is_zero() && state.waiting >= known {
            return state;
        }
        let (budget, is_short) = if self.delay.is_zero() {
            (for_known, known)
        } else {
            (self.delay, usize::MAX)
        };
        let gathered = self
            .came
            .wait_timeout_while(state, budget, |state| state.waiting < is_short);
        gathered.unwrap_or_else(PoisonError::into_inner).0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a leadership, also one that panics: then nobody knows what it did.
struct Leading<'a>(&'a SyncStage);

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.poisoned |= std::thread::panicking();
        state.syncing = false;
        drop(state);
        self.0.ended.notify_all();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a leader gathers is a matter of speed, and of nothing else"
)]
fn timed<T>(act: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    let outcome = act();
    (outcome, begun.elapsed())
}
