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
//! Who does not block for a sync has a [`SyncDriver`] lead it, unless somebody else does before. Tasks
//! are woken, and places in the queue given back, by whoever led the sync that settled them: at once, or
//! by a writer, whose caller holds a lock, once that is let go.
//!
//! Invariants:
//!
//! * `durable <= written`, and what stands between the two was appended by `appender`, to the active segment.
//! * Nothing in a segment is durable before its name is: the first sync of it syncs the directory too.
//! * Never two syncs at once: the operating system tells a failure to one of those who ask.
//! * Once a write or a sync has failed, nothing becomes durable any more.
//! * While something that is wanted is not durable, and may become so, the driver has been asked.

mod awaited;

pub use awaited::{DurableWait, Settled};

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use kimberlite_disk::{Appender, DiskDirectory, DiskError};
use kimberlite_types::Position;

use crate::append_queue::Place;
use crate::error::StorageError;
use crate::reader::Shared;
use crate::sync::{Condvar, Mutex, MutexGuard, between, now, wait_while};
use crate::sync_driver::SyncDriver;
use awaited::Awaited;

/// The part of the last sync's time that a leader waits for the others at most.
const GATHER_PART: u32 = 2;

/// No leader waits longer than this, whatever the last sync took.
const GATHER_MAX: Duration = Duration::from_millis(1);

/// A log without a sync for this long is quiet: a few times what a sync takes.
const QUIET: Duration = Duration::from_millis(2);

/// What the writer of a log and those who wait for it share.
pub struct SyncStage {
    shared: Arc<Shared>,
    /// How long every leader waits for others, whether it knows of any or not.
    delay: Duration,
    state: Mutex<State>,
    /// A sync has ended, or the log was poisoned.
    ended: Condvar,
    /// Somebody came to wait while a leader gathers.
    came: Condvar,
    after_drive: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Debug)]
