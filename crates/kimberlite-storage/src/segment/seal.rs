//! The seal of a closed segment: its index, its digest, and the state of the history at its end.
//!
//! A file of its own beside the segment, so that a segment's bytes never change once it is closed,
//! and a lost or damaged seal is made anew from the segment. It names the salt of its segment's file: once
//! a purge has written the segment anew, the seal of the old file is passed over like none.
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0..8 | magic | `KIMBSEL1` |
//! | 8..12 | version | `u32`, 1 |
//! | 12..16 | entries | `u32`, number of index entries |
//! | 16..48 | log id | |
//! | 48..56 | base position | `u64` |
//! | 56..64 | end position | `u64`, after the last record |
//! | 64..72 | frames end | `u64`, byte after the last frame |
//! | 72..104 | end chain | the chain hash after the last record |
//! | 104..136 | segment digest | BLAKE3 of the segment's bytes up to frames end |
//! | 136..152 | salt | that of the segment's file |
//! | 152..154 | frontier bytes | `u16` |
//! | 154.. | frontier | the Merkle frontier after the last record |
//! | … | index | entries of `position u32 \| eighth u32`: counted from base, byte / 8 |
//! | last 32 | digest | BLAKE3 of everything before it |

#![deny(clippy::indexing_slicing)]

use std::path::Path;

use kimberlite_crypto::{Frontier, InternalHash, internal_hash};
use kimberlite_disk::Disk;
use kimberlite_types::{ChainHash, LogId, Position};

use super::index::{IndexEntry, SparseIndex};
use super::{SegmentHeader, seal_path};
use crate::frame::{Reader, Writer};
use crate::history::History;

const MAGIC: [u8; 8] = *b"KIMBSEL1";
const VERSION: u32 = 1;
const FIXED_BYTES: usize = 154;
const ENTRY_BYTES: usize = 8;
const DIGEST_BYTES: usize = 32;

/// Bytes of a seal file that are read at most.
const SEAL_BYTES_MAX: u64 = 64 << 20;

/// What is known of a closed segment without reading it.
#[derive(Clone, Debug, PartialEq)]
pub struct SealFile {
    pub(crate) log_id: LogId,
    pub(crate) base_position: Position,
    pub(crate) salt: [u8; 16],
    pub(crate) frames_end: u64,
    pub(crate) history: History,
    pub(crate) segment_digest: InternalHash,
    pub(crate) index: SparseIndex,
}

/// Why bytes are not a seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The bytes end too early or go on too long.
    #[error("the seal has the wrong length")]
    Length,
    /// The magic bytes or the version are not known.
    #[error("the file is not a seal that this release knows")]
    Version,
    /// The digest does not match.
    #[error("the seal's digest does not match")]
    Digest,
    /// A field has a value that no seal has.
    #[error("the seal's {field} is not valid")]
    Field {
        /// The field.
        field: &'static str,
    },
}

impl SealFile {
    /// Reads the seal of a segment; `None` when there is none that is whole and of this file: of the
    /// one with this header page.
    pub(crate) fn read(disk: &dyn Disk, log_dir: &Path, segment: &SegmentHeader) -> Option<Self> {
        let seal = Self::read_any(disk, log_dir, (segment.log_id, segment.base_position))?;
        (seal.salt == segment.salt).then_some(seal)
    }

    /// Reads the seal of the segment of a log and base position, whichever file of it. The history is
    /// the same for all of them.
    pub(crate) fn read_any(
        disk: &dyn Disk,
        log_dir: &Path,
        segment: (LogId, Position),
    ) -> Option<Self> {
        let path = seal_path(log_dir, segment.1);
        let seal = Self::decode(&disk.read(&path, SEAL_BYTES_MAX).ok()?).ok()?;
        ((seal.log_id, seal.base_position) == segment).then_some(seal)
    }

