//! The first page of a segment.
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0..8 | magic | `KIMBSEG1` |
//! | 8..12 | checksum | CRC-32C of bytes 12..4096 |
//! | 12..16 | version | `u32`, 1 |
//! | 16..48 | log id | |
//! | 48..56 | base position | `u64`, position of the first record |
//! | 56..88 | base chain | the chain hash before the first record |
//! | 88..104 | salt | random, of this file alone |
//! | 104..112 | segment bytes | `u64`, size of the file when it was made |
//! | 112..4096 | zero | |

#![deny(clippy::indexing_slicing)]

use kimberlite_types::{ChainHash, LogId, Position};

use super::SEGMENT_BYTES_LIMIT;
use crate::frame::{Reader, Writer};

/// Bytes of the header page.
pub const SEGMENT_HEADER_BYTES: usize = 4096;

const MAGIC: [u8; 8] = *b"KIMBSEG1";
const VERSION: u32 = 1;
const USED_BYTES: usize = 112;
const CHECKED_FROM: usize = 12;

/// What the first page of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The log that the segment belongs to.
    pub log_id: LogId,
    /// Position of the first record.
    pub base_position: Position,
    /// The chain hash before the first record.
    pub base_chain: ChainHash,
    /// Random bytes of this file alone.
    pub salt: [u8; 16],
    /// Size of the file when it was made.
    pub segment_bytes: u64,
}

/// Why bytes are not a segment's header page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentHeaderError {
    /// There are fewer bytes than the page has.
    #[error("the segment's header page is cut off")]
    Short,
    /// The magic bytes are missing.
    #[error("the file is not a segment")]
    Magic,
    /// The checksum does not match.
    #[error("the checksum of the segment's header page does not match")]
    Checksum,
    /// The version is not known.
    #[error("segment version {found} is not known to this release")]
    Version {
        /// The version that was found.
        found: u32,
    },
    /// The segment is larger than any that this release makes.
    #[error("the segment says that it has {found} bytes, more than any has")]
    Bytes {
        /// The bytes that it says it has.
        found: u64,
    },
    /// Bytes that are not used are not zero.
    #[error("the segment's header page has bytes that this release does not know")]
    Padding,
}

impl SegmentHeader {
    /// Returns the header page.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer {
            bytes: [0; USED_BYTES],
            at: 0,
        };
        writer.put(MAGIC);
        writer.put([0; 4]);
        writer.put(VERSION.to_le_bytes());
        writer.put(*self.log_id.as_bytes());
        writer.put(self.base_position.get().to_le_bytes());
        writer.put(*self.base_chain.as_bytes());
        writer.put(self.salt);
        writer.put(self.segment_bytes.to_le_bytes());
        debug_assert_eq!(writer.at, USED_BYTES);
        let mut page = writer.bytes.to_vec();
        page.resize(SEGMENT_HEADER_BYTES, 0);
        let (head, checked) = page.split_at_mut(CHECKED_FROM);
        let checksum = crc32c::crc32c(checked).to_le_bytes();
        head.last_chunk_mut::<4>()
            .expect("the head has twelve bytes")
            .copy_from_slice(&checksum);
        page
    }

    /// Reads a header page from the beginning of `bytes`.
    ///
    /// # Errors
    ///
    /// [`SegmentHeaderError`] when the bytes are not a header page of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, SegmentHeaderError> {
        let page: &[u8; SEGMENT_HEADER_BYTES] =
            bytes.first_chunk().ok_or(SegmentHeaderError::Short)?;
        let mut reader = Reader { rest: page };
        if reader.take() != MAGIC {
            return Err(SegmentHeaderError::Magic);
        }
        let checksum = u32::from_le_bytes(reader.take());
        if crc32c::crc32c(reader.rest) != checksum {
            return Err(SegmentHeaderError::Checksum);
        }
        let version = u32::from_le_bytes(reader.take());
        if version != VERSION {
            return Err(SegmentHeaderError::Version { found: version });
        }
        let header = Self {
            log_id: LogId::new(reader.take()),
            base_position: Position::new(u64::from_le_bytes(reader.take())),
            base_chain: ChainHash::new(reader.take()),
            salt: reader.take(),
            segment_bytes: u64::from_le_bytes(reader.take()),
        };
        if reader.rest.iter().any(|&byte| byte != 0) {
            return Err(SegmentHeaderError::Padding);
        }
        if header.segment_bytes > SEGMENT_BYTES_LIMIT {
            let found = header.segment_bytes;
            return Err(SegmentHeaderError::Bytes { found });
        }
        Ok(header)
    }

    /// Returns what seeds the checksums of this segment's frames.
    pub fn seed(&self) -> SegmentSeed {
        SegmentSeed(crc32c::crc32c(&self.salt))
    }
}

/// What binds a frame's checksums to its segment: a checksum state after the segment's salt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentSeed(u32);

impl SegmentSeed {
    /// Returns the checksum of `bytes` in a frame that begins `at` bytes into the segment.
    pub(crate) fn checksum(self, at: u64, bytes: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c_append(self.0, &at.to_le_bytes()), bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            log_id: LogId::new([1; 32]),
            base_position: Position::new(0x0807_0605_0403_0201),
            base_chain: ChainHash::new([2; 32]),
            salt: [3; 16],
            segment_bytes: 1 << 18,
        }
    }

    #[test]
    fn the_bytes_are_as_documented() {
        let page = header().encode();
        assert_eq!(page.len(), SEGMENT_HEADER_BYTES);
        let mut expected = b"KIMBSEG1".to_vec();
        expected.extend(crc32c::crc32c(page.get(12..).unwrap()).to_le_bytes());
        expected.extend([1, 0, 0, 0]);
        expected.extend([1; 32]);
        expected.extend([1, 2, 3, 4, 5, 6, 7, 8]);
        expected.extend([2; 32]);
        expected.extend([3; 16]);
        expected.extend([0, 0, 4, 0, 0, 0, 0, 0]);
        expected.resize(SEGMENT_HEADER_BYTES, 0);
        assert_eq!(page, expected);
    }

    #[test]
    fn a_size_that_no_segment_has_is_refused() {
        let sized = |segment_bytes| SegmentHeader {
            segment_bytes,
            ..header()
        };
        let largest = sized(SEGMENT_BYTES_LIMIT);
        assert_eq!(SegmentHeader::decode(&largest.encode()), Ok(largest));
        let found = SEGMENT_BYTES_LIMIT + 1;
        assert_eq!(
            SegmentHeader::decode(&sized(found).encode()),
            Err(SegmentHeaderError::Bytes { found })
        );
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let page = header().encode();
        assert_eq!(SegmentHeader::decode(&page), Ok(header()));
        for at in 0..SEGMENT_HEADER_BYTES {
            let mut changed = page.clone();
            *changed.get_mut(at).unwrap() ^= 1;
            assert!(SegmentHeader::decode(&changed).is_err(), "byte {at}");
        }
    }
}
