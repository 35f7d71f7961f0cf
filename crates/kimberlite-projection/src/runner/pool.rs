//! The threads that run projections.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::follower::Task;
use crate::errand::Errand;
use crate::store::Flush;
use crate::sync::{Builder, Condvar, JoinHandle, Mutex, MutexGuard, current};

/// How long what is new in a busy log is left to become more.
const TICK: Duration = Duration::from_millis(1);

/// Ticks without anything new after which nobody looks any more until somebody is noticed.
const QUIET_TICKS: u32 = if cfg!(all(test, shuttle)) { 2 } else { 50 };

/// What a thread may do that somebody else needs, who does it himself where none has begun.
pub(super) trait Beside: Send + Sync {
    fn run(&self);
}

impl Beside for Flush {
    fn run(&self) {
        Self::run(self);
    }
}

impl<T: Send> Beside for Errand<T> {
    fn run(&self) {
        Self::run(self);
    }
}

/// Threads, and what they are to do.
pub(super) struct Pool {
    threads_max: usize,
    state: Mutex<State>,
    /// Wakes the thread that counts ticks.
    ticker: Condvar,
    /// Wakes another one.
    helper: Condvar,
    /// A process that was forked from this one has none of its threads.
    process: u32,
}

#[derive(Default)]
struct State {
    /// Begun by projections that go on meanwhile.
    beside: VecDeque<Arc<dyn Beside>>,
    /// To be run at once.
    now: VecDeque<Arc<Task>>,
    /// To be run at the next tick.
    next: VecDeque<Arc<Task>>,
    /// Projections with something that was not flushed.
    unflushed: Vec<Arc<Task>>,
    threads: Vec<JoinHandle<()>>,
    helpers_waiting: usize,
    /// Threads that run a projection.
    running: usize,
    /// Ticks since the last one was run.
    quiet_ticks: u32,
    ticker: Ticker,
    has_ended: bool,
}

impl State {
    fn has_work(&self) -> bool {
        !(self.beside.is_empty() && self.now.is_empty() && self.next.is_empty())
    }
}

/// Whether a thread counts ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Ticker {
    #[default]
    Nobody,
    Counts,
    /// It waits until somebody is noticed.
    Sleeps,
}

impl Pool {
    pub(super) fn new(threads_max: usize) -> Self {
        Self {
            threads_max,
            state: Mutex::default(),
            ticker: Condvar::new(),
            helper: Condvar::new(),
            process: std::process::id(),
        }
    }

    /// Whether this is the process that has its threads.
    pub(super) fn is_of_this_process(&self) -> bool {
        self.process == std::process::id()
    }

    /// Whether projections are run by whoever waits for them.
    pub(super) fn is_inline(&self) -> bool {
        self.threads_max == 0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a projection run soon: that something is new for it.
    pub(super) fn notice(self: &Arc<Self>, task: &Arc<Task>) {
        if task.noticed.swap(true, Ordering::SeqCst) || self.is_inline() {
            return;
        }
        let mut state = self.state();
        // Whoever runs it sees the flag when he is done.
        if state.has_ended || task.is_running.load(Ordering::Relaxed) {
            return;
        }
        state.next.push_back(Arc::clone(task));
        match state.ticker {
            Ticker::Counts => {}
            Ticker::Sleeps => self.ticker.notify_one(),
            Ticker::Nobody => self.help(&mut state),
        }
    }

    /// Has a projection that somebody waits for run now.
    pub(super) fn hasten(self: &Arc<Self>, task: &Arc<Task>) {
        task.noticed.store(true, Ordering::SeqCst);
        if self.is_inline() {
            return;
        }
        let mut state = self.state();
        if state.has_ended {
            return;
        }
        if task.is_running.load(Ordering::Relaxed) {
            // The step that runs may have looked at the end of the log before.
            task.is_hastened.store(true, Ordering::Relaxed);
            return;
        }
        let is_it = |it: &Arc<Task>| Arc::ptr_eq(it, task);
        state.next.retain(|it| !is_it(it));
        if !state.now.iter().any(is_it) {
            state.now.push_back(Arc::clone(task));
        }
        match state.ticker {
            Ticker::Counts | Ticker::Sleeps => self.ticker.notify_one(),
            Ticker::Nobody => self.help(&mut state),
        }
    }

    /// Has another thread do something for a projection that runs, if there is one.
    pub(super) fn send(self: &Arc<Self>, beside: Arc<dyn Beside>) {
        let mut state = self.state();
        if state.has_ended || self.is_inline() {
            return;
        }
        state.beside.push_back(beside);
        match state.ticker {
            Ticker::Counts | Ticker::Sleeps => self.ticker.notify_one(),
            Ticker::Nobody => self.help(&mut state),
        }
    }

    /// Has another thread look at the queues, if there may be one.
    fn help(self: &Arc<Self>, state: &mut State) {
        if state.helpers_waiting > 0 {
            self.helper.notify_one();
        } else if state.threads.len() < self.threads_max {
            let pool = Arc::clone(self);
            let number = state.threads.len();
            let spawned = Builder::new()
                .name(format!("kimberlite-projection-{number}"))
                .spawn(move || pool.work());
            // Without a thread somebody who waits runs it.
            state.threads.extend(spawned.ok());
        }
    }

    fn work(self: &Arc<Self>) {
        let mut state = self.state();
        while !state.has_ended {
            if let Some(beside) = state.beside.pop_front() {
                if state.has_work() {
                    self.help(&mut state);
                }
                drop(state);
                beside.run();
                drop(beside);
                state = self.state();
            } else if let Some(task) = state.now.pop_front() {
                state = self.run(state, task);
            } else if state.ticker != Ticker::Nobody {
                state.helpers_waiting += 1;
                state = wait(&self.helper, state);
                state.helpers_waiting -= 1;
            } else if state.quiet_ticks < QUIET_TICKS {
                state = self.tick(state);
            } else if !state.unflushed.is_empty() {
                let unflushed = std::mem::take(&mut state.unflushed);
                for task in &unflushed {
                    task.is_noted.store(false, Ordering::Relaxed);
                }
                drop(state);
                for task in unflushed {
                    task.flush_if_due();
                }
                state = self.state();
            } else {
                state.quiet_ticks = 0;
                state = self.sleep(state);
            }
        }
    }

    /// Waits until the next tick, or until somebody is hastened.
    fn tick<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        state.ticker = Ticker::Counts;
        let waited = self.ticker.wait_timeout(state, TICK);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.ticker = Ticker::Nobody;
        // As long as another thread runs a projection the log is not quiet.
        if state.running == 0 {
            state.quiet_ticks += 1;
        }
        turn(&mut state);
        state
    }

