//! Reading a frame without copying it.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use kimberlite_crypto::{chain_next, payload_digests};
use kimberlite_types::{ChainHash, KeyedAppend, LeafHash, PayloadDigest, Position};

use super::{FRAME_HEADER_BYTES, FrameHeader, StoredPiece};
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
    content: Content,
}

/// What is stored of a payload.
#[derive(Clone, PartialEq, Eq)]
pub enum Content {
    /// The payload.
    Payload(Bytes),
    /// What is left of it.
    Purged(PurgedPayload),
}

/// What is left of a payload that was purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PurgedPayload {
    /// How many bytes it had.
    pub bytes: u32,
    /// Their SHA-256, which stands in the record's leaf.
    pub digest: PayloadDigest,
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
        Ok(StoredRecord {
            frame: self.header,
            index: self.index_of(position),
            content: self.content(position)?,
        })
    }

    /// Returns what is stored of the payload of the record at `position`, its checksum checked.
    ///
    /// # Errors
    ///
    /// As [`FrameView::record`].
    ///
    /// # Panics
    ///
    /// When the record is not in this frame.
    pub fn content(&self, position: Position) -> Result<Content, Damage> {
        let index = self.index_of(position);
        self.content_at(index).map_err(|kind| {
            let byte = self.piece_at(index).map_or(self.at, |bytes| bytes.start);
            Damage {
                segment: segment_name(self.segment),
                byte,
                position,
                kind,
            }
        })
    }

    /// Returns what is stored of the payload of the record at `position`, whose checksum was checked
    /// before.
    pub(crate) fn content_unchecked(&self, position: Position) -> Option<Content> {
        let piece = self.piece(self.index_of(position))?;
        let stored = self.bytes.slice(piece.range.clone());
        Some(Content::of(&self.header, &piece, stored))
    }

    /// Whether the checksums of all that is stored of payloads match.
    pub(crate) fn is_sound(&self) -> bool {
        (0..usize::from(self.header.count)).all(|index| {
            let stored = self.piece(index).and_then(|piece| {
                let stored = self.bytes.get(piece.range.clone())?;
                piece.check(stored).ok()
            });
            stored.is_some()
        })
    }

    fn index_of(&self, position: Position) -> usize {
        let index = position.get().checked_sub(self.header.base_position.get());
        let index = index.and_then(|index| usize::try_from(index).ok());
        let index = index.filter(|&index| index < usize::from(self.header.count));
        index.expect("the position is in the frame")
    }

    /// Returns what is stored of the payload at `index` in the frame, its checksum checked.
    pub(crate) fn content_at(&self, index: usize) -> Result<Content, DamageKind> {
        let piece = self.piece(index).ok_or(DamageKind::TableEntry)?;
        let stored = self.bytes.slice(piece.range.clone());
        piece.check(&stored)?;
        Ok(Content::of(&self.header, &piece, stored))
    }

    /// Returns the bytes of all stored payloads; a purged frame has none.
    pub(crate) fn payload_bytes(&self) -> u64 {
        if self.header.purged {
            return 0;
        }
        let payloads_at = u64::try_from(self.header.payloads_at());
        u64::from(self.header.length) - payloads_at.expect("a table is smaller than 2^64 bytes")
    }

    /// Returns the leaves of all records, the checksums of their payloads checked.
    pub(crate) fn leaves(&self) -> Result<Vec<LeafHash>, Damage> {
        let positions = self.header.base_position.get()..self.header.end_position().get();
        let records = positions.map(|position| self.record(Position::new(position)));
        let records = records.collect::<Result<Vec<_>, _>>()?;
        Ok(self.header.leaves(&digests_of(&records)))
    }

    /// Returns the chain after the frame, by its own word of the chain before it.
    pub(crate) fn chain_after(&self) -> Result<ChainHash, Damage> {
        let before = self.header.chain_before;
        let leaves = self.leaves()?;
        let chain = leaves.iter();
        Ok(chain.fold(before, |chain, leaf| chain_next(&chain, leaf)))
    }

    /// Returns the bytes of the frame in which what is stored of the record at `index` stands.
    pub(crate) fn piece_at(&self, index: usize) -> Option<Range<u64>> {
        let range = self.piece(index)?.range;
        let at = |byte| u64::try_from(byte).ok().map(|byte| self.at + byte);
        Some(at(range.start)?..at(range.end)?)
    }

    fn piece(&self, index: usize) -> Option<StoredPiece> {
        let entries = self.bytes.get(self.header.entries_of(index))?;
        self.header.stored_piece(index, entries)
    }

    /// Returns the table with the key behind it, for a frame whose shape was checked.
    pub(super) fn table(&self) -> Bytes {
        self.bytes.slice(self.header.table())
    }

    /// Returns the append that begins with this frame, if it carried an idempotency key.
    pub fn keyed(&self) -> Option<KeyedAppend> {
        if !self.header.keyed {
            return None;
        }
        let table = self.bytes.get(self.header.table())?;
        KeyedAppend::decode(table.last_chunk()?)
    }

    /// Whether the key that it carries, if it does, is that of an append of which these events can be
    /// a part.
    fn is_key_sound(&self) -> bool {
        let header = &self.header;
        !header.keyed
            || self.keyed().is_some_and(|append| {
                let count = u32::from(header.count);
                append.count == count || (append.count > count && header.more)
            })
    }

    /// Returns all of its bytes behind the header.
    pub(super) fn body(&self) -> Bytes {
        self.bytes.slice(FRAME_HEADER_BYTES..)
    }

    /// Checks the table, that its payloads fill the frame, and that the padding is zero; payloads
    /// are not read.
    pub(crate) fn check_shape(&self, seed: SegmentSeed) -> Result<(), DamageKind> {
        let count = usize::from(self.header.count);
        let length = usize::try_from(self.header.length).map_err(|_| DamageKind::TableChecksum)?;
        if count == 0 {
            return if length == FRAME_HEADER_BYTES {
                Ok(())
            } else {
                Err(DamageKind::TableEntry)
            };
        }
        let table = self.bytes.get(self.header.table());
        let table = table.ok_or(DamageKind::TableChecksum)?;
        if seed.checksum(self.at, table) != self.header.table_checksum {
            return Err(DamageKind::TableChecksum);
        }
        let ends_with_frame = self
            .piece(count - 1)
            .is_some_and(|piece| piece.range.end == length);
        if !ends_with_frame {
            return Err(DamageKind::TableEntry);
        }
        if !self.is_key_sound() {
            return Err(DamageKind::KeyedAppend);
        }
        let padding = self.bytes.get(length..).ok_or(DamageKind::Padding)?;
        if padding.iter().any(|&byte| byte != 0) {
            return Err(DamageKind::Padding);
        }
        Ok(())
    }
}

