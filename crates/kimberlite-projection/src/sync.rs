//! The locks and threads that a runner waits by: those of the standard library, or, in the model tests
//! (`cargo xtask model`), those of shuttle, which tries the orders in which they can take turns.
//!
//! A wait with a time limit is not ended by time in a model: it lasts until it is woken. Whoever has to be woken without
//! one is found to sleep; that a tick is over is said by a task of the model, at any step.

#[cfg(not(all(test, shuttle)))]
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard, RwLock, atomic::AtomicBool},
    thread::{Builder, JoinHandle, current},
};

#[cfg(all(test, shuttle))]
pub(crate) use shuttle::{
    sync::{Condvar, Mutex, MutexGuard, RwLock, atomic::AtomicBool},
    thread::{Builder, JoinHandle, current},
};
