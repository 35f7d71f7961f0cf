//! Where the events of a stream stand in the log.
//!
//! How many events each stream has is in memory. Where they stand is in parts, each of a stretch of the log:
//! the newest ones in memory, and what is before [`StreamIndex::from`] in a store
//! ([`StreamRuns`]) where there is one. So a look-up asks the parts first; parts of which the store has
//! all are let go of here.
//!
//! What holds after each frame:
//!
//! 1. Streams stand in order of their ids, and `slots` finds each.
//! 2. Parts follow each other from `from` on up to `applied`; there is always one.
//! 3. The runs of a stream stand in order of offset and of position, and leave out no event behind the
//!    first one that is here.
//! 4. Where nothing is in a store, the first one that is here has offset 0.

mod part;
mod runs;
mod snapshot;
mod stored;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::ops::Range;

use hashbrown::HashMap;
use kimberlite_types::{Offset, Position, RecordKind, StreamId};

use self::part::{Start, Stretch};
use crate::{FrameRun, FrameSummary, IndexError};

pub use part::Part;
pub use runs::{Run, Runs};
pub use snapshot::SnapshotError;
pub use stored::{Frames, STREAM_RUNS_NAME, STREAM_RUNS_VERSION, StoredRuns, StreamRuns};

/// Parts that are kept apart, beside one that was filled from the log; where a store does not come along, the
/// last one grows.
const PARTS_MAX: usize = 8;

/// Finds events by stream and offset.
///
/// It costs up to 60 bytes a stream, and for each run of events that stand next to each other in the log and are not in a
/// store, however many they are, 16 bytes, or up to 140 where it is the only one of its stream in a part.
#[derive(Clone, Debug)]
pub struct StreamIndex {
    applied: Position,
    streams: Vec<Entry>,
    slots: HashMap<StreamId, usize>,
    parts: VecDeque<Part>,
    /// Runs of a part before the next one is begun.
    part_runs_max: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    id: StreamId,
    len: u64,
}

impl Default for StreamIndex {
    fn default() -> Self {
        Self {
            applied: Position::ZERO,
            streams: Vec::new(),
            slots: HashMap::new(),
            parts: VecDeque::from([Part::default()]),
            part_runs_max: usize::MAX,
        }
    }
}

impl StreamIndex {
    /// Makes the index of an empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// Has a part end after so many runs, so that what comes before can be let go of. By default there is
    /// one part of any size.
    pub fn split_after(&mut self, part_runs_max: usize) {
        self.part_runs_max = part_runs_max;
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

    /// Returns the position from which on events can be found here: where those before it stand is in a store.
    pub fn from(&self) -> Position {
        self.oldest().first
    }

    /// Returns the offset from which on the events of `stream` can be found here; its length where
    /// all are before [`from`](Self::from).
    pub fn found_from(&self, stream: StreamId) -> Offset {
        let first = self.stretches(stream).next().map(Stretch::first);
        Offset::new(first.unwrap_or_else(|| self.len(stream)))
    }

    /// Returns the position of the event at `offset` of `stream`, if it can be found here.
    pub fn position_of(&self, stream: StreamId, offset: Offset) -> Option<Position> {
        let end = offset.get().checked_add(1)?;
        let run = self.runs(stream, offset.get()..end).next()?;
        Some(run.position)
    }

    /// Returns the runs of `stream` that hold the given offsets, cut to them, in either direction.
    /// Offsets past the end, and those that cannot be found here, are left out.
    pub fn runs(&self, stream: StreamId, offsets: Range<u64>) -> Runs<'_> {
        Runs::new(self.stretches(stream), (offsets.start, offsets.end))
    }

    /// Returns how many events `stream` has; none when it does not exist.
    pub fn len(&self, stream: StreamId) -> u64 {
        let slot = self.slots.get(&stream);
        let entry = slot.and_then(|slot| self.streams.get(*slot));
        entry.map_or(0, |entry| entry.len)
    }

    /// Returns all streams and how many events each has, in the order in which they were created.
    pub fn streams(&self) -> impl DoubleEndedIterator<Item = (StreamId, u64)> + ExactSizeIterator {
        self.streams.iter().map(|entry| (entry.id, entry.len))
    }

    /// Returns how many runs are here.
    pub fn runs_here(&self) -> usize {
        self.parts.iter().map(|part| part.runs).sum()
    }

    /// Whether there are parts that may be let go of.
    pub fn is_split(&self) -> bool {
        self.parts.len() > 1
    }

    /// Lets go of what stands before `stored`, which is in a store, as far as whole parts do. They are
    /// returned, because freeing them takes a while.
    pub fn release(&mut self, stored: Position) -> Vec<Part> {
        let mut released = Vec::new();
        while let Some(next) = self.parts.get(1)
            && next.first <= stored
        {
            released.extend(self.parts.pop_front());
        }
        if self.parts.len() == 1 && self.applied <= stored && self.runs_here() > 0 {
            released.extend(self.parts.pop_front());
            self.parts.push_back(Part::new(self.applied));
        }
        released
    }

    /// Takes over from another index of the same log what is before [`from`](Self::from), where a store cannot say
    /// it; nothing where that one ends elsewhere. Freeing what is left of it takes a while.
    pub fn fill_from(&mut self, other: &mut Self) {
        let from = self.from();
        if from == Position::ZERO || other.from() > Position::ZERO || other.applied != from {
            return;
        }
        let filled = core::mem::replace(&mut other.parts, VecDeque::from([Part::default()]));
        for part in filled.into_iter().rev() {
            self.parts.push_front(part);
        }
    }

    /// Returns the bytes of memory that it takes.
    pub fn memory_bytes(&self) -> usize {
        let parts = self.parts.iter().map(Part::memory_bytes);
        parts.sum::<usize>()
            + self.streams.capacity() * size_of::<Entry>()
            + self.slots.allocation_size()
    }

    fn oldest(&self) -> &Part {
        self.parts.front().expect("there is always a part")
    }

    fn stretches(&self, stream: StreamId) -> impl Iterator<Item = &Stretch> {
        self.parts
            .iter()
            .filter_map(move |part| part.stretch(stream))
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
            self.streams.push(Entry { id, len: 0 });
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
        let start = Start {
            offset: entry.len,
            position: position.get(),
        };
        entry.len += u64::from(frame.count);
        self.newest(position)
            .append(stream, start, u64::from(frame.count));
        Ok(())
    }

    /// The part that takes the next frame, which begins at `position`.
    fn newest(&mut self, position: Position) -> &mut Part {
        let newest = self.parts.back().expect("there is always a part");
        if newest.runs >= self.part_runs_max && self.parts.len() < PARTS_MAX {
            self.parts.push_back(Part::new(position));
        }
        self.parts.back_mut().expect("there is always a part")
    }
}
