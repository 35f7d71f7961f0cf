//! Pages: the unit that a store is written, checked and given back in.
//!
//! A page is 4,096 bytes at a multiple of that in the file:
//!
//! | at    | bytes | what                                                                  |
//! | ----- | ----- | --------------------------------------------------------------------- |
//! | 0     | 4,056 | the body: a node of the tree, or a part of a long value               |
//! | 4,056 | 40    | zeros, or what the body is decrypted with ([table](super::sealing))   |
//!
//! Whoever points to a page holds its checksum, the first 8 bytes of the BLAKE3 of its body, or of all of it
//! where it is encrypted, so that a write that was lost, or went elsewhere, shows as well as a bit that fell
//! over.

use kimberlite_crypto::{InternalHash, internal_hash};

/// Bytes of a page.
pub(crate) const PAGE_BYTES: usize = 4096;
/// Bytes of a page that hold content.
pub(crate) const BODY_BYTES: usize = 4056;
/// The same in `u32`.
const BODY_BYTES_U32: u32 = 4056;
/// Bytes of a page in `u64`.
pub(crate) const PAGE_BYTES_U64: u64 = 4096;

const _: () = assert!(PAGE_BYTES as u64 == PAGE_BYTES_U64 && BODY_BYTES < PAGE_BYTES);
const _: () = assert!(BODY_BYTES_U32 as usize == BODY_BYTES);

/// The bytes of one page.
pub(crate) type Page = [u8; PAGE_BYTES];

/// Where a page stands: its index in the file. Superblocks have 0 and 1, no other page has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PageId(u32);

impl PageId {
    pub(crate) const fn new(index: u32) -> Self {
        Self(index)
    }

    pub(crate) const fn get(self) -> u32 {
        self.0
    }

    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }

    pub(crate) fn offset(self) -> u64 {
        u64::from(self.0) * PAGE_BYTES_U64
    }
}

/// The beginning of a BLAKE3, by which a page or a long value is known again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checksum([u8; Self::BYTES]);

impl Checksum {
    pub(crate) const BYTES: usize = 8;

    pub(crate) const fn new(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    pub(crate) fn of(content: &[u8]) -> Self {
        Self::beginning(&internal_hash(content))
    }

    pub(crate) fn beginning(hash: &InternalHash) -> Self {
        let (beginning, _) = hash
            .as_bytes()
            .split_first_chunk()
            .expect("a hash has 32 bytes");
        Self(*beginning)
    }

    pub(crate) fn of_page(page: &Page) -> Self {
        let (body, _) = page.split_at(BODY_BYTES);
        Self::of(body)
    }
}

/// A page, and the checksum that it must have.
///
/// | at | bytes | what     |
/// | -- | ----- | -------- |
/// | 0  | 4     | page     |
/// | 4  | 8     | checksum |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageRef {
    pub(crate) page: PageId,
    pub(crate) checksum: Checksum,
}

impl PageRef {
    pub(crate) const BYTES: usize = 12;

    pub(crate) fn encode(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let (page, checksum) = bytes.split_at_mut(4);
        page.copy_from_slice(&self.page.0.to_le_bytes());
        checksum.copy_from_slice(self.checksum.as_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (page, rest) = bytes.split_first_chunk()?;
        Some(Self {
            page: PageId(u32::from_le_bytes(*page)),
            checksum: Checksum(*rest.first_chunk()?),
        })
    }
}

/// Pages that follow each other and hold one long value, [`BODY_BYTES`] of it each.
///
/// | at | bytes | what                    |
/// | -- | ----- | ----------------------- |
/// | 0  | 4     | first page              |
/// | 4  | 4     | bytes of the value      |
/// | 8  | 8     | checksum of the value   |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunRef {
    pub(crate) first: PageId,
    pub(crate) bytes: u32,
    pub(crate) checksum: Checksum,
}

impl RunRef {
    pub(crate) const BYTES: usize = 16;

    pub(crate) fn pages(self) -> u32 {
        pages_of(self.bytes)
    }

    pub(crate) fn encode(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let (first, rest) = bytes.split_at_mut(4);
        let (length, checksum) = rest.split_at_mut(4);
        first.copy_from_slice(&self.first.0.to_le_bytes());
        length.copy_from_slice(&self.bytes.to_le_bytes());
        checksum.copy_from_slice(self.checksum.as_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (first, rest) = bytes.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        Some(Self {
            first: PageId(u32::from_le_bytes(*first)),
            bytes: u32::from_le_bytes(*length),
            checksum: Checksum(*rest.first_chunk()?),
        })
    }
}

/// How many pages a value of that many bytes takes.
pub(crate) fn pages_of(bytes: u32) -> u32 {
    bytes.div_ceil(BODY_BYTES_U32)
}
