//! Key sessions: what a writer seals with, and how anyone with the data key opens it again.
//!
//! A session begins with a fresh random salt. From the data key, the log, the key's id and version
//! and the salt come its secrets ([table](crate::expand)): AES key, base nonce, blind and key
//! commitment. Salt and commitment are public, the payload of the key-session record:
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0 | version | 1 |
//! | 1 | reserved | 0 |
//! | 2..4 | suite | `u16`, [`Suite`] |
//! | 4..8 | key version | `u32` |
//! | 8..24 | key id | |
//! | 24..56 | salt | |
//! | 56..88 | key commitment | |
//!
//! A sealed payload is `commitment ‖ ciphertext ‖ tag`, 32 bytes, as many as the plaintext, 16; or
//! without the commitment where the record's flags say so.
//!
//! * `commitment = SHA-256(0x03 ‖ HMAC-SHA-256(blind, counter u32) ‖ plaintext)`
//! * `nonce = base nonce`, its last four bytes XOR `counter u32`
//! * `associated data = log id 32 ‖ stream u64 ‖ session u64 ‖ counter u32 ‖ commitment`, all ones
//!   for no stream, the commitment as it is stored
//!
//! Integers are little-endian. AES-GCM alone does not commit to its key: the commitment makes sure
//! that nobody can show two plaintexts for one record, and that one record can be disclosed without
//! a key.
//!
//! **Invariant:** a counter is used once in a session. The caller counts; a counter that was thrown
//! away is spent.

#![deny(clippy::indexing_slicing)]

mod cipher;

use std::fmt;

use kimberlite_types::{LogId, SessionId, StreamId};

pub use self::cipher::{SessionCipher, ToSeal};
pub use crate::aead::TAG_BYTES;
use crate::fields::Fields;
use crate::{KeyId, KeyVersion};

/// Bytes of the commitment that a sealed payload begins with.
pub const COMMITMENT_BYTES: usize = 32;

/// Bytes of an encoded [`SessionParams`].
pub const SESSION_PARAMS_BYTES: usize = 88;

const VERSION: u8 = 1;

/// The algorithms of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suite {
    /// AES-256-GCM, with HKDF, HMAC and commitments of SHA-256.
    Aes256GcmSha256,
}

impl Suite {
    /// Returns the stored number.
    pub const fn to_u16(self) -> u16 {
        match self {
            Self::Aes256GcmSha256 => 1,
        }
    }
}

impl TryFrom<u16> for Suite {
    type Error = SessionError;

    fn try_from(number: u16) -> Result<Self, Self::Error> {
        match number {
            1 => Ok(Self::Aes256GcmSha256),
            found => Err(SessionError::Suite { found }),
        }
    }
}

/// What a session's secrets are compared with before anything is opened.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyCommitment([u8; 32]);

impl KeyCommitment {
    /// Makes one from its bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for KeyCommitment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyCommitment(")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

/// The public part of a session: the payload of its key-session record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionParams {
    /// The algorithms.
    pub suite: Suite,
    /// The data key that the session comes from.
    pub key_id: KeyId,
    /// The version of that key.
    pub key_version: KeyVersion,
    /// What makes the session's secrets its own.
    pub salt: [u8; 32],
    /// What fixes the session's secrets.
    pub key_commitment: KeyCommitment,
}

/// Why a session cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The bytes do not have the length of session parameters.
    #[error("session parameters have {SESSION_PARAMS_BYTES} bytes, found {actual}")]
    Length {
        /// Bytes that were found.
        actual: usize,
    },
    /// The version is not known.
    #[error("session version {found} is not known to this release")]
    Version {
        /// The version that was found.
        found: u8,
    },
    /// A reserved byte is set.
    #[error("a reserved byte of the session parameters is not zero")]
    Reserved,
    /// The suite is not known.
    #[error("cipher suite {found} is not known to this release")]
    Suite {
        /// The suite that was found.
        found: u16,
    },
    /// The data key is not the one that the session was opened with.
    #[error("the data key is not the one of this session: its key commitment differs")]
    WrongKey,
}

impl SessionParams {
    /// Returns the stored bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SESSION_PARAMS_BYTES);
        bytes.extend([VERSION, 0]);
        bytes.extend(self.suite.to_u16().to_le_bytes());
        bytes.extend(self.key_version.get().to_le_bytes());
        bytes.extend(self.key_id.as_bytes());
        bytes.extend(self.salt);
        bytes.extend(self.key_commitment.as_bytes());
        debug_assert_eq!(bytes.len(), SESSION_PARAMS_BYTES);
        bytes
    }

    /// Reads the stored bytes.
    ///
    /// # Errors
    ///
    /// [`SessionError`] when the bytes are of another length, version or suite.
    pub fn decode(bytes: &[u8]) -> Result<Self, SessionError> {
        let length = SessionError::Length {
            actual: bytes.len(),
        };
        let mut fields = Fields::new(bytes);
        let [version, reserved] = fields.take().ok_or(length)?;
        if version != VERSION {
            return Err(SessionError::Version { found: version });
        }
        if bytes.len() != SESSION_PARAMS_BYTES {
            return Err(length);
        }
        if reserved != 0 {
            return Err(SessionError::Reserved);
        }
        Ok(Self {
            suite: fields.take_u16().ok_or(length)?.try_into()?,
            key_version: KeyVersion::new(fields.take_u32().ok_or(length)?),
            key_id: KeyId::new(fields.take().ok_or(length)?),
            salt: fields.take().ok_or(length)?,
            key_commitment: KeyCommitment(fields.take().ok_or(length)?),
        })
    }
}

/// Where a sealed payload belongs: bound into its authentication, so that it opens nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The log.
    pub log_id: LogId,
    /// The stream, if the record belongs to one.
    pub stream: Option<StreamId>,
    /// The key session.
    pub session: SessionId,
    /// The number of the sealing in its session.
    pub counter: u32,
}

/// Whether a sealed payload begins with a commitment to its plaintext.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Commit {
    /// It does.
    #[default]
    Included,
    /// It does not: sealing is faster, but two plaintexts could be shown for one record by who
    /// knows the key.
    Omitted,
}

/// Returns the bytes that stand before the ciphertext.
pub const fn commitment_bytes(commit: Commit) -> usize {
    match commit {
        Commit::Included => COMMITMENT_BYTES,
        Commit::Omitted => 0,
    }
}

/// Returns the bytes that a sealed payload has more than its plaintext.
pub const fn seal_overhead(commit: Commit) -> usize {
    commitment_bytes(commit) + TAG_BYTES
}

/// Why a sealed payload does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The record's flags say that the payload is not sealed.
    #[error("the payload is not sealed")]
    NotSealed,
    /// The payload has fewer bytes than sealing adds.
    #[error("a sealed payload has at least {bytes_min} bytes, found {actual}")]
    TooShort {
        /// The least that a sealed payload has.
        bytes_min: usize,
        /// Bytes that were found.
        actual: usize,
    },
    /// The payload was changed, or was sealed for another place or with another key.
    #[error("the sealed payload is not authentic in this place")]
    NotAuthentic,
    /// The plaintext is not the one that the payload commits to.
    #[error("the plaintext is not the one that the payload commits to")]
    Commitment,
}

#[cfg(test)]
mod tests;
