//! The on-disk unit of one append to one stream.
//!
//! A frame is a fixed header, a table with one entry for each record, the stored payloads one after
//! another, and zeros up to the next multiple of eight bytes. Integers are little-endian.
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0..4 | magic | `KFRM` |
//! | 4..8 | header checksum | CRC-32C of bytes 8..112, seeded by the segment's salt and the frame's byte offset |
//! | 8..12 | length | `u32`, bytes of header, table and payloads, without the padding |
//! | 12..16 | table checksum | CRC-32C of the table and of what stands between it and the payloads, seeded likewise; 0 for a watermark, which has none |
//! | 16 | kind | of all its records; 0 for a watermark, which has none |
//! | 17 | flags | bits 0 and 1 as in a record header, bit 2 purged, bit 3 more frames follow in this commit group, bit 4 keyed |
//! | 18..20 | count | `u16`, records |
//! | 20..24 | first counter | `u32`, the first record's number in its key session, all ones for none |
//! | 24..32 | base position | `u64`, position of the first record |
//! | 32..40 | stream | `u64`, all ones for none |
//! | 40..48 | base offset | `u64`, offset of the first record in the stream, all ones for none |
//! | 48..56 | time | `u64`, nanoseconds UTC, of all its records |
//! | 56..64 | session | `u64`, all ones for none |
//! | 64..72 | durable position | `u64`, everything before it was synced when the frame was written |
//! | 72..104 | chain before | the chain hash before the first record |
//! | 104..112 | log id | its first eight bytes |
//!
//! A table entry is `payload_end u32 | crc32c u32`: where the record's stored payload ends, counted
//! from the first payload byte, and the CRC-32C of that payload. So one record is found and checked
//! without its neighbours, and the seeds make a frame of another file, another place or inside a
//! payload never pass for one of this segment.
//!
//! A *keyed* frame has 40 bytes more between its table and its payloads, over which the table checksum
//! goes too: the key of the append that begins with it, and how many events that has
//! ([`KeyedAppend`](kimberlite_types::KeyedAppend)). Further frames of the append follow in the same group, without a key. Only
//! events are keyed.
//!
//! A *purged* frame, which only a segment that was written anew holds, has the 32-byte SHA-256 digest
//! of each payload in place of the payload. Its table says where the payloads ended, so that their
//! lengths are known, and has the CRC-32C of each digest; `length` is that of header, table and
//! digests. Leaves, chain and tree come out as before. Only events are purged.

#![deny(clippy::indexing_slicing)]

mod builder;
mod rewrite;
mod view;

pub(crate) use builder::{FinishedFrame, FrameSite};
pub use builder::{FrameBuilder, FramePlacement, UnplacedFrame};
pub use view::{Content, FrameView, PurgedPayload, StoredRecord};

use std::ops::Range;

use kimberlite_types::{
    ChainHash, KEYED_APPEND_BYTES, LogId, Offset, Position, RecordFlags, RecordKind, SessionId,
    StreamId, Timestamp, limits,
};

use crate::segment::SegmentSeed;

/// Bytes of a frame's fixed header.
pub const FRAME_HEADER_BYTES: usize = 112;

/// Bytes of a table entry.
pub(crate) const TABLE_ENTRY_BYTES: usize = 8;

/// Bytes that stand in place of a purged payload.
pub(crate) const PURGED_BYTES: usize = 32;

/// Frames begin at multiples of this.
pub(crate) const FRAME_ALIGN: usize = 8;

pub(crate) const FRAME_MAGIC: [u8; 4] = *b"KFRM";

const FLAG_PURGED: u8 = 4;
const FLAG_MORE: u8 = 8;
const FLAG_KEYED: u8 = 16;
const FLAGS_FRAME: u8 = FLAG_PURGED | FLAG_MORE | FLAG_KEYED;
const FLAGS_KNOWN: u8 = 31;
const WATERMARK_KIND: u8 = 0;
const COUNTER_NONE: u32 = u32::MAX;
const OFFSET_NONE: u64 = u64::MAX;

const _: () = assert!(FRAME_HEADER_BYTES.is_multiple_of(FRAME_ALIGN));
const _: () = assert!(KEYED_APPEND_BYTES.is_multiple_of(FRAME_ALIGN));

