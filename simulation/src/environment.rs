//! Time and randomness of a simulated database.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kimberlite::{Clock, Entropy, Timestamp};
use kimberlite_testkit::Rng;

const START_NS: u64 = 1_700_000_000_000_000_000;
const TICK_NS: u64 = 1_000_000;

/// Goes on by a millisecond at each reading, and jumps where it is told to.
#[derive(Debug)]
pub(crate) struct JumpingClock(AtomicU64);

impl JumpingClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(START_NS)))
    }

    pub(crate) fn jump_ahead(&self, ns: u64) {
        self.0.fetch_add(ns, Ordering::Relaxed);
    }

    pub(crate) fn jump_back(&self, ns: u64) {
        self.0.fetch_sub(ns, Ordering::Relaxed);
    }
}

impl Clock for JumpingClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanoseconds(self.0.fetch_add(TICK_NS, Ordering::Relaxed))
    }
}

/// What the operating system would draw, from a seed.
#[derive(Debug)]
pub(crate) struct SeededEntropy(Mutex<Rng>);

impl SeededEntropy {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Rng::new(seed))))
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) -> bool {
        let mut rng = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rng.fill(bytes);
        true
    }
}
