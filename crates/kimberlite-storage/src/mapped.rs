//! Reading records out of a segment that is in memory from its first byte on.
//!
//! A look-up waits for memory three times: for the frame's header, its table and the payload. What
//! comes next is asked for before what came last is checked.

use std::hint::black_box;

use bytes::{Buf as _, Bytes};
use kimberlite_types::Position;

use crate::damage::{Damage, DamageKind};
use crate::error::StorageError;
use crate::frame::{FrameHeader, FrameStep, FrameView, StoredRecord};
use crate::reader::header_before;
use crate::segment::{Floor, Segment, SegmentSeed, segment_name};

/// The mapped bytes of a segment, whole frames only.
#[derive(Debug)]
pub(crate) struct Mapped {
    base: Position,
    seed: SegmentSeed,
    bytes: Bytes,
}

impl Mapped {
    pub(crate) fn new(segment: &Segment, bytes: Bytes) -> Self {
        Self {
            base: segment.base(),
            seed: segment.seed(),
            bytes,
        }
    }

    pub(crate) fn base(&self) -> Position {
        self.base
    }

    /// Reads the record at `position`, of which the index says this.
    pub(crate) fn record(
        self,
        floor: Floor,
        position: Position,
    ) -> Result<StoredRecord, StorageError> {
        self.ask_for(usize::try_from(floor.likely).ok());
        let (at, header) = self.find(floor, position)?;
        let corrupt = |byte, kind| self.corrupt(byte, position, kind);
        let frame = self.frame_bytes(at, &header, position)?;
        let index = position.get() - header.base_position.get();
        let index = usize::try_from(index).expect("a frame has at most 1024 records");
        let entries = frame.get(header.entries_of(index));
        let piece = entries
            .and_then(|entries| header.stored_piece(index, entries))
            .ok_or_else(|| corrupt(at, DamageKind::TableEntry))?;
        let begin = usize::try_from(at).expect("the frame is in memory");
        let byte = at + u64::try_from(piece.range.start).expect("a frame is smaller than 4 GiB");
        let (base, mut stored) = (self.base, self.bytes);
        stored.truncate(begin + piece.range.end);
        stored.advance(begin + piece.range.start);
        StoredRecord::checked(header, index, &piece, stored)
            .map_err(|kind| corrupt_at(base, byte, position, kind))
    }

    /// Reads the frame that holds `position`, of which the index says this.
    pub(crate) fn frame(
        &self,
        floor: Floor,
        position: Position,
    ) -> Result<FrameView, StorageError> {
        let (at, header) = self.find(floor, position)?;
        self.view(at, header, position)
    }

    /// Reads the frame that begins at byte `at`; `None` where the frames end.
    pub(crate) fn frame_at(&self, at: u64) -> Option<FrameView> {
        let bytes = self.bytes.get(usize::try_from(at).ok()?..)?;
        let header = FrameHeader::decode(bytes, self.seed, at).ok()?;
        self.view(at, header, self.base).ok()
    }

    /// Has a byte, if it is there, on its way from memory while other things are done.
    fn ask_for(&self, byte: Option<usize>) {
        black_box(byte.and_then(|byte| self.bytes.get(byte)).copied());
    }

    fn view(
        &self,
        at: u64,
        header: FrameHeader,
        position: Position,
    ) -> Result<FrameView, StorageError> {
        let frame = self.frame_bytes(at, &header, position)?;
        let bytes = self.bytes.slice_ref(frame);
        Ok(FrameView::of(header, self.base, at, bytes))
    }

    fn frame_bytes(
        &self,
        at: u64,
        header: &FrameHeader,
        position: Position,
    ) -> Result<&[u8], StorageError> {
        let from = usize::try_from(at).ok();
        let frame = from.and_then(|from| {
            let end = from.checked_add(usize::try_from(header.stored_bytes()).ok()?)?;
            self.bytes.get(from..end)
        });
        frame.ok_or_else(|| self.corrupt(at, position, DamageKind::CutFrame))
    }

    fn find(&self, floor: Floor, position: Position) -> Result<(u64, FrameHeader), StorageError> {
        floor.find(|from| match self.step(from, position) {
            Some(found) => Ok(found),
            None => self.walk(from, position),
        })
    }

    /// Steps over frame headers to the one with `position`, which alone is checked, for its place
    /// too. `None` when that leads nowhere.
    fn step(&self, mut at: u64, position: Position) -> Option<(u64, FrameHeader)> {
        loop {
            let bytes = self.bytes.get(usize::try_from(at).ok()?..)?;
            let step = FrameStep::peek(bytes)?;
            let nth = position.get().checked_sub(step.base)?;
            if nth < u64::from(step.count) {
                let local = usize::try_from(at).ok()?;
                self.ask_for(
                    step.payload_at(bytes, nth)
                        .and_then(|in_frame| local.checked_add(in_frame)),
                );
                let header = FrameHeader::decode(bytes, self.seed, at).ok()?;
                let holds = header.base_position.get() == step.base && header.count == step.count;
                return holds.then_some((at, header));
            }
            at += step.stored_bytes();
        }
    }

