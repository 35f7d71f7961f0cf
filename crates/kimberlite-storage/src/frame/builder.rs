//! Making a frame: payloads are stored straight into the buffer that is written.

use std::fmt;

use bytes::Bytes;
use kimberlite_crypto::{leaf_hashes, payload_digests};
use kimberlite_types::{
    ChainHash, KeyedAppend, LeafHash, LogId, Offset, PayloadDigest, Position, RecordFlags,
    RecordHeader, RecordKind, SessionId, StreamId, Timestamp, limits,
};

use super::{FRAME_ALIGN, FRAME_HEADER_BYTES, FrameHeader, TableEntry, payloads_at};
use crate::history::History;
use crate::segment::SegmentSeed;

/// A frame whose payloads are being laid out.
///
/// The caller's thread fills it: each payload is written once, into the buffer that goes to the
/// disk, and may be sealed there.
pub struct FrameBuilder {
    kind: RecordKind,
    flags: RecordFlags,
    count: u16,
    keyed: bool,
    /// Where each payload ends, counted from the first payload byte.
    ends: Vec<u32>,
    buffer: Vec<u8>,
}

/// A frame whose payloads are final, without its place in the log: that is given to it when the
/// order is known.
pub struct UnplacedFrame {
    kind: RecordKind,
    flags: RecordFlags,
    keyed: bool,
    /// The digest of each payload, and how many bytes it has.
    payloads: Vec<(PayloadDigest, u32)>,
    /// Room for the header, the table, the key, the payloads.
    buffer: Vec<u8>,
}

/// Where a frame stands: what the kernel decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FramePlacement {
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
    /// The first record's number in its session.
    pub first_counter: u32,
}

/// What the log knows when it gives a frame its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameSite {
    pub(crate) seed: SegmentSeed,
    pub(crate) at: u64,
    pub(crate) log_id: LogId,
    pub(crate) durable_position: Position,
    pub(crate) more: bool,
}

/// A frame that is ready to be written.
#[derive(Clone)]
pub(crate) struct FinishedFrame {
    pub(crate) header: FrameHeader,
    /// Header, table, payloads and padding.
    pub(crate) bytes: Bytes,
}

impl FrameBuilder {
    /// Begins a frame of exactly `count` records whose payloads will take about `payload_bytes`.
    ///
    /// # Panics
    ///
    /// When `count` is 0 or more than [`limits::FRAME_RECORDS_MAX`]: the caller splits its records
    /// into frames.
    pub fn new(kind: RecordKind, flags: RecordFlags, count: usize, payload_bytes: usize) -> Self {
        assert!(
            count > 0 && count <= limits::FRAME_RECORDS_MAX,
            "a frame has 1 to 1024 records"
        );
        let payloads_at = payloads_at(count, false);
        let mut buffer = Vec::with_capacity(payloads_at + payload_bytes + FRAME_ALIGN);
        buffer.resize(payloads_at, 0);
        Self {
            kind,
            flags,
            count: u16::try_from(count).expect("a frame has at most 1024 records"),
            keyed: false,
            ends: Vec::with_capacity(count),
            buffer,
        }
    }

    /// Makes it the first frame of an append that carries an idempotency key.
    ///
    /// # Panics
    ///
    /// When it is not of events, has a key already, or a record was added: the key stands before them.
    #[must_use]
    pub fn keyed(mut self, append: &KeyedAppend) -> Self {
        assert!(
            self.kind == RecordKind::Event && !self.keyed && self.ends.is_empty(),
            "a key stands before the events"
        );
        self.keyed = true;
        self.buffer.extend_from_slice(&append.encode());
        self
    }

