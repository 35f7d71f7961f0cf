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

/// Distinct keys in an order like that of chance.
pub fn key(number: u64) -> [u8; 8] {
    let mut x = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (x ^ (x >> 31)).to_be_bytes()
}

/// The middle one of some figures.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
