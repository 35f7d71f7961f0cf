//! The runs of a stream, as they are handed out.

use std::iter::FusedIterator;

use kimberlite_types::{Offset, Position};

use super::Start;

/// Events of one stream that stand next to each other in the log: event `i` of `count` has offset
/// `offset + i` and position `position + i`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The offset of the first.
    pub offset: Offset,
    /// The position of the first.
    pub position: Position,
    /// How many there are, at least one.
    pub count: u64,
}

/// The runs of a stream that hold a range of offsets, from either end.
#[derive(Clone, Debug, Default)]
pub struct Runs<'a> {
    /// The runs that are left, the first and last of which may reach over the ends.
    starts: &'a [Start],
    /// The first offset that is left.
    first: u64,
    /// The offset after the last that is left.
    end: u64,
}

impl<'a> Runs<'a> {
    /// Makes the iterator over `starts`, the first of which holds `first`, the last `end - 1`.
    pub(super) fn new(starts: &'a [Start], first: u64, end: u64) -> Self {
        debug_assert!(first < end, "the range has offsets");
        Self { starts, first, end }
    }
}

/// Cuts the run that begins at `start` to the offsets from `first` to `end`.
fn cut(start: Start, first: u64, end: u64) -> Run {
    let offset = first.max(start.offset);
    debug_assert!(offset < end, "a run has events");
    Run {
        offset: Offset::new(offset),
        position: Position::new(start.position + (offset - start.offset)),
        count: end - offset,
    }
}

impl Iterator for Runs<'_> {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        let (start, rest) = self.starts.split_first()?;
        let end = rest.first().map_or(self.end, |next| next.offset);
        let run = cut(*start, self.first, end);
        self.first = end;
        self.starts = rest;
        Some(run)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.starts.len(), Some(self.starts.len()))
    }
}

impl DoubleEndedIterator for Runs<'_> {
    fn next_back(&mut self) -> Option<Run> {
        let (start, rest) = self.starts.split_last()?;
        let run = cut(*start, self.first, self.end);
        self.end = run.offset.get();
        self.starts = rest;
        Some(run)
    }
}

impl ExactSizeIterator for Runs<'_> {}
impl FusedIterator for Runs<'_> {}
