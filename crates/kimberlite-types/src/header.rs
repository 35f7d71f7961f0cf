//! The canonical record header: the bytes of a record that are hashed, never stored as a whole.
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0 | magic | `K` |
//! | 1 | version | 1 |
//! | 2 | kind | [`RecordKind`] |
//! | 3 | flags | [`RecordFlags`] |
//! | 4..8 | counter | `u32`, the record's number in its key session |
//! | 8..16 | position | `u64` |
//! | 16..24 | time | `u64`, nanoseconds UTC |
//! | 24..32 | stream | `u64`, all ones for none |
//! | 32..40 | offset | `u64`, all ones for none |
//! | 40..48 | session | `u64`, all ones for none |
//! | 48..52 | payload length | `u32`, bytes of the stored payload |
//! | 52..84 | payload digest | SHA-256 of the stored payload |
//!
//! Integers are little-endian. A counter without a session is all ones.

#![deny(clippy::indexing_slicing)]

use crate::{
    Offset, PayloadDigest, Position, RecordFlags, RecordKind, SessionId, StreamId, Timestamp,
};

/// Bytes of an encoded [`RecordHeader`].
pub const RECORD_HEADER_BYTES: usize = 84;

const MAGIC: u8 = b'K';
const VERSION: u8 = 1;
const COUNTER_NONE: u32 = u32::MAX;
const OFFSET_NONE: u64 = u64::MAX;

/// Everything about a record that history fixes, its payload by digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// What the record is.
    pub kind: RecordKind,
    /// How its payload is stored.
    pub flags: RecordFlags,
    /// Its number in its key session; without a session it is not stored and reads as all ones.
    pub counter: u32,
    /// Where it stands in the log.
    pub position: Position,
    /// When the writer says it was written.
    pub time: Timestamp,
    /// The stream that it belongs to.
    pub stream: Option<StreamId>,
    /// Where it stands in its stream.
    pub offset: Option<Offset>,
    /// The key session that sealed it.
    pub session: Option<SessionId>,
    /// Bytes of the stored payload.
    pub payload_bytes: u32,
    /// SHA-256 of the stored payload.
    pub payload_digest: PayloadDigest,
}

/// Why 84 bytes are not a record header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The first byte is not `K`.
    #[error("a record header begins with 'K', found byte {found:#04x}")]
    Magic {
        /// The byte that was found.
        found: u8,
    },
    /// The version is not known.
    #[error("record header version {found} is not known to this release")]
    Version {
        /// The version that was found.
        found: u8,
    },
    /// The flags are not known.
    #[error("record flags {found:#04x} are not known to this release")]
    Flags {
        /// The flags that were found.
        found: u8,
    },
    /// A counter stands without a session.
    #[error("a record without a key session has a counter")]
    Counter,
}

impl RecordHeader {
    /// Returns the canonical bytes.
    pub fn encode(&self) -> [u8; RECORD_HEADER_BYTES] {
        let counter = if self.session.is_some() {
            self.counter
        } else {
            COUNTER_NONE
        };
        let mut writer = Writer {
            bytes: [0; RECORD_HEADER_BYTES],
            at: 0,
        };
        writer.put([MAGIC, VERSION, self.kind.to_byte(), self.flags.to_byte()]);
        writer.put(counter.to_le_bytes());
        writer.put(self.position.get().to_le_bytes());
        writer.put(self.time.as_nanoseconds().to_le_bytes());
        writer.put(StreamId::to_stored(self.stream).to_le_bytes());
        writer.put(self.offset.map_or(OFFSET_NONE, Offset::get).to_le_bytes());
        writer.put(SessionId::to_stored(self.session).to_le_bytes());
        writer.put(self.payload_bytes.to_le_bytes());
        writer.put(*self.payload_digest.as_bytes());
        debug_assert_eq!(writer.at, RECORD_HEADER_BYTES);
        writer.bytes
    }

