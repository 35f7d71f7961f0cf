//! Where a leaf that is too full is cut.

use crate::store::node::build::{Fill, Part, shared_bytes};

/// Bytes more than with the entry beside it that a key shares with all others of its leaf on one side, where these are
/// the history of one thing and that is of another.
const KIN_BYTES: usize = 4;

/// Where new entries came in a leaf.
#[derive(Debug, Default)]
pub(super) struct Came {
    first: Option<usize>,
    last: usize,
}

impl Came {
    pub(super) fn note(&mut self, index: usize) {
        self.first.get_or_insert(index);
        self.last = index;
    }

    /// How the leaf is cut if it has to be. Where entries come one after the other in front of others, or behind them,
    /// as the next of a history do, the others stay together: more would come between two halves, and the one would
    /// stay as empty as it is.
    pub(super) fn fill(&self, entries: &[Part<'_>]) -> Fill {
        let Some(first) = self.first else {
            return Fill::Even;
        };
        let key = |index: usize| entries.get(index).map(|entry| entry.key);
        let shared = |left: Option<&[u8]>, right: Option<&[u8]>| match (left, right) {
            (Some(left), Some(right)) => shared_bytes(left, right),
            _ => 0,
        };
        let end = entries.len();
        // Keys of which three quarters are the same.
        let shared_by_all = shared(key(0), key(end - 1));
        let is_kin = key(0).is_some_and(|key| 4 * shared_by_all >= 3 * key.len());
        if first == 0 {
            return if is_kin {
                Fill::Before(self.last + 1)
            } else {
                Fill::Even
            };
        }
        if shared(key(first), key(end - 1)) >= shared(key(first - 1), key(first)) + KIN_BYTES {
            return Fill::Before(first);
        }
        let behind = self.last + 1;
        if shared(key(0), key(self.last)) >= shared(key(self.last), key(behind)) + KIN_BYTES {
            return Fill::Before(behind);
        }
        Fill::Even
    }
}
