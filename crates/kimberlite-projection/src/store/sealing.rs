//! Encrypted pages: sealed when they are written, opened when they are read.
//!
//! | at    | bytes | what                                                       |
//! | ----- | ----- | ---------------------------------------------------------- |
//! | 0     | 4,056 | the body, encrypted                                        |
//! | 4,056 | 16    | the salt that the key of the page comes from               |
//! | 4,072 | 8     | how many pages were sealed under that key before           |
//! | 4,080 | 16    | the tag                                                    |
//!
//! * **Invariant:** no two pages are sealed with one salt and counter. A salt is drawn by each opening of a
//!   writer, and again once many pages were sealed under it; a counter is spent when its page is sealed,
//!   whether that is written or not; and a process that was forked writes nothing.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use kimberlite_crypto::{
    Entropy, PAGE_SALT_BYTES, PageCipher, PagePlace, ProjectionKey, StoreIdentity,
};
use lru::LruCache;

use super::page::{BODY_BYTES, PAGE_BYTES, Page, PageId};

type Salt = [u8; PAGE_SALT_BYTES];

const SALT_AT: usize = 0;
const COUNTER_AT: usize = SALT_AT + PAGE_SALT_BYTES;
const TAG_AT: usize = COUNTER_AT + 8;
const TAG_BYTES: usize = 16;

const _: () = assert!(BODY_BYTES + TAG_AT + TAG_BYTES == PAGE_BYTES);

/// After so many pages a flush begins with another salt: one key seals no more than twice as many, 2^33
/// pages of 2^8 blocks, far below what AES-GCM allows.
const SALT_PAGES_MAX: u64 = 1 << 32;
/// Ciphers of salts that are kept.
const CIPHERS: NonZeroUsize = NonZeroUsize::new(64).expect("it is not zero");

/// What the pages of a store are encrypted with.
#[derive(Clone, Debug)]
pub struct StoreKey {
    key: ProjectionKey,
    entropy: Arc<dyn Entropy>,
}

impl StoreKey {
    /// The key, and where the salts of writers come from, 16 bytes each.
    pub fn new(key: ProjectionKey, entropy: Arc<dyn Entropy>) -> Self {
        Self { key, entropy }
    }

    pub(crate) const fn key(&self) -> &ProjectionKey {
        &self.key
    }
}

/// What a page holds, so that it is not taken for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A node of the tree.
    Node,
    /// A part of a long value.
    Value,
    /// A part of the map of taken pages.
    Space,
}

impl Kind {
    const fn to_u8(self) -> u8 {
        match self {
            Self::Node => 1,
            Self::Value => 2,
            Self::Space => 3,
        }
    }
}

/// Opens pages, in any thread.
pub(crate) struct Opener {
    key: ProjectionKey,
    store: StoreIdentity,
    ciphers: Mutex<LruCache<Salt, Arc<PageCipher>>>,
}

impl Opener {
    fn new(key: ProjectionKey, store: StoreIdentity) -> Self {
        Self {
            key,
            store,
            ciphers: Mutex::new(LruCache::new(CIPHERS)),
        }
    }

    fn cipher(&self, salt: &Salt) -> Arc<PageCipher> {
        let ciphers = self.ciphers.lock();
        let mut ciphers = ciphers.unwrap_or_else(PoisonError::into_inner);
        let make = || Arc::new(PageCipher::new(&self.key, &self.store, salt));
        Arc::clone(ciphers.get_or_insert(*salt, make))
    }

    /// Decrypts the body of a page, in place; `false` when it was not sealed for this place.
    #[must_use]
    pub(crate) fn open(&self, page: PageId, kind: Kind, bytes: &mut Page) -> bool {
        let (body, trailer) = bytes.split_at_mut(BODY_BYTES);
        let Some((salt, rest)) = trailer.split_first_chunk() else {
            return false;
        };
        let Some((counter, tag)) = rest.split_first_chunk() else {
            return false;
        };
        let Some(tag) = tag.first_chunk() else {
            return false;
        };
        let counter = u64::from_le_bytes(*counter);
        let place = place_of(page, kind);
        self.cipher(salt).open(place, counter, body, tag).is_ok()
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").finish_non_exhaustive()
    }
}

/// Seals the pages of one opening of a store's writer.
#[derive(Debug)]
pub(crate) struct Sealer {
    opener: Arc<Opener>,
    entropy: Arc<dyn Entropy>,
    cipher: Arc<PageCipher>,
    salt: Salt,
    counter: u64,
    process: u32,
}

impl Sealer {
    /// Begins with a salt of its own; `None` when there are no random bytes.
    pub(crate) fn new(key: StoreKey, store: StoreIdentity) -> Option<Self> {
        let StoreKey { key, entropy } = key;
        let opener = Arc::new(Opener::new(key, store));
        let salt = draw(&*entropy)?;
        Some(Self {
            cipher: opener.cipher(&salt),
            opener,
            entropy,
            salt,
            counter: 0,
            process: std::process::id(),
        })
    }

    pub(crate) const fn opener(&self) -> &Arc<Opener> {
        &self.opener
    }

    pub(crate) fn key(&self) -> &ProjectionKey {
        &self.opener.key
    }

    /// Whether this is the process that opened the store. A forked one has a copy of the counter.
    pub(crate) fn is_of_this_process(&self) -> bool {
        self.process == std::process::id()
    }

    /// Draws another salt where it is time to; `false` when there are no random bytes.
    #[must_use]
    pub(crate) fn begin_flush(&mut self) -> bool {
        if self.counter < SALT_PAGES_MAX {
            return true;
        }
        let Some(salt) = draw(&*self.entropy) else {
            return false;
        };
        self.salt = salt;
        self.cipher = self.opener.cipher(&salt);
        self.counter = 0;
        true
    }

    /// Encrypts the body of a page, in place, and writes what it is opened with behind it.
    pub(crate) fn seal(&mut self, page: PageId, kind: Kind, bytes: &mut Page) {
        let counter = self.counter;
        self.counter += 1;
        let (body, trailer) = bytes.split_at_mut(BODY_BYTES);
        let tag = self.cipher.seal(place_of(page, kind), counter, body);
        let (salt, rest) = trailer.split_at_mut(PAGE_SALT_BYTES);
        let (number, rest) = rest.split_at_mut(TAG_AT - COUNTER_AT);
        salt.copy_from_slice(&self.salt);
        number.copy_from_slice(&counter.to_le_bytes());
        rest.copy_from_slice(&tag);
    }

    /// As if so many pages had been sealed.
    #[cfg(test)]
    pub(crate) const fn count_to(&mut self, counter: u64) {
        self.counter = counter;
    }

    /// As if another process had opened the store.
    #[cfg(test)]
    pub(crate) const fn disown(&mut self) {
        self.process ^= 1;
    }
}

fn draw(entropy: &dyn Entropy) -> Option<Salt> {
    let mut salt = [0; PAGE_SALT_BYTES];
    entropy.fill(&mut salt).then_some(salt)
}

const fn place_of(page: PageId, kind: Kind) -> PagePlace {
    PagePlace {
        page: page.get(),
        kind: kind.to_u8(),
    }
}
