//! Reading a log by position, beside its writer and without waiting for it.
//!
//! A reader sees every record below [`LogReader::end`] and none above: the writer makes records
//! visible in one step, after they are written (and synced, see [`crate::Visibility`]). A reader
//! holds the shared view only while it looks a place up; bytes are read outside it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use kimberlite_disk::{Appender, DiskError};
use kimberlite_types::{ChainHash, LogId, Position};

use crate::budget::Budget;
use crate::damage::DamageKind;
use crate::error::StorageError;
use crate::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameView, StoredRecord};
use crate::mapped::Mapped;
use crate::options::ReadMode;
use crate::segment::{
    ClosedFiles, ClosedSegment, Floor, OpenedSegment, Segment, SegmentSeed, SparseIndex,
};
use crate::tail::Tail;

/// Bytes of the active segment behind its mapping, from which on a read that finds neither maps
/// them.
const UNMAPPED_BYTES_MAX: u64 = 1 << 20;

/// Reads behind the mapping, however few bytes there are, after which they are mapped.
const UNMAPPED_READS_MAX: u32 = 64;

/// What the writer and the readers of a log share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Which log it is, and where closed segments are opened from.
    pub(crate) files: Arc<ClosedFiles>,
    budget: Arc<Budget>,
    view: RwLock<View>,
    /// Reads that found neither the tail nor a mapping since the active segment was mapped last.
    unmapped_reads: AtomicU32,
}

/// Where every visible record stands.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) closed: Vec<Arc<ClosedSegment>>,
    pub(crate) active: Arc<Segment>,
    /// `None` where the active segment must not be mapped.
    pub(crate) active_map: Option<ActiveMap>,
    pub(crate) index: SparseIndex,
    /// Byte after the last frame that was written to the active segment.
    pub(crate) active_end: u64,
    pub(crate) tail: Tail,
    /// Readers see records below it.
    pub(crate) end: Position,
    /// Everything below it has been synced.
    pub(crate) durable: Position,
}

/// A mapping of the beginning of the active segment: of bytes that were written for good.
#[derive(Debug, Default)]
pub(crate) struct ActiveMap {
    bytes: Bytes,
    /// It holds the segment's records below.
    end: Position,
}

impl ActiveMap {
    /// Returns an empty one where the segment that `appender` appends to may be mapped.
    pub(crate) fn beside(appender: &Appender, read_mode: ReadMode) -> Option<Self> {
        let is_mapped = read_mode == ReadMode::Mapped && appender.writes_once();
        is_mapped.then(Self::default)
    }
}

impl Shared {
    pub(crate) fn new(files: Arc<ClosedFiles>, budget: Arc<Budget>, view: View) -> Arc<Self> {
        let opened: Vec<_> = view.closed.iter().map(Arc::clone).collect();
        let shared = Arc::new(Self {
            files,
            budget,
            view: RwLock::new(view),
            unmapped_reads: AtomicU32::new(0),
        });
        for closed in opened.iter().filter(|closed| closed.opened().is_some()) {
            shared.budget.opened(&shared, closed);
        }
        shared
    }

