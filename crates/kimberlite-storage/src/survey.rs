//! What a log consists of on disk, for people and tools that look at it from outside.

use kimberlite_disk::{Disk, OpenMode};
use kimberlite_types::Position;

use crate::error::StorageError;
use crate::reader::LogReader;
use crate::segment::{ClosedSegment, seal_path, segment_name, segment_path};

/// The state of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentState {
    /// Frames are appended to it.
    Active,
    /// The next one exists, its seal does not yet.
    Closed,
    /// It never changes again.
    Sealed,
}

/// One segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentSummary {
    /// The file's name.
    pub name: String,
    /// Its state.
    pub state: SegmentState,
    /// Position of its first record.
    pub base: Position,
    /// Position after its last visible record.
    pub end: Position,
    /// Size of the file in bytes.
    pub file_bytes: u64,
    /// Bytes that are used, the header page included.
    pub used_bytes: u64,
}

impl LogReader {
    /// Lists the segments in order.
    ///
    /// # Errors
    ///
    /// [`StorageError::Disk`] when the directory cannot be read.
    pub fn segments(&self, disk: &dyn Disk) -> Result<Vec<SegmentSummary>, StorageError> {
        let (closed, active) = {
            let view = self.shared.view();
            let active = SegmentSummary {
                name: segment_name(view.active.base()),
                state: SegmentState::Active,
                base: view.active.base(),
                end: view.end.max(view.active.base()),
                file_bytes: view.active.header.segment_bytes,
                used_bytes: view.active_end,
            };
            (view.closed.clone(), active)
        };
        let mut segments = Vec::with_capacity(closed.len() + 1);
        for closed in &closed {
            segments.push(self.closed_summary(disk, closed)?);
        }
        segments.push(active);
        Ok(segments)
    }

    fn closed_summary(
        &self,
        disk: &dyn Disk,
        closed: &ClosedSegment,
    ) -> Result<SegmentSummary, StorageError> {
        let base = closed.extent.base;
        let sealed = disk.exists(&seal_path(&self.shared.files.log_dir, base))?;
        Ok(SegmentSummary {
            name: segment_name(base),
            state: if sealed {
                SegmentState::Sealed
            } else {
                SegmentState::Closed
            },
            base,
            end: closed.extent.end,
            file_bytes: closed.extent.file_bytes,
            used_bytes: closed.extent.frames_end,
        })
    }

    /// Returns the bytes of memory that the index of positions takes now: closed segments have one
    /// once they were written or read.
    pub fn index_bytes(&self) -> usize {
        let view = self.shared.view();
        let closed = view.closed.iter().map(|closed| closed.index_bytes());
        closed.sum::<usize>() + view.index.memory_bytes()
    }

    /// Whether frames were written behind the end that this reader knows, by another process.
    ///
    /// # Errors
    ///
    /// [`StorageError::Disk`] when a file cannot be read.
    pub fn has_grown(&self, disk: &dyn Disk) -> Result<bool, StorageError> {
        let (active, active_end, end) = {
            let view = self.shared.view();
            (view.active.clone(), view.active_end, view.end)
        };
        let next = segment_path(&self.shared.files.log_dir, end);
        if end > active.base() && disk.exists(&next)? {
            return Ok(true);
        }
        let mut magic = [0; 8];
        let readable = active_end + 8 <= active.header.segment_bytes;
        if readable {
            // By its name: a writer may have put a new file in the place of one without frames.
            let path = segment_path(&self.shared.files.log_dir, active.base());
            let file = disk.open(&path, OpenMode::Read)?;
            file.read_exact_at(&mut magic, active_end)?;
        }
        Ok(magic != [0; 8])
    }
}