    /// Adds a record whose stored payload `write` appends to the buffer that it is given.
    ///
    /// # Errors
    ///
    /// Whatever `write` returns; the builder is of no use afterwards.
    ///
    /// # Panics
    ///
    /// When the frame has all its records already, or a payload is over its limit: the caller checks
    /// both.
    pub fn push_with<E>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        assert!(
            self.ends.len() < usize::from(self.count),
            "the frame is full"
        );
        let start = self.buffer.len();
        write(&mut self.buffer)?;
        let payload_bytes = self.buffer.len().checked_sub(start);
        let payload_bytes = payload_bytes.expect("a payload is appended to the buffer");
        assert!(
            payload_bytes <= limits::PAYLOAD_BYTES_MAX,
            "the caller checks payload sizes"
        );
        self.ends
            .push(narrow(self.buffer.len() - self.payloads_at()));
        Ok(())
    }

    /// Adds a record with this stored payload.
    ///
    /// # Panics
    ///
    /// As [`FrameBuilder::push_with`].
    pub fn push(&mut self, payload: &[u8]) {
        let pushed = self.push_with(|buffer| {
            buffer.extend_from_slice(payload);
            Ok::<(), std::convert::Infallible>(())
        });
        let Ok(()) = pushed;
    }

    /// Returns the payloads that were added, to be sealed where they stand.
    pub fn payloads_mut(&mut self) -> Vec<&mut [u8]> {
        let payloads_at = self.payloads_at();
        let mut rest = self.buffer.get_mut(payloads_at..).unwrap_or_default();
        let mut start = 0;
        let mut payloads = Vec::with_capacity(self.ends.len());
        for &end in &self.ends {
            let (payload, behind) = rest.split_at_mut(wide(end - start));
            payloads.push(payload);
            (rest, start) = (behind, end);
        }
        payloads
    }

    /// Ends the making: digests and checksums are computed, and the payloads are final.
    ///
    /// # Panics
    ///
    /// When not every record was added.
    pub fn build(self) -> UnplacedFrame {
        assert_eq!(
            self.ends.len(),
            usize::from(self.count),
            "every record was pushed"
        );
        let payloads_at = self.payloads_at();
        let Self {
            kind,
            flags,
            keyed,
            ends,
            mut buffer,
            ..
        } = self;
        let (head, payload_bytes) = buffer.split_at_mut(payloads_at);
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let ranges = starts
            .zip(&ends)
            .map(|(start, &end)| wide(start)..wide(end));
        let slices = ranges.map(|range| payload_bytes.get(range).unwrap_or_default());
        let slices = slices.collect::<Vec<_>>();
        let (_, table) = head.split_at_mut(FRAME_HEADER_BYTES);
        for ((entry, payload), &payload_end) in
            table.as_chunks_mut().0.iter_mut().zip(&slices).zip(&ends)
        {
            let checksum = crc32c::crc32c(payload);
            *entry = TableEntry {
                payload_end,
                checksum,
            }
            .encode();
        }
        let lengths = slices.iter().map(|payload| narrow(payload.len()));
        let digests = payload_digests(slices.iter().copied());
        let payloads = digests.into_iter().zip(lengths).collect();
        UnplacedFrame {
            kind,
            flags,
            keyed,
            payloads,
            buffer,
        }
    }

    fn payloads_at(&self) -> usize {
        payloads_at(usize::from(self.count), self.keyed)
    }
}

impl UnplacedFrame {
    /// Returns the bytes that the frame will take in its segment.
    pub fn stored_bytes(&self) -> usize {
        self.buffer.len().next_multiple_of(FRAME_ALIGN)
    }

    /// Returns the number of records.
    pub fn count(&self) -> u16 {
        u16::try_from(self.payloads.len()).expect("a frame has at most 1024 records")
    }