    /// Reads the canonical bytes.
    ///
    /// # Errors
    ///
    /// [`HeaderError`] when the bytes are of another version or of no version.
    pub fn decode(bytes: &[u8; RECORD_HEADER_BYTES]) -> Result<Self, HeaderError> {
        let mut reader = Reader { rest: bytes };
        let [magic, version, kind, flags] = reader.take();
        if magic != MAGIC {
            return Err(HeaderError::Magic { found: magic });
        }
        if version != VERSION {
            return Err(HeaderError::Version { found: version });
        }
        let flags =
            RecordFlags::try_from(flags).map_err(|found| HeaderError::Flags { found: found.0 })?;
        let counter = u32::from_le_bytes(reader.take());
        let position = Position::new(u64::from_le_bytes(reader.take()));
        let time = Timestamp::from_nanoseconds(u64::from_le_bytes(reader.take()));
        let stream = StreamId::from_stored(u64::from_le_bytes(reader.take()));
        let offset = u64::from_le_bytes(reader.take());
        let session = SessionId::from_stored(u64::from_le_bytes(reader.take()));
        if session.is_none() && counter != COUNTER_NONE {
            return Err(HeaderError::Counter);
        }
        Ok(Self {
            kind: RecordKind::from_byte(kind),
            flags,
            counter,
            position,
            time,
            stream,
            offset: (offset != OFFSET_NONE).then(|| Offset::new(offset)),
            session,
            payload_bytes: u32::from_le_bytes(reader.take()),
            payload_digest: PayloadDigest::new(reader.take()),
        })
    }
}

struct Writer {
    bytes: [u8; RECORD_HEADER_BYTES],
    at: usize,
}

impl Writer {
    fn put<const N: usize>(&mut self, field: [u8; N]) {
        let end = self.at + N;
        self.bytes
            .get_mut(self.at..end)
            .expect("the fields fill 84 bytes")
            .copy_from_slice(&field);
        self.at = end;
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self
            .rest
            .split_first_chunk()
            .expect("the fields fill 84 bytes");
        self.rest = rest;
        *field
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> RecordHeader {
        RecordHeader {
            kind: RecordKind::Event,
            flags: RecordFlags::COMMITTED,
            counter: 0x0403_0201,
            position: Position::new(0x1817_1615_1413_1211),
            time: Timestamp::from_nanoseconds(0x2827_2625_2423_2221),
            stream: Some(StreamId::new(Position::new(0x3837_3635_3433_3231))),
            offset: Some(Offset::new(0x4847_4645_4443_4241)),
            session: Some(SessionId::new(Position::new(0x5857_5655_5453_5251))),
            payload_bytes: 0x6463_6261,
            payload_digest: PayloadDigest::new([0x77; 32]),
        }
    }

    #[test]
    fn the_bytes_are_as_documented() {
        let mut expected = alloc::vec![b'K', 1, 4, 3, 1, 2, 3, 4];
        for first in [0x11_u8, 0x21, 0x31, 0x41, 0x51] {
            expected.extend(first..first + 8);
        }
        expected.extend(0x61..0x65);
        expected.extend([0x77; 32]);
        assert_eq!(header().encode().as_slice(), expected);
    }

    #[test]
    fn headers_round_trip() {
        let without_session = RecordHeader {
            session: None,
            counter: COUNTER_NONE,
            stream: None,
            offset: None,
            ..header()
        };
        for header in [header(), without_session] {
            assert_eq!(RecordHeader::decode(&header.encode()), Ok(header));
        }
    }

    #[test]
    fn every_byte_is_part_of_the_meaning() {
        let bytes = header().encode();
        for at in 0..bytes.len() {
            let mut changed = bytes;
            *changed.get_mut(at).unwrap() ^= 0x80;
            assert_ne!(RecordHeader::decode(&changed), Ok(header()), "byte {at}");
        }
    }

    #[test]
    fn a_counter_without_a_session_is_refused() {
        let mut bytes = header().encode();
        bytes.get_mut(40..48).unwrap().fill(0xff);
        assert_eq!(RecordHeader::decode(&bytes), Err(HeaderError::Counter));
    }
}