    /// Opens a closed segment, counted among those that all logs have open.
    pub(crate) fn open<'c>(
        self: &Arc<Self>,
        closed: &'c Arc<ClosedSegment>,
    ) -> Result<&'c OpenedSegment, StorageError> {
        closed.note_read();
        let opened = closed.open()?;
        self.budget.opened(self, closed);
        Ok(opened)
    }

    /// Counts a segment that was closed just now.
    pub(crate) fn count_closed(self: &Arc<Self>, closed: &Arc<ClosedSegment>) {
        self.budget.opened(self, closed);
    }

    /// Puts one that nobody has opened in the place of a closed segment, unless that was replaced
    /// already.
    pub(crate) fn close_segment(&self, base: Position, closed: &Arc<ClosedSegment>) {
        let unread = ClosedSegment::unread(closed.extent, Arc::clone(&self.files));
        let mut view = self.view_mut();
        let place = view.closed.binary_search_by_key(&base, |it| it.extent.base);
        let place = place.ok().and_then(|at| view.closed.get_mut(at));
        if let Some(place) = place.filter(|place| Arc::ptr_eq(place, closed)) {
            let old = std::mem::replace(place, Arc::new(unread));
            drop(view);
            // Unmapping takes its time, and is not done under the lock.
            drop(old);
        }
    }

    // A panic while the lock is held leaves the view as it was before or after one assignment, so
    // a poisoned lock is no reason to refuse reads.
    pub(crate) fn view(&self) -> RwLockReadGuard<'_, View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn view_mut(&self) -> RwLockWriteGuard<'_, View> {
        self.view.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Maps what has been written of the active segment, where enough was written or read since it
    /// was last mapped; `false` when it is left as it is.
    fn map_active(&self) -> bool {
        let (segment, bytes, end, mapped_bytes) = {
            let view = self.view();
            let Some(map) = &view.active_map else {
                return false;
            };
            let active = Arc::clone(&view.active);
            (active, view.active_end, view.end, map.bytes.len())
        };
        let reads = self.unmapped_reads.fetch_add(1, Ordering::Relaxed);
        let unmapped = bytes.saturating_sub(u64::try_from(mapped_bytes).unwrap_or(u64::MAX));
        if unmapped < UNMAPPED_BYTES_MAX && reads < UNMAPPED_READS_MAX {
            return false;
        }
        self.unmapped_reads.store(0, Ordering::Relaxed);
        // Without a mapping, of which the system has only so many, bytes are copied.
        let Ok(bytes) = segment.file.map(bytes) else {
            return false;
        };
        let mut view = self.view_mut();
        let is_active = Arc::ptr_eq(&view.active, &segment);
        let map = view
            .active_map
            .as_mut()
            .filter(|map| is_active && map.end < end);
        let older = map.map(|map| std::mem::replace(map, ActiveMap { bytes, end }));
        drop(view);
        // Unmapping takes its time, and is not done under the lock.
        older.is_some()
    }
}

/// Reads the records of a log. Clones are cheap and may be used on any thread.
#[derive(Clone, Debug)]
pub struct LogReader {
    pub(crate) shared: Arc<Shared>,
}

/// Where a record stands, or the nearest frame before it that the index knows.
pub(crate) enum Place {
    Tail(FrameView),
    Mapped {
        mapped: Mapped,
        floor: Floor,
    },
    Active {
        segment: Arc<Segment>,
        floor: Floor,
        end: u64,
    },
    /// A closed segment that is not in memory.
    Closed(Arc<ClosedSegment>),
}

impl LogReader {
    /// Returns which log this is.
    pub fn log_id(&self) -> LogId {
        self.shared.files.log_id
    }

    /// Returns the position after the last record that readers see.
    pub fn end(&self) -> Position {
        self.shared.view().end
    }

    /// Returns the position before which everything has been synced.
    pub fn durable(&self) -> Position {
        self.shared.view().durable
    }

    /// Reads the record at `position`; `None` when there is none yet.
    ///
    /// # Errors
    ///
    /// [`StorageError::Corrupt`] when its bytes are not what was written.
    pub fn record(&self, position: Position) -> Result<Option<StoredRecord>, StorageError> {
        let Some(place) = self.place(position)? else {
            return Ok(None);
        };
        // Of a large frame only what is asked for is read.
        let record = match place {
            Place::Tail(frame) => frame.record(position).map_err(StorageError::Corrupt)?,
            Place::Mapped { mapped, floor } => mapped.record(floor, position)?,
            Place::Active {
                segment,
                floor,
                end,
            } => record_in_file(&segment, floor, end, position)?,
            Place::Closed(closed) => {
                let opened = self.shared.open(&closed)?;
                let end = opened.frames_end;
                record_in_file(&opened.segment, opened.floor(position), end, position)?
            }
        };
        Ok(Some(record))
    }

