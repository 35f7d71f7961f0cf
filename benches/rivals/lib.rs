//! Rounds of two engines at the same work.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use kimberlite_crypto::{Entropy, ProjectionKey};
use kimberlite_projection::store::StoreKey;

/// Other bytes each time, and nothing that nobody could guess.
#[derive(Debug, Default)]
struct Counted(AtomicU8);

impl Entropy for Counted {
    fn fill(&self, bytes: &mut [u8]) -> bool {
        bytes.fill(self.0.fetch_add(1, Ordering::Relaxed));
        true
    }
}

/// A key for a store of no secrets.
pub fn store_key() -> StoreKey {
    StoreKey::new(ProjectionKey::new([1; 32]), Arc::new(Counted::default()))
}
