//! The key that signs a tenant's checkpoints, and the key that others verify them with.
//!
//! The signer's file is PKCS #8 in PEM, of version 1 and so without the public key: openssl reads it
//! and writes the same bytes. A verifier key is one line as C2SP
//! signed-note has it, `<name>+<key id>+<key>`: the key id is the first four bytes of
//! `SHA-256(name ‖ "\n" ‖ 0x01 ‖ public key)` in hexadecimal, the key is base64 of
//! `0x01 ‖ public key`, where 0x01 stands for Ed25519.

#![deny(clippy::indexing_slicing)]

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, KeypairBytes};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize as _, Zeroizing};

const ALGORITHM_ED25519: u8 = 0x01;
const PEM_BYTES_MAX: usize = 4096;

/// Bytes of the name of a verifier key, which is the origin of its checkpoints.
pub const KEY_NAME_BYTES_MAX: usize = 255;

/// Bytes of an Ed25519 signature.
pub(crate) const SIGNATURE_BYTES: usize = 64;

/// Bytes of a key id.
pub(crate) const NOTE_KEY_ID_BYTES: usize = 4;

/// An Ed25519 key that signs checkpoints. It is overwritten when it is dropped and never shown.
#[derive(Clone)]
pub struct Signer(SigningKey);

/// A text that is not a signer's key file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an Ed25519 private key in PEM (PKCS #8)")]
pub struct SignerError;

impl Signer {
    /// Makes a signer from 32 random bytes.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let seed = Zeroizing::new(seed);
        Self(SigningKey::from_bytes(&seed))
    }

    /// Returns the text of the key file.
    pub fn to_pem(&self) -> Zeroizing<String> {
        let mut key = KeypairBytes {
            secret_key: self.0.to_bytes(),
            public_key: None,
        };
        let pem = key.to_pkcs8_pem(LineEnding::LF);
        key.secret_key.zeroize();
        pem.expect("a key of fixed length encodes")
    }

    /// Reads the text of a key file.
    ///
    /// # Errors
    ///
    /// [`SignerError`] when the text is not an Ed25519 private key.
    pub fn from_pem(pem: &str) -> Result<Self, SignerError> {
        if pem.len() > PEM_BYTES_MAX {
            return Err(SignerError);
        }
        SigningKey::from_pkcs8_pem(pem)
            .map(Self)
            .map_err(|_| SignerError)
    }

    /// Returns the public key.
    pub fn public_key(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// Returns the key that verifies this signer's checkpoints of the origin `name`.
    ///
    /// # Errors
    ///
    /// [`VerifierKeyError::Name`] when the name cannot stand in a signed note.
    pub fn verifier_key(&self, name: &str) -> Result<VerifierKey, VerifierKeyError> {
        VerifierKey::new(name, self.public_key())
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").finish_non_exhaustive()
    }
}

/// A name and the public key that verifies notes signed under it.
///
/// **Invariant:** the name can stand in a signed note and the key is a point of full order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    key: VerifyingKey,
}

/// Why a verifier key is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifierKeyError {
    /// The text does not have the form of a verifier key.
    #[error("not a verifier key: expected `<name>+<8 hexadecimal digits>+<base64>`")]
    Form,
    /// The name cannot stand in a signed note.
    #[error(
        "the name of a verifier key has 1 to {KEY_NAME_BYTES_MAX} bytes and neither white space, \
         control characters nor '+'"
    )]
    Name,
    /// The algorithm is not Ed25519.
    #[error("the algorithm {found} of the verifier key is not known to this release")]
    Algorithm {
        /// The algorithm that was found.
        found: u8,
    },
    /// The key is no usable point of the curve.
    #[error("the verifier key holds no usable Ed25519 key")]
    Key,
    /// The key id does not fit name and key.
    #[error("the key id of the verifier key does not fit its name and key")]
    KeyId,
}

