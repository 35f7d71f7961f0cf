//! The root key and the text of its file.
//!
//! One line: `kimberlite-root-key-v1 <64 hexadecimal digits> <8 hexadecimal digits>`, the key and
//! the first four bytes of `SHA-256("kimberlite/v1/root-key-check\n" ‖ key)`, with a line feed at
//! the end. A reader forgives white space around the line. The checksum finds slips of a hand or a
//! disk before a wrong key looks like a damaged keyring.

#![deny(clippy::indexing_slicing)]

use kimberlite_types::LogId;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::expand::expand;
use crate::key::secret_key;
use crate::{KeyEncryptionKey, KeyProvider, KeyProviderError};

const LABEL: &str = "kimberlite-root-key-v1";
const LABEL_STEM: &str = "kimberlite-root-key-v";
const CHECK: &[u8] = b"kimberlite/v1/root-key-check\n";
const CHECK_BYTES: usize = 4;
const TEXT_BYTES_MAX: usize = 1024;

secret_key! {
    /// The key that all others of a database hang from.
    RootKey
}

/// Why a text is not a root key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RootKeyError {
    /// The text does not have the form of a root key file.
    #[error("not a root key file: expected one line that begins with `{LABEL}`")]
    Form,
    /// The file was written by a later release.
    #[error("the root key file is of a version that is not known to this release")]
    Version,
    /// The checksum does not fit the key.
    #[error("the root key file is damaged: its checksum does not fit the key")]
    Checksum,
}

impl RootKey {
    /// Makes a root key from 32 random bytes.
    pub const fn generate(random: [u8; 32]) -> Self {
        Self::new(random)
    }

    /// Derives the key-encryption key of a log in an epoch.
    pub fn key_encryption_key(&self, log_id: &LogId, epoch: u32) -> KeyEncryptionKey {
        KeyEncryptionKey::new(*expand(
            self.as_bytes(),
            &[
                b"kimberlite/v1/key-encryption",
                log_id.as_bytes(),
                &epoch.to_le_bytes(),
            ],
        ))
    }

    /// Returns the text of the key file.
    pub fn encode(&self) -> Zeroizing<String> {
        // As long as it will be, so that no copy stays behind when it grows.
        let bytes = LABEL.len() + 1 + 64 + 1 + 2 * CHECK_BYTES + 1;
        let mut text = Zeroizing::new(String::with_capacity(bytes));
        text.push_str(LABEL);
        text.push(' ');
        push_hex(&mut text, self.as_bytes());
        text.push(' ');
        push_hex(&mut text, &checksum(self.as_bytes()));
        text.push('\n');
        debug_assert_eq!(text.len(), bytes);
        text
    }

    /// Reads the text of a key file.
    ///
    /// # Errors
    ///
    /// [`RootKeyError`] when the text is no root key file, of another version, or damaged.
    pub fn decode(text: &str) -> Result<Self, RootKeyError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(RootKeyError::Form);
        }
        let mut words = text.trim().split(' ');
        let mut word = || words.next().ok_or(RootKeyError::Form);
        let label = word()?;
        if label != LABEL {
            return Err(if label.starts_with(LABEL_STEM) {
                RootKeyError::Version
            } else {
                RootKeyError::Form
            });
        }
        let key = parse_hex::<32>(word()?).ok_or(RootKeyError::Form)?;
        let check = parse_hex::<CHECK_BYTES>(word()?).ok_or(RootKeyError::Form)?;
        if words.next().is_some() {
            return Err(RootKeyError::Form);
        }
        if *check != checksum(&key) {
            return Err(RootKeyError::Checksum);
        }
        Ok(Self::new(*key))
    }
}

impl KeyProvider for RootKey {
    fn key_encryption_key(
        &self,
        log_id: &LogId,
        epoch: u32,
    ) -> Result<KeyEncryptionKey, KeyProviderError> {
        Ok(Self::key_encryption_key(self, log_id, epoch))
    }
}

