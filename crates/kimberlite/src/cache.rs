//! Hot metadata in bounded memory: what is looked up again and again, and can always be found in
//! the log.

use std::fmt;
use std::num::NonZero;
use std::sync::Arc;

use kimberlite_crypto::SessionCipher;
use kimberlite_types::{SessionId, StreamId, StreamName};
use lru::LruCache;

use crate::engine::seal::ActiveSession;

const STREAMS_MAX: NonZero<usize> = NonZero::new(4096).expect("not zero");
const CIPHERS_MAX: NonZero<usize> = NonZero::new(64).expect("not zero");

/// The caches of a tenant.
pub(crate) struct Caches {
    pub(crate) stream_ids: LruCache<StreamName, StreamId>,
    pub(crate) stream_names: LruCache<StreamId, StreamName>,
    pub(crate) ciphers: LruCache<SessionId, Arc<SessionCipher>>,
    /// The session that appends seal with, once its record is in the log.
    pub(crate) session: Option<Arc<ActiveSession>>,
}

impl Default for Caches {
    fn default() -> Self {
        Self {
            stream_ids: LruCache::new(STREAMS_MAX),
            stream_names: LruCache::new(STREAMS_MAX),
            ciphers: LruCache::new(CIPHERS_MAX),
            session: None,
        }
    }
}

impl fmt::Debug for Caches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caches")
            .field("stream_ids", &self.stream_ids.len())
            .field("ciphers", &self.ciphers.len())
            .finish_non_exhaustive()
    }
}
