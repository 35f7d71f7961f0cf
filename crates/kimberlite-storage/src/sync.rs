//! The locks and threads that appends wait by: those of the standard library, or, in the model tests
//! (`cargo xtask model`), those of shuttle, which tries the orders in which they can take turns.

use std::time::Duration;

#[cfg(not(all(test, shuttle)))]
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard},
    thread::{Builder, JoinHandle, Thread, current, park},
};

#[cfg(all(test, shuttle))]
pub(crate) use shuttle::{
    sync::{Condvar, Mutex, MutexGuard},
    thread::{Builder, JoinHandle, Thread, current, park},
};

/// When something is due.
#[cfg(not(all(test, shuttle)))]
pub(crate) type Moment = std::time::Instant;

/// In a model a time to come may be over at any step, and is over in the end.
#[cfg(all(test, shuttle))]
pub(crate) type Moment = Duration;

#[cfg(not(all(test, shuttle)))]
#[expect(
    clippy::disallowed_methods,
    reason = "how long a sync is put off is a matter of speed, not of what is written"
)]
pub(crate) fn now() -> Moment {
    Moment::now()
}

#[cfg(all(test, shuttle))]
pub(crate) fn now() -> Moment {
    Duration::ZERO
}

/// Returns the time from `begun` to `end`, or none where that is over.
pub(crate) fn between(begun: Moment, end: Moment) -> Duration {
    #[cfg(not(all(test, shuttle)))]
    return end.saturating_duration_since(begun);
    #[cfg(all(test, shuttle))]
    return end.saturating_sub(begun);
}

/// Waits while `goes_on`, `budget` at most; whether the time was over first.
#[cfg(not(all(test, shuttle)))]
pub(crate) fn wait_while<'a, T>(
    _: &'a Mutex<T>,
    changed: &Condvar,
    guard: MutexGuard<'a, T>,
    budget: Duration,
    goes_on: impl FnMut(&mut T) -> bool,
) -> (MutexGuard<'a, T>, bool) {
    let waited = changed.wait_timeout_while(guard, budget, goes_on);
    let (guard, timeout) = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
    (guard, timeout.timed_out())
}

/// Shuttle's waits never time out, so others get their turn until `goes_on` ends or chance does it.
#[cfg(all(test, shuttle))]
pub(crate) fn wait_while<'a, T>(
    mutex: &'a Mutex<T>,
    _: &Condvar,
    mut guard: MutexGuard<'a, T>,
    _: Duration,
    mut goes_on: impl FnMut(&mut T) -> bool,
) -> (MutexGuard<'a, T>, bool) {
    use shuttle::rand::Rng as _;
    while goes_on(&mut guard) {
        if shuttle::rand::thread_rng().gen_bool(0.25) {
            return (guard, true);
        }
        drop(guard);
        shuttle::thread::yield_now();
        guard = mutex
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
    }
    (guard, false)
}
