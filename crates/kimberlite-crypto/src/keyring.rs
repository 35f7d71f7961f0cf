//! The keyring of a log: its wrapped data keys, in two files that are written by turns.
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0..8 | magic | `KIMBKEYS` |
//! | 8..12 | version | `u32`, 1 |
//! | 12..16 | entry count | `u32` |
//! | 16..24 | generation | `u64`, grows with each writing |
//! | 24..56 | log id | |
//! | 56.. | entries | 64 bytes each: key id 16, version `u32`, epoch `u32`, wrapped key 40 |
//! | last 32 | checksum | BLAKE3 of all before |
//!
//! Integers are little-endian. An even generation is written to slot A, an odd one to slot B, so that
//! a torn write damages the older of the two at most. The checksum finds damage, not malice: a key
//! that was exchanged does not unwrap, because its place is bound by its wrapping key.

#![deny(clippy::indexing_slicing)]

use std::collections::BTreeSet;

use kimberlite_types::LogId;

use crate::fields::Fields;
use crate::{KeyId, KeyVersion, WRAPPED_KEY_BYTES, internal_hash};

const MAGIC: [u8; 8] = *b"KIMBKEYS";
const VERSION: u32 = 1;
const FIXED_BYTES: usize = 56;
const ENTRY_BYTES: usize = 64;
const CHECKSUM_BYTES: usize = 32;

/// Entries of one keyring.
pub const KEYRING_ENTRIES_MAX: usize = 1 << 20;

/// The wrapped data keys of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyring {
    /// The log that the keys are for.
    pub log_id: LogId,
    /// How often it was written; the larger one is the newer.
    pub generation: u64,
    /// The keys, in the order in which they were added.
    pub entries: Vec<KeyringEntry>,
}

/// A wrapped data key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyringEntry {
    /// Which key.
    pub key_id: KeyId,
    /// Which version of it.
    pub version: KeyVersion,
    /// The epoch of the key-encryption key that wraps it.
    pub epoch: u32,
    /// The key, wrapped.
    pub wrapped: [u8; WRAPPED_KEY_BYTES],
}

/// One of the two places of a keyring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// The place of even generations.
    A,
    /// The place of odd generations.
    B,
}

/// Why there is no keyring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyringError {
    /// There is neither slot.
    #[error("the keyring is missing")]
    Missing,
    /// The bytes do not begin like a keyring.
    #[error("not a keyring")]
    Magic,
    /// The version is not known.
    #[error("keyring version {found} is not known to this release")]
    Version {
        /// The version that was found.
        found: u32,
    },
    /// The length does not follow from the number of entries.
    #[error("the keyring has {actual} bytes, which does not fit its {entries} entries")]
    Length {
        /// Entries that the keyring says it has.
        entries: u32,
        /// Bytes that were found.
        actual: usize,
    },
    /// The checksum does not fit.
    #[error("the keyring is damaged: its checksum does not fit")]
    Checksum,
    /// A version of a key is there twice.
    #[error("the keyring holds key {key_id} version {version} twice")]
    Duplicate {
        /// The key.
        key_id: KeyId,
        /// Its version.
        version: KeyVersion,
    },
    /// The two slots are both whole and contradict each other.
    #[error("the two slots of the keyring contradict each other")]
    Conflict,
}

impl Keyring {
    /// Returns the stored bytes.
    pub fn encode(&self) -> Vec<u8> {
        debug_assert!(self.entries.len() <= KEYRING_ENTRIES_MAX);
        let count = u32::try_from(self.entries.len()).expect("entries are bounded");
        let length = FIXED_BYTES + ENTRY_BYTES * self.entries.len() + CHECKSUM_BYTES;
        let mut bytes = Vec::with_capacity(length);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(count.to_le_bytes());
        bytes.extend(self.generation.to_le_bytes());
        bytes.extend(self.log_id.as_bytes());
        debug_assert_eq!(bytes.len(), FIXED_BYTES);
        for entry in &self.entries {
            bytes.extend(entry.key_id.as_bytes());
            bytes.extend(entry.version.get().to_le_bytes());
            bytes.extend(entry.epoch.to_le_bytes());
            bytes.extend(entry.wrapped);
        }
        let checksum = internal_hash(&bytes);
        bytes.extend(checksum.as_bytes());
        debug_assert_eq!(bytes.len(), length);
        bytes
    }