    /// Reads the frame that holds `position`; `None` when there is none yet.
    ///
    /// # Errors
    ///
    /// [`StorageError::Corrupt`] when the frame's header, or one that leads to it, is damaged.
    pub fn frame(&self, position: Position) -> Result<Option<FrameView>, StorageError> {
        let Some(place) = self.place(position)? else {
            return Ok(None);
        };
        let frame = match place {
            Place::Tail(frame) => frame,
            Place::Mapped { mapped, floor } => mapped.frame(floor, position)?,
            Place::Active {
                segment,
                floor,
                end,
            } => walk_file(&segment, floor, end, position)?,
            Place::Closed(closed) => {
                let opened = self.shared.open(&closed)?;
                let end = opened.frames_end;
                walk_file(&opened.segment, opened.floor(position), end, position)?
            }
        };
        Ok(Some(frame))
    }

    /// Returns the chain hash before `position`; `None` where neither a frame begins nor the log ends.
    ///
    /// It is that of the frame behind, or is computed from the last one, as their headers say: nothing
    /// ahead of those is verified.
    ///
    /// # Errors
    ///
    /// As [`LogReader::frame`].
    pub fn chain_before(&self, position: Position) -> Result<Option<ChainHash>, StorageError> {
        if let Some(frame) = self.frame(position)? {
            let header = frame.header();
            return Ok((header.base_position == position).then_some(header.chain_before));
        }
        let Some(last) = position.get().checked_sub(1).map(Position::new) else {
            return Ok(None);
        };
        match self.frame(last)? {
            Some(frame) if frame.header().end_position() == position => {
                frame.chain_after().map(Some).map_err(StorageError::Corrupt)
            }
            _ => Ok(None),
        }
    }

    /// Finds the place of a record, and maps the segment that it stands in where it is to be.
    pub(crate) fn place(&self, position: Position) -> Result<Option<Place>, StorageError> {
        let place = match self.known_place(position) {
            Some(Place::Active { .. }) if self.shared.map_active() => self.known_place(position),
            known => known,
        };
        match place {
            Some(Place::Closed(closed)) if self.shared.files.read_mode == ReadMode::Mapped => {
                let opened = self.shared.open(&closed)?;
                Ok(Some(Place::Mapped {
                    mapped: Mapped::new(&opened.segment, opened.segment.mapped()?.clone()),
                    floor: opened.floor(position),
                }))
            }
            place => Ok(place),
        }
    }

    fn known_place(&self, position: Position) -> Option<Place> {
        let view = self.shared.view();
        if position >= view.end {
            return None;
        }
        if let Some(frame) = view.tail.frame(position) {
            return Some(Place::Tail(frame.clone()));
        }
        let base = view.active.base();
        if position >= base {
            let floor = view.index.floor(base, position);
            if let Some(map) = view.active_map.as_ref().filter(|map| position < map.end) {
                let mapped = Mapped::new(&view.active, map.bytes.clone());
                return Some(Place::Mapped { mapped, floor });
            }
            return Some(Place::Active {
                segment: Arc::clone(&view.active),
                floor,
                end: view.active_end,
            });
        }
        let after = view
            .closed
            .partition_point(|closed| closed.extent.end <= position);
        let closed = view.closed.get(after)?;
        if let Some(opened) = closed.opened()
            && let Some(map) = opened.segment.map_made()
        {
            closed.note_read();
            return Some(Place::Mapped {
                mapped: Mapped::new(&opened.segment, map.clone()),
                floor: opened.floor(position),
            });
        }
        Some(Place::Closed(Arc::clone(closed)))
    }
}

