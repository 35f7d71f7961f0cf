//! Where the events of a stream stand in the log.
//!
//! What holds after each frame:
//!
//! 1. Streams stand in order of their ids, and `slots` finds each.
//! 2. The runs of a stream stand in order of offset and of position, begin at offset 0, and none
//!    could be merged with the next.
//! 3. A run ends where the next one begins, the last one at the stream's length.

mod runs;
mod snapshot;
#[cfg(test)]
mod tests;

use std::ops::{Bound, RangeBounds};

use hashbrown::HashMap;
use kimberlite_types::{Offset, Position, RecordKind, StreamId};

use crate::{FrameRun, FrameSummary, IndexError};

pub use runs::{Run, Runs};
pub use snapshot::SnapshotError;

/// Finds events by stream and offset, in memory.
///
/// It costs 16 bytes for each run of events that stand next to each other in the log, however many
/// they are, and about 80 bytes a stream.
#[derive(Clone, Debug, Default)]
pub struct StreamIndex {
    applied: Position,
    streams: Vec<Entry>,
    slots: HashMap<StreamId, usize>,
}

#[derive(Clone, Debug)]
struct Entry {
    id: StreamId,
    len: u64,
    starts: Vec<Start>,
}

/// Where a run begins; it ends where the next one does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Start {
    offset: u64,
    position: u64,
}

impl StreamIndex {
    /// Makes the index of an empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in the frames of a run.
    ///
    /// # Errors
    ///
    /// [`IndexError::Gap`] and [`IndexError::Repeated`] when the run does not begin at
    /// [`applied`](Self::applied); nothing has changed then. Any other error means that the run
    /// cannot be taken in; [`applied`](Self::applied) says how far it was.
    pub fn apply(&mut self, run: &FrameRun<'_>) -> Result<(), IndexError> {
        run.follows(self.applied)?;
        for frame in run.frames() {
            debug_assert_eq!(frame.position, self.applied, "a run has no gaps");
            self.apply_frame(frame)?;
            self.applied = Position::new(frame.position.get() + u64::from(frame.count));
        }
        debug_assert_eq!(self.applied, run.end(), "the whole run was taken in");
        Ok(())
    }

    /// Returns how many records have been taken in: everything before this position.
    pub const fn applied(&self) -> Position {
        self.applied
    }

    /// Returns the position of the event at `offset` of `stream`, if there is one.
    pub fn position_of(&self, stream: StreamId, offset: Offset) -> Option<Position> {
        let entry = self.entry(stream)?;
        if offset.get() >= entry.len {
            return None;
        }
        let start = entry.starts.get(entry.run_of(offset.get()))?;
        Some(Position::new(
            start.position + (offset.get() - start.offset),
        ))
    }

    /// Returns the runs of `stream` that hold the given offsets, cut to them, in either direction.
    /// Offsets past the end are left out; a stream that does not exist has no runs.
    pub fn runs(&self, stream: StreamId, offsets: impl RangeBounds<Offset>) -> Runs<'_> {
        let Some(entry) = self.entry(stream) else {
            return Runs::default();
        };
        let first = match offsets.start_bound() {
            Bound::Unbounded => 0,
            Bound::Included(offset) => offset.get(),
            Bound::Excluded(offset) => offset.get().saturating_add(1),
        };
        let end = match offsets.end_bound() {
            Bound::Unbounded => entry.len,
            Bound::Included(offset) => entry.len.min(offset.get().saturating_add(1)),
            Bound::Excluded(offset) => entry.len.min(offset.get()),
        };
        if first >= end {
            return Runs::default();
        }
        let runs = entry.run_of(first)..=entry.run_of(end - 1);
        Runs::new(entry.starts.get(runs).unwrap_or_default(), first, end)
    }

    /// Returns how many events `stream` has; none when it does not exist.
    pub fn len(&self, stream: StreamId) -> u64 {
        self.entry(stream).map_or(0, |entry| entry.len)
    }

    /// Returns all streams and how many events each has, in the order in which they were created.
    pub fn streams(&self) -> impl DoubleEndedIterator<Item = (StreamId, u64)> + ExactSizeIterator {
        self.streams.iter().map(|entry| (entry.id, entry.len))
    }

    /// Returns the bytes of memory that the runs and the list of streams take.
    pub fn memory_bytes(&self) -> usize {
        let runs = self.streams.iter().map(|entry| entry.starts.capacity());
        runs.sum::<usize>() * size_of::<Start>()
            + self.streams.capacity() * size_of::<Entry>()
            + self.slots.allocation_size()
    }

    fn entry(&self, stream: StreamId) -> Option<&Entry> {
        self.streams.get(*self.slots.get(&stream)?)
    }

    fn apply_frame(&mut self, frame: &FrameSummary) -> Result<(), IndexError> {
        match frame.kind {
            // An idle watermark, which belongs to no stream.
            _ if frame.count == 0 => Ok(()),
            RecordKind::StreamCreated => self.create(frame),
            RecordKind::Event => self.append(frame),
            _ => Ok(()),
        }
    }

    fn create(&mut self, frame: &FrameSummary) -> Result<(), IndexError> {
        for index in 0..u64::from(frame.count) {
            let position = frame.position.checked_add(index);
            let position = position.ok_or(IndexError::PastEnd {
                position: frame.position,
                count: frame.count,
            })?;
            let id = StreamId::new(position);
            debug_assert!(
                self.streams.last().is_none_or(|last| last.id < id),
                "frames are applied in position order"
            );
            self.slots.insert(id, self.streams.len());
            self.streams.push(Entry {
                id,
                len: 0,
                starts: Vec::new(),
            });
        }
        Ok(())
    }

    fn append(&mut self, frame: &FrameSummary) -> Result<(), IndexError> {
        let position = frame.position;
        let (Some(stream), Some(found)) = (frame.stream, frame.offset) else {
            return Err(IndexError::NoStream { position });
        };
        let slot = self.slots.get(&stream);
        let entry = slot
            .and_then(|slot| self.streams.get_mut(*slot))
            .ok_or(IndexError::UnknownStream { position, stream })?;
        if found.get() != entry.len {
            return Err(IndexError::WrongOffset {
                position,
                stream,
                expected: Offset::new(entry.len),
                found,
            });
        }
        entry.append(position.get(), u64::from(frame.count));
        Ok(())
    }
}

impl Entry {
    /// Adds events, to the last run where they follow it in the log.
    fn append(&mut self, position: u64, count: u64) {
        debug_assert!(count > 0, "idle watermarks were passed over");
        let continues = self
            .starts
            .last()
            .is_some_and(|start| start.position + (self.len - start.offset) == position);
        if !continues {
            self.starts.push(Start {
                offset: self.len,
                position,
            });
        }
        self.len += count;
    }

    /// Returns the index of the run that holds `offset`, which lies before the end.
    fn run_of(&self, offset: u64) -> usize {
        debug_assert!(offset < self.len, "the offset lies before the end");
        let after = self.starts.partition_point(|start| start.offset <= offset);
        after
            .checked_sub(1)
            .expect("the first run begins at offset 0")
    }
}
