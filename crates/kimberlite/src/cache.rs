//! Hot metadata in bounded memory: what is looked up again and again, and can always be found in
//! the log.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use kimberlite_crypto::SessionCipher;
use kimberlite_types::{SessionId, StreamId, StreamName};
use lru::LruCache;

use crate::engine::seal::ActiveSession;

const STREAMS_MAX: usize = 4096;
const CIPHERS_MAX: usize = 64;

/// Entries of which the one that was not asked for the longest goes first. It takes memory as it
/// fills, not for its bound: there may be ten thousand tenants.
pub(crate) struct Recent<K: Hash + Eq, V> {
    entries: LruCache<K, V>,
    count_max: usize,
}

impl<K: Hash + Eq, V> Recent<K, V> {
    fn new(count_max: usize) -> Self {
        Self {
            entries: LruCache::unbounded(),
            count_max,
        }
    }

    pub(crate) fn find(&mut self, key: &K) -> Option<&V> {
        self.entries.get(key)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        self.entries.put(key, value);
        if self.entries.len() > self.count_max {
            self.entries.pop_lru();
        }
    }
}

/// The caches of a tenant.
pub(crate) struct Caches {
    pub(crate) stream_ids: Recent<StreamName, StreamId>,
    pub(crate) stream_names: Recent<StreamId, StreamName>,
    pub(crate) ciphers: Recent<SessionId, Arc<SessionCipher>>,
    /// The session that appends seal with, once its record is in the log.
    pub(crate) session: Option<Arc<ActiveSession>>,
}

impl Default for Caches {
    fn default() -> Self {
        Self {
            stream_ids: Recent::new(STREAMS_MAX),
            stream_names: Recent::new(STREAMS_MAX),
            ciphers: Recent::new(CIPHERS_MAX),
            session: None,
        }
    }
}

impl fmt::Debug for Caches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caches")
            .field("stream_ids", &self.stream_ids.entries.len())
            .field("ciphers", &self.ciphers.entries.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_that_was_not_asked_for_the_longest_goes() {
        let mut recent = Recent::new(3);
        for key in 0..3 {
            recent.insert(key, key);
        }
        assert!(recent.find(&0).is_some());
        recent.insert(3, 3);
        let left = (0..4).filter(|key| recent.find(key).is_some());
        assert_eq!(left.collect::<Vec<_>>(), [0, 2, 3]);
    }
}
