//! A segment that is no longer appended to, opened when it is first read.
//!
//! An opening that begins at a snapshot reads nothing of the segments before it: their header page
//! and their seal are read with their first record. A seal is anybody's to write, so that its index
//! is a hint: what it does not find is looked for from the segment's first frame.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use kimberlite_disk::{Disk, DiskError, DiskFile, OpenMode};
use kimberlite_types::{LogId, Position};

use super::{
    FRAMES_AT, Floor, SEGMENT_HEADER_BYTES, SealFile, Segment, SegmentHeader, SegmentHeaderError,
    SparseIndex, segment_name, segment_path,
};
use crate::damage::{Damage, DamageKind};
use crate::error::StorageError;
use crate::options::ReadMode;
use crate::scan::{Depth, Found, Window};

/// Which records a closed segment holds, and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedExtent {
    /// Position of the first record.
    pub(crate) base: Position,
    /// Position after the last record.
    pub(crate) end: Position,
    /// Bytes of the file.
    pub(crate) file_bytes: u64,
    /// Byte after the last frame.
    pub(crate) frames_end: u64,
}

/// A segment that is no longer appended to.
#[derive(Debug)]
pub(crate) struct ClosedSegment {
    pub(crate) extent: ClosedExtent,
    opened: OnceLock<OpenedSegment>,
    /// Whether it was read since the budget looked at it last.
    is_read: AtomicBool,
    /// Whether the budget counts it.
    is_counted: AtomicBool,
    /// Where it lies, for one that is not open yet.
    files: Option<Arc<ClosedFiles>>,
}

/// A closed segment with its file and its index.
#[derive(Debug)]
pub(crate) struct OpenedSegment {
    pub(crate) segment: Segment,
    pub(crate) index: SparseIndex,
    /// Byte after the last frame. A purge may have written the segment anew since its extent was noted.
    pub(crate) frames_end: u64,
    /// Whether the index is the word of a seal.
    pub(crate) by_seal: bool,
}

/// Where closed segments are opened from.
#[derive(Debug)]
pub(crate) struct ClosedFiles {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) log_dir: PathBuf,
    pub(crate) log_id: LogId,
    pub(crate) index_stride_bytes: u64,
    pub(crate) read_mode: ReadMode,
}

impl ClosedSegment {
    /// Takes a segment whose frames were read up to their end.
    pub(crate) fn read(
        segment: Segment,
        end: Position,
        frames_end: u64,
        index: SparseIndex,
    ) -> Self {
        let extent = ClosedExtent {
            base: segment.base(),
            end,
            file_bytes: segment.header.segment_bytes,
            frames_end,
        };
        let opened = OpenedSegment {
            segment,
            index: index.closed(),
            frames_end,
            by_seal: false,
        };
        Self {
            extent,
            opened: OnceLock::from(opened),
            is_read: AtomicBool::new(true),
            is_counted: AtomicBool::new(false),
            files: None,
        }
    }

    /// Takes one whose file nobody has opened yet.
    pub(crate) fn unread(extent: ClosedExtent, files: Arc<ClosedFiles>) -> Self {
        Self {
            extent,
            opened: OnceLock::new(),
            is_read: AtomicBool::new(true),
            is_counted: AtomicBool::new(false),
            files: Some(files),
        }
    }

    /// Opens it, if nobody has before.
    ///
    /// # Errors
    ///
    /// [`StorageError::Corrupt`] when its header page is damaged or of another segment. Damage among
    /// its frames is found by whoever reads them.
    pub(crate) fn open(&self) -> Result<&OpenedSegment, StorageError> {
        if let Some(opened) = self.opened() {
            return Ok(opened);
        }
        let files = self.files.as_ref();
        let files = files.expect("a segment that is not open knows where it lies");
        let opened = files.open(&self.extent)?;
        Ok(self.opened.get_or_init(|| opened))
    }

