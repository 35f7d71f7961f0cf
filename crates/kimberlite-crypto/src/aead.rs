//! AES-256-GCM with a tag of 16 bytes, by one of two libraries that give the same bytes.

#[cfg(feature = "aws-lc-rs")]
mod aws_lc;
mod rust_crypto;
#[cfg(test)]
mod tests;

use std::fmt;

pub(crate) const KEY_BYTES: usize = 32;
pub(crate) const NONCE_BYTES: usize = 12;
/// Bytes of the tag that a sealing appends.
pub const TAG_BYTES: usize = 16;

/// Which library seals and opens. All give the same bytes; the default is the fastest there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// aws-lc through aws-lc-rs.
    #[cfg(feature = "aws-lc-rs")]
    AwsLc,
    /// The portable `aes-gcm`.
    RustCrypto,
}

impl Default for Backend {
    fn default() -> Self {
        #[cfg(feature = "aws-lc-rs")]
        return Self::AwsLc;
        #[cfg(not(feature = "aws-lc-rs"))]
        return Self::RustCrypto;
    }
}

/// A ciphertext that was not sealed under this key, nonce and associated data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused;

/// A key that is ready for use.
pub(crate) enum Aead {
    #[cfg(feature = "aws-lc-rs")]
    AwsLc(Box<aws_lc::Key>),
    RustCrypto(Box<rust_crypto::Key>),
}

impl Aead {
    pub(crate) fn new(backend: Backend, key: &[u8; KEY_BYTES]) -> Self {
        match backend {
            #[cfg(feature = "aws-lc-rs")]
            Backend::AwsLc => Self::AwsLc(Box::new(aws_lc::Key::new(key))),
            Backend::RustCrypto => Self::RustCrypto(Box::new(rust_crypto::Key::new(key))),
        }
    }

    pub(crate) const fn backend(&self) -> Backend {
        match self {
            #[cfg(feature = "aws-lc-rs")]
            Self::AwsLc(_) => Backend::AwsLc,
            Self::RustCrypto(_) => Backend::RustCrypto,
        }
    }

    /// Encrypts in place and returns the tag.
    #[inline]
    pub(crate) fn seal(
        &self,
        nonce: [u8; NONCE_BYTES],
        associated: &[u8],
        text: &mut [u8],
    ) -> [u8; TAG_BYTES] {
        match self {
            #[cfg(feature = "aws-lc-rs")]
            Self::AwsLc(key) => key.seal(nonce, associated, text),
            Self::RustCrypto(key) => key.seal(nonce, associated, text),
        }
    }

    /// Decrypts in place. After a refusal `text` holds nothing of use.
    #[inline]
    pub(crate) fn open(
        &self,
        nonce: [u8; NONCE_BYTES],
        associated: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), Refused> {
        match self {
            #[cfg(feature = "aws-lc-rs")]
            Self::AwsLc(key) => key.open(nonce, associated, text, tag),
            Self::RustCrypto(key) => key.open(nonce, associated, text, tag),
        }
    }
}

impl fmt::Debug for Aead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aead")
            .field("backend", &self.backend())
            .finish_non_exhaustive()
    }
}
