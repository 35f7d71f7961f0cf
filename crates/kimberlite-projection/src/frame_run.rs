//! A run of the log, as the stream index is given it.

use kimberlite_types::{Offset, Position, RecordKind, StreamId, Timestamp};

use crate::IndexError;

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
pub struct FrameRun<'a> {
    first: Position,
    end: Position,
    frames: &'a [FrameSummary],
}

impl<'a> FrameRun<'a> {
    /// Makes a run of the frames that begin at position `first`.
    ///
    /// # Errors
    ///
    /// [`IndexError::Gap`], [`IndexError::Repeated`] or [`IndexError::PastEnd`] when
    /// the frames do not follow each other.
    pub fn new(first: Position, frames: &'a [FrameSummary]) -> Result<Self, IndexError> {
        let mut end = first;
        for frame in frames {
            check_next(end, frame.position)?;
            end = end
                .checked_add(u64::from(frame.count))
                .ok_or(IndexError::PastEnd {
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

    /// Checks that the run begins at position `applied`.
    ///
    /// # Errors
    ///
    /// [`IndexError::Gap`] when it begins later, [`IndexError::Repeated`] when earlier.
    pub fn follows(&self, applied: Position) -> Result<(), IndexError> {
        check_next(applied, self.first)
    }
}

fn check_next(expected: Position, found: Position) -> Result<(), IndexError> {
    match found.cmp(&expected) {
        core::cmp::Ordering::Equal => Ok(()),
        core::cmp::Ordering::Less => Err(IndexError::Repeated { expected, found }),
        core::cmp::Ordering::Greater => Err(IndexError::Gap { expected, found }),
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
        FrameRun::new(Position::new(first), &frames)
            .map(|run| run.end().get())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_run_has_no_gap_and_no_repetition() {
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