/// What the fixed header of a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of header, table and payloads, without the padding.
    pub length: u32,
    /// Checksum of the table.
    pub table_checksum: u32,
    /// What its records are; `None` for a watermark.
    pub kind: Option<RecordKind>,
    /// How its payloads are stored.
    pub flags: RecordFlags,
    /// Digests stand in place of payloads.
    pub purged: bool,
    /// Further frames of the same commit group follow.
    pub more: bool,
    /// It begins an append that carried an idempotency key.
    pub keyed: bool,
    /// Records.
    pub count: u16,
    /// The first record's number in its key session.
    pub first_counter: u32,
    /// Position of the first record.
    pub base_position: Position,
    /// The stream of all records.
    pub stream: Option<StreamId>,
    /// Offset of the first record in its stream.
    pub base_offset: Option<Offset>,
    /// Time of all records.
    pub time: Timestamp,
    /// The key session that sealed the records.
    pub session: Option<SessionId>,
    /// Everything before it was synced when the frame was written.
    pub durable_position: Position,
    /// The chain hash before the first record.
    pub chain_before: ChainHash,
    /// The first bytes of the log's id.
    pub log_prefix: [u8; LogId::PREFIX_BYTES],
}

/// Why bytes are not a frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// There are fewer bytes than a header has.
    #[error("the frame header is cut off")]
    Short,
    /// The magic bytes are missing.
    #[error("no frame begins here")]
    Magic,
    /// The checksum does not match.
    #[error("the frame header's checksum does not match")]
    Checksum,
    /// A field has a value that no frame has.
    #[error("the frame header's {field} is not valid")]
    Field {
        /// The field.
        field: &'static str,
    },
}

impl FrameHeader {
    /// Reads the fixed header of a frame that begins `at` bytes into the segment with this seed.
    ///
    /// # Errors
    ///
    /// [`FrameError`] when the bytes are not a frame header of this segment and place.
    pub fn decode(bytes: &[u8], seed: SegmentSeed, at: u64) -> Result<Self, FrameError> {
        let bytes: &[u8; FRAME_HEADER_BYTES] = bytes.first_chunk().ok_or(FrameError::Short)?;
        let mut reader = Reader { rest: bytes };
        if reader.take() != FRAME_MAGIC {
            return Err(FrameError::Magic);
        }
        let checksum = u32::from_le_bytes(reader.take());
        if checksum != seed.checksum(at, reader.rest) {
            return Err(FrameError::Checksum);
        }
        let length = u32::from_le_bytes(reader.take());
        let table_checksum = u32::from_le_bytes(reader.take());
        let [kind, flags] = reader.take();
        let header = Self {
            length,
            table_checksum,
            kind: (kind != WATERMARK_KIND).then(|| RecordKind::from_byte(kind)),
            flags: RecordFlags::try_from(flags & !FLAGS_FRAME)
                .map_err(|_| FrameError::Field { field: "flags" })?,
            purged: flags & FLAG_PURGED != 0,
            more: flags & FLAG_MORE != 0,
            keyed: flags & FLAG_KEYED != 0,
            count: u16::from_le_bytes(reader.take()),
            first_counter: u32::from_le_bytes(reader.take()),
            base_position: Position::new(u64::from_le_bytes(reader.take())),
            stream: StreamId::from_stored(u64::from_le_bytes(reader.take())),
            base_offset: offset_from_stored(u64::from_le_bytes(reader.take())),
            time: Timestamp::from_nanoseconds(u64::from_le_bytes(reader.take())),
            session: SessionId::from_stored(u64::from_le_bytes(reader.take())),
            durable_position: Position::new(u64::from_le_bytes(reader.take())),
            chain_before: ChainHash::new(reader.take()),
            log_prefix: reader.take(),
        };
        header.check(flags)?;
        Ok(header)
    }

    fn check(&self, flags: u8) -> Result<(), FrameError> {
        let fail = |field| Err(FrameError::Field { field });
        if flags & !FLAGS_KNOWN != 0 {
            return fail("flags");
        }
        if self.kind.is_none() != (self.count == 0) {
            return fail("count");
        }
        if usize::from(self.count) > limits::FRAME_RECORDS_MAX {
            return fail("count");
        }
        let length = usize::try_from(self.length).map_err(|_| FrameError::Short)?;
        if length < self.payloads_at() || length > limits::FRAME_BYTES_MAX {
            return fail("length");
        }
        if self.keyed && self.kind != Some(RecordKind::Event) {
            return fail("flags");
        }
        if self.purged {
            if self.kind != Some(RecordKind::Event) {
                return fail("flags");
            }
            if u64::from(self.length) != self.purged_bytes() {
                return fail("length");
            }
        }
        if self
            .base_position
            .checked_add(u64::from(self.count))
            .is_none()
        {
            return fail("base position");
        }
        if self.durable_position > self.base_position {
            return fail("durable position");
        }
        if self.session.is_none() && self.first_counter != COUNTER_NONE {
            return fail("first counter");
        }
        if self.session.is_some() != self.flags.is_encrypted() {
            return fail("session");
        }
        if self.kind.is_none() {
            // A watermark says where it stands, and nothing else.
            let (position, time) = (self.base_position, self.time);
            if *self != Self::watermark(position, time, self.chain_before, self.log_prefix) {
                return fail("watermark");
            }
        }
        Ok(())
    }

