//! Digests of payloads (SHA-256) and of what only Kimberlite reads (BLAKE3).

use std::fmt;

use blake3::IncrementCounter;
use blake3::platform::Platform;
use kimberlite_types::{IdempotencyKeyHash, LogId, NameHash, PayloadDigest, RequestHash};
use sha2::{Digest, Sha256};

use crate::sha256::{Message, hash_many};
use crate::{NameKey, RequestKey};

/// Hashes a stored payload.
pub fn payload_digest(stored: &[u8]) -> PayloadDigest {
    PayloadDigest::new(Sha256::digest(stored).into())
}

/// Hashes stored payloads, each as [`payload_digest`] would, two side by side.
pub fn payload_digests<'a>(
    stored: impl IntoIterator<Item = &'a [u8], IntoIter: ExactSizeIterator>,
) -> Vec<PayloadDigest> {
    let stored = stored.into_iter();
    let mut digests = vec![PayloadDigest::new([0; 32]); stored.len()];
    let messages = stored.map(|body| Message { head: &[], body });
    hash_many(messages, |index, hash| {
        if let Some(digest) = digests.get_mut(index) {
            *digest = PayloadDigest::new(hash);
        }
    });
    digests
}

/// Names a log by the payload of its genesis record.
pub fn log_id(genesis_payload: &[u8]) -> LogId {
    LogId::new(Sha256::digest(genesis_payload).into())
}

/// Hashes a stream name under the key of its tenant, so that names are told apart without being
/// read or guessed.
pub fn name_hash(key: &NameKey, name: &[u8]) -> NameHash {
    NameHash::new(*blake3::keyed_hash(key.as_bytes(), name).as_bytes())
}

/// What a [`RequestKey`] hashes: the two never have one message.
const KEY_MESSAGE: u8 = 0;
const REQUEST_MESSAGE: u8 = 1;

/// Hashes an idempotency key under the key of its tenant, so that keys are told apart without being
/// read or guessed.
pub fn idempotency_key_hash(key: &RequestKey, idempotency_key: &[u8; 16]) -> IdempotencyKeyHash {
    let mut hasher = blake3::Hasher::new_keyed(key.as_bytes());
    hasher.update(&[KEY_MESSAGE]).update(idempotency_key);
    IdempotencyKeyHash::new(half(&hasher))
}

/// Hashes what an append asks for, field by field, under the key of its tenant.
#[derive(Clone)]
pub struct RequestHasher(blake3::Hasher);

impl RequestHasher {
    /// Begins a request.
    pub fn new(key: &RequestKey) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(key.as_bytes());
        hasher.update(&[REQUEST_MESSAGE]);
        Self(hasher)
    }

    /// Adds a number.
    pub fn number(&mut self, number: u64) -> &mut Self {
        self.0.update(&number.to_le_bytes());
        self
    }

    /// Adds bytes, behind their number.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        let count = u64::try_from(bytes.len()).expect("memory is smaller than 2^64 bytes");
        self.number(count).0.update(bytes);
        self
    }

    /// Ends the request.
    pub fn finish(&self) -> RequestHash {
        RequestHash::new(half(&self.0))
    }
}

impl fmt::Debug for RequestHasher {
    // The hasher holds its key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHasher").finish_non_exhaustive()
    }
}

/// Returns the first half of a hash.
fn half(hasher: &blake3::Hasher) -> [u8; 16] {
    let hash = hasher.finalize();
    *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
}

/// BLAKE3 of something that only Kimberlite reads: a sealed segment, a snapshot, a page.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InternalHash([u8; 32]);

impl InternalHash {
    /// Makes one from its bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for InternalHash {
    /// Lower-case hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for InternalHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InternalHash({self})")
    }
}

/// Hashes bytes with BLAKE3.
pub fn internal_hash(bytes: &[u8]) -> InternalHash {
    InternalHash(*blake3::hash(bytes).as_bytes())
}

/// Bytes of a BLAKE3 chunk, inside which hashing is serial.
const CHUNK_BYTES: usize = 1024;

