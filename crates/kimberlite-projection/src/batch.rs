//! A run of the log, as projections are given it.

use kimberlite_types::{Offset, Position, RecordKind, StreamId, Timestamp};

use crate::ProjectionError;

/// What the records of a frame have in common.
///
/// Record `i` of `count` has position `position + i` and offset `offset + i`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameSummary {
    /// What the records are.
    pub kind: RecordKind,
    /// The position of the first.
    pub position: Position,
    /// How many there are; none in an idle watermark.
    pub count: u32,
    /// The stream that they belong to.
    pub stream: Option<StreamId>,
    /// The offset of the first in its stream.
    pub offset: Option<Offset>,
    /// When they were written.
    pub time: Timestamp,
}

/// A run of the log without a gap: frames that follow each other.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    first: Position,
    end: Position,
    frames: &'a [FrameSummary],
}

impl<'a> Batch<'a> {
    /// Makes a batch of the frames that begin at position `first`.
    ///
    /// # Errors
    ///
    /// [`ProjectionError::Gap`], [`ProjectionError::Repeated`] or [`ProjectionError::PastEnd`] when
    /// the frames do not follow each other.
    pub fn new(first: Position, frames: &'a [FrameSummary]) -> Result<Self, ProjectionError> {
        let mut end = first;
        for frame in frames {
            check_next(end, frame.position)?;
            end = end
                .checked_add(u64::from(frame.count))
                .ok_or(ProjectionError::PastEnd {
                    position: frame.position,
                    count: frame.count,
                })?;
        }
        Ok(Self { first, end, frames })
    }

    /// Returns the position of the first record.
    pub const fn first(&self) -> Position {
        self.first
    }

    /// Returns the position after the last record.
    pub const fn end(&self) -> Position {
        self.end
    }

    /// Returns the frames in position order.
    pub const fn frames(&self) -> &'a [FrameSummary] {
        self.frames
    }

    /// Checks that the batch begins at position `applied`: what every projection does first.
    ///
    /// # Errors
    ///
    /// [`ProjectionError::Gap`] when it begins later, [`ProjectionError::Repeated`] when earlier.
    pub fn follows(&self, applied: Position) -> Result<(), ProjectionError> {
        check_next(applied, self.first)
    }
}

fn check_next(expected: Position, found: Position) -> Result<(), ProjectionError> {
    match found.cmp(&expected) {
        core::cmp::Ordering::Equal => Ok(()),
        core::cmp::Ordering::Less => Err(ProjectionError::Repeated { expected, found }),
        core::cmp::Ordering::Greater => Err(ProjectionError::Gap { expected, found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(position: u64, count: u32) -> FrameSummary {
        FrameSummary {
            kind: RecordKind::Checkpoint,
            position: Position::new(position),
            count,
            stream: None,
            offset: None,
            time: Timestamp::default(),
        }
    }

    fn check(first: u64, frames: &[(u64, u32)]) -> Result<u64, String> {
        let frames: Vec<_> = frames.iter().map(|&(at, count)| frame(at, count)).collect();
        Batch::new(Position::new(first), &frames)
            .map(|batch| batch.end().get())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_batch_is_a_run_without_gap_or_repetition() {
        assert_eq!(check(7, &[]), Ok(7));
        assert_eq!(check(7, &[(7, 2), (9, 0), (9, 1)]), Ok(10));
        assert!(check(7, &[(8, 1)]).unwrap_err().contains("left out"));
        assert!(
            check(7, &[(7, 2), (10, 1)])
                .unwrap_err()
                .contains("left out")
        );
        assert!(
            check(7, &[(7, 2), (8, 1)])
                .unwrap_err()
                .contains("repeated")
        );
        assert_eq!(check(u64::MAX - 2, &[(u64::MAX - 2, 1)]), Ok(u64::MAX - 1));
        assert!(
            check(u64::MAX - 2, &[(u64::MAX - 2, 2)])
                .unwrap_err()
                .contains("past the end")
        );
    }
}
