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
    hits: u64,
    misses: u64,
}

/// What a cache of hot metadata was asked for since its tenant was opened, and what it holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// How often it had what it was asked for.
    pub hits: u64,
    /// How often it had not, and the log or its index was asked.
    pub misses: u64,
    /// Entries that it holds.
    pub entries: u64,
    /// Entries that it holds at most: the one that was not asked for the longest makes room.
    pub entries_max: u64,
}

impl<K: Hash + Eq, V> Recent<K, V> {
    fn new(count_max: usize) -> Self {
        Self {
            entries: LruCache::unbounded(),
            count_max,
            hits: 0,
            misses: 0,
        }
    }

    pub(crate) fn find(&mut self, key: &K) -> Option<&V> {
        let found = self.entries.get(key);
        let counter = if found.is_some() {
            &mut self.hits
        } else {
            &mut self.misses
        };
        *counter += 1;
        found
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        self.entries.put(key, value);
        if self.entries.len() > self.count_max {
            self.entries.pop_lru();
        }
    }

    pub(crate) fn stats(&self) -> CacheStats {
        CacheStats {
            hits: self.hits,
            misses: self.misses,
            entries: as_count(self.entries.len()),
            entries_max: as_count(self.count_max),
        }
    }
}

pub(crate) fn as_count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
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

    #[test]
    fn what_was_found_and_what_was_not_is_counted_and_the_bound_holds() {
        let mut recent = Recent::new(5);
        let stats = |hits, misses, entries| CacheStats {
            hits,
            misses,
            entries,
            entries_max: 5,
        };
        assert_eq!(recent.stats(), stats(0, 0, 0));
        for key in 0..100_u64 {
            assert!(recent.find(&key).is_none());
            recent.insert(key, key);
            // The same entry once more takes no other's place.
            recent.insert(key, key);
            for _ in 0..2 {
                assert_eq!(recent.find(&key), Some(&key));
            }
            let asked = key + 1;
            assert_eq!(recent.stats(), stats(2 * asked, asked, asked.min(5)));
        }
    }
}