    /// Returns the bytes of the fixed header of a frame that begins `at` bytes into the segment.
    pub fn encode(&self, seed: SegmentSeed, at: u64) -> [u8; FRAME_HEADER_BYTES] {
        let mut flags = self.flags.to_byte();
        flags |= if self.purged { FLAG_PURGED } else { 0 };
        flags |= if self.more { FLAG_MORE } else { 0 };
        flags |= if self.keyed { FLAG_KEYED } else { 0 };
        let counter = if self.session.is_some() {
            self.first_counter
        } else {
            COUNTER_NONE
        };
        let mut writer = Writer {
            bytes: [0; FRAME_HEADER_BYTES],
            at: 0,
        };
        writer.put(FRAME_MAGIC);
        writer.put([0; 4]);
        writer.put(self.length.to_le_bytes());
        writer.put(self.table_checksum.to_le_bytes());
        writer.put([self.kind.map_or(WATERMARK_KIND, RecordKind::to_byte), flags]);
        writer.put(self.count.to_le_bytes());
        writer.put(counter.to_le_bytes());
        writer.put(self.base_position.get().to_le_bytes());
        writer.put(StreamId::to_stored(self.stream).to_le_bytes());
        writer.put(
            self.base_offset
                .map_or(OFFSET_NONE, Offset::get)
                .to_le_bytes(),
        );
        writer.put(self.time.as_nanoseconds().to_le_bytes());
        writer.put(SessionId::to_stored(self.session).to_le_bytes());
        writer.put(self.durable_position.get().to_le_bytes());
        writer.put(*self.chain_before.as_bytes());
        writer.put(self.log_prefix);
        debug_assert_eq!(writer.at, FRAME_HEADER_BYTES);
        let mut bytes = writer.bytes;
        let (head, checked) = bytes.split_at_mut(8);
        let checksum = seed.checksum(at, checked).to_le_bytes();
        head.get_mut(4..)
            .expect("the head has eight bytes")
            .copy_from_slice(&checksum);
        bytes
    }

    /// Returns the position after the frame's last record.
    pub fn end_position(&self) -> Position {
        self.base_position
            .checked_add(u64::from(self.count))
            .expect("a frame header is checked when it is read and when it is made")
    }

    /// Returns the bytes that the frame takes in its segment, padding included.
    pub fn stored_bytes(&self) -> u64 {
        u64::from(self.length).next_multiple_of(FRAME_ALIGN as u64)
    }

    /// Returns the bytes that the frame takes once it is purged.
    pub(crate) fn purged_bytes(&self) -> u64 {
        let bytes = self.payloads_at() + usize::from(self.count) * PURGED_BYTES;
        u64::try_from(bytes).expect("a frame of digests is small")
    }

    /// Returns where in the frame the payloads begin.
    pub(crate) fn payloads_at(&self) -> usize {
        payloads_at(usize::from(self.count), self.keyed)
    }

    /// Returns where in the frame stands what its table checksum is of.
    pub(crate) fn table(&self) -> Range<usize> {
        FRAME_HEADER_BYTES..self.payloads_at()
    }
}

impl FrameHeader {
    /// Returns where in the frame the table entries stand that tell of its record `index`: the one
    /// before its own, if there is one, and its own.
    pub(crate) fn entries_of(&self, index: usize) -> Range<usize> {
        debug_assert!(index < usize::from(self.count));
        entry_at(index.saturating_sub(1))..entry_at(index + 1)
    }