fn checksum(key: &[u8; 32]) -> [u8; CHECK_BYTES] {
    let digest: [u8; 32] = Sha256::new()
        .chain_update(CHECK)
        .chain_update(key)
        .finalize()
        .into();
    *digest.first_chunk().expect("a digest has 32 bytes")
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        for digit in [byte >> 4, byte & 0xf] {
            text.push(char::from_digit(digit.into(), 16).expect("four bits are a digit"));
        }
    }
}

fn parse_hex<const N: usize>(text: &str) -> Option<Zeroizing<[u8; N]>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = Zeroizing::new([0; N]);
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = hex_digit(*high)? * 16 + hex_digit(*low)?;
    }
    Some(bytes)
}

/// Reads a digit as it is written: a key has one text.
fn hex_digit(letter: u8) -> Option<u8> {
    match letter {
        b'0'..=b'9' => Some(letter - b'0'),
        b'a'..=b'f' => Some(letter - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "kimberlite-root-key-v1 \
        000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f ";

    fn key() -> RootKey {
        RootKey::generate(core::array::from_fn(|i| u8::try_from(i).unwrap()))
    }

    #[test]
    fn the_text_is_as_documented() {
        let text = key().encode();
        let check = Sha256::new()
            .chain_update(b"kimberlite/v1/root-key-check\n")
            .chain_update(key().as_bytes())
            .finalize();
        let mut expected = TEXT.to_owned();
        push_hex(&mut expected, check.get(..4).unwrap());
        expected.push('\n');
        assert_eq!(*text, expected);
    }

    #[test]
    fn the_text_round_trips_with_white_space_around() {
        let text = format!("\r\n {}\r\n", key().encode().trim());
        assert_eq!(RootKey::decode(&text).unwrap().as_bytes(), key().as_bytes());
    }

    #[test]
    fn every_change_of_the_text_is_found() {
        let text = key().encode();
        let line = text.trim_end();
        for at in 0..line.len() {
            for other in [b'0', b'f', b'z', b' '] {
                let mut changed = line.as_bytes().to_vec();
                if *changed.get(at).unwrap() == other {
                    continue;
                }
                *changed.get_mut(at).unwrap() = other;
                let changed = String::from_utf8(changed).unwrap();
                assert!(RootKey::decode(&changed).is_err(), "{changed}");
            }
            assert!(
                RootKey::decode(line.get(..at).unwrap()).is_err(),
                "{at} bytes"
            );
        }
        assert!(RootKey::decode(&format!("{line} 00")).is_err());
        let upper = line.replace('a', "A");
        assert!(upper != line && RootKey::decode(&upper).is_err());
    }

    #[test]
    fn a_later_version_is_told_apart_from_another_file() {
        let later = key().encode().replace("-v1", "-v2");
        assert_eq!(RootKey::decode(&later).unwrap_err(), RootKeyError::Version);
        assert_eq!(RootKey::decode("hello").unwrap_err(), RootKeyError::Form);
        assert_eq!(RootKey::decode("").unwrap_err(), RootKeyError::Form);
    }

    #[test]
    fn each_log_and_epoch_has_its_own_key_encryption_key() {
        let (one, two) = (LogId::new([1; 32]), LogId::new([2; 32]));
        let first = key().key_encryption_key(&one, 0);
        assert_ne!(
            first.as_bytes(),
            key().key_encryption_key(&one, 1).as_bytes()
        );
        assert_ne!(
            first.as_bytes(),
            key().key_encryption_key(&two, 0).as_bytes()
        );
        let provider: &dyn KeyProvider = &key();
        let provided = provider.key_encryption_key(&one, 0).unwrap();
        assert_eq!(first.as_bytes(), provided.as_bytes());
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".*", prefixed: bool) {
            let text = if prefixed { format!("{LABEL} {text}") } else { text };
            let _ = RootKey::decode(&text);
        }
    }
}
