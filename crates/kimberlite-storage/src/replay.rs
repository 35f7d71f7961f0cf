//! Reading the frames of a log in order beside its writer, to make a snapshot of what they mean.

use kimberlite_disk::Disk;
use kimberlite_types::Position;

use crate::damage::DamageKind;
use crate::error::StorageError;
use crate::frame::FrameView;
use crate::open::Visitor;
use crate::reader::{LogReader, header_before, read_bytes};
use crate::scan::{Depth, Window};
use crate::segment::{ClosedExtent, Floor, Segment, seal_path};

impl LogReader {
    /// Returns the bytes of segments that are used.
    pub fn used_bytes(&self) -> u64 {
        let view = self.shared.view();
        let closed = view.closed.iter().map(|closed| closed.extent.frames_end);
        closed.sum::<u64>() + view.active_end
    }

    /// Returns the closed segments that end at or before `position`; `None` while one of them has
    /// no seal: an opening that passes it over would not make one.
    ///
    /// # Errors
    ///
    /// [`StorageError::Disk`] when the directory cannot be read.
    pub fn sealed_before(
        &self,
        disk: &dyn Disk,
        position: Position,
    ) -> Result<Option<Vec<ClosedExtent>>, StorageError> {
        let extents = {
            let view = self.shared.view();
            let extents = view.closed.iter().map(|closed| closed.extent);
            extents
                .take_while(|extent| extent.end <= position)
                .collect::<Vec<_>>()
        };
        for extent in &extents {
            if !disk.exists(&seal_path(&self.shared.files.log_dir, extent.base))? {
                return Ok(None);
            }
        }
        Ok(Some(extents))
    }

    /// Shows the frames from position `from` up to position `to`, which readers see, to a visitor,
    /// watermarks excepted. No payload is checked.
    ///
    /// # Errors
    ///
    /// [`StorageError::Corrupt`] when a frame cannot be read, and when none begins or ends there.
    /// [`StorageError::Replay`] when the visitor refuses a frame.
    pub fn replay(
        &self,
        from: Position,
        to: Position,
        visitor: &mut Visitor<'_>,
    ) -> Result<(), StorageError> {
        let (closed, active, floor, active_end) = {
            let view = self.shared.view();
            assert!(to <= view.end, "only what readers see can be replayed");
            let floor = view.index.floor(view.active.base(), from);
            let active = view.active.clone();
            (view.closed.clone(), active, floor, view.active_end)
        };
        let mut replay = Replay {
            position: from,
            to,
            visitor,
        };
        // Each is let go of before the next is opened.
        let closed = closed.into_iter().filter(|closed| closed.extent.end > from);
        for closed in closed.take_while(|closed| closed.extent.base < to) {
            let opened = self.shared.open(&closed)?;
            let segment = &opened.segment;
            let window = Window {
                segment: &segment.header,
                start: 0,
                bytes: segment.whole()?,
            };
            let floor = opened.floor(from);
            replay.segment(segment, &window, floor, closed.extent.end)?;
        }
        if active.base() < to {
            let window = Window {
                segment: &active.header,
                start: floor.from,
                bytes: read_bytes(&active, floor.from, active_end - floor.from)?,
            };
            replay.segment(&active, &window, floor, to)?;
        }
        assert_eq!(replay.position, to, "every frame was shown");
        Ok(())
    }
}

struct Replay<'a, 'v> {
    /// Position after the last record that was shown.
    position: Position,
    to: Position,
    visitor: &'a mut Visitor<'v>,
}

impl Replay<'_, '_> {
    /// Shows the frames of a segment up to position `end`, from the floor on, which is at or before
    /// the next that is to be shown.
    fn segment(
        &mut self,
        segment: &Segment,
        window: &Window<'_>,
        floor: Floor,
        end: Position,
    ) -> Result<(), StorageError> {
        let (mut at, first) = floor.find(|at| {
            header_before(window.from(at), segment.seed(), at, self.position)
                .map(|header| (at, header))
                .map_err(|kind| StorageError::Corrupt(segment.damage(at, self.position, kind)))
        })?;
        let mut expected = first.base_position;
        while expected < end.min(self.to) {
            let frame = window.frame(at, expected, Depth::Shape).map_err(|bad| {
                StorageError::Corrupt(segment.damage(bad.byte, bad.position, bad.kind))
            })?;
            at += frame.header().stored_bytes();
            expected = frame.header().end_position();
            self.show(&frame)?;
        }
        Ok(())
    }

    fn show(&mut self, frame: &FrameView) -> Result<(), StorageError> {
        let header = frame.header();
        let (base, end) = (header.base_position, header.end_position());
        if header.count == 0 || end <= self.position {
            return Ok(());
        }
        if base != self.position || end > self.to {
            let (expected, found) = (self.position, base);
            let kind = DamageKind::PositionGap { expected, found };
            return Err(StorageError::Corrupt(frame.damage(kind)));
        }
        self.position = end;
        (self.visitor)(frame).map_err(|source| StorageError::Replay {
            position: base,
            source,
        })
    }
}
