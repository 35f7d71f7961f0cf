//! The 32-byte hashes of the log, one type for each meaning.

use alloc::string::String;
use core::fmt;

/// A text that is not 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a hash is written as 64 hexadecimal digits")]
pub struct ParseHashError;

/// A hash of so many bytes, which is shown in hexadecimal.
macro_rules! hash_bytes {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// Makes one from its bytes.
            pub const fn new(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// Returns its bytes.
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl core::fmt::Display for $name {
            /// Lower-case hexadecimal.
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

pub(crate) use hash_bytes;

macro_rules! hash_type {
    ($(#[$doc:meta])* $name:ident) => {
        hash_bytes! {
            $(#[$doc])*
            $name, 32
        }

        impl core::str::FromStr for $name {
            type Err = ParseHashError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                parse_hex(text).map(Self).ok_or(ParseHashError)
            }
        }
    };
}

hash_type! {
    /// SHA-256 of a record's stored payload.
    PayloadDigest
}
hash_type! {
    /// `SHA-256(0x00 ‖ header)`: a record as a leaf of the Merkle tree.
    LeafHash
}
hash_type! {
    /// An inner node of the Merkle tree (RFC 6962).
    NodeHash
}
hash_type! {
    /// The root of the Merkle tree over a prefix of the log (RFC 6962).
    RootHash
}
hash_type! {
    /// The hash chain after a record: it fixes everything up to and including that record.
    ChainHash
}
hash_type! {
    /// SHA-256 of the genesis payload: which log this is.
    LogId
}
hash_type! {
    /// A keyed hash of a stream name: lets the kernel tell names apart without reading them.
    NameHash
}

impl LogId {
    /// Bytes of the prefix that frames carry.
    pub const PREFIX_BYTES: usize = 8;

    /// Returns the first eight bytes, which every frame carries.
    pub fn prefix(&self) -> [u8; Self::PREFIX_BYTES] {
        let mut prefix = [0; Self::PREFIX_BYTES];
        prefix.copy_from_slice(&self.0[..Self::PREFIX_BYTES]);
        prefix
    }

    /// Returns the first 16 hexadecimal digits, as in the origin of a checkpoint.
    pub fn short_hex(&self) -> String {
        use fmt::Write as _;
        let mut text = String::with_capacity(16);
        for byte in self.prefix() {
            write!(text, "{byte:02x}").expect("writing to a string succeeds");
        }
        text
    }
}

fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    #[test]
    fn hexadecimal_round_trips() {
        let bytes = core::array::from_fn(|i| u8::try_from(i * 7).unwrap());
        let hash = ChainHash::new(bytes);
        assert_eq!(format!("{hash}").parse::<ChainHash>(), Ok(hash));
        assert_eq!("00".parse::<ChainHash>(), Err(ParseHashError));
        assert_eq!("zz".repeat(32).parse::<ChainHash>(), Err(ParseHashError));
    }

    #[test]
    fn the_short_form_of_a_log_id_is_its_first_eight_bytes() {
        let id = LogId::new([0xab; 32]);
        assert_eq!(id.short_hex(), "abababababababab");
        assert_eq!(id.prefix(), [0xab; 8]);
    }
}
