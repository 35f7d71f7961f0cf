//! Beginning an opening at a snapshot: what stands before it is believed to be there, by the names
//! and sizes of the files, and is read when somebody asks for it.

use std::sync::Arc;

use kimberlite_disk::OpenMode;
use kimberlite_types::Position;

use super::opening::{LastSegment, Opening, chain_at_end};
use crate::error::StorageError;
use crate::frame::FrameView;
use crate::history::History;
use crate::segment::{ClosedExtent, ClosedFiles, ClosedSegment, SealFile, seal_path};
use crate::snapshot::LogBase;

impl Opening<'_, '_> {
    /// Begins at `base`; returns how many of the segments, in order, are passed over.
    pub(super) fn begin_at(
        &mut self,
        base: &LogBase,
        segments: &[(Position, u64)],
    ) -> Result<usize, StorageError> {
        for (nth, extent) in base.closed.iter().enumerate() {
            let file = Some(&(extent.base, extent.file_bytes));
            let next = segments.get(nth + 1).map(|&(base, _)| base);
            if segments.get(nth) != file || next != Some(extent.end) {
                return Err(StorageError::SnapshotUnfit);
            }
        }
        if self.mode == OpenMode::ReadWrite {
            self.begin_history(base)?;
        }
        let files = Arc::new(ClosedFiles {
            disk: Arc::clone(self.disk),
            log_dir: self.log_dir.to_owned(),
            log_id: base.log_id,
            index_stride_bytes: self.index_stride_bytes,
            read_mode: self.read_mode,
        });
        let unread = |extent: &ClosedExtent| ClosedSegment::unread(*extent, Arc::clone(&files));
        self.closed = base.closed.iter().map(unread).map(Arc::new).collect();
        self.end = base.closed.last().map_or(Position::ZERO, |last| last.end);
        self.last_time = base.time;
        self.visited = base.position;
        self.log_id = Some(base.log_id);
        self.base = Some(base.clone());
        Ok(base.closed.len())
    }

    /// Takes the history at the end of the segments that are passed over from the last one's seal:
    /// up to the checkpoint it is what seals say, as in any opening, and computed from there on.
    ///
    /// A writer reads a log as a whole where a seal is missing, and makes it again.
    fn begin_history(&mut self, base: &LogBase) -> Result<(), StorageError> {
        let witnessed = self.witnessed.as_ref().map(History::position);
        if witnessed.is_none_or(|witnessed| witnessed < base.position) {
            return Err(StorageError::SnapshotUnfit);
        }
        for extent in &base.closed {
            if !self.disk.exists(&seal_path(self.log_dir, extent.base))? {
                return Err(StorageError::SnapshotUnfit);
            }
        }
        let Some(last) = base.closed.last() else {
            return Ok(());
        };
        let seal = SealFile::read_any(self.disk.as_ref(), self.log_dir, (base.log_id, last.base));
        let seal = seal.filter(|seal| seal.history.position() == last.end);
        let seal = seal.ok_or(StorageError::SnapshotUnfit)?;
        self.history = Some(seal.history);
        Ok(())
    }

    /// Whether what a frame means is in the snapshot that the opening began at. The first one that
    /// is not must follow on the very history that the snapshot was made of.
    pub(super) fn is_before_base(&mut self, frame: &FrameView) -> Result<bool, StorageError> {
        let Some(base) = &self.base else {
            return Ok(false);
        };
        let header = frame.header();
        if !self.damage.is_empty() {
            return Err(StorageError::SnapshotUnfit);
        }
        if header.base_position < base.position && header.end_position() <= base.position {
            return Ok(true);
        }
        if (header.base_position, header.chain_before) != (base.position, base.chain) {
            return Err(StorageError::SnapshotUnfit);
        }
        self.base = None;
        Ok(false)
    }

    /// Holds a log in which no frame stands behind the snapshot against it.
    pub(super) fn pass_base_at_end(&mut self, last: &LastSegment) -> Result<(), StorageError> {
        let Some(base) = self.base.take() else {
            return Ok(());
        };
        let chain = chain_at_end(&last.scan, &last.segment);
        let fits = (last.scan.end, chain) == (base.position, Some(base.chain));
        if fits && self.damage.is_empty() {
            Ok(())
        } else {
            Err(StorageError::SnapshotUnfit)
        }
    }
}