impl StoredRecord {
    /// Takes what is stored in this piece of its frame, whose checksum is looked at.
    pub(crate) fn checked(
        frame: FrameHeader,
        index: usize,
        piece: &StoredPiece,
        stored: Bytes,
    ) -> Result<Self, DamageKind> {
        piece.check(&stored)?;
        Ok(Self {
            frame,
            index,
            content: Content::of(&frame, piece, stored),
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

    /// Returns the stored payload: a slice of the mapping or of the write buffer, not a copy. Empty
    /// where it was [purged](Self::purged).
    pub fn payload(&self) -> &Bytes {
        static NOTHING: Bytes = Bytes::new();
        self.content.payload().unwrap_or(&NOTHING)
    }

    /// Returns what is stored of the payload, and lets go of the rest.
    pub fn into_content(self) -> Content {
        self.content
    }

    /// Returns what is left of the payload when it was purged; that of an event alone can be.
    pub fn purged(&self) -> Option<PurgedPayload> {
        match self.content {
            Content::Purged(purged) => Some(purged),
            Content::Payload(_) => None,
        }
    }

    /// Returns the record's position.
    pub fn position(&self) -> Position {
        let index = u64::try_from(self.index).expect("an index fits in 64 bits");
        Position::new(self.frame.base_position.get() + index)
    }

    fn payload_bytes(&self) -> u32 {
        u32::try_from(self.payload().len()).expect("a frame is smaller than 4 GiB")
    }
}

/// Returns the digest and the length of the payload of each record of one frame: of a purged one as it
/// tells them.
pub(super) fn digests_of(records: &[StoredRecord]) -> Vec<(PayloadDigest, u32)> {
    let purged = records.iter().map(StoredRecord::purged);
    if let Some(purged) = purged.collect::<Option<Vec<_>>>() {
        let told = purged
            .into_iter()
            .map(|purged| (purged.digest, purged.bytes));
        return told.collect();
    }
    let digests = payload_digests(records.iter().map(|record| record.payload().as_ref()));
    let lengths = records.iter().map(StoredRecord::payload_bytes);
    digests.into_iter().zip(lengths).collect()
}

impl StoredPiece {
    /// Checks the bytes that stand in this piece.
    fn check(&self, stored: &[u8]) -> Result<(), DamageKind> {
        if crc32c::crc32c(stored) == self.checksum {
            Ok(())
        } else {
            Err(DamageKind::PayloadChecksum)
        }
    }
}

impl Content {
    /// The payload, if it is still there.
    pub fn payload(&self) -> Option<&Bytes> {
        match self {
            Self::Payload(payload) => Some(payload),
            Self::Purged(_) => None,
        }
    }

    /// Tells what the bytes of a piece of a frame are.
    fn of(frame: &FrameHeader, piece: &StoredPiece, stored: Bytes) -> Self {
        debug_assert_eq!(stored.len(), piece.range.len());
        match stored.first_chunk() {
            Some(digest) if frame.purged => Self::Purged(PurgedPayload {
                bytes: piece.payload_bytes,
                digest: PayloadDigest::new(*digest),
            }),
            _ => {
                debug_assert!(!frame.purged, "a piece of a purged frame is a digest");
                Self::Payload(stored)
            }
        }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Payload(payload) => write!(f, "Payload({} bytes)", payload.len()),
            Self::Purged(purged) => purged.fmt(f),
        }
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
