//! Making a frame: payloads are stored straight into the buffer that is written.

use std::fmt;

use bytes::Bytes;
use kimberlite_crypto::payload_digest;
use kimberlite_types::{
    ChainHash, LogId, Offset, PayloadDigest, Position, RecordFlags, RecordHeader, RecordKind,
    SessionId, StreamId, Timestamp, limits,
};

use super::{FRAME_ALIGN, FRAME_HEADER_BYTES, FrameHeader, TABLE_ENTRY_BYTES, TableEntry};
use crate::history::History;
use crate::segment::SegmentSeed;

/// A frame in the making, without its place in the log.
///
/// The caller's thread fills it: each payload is written once, into the buffer that goes to the
/// disk. Its place is given later, when the order is known.
pub struct FrameBuilder {
    kind: RecordKind,
    flags: RecordFlags,
    count: u16,
    digests: Vec<PayloadDigest>,
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
        let payloads_at = FRAME_HEADER_BYTES + count * TABLE_ENTRY_BYTES;
        let mut buffer = Vec::with_capacity(payloads_at + payload_bytes + FRAME_ALIGN);
        buffer.resize(payloads_at, 0);
        Self {
            kind,
            flags,
            count: u16::try_from(count).expect("a frame has at most 1024 records"),
            digests: Vec::with_capacity(count),
            buffer,
        }
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
            self.digests.len() < usize::from(self.count),
            "the frame is full"
        );
        let start = self.buffer.len();
        write(&mut self.buffer)?;
        let payload = self
            .buffer
            .get(start..)
            .expect("a payload is appended to the buffer");
        assert!(
            payload.len() <= limits::PAYLOAD_BYTES_MAX,
            "the caller checks payload sizes"
        );
        let entry = TableEntry {
            payload_end: narrow(self.buffer.len() - self.payloads_at()),
            checksum: crc32c::crc32c(payload),
        };
        self.digests.push(payload_digest(payload));
        let entry_at = FRAME_HEADER_BYTES + (self.digests.len() - 1) * TABLE_ENTRY_BYTES;
        self.buffer
            .get_mut(entry_at..entry_at + TABLE_ENTRY_BYTES)
            .expect("the table stands before the payloads")
            .copy_from_slice(&entry.encode());
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

    /// Returns the bytes that the frame will take in its segment.
    pub fn stored_bytes(&self) -> usize {
        self.buffer.len().next_multiple_of(FRAME_ALIGN)
    }

    /// Returns the number of records that the frame was begun for.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// Whether all its records were pushed.
    pub(crate) fn is_full(&self) -> bool {
        self.digests.len() == usize::from(self.count)
    }

    fn payloads_at(&self) -> usize {
        FRAME_HEADER_BYTES + usize::from(self.count) * TABLE_ENTRY_BYTES
    }

    fn payload_end(&self, index: usize) -> u32 {
        let at = FRAME_HEADER_BYTES + index * TABLE_ENTRY_BYTES;
        let entry = self.buffer.get(at..).and_then(<[u8]>::first_chunk);
        TableEntry::decode(*entry.expect("every pushed record has its entry")).payload_end
    }

    /// Gives the frame its place, and carries chain and tree past its records.
    pub(crate) fn finish(
        mut self,
        placement: &FramePlacement,
        site: FrameSite,
        history: &mut History,
    ) -> FinishedFrame {
        assert_eq!(
            self.digests.len(),
            usize::from(self.count),
            "every record was pushed"
        );
        let payloads_at = self.payloads_at();
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
            count: self.count,
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
        let mut payload_start = 0;
        for (index, digest) in self.digests.iter().enumerate() {
            let payload_end = self.payload_end(index);
            let record = header.record(index, payload_end - payload_start, *digest);
            history.push(&record);
            payload_start = payload_end;
        }
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
        log_id: LogId,
    ) -> Self {
        Self {
            length: narrow(FRAME_HEADER_BYTES),
            table_checksum: 0,
            kind: None,
            flags: RecordFlags::PLAIN,
            purged: false,
            more: false,
            count: 0,
            first_counter: u32::MAX,
            base_position: position,
            stream: None,
            base_offset: None,
            time,
            session: None,
            durable_position: position,
            chain_before: chain,
            log_prefix: log_id.prefix(),
        }
    }
}

fn narrow(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a frame's size is limited well below 4 GiB")
}
