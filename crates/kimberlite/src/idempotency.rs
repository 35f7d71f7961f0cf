//! Keys by which an append and its retries are one.

use std::fmt;

use kimberlite_crypto::{RequestHasher, RequestKey, idempotency_key_hash, internal_hash};
use kimberlite_kernel::ExpectedVersion;
use kimberlite_types::{Idempotency, StreamName};

use crate::event::Event;

/// A key that an append carries and its retries carry again, so that its events are appended once
/// ([`AppendOptions::idempotency_key`](crate::AppendOptions::idempotency_key)).
///
/// One key is for one append, of whatever stream of the tenant: take something that is drawn once and
/// kept until there is an answer, like a UUID, or that names the request.
///
/// ```
/// # use kimberlite::{AppendOptions, Database, Event, IdempotencyKey};
/// # let dir = tempfile::tempdir()?;
/// # let db = Database::open(dir.path())?;
/// let stream = db.tenant("clinic")?.stream("patient/42")?;
/// let key = IdempotencyKey::from_bytes(b"message 1729 of the ward's queue");
/// let events = [Event::new("measured", "37.2")];
/// let first = stream.append_with(AppendOptions::new().idempotency_key(key), &events)?;
/// // The answer was lost on its way, so it is asked for again.
/// let again = stream.append_with(AppendOptions::new().idempotency_key(key), &events)?;
/// assert_eq!(again.first_position(), first.first_position());
/// assert!(again.is_duplicate() && !first.is_duplicate());
/// assert_eq!(stream.len()?, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdempotencyKey([u8; 16]);

impl IdempotencyKey {
    /// Makes one from its 16 bytes, such as those of a UUID.
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Makes one from any bytes, by hashing them.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let hash = internal_hash(bytes);
        Self(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"))
    }

    /// Returns what the log goes by: hashes, which tell nothing of the key or of the request.
    pub(crate) fn of_request(
        self,
        key: &RequestKey,
        (name, expected, events): (&StreamName, ExpectedVersion, &[Event]),
    ) -> Idempotency {
        let mut request = RequestHasher::new(key);
        request.bytes(name.as_str().as_bytes());
        let (tag, offset) = match expected {
            ExpectedVersion::Any => (0, 0),
            ExpectedVersion::NoStream => (1, 0),
            ExpectedVersion::Exact(offset) => (2, offset.get()),
        };
        request.number(tag).number(offset);
        for event in events {
            let envelope = event.envelope();
            request
                .bytes(envelope.event_type.as_bytes())
                .bytes(envelope.metadata)
                .bytes(envelope.data);
        }
        Idempotency {
            key: idempotency_key_hash(key, &self.0),
            request: request.finish(),
        }
    }
}

impl fmt::Debug for IdempotencyKey {
    // It may come from what names a person.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotencyKey").finish_non_exhaustive()
    }
}
