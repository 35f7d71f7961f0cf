//! Reading a segment that is no longer appended to.

use std::sync::Arc;

use kimberlite_disk::OpenMode;
use kimberlite_types::Position;

use super::opening::Opening;
use crate::damage::DamageKind;
use crate::error::StorageError;
use crate::frame::FrameView;
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
            bytes: segment.mapped()?.clone(),
        };
        let depth = if seal.is_some() {
            Depth::Shape
        } else {
            Depth::Payloads
        };
        let mut index = SparseIndex::default();
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
            if seal.is_none() {
                self.hash(&segment, &frames)?;
            }
        }
        self.check_size(&segment)?;
        self.close(segment, seal, ClosedEnd { next, at, index });
        Ok(())
    }

    fn close(&mut self, segment: Segment, seal: Option<SealFile>, end: ClosedEnd) {
        let closed = Arc::new(ClosedSegment {
            segment,
            end: end.next,
            frames_end: end.at,
            index: end.index,
        });
        if let Some(seal) = seal {
            self.history = self.history.take().map(|_| seal.history);
        } else if self.mode == OpenMode::ReadWrite {
            let history = self.history.clone();
            self.unsealed
                .extend(history.map(|history| (Arc::clone(&closed), history)));
        } else {
            // An observer hashes nothing.
            self.history = None;
        }
        self.closed.push(closed);
    }
}

/// Where a closed segment ends, and its index.
struct ClosedEnd {
    next: Position,
    at: u64,
    index: SparseIndex,
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
