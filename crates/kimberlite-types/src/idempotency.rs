//! What tells the retry of an append from a new one.
//!
//! A [`KeyedAppend`] is stored in 40 bytes, integers little-endian:
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0..16 | key hash | |
//! | 16..32 | request hash | |
//! | 32..36 | count | `u32`, events of the append, 1 to 65,536 |
//! | 36..40 | zero | |

use crate::digest::hash_bytes;
use crate::limits::APPEND_EVENTS_MAX;

/// Bytes of a stored [`KeyedAppend`].
pub const KEYED_APPEND_BYTES: usize = 40;

hash_bytes! {
    /// A keyed hash of an idempotency key: keys are told apart by it, and it tells nothing of them.
    IdempotencyKeyHash, 16
}
hash_bytes! {
    /// A keyed hash of all that an append asks for: where it differs, the append is another one.
    RequestHash, 16
}

/// What an append that may be retried goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// The same in the append and its retries, and in no other append.
    pub key: IdempotencyKeyHash,
    /// What the append asks for.
    pub request: RequestHash,
}

/// An append that may be retried, as the first of its frames tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyedAppend {
    /// What it goes by.
    pub idempotency: Idempotency,
    /// How many events it has, those in further frames too.
    pub count: u32,
}

impl KeyedAppend {
    /// Returns its stored bytes.
    pub fn encode(&self) -> [u8; KEYED_APPEND_BYTES] {
        let mut bytes = [0; KEYED_APPEND_BYTES];
        bytes[..16].copy_from_slice(self.idempotency.key.as_bytes());
        bytes[16..32].copy_from_slice(self.idempotency.request.as_bytes());
        bytes[32..36].copy_from_slice(&self.count.to_le_bytes());
        bytes
    }

    /// Reads stored bytes; `None` when they are not what [`encode`](Self::encode) writes of an append.
    pub fn decode(bytes: &[u8; KEYED_APPEND_BYTES]) -> Option<Self> {
        let (key, rest) = bytes.split_first_chunk()?;
        let (request, rest) = rest.split_first_chunk()?;
        let (count, zeros) = rest.split_first_chunk()?;
        let count = u32::from_le_bytes(*count);
        let is_append = (1..=APPEND_EVENTS_MAX as u64).contains(&u64::from(count));
        (is_append && zeros == [0; 4]).then_some(Self {
            idempotency: Idempotency {
                key: IdempotencyKeyHash::new(*key),
                request: RequestHash::new(*request),
            },
            count,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_format_and_no_others_are_read() {
        let append = KeyedAppend {
            idempotency: Idempotency {
                key: IdempotencyKeyHash::new([0xab; 16]),
                request: RequestHash::new([0xcd; 16]),
            },
            count: 65_536,
        };
        let mut bytes = [0xab; KEYED_APPEND_BYTES];
        bytes[16..32].fill(0xcd);
        bytes[32..].copy_from_slice(&[0, 0, 1, 0, 0, 0, 0, 0]);
        assert_eq!(append.encode(), bytes);
        assert_eq!(KeyedAppend::decode(&bytes), Some(append));
        for changed in [[0; 8], [1, 0, 1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 1]] {
            bytes[32..].copy_from_slice(&changed);
            assert_eq!(KeyedAppend::decode(&bytes), None);
        }
    }
}