impl VerifierKey {
    /// Makes one from a name and a public key.
    ///
    /// # Errors
    ///
    /// [`VerifierKeyError`] when the name cannot stand in a signed note or the key is not usable.
    pub fn new(name: &str, public_key: [u8; 32]) -> Result<Self, VerifierKeyError> {
        if !is_key_name(name) {
            return Err(VerifierKeyError::Name);
        }
        let key = VerifyingKey::from_bytes(&public_key).map_err(|_| VerifierKeyError::Key)?;
        if key.is_weak() {
            return Err(VerifierKeyError::Key);
        }
        Ok(Self {
            name: name.to_owned(),
            key,
        })
    }

    /// Returns the name, which is the origin of the checkpoints.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the public key.
    pub fn public_key(&self) -> [u8; 32] {
        self.key.to_bytes()
    }

    pub(crate) fn key_id(&self) -> [u8; NOTE_KEY_ID_BYTES] {
        note_key_id(&self.name, self.key.as_bytes())
    }

    pub(crate) fn verify(&self, message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
        self.key
            .verify_strict(message, &Signature::from_bytes(signature))
            .is_ok()
    }
}

impl fmt::Display for VerifierKey {
    /// One line without its end, as C2SP signed-note has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+", self.name)?;
        for byte in self.key_id() {
            write!(f, "{byte:02x}")?;
        }
        let mut typed = vec![ALGORITHM_ED25519];
        typed.extend(self.key.as_bytes());
        write!(f, "+{}", BASE64.encode(typed))
    }
}

impl FromStr for VerifierKey {
    type Err = VerifierKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > KEY_NAME_BYTES_MAX + 64 {
            return Err(VerifierKeyError::Form);
        }
        // The base64 may hold a plus sign, the name and the key id may not.
        let mut parts = text.splitn(3, '+');
        let mut part = || parts.next().ok_or(VerifierKeyError::Form);
        let (name, key_id, typed) = (part()?, part()?, part()?);
        let typed = BASE64.decode(typed).map_err(|_| VerifierKeyError::Form)?;
        let (algorithm, public_key) = typed.split_first().ok_or(VerifierKeyError::Form)?;
        if *algorithm != ALGORITHM_ED25519 {
            return Err(VerifierKeyError::Algorithm { found: *algorithm });
        }
        let public_key = public_key.try_into().map_err(|_| VerifierKeyError::Key)?;
        let key = Self::new(name, public_key)?;
        let is_hex = |letter: u8| letter.is_ascii_digit() || matches!(letter, b'a'..=b'f');
        if key_id.len() != 2 * NOTE_KEY_ID_BYTES || !key_id.bytes().all(is_hex) {
            return Err(VerifierKeyError::Form);
        }
        if u32::from_str_radix(key_id, 16) != Ok(as_number(key.key_id())) {
            return Err(VerifierKeyError::KeyId);
        }
        Ok(key)
    }
}

/// Whether a name can stand in a signed note: C2SP forbids white space and plus signs.
pub(crate) fn is_key_name(name: &str) -> bool {
    let forbidden = |letter: char| letter.is_whitespace() || letter.is_control() || letter == '+';
    (1..=KEY_NAME_BYTES_MAX).contains(&name.len()) && !name.contains(forbidden)
}

pub(crate) fn note_key_id(name: &str, public_key: &[u8; 32]) -> [u8; NOTE_KEY_ID_BYTES] {
    let digest: [u8; 32] = Sha256::new()
        .chain_update(name)
        .chain_update([b'\n', ALGORITHM_ED25519])
        .chain_update(public_key)
        .finalize()
        .into();
    *digest.first_chunk().expect("a digest has 32 bytes")
}

/// The number that the hexadecimal digits of a key id are: its first byte is the highest.
fn as_number(key_id: [u8; NOTE_KEY_ID_BYTES]) -> u32 {
    key_id
        .iter()
        .fold(0, |number, byte| number << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests;