    /// Reads the stored bytes.
    ///
    /// # Errors
    ///
    /// [`KeyringError`] when the bytes are no keyring, of another version, or damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, KeyringError> {
        let (content, checksum) = bytes
            .split_last_chunk::<CHECKSUM_BYTES>()
            .ok_or(KeyringError::Magic)?;
        let mut fields = Fields::new(content);
        if fields.take() != Some(MAGIC) {
            return Err(KeyringError::Magic);
        }
        let version = fields.take_u32().ok_or(KeyringError::Magic)?;
        if version != VERSION {
            return Err(KeyringError::Version { found: version });
        }
        let entries = fields.take_u32().ok_or(KeyringError::Magic)?;
        let length = KeyringError::Length {
            entries,
            actual: bytes.len(),
        };
        let generation = fields.take_u64().ok_or(length)?;
        let log_id = LogId::new(fields.take().ok_or(length)?);
        let count = usize::try_from(entries).map_err(|_| length)?;
        let (stored, rest) = fields.rest().as_chunks::<ENTRY_BYTES>();
        if count > KEYRING_ENTRIES_MAX || stored.len() != count || !rest.is_empty() {
            return Err(length);
        }
        if internal_hash(content).as_bytes() != checksum {
            return Err(KeyringError::Checksum);
        }
        let keyring = Self {
            log_id,
            generation,
            entries: stored
                .iter()
                .map(|entry| KeyringEntry::decode(entry).ok_or(length))
                .collect::<Result<_, _>>()?,
        };
        keyring.check_unique()?;
        Ok(keyring)
    }

    /// Picks the newer of the two slots; a slot that is damaged or absent gives way to the other.
    ///
    /// # Errors
    ///
    /// [`KeyringError`] of the first slot that is there when none is whole, and
    /// [`KeyringError::Conflict`] when the slots are of different logs or differ in one generation.
    pub fn newest(a: Option<&[u8]>, b: Option<&[u8]>) -> Result<Self, KeyringError> {
        match (a.map(Self::decode), b.map(Self::decode)) {
            (Some(Ok(a)), Some(Ok(b))) => {
                let same_generation = a.generation == b.generation;
                if a.log_id != b.log_id || (same_generation && a != b) {
                    return Err(KeyringError::Conflict);
                }
                Ok(if a.generation > b.generation { a } else { b })
            }
            (Some(Ok(keyring)), _) | (_, Some(Ok(keyring))) => Ok(keyring),
            (Some(Err(error)), _) | (_, Some(Err(error))) => Err(error),
            (None, None) => Err(KeyringError::Missing),
        }
    }

    /// Returns the slot that a generation is written to.
    pub const fn slot_for(generation: u64) -> Slot {
        if generation.is_multiple_of(2) {
            Slot::A
        } else {
            Slot::B
        }
    }

    /// Finds a version of a key.
    pub fn find(&self, key_id: &KeyId, version: KeyVersion) -> Option<&KeyringEntry> {
        self.entries
            .iter()
            .find(|entry| entry.key_id == *key_id && entry.version == version)
    }

    fn check_unique(&self) -> Result<(), KeyringError> {
        let mut seen = BTreeSet::new();
        for entry in &self.entries {
            let (key_id, version) = (entry.key_id, entry.version);
            if !seen.insert((key_id, version)) {
                return Err(KeyringError::Duplicate { key_id, version });
            }
        }
        Ok(())
    }
}

impl KeyringEntry {
    fn decode(bytes: &[u8; ENTRY_BYTES]) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        Some(Self {
            key_id: KeyId::new(fields.take()?),
            version: KeyVersion::new(fields.take_u32()?),
            epoch: fields.take_u32()?,
            wrapped: fields.take()?,
        })
    }
}

#[cfg(test)]
mod tests;
