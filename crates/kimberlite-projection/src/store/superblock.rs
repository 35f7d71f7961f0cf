//! The superblock: where a store begins, and what it was derived from.
//!
//! Pages 0 and 1 hold one each, written in turn: flush `n` writes page `n % 2`. The one with the higher
//! flush that is whole counts.
//!
//! | at    | bytes | what                                                           |
//! | ----- | ----- | -------------------------------------------------------------- |
//! | 0     | 8     | `KBTREE01`                                                     |
//! | 8     | 8     | flush                                                          |
//! | 16    | 32    | log id                                                         |
//! | 48    | 32    | BLAKE3 of the projection's name                                |
//! | 80    | 4     | version of the projection                                      |
//! | 84    | 4     | pages of the file                                              |
//! | 88    | 8     | applied position                                               |
//! | 96    | 32    | chain hash before the applied position                         |
//! | 128   | 8     | entries                                                        |
//! | 136   | 12    | root ([`PageRef`]); zeros when there are no entries            |
//! | 148   | 1     | level of the root                                              |
//! | 149   | 1     | 1 when the store is encrypted, else 0                          |
//! | 150   | 2     | 0                                                              |
//! | 152   | 16    | which pages are taken ([`RunRef`])                             |
//! | 168   | 32    | code of the 168 bytes before under the store's key; else zeros |
//! | 200   | 3,864 | 0                                                              |
//! | 4,064 | 32    | BLAKE3 of the bytes before                                     |
//!
//! Nothing in it is secret. The code is what nobody makes without the key.

use kimberlite_crypto::{ProjectionKey, internal_hash};
use kimberlite_types::{ChainHash, LogId, Position};

use super::page::{PAGE_BYTES, Page, PageRef, RunRef};
use super::space::FIRST_PAGE;
use super::{Applied, Identity};

const MAGIC: &[u8; 8] = b"KBTREE01";
const HASH_AT: usize = PAGE_BYTES - 32;
/// Bytes that the code is of.
const CODED_BYTES: usize = 168;
const CODE_BYTES: usize = 32;

/// What a superblock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) flush: u64,
    pub(crate) identity: Identity,
    pub(crate) page_count: u32,
    pub(crate) applied: Applied,
    pub(crate) entries: u64,
    /// The root and its level.
    pub(crate) root: Option<(PageRef, u8)>,
    pub(crate) space: RunRef,
    /// The code of an encrypted store.
    pub(crate) code: Option<[u8; 32]>,
}

impl Superblock {
    /// The same, of a store that is encrypted under `key`.
    pub(crate) fn with_code(self, key: &ProjectionKey) -> Self {
        // That it is encrypted is one of the bytes that the code is of.
        let encrypted = Self {
            code: Some([0; CODE_BYTES]),
            ..self
        };
        Self {
            code: Some(key.superblock_code(&encrypted.fields())),
            ..self
        }
    }

    /// Whether it was made by somebody who has the key.
    pub(crate) fn is_coded_by(&self, key: &ProjectionKey) -> bool {
        let code = self.code.as_ref();
        code.is_some_and(|code| key.is_code_of(&self.fields(), code))
    }

    pub(crate) fn encode(&self) -> Box<Page> {
        let mut page = Box::new([0; PAGE_BYTES]);
        let (fields, rest) = page.split_at_mut(CODED_BYTES);
        fields.copy_from_slice(&self.fields());
        let (code, _) = rest.split_at_mut(CODE_BYTES);
        code.copy_from_slice(&self.code.unwrap_or_default());
        let (before, hash) = page.split_at_mut(HASH_AT);
        hash.copy_from_slice(internal_hash(before).as_bytes());
        page
    }

    fn fields(&self) -> Vec<u8> {
        let mut fields = Vec::with_capacity(CODED_BYTES);
        fields.extend_from_slice(MAGIC);
        fields.extend_from_slice(&self.flush.to_le_bytes());
        fields.extend_from_slice(self.identity.log_id.as_bytes());
        fields.extend_from_slice(&self.identity.name_hash);
        fields.extend_from_slice(&self.identity.version.to_le_bytes());
        fields.extend_from_slice(&self.page_count.to_le_bytes());
        fields.extend_from_slice(&self.applied.position.get().to_le_bytes());
        fields.extend_from_slice(self.applied.chain.as_bytes());
        fields.extend_from_slice(&self.entries.to_le_bytes());
        let (root, level) = match self.root {
            Some((root, level)) => (root.encode(), level),
            None => ([0; PageRef::BYTES], 0),
        };
        fields.extend_from_slice(&root);
        fields.extend_from_slice(&[level, u8::from(self.code.is_some()), 0, 0]);
        fields.extend_from_slice(&self.space.encode());
        assert_eq!(fields.len(), CODED_BYTES, "the table above says so");
        fields
    }