/// Messages that are handed to BLAKE3 at once: the most that any processor hashes in parallel.
const SIDE_BY_SIDE_MAX: usize = 16;

/// Hashes many messages, each as [`internal_hash`] would.
///
/// Neighbouring messages of exactly 1,024 bytes are hashed side by side in the lanes of a vector
/// register, several times faster than one after the other: such a message is a single chunk of
/// BLAKE3 and cannot be split. Every other message is hashed alone; one of 16 KiB or more fills the
/// lanes by itself.
pub fn internal_hash_many(messages: &[&[u8]]) -> Vec<InternalHash> {
    let mut hashes = Vec::with_capacity(messages.len());
    let mut rest = messages;
    while let Some((first, others)) = rest.split_first() {
        let mut chunks = [&[0; CHUNK_BYTES]; SIDE_BY_SIDE_MAX];
        let mut count = 0;
        for (chunk, message) in chunks.iter_mut().zip(rest) {
            let Ok(message) = <&[u8; CHUNK_BYTES]>::try_from(*message) else {
                break;
            };
            *chunk = message;
            count += 1;
        }
        if count < 2 {
            hashes.push(internal_hash(first));
            rest = others;
        } else {
            hash_chunks(&chunks[..count], &mut hashes);
            rest = &rest[count..];
        }
    }
    hashes
}

/// Hashes messages of one chunk each, at most [`SIDE_BY_SIDE_MAX`], side by side.
fn hash_chunks(chunks: &[&[u8; CHUNK_BYTES]], hashes: &mut Vec<InternalHash>) {
    // The initial value and the flags of the BLAKE3 paper, 2.2: a message of one chunk is a root.
    const KEY: [u32; 8] = [
        0x6a09_e667,
        0xbb67_ae85,
        0x3c6e_f372,
        0xa54f_f53a,
        0x510e_527f,
        0x9b05_688c,
        0x1f83_d9ab,
        0x5be0_cd19,
    ];
    const CHUNK_START: u8 = 1 << 0;
    const CHUNK_END: u8 = 1 << 1;
    const ROOT: u8 = 1 << 3;

    let mut out = [0; 32 * SIDE_BY_SIDE_MAX];
    let out = &mut out[..32 * chunks.len()];
    Platform::detect().hash_many(
        chunks,
        &KEY,
        0,
        IncrementCounter::No,
        0,
        CHUNK_START,
        CHUNK_END | ROOT,
        out,
    );
    hashes.extend(out.as_chunks().0.iter().copied().map(InternalHash));
}

/// Hashes with BLAKE3 what arrives in pieces.
#[derive(Clone, Debug, Default)]
pub struct InternalHasher(blake3::Hasher);

impl InternalHasher {
    /// Begins a message.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next piece of the message.
    pub fn update(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(bytes);
        self
    }

