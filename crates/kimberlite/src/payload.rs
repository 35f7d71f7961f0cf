//! The payloads of administrative records.
//!
//! * **genesis**: `version u16 | zero u16 | random [32] | public key [32] | label_len u16 | label`.
//!   The log's id is the SHA-256 of it.
//! * **stream-created**: `name hash [32] | stored payload`: the keyed hash by which the kernel tells
//!   names apart, then an envelope of type `stream-created` whose data is the name, stored as an
//!   event's payload is.
//! * **recovery**: `version u16 | zero u16 | segment u64 | byte u64 | bytes u64`: the base of the
//!   segment in which the discarded tail stood, where it began there, and how long it was. The record's position is where the log ended.
//! * **key-session**: [`kimberlite_crypto::SessionParams`]; **checkpoint**: a signed note as it is.
//!
//! Integers are little-endian.

#![deny(clippy::indexing_slicing)]

use kimberlite_storage::TailDiscarded;
use kimberlite_types::NameHash;

const GENESIS_VERSION: u16 = 1;
const GENESIS_FIXED_BYTES: usize = 70;
const RECOVERY_VERSION: u16 = 1;
pub(crate) const NAME_HASH_BYTES: usize = 32;

/// The type of the envelope that holds a stream's name.
pub(crate) const STREAM_CREATED_TYPE: &str = "stream-created";

/// What a log begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Genesis {
    pub(crate) random: [u8; 32],
    pub(crate) public_key: [u8; 32],
    pub(crate) label: String,
}

impl Genesis {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let label_bytes = u16::try_from(self.label.len()).expect("a label is a tenant's name");
        let mut bytes = Vec::with_capacity(GENESIS_FIXED_BYTES + self.label.len());
        bytes.extend(GENESIS_VERSION.to_le_bytes());
        bytes.extend([0; 2]);
        bytes.extend(self.random);
        bytes.extend(self.public_key);
        bytes.extend(label_bytes.to_le_bytes());
        bytes.extend(self.label.as_bytes());
        bytes
    }

    /// `None` when the bytes are not a genesis of this version.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first_chunk::<4>()?;
        let [low, high] = GENESIS_VERSION.to_le_bytes();
        if *version != [low, high, 0, 0] {
            return None;
        }
        let (random, rest) = rest.split_first_chunk()?;
        let (public_key, rest) = rest.split_first_chunk()?;
        let (label_bytes, label) = rest.split_first_chunk::<2>()?;
        if usize::from(u16::from_le_bytes(*label_bytes)) != label.len() {
            return None;
        }
        let label = std::str::from_utf8(label).ok()?.to_owned();
        Some(Self {
            random: *random,
            public_key: *public_key,
            label,
        })
    }
}

/// Returns the name hash and the stored name of a stream-created record.
pub(crate) fn split_stream_created(payload: &[u8]) -> Option<(NameHash, &[u8])> {
    let (hash, name) = payload.split_first_chunk::<NAME_HASH_BYTES>()?;
    Some((NameHash::new(*hash), name))
}

/// Returns the payload of a recovery record.
pub(crate) fn encode_recovery(cut: &TailDiscarded) -> Vec<u8> {
    let mut payload = Vec::with_capacity(28);
    payload.extend(RECOVERY_VERSION.to_le_bytes());
    payload.extend([0; 2]);
    payload.extend(cut.segment_base.get().to_le_bytes());
    payload.extend(cut.byte.to_le_bytes());
    payload.extend(cut.bytes.to_le_bytes());
    payload
}

/// Returns the number of records that a note in a checkpoint record speaks of, unverified.
pub(crate) fn checkpoint_size(note: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(note).ok()?;
    text.lines().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_genesis_round_trips_and_cuts_are_refused() {
        let genesis = Genesis {
            random: [1; 32],
            public_key: [2; 32],
            label: "clinic-7".to_owned(),
        };
        let bytes = genesis.encode();
        assert_eq!(Genesis::decode(&bytes), Some(genesis));
        for end in 0..bytes.len() {
            assert_eq!(
                Genesis::decode(bytes.get(..end).unwrap()),
                None,
                "cut at {end}"
            );
        }
    }

    #[test]
    fn the_size_of_a_note_is_its_second_line() {
        assert_eq!(checkpoint_size(b"origin\n42\nroot\n"), Some(42));
        assert_eq!(checkpoint_size(b"origin"), None);
        assert_eq!(checkpoint_size(b"origin\nx\n"), None);
        assert_eq!(checkpoint_size(&[0xff, b'\n', b'1']), None);
    }
}
