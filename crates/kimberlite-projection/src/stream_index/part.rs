//! Runs of a stretch of the log.

use hashbrown::HashMap;
use kimberlite_types::{Position, StreamId};

/// Where a run begins; it ends where the next one of its stream does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) offset: u64,
    pub(super) position: u64,
}

/// The runs of all streams between two positions.
#[derive(Clone, Debug, Default)]
pub struct Part {
    pub(super) first: Position,
    pub(super) runs: usize,
    pub(super) streams: HashMap<StreamId, Stretch>,
}

/// The runs of one stream in a part: at least one.
#[derive(Clone, Debug)]
pub(super) struct Stretch {
    pub(super) starts: Vec<Start>,
    /// Behind the last event.
    pub(super) end: u64,
}

impl Part {
    pub(super) fn new(first: Position) -> Self {
        Self {
            first,
            ..Self::default()
        }
    }

    /// Adds events that follow what is there of their stream.
    pub(super) fn append(&mut self, stream: StreamId, start: Start, count: u64) {
        debug_assert!(count > 0, "idle watermarks were passed over");
        let stretch = self.streams.entry(stream).or_insert(Stretch {
            starts: Vec::new(),
            end: start.offset,
        });
        debug_assert_eq!(
            stretch.end, start.offset,
            "a part leaves out no event of a stream"
        );
        if !stretch.is_followed_by(start) {
            stretch.starts.push(start);
            self.runs += 1;
        }
        stretch.end += count;
    }

    pub(super) fn stretch(&self, stream: StreamId) -> Option<&Stretch> {
        self.streams.get(&stream)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let starts = self
            .streams
            .values()
            .map(|stretch| stretch.starts.capacity());
        starts.sum::<usize>() * size_of::<Start>() + self.streams.allocation_size()
    }
}

impl Stretch {
    /// Whether a run that begins there would belong to the last one.
    fn is_followed_by(&self, next: Start) -> bool {
        self.starts
            .last()
            .is_some_and(|last| last.position + (self.end - last.offset) == next.position)
    }

    /// The offset of the first event.
    pub(super) fn first(&self) -> u64 {
        self.starts.first().map_or(self.end, |start| start.offset)
    }
}