    /// Gives the frame its place, and carries chain and tree past its records.
    pub(crate) fn finish(
        mut self,
        placement: &FramePlacement,
        site: FrameSite,
        history: &mut History,
    ) -> FinishedFrame {
        assert_eq!(
            placement.base_position,
            history.position(),
            "a frame follows on the log"
        );
        let payloads_at = payloads_at(self.payloads.len(), self.keyed);
        let table = self
            .buffer
            .get(FRAME_HEADER_BYTES..payloads_at)
            .expect("the table is there");
        let header = FrameHeader {
            length: narrow(self.buffer.len()),
            table_checksum: site.seed.checksum(site.at, table),
            kind: Some(self.kind),
            flags: self.flags,
            purged: false,
            more: site.more,
            keyed: self.keyed,
            count: self.count(),
            first_counter: placement.first_counter,
            base_position: placement.base_position,
            stream: placement.stream,
            base_offset: placement.base_offset,
            time: placement.time,
            session: placement.session,
            durable_position: site.durable_position,
            chain_before: history.chain,
            log_prefix: site.log_id.prefix(),
        };
        history.extend(&header.leaves(&self.payloads));
        self.buffer
            .get_mut(..FRAME_HEADER_BYTES)
            .expect("the header stands first")
            .copy_from_slice(&header.encode(site.seed, site.at));
        self.buffer.resize(self.stored_bytes(), 0);
        FinishedFrame {
            header,
            bytes: Bytes::from(self.buffer),
        }
    }
}

impl fmt::Debug for UnplacedFrame {
    // Payloads may be stored unencrypted.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnplacedFrame")
            .field("kind", &self.kind)
            .field("count", &self.payloads.len())
            .field("bytes", &self.buffer.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for FrameBuilder {
    // Payloads may be stored unencrypted.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameBuilder")
            .field("kind", &self.kind)
            .field("count", &self.count)
            .field("bytes", &self.buffer.len())
            .finish_non_exhaustive()
    }
}

impl FrameHeader {
    /// Returns the leaves of the frame's records, by the digests and lengths of their payloads.
    pub(crate) fn leaves(&self, payloads: &[(PayloadDigest, u32)]) -> Vec<LeafHash> {
        let headers = payloads.iter().enumerate();
        let headers = headers.map(|(index, &(digest, bytes))| self.record(index, bytes, digest));
        let headers = headers.map(|header| header.encode()).collect::<Vec<_>>();
        leaf_hashes(&headers)
    }

    /// Returns the canonical header of the frame's record `index`.
    pub(crate) fn record(
        &self,
        index: usize,
        payload_bytes: u32,
        payload_digest: PayloadDigest,
    ) -> RecordHeader {
        debug_assert!(index < usize::from(self.count));
        let nth = u64::try_from(index).expect("an index fits in 64 bits");
        let nth_counter = u32::try_from(index).expect("a frame has at most 1024 records");
        RecordHeader {
            kind: self.kind.expect("a watermark has no records"),
            flags: self.flags,
            counter: self.first_counter.wrapping_add(nth_counter),
            position: Position::new(self.base_position.get() + nth),
            time: self.time,
            stream: self.stream,
            offset: self
                .base_offset
                .map(|base| Offset::new(base.get().wrapping_add(nth))),
            session: self.session,
            payload_bytes,
            payload_digest,
        }
    }

    /// Makes the frame that says, when the log falls quiet, that everything before `position` is
    /// durable.
    pub(crate) fn watermark(
        position: Position,
        time: Timestamp,
        chain: ChainHash,
        log_prefix: [u8; LogId::PREFIX_BYTES],
    ) -> Self {
        Self {
            length: narrow(FRAME_HEADER_BYTES),
            table_checksum: 0,
            kind: None,
            flags: RecordFlags::PLAIN,
            purged: false,
            more: false,
            keyed: false,
            count: 0,
            first_counter: u32::MAX,
            base_position: position,
            stream: None,
            base_offset: None,
            time,
            session: None,
            durable_position: position,
            chain_before: chain,
            log_prefix,
        }
    }
}

fn wide(bytes: u32) -> usize {
    usize::try_from(bytes).expect("a frame is addressable")
}

fn narrow(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a frame's size is limited well below 4 GiB")
}