    /// Ends the message.
    pub fn finish(&self) -> InternalHash {
        InternalHash(*self.0.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::DataKey;

    fn message(bytes: usize, seed: usize) -> Vec<u8> {
        (0..bytes)
            .map(|at| u8::try_from((at * 31 + seed * 7 + (at >> 8)) % 251).unwrap())
            .collect()
    }

    #[test]
    fn digests_of_many_payloads_are_those_of_each() {
        for count in 0..5 {
            let payloads = (0..count).map(|n| message(n * 700, n)).collect::<Vec<_>>();
            let digests = payload_digests(payloads.iter().map(Vec::as_slice));
            let alone = payloads.iter().map(|payload| payload_digest(payload));
            assert_eq!(digests, alone.collect::<Vec<_>>());
        }
    }

    fn check_many(messages: &[Vec<u8>]) {
        let slices: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        let one_by_one: Vec<_> = messages
            .iter()
            .map(|message| internal_hash(message))
            .collect();
        assert_eq!(internal_hash_many(&slices), one_by_one);
    }

    #[test]
    fn side_by_side_equals_one_by_one_for_every_count() {
        for count in 0..=40 {
            let messages: Vec<_> = (0..count).map(|seed| message(CHUNK_BYTES, seed)).collect();
            check_many(&messages);
        }
    }

    proptest! {
        #[test]
        fn side_by_side_equals_one_by_one_for_mixed_sizes(
            sizes in prop::collection::vec(
                prop_oneof![
                    4 => Just(CHUNK_BYTES),
                    1 => Just(0),
                    1 => CHUNK_BYTES - 1..CHUNK_BYTES + 2,
                    1 => 0_usize..20_000,
                ],
                0..40,
            )
        ) {
            let messages: Vec<_> =
                sizes.iter().enumerate().map(|(seed, bytes)| message(*bytes, seed)).collect();
            check_many(&messages);
        }

        #[test]
        fn pieces_hash_as_the_whole(bytes: Vec<u8>, cut: prop::sample::Index) {
            let (left, right) = bytes.split_at(cut.index(bytes.len() + 1));
            let mut hasher = InternalHasher::new();
            prop_assert_eq!(hasher.update(left).update(right).finish(), internal_hash(&bytes));
        }
    }

    #[test]
    fn the_internal_hash_is_blake3() {
        // The first answers of the test vectors that BLAKE3 publishes: inputs of 0 and 1 bytes.
        assert_eq!(
            internal_hash(b"").to_string(),
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
        );
        assert_eq!(
            internal_hash(&[0]).to_string(),
            "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213"
        );
    }

    #[test]
    fn request_hashes_depend_on_key_and_log_and_on_where_fields_end() {
        let log = LogId::new([1; 32]);
        let data_key = DataKey::new([7; 32]);
        let key = data_key.request_key(&log);
        let of = |key: &RequestKey, fields: &[&[u8]]| {
            let mut hasher = RequestHasher::new(key);
            for field in fields {
                hasher.bytes(field);
            }
            hasher.finish()
        };
        let hash = of(&key, &[b"ab", b"c"]);
        assert_eq!(hash, of(&key, &[b"ab", b"c"]));
        let others = [
            of(&key, &[b"a", b"bc"]),
            of(&key, &[b"abc"]),
            of(&key, &[b"ab", b"c", b""]),
            of(&data_key.request_key(&LogId::new([2; 32])), &[b"ab", b"c"]),
            of(&DataKey::new([8; 32]).request_key(&log), &[b"ab", b"c"]),
        ];
        assert!(others.iter().all(|other| *other != hash));
        let one = idempotency_key_hash(&key, &[3; 16]);
        assert_ne!(one, idempotency_key_hash(&key, &[4; 16]));
        // What the documented message comes to, by another way.
        let message = [[0].as_slice(), &[3; 16]].concat();
        let whole = blake3::keyed_hash(key.as_bytes(), &message);
        assert_eq!(one.as_bytes().as_slice(), &whole.as_bytes()[..16]);
        let message = [b"\x01\x02\0\0\0\0\0\0\0ab\x01\0\0\0\0\0\0\0c".as_slice()].concat();
        let whole = blake3::keyed_hash(key.as_bytes(), &message);
        assert_eq!(hash.as_bytes().as_slice(), &whole.as_bytes()[..16]);
        let shown = format!("{:?}", RequestHasher::new(&key));
        assert_eq!(shown, "RequestHasher { .. }");
    }

    #[test]
    fn name_hashes_depend_on_name_key_and_log() {
        let log = LogId::new([1; 32]);
        let key = DataKey::new([7; 32]).name_key(&log);
        let hash = name_hash(&key, b"patient/42");
        assert_eq!(hash, name_hash(&key, b"patient/42"));
        assert_ne!(hash, name_hash(&key, b"patient/43"));
        let other_log = DataKey::new([7; 32]).name_key(&LogId::new([2; 32]));
        assert_ne!(hash, name_hash(&other_log, b"patient/42"));
        let other_key = DataKey::new([8; 32]).name_key(&log);
        assert_ne!(hash, name_hash(&other_key, b"patient/42"));
    }
}
