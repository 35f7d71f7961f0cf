//! AES-256-GCM by aws-lc, which clears its copy of the key when it is dropped.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::{KEY_BYTES, NONCE_BYTES, Refused, TAG_BYTES};

pub(crate) struct Key(LessSafeKey);

impl Key {
    pub(super) fn new(key: &[u8; KEY_BYTES]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, key).expect("the key has the length of the cipher");
        Self(LessSafeKey::new(key))
    }

    #[inline]
    pub(super) fn seal(
        &self,
        nonce: [u8; NONCE_BYTES],
        associated: &[u8],
        text: &mut [u8],
    ) -> [u8; TAG_BYTES] {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce, Aad::from(associated), text)
            .expect("a payload is far shorter than the cipher's bound");
        tag.as_ref()
            .try_into()
            .expect("the tag has the length of the cipher")
    }

    #[inline]
    pub(super) fn open(
        &self,
        nonce: [u8; NONCE_BYTES],
        associated: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), Refused> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0
            .open_in_place_separate_tag(nonce, Aad::from(associated), tag, text)
            .map(|_| ())
            .map_err(|_| Refused)
    }
}