    /// Walks over frame headers likewise, and checks each, to tell what is wrong where.
    fn walk(&self, mut at: u64, position: Position) -> Result<(u64, FrameHeader), StorageError> {
        loop {
            let local = usize::try_from(at).ok().filter(|&at| at < self.bytes.len());
            let bytes = local.and_then(|local| self.bytes.get(local..));
            let bytes = bytes.ok_or_else(|| self.corrupt(at, position, DamageKind::CutFrame))?;
            let header = header_before(bytes, self.seed, at, position)
                .map_err(|kind| self.corrupt(at, position, kind))?;
            if position < header.end_position() {
                return Ok((at, header));
            }
            at += header.stored_bytes();
        }
    }

    fn corrupt(&self, byte: u64, position: Position, kind: DamageKind) -> StorageError {
        corrupt_at(self.base, byte, position, kind)
    }
}

fn corrupt_at(base: Position, byte: u64, position: Position, kind: DamageKind) -> StorageError {
    StorageError::Corrupt(Damage {
        segment: segment_name(base),
        byte,
        position,
        kind,
    })
}

#[cfg(test)]
mod tests {
    use kimberlite_testkit::SimulatedDisk;
    use kimberlite_types::{ChainHash, LogId, RecordFlags, RecordKind, Timestamp};

    use super::*;
    use crate::frame::{FrameBuilder, FramePlacement, FrameSite};
    use crate::history::History;
    use crate::options::ReadMode;
    use crate::segment::{FRAMES_AT, SegmentHeader};
    use kimberlite_disk::{Access, Disk as _};

    const COUNTS: [usize; 5] = [1, 1, 3, 1, 2];

    fn payload(position: u64) -> Vec<u8> {
        vec![u8::try_from(position).unwrap() + 1; 40]
    }

    /// The bytes of a segment with frames of so many records, and the segment.
    fn segment() -> (Segment, Vec<u8>) {
        let log_id = LogId::new([1; 32]);
        let header = SegmentHeader {
            log_id,
            base_position: Position::ZERO,
            base_chain: ChainHash::new([2; 32]),
            salt: [3; 16],
            segment_bytes: 1 << 18,
        };
        let mut bytes = header.encode();
        let mut history = History::start(&log_id);
        for count in COUNTS {
            let mut frame = FrameBuilder::new(RecordKind::Event, RecordFlags::PLAIN, count, 0);
            let base = history.position().get();
            for position in base..base + u64::try_from(count).unwrap() {
                frame.push(&payload(position));
            }
            let placement = FramePlacement {
                base_position: history.position(),
                stream: None,
                base_offset: None,
                time: Timestamp::default(),
                session: None,
                first_counter: u32::MAX,
            };
            let site = FrameSite {
                seed: header.seed(),
                at: u64::try_from(bytes.len()).unwrap(),
                log_id,
                durable_position: Position::ZERO,
                more: false,
            };
            bytes.extend(frame.build().finish(&placement, site, &mut history).bytes);
        }
        let disk = SimulatedDisk::new(1);
        let file = disk.create("/s".as_ref(), Access::Shared).unwrap();
        (Segment::new(header, file, ReadMode::Mapped), bytes)
    }

    fn read(segment: &Segment, bytes: &[u8], position: u64) -> Result<Bytes, StorageError> {
        let mapped = Mapped::new(segment, Bytes::copy_from_slice(bytes));
        let floor = Floor {
            likely: u64::MAX,
            ..Floor::at(FRAMES_AT)
        };
        let record = mapped.record(floor, Position::new(position))?;
        assert_eq!(record.position().get(), position);
        Ok(record.payload().clone())
    }

    #[test]
    fn every_flipped_byte_is_told_or_does_not_matter() {
        let (segment, bytes) = segment();
        let records = u64::try_from(COUNTS.iter().sum::<usize>()).unwrap();
        let mut told = 0;
        for position in 0..records {
            assert_eq!(read(&segment, &bytes, position).unwrap(), payload(position));
            for byte in usize::try_from(FRAMES_AT).unwrap()..bytes.len() {
                for mask in [0x01, 0x80] {
                    let mut bytes = bytes.clone();
                    bytes[byte] ^= mask;
                    match read(&segment, &bytes, position) {
                        Ok(found) => assert_eq!(found, payload(position), "byte {byte}"),
                        Err(_) => told += 1,
                    }
                }
            }
            for cut in usize::try_from(FRAMES_AT).unwrap()..bytes.len() {
                match read(&segment, &bytes[..cut], position) {
                    Ok(found) => assert_eq!(found, payload(position), "cut at {cut}"),
                    Err(_) => told += 1,
                }
            }
        }
        assert!(told > 1000);
        assert!(read(&segment, &bytes, records).is_err());
    }
}
