//! Data keys, what they are called, and the keys of hashes that come from each.

use std::fmt;

use kimberlite_types::LogId;

use crate::expand::expand;

/// Which data key: 16 random bytes, drawn when the key is made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 16]);

impl KeyId {
    /// Makes one from its bytes.
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Returns its bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for KeyId {
    /// Lower-case hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// Which version of a data key: it grows when the key is drawn anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyVersion(u32);

impl KeyVersion {
    /// Makes one from its number.
    pub const fn new(value: u32) -> Self {
        Self(value)
    }

    /// Returns the number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for KeyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl From<u32> for KeyVersion {
    fn from(value: u32) -> Self {
        Self(value)
    }
}

macro_rules! secret_key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// Its bytes are overwritten when it is dropped and never shown.
        #[derive(Clone, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Makes one from 32 uniformly random bytes.
            pub const fn new(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            pub(crate) const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    };
}
pub(crate) use secret_key;

secret_key! {
    /// The key of an erasure scope: sessions come from it, and what it sealed is gone with it.
    DataKey
}

secret_key! {
    /// The key of a tenant's name hashes.
    NameKey
}

secret_key! {
    /// The key of a tenant's hashes of idempotency keys and of what they were used for.
    RequestKey
}

impl DataKey {
    /// Derives the key of request hashes.
    pub fn request_key(&self, log_id: &LogId) -> RequestKey {
        RequestKey(*expand(
            self.as_bytes(),
            &[b"kimberlite/v1/request", log_id.as_bytes()],
        ))
    }

    /// Derives the key of name hashes.
    pub fn name_key(&self, log_id: &LogId) -> NameKey {
        NameKey(*expand(
            self.as_bytes(),
            &[b"kimberlite/v1/name", log_id.as_bytes()],
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_never_shown() {
        let key = DataKey::new([0xab; 32]);
        assert_eq!(format!("{key:?}"), "DataKey { .. }");
        let name_key = key.name_key(&LogId::new([0; 32]));
        assert_eq!(format!("{name_key:?}"), "NameKey { .. }");
    }
}