    /// Returns the file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let frontier = self.history.frontier.encode();
        let entries = self.index.entries();
        let mut writer = Writer {
            bytes: [0; FIXED_BYTES],
            at: 0,
        };
        writer.put(MAGIC);
        writer.put(VERSION.to_le_bytes());
        writer.put(
            u32::try_from(entries.len())
                .expect("a segment is limited")
                .to_le_bytes(),
        );
        writer.put(*self.log_id.as_bytes());
        writer.put(self.base_position.get().to_le_bytes());
        writer.put(self.history.position().get().to_le_bytes());
        writer.put(self.frames_end.to_le_bytes());
        writer.put(*self.history.chain.as_bytes());
        writer.put(*self.segment_digest.as_bytes());
        writer.put(self.salt);
        writer.put(
            u16::try_from(frontier.len())
                .expect("a frontier is small")
                .to_le_bytes(),
        );
        debug_assert_eq!(writer.at, FIXED_BYTES);
        let mut bytes = writer.bytes.to_vec();
        bytes.extend_from_slice(&frontier);
        for entry in entries {
            bytes.extend_from_slice(&entry.position.to_le_bytes());
            bytes.extend_from_slice(&entry.eighth.to_le_bytes());
        }
        let digest = internal_hash(&bytes);
        bytes.extend_from_slice(digest.as_bytes());
        bytes
    }

    /// Reads a seal.
    ///
    /// # Errors
    ///
    /// [`SealError`] when the bytes are not a seal of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, SealError> {
        let body_bytes = bytes
            .len()
            .checked_sub(DIGEST_BYTES)
            .ok_or(SealError::Length)?;
        let (body, digest) = bytes
            .split_at_checked(body_bytes)
            .ok_or(SealError::Length)?;
        if body.len() < FIXED_BYTES {
            return Err(SealError::Length);
        }
        let mut reader = Reader { rest: body };
        if reader.take() != MAGIC || u32::from_le_bytes(reader.take()) != VERSION {
            return Err(SealError::Version);
        }
        if internal_hash(body).as_bytes() != digest {
            return Err(SealError::Digest);
        }
        let entry_count = u32::from_le_bytes(reader.take());
        let log_id = LogId::new(reader.take());
        let base_position = Position::new(u64::from_le_bytes(reader.take()));
        let end = u64::from_le_bytes(reader.take());
        let frames_end = u64::from_le_bytes(reader.take());
        let chain = ChainHash::new(reader.take());
        let segment_digest = InternalHash::new(reader.take());
        let salt = reader.take();
        let frontier_bytes = usize::from(u16::from_le_bytes(reader.take()));
        let (frontier, entries) = reader
            .rest
            .split_at_checked(frontier_bytes)
            .ok_or(SealError::Length)?;
        let frontier =
            Frontier::decode(frontier).map_err(|_| SealError::Field { field: "frontier" })?;
        if frontier.size() != end || end < base_position.get() {
            return Err(SealError::Field {
                field: "end position",
            });
        }
        let index = decode_index(entries, entry_count)?;
        let history = History { chain, frontier };
        Ok(Self {
            log_id,
            base_position,
            salt,
            frames_end,
            history,
            segment_digest,
            index,
        })
    }
}

fn decode_index(bytes: &[u8], count: u32) -> Result<SparseIndex, SealError> {
    let (entries, rest) = bytes.as_chunks::<ENTRY_BYTES>();
    if !rest.is_empty() || u32::try_from(entries.len()) != Ok(count) {
        return Err(SealError::Length);
    }
    let entries = entries
        .iter()
        .map(|&[a, b, c, d, e, f, g, h]| IndexEntry {
            position: u32::from_le_bytes([a, b, c, d]),
            eighth: u32::from_le_bytes([e, f, g, h]),
        })
        .collect();
    SparseIndex::from_entries(entries).ok_or(SealError::Field { field: "index" })
}

#[cfg(test)]
mod tests {
    use kimberlite_types::LeafHash;

    use super::*;
    use crate::segment::{FRAMES_AT, INDEX_STRIDE_BYTES};

    fn seal() -> SealFile {
        let mut frontier = Frontier::new();
        for n in 0..100 {
            frontier.push(LeafHash::new([n; 32]));
        }
        let base_position = Position::new(10);
        let mut index = SparseIndex::new(INDEX_STRIDE_BYTES);
        for n in 0..20 {
            index.note(base_position, Position::new(10 + n), FRAMES_AT + n * 5000);
        }
        SealFile {
            log_id: LogId::new([1; 32]),
            base_position,
            salt: [4; 16],
            frames_end: FRAMES_AT + 100_000,
            history: History {
                chain: ChainHash::new([2; 32]),
                frontier,
            },
            segment_digest: InternalHash::new([3; 32]),
            index,
        }
    }

    #[test]
    fn seals_round_trip() {
        assert_eq!(SealFile::decode(&seal().encode()), Ok(seal()));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = seal().encode();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            *changed.get_mut(at).unwrap() ^= 0x10;
            assert!(SealFile::decode(&changed).is_err(), "byte {at}");
            assert!(
                SealFile::decode(bytes.get(..at).unwrap()).is_err(),
                "cut at {at}"
            );
        }
    }
}
