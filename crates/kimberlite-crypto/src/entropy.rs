//! Where random bytes come from: this crate draws none.

use std::fmt::Debug;

/// A source of unpredictable bytes.
pub trait Entropy: Debug + Send + Sync {
    /// Fills `bytes`; `false` when none can be had.
    #[must_use]
    fn fill(&self, bytes: &mut [u8]) -> bool;
}