    pub(crate) fn decode(page: &Page) -> Option<Self> {
        let (before, hash) = page.split_at(HASH_AT);
        if internal_hash(before).as_bytes() != hash {
            return None;
        }
        let mut fields = Fields(before);
        if fields.take()? != MAGIC {
            return None;
        }
        let mut superblock = Self {
            flush: u64::from_le_bytes(*fields.take()?),
            identity: Identity {
                log_id: LogId::new(*fields.take()?),
                name_hash: *fields.take()?,
                version: u32::from_le_bytes(*fields.take()?),
            },
            page_count: u32::from_le_bytes(*fields.take()?),
            applied: Applied {
                position: Position::new(u64::from_le_bytes(*fields.take()?)),
                chain: ChainHash::new(*fields.take()?),
            },
            entries: u64::from_le_bytes(*fields.take()?),
            root: None,
            space: RunRef::decode(&[0; RunRef::BYTES])?,
            code: None,
        };
        let root = *fields.take::<{ PageRef::BYTES }>()?;
        let [level, is_encrypted @ (0 | 1), 0, 0] = *fields.take()? else {
            return None;
        };
        if level > 0 || root != [0; PageRef::BYTES] {
            superblock.root = Some((PageRef::decode(&root)?, level));
        }
        superblock.space = RunRef::decode(fields.take::<{ RunRef::BYTES }>()?)?;
        if is_encrypted == 1 {
            superblock.code = Some(*fields.take()?);
        }
        let is_blank = fields.0.iter().all(|byte| *byte == 0);
        let is_counted = superblock.root.is_some() == (superblock.entries > 0);
        (is_blank && is_counted && superblock.page_count > FIRST_PAGE).then_some(superblock)
    }
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use kimberlite_testkit::Rng;

    use super::super::page::{Checksum, PageId};
    use super::*;

    fn superblock() -> Superblock {
        Superblock {
            flush: 0x0807_0605_0403_0201,
            identity: Identity {
                log_id: LogId::new([0x11; 32]),
                name_hash: [0x22; 32],
                version: 0x3333,
            },
            page_count: 0x4444,
            applied: Applied {
                position: Position::new(0x5555),
                chain: ChainHash::new([0x66; 32]),
            },
            entries: 0x7777,
            root: Some((
                PageRef {
                    page: PageId::new(0x88),
                    checksum: Checksum::new([0x99; 8]),
                },
                2,
            )),
            space: RunRef {
                first: PageId::new(0xaa),
                bytes: 0xbb,
                checksum: Checksum::new([0xcc; 8]),
            },
            code: None,
        }
    }

    /// Makes the hash at the end right again.
    fn rehash(page: &mut Page) {
        let (before, hash) = page.split_at_mut(HASH_AT);
        hash.copy_from_slice(internal_hash(before).as_bytes());
    }

    #[test]
    fn the_bytes_are_as_documented() {
        let mut expected = b"KBTREE01".to_vec();
        expected.extend([1, 2, 3, 4, 5, 6, 7, 8]);
        expected.extend([0x11; 32]);
        expected.extend([0x22; 32]);
        expected.extend([0x33, 0x33, 0, 0]);
        expected.extend([0x44, 0x44, 0, 0]);
        expected.extend([0x55, 0x55, 0, 0, 0, 0, 0, 0]);
        expected.extend([0x66; 32]);
        expected.extend([0x77, 0x77, 0, 0, 0, 0, 0, 0]);
        expected.extend([0x88, 0, 0, 0]);
        expected.extend([0x99; 8]);
        expected.extend([2, 0, 0, 0]);
        expected.extend([0xaa, 0, 0, 0, 0xbb, 0, 0, 0]);
        expected.extend([0xcc; 8]);
        expected.resize(HASH_AT, 0);
        expected.extend(internal_hash(&expected).as_bytes());
        assert_eq!(superblock().encode().as_slice(), expected);
    }

    #[test]
    fn every_bit_is_guarded() {
        let page = superblock().encode();
        assert_eq!(Superblock::decode(&page), Some(superblock()));
        for bit in 0..8 * PAGE_BYTES {
            let mut page = page.clone();
            page[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Superblock::decode(&page), None, "bit {bit}");
        }
    }

    #[test]
    fn a_forged_superblock_is_refused_or_written_again_as_it_was() {
        let empty = Superblock {
            entries: 0,
            root: None,
            ..superblock()
        };
        let pages = [superblock().encode(), empty.encode()];
        let (mut rng, mut accepted) = (Rng::new(1), 0);
        for round in 0..20_000_usize {
            let mut page = pages[round % 2].clone();
            for _ in 0..=rng.below(2) {
                let bound = if rng.chance(7, 8) {
                    CODED_BYTES + CODE_BYTES
                } else {
                    HASH_AT
                };
                let at = rng.index(bound);
                page[at] = if rng.chance(1, 2) { 0 } else { rng.bytes(1)[0] };
            }
            rehash(&mut page);
            if let Some(superblock) = Superblock::decode(&page) {
                assert_eq!(superblock.encode(), page, "round {round}");
                assert_eq!(superblock.root.is_some(), superblock.entries > 0);
                accepted += 1;
            }
        }
        assert!((5000..18_000).contains(&accepted), "{accepted}");
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for superblock in [
            Superblock {
                root: None,
                ..superblock()
            },
            Superblock {
                entries: 0,
                ..superblock()
            },
            Superblock {
                page_count: FIRST_PAGE,
                ..superblock()
            },
        ] {
            assert_eq!(Superblock::decode(&superblock.encode()), None);
        }
    }
}
