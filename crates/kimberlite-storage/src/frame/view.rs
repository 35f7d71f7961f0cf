//! Reading a frame without copying it.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use kimberlite_crypto::payload_digests;
use kimberlite_types::{LeafHash, Position};

use super::{FRAME_HEADER_BYTES, FrameHeader};
use crate::damage::{Damage, DamageKind};
use crate::segment::{SegmentSeed, segment_name};

/// A frame whose header was checked, over the bytes that it stands in.
#[derive(Clone)]
pub struct FrameView {
    header: FrameHeader,
    segment: Position,
    at: u64,
    bytes: Bytes,
}

/// One record as it is stored.
#[derive(Clone)]
pub struct StoredRecord {
    frame: FrameHeader,
    index: usize,
    payload: Bytes,
}

impl FrameView {
    /// Takes a frame whose header was decoded from the beginning of `bytes`, which stand `at` in
    /// the segment that begins at position `segment`.
    ///
    /// `None` when the bytes end before the frame does.
    pub(crate) fn new(
        header: FrameHeader,
        segment: Position,
        at: u64,
        bytes: &Bytes,
    ) -> Option<Self> {
        let stored = usize::try_from(header.stored_bytes()).ok()?;
        (bytes.len() >= stored).then(|| Self::of(header, segment, at, bytes.slice(..stored)))
    }

    /// Takes a frame whose header was decoded likewise, with its bytes and no more.
    pub(crate) fn of(header: FrameHeader, segment: Position, at: u64, bytes: Bytes) -> Self {
        Self {
            header,
            segment,
            at,
            bytes,
        }
    }

    /// Returns the fixed header.
    pub fn header(&self) -> &FrameHeader {
        &self.header
    }

    /// Returns the base position of the segment that the frame stands in.
    pub(crate) fn segment(&self) -> Position {
        self.segment
    }

    /// Returns the byte of the segment at which the frame begins.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Returns where the frame is, as the place of damage of this kind.
    pub fn damage(&self, kind: DamageKind) -> Damage {
        Damage {
            segment: segment_name(self.segment),
            byte: self.at,
            position: self.header.base_position,
            kind,
        }
    }

    /// Returns the stored record at `position`, its checksum checked.
    ///
    /// # Errors
    ///
    /// [`Damage`] when the table or the payload is not what was written.
    ///
    /// # Panics
    ///
    /// When the record is not in this frame.
    pub fn record(&self, position: Position) -> Result<StoredRecord, Damage> {
        let payload = self.payload(position)?;
        Ok(StoredRecord {
            frame: self.header,
            index: self.index_of(position),
            payload,
        })
    }

    /// Returns the stored payload of the record at `position`, its checksum checked.
    ///
    /// # Errors
    ///
    /// As [`FrameView::record`].
    ///
    /// # Panics
    ///
    /// When the record is not in this frame.
    pub fn payload(&self, position: Position) -> Result<Bytes, Damage> {
        let index = self.index_of(position);
        self.payload_at(index).map_err(|kind| {
            let byte = self
                .payload_bytes_at(index)
                .map_or(self.at, |bytes| bytes.start);
            Damage {
                segment: segment_name(self.segment),
                byte,
                position,
                kind,
            }
        })
    }

    /// Returns the stored payload of the record at `position`, whose checksum was checked before.
    pub(crate) fn payload_unchecked(&self, position: Position) -> Option<Bytes> {
        let (range, _) = self.payload_range(self.index_of(position))?;
        Some(self.bytes.slice(range))
    }

    /// Whether the checksums of all payloads match.
    pub(crate) fn is_sound(&self) -> bool {
        (0..usize::from(self.header.count)).all(|index| {
            let payload = self.payload_range(index).and_then(|(range, checksum)| {
                let payload = self.bytes.get(range)?;
                check_payload(payload, checksum).ok()
            });
            payload.is_some()
        })
    }

    fn index_of(&self, position: Position) -> usize {
        let index = position.get().checked_sub(self.header.base_position.get());
        let index = index.and_then(|index| usize::try_from(index).ok());
        let index = index.filter(|&index| index < usize::from(self.header.count));
        index.expect("the position is in the frame")
    }

    /// Returns the stored payload at `index` in the frame, its checksum checked.
    pub(crate) fn payload_at(&self, index: usize) -> Result<Bytes, DamageKind> {
        let (range, checksum) = self.payload_range(index).ok_or(DamageKind::TableEntry)?;
        let payload = self.bytes.slice(range);
        check_payload(&payload, checksum)?;
        Ok(payload)
    }