    /// Notes that it is read.
    #[inline]
    pub(crate) fn note_read(&self) {
        if !self.is_read.load(Ordering::Relaxed) {
            self.is_read.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it was read since this was asked last.
    pub(crate) fn take_read(&self) -> bool {
        self.is_read.swap(false, Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn is_counted(&self) -> bool {
        self.is_counted.load(Ordering::Relaxed)
    }

    /// Notes that it is counted; whether it was not before.
    pub(crate) fn count(&self) -> bool {
        !self.is_counted.swap(true, Ordering::Relaxed)
    }

    /// Returns it opened, if somebody has opened it.
    pub(crate) fn opened(&self) -> Option<&OpenedSegment> {
        self.opened.get()
    }

    /// Returns the bytes of memory that the index takes now.
    pub(crate) fn index_bytes(&self) -> usize {
        self.opened()
            .map_or(0, |opened| opened.index.memory_bytes())
    }
}

impl OpenedSegment {
    /// Returns where to look for the frame that holds `position`.
    pub(crate) fn floor(&self, position: Position) -> Floor {
        Floor {
            by_seal: self.by_seal,
            ..self.index.floor(self.segment.base(), position)
        }
    }
}

impl ClosedFiles {
    fn open(&self, extent: &ClosedExtent) -> Result<OpenedSegment, StorageError> {
        let path = segment_path(&self.log_dir, extent.base);
        let file = self.disk.open(&path, OpenMode::Read)?;
        let header = read_header(file.as_ref(), extent.base)?;
        let segment = Segment::new(header, file, self.read_mode);
        // Its size is that of its own header page: a purge may have written it anew.
        if segment.place() != (self.log_id, extent.base) {
            let damage = segment_damage(extent.base, DamageKind::ForeignSegment);
            return Err(StorageError::Corrupt(damage));
        }
        let seal = SealFile::read(self.disk.as_ref(), &self.log_dir, &segment.header);
        let seal = seal.filter(|seal| seal.history.position() == extent.end);
        let by_seal = seal.is_some();
        let (index, frames_end) = match seal {
            Some(seal) => (seal.index, seal.frames_end),
            None => self.walk(&segment, extent)?,
        };
        Ok(OpenedSegment {
            segment,
            index: index.closed(),
            frames_end,
            by_seal,
        })
    }

    /// Makes the index of a segment without a sound seal, up to where its frames can be read: that is
    /// returned too.
    fn walk(
        &self,
        segment: &Segment,
        extent: &ClosedExtent,
    ) -> Result<(SparseIndex, u64), StorageError> {
        let base = extent.base;
        tracing::warn!(
            segment = segment_name(base),
            "the segment's seal is missing or damaged: all its frames are read"
        );
        let window = Window {
            segment: &segment.header,
            start: 0,
            bytes: segment.whole()?,
        };
        let mut index = SparseIndex::new(self.index_stride_bytes);
        let (mut at, mut position) = (FRAMES_AT, base);
        while let Found::Group(frames) = window.group(at, position, Depth::Shape) {
            for frame in &frames {
                if frame.header().count > 0 {
                    index.note(base, frame.header().base_position, frame.at());
                }
                at = frame.at() + frame.header().stored_bytes();
                position = frame.header().end_position();
            }
        }
        Ok((index, at))
    }
}

/// Reads the header page of the segment at `base`. Without it there is nothing to go by.
pub(crate) fn read_header(
    file: &dyn DiskFile,
    base: Position,
) -> Result<SegmentHeader, StorageError> {
    let corrupt = |error| {
        let kind = DamageKind::SegmentHeader(error);
        StorageError::Corrupt(segment_damage(base, kind))
    };
    let mut page = [0; SEGMENT_HEADER_BYTES];
    match file.read_exact_at(&mut page, 0) {
        Err(DiskError::ShortRead { .. }) => return Err(corrupt(SegmentHeaderError::Short)),
        read => read?,
    }
    SegmentHeader::decode(&page).map_err(corrupt)
}

/// Returns damage that is to the segment at `base` as a whole.
pub(crate) fn segment_damage(base: Position, kind: DamageKind) -> Damage {
    Damage {
        segment: segment_name(base),
        byte: 0,
        position: base,
        kind,
    }
}
