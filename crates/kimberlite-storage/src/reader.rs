//! Reading a log by position, beside its writer and without waiting for it.
//!
//! A reader sees every record below [`LogReader::end`] and none above: the writer makes records
//! visible in one step, after they are written (and synced, see [`crate::Visibility`]). A reader
//! holds the shared view only while it looks a place up; bytes are read outside it.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use kimberlite_disk::DiskError;
use kimberlite_types::{LogId, Position};

use crate::damage::DamageKind;
use crate::error::StorageError;
use crate::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameView, StoredRecord};
use crate::segment::{ClosedSegment, FRAMES_AT, OpenedSegment, Segment, SparseIndex};
use crate::tail::Tail;

/// What the writer and the readers of a log share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) log_id: LogId,
    pub(crate) log_dir: PathBuf,
    view: RwLock<View>,
}

/// Where every visible record stands.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) closed: Vec<Arc<ClosedSegment>>,
    pub(crate) active: Arc<Segment>,
    pub(crate) index: SparseIndex,
    /// Byte after the last frame that was written to the active segment.
    pub(crate) active_end: u64,
    pub(crate) tail: Tail,
    /// Readers see records below it.
    pub(crate) end: Position,
    /// Everything below it has been synced.
    pub(crate) durable: Position,
}

impl Shared {
    pub(crate) fn new(log_id: LogId, log_dir: PathBuf, view: View) -> Self {
        Self {
            log_id,
            log_dir,
            view: RwLock::new(view),
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
}

/// Reads the records of a log. Clones are cheap and may be used on any thread.
#[derive(Clone, Debug)]
pub struct LogReader {
    pub(crate) shared: Arc<Shared>,
}

enum Place {
    Tail(FrameView),
    Active {
        segment: Arc<Segment>,
        from: u64,
        end: u64,
    },
    Closed(Arc<ClosedSegment>),
}

impl LogReader {
    /// Returns which log this is.
    pub fn log_id(&self) -> LogId {
        self.shared.log_id
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
        let frame = match self.place(position) {
            None => return Ok(None),
            // Of a large frame in a file only what is asked for is read.
            Some(Place::Active { segment, from, end }) => {
                return record_in_file(&segment, from, end, position).map(Some);
            }
            Some(place) => frame_at(place, position)?,
        };
        let record = frame.record(position).map_err(StorageError::Corrupt)?;
        Ok(Some(record))
    }

    /// Reads the frame that holds `position`; `None` when there is none yet.
    ///
    /// # Errors
    ///
    /// [`StorageError::Corrupt`] when a frame header on the way there is damaged.
    pub fn frame(&self, position: Position) -> Result<Option<FrameView>, StorageError> {
        let place = self.place(position);
        place.map(|place| frame_at(place, position)).transpose()
    }

    fn place(&self, position: Position) -> Option<Place> {
        let view = self.shared.view();
        if position >= view.end {
            return None;
        }
        if let Some(frame) = view.tail.frame(position) {
            return Some(Place::Tail(frame.clone()));
        }
        let base = view.active.base();
        if position >= base {
            let from = view.index.floor(base, position);
            return Some(Place::Active {
                segment: Arc::clone(&view.active),
                from,
                end: view.active_end,
            });
        }
        let after = view
            .closed
            .partition_point(|closed| closed.extent.end <= position);
        view.closed.get(after).cloned().map(Place::Closed)
    }
}

fn frame_at(place: Place, position: Position) -> Result<FrameView, StorageError> {
    match place {
        Place::Tail(frame) => Ok(frame),
        Place::Active { segment, from, end } => walk_file(&segment, from, end, position),
        Place::Closed(segment) => frame_in_closed(segment.open()?, position),
    }
}

fn frame_in_closed(opened: &OpenedSegment, position: Position) -> Result<FrameView, StorageError> {
    let segment = &opened.segment;
    let from = opened.index.floor(segment.base(), position);
    match walk_mapping(segment, from, position) {
        // A seal may be wrong where the segment is not.
        Err(StorageError::Corrupt(damage)) if opened.by_seal && from > FRAMES_AT => {
            walk_mapping(segment, FRAMES_AT, position).map_err(|_| StorageError::Corrupt(damage))
        }
        walked => walked,
    }
}

/// Walks frame headers of a mapped segment from the one at byte `at` to the one with `position`.
fn walk_mapping(
    segment: &Segment,
    mut at: u64,
    position: Position,
) -> Result<FrameView, StorageError> {
    let map = segment.mapped()?;
    loop {
        let corrupt = |kind| StorageError::Corrupt(segment.damage(at, position, kind));
        let local = usize::try_from(at).ok().filter(|&local| local < map.len());
        let local = local.ok_or_else(|| corrupt(DamageKind::CutFrame))?;
        let bytes = map.get(local..).unwrap_or_default();
        let header = header_on_the_way(segment, bytes, at, position).map_err(corrupt)?;
        if position < header.end_position() {
            let frame = FrameView::new(header, segment.base(), at, &map.slice(local..));
            return frame.ok_or_else(|| corrupt(DamageKind::CutFrame));
        }
        at += header.stored_bytes();
    }
}

/// Walks frame headers of the active segment's file likewise, up to byte `end`.
pub(crate) fn walk_file(
    segment: &Segment,
    from: u64,
    end: u64,
    position: Position,
) -> Result<FrameView, StorageError> {
    let (at, header) = find_in_file(segment, from, end, position)?;
    let bytes = read_frame_bytes(segment, at, at, header.stored_bytes())?;
    let frame = FrameView::new(header, segment.base(), at, &bytes);
    Ok(frame.expect("all bytes of the frame were read"))
}

/// Reads one record of the active segment's file, and no others of its frame.
fn record_in_file(
    segment: &Segment,
    from: u64,
    end: u64,
    position: Position,
) -> Result<StoredRecord, StorageError> {
    let (at, header) = find_in_file(segment, from, end, position)?;
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
    let (range, checksum) = header
        .payload_range(&entries)
        .ok_or_else(|| corrupt(DamageKind::TableEntry))?;
    let (byte, payload) = read(range.start, range.len())?;
    StoredRecord::checked(header, index, payload, checksum)
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

/// Finds the frame of the active segment's file that holds `position`, and ends before byte `end`.
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
        let header = header_on_the_way(segment, &bytes, at, position).map_err(corrupt)?;
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

/// Reads a header that stands at or before the frame of `wanted`.
fn header_on_the_way(
    segment: &Segment,
    bytes: &[u8],
    at: u64,
    wanted: Position,
) -> Result<FrameHeader, DamageKind> {
    let header = FrameHeader::decode(bytes, segment.seed(), at).map_err(DamageKind::FrameHeader)?;
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
