//! Work that somebody else may do: whoever comes first, and else the one who needs it done.

use core::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;

use crate::sync::{Condvar, Mutex, MutexGuard};

/// Work that is done once, by any thread, and gives a `T`.
pub(crate) struct Errand<T> {
    state: Mutex<State<T>>,
    has_run: Condvar,
    /// A process that was forked from this one does not have the thread that does it.
    process: u32,
}

type Work<T> = Box<dyn FnOnce() -> T + Send>;

enum State<T> {
    Waiting(Work<T>),
    Running,
    /// What it gave; none where it panicked.
    Ran(Option<T>),
    Over,
}

impl<T> Errand<T> {
    pub(crate) fn new(work: impl FnOnce() -> T + Send + 'static) -> Self {
        Self {
            state: Mutex::new(State::Waiting(Box::new(work))),
            has_run: Condvar::new(),
            process: std::process::id(),
        }
    }

    /// Whether this is the process that it belongs to.
    pub(crate) fn is_of_this_process(&self) -> bool {
        self.process == std::process::id()
    }

    /// Does it, unless somebody does or has done.
    pub(crate) fn run(&self) {
        let Some(work) = self.claim() else { return };
        // All that the work holds is gone before anybody is told.
        let given = catch_unwind(AssertUnwindSafe(work)).ok();
        *self.state() = State::Ran(given);
        self.has_run.notify_all();
    }

    /// Whether it was done.
    pub(crate) fn has_run(&self) -> bool {
        matches!(*self.state(), State::Ran(_) | State::Over)
    }

    /// Does it, or waits for who does; returns what it gave, once, and none where it panicked.
    pub(crate) fn finish(&self) -> Option<T> {
        self.run();
        match self.end() {
            State::Ran(given) => given,
            State::Waiting(_) | State::Running | State::Over => None,
        }
    }

    /// Sees to it that nobody does it any more.
    pub(crate) fn stop(&self) {
        drop(self.end());
    }

    fn end(&self) -> State<T> {
        if !self.is_of_this_process() {
            return State::Over;
        }
        let is_running = |state: &mut State<T>| matches!(state, State::Running);
        let ran = self.has_run.wait_while(self.state(), is_running);
        let mut state = ran.unwrap_or_else(PoisonError::into_inner);
        core::mem::replace(&mut *state, State::Over)
    }

    fn claim(&self) -> Option<Work<T>> {
        if !self.is_of_this_process() {
            return None;
        }
        let mut state = self.state();
        match core::mem::replace(&mut *state, State::Running) {
            State::Waiting(work) => Some(work),
            other => {
                *state = other;
                None
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As if another process had made it.
    #[cfg(test)]
    pub(crate) const fn disown(&mut self) {
        self.process ^= 1;
    }
}

impl<T> fmt::Debug for Errand<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Errand")
            .field("has_run", &self.has_run())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn it_is_done_once_and_what_it_holds_is_gone_by_then() {
        let held = Arc::new(());
        let kept = Arc::clone(&held);
        let errand = Errand::new(move || Arc::strong_count(&kept));
        assert!(!errand.has_run());
        errand.run();
        errand.run();
        assert!(errand.has_run());
        assert_eq!(Arc::strong_count(&held), 1);
        assert_eq!(errand.finish(), Some(2));
        assert_eq!(errand.finish(), None);
    }

    #[test]
    fn whoever_needs_it_does_it_or_waits_for_who_does() {
        assert_eq!(Errand::new(|| 7).finish(), Some(7));
        let (begin, begun) = channel();
        let (go_on, goes_on) = channel();
        let errand = Arc::new(Errand::new(move || {
            begin.send(()).unwrap();
            goes_on.recv().unwrap();
            7
        }));
        std::thread::scope(|scope| {
            scope.spawn(|| errand.run());
            begun.recv().unwrap();
            scope.spawn(|| assert_eq!(errand.finish(), Some(7)));
            go_on.send(()).unwrap();
        });
    }

    #[test]
    fn one_that_panics_gives_nothing_and_one_that_was_stopped_is_not_done() {
        assert_eq!(
            Errand::<()>::new(|| panic!("it was told to")).finish(),
            None
        );
        let errand = Errand::new(|| panic!("it was told to"));
        errand.stop();
        errand.run();
        assert_eq!(errand.finish(), None::<()>);
    }

    #[test]
    fn a_forked_process_does_nothing_and_waits_for_nobody() {
        let mut errand = Errand::new(|| panic!("it was told to"));
        errand.disown();
        errand.run();
        assert!(!errand.has_run());
        assert_eq!(errand.finish(), None::<()>);
    }
}