    /// Returns the bytes of all stored payloads.
    pub(crate) fn payload_bytes(&self) -> u64 {
        let payloads_at = u64::try_from(self.header.payloads_at());
        u64::from(self.header.length) - payloads_at.expect("a table is smaller than 2^64 bytes")
    }

    /// Returns the leaves of all records, the checksums of their payloads checked.
    pub(crate) fn leaves(&self) -> Result<Vec<LeafHash>, Damage> {
        let positions = self.header.base_position.get()..self.header.end_position().get();
        let records = positions.map(|position| self.record(Position::new(position)));
        let records = records.collect::<Result<Vec<_>, _>>()?;
        let digests = payload_digests(records.iter().map(|record| record.payload().as_ref()));
        let payloads = records.iter().zip(digests);
        let payloads = payloads.map(|(record, digest)| (digest, record.payload_bytes()));
        Ok(self.header.leaves(&payloads.collect::<Vec<_>>()))
    }

    /// Returns the bytes of the frame in which the payload at `index` stands.
    pub(crate) fn payload_bytes_at(&self, index: usize) -> Option<Range<u64>> {
        let (range, _) = self.payload_range(index)?;
        let at = |byte| u64::try_from(byte).ok().map(|byte| self.at + byte);
        Some(at(range.start)?..at(range.end)?)
    }

    fn payload_range(&self, index: usize) -> Option<(Range<usize>, u32)> {
        let entries = self.bytes.get(self.header.entries_of(index))?;
        self.header.payload_range(entries)
    }

    /// Checks the table, that its payloads fill the frame, and that the padding is zero; payloads
    /// are not read.
    pub(crate) fn check_shape(&self, seed: SegmentSeed) -> Result<(), DamageKind> {
        if self.header.purged {
            return Err(DamageKind::Unsupported);
        }
        let count = usize::from(self.header.count);
        let length = usize::try_from(self.header.length).map_err(|_| DamageKind::TableChecksum)?;
        if count == 0 {
            return if length == FRAME_HEADER_BYTES {
                Ok(())
            } else {
                Err(DamageKind::TableEntry)
            };
        }
        let table = self
            .bytes
            .get(FRAME_HEADER_BYTES..self.header.payloads_at());
        let table = table.ok_or(DamageKind::TableChecksum)?;
        if seed.checksum(self.at, table) != self.header.table_checksum {
            return Err(DamageKind::TableChecksum);
        }
        let ends_with_frame = self
            .payload_range(count - 1)
            .is_some_and(|(range, _)| range.end == length);
        if !ends_with_frame {
            return Err(DamageKind::TableEntry);
        }
        let padding = self.bytes.get(length..).ok_or(DamageKind::Padding)?;
        if padding.iter().any(|&byte| byte != 0) {
            return Err(DamageKind::Padding);
        }
        Ok(())
    }
}

impl StoredRecord {
    /// Takes a payload whose checksum is to be this one.
    pub(crate) fn checked(
        frame: FrameHeader,
        index: usize,
        payload: Bytes,
        checksum: u32,
    ) -> Result<Self, DamageKind> {
        check_payload(&payload, checksum)?;
        Ok(Self {
            frame,
            index,
            payload,
        })
    }

    /// Returns the header of the frame that the record stands in.
    pub fn frame(&self) -> &FrameHeader {
        &self.frame
    }

    /// Returns the record's index in its frame.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Returns the stored payload: a slice of the mapping or of the write buffer, not a copy.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Returns the stored payload, and lets go of the rest.
    pub fn into_payload(self) -> Bytes {
        self.payload
    }

    /// Returns the record's position.
    pub fn position(&self) -> Position {
        let index = u64::try_from(self.index).expect("an index fits in 64 bits");
        Position::new(self.frame.base_position.get() + index)
    }

    fn payload_bytes(&self) -> u32 {
        u32::try_from(self.payload.len()).expect("a frame is smaller than 4 GiB")
    }
}

fn check_payload(payload: &[u8], checksum: u32) -> Result<(), DamageKind> {
    if crc32c::crc32c(payload) == checksum {
        Ok(())
    } else {
        Err(DamageKind::PayloadChecksum)
    }
}

// Unencrypted payloads are content: what is printed says where they are.
impl fmt::Debug for FrameView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameView")
            .field("header", &self.header)
            .field("segment", &self.segment)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for StoredRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredRecord")
            .field("frame", &self.frame)
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}