    /// Waits until somebody is noticed, or another thread leaves something to be done later.
    fn sleep<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        state.ticker = Ticker::Sleeps;
        while !state.has_work() && state.unflushed.is_empty() && !state.has_ended {
            state = wait(&self.ticker, state);
        }
        state.ticker = Ticker::Nobody;
        turn(&mut state);
        state
    }

    fn run<'a>(
        self: &'a Arc<Self>,
        mut state: MutexGuard<'a, State>,
        task: Arc<Task>,
    ) -> MutexGuard<'a, State> {
        if state.has_work() {
            self.help(&mut state);
        }
        state.running += 1;
        state.quiet_ticks = 0;
        task.is_running.store(true, Ordering::Relaxed);
        task.noticed.store(false, Ordering::SeqCst);
        drop(state);
        let has_more = task.step();
        let mut state = self.state();
        state.running -= 1;
        task.is_running.store(false, Ordering::Relaxed);
        let is_hastened = task.is_hastened.swap(false, Ordering::Relaxed);
        if state.has_ended {
            // Nobody would take it out again, and it holds the pool.
            return state;
        }
        if task.is_unflushed() && !task.is_noted.swap(true, Ordering::Relaxed) {
            state.unflushed.push(Arc::clone(&task));
        }
        if has_more || is_hastened {
            task.noticed.store(true, Ordering::SeqCst);
            state.now.push_back(task);
        } else if task.noticed.load(Ordering::SeqCst) {
            state.next.push_back(task);
        }
        // One that sleeps while this ran does not know what came of it.
        if state.ticker == Ticker::Sleeps {
            self.ticker.notify_one();
        }
        state
    }

    /// Ends the threads after what they are doing. The one that calls, if it is one of them, ends by itself.
    pub(super) fn end(&self) {
        if !self.is_of_this_process() {
            return;
        }
        let mut state = self.state();
        state.has_ended = true;
        let beside = std::mem::take(&mut state.beside);
        state.now.clear();
        state.next.clear();
        state.unflushed.clear();
        let threads = std::mem::take(&mut state.threads);
        drop(state);
        drop(beside);
        self.ticker.notify_all();
        self.helper.notify_all();
        for thread in threads {
            if thread.thread().id() != current().id() {
                // A panic of its own has been told where it happened.
                let _ = thread.join();
            }
        }
    }
}

#[cfg(all(test, shuttle))]
impl Pool {
    /// Says that the time of a tick has passed, where one is counted. Whether whoever counts them sleeps.
    pub(super) fn pass_time(&self) -> bool {
        let state = self.state();
        if state.ticker == Ticker::Counts {
            self.ticker.notify_one();
        }
        state.ticker == Ticker::Sleeps
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("threads_max", &self.threads_max)
            .finish_non_exhaustive()
    }
}

fn wait<'a>(condvar: &Condvar, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
    condvar.wait(state).unwrap_or_else(PoisonError::into_inner)
}

/// What waited for the tick is run now.
fn turn(state: &mut State) {
    let State { now, next, .. } = state;
    now.append(next);
}
