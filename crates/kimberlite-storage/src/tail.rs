//! The newest frames, kept in memory: readers of fresh records touch no file.

use std::collections::VecDeque;
use std::sync::Arc;

use kimberlite_types::Position;

use crate::budget::Budget;
use crate::frame::FrameView;

/// Frames without a gap up to the newest, bounded by their bytes.
///
/// Where the tails of all logs are too large together, the one that grows lets go of its oldest.
#[derive(Debug)]
pub(crate) struct Tail {
    frames: VecDeque<FrameView>,
    bytes: u64,
    bytes_max: u64,
    budget: Arc<Budget>,
}

impl Tail {
    pub(crate) fn new(bytes_max: usize, budget: &Arc<Budget>) -> Self {
        let bytes_max = u64::try_from(bytes_max).expect("memory is smaller than 2^64 bytes");
        Self {
            frames: VecDeque::new(),
            bytes: 0,
            bytes_max,
            budget: Arc::clone(budget),
        }
    }

    /// Adds the frame that follows on the newest, and lets go of the oldest that no longer fit.
    pub(crate) fn push(&mut self, frame: FrameView) {
        if let Some(last) = self.frames.back() {
            debug_assert_eq!(last.header().end_position(), frame.header().base_position);
        }
        let bytes = frame.header().stored_bytes();
        self.bytes += bytes;
        let mut is_too_large = self.budget.tail_grew(bytes);
        self.frames.push_back(frame);
        while self.bytes > self.bytes_max || is_too_large {
            let Some(still) = self.pop_oldest() else {
                break;
            };
            is_too_large = still;
        }
    }

    /// Lets go of the oldest frame; whether all tails together are too large still.
    fn pop_oldest(&mut self) -> Option<bool> {
        let bytes = self.frames.pop_front()?.header().stored_bytes();
        self.bytes -= bytes;
        Some(self.budget.tail_shrank(bytes))
    }

    /// Lets go of all frames before `end`, so that they are read from their files.
    pub(crate) fn let_go_before(&mut self, end: Position) {
        while let Some(oldest) = self.frames.front()
            && oldest.header().end_position() <= end
        {
            self.pop_oldest();
        }
    }

    /// Returns the frame that holds `position`, when it is still here.
    pub(crate) fn frame(&self, position: Position) -> Option<&FrameView> {
        self.frames.get(self.index(position)?)
    }

    /// Returns the frame that holds `position` with up to `before` frames before it and `after`
    /// behind it, none that ends behind `end`, and which of them it is.
    pub(crate) fn around(
        &self,
        position: Position,
        [before, after]: [usize; 2],
        end: Position,
    ) -> Option<(Vec<FrameView>, usize)> {
        let index = self.index(position)?;
        let first = index.saturating_sub(before);
        let frames = self
            .frames
            .range(first..self.frames.len().min(index + 1 + after));
        let visible = frames.take_while(|frame| frame.header().end_position() <= end);
        let around = visible.cloned().collect::<Vec<_>>();
        (first + around.len() > index).then_some((around, index - first))
    }

    fn index(&self, position: Position) -> Option<usize> {
        // Most of a log is older than its tail.
        let oldest = self.frames.front()?;
        if position < oldest.header().base_position {
            return None;
        }
        let after = self
            .frames
            .partition_point(|frame| frame.header().base_position <= position);
        let index = after.checked_sub(1)?;
        let frame = self.frames.get(index)?;
        (position < frame.header().end_position()).then_some(index)
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.budget.tail_shrank(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use kimberlite_types::{ChainHash, LogId, RecordFlags, RecordKind, Timestamp};

    use super::*;
    use crate::frame::{FRAME_HEADER_BYTES, FrameHeader};

    fn frame(base: u64, count: u16) -> FrameView {
        let mut header = FrameHeader::watermark(
            Position::new(base),
            Timestamp::default(),
            ChainHash::new([0; 32]),
            [0; LogId::PREFIX_BYTES],
        );
        header.kind = Some(RecordKind::Event);
        header.flags = RecordFlags::PLAIN;
        header.count = count;
        FrameView::new(
            header,
            Position::ZERO,
            base * 1000,
            &vec![0; FRAME_HEADER_BYTES].into(),
        )
        .unwrap()
    }

    #[test]
    fn the_newest_frames_that_fit_are_found_by_position() {
        let mut tail = Tail::new(FRAME_HEADER_BYTES * 3, &Arc::default());
        for n in 0..10 {
            tail.push(frame(n * 5, 5));
        }
        assert!(tail.frame(Position::new(34)).is_none());
        for position in 35..50 {
            let found = tail.frame(Position::new(position)).unwrap();
            assert_eq!(found.header().base_position.get(), position / 5 * 5);
        }
        assert!(tail.frame(Position::new(50)).is_none());
        tail.let_go_before(Position::new(44));
        assert!(tail.frame(Position::new(39)).is_none());
        assert!(tail.frame(Position::new(40)).is_some());
    }

    #[test]
    fn all_tails_together_are_bounded_and_give_back_what_they_took() {
        let bytes = u64::try_from(FRAME_HEADER_BYTES).unwrap();
        let budget = Arc::new(Budget::new(1, 4 * bytes));
        let mut tails = [0, 1].map(|_| Tail::new(FRAME_HEADER_BYTES * 10, &budget));
        for n in 0..3 {
            tails[0].push(frame(n * 5, 5));
        }
        for n in 0..10 {
            tails[1].push(frame(n * 5, 5));
            assert!(budget.tail_bytes() <= 4 * bytes);
        }
        assert!(tails[0].frame(Position::new(0)).is_some());
        assert!(tails[1].frame(Position::new(45)).is_some());
        assert!(tails[1].frame(Position::new(44)).is_none());
        drop(tails);
        assert_eq!(budget.tail_bytes(), 0);
    }

    #[test]
    fn a_frame_larger_than_the_tail_is_not_kept() {
        let mut tail = Tail::new(FRAME_HEADER_BYTES - 1, &Arc::default());
        tail.push(frame(0, 5));
        assert!(tail.frame(Position::new(0)).is_none());
    }
}
