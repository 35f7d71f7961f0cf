//! The bounded queue of a log: how many appends, of how many bytes, may be under way.
//!
//! An append takes a [`Place`] before it is sealed, and gives it back when its outcome is settled.
//! Who finds no place waits in line: places go to those who wait in the order in which they came, and
//! nobody who comes later passes them, however small.
//!
//! Invariants:
//!
//! * `appends` and `bytes` are those of the places that were given and not given back.
//! * Whoever is first in line does not fit: it would have got its place.
//! * One append alone always fits, however large it is.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::block_on::{block_on, wake_all};
use crate::sync::{Mutex, MutexGuard};

/// How many appends to one log, and how many of their bytes, may be under way.
///
/// ```
/// use std::time::Duration;
///
/// use kimberlite_storage::QueueLimit;
///
/// // 20,000 appends a second that take 10 ms each: 200 are under way at any time.
/// let limit = QueueLimit::for_load(20_000, Duration::from_millis(10));
/// assert_eq!(limit.appends(), 200);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimit {
    appends: usize,
    bytes: u64,
}

impl QueueLimit {
    /// Bytes under way unless the caller says otherwise: 64 MiB.
    pub const BYTES: u64 = 64 << 20;

    /// Makes a limit; one append is always let in.
    pub const fn new(appends: usize, bytes: u64) -> Self {
        Self { appends, bytes }
    }

    /// Makes the limit that a load needs by Little's law: what comes in a second, times how long
    /// each takes.
    ///
    /// A higher limit makes appends wait for longer and gives no more of them; with a lower one
    /// some wait before they begin.
    pub fn for_load(appends_per_second: u64, latency: Duration) -> Self {
        let appends = u128::from(appends_per_second).saturating_mul(latency.as_nanos());
        let appends = appends.div_ceil(Duration::from_secs(1).as_nanos());
        let appends = usize::try_from(appends).unwrap_or(usize::MAX);
        Self::new(appends.max(1), Self::BYTES)
    }

    /// Changes the number of bytes.
    #[must_use]
    pub const fn with_bytes(self, bytes: u64) -> Self {
        Self { bytes, ..self }
    }

    /// Returns how many appends may be under way.
    pub const fn appends(self) -> usize {
        self.appends
    }

    /// Returns how many of their bytes may be.
    pub const fn bytes(self) -> u64 {
        self.bytes
    }
}

/// 4,000 appends, which is 100,000 a second that take 40 ms each, of 64 MiB together.
impl Default for QueueLimit {
    fn default() -> Self {
        Self::for_load(100_000, Duration::from_millis(40))
    }
}

/// Counts the appends that are under way, and lets in as many as the limit says.
#[derive(Debug)]
pub struct AppendQueue {
    limit: QueueLimit,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    appends: usize,
    bytes: u64,
    /// Those who wait, by their tickets.
    line: VecDeque<Waiting>,
    next_ticket: u64,
}

#[derive(Debug)]
struct Waiting {
    ticket: u64,
    bytes: u64,
    waker: Waker,
}

/// The right of one append to be under way. Dropping it gives it back.
#[derive(Debug)]
pub struct Place {
    queue: Arc<AppendQueue>,
    bytes: u64,
}

/// Waits in line for a place. Dropped before it has got one it leaves the line.
#[derive(Debug)]
pub struct Admission {
    queue: Arc<AppendQueue>,
    bytes: u64,
    ticket: Option<u64>,
}

impl AppendQueue {
    /// Makes an empty queue.
    pub fn new(limit: QueueLimit) -> Self {
        Self {
            limit,
            state: Mutex::new(State::default()),
        }
    }

    /// Returns the limit.
    pub fn limit(&self) -> QueueLimit {
        self.limit
    }

    /// Returns how many appends are under way.
    pub fn appends(&self) -> usize {
        self.state().appends
    }

    /// Takes a place for an append of `bytes`; `None` when there is none, or others wait for one.
    pub fn try_enter(self: &Arc<Self>, bytes: u64) -> Option<Place> {
        let mut state = self.state();
        (state.line.is_empty() && state.take(self.limit, bytes)).then(|| self.place(bytes))
    }

    /// Takes a place, and blocks until there is one.
    pub fn enter(self: &Arc<Self>, bytes: u64) -> Place {
        self.try_enter(bytes)
            .unwrap_or_else(|| block_on(self.enter_async(bytes)))
    }

    /// Takes a place as soon as there is one.
    pub fn enter_async(self: &Arc<Self>, bytes: u64) -> Admission {
        Admission {
            queue: Arc::clone(self),
            bytes,
            ticket: None,
        }
    }

    fn place(self: &Arc<Self>, bytes: u64) -> Place {
        Place {
            queue: Arc::clone(self),
            bytes,
        }
    }

    /// Gives back what a place had.
    fn leave(&self, bytes: u64) {
        let mut state = self.state();
        state.appends -= 1;
        state.bytes -= bytes;
        let called = state.call(self.limit);
        drop(state);
        wake_all(called);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, limit: QueueLimit, bytes: u64) -> bool {
        let Some(sum) = self.bytes.checked_add(bytes) else {
            return false;
        };
        let fits = self.appends < limit.appends && sum <= limit.bytes;
        if !fits && self.appends > 0 {
            return false;
        }
        self.appends += 1;
        self.bytes = sum;
        true
    }

    /// Gives places to the first in line, as far as they fit.
    fn call(&mut self, limit: QueueLimit) -> Vec<Waker> {
        let mut called = Vec::new();
        while let Some(bytes) = self.line.front().map(|first| first.bytes)
            && self.take(limit, bytes)
        {
            called.extend(self.line.pop_front().map(|first| first.waker));
        }
        called
    }

    /// Finds who has this ticket in the line.
    fn find(&self, ticket: u64) -> Option<usize> {
        let found = self.line.binary_search_by_key(&ticket, |one| one.ticket);
        found.ok()
    }
}

impl Place {
    /// Returns how many bytes it was taken for.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.queue.leave(self.bytes);
    }
}

impl Future for Admission {
    type Output = Place;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Place> {
        // What belongs to an executor is cloned and dropped without the lock: it may come back here.
        let waker = context.waker().clone();
        let queue = Arc::clone(&self.queue);
        let mut state = queue.state();
        let Some(ticket) = self.ticket else {
            if state.line.is_empty() && state.take(queue.limit, self.bytes) {
                drop(state);
                return Poll::Ready(queue.place(self.bytes));
            }
            let ticket = state.next_ticket;
            state.next_ticket += 1;
            let bytes = self.bytes;
            state.line.push_back(Waiting {
                ticket,
                bytes,
                waker,
            });
            drop(state);
            self.ticket = Some(ticket);
            return Poll::Pending;
        };
        let before = state.find(ticket).and_then(|at| state.line.get_mut(at));
        let before = before.map(|waiting| std::mem::replace(&mut waiting.waker, waker));
        drop(state);
        if before.is_some() {
            return Poll::Pending;
        }
        // Whoever is no longer in line has been given its place.
        self.ticket = None;
        Poll::Ready(queue.place(self.bytes))
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else {
            return;
        };
        let mut state = self.queue.state();
        let Some(at) = state.find(ticket) else {
            drop(state);
            self.queue.leave(self.bytes);
            return;
        };
        let left = state.line.remove(at);
        // Those behind it may be smaller.
        let called = state.call(self.queue.limit);
        drop(state);
        drop(left);
        wake_all(called);
    }
}
