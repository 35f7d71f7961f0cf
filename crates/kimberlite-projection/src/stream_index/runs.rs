//! The runs of a stream, as they are handed out.

use std::collections::VecDeque;
use std::iter::FusedIterator;

use kimberlite_types::{Offset, Position};

use super::part::{Start, Stretch};

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

impl Run {
    /// Returns the position of the event at an offset, if it is one of these.
    pub fn position_of(&self, offset: Offset) -> Option<Position> {
        let nth = offset.get().checked_sub(self.offset.get())?;
        if nth >= self.count {
            return None;
        }
        self.position.checked_add(nth)
    }
}

/// The runs of a stream that hold a range of offsets, from either end.
#[derive(Clone, Debug, Default)]
pub struct Runs<'a> {
    pieces: VecDeque<Piece<'a>>,
}

impl<'a> Runs<'a> {
    /// Those of stretches that follow each other, cut to the offsets from `first` to `end`.
    pub(super) fn new(
        stretches: impl Iterator<Item = &'a Stretch>,
        (first, end): (u64, u64),
    ) -> Self {
        let pieces = stretches.filter_map(|stretch| Piece::cut(stretch, first, end));
        Self {
            pieces: pieces.collect(),
        }
    }
}

impl Iterator for Runs<'_> {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        let piece = self.pieces.front_mut()?;
        let run = piece.next();
        if piece.starts.is_empty() {
            self.pieces.pop_front();
        }
        run
    }
}

impl DoubleEndedIterator for Runs<'_> {
    fn next_back(&mut self) -> Option<Run> {
        let piece = self.pieces.back_mut()?;
        let run = piece.next_back();
        if piece.starts.is_empty() {
            self.pieces.pop_back();
        }
        run
    }
}

impl FusedIterator for Runs<'_> {}

/// What is left of the runs of a stretch.
#[derive(Clone, Debug)]
struct Piece<'a> {
    /// The first and the last of these may reach over the ends.
    starts: &'a [Start],
    /// The first offset that is left.
    first: u64,
    /// The offset after the last that is left.
    end: u64,
}

impl<'a> Piece<'a> {
    fn cut(stretch: &'a Stretch, first: u64, end: u64) -> Option<Self> {
        let (first, end) = (first.max(stretch.first()), end.min(stretch.end));
        if first >= end {
            return None;
        }
        let starts = &stretch.starts;
        let from = starts.partition_point(|start| start.offset <= first);
        let to = starts.partition_point(|start| start.offset < end);
        let from = from.checked_sub(1).expect("the stretch begins before it");
        Some(Self {
            starts: starts.get(from..to).unwrap_or_default(),
            first,
            end,
        })
    }

    fn next(&mut self) -> Option<Run> {
        let (start, rest) = self.starts.split_first()?;
        let end = rest.first().map_or(self.end, |next| next.offset);
        let run = cut(*start, self.first, end);
        self.first = end;
        self.starts = rest;
        Some(run)
    }

    fn next_back(&mut self) -> Option<Run> {
        let (start, rest) = self.starts.split_last()?;
        let run = cut(*start, self.first, self.end);
        self.end = run.offset.get();
        self.starts = rest;
        Some(run)
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
