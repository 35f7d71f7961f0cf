//! AES-256-GCM by `aes-gcm`, which clears its key schedule when it is dropped.

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};

use super::{KEY_BYTES, NONCE_BYTES, Refused, TAG_BYTES};

pub(crate) struct Key(Aes256Gcm);

impl Key {
    pub(super) fn new(key: &[u8; KEY_BYTES]) -> Self {
        Self(Aes256Gcm::new(key.into()))
    }

    #[inline]
    pub(super) fn seal(
        &self,
        nonce: [u8; NONCE_BYTES],
        associated: &[u8],
        text: &mut [u8],
    ) -> [u8; TAG_BYTES] {
        self.0
            .encrypt_inout_detached(&nonce.into(), associated, InOutBuf::from(text))
            .expect("a payload is far shorter than the cipher's bound")
            .into()
    }

    #[inline]
    pub(super) fn open(
        &self,
        nonce: [u8; NONCE_BYTES],
        associated: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), Refused> {
        self.0
            .decrypt_inout_detached(&nonce.into(), associated, InOutBuf::from(text), tag.into())
            .map_err(|_| Refused)
    }
}