    /// Returns where in the frame stands what is stored of record `index`, by its
    /// [entries](Self::entries_of); `None` when they say what no frame has.
    pub(crate) fn stored_piece(&self, index: usize, entries: &[u8]) -> Option<StoredPiece> {
        let (entry, start) = match entries.as_chunks().0 {
            [entry] => (TableEntry::decode(*entry), 0),
            [before, entry] => (
                TableEntry::decode(*entry),
                TableEntry::decode(*before).payload_end,
            ),
            _ => return None,
        };
        let payload_bytes = entry.payload_end.checked_sub(start)?;
        let (from, bytes) = if self.purged {
            let bytes = usize::try_from(payload_bytes).ok()?;
            (bytes <= limits::PAYLOAD_BYTES_MAX).then_some(())?;
            (index * PURGED_BYTES, PURGED_BYTES)
        } else {
            let wide = |value: u32| usize::try_from(value).ok();
            (wide(start)?, wide(payload_bytes)?)
        };
        let start = self.payloads_at().checked_add(from)?;
        let range = start..start.checked_add(bytes)?;
        let length = usize::try_from(self.length).ok()?;
        (range.end <= length).then_some(StoredPiece {
            range,
            checksum: entry.checksum,
            payload_bytes,
        })
    }
}

/// What a frame header says of the way to another frame, its checksum unchecked: good for finding a
/// frame, whose own header is then checked for its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameStep {
    pub(crate) base: u64,
    pub(crate) count: u16,
    /// What the frame says to be durable before it.
    pub(crate) durable: u64,
    keyed: bool,
    length: u32,
}

impl FrameStep {
    /// `None` when no frame header stands at the beginning of `bytes`.
    pub(crate) fn peek(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; FRAME_HEADER_BYTES] = bytes.first_chunk()?;
        let mut reader = Reader { rest: bytes };
        if reader.take() != FRAME_MAGIC {
            return None;
        }
        let [_checksum, length, _table_checksum] = [(); 3].map(|()| reader.take());
        let [_kind, flags] = reader.take();
        let keyed = flags & FLAG_KEYED != 0;
        let count = u16::from_le_bytes(reader.take());
        let _counter: [u8; 4] = reader.take();
        let length = u32::from_le_bytes(length);
        let long_enough = usize::try_from(length).ok()? >= payloads_at(usize::from(count), keyed);
        let base = u64::from_le_bytes(reader.take());
        let [_stream, _offset, _time, _session]: [[u8; 8]; 4] = [(); 4].map(|()| reader.take());
        long_enough.then(|| Self {
            base,
            count,
            durable: u64::from_le_bytes(reader.take()),
            keyed,
            length,
        })
    }

    /// Returns the bytes that the frame takes in its segment, padding included.
    pub(crate) fn stored_bytes(self) -> u64 {
        u64::from(self.length).next_multiple_of(FRAME_ALIGN as u64)
    }

    /// Returns where in the frame the payload of record `index` begins by its table, to have it on
    /// its way from memory while the header is checked. Not so in a purged frame, which is none the
    /// worse for it.
    pub(crate) fn payload_at(self, bytes: &[u8], index: u64) -> Option<usize> {
        let index = usize::try_from(index).ok()?;
        let start = match index.checked_sub(1) {
            None => 0,
            Some(before) => {
                let entry = bytes.get(entry_at(before)..)?.first_chunk()?;
                TableEntry::decode(*entry).payload_end
            }
        };
        let payloads_at = payloads_at(usize::from(self.count), self.keyed);
        payloads_at.checked_add(usize::try_from(start).ok()?)
    }
}

/// What a frame stores of one record: its payload, or what stands in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredPiece {
    /// Where it stands in the frame.
    pub(crate) range: Range<usize>,
    /// The CRC-32C of what stands there.
    pub(crate) checksum: u32,
    /// How long the payload is, or was.
    pub(crate) payload_bytes: u32,
}

/// Returns where in a frame of `count` records the payloads begin: behind header and table, and the key
/// of a keyed one.
pub(crate) const fn payloads_at(count: usize, keyed: bool) -> usize {
    entry_at(count) + if keyed { KEYED_APPEND_BYTES } else { 0 }
}

/// Returns where in a frame the table entry of record `index` begins.
const fn entry_at(index: usize) -> usize {
    FRAME_HEADER_BYTES + index * TABLE_ENTRY_BYTES
}

fn offset_from_stored(value: u64) -> Option<Offset> {
    (value != OFFSET_NONE).then(|| Offset::new(value))
}

/// One table entry: where the payload ends, and its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableEntry {
    pub(crate) payload_end: u32,
    pub(crate) checksum: u32,
}

impl TableEntry {
    pub(crate) fn encode(self) -> [u8; TABLE_ENTRY_BYTES] {
        (u64::from(self.payload_end) | u64::from(self.checksum) << 32).to_le_bytes()
    }