/// Walks frame headers of a segment's file from the floor to the one with `position`, up to byte
/// `end`.
pub(crate) fn walk_file(
    segment: &Segment,
    floor: Floor,
    end: u64,
    position: Position,
) -> Result<FrameView, StorageError> {
    let (at, header) = floor.find(|from| find_in_file(segment, from, end, position))?;
    let bytes = read_frame_bytes(segment, at, at, header.stored_bytes())?;
    let frame = FrameView::new(header, segment.base(), at, &bytes);
    Ok(frame.expect("all bytes of the frame were read"))
}

/// Reads one record of a segment's file, and no others of its frame.
fn record_in_file(
    segment: &Segment,
    floor: Floor,
    end: u64,
    position: Position,
) -> Result<StoredRecord, StorageError> {
    let (at, header) = floor.find(|from| find_in_file(segment, from, end, position))?;
    let corrupt = |kind| StorageError::Corrupt(segment.damage(at, position, kind));
    let read = |from: usize, bytes: usize| {
        let from = at + u64::try_from(from).expect("a frame is smaller than 4 GiB");
        let bytes = u64::try_from(bytes).expect("a frame is smaller than 4 GiB");
        read_frame_bytes(segment, at, from, bytes).map(|bytes| (from, bytes))
    };
    let index = position.get() - header.base_position.get();
    let index = usize::try_from(index).expect("a frame has at most 1024 records");
    let entries = header.entries_of(index);
    let (_, entries) = read(entries.start, entries.len())?;
    let piece = header
        .stored_piece(index, &entries)
        .ok_or_else(|| corrupt(DamageKind::TableEntry))?;
    let (byte, stored) = read(piece.range.start, piece.range.len())?;
    StoredRecord::checked(header, index, &piece, stored)
        .map_err(|kind| StorageError::Corrupt(segment.damage(byte, position, kind)))
}

/// Reads bytes of the frame that begins `frame_at`; a file that ends before them was cut.
fn read_frame_bytes(
    segment: &Segment,
    frame_at: u64,
    from: u64,
    bytes: u64,
) -> Result<Bytes, StorageError> {
    read_bytes(segment, from, bytes).map_err(|error| match error {
        DiskError::ShortRead { .. } => {
            let kind = DamageKind::CutFrame;
            StorageError::Corrupt(segment.damage(frame_at, segment.base(), kind))
        }
        other => other.into(),
    })
}

/// Finds the frame of a segment's file that holds `position`, and ends before byte `end`.
fn find_in_file(
    segment: &Segment,
    mut at: u64,
    end: u64,
    position: Position,
) -> Result<(u64, FrameHeader), StorageError> {
    loop {
        let corrupt = |kind| StorageError::Corrupt(segment.damage(at, position, kind));
        if at >= end {
            return Err(corrupt(DamageKind::CutFrame));
        }
        let bytes = read_frame_bytes(segment, at, at, FRAME_HEADER_BYTES as u64)?;
        let header = header_before(&bytes, segment.seed(), at, position).map_err(corrupt)?;
        let next = at + header.stored_bytes();
        if position >= header.end_position() {
            at = next;
        } else if next <= end {
            return Ok((at, header));
        } else {
            return Err(corrupt(DamageKind::CutFrame));
        }
    }
}

/// Reads a header that begins `at` in the segment with this seed, at or before the frame of `wanted`.
pub(crate) fn header_before(
    bytes: &[u8],
    seed: SegmentSeed,
    at: u64,
    wanted: Position,
) -> Result<FrameHeader, DamageKind> {
    let header = FrameHeader::decode(bytes, seed, at).map_err(DamageKind::FrameHeader)?;
    if header.base_position > wanted {
        let found = header.base_position;
        return Err(DamageKind::PositionGap {
            expected: wanted,
            found,
        });
    }
    Ok(header)
}

/// Reads `bytes` bytes of a segment's file from `at` on.
pub(crate) fn read_bytes(segment: &Segment, at: u64, bytes: u64) -> Result<Bytes, DiskError> {
    let mut buffer = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
    segment.file.read_exact_at(&mut buffer, at)?;
    Ok(Bytes::from(buffer))
}
