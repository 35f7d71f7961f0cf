//! Pages of derived state: sealed one by one, each for its place in one store.
//!
//! The key of a page comes from the [`ProjectionKey`], from what the store holds ([`StoreIdentity`]) and
//! from a salt that each opening of the store's writer draws ([table](crate::expand)). Under it
//!
//! * `nonce = 0 u32 ‖ counter u64`
//! * `associated data = page u32 ‖ kind u8`
//!
//! so that a page opens in no other store, in no other place and as nothing else. Integers are
//! little-endian.
//!
//! **Invariant:** a counter is used once with a salt. The caller counts; a counter that was thrown away is
//! spent.

#![deny(clippy::indexing_slicing)]

use std::fmt;

use kimberlite_types::LogId;
use subtle::ConstantTimeEq;

use crate::DataKey;
use crate::aead::{Aead, NONCE_BYTES, TAG_BYTES};
use crate::expand::expand;
use crate::key::secret_key;

/// Bytes of the salt that a page key comes from.
pub const PAGE_SALT_BYTES: usize = 16;

secret_key! {
    /// What the stores of a log's projections are sealed with.
    ProjectionKey
}

impl DataKey {
    /// Derives the key of the projections of a log.
    pub fn projection_key(&self, log_id: &LogId) -> ProjectionKey {
        let info: [&[u8]; 2] = [b"kimberlite/v1/projection", log_id.as_bytes()];
        ProjectionKey::new(*expand(self.as_bytes(), &info))
    }
}

/// Which store: of which log, projection and version of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreIdentity {
    /// The log.
    pub log_id: LogId,
    /// The BLAKE3 of the projection's name.
    pub name_hash: [u8; 32],
    /// The version of the projection.
    pub version: u32,
}

/// A page that does not open: it was changed, moved, or sealed under another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the page is not authentic in this place")]
pub struct PageError;

impl ProjectionKey {
    /// Returns the code of a superblock of a store, by which whoever has the key knows it for whole.
    pub fn superblock_code(&self, superblock: &[u8]) -> [u8; 32] {
        *expand(
            self.as_bytes(),
            &[b"kimberlite/v1/store/superblock", superblock],
        )
    }

    /// Whether `code` is that of a superblock.
    pub fn is_code_of(&self, superblock: &[u8], code: &[u8; 32]) -> bool {
        self.superblock_code(superblock).ct_eq(code).into()
    }
}

/// Where a page stands, and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PagePlace {
    /// Its index in the file.
    pub page: u32,
    /// What it holds, as the store numbers it.
    pub kind: u8,
}

/// What the pages are sealed with that were written under one salt.
pub struct PageCipher(Aead);

impl PageCipher {
    /// Derives the cipher of a salt.
    pub fn new(key: &ProjectionKey, store: &StoreIdentity, salt: &[u8; PAGE_SALT_BYTES]) -> Self {
        let key = expand(
            key.as_bytes(),
            &[
                b"kimberlite/v1/store/page",
                store.log_id.as_bytes(),
                &store.name_hash,
                &store.version.to_le_bytes(),
                salt,
            ],
        );
        Self(Aead::new(crate::Backend::default(), &key))
    }

    /// Encrypts what a page holds, in place, and returns the tag. `counter` must not have been used with
    /// this salt before.
    pub fn seal(&self, place: PagePlace, counter: u64, text: &mut [u8]) -> [u8; TAG_BYTES] {
        self.0.seal(nonce(counter), &associated(place), text)
    }

    /// Decrypts what a page holds, in place.
    ///
    /// # Errors
    ///
    /// [`PageError`] when it was not sealed for this place, or with another cipher; the text is of no use
    /// then.
    pub fn open(
        &self,
        place: PagePlace,
        counter: u64,
        text: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), PageError> {
        self.0
            .open(nonce(counter), &associated(place), text, tag)
            .map_err(|_| PageError)
    }
}

impl fmt::Debug for PageCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageCipher").finish_non_exhaustive()
    }
}

fn nonce(counter: u64) -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    let last = nonce
        .last_chunk_mut()
        .expect("a nonce has more bytes than a counter");
    *last = counter.to_le_bytes();
    nonce
}

fn associated(place: PagePlace) -> [u8; 5] {
    let [a, b, c, d] = place.page.to_le_bytes();
    [a, b, c, d, place.kind]
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: StoreIdentity = StoreIdentity {
        log_id: LogId::new([1; 32]),
        name_hash: [2; 32],
        version: 3,
    };
    const PLACE: PagePlace = PagePlace { page: 4, kind: 5 };
    const SALT: [u8; 16] = [6; 16];

    fn key(byte: u8) -> ProjectionKey {
        ProjectionKey::new([byte; 32])
    }

    #[test]
    fn a_page_opens_in_its_own_place_alone() {
        let cipher = PageCipher::new(&key(7), &STORE, &SALT);
        let mut sealed = *b"what the page holds";
        let tag = cipher.seal(PLACE, 8, &mut sealed);
        let open = |cipher: &PageCipher, place, counter| {
            let mut text = sealed;
            cipher.open(place, counter, &mut text, &tag).map(|()| text)
        };
        assert_eq!(open(&cipher, PLACE, 8).unwrap(), *b"what the page holds");
        assert_eq!(open(&cipher, PLACE, 9), Err(PageError));
        for place in [
            PagePlace { page: 5, ..PLACE },
            PagePlace { kind: 6, ..PLACE },
        ] {
            assert_eq!(open(&cipher, place, 8), Err(PageError));
        }
        for (byte, store, salt) in [
            (8, STORE, SALT),
            (
                7,
                StoreIdentity {
                    log_id: LogId::new([0; 32]),
                    ..STORE
                },
                SALT,
            ),
            (
                7,
                StoreIdentity {
                    name_hash: [0; 32],
                    ..STORE
                },
                SALT,
            ),
            (
                7,
                StoreIdentity {
                    version: 4,
                    ..STORE
                },
                SALT,
            ),
            (7, STORE, [7; 16]),
        ] {
            let other = PageCipher::new(&key(byte), &store, &salt);
            assert_eq!(
                open(&other, PLACE, 8),
                Err(PageError),
                "{byte}, {store:?}, {salt:?}"
            );
        }
    }

    #[test]
    fn a_code_is_that_of_one_superblock_under_one_key() {
        let code = key(1).superblock_code(b"superblock");
        assert!(key(1).is_code_of(b"superblock", &code));
        assert!(!key(2).is_code_of(b"superblock", &code));
        assert!(!key(1).is_code_of(b"superblocks", &code));
    }
}
