//! Reading a segment that is no longer appended to.

use std::sync::Arc;

use kimberlite_disk::OpenMode;
use kimberlite_types::Position;

use super::opening::{BeforeCheckpoint, Opening};
use crate::damage::DamageKind;
use crate::error::StorageError;
use crate::frame::FrameView;
use crate::history::History;
use crate::scan::{BadGroup, Depth, Found, Window};
use crate::segment::{ClosedSegment, FRAMES_AT, SealFile, Segment, SparseIndex};

impl Opening<'_, '_> {
    pub(super) fn read_closed(
        &mut self,
        base: Position,
        next: Position,
    ) -> Result<(), StorageError> {
        let segment = self.open_segment(base)?;
        let seal = self
            .read_seal(&segment)
            .filter(|seal| seal.history.position() == next);
        let window = Window {
            segment: &segment.header,
            start: 0,
            bytes: segment.whole()?,
        };
        let behind = |history: &History| next > history.position();
        let (depth, before) = match &seal {
            None => (Depth::Payloads, Some(BeforeCheckpoint::Hash)),
            // The word of a seal is not enough for what is signed next.
            Some(_) if self.witnessed.as_ref().is_none_or(behind) => {
                (Depth::Payloads, Some(BeforeCheckpoint::Skip))
            }
            Some(_) => (Depth::Shape, None),
        };
        let depth = match self.mode {
            OpenMode::Read if seal.is_some() => Depth::Shape,
            _ => depth,
        };
        let mut index = SparseIndex::new(self.index_stride_bytes);
        let (mut at, mut position) = (FRAMES_AT, base);
        loop {
            let frames = match frames_up_to(&window, at, position, next, depth) {
                Ok(frames) if frames.is_empty() => break,
                Ok(frames) => frames,
                Err(bad) => {
                    self.damage
                        .push(segment.damage(bad.byte, bad.position, bad.kind));
                    self.history = None;
                    break;
                }
            };
            for frame in &frames {
                self.visit(frame)?;
                if frame.header().count > 0 {
                    index.note(base, frame.header().base_position, frame.at());
                }
                at = frame.at() + frame.header().stored_bytes();
                position = frame.header().end_position();
            }
            if let Some(before) = before {
                self.hash(&segment, &frames, before)?;
            }
        }
        self.check_size(&segment)?;
        let end = ClosedEnd {
            next,
            at,
            index,
            hashed: before.is_some(),
        };
        self.close(segment, seal, end);
        Ok(())
    }

    fn close(&mut self, segment: Segment, seal: Option<SealFile>, end: ClosedEnd) {
        let closed = Arc::new(ClosedSegment::read(segment, end.next, end.at, end.index));
        let computed = (end.hashed && self.mode == OpenMode::ReadWrite)
            .then(|| self.history.clone())
            .flatten();
        match (computed, seal) {
            // A seal that says otherwise is made anew.
            (Some(history), seal) if seal.as_ref().is_none_or(|it| it.history != history) => {
                self.unsealed.push((Arc::clone(&closed), history));
            }
            (Some(_), _) => {}
            (None, Some(seal)) => self.history = self.history.take().map(|_| seal.history),
            (None, None) => self.history = None,
        }
        self.closed.push(closed);
    }
}

/// Where a closed segment ends, and its index.
struct ClosedEnd {
    next: Position,
    at: u64,
    index: SparseIndex,
    /// Whether the history was carried over its frames.
    hashed: bool,
}

/// Reads the group that begins `at` in a closed segment whose frames end at position `next`; none
/// where they end.
fn frames_up_to(
    window: &Window<'_>,
    at: u64,
    position: Position,
    next: Position,
    depth: Depth,
) -> Result<Vec<FrameView>, BadGroup> {
    let bad = |kind| BadGroup {
        byte: at,
        position,
        kind,
        frame_at: at,
        piece: at..at,
    };
    match window.group(at, position, depth) {
        Found::Group(frames) => {
            let last = frames.last().expect("a group has a frame");
            if last.header().end_position() > next {
                return Err(bad(DamageKind::TrailingBytes));
            }
            Ok(frames)
        }
        Found::Nothing if position == next => Ok(Vec::new()),
        Found::Nothing => Err(bad(DamageKind::MissingFrames { expected: next })),
        Found::Bad(bad) => Err(bad),
    }
}
