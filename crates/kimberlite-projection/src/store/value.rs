//! Values that a store hands out.

use core::fmt;
use core::ops::{Deref, Range};
use std::sync::Arc;

use bytes::Bytes;

use super::cache::HeldPage;

/// A value of a store. A slice of the file where that is mapped, else of a page in memory, which stays for as
/// long as the value does.
#[derive(Clone)]
pub struct Value<'a>(Held<'a>);

/// The entry that was found nearest to a key.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Nearest<'a> {
    /// The key that it has.
    pub key: Vec<u8>,
    /// The value.
    pub value: Value<'a>,
    /// Whether one right before the key that was asked for is known to begin likewise. Where this is false there may be
    /// one all the same.
    pub follows_another: bool,
}

#[derive(Clone)]
enum Held<'a> {
    Borrowed(&'a [u8]),
    Copied {
        page: Arc<HeldPage>,
        range: Range<usize>,
    },
    Owned(Bytes),
}

impl<'a> Value<'a> {
    pub(crate) const fn borrowed(bytes: &'a [u8]) -> Self {
        Self(Held::Borrowed(bytes))
    }

    pub(crate) const fn copied(page: Arc<HeldPage>, range: Range<usize>) -> Self {
        Self(Held::Copied { page, range })
    }

    pub(crate) const fn owned(bytes: Bytes) -> Self {
        Self(Held::Owned(bytes))
    }
}

impl Deref for Value<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Held::Borrowed(bytes) => bytes,
            Held::Copied { page, range } => page.get(range.clone()).unwrap_or_default(),
            Held::Owned(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Value<'_> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// Values may be somebody's secrets: their length is shown.
impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({} bytes)", self.len())
    }
}