    pub(crate) fn decode(bytes: [u8; TABLE_ENTRY_BYTES]) -> Self {
        let mut reader = Reader { rest: &bytes };
        Self {
            payload_end: u32::from_le_bytes(reader.take()),
            checksum: u32::from_le_bytes(reader.take()),
        }
    }
}

/// Writes fixed fields one after another; the caller knows that they fit.
pub(crate) struct Writer<const N: usize> {
    pub(crate) bytes: [u8; N],
    pub(crate) at: usize,
}

impl<const N: usize> Writer<N> {
    pub(crate) fn put<const M: usize>(&mut self, field: [u8; M]) {
        let end = self.at + M;
        self.bytes
            .get_mut(self.at..end)
            .expect("the fields fit")
            .copy_from_slice(&field);
        self.at = end;
    }
}

/// Reads fixed fields one after another; the caller knows that they are there.
pub(crate) struct Reader<'a> {
    pub(crate) rest: &'a [u8],
}

impl Reader<'_> {
    pub(crate) fn take<const M: usize>(&mut self) -> [u8; M] {
        let (field, rest) = self
            .rest
            .split_first_chunk()
            .expect("the length was checked");
        self.rest = rest;
        *field
    }
}

#[cfg(test)]
mod tests {
    use kimberlite_types::ChainHash;

    use super::*;
    use crate::segment::SegmentHeader;

    const AT: u64 = 8192;

    fn seed() -> SegmentSeed {
        let segment = SegmentHeader {
            log_id: LogId::new([1; 32]),
            base_position: Position::ZERO,
            base_chain: ChainHash::new([2; 32]),
            salt: [3; 16],
            segment_bytes: 1 << 18,
        };
        segment.seed()
    }

    fn purged(count: u16) -> FrameHeader {
        FrameHeader {
            length: 112 + 40 * u32::from(count),
            table_checksum: 0,
            kind: Some(RecordKind::Event),
            flags: RecordFlags::PLAIN,
            purged: true,
            more: false,
            keyed: false,
            count,
            first_counter: COUNTER_NONE,
            base_position: Position::new(7),
            stream: StreamId::from_stored(1),
            base_offset: Some(Offset::ZERO),
            time: Timestamp::from_nanoseconds(1),
            session: None,
            durable_position: Position::new(7),
            chain_before: ChainHash::new([2; 32]),
            log_prefix: [1; 8],
        }
    }

    #[test]
    fn a_purged_frame_has_events_and_a_digest_for_each() {
        let check = |header: FrameHeader, expected: Result<(), &'static str>| {
            let decoded = FrameHeader::decode(&header.encode(seed(), AT), seed(), AT);
            let expected = expected.map(|()| header);
            assert_eq!(
                decoded,
                expected.map_err(|field| FrameError::Field { field })
            );
        };
        for count in [1, 1024] {
            let header = purged(count);
            check(header, Ok(()));
            let length = header.length + 8;
            check(FrameHeader { length, ..header }, Err("length"));
            let length = header.length - 32;
            check(FrameHeader { length, ..header }, Err("length"));
            let keyed = FrameHeader {
                keyed: true,
                length: header.length + 40,
                ..header
            };
            check(keyed, Ok(()));
            let length = header.length;
            check(FrameHeader { length, ..keyed }, Err("length"));
        }
        let administrative = FrameHeader {
            kind: Some(RecordKind::StreamCreated),
            ..purged(1)
        };
        check(administrative, Err("flags"));
        let keyed = FrameHeader {
            purged: false,
            keyed: true,
            length: administrative.length + 40,
            ..administrative
        };
        check(keyed, Err("flags"));
    }

    #[test]
    fn the_table_of_a_purged_frame_tells_no_length_that_no_payload_has() {
        let header = purged(2);
        let piece = |ends: [u32; 2]| {
            let entries = ends.map(|payload_end| TableEntry {
                payload_end,
                checksum: 5,
            });
            header.stored_piece(1, entries.map(TableEntry::encode).as_flattened())
        };
        let largest = u32::try_from(limits::PAYLOAD_BYTES_MAX).unwrap();
        let found = piece([10, 10 + largest]).unwrap();
        assert_eq!((found.range, found.payload_bytes), (160..192, largest));
        assert_eq!(piece([10, 10 + largest + 1]), None);
        assert_eq!(piece([10, 9]), None);
    }
}