struct State {
    appender: Arc<Appender>,
    /// Where the active segment got its name, until that is durable.
    unnamed_in: Option<Arc<dyn DiskDirectory>>,
    written: Position,
    durable: Position,
    syncing: bool,
    /// A leader waits for others to come.
    gathering: bool,
    poisoned: bool,
    /// Those who block, the leader among them.
    blocked: usize,
    awaited: Awaited,
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
            unnamed_in: None,
            written: durable,
            durable,
            syncing: false,
            gathering: false,
            poisoned: false,
            blocked: 0,
            awaited: Awaited::default(),
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
            after_drive: OnceLock::new(),
        }
    }

    /// Says what is done, on the driver's thread, each time that something has been driven.
    pub fn after_drive(&self, act: impl Fn() + Send + Sync + 'static) {
        // There is one facade to a log: a second act would be its own mistake.
        let is_first = self.after_drive.set(Box::new(act)).is_ok();
        debug_assert!(is_first);
    }

    /// Waits until everything before `end`, which has been written, is durable.
    ///
    /// # Errors
    ///
    /// [`StorageError::OutcomeUnknown`] when the sync that this call led failed, and
    /// [`StorageError::Poisoned`] when another one did: nobody knows what is durable.
    pub fn wait(&self, end: Position) -> Result<(), StorageError> {
        self.wait_telling(end, None)
    }

    fn wait_telling(
        &self,
        end: Position,
        mut later: Option<&mut Settled>,
    ) -> Result<(), StorageError> {
        let mut state = self.state();
        state.check_written(end);
        state.blocked += 1;
        self.came(&state);
        let outcome = loop {
            if let Some(outcome) = state.outcome(end) {
                break outcome;
            }
            if state.syncing {
                let ended = self.ended.wait(state);
                state = ended.unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let synced = self.lead(state, later.as_deref_mut());
            state = self.state();
            if let Err(error) = synced {
                break Err(StorageError::OutcomeUnknown(error));
            }
        };
        state.blocked -= 1;
        outcome
    }

    /// Waits likewise, and has no leader wait for others for the delay, also one who does already.
    ///
    /// # Errors
    ///
    /// As [`SyncStage::wait`].
    pub fn hasten(&self, end: Position) -> Result<(), StorageError> {
        self.hasten_telling(end, None)
    }

    /// As [`SyncStage::hasten`], for a caller who holds a lock: those whom its sync settles go to
    /// `later`.
    pub(crate) fn hasten_under_lock(
        &self,
        end: Position,
        later: &mut Settled,
    ) -> Result<(), StorageError> {
        self.hasten_telling(end, Some(later))
    }

    fn hasten_telling(
        &self,
        end: Position,
        later: Option<&mut Settled>,
    ) -> Result<(), StorageError> {
        let mut state = self.state();
        state.awaited.due |= !self.delay.is_zero() && state.outcome(end).is_none();
        self.came(&state);
        drop(state);
        self.wait_telling(end, later)
    }

    /// Waits, as a future, until everything before `end`, which has been written, is durable. Somebody
    /// must lead the sync: see [`SyncStage::drive_to`].
    pub fn wait_async(self: &Arc<Self>, end: Position) -> DurableWait {
        self.state().check_written(end);
        DurableWait::new(Arc::clone(self), end)
    }

    /// Has `driver` make everything before `end`, which has been written, durable: once the delay is
    /// over, unless somebody else does before. Keeps `place` until then, or until nothing becomes
    /// durable any more.
    pub fn drive_to(self: &Arc<Self>, end: Position, place: Option<Place>, driver: &SyncDriver) {
        let mut state = self.state();
        state.check_written(end);
        if state.outcome(end).is_some() {
            drop(state);
            drop(place);
            return;
        }
        if let Some(place) = place {
            state.awaited.keep(end, place);
        }
        state.awaited.wanted = state.awaited.wanted.max(end);
        let is_asked = std::mem::replace(&mut state.awaited.driven, true);
        drop(state);
        if !is_asked {
            driver.ask(self);
        }
    }

    /// Makes durable what is wanted by now; whether more was wanted meanwhile.
    pub(crate) fn drive(&self) -> bool {
        let wanted = self.state().awaited.wanted;
        // Their delay is over, and the stage keeps the outcome.
        let _ = self.hasten(wanted);
        let mut state = self.state();
        let more = state.outcome(state.awaited.wanted).is_none();
        state.awaited.driven = more;
        drop(state);
        // Last, so that nothing that was wanted before `driven` ended goes without it.
        if let Some(act) = self.after_drive.get() {
            act();
        }
        more
    }

    /// How long a sync may wait for others to share it.
    pub(crate) fn delay(&self) -> Duration {
        self.delay
    }

    /// Returns the position before which everything has been written.
    pub fn end(&self) -> Position {
        self.state().written
    }

    /// Returns the position before which everything is durable.
    pub fn durable(&self) -> Position {
        self.state().durable
    }

    /// Whether the name of the active segment is durable.
    pub(crate) fn is_named(&self) -> bool {
        self.state().unnamed_in.is_none()
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
    /// when the log is quiet, and when `is_over` was set before [`SyncStage::look_again`].
    ///
    /// Whoever uses the same disk for work that nobody waits for does it then: it stands in the way
    /// of one sync at most, and the next one has it behind itself.
    pub(crate) fn after_sync(&self, is_over: &AtomicBool) -> Option<u64> {
        let is_over = || is_over.load(Ordering::Relaxed);
        let state = self.state();
        let syncs = state.syncs;
        let same = |state: &mut State| state.syncs == syncs && !state.poisoned && !is_over();
        let (state, is_quiet) = wait_while(&self.state, &self.ended, state, QUIET, same);
        (!is_quiet && !is_over()).then_some(state.bytes)
    }

    /// Has those who wait for the end of a sync look at whether they still want to.
    pub(crate) fn look_again(&self) {
        drop(self.state());
        self.ended.notify_all();
    }

    /// Makes the outcome of a write unknown. Returns those who are to be told.
    pub(crate) fn poison(&self) -> Settled {
        let mut state = self.state();
        state.poisoned = true;
        self.settle(state)
    }

    /// Syncs what was appended, also when every record in it is durable. Those whom that settles go to
    /// `later`.
    pub(crate) fn sync(&self, later: &mut Settled) -> Result<(), StorageError> {
        let mut state = self.idle()?;
        state.awaited.due |= !self.delay.is_zero();
        let synced = self.lead(state, Some(later));
        synced.map_err(StorageError::OutcomeUnknown)
    }

    /// Turns to the next segment, when everything in the one before is durable. Its first sync makes
    /// its header page and its name in `directory` durable, too.
    pub(crate) fn turn_to(
        &self,
        appender: Arc<Appender>,
        directory: Box<dyn DiskDirectory>,
    ) -> Result<(), StorageError> {
        let mut state = self.idle()?;
        assert_eq!(
            state.durable, state.written,
            "a segment is whole and synced before the next one is written"
        );
        state.appender = appender;
        state.unnamed_in = Some(Arc::from(directory));
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

    /// Syncs what was written, and lets go of the state meanwhile. Those whom that settles are told,
    /// or go to `later`.
    fn lead(
        &self,
        mut state: MutexGuard<'_, State>,
        later: Option<&mut Settled>,
    ) -> Result<(), DiskError> {
        state.syncing = true;
        let mut leading = Leading {
            stage: self,
            is_whole: false,
            later,
        };
        let mut state = self.gather(state);
        state.awaited.due = false;
        let (appender, target) = (Arc::clone(&state.appender), state.written);
        let unnamed_in = state.unnamed_in.clone();
        let cohort = state.cohort_now();
        drop(state);
        let (synced, spent) = timed(|| {
            appender.sync()?;
            unnamed_in.map_or(Ok(()), |directory| directory.sync())
        });
        let mut state = self.state();
        match &synced {
            Ok(()) => {
                state.durable = target;
                state.unnamed_in = None;
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
        leading.is_whole = true;
        drop(leading);
        synced
    }

    /// Waits a little for others who will want the same sync.
    fn gather<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let for_known = (state.last_sync / GATHER_PART).min(GATHER_MAX);
        let (budget, is_short) = if self.delay.is_zero() {
            (for_known, state.cohort)
        } else {
            (self.delay, usize::MAX)
        };
        let goes_on = |state: &mut State| !state.awaited.due && state.cohort_now() < is_short;
        if !goes_on(&mut state) {
            return state;
        }
        state.gathering = true;
        let (mut state, _) = wait_while(&self.state, &self.came, state, budget, goes_on);
        state.gathering = false;
        state
    }

    /// Tells a leader who gathers that it has one more to sync for.
    fn came(&self, state: &State) {
        if state.gathering {
            self.came.notify_one();
        }
    }

    /// Lets go of the state, tells those who block, and returns the others whose outcome is settled.
    fn settle(&self, mut state: MutexGuard<'_, State>) -> Settled {
        let (durable, is_over) = (state.durable, state.poisoned);
        let settled = state.awaited.settle(durable, is_over);
        drop(state);
        self.ended.notify_all();
        settled
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether everything before `end` is durable, or nothing more will be; `None` while neither is
    /// known.
    fn outcome(&self, end: Position) -> Option<Result<(), StorageError>> {
        if self.durable >= end {
            return Some(Ok(()));
        }
        self.poisoned.then_some(Err(StorageError::Poisoned))
    }

    fn check_written(&self, end: Position) {
        assert!(
            self.poisoned || end <= self.written,
            "only what was written can be synced"
        );
    }

    /// Counts those who wait, by blocking or as tasks.
    fn cohort_now(&self) -> usize {
        self.blocked + self.awaited.tasks()
    }
}

impl fmt::Debug for SyncStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncStage")
            .field("delay", &self.delay)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// Ends a leadership, also one that panics: then nobody knows what it did.
struct Leading<'a> {
    stage: &'a SyncStage,
    is_whole: bool,
    later: Option<&'a mut Settled>,
}

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        let mut state = self.stage.state();
        state.poisoned |= !self.is_whole;
        state.syncing = false;
        let settled = self.stage.settle(state);
        match &mut self.later {
            Some(later) => later.join(settled),
            None => drop(settled),
        }
    }
}

fn timed<T>(act: impl FnOnce() -> T) -> (T, Duration) {
    let begun = now();
    let outcome = act();
    (outcome, between(begun, now()))
}
