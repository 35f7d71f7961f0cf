//! What a record is, and how its payload is stored.

use core::fmt;

/// What a record is.
///
/// Stored as one byte. A reader passes over a kind that it does not know, and verifies it all the
/// same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// The first record of a log: format version, randomness, first public key.
    Genesis,
    /// A stream began to exist; its position is the stream's id.
    StreamCreated,
    /// A key session was opened; its position is the session's id.
    KeySession,
    /// An event of a stream.
    Event,
    /// A signed checkpoint, kept in the log.
    Checkpoint,
    /// The keys of a scope were ordered destroyed.
    Shred,
    /// The keys of a scope are destroyed everywhere.
    ShredComplete,
    /// A legal hold was put on a scope.
    Hold,
    /// A legal hold was lifted.
    Release,
    /// Payloads were removed.
    Purge,
    /// Another generation of keys seals and signs.
    KeyRotation,
    /// A torn tail was discarded when the log was opened.
    Recovery,
    /// The log was restored from a backup.
    Restore,
    /// A rule says how long payloads are kept.
    Retain,
    /// A kind of a later version.
    Unknown(u8),
}

impl RecordKind {
    /// Returns the stored byte.
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::Genesis => 1,
            Self::StreamCreated => 2,
            Self::KeySession => 3,
            Self::Event => 4,
            Self::Checkpoint => 5,
            Self::Shred => 6,
            Self::ShredComplete => 7,
            Self::Hold => 8,
            Self::Release => 9,
            Self::Purge => 10,
            Self::KeyRotation => 11,
            Self::Recovery => 12,
            Self::Restore => 13,
            Self::Retain => 14,
            Self::Unknown(byte) => byte,
        }
    }

    /// Reads the stored byte.
    pub const fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Genesis,
            2 => Self::StreamCreated,
            3 => Self::KeySession,
            4 => Self::Event,
            5 => Self::Checkpoint,
            6 => Self::Shred,
            7 => Self::ShredComplete,
            8 => Self::Hold,
            9 => Self::Release,
            10 => Self::Purge,
            11 => Self::KeyRotation,
            12 => Self::Recovery,
            13 => Self::Restore,
            14 => Self::Retain,
            other => Self::Unknown(other),
        }
    }
}

impl fmt::Display for RecordKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Genesis => "genesis",
            Self::StreamCreated => "stream-created",
            Self::KeySession => "key-session",
            Self::Event => "event",
            Self::Checkpoint => "checkpoint",
            Self::Shred => "shred",
            Self::ShredComplete => "shred-complete",
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Purge => "purge",
            Self::KeyRotation => "key-rotation",
            Self::Recovery => "recovery",
            Self::Restore => "restore",
            Self::Retain => "retain",
            Self::Unknown(byte) => return write!(f, "unknown-{byte}"),
        };
        f.write_str(name)
    }
}

/// How a record's payload is stored.
///
/// | bit | meaning |
/// |---|---|
/// | 0 | encrypted: the payload is sealed with the record's key session |
/// | 1 | committed: the sealed payload begins with a commitment to its plaintext |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RecordFlags(u8);

impl RecordFlags {
    /// Not encrypted.
    pub const PLAIN: Self = Self(0);
    /// Encrypted, without a commitment.
    pub const ENCRYPTED: Self = Self(1);
    /// Encrypted, with a commitment to the plaintext.
    pub const COMMITTED: Self = Self(3);

    /// Whether the payload is sealed.
    pub const fn is_encrypted(self) -> bool {
        self.0 & 1 != 0
    }

    /// Whether the sealed payload begins with a commitment.
    pub const fn is_committed(self) -> bool {
        self.0 & 2 != 0
    }

    /// Returns the stored byte.
    pub const fn to_byte(self) -> u8 {
        self.0
    }
}

/// A byte of record flags that this version does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownFlags(
    /// The byte that was found.
    pub u8,
);

impl TryFrom<u8> for RecordFlags {
    type Error = UnknownFlags;

    fn try_from(byte: u8) -> Result<Self, Self::Error> {
        match byte {
            0 => Ok(Self::PLAIN),
            1 => Ok(Self::ENCRYPTED),
            3 => Ok(Self::COMMITTED),
            other => Err(UnknownFlags(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_byte_round_trips() {
        for byte in 0..=u8::MAX {
            assert_eq!(RecordKind::from_byte(byte).to_byte(), byte);
        }
    }

    #[test]
    fn only_the_three_known_flag_bytes_are_accepted() {
        for byte in 0..=u8::MAX {
            let known = matches!(byte, 0 | 1 | 3);
            assert_eq!(RecordFlags::try_from(byte).is_ok(), known, "byte {byte}");
        }
    }
}
