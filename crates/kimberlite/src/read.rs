//! Events as they are read.

use std::collections::VecDeque;
use std::fmt;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use bytes::Bytes;
use kimberlite_crypto::Envelope;
use kimberlite_projection::Run;
use kimberlite_storage::{FrameCursor, FrameHeader};
use kimberlite_types::{Offset, Position, RecordKind, StreamId, Timestamp};

use crate::error::Error;
use crate::streams::{End, Wanted};
use crate::tenant::{TenantInner, unreadable};

/// An event that was read.
///
/// Metadata and data are slices of one buffer: of the mapped file where events are not encrypted,
/// else of what was decrypted. Keeping one keeps that buffer.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    position: Position,
    stream: Option<StreamId>,
    offset: Offset,
    time: Timestamp,
    event_type: kimberlite_crypto::EventTypeText,
    metadata: Bytes,
    data: Bytes,
}

/// What the frame of a stored record says of it.
pub(crate) struct RecordPlace<'a> {
    pub(crate) frame: &'a FrameHeader,
    pub(crate) nth: u32,
    pub(crate) position: Position,
}

impl<'a> RecordPlace<'a> {
    /// Returns the place of the record at `position`, which is in this frame.
    pub(crate) fn new(frame: &'a FrameHeader, position: Position) -> Self {
        let nth = position.get() - frame.base_position.get();
        Self {
            frame,
            nth: u32::try_from(nth).expect("a frame has at most 1024 records"),
            position,
        }
    }
}

impl RecordPlace<'_> {
    /// Returns where it stands in its stream.
    pub(crate) fn offset(&self) -> Offset {
        let base = self.frame.base_offset.map_or(0, Offset::get);
        Offset::new(base.wrapping_add(u64::from(self.nth)))
    }
}

impl Record {
    pub(crate) fn new(place: &RecordPlace<'_>, envelope: Envelope) -> Self {
        let frame = place.frame;
        Self {
            position: place.position,
            stream: frame.stream,
            offset: place.offset(),
            time: frame.time,
            event_type: envelope.event_type,
            metadata: envelope.metadata,
            data: envelope.data,
        }
    }

    /// Returns the bytes of what it says.
    pub(crate) fn bytes(&self) -> usize {
        self.event_type().len() + self.metadata.len() + self.data.len()
    }

    /// Returns where it stands in the tenant's log.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Returns where it stands in its stream.
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// Returns the stream that it belongs to.
    pub fn stream_id(&self) -> Option<StreamId> {
        self.stream
    }

    /// Returns when its writer says that it was appended.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// Returns its type.
    pub fn event_type(&self) -> &str {
        self.event_type.as_str()
    }

    /// Returns its metadata, empty when there is none.
    pub fn metadata(&self) -> &Bytes {
        &self.metadata
    }

    /// Returns its data.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// Returns its data, which is what most callers mean by payload.
    pub fn payload(&self) -> &Bytes {
        &self.data
    }
}

impl fmt::Debug for Record {
    // Content is secret; places are not.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("position", &self.position)
            .field("offset", &self.offset)
            .field("time", &self.time)
            .field("data_bytes", &self.data.len())
            .finish_non_exhaustive()
    }
}

/// Reads events one after another, from either end. What is appended after it was made is not seen.
///
/// After an error the iterator goes on behind the record that could not be read. An event whose payload
/// was purged is such an error, [`ErrorKind::Purged`](crate::ErrorKind::Purged). Where a damaged
/// log, opened for reading only, cannot be read to its end, one error stands for the rest.
pub struct RecordIter {
    tenant: Arc<TenantInner>,
    of: Of,
    next: u64,
    end: u64,
    frames: FrameCursor,
    /// Runs of the stream at either end.
    first: VecDeque<Run>,
    last: VecDeque<Run>,
    /// Whether the index led to something else than it said, once.
    is_misled: bool,
    /// Why what was asked for behind `end` cannot be read.
    unreadable: Option<Error>,
}

#[derive(Clone, Copy, Debug)]
enum Of {
    Nothing,
    Positions,
    Offsets(StreamId),
}

impl RecordIter {
    pub(crate) fn positions(
        tenant: Arc<TenantInner>,
        range: &impl RangeBounds<u64>,
        log_end: u64,
    ) -> Self {
        Self::new(tenant, Of::Positions, range, log_end)
    }

    pub(crate) fn offsets(
        tenant: Arc<TenantInner>,
        stream: Option<StreamId>,
        range: &impl RangeBounds<u64>,
        len: u64,
    ) -> Self {
        let of = stream.map_or(Of::Nothing, Of::Offsets);
        Self::new(tenant, of, range, len)
    }

    fn new(tenant: Arc<TenantInner>, of: Of, range: &impl RangeBounds<u64>, end_max: u64) -> Self {
        let (start, end) = bounds(range);
        let unreadable = if end > end_max && start < end {
            tenant.unreadable_end()
        } else {
            None
        };
        let end = end.min(end_max);
        Self {
            frames: FrameCursor::new(tenant.reader.clone()),
            first: VecDeque::new(),
            last: VecDeque::new(),
            is_misled: false,
            tenant,
            of,
            next: start.min(end),
            end,
            unreadable,
        }
    }

    /// Returns the number of what comes next: a position, or an offset in a stream.
    pub(crate) fn next_number(&self) -> u64 {
        self.next
    }

    /// Returns the position of what comes next at one end.
    fn position_at(&mut self, end: End) -> Result<Option<Position>, Error> {
        let nth = match end {
            End::First => self.next,
            End::Last => self.end - 1,
        };
        match self.of {
            Of::Nothing => Ok(None),
            Of::Positions => Ok(Some(Position::new(nth))),
            Of::Offsets(stream) => self.position_in(stream, Offset::new(nth), end),
        }
    }

    /// Returns where the event at an offset of a stream stands, which is the next one at one end.
    fn position_in(
        &mut self,
        stream: StreamId,
        offset: Offset,
        end: End,
    ) -> Result<Option<Position>, Error> {
        let runs = match end {
            End::First => &mut self.first,
            End::Last => &mut self.last,
        };
        loop {
            let run = match end {
                End::First => runs.front(),
                End::Last => runs.back(),
            };
            let Some(run) = run else { break };
            if let Some(position) = run.position_of(offset) {
                return Ok(Some(position));
            }
            match end {
                End::First => runs.pop_front(),
                End::Last => runs.pop_back(),
            };
        }
        *runs = self.tenant.runs(&Wanted {
            stream,
            offsets: self.next..self.end,
            end,
        })?;
        let position = |run: &Run| run.position_of(offset);
        Ok(runs.iter().find_map(position))
    }

    /// Reads what comes next at one end, which is then passed.
    fn step(&mut self, end: End) -> Result<Option<Step>, Error> {
        let position = match self.position_at(end) {
            Ok(position) => position,
            Err(error) => {
                // One error stands for all that cannot be found.
                self.next = self.end;
                return Err(error);
            }
        };
        let offset = match end {
            End::First => self.next,
            End::Last => self.end - 1,
        };
        let read = position.map_or(Ok(None), |position| self.read(position));
        let misleads = match self.of {
            Of::Offsets(stream) => !is_of(&read, stream, offset),
            Of::Positions | Of::Nothing => false,
        };
        if misleads && !self.is_misled {
            self.is_misled = true;
            self.tenant.misled();
            self.first.clear();
            self.last.clear();
            return self.step(end);
        }
        match end {
            End::First => self.next += 1,
            End::Last => self.end -= 1,
        }
        match read {
            // The log does not say so a second time.
            Ok(Some(_)) if misleads => {
                Err(unreadable("event", position.unwrap_or_default()).into())
            }
            read => read,
        }
    }

    /// Reads the event at `position`; where another record stands there, its positions.
    fn read(&mut self, position: Position) -> Result<Option<Step>, Error> {
        let Some(frame) = self.frames.frame(position)? else {
            return Ok(None);
        };
        if frame.header().kind != Some(RecordKind::Event) {
            let (base, end) = (frame.header().base_position, frame.header().end_position());
            return Ok(Some(Step::Over(base.get()..end.get())));
        }
        let Some((header, content)) = self.frames.content(position)? else {
            return Ok(None);
        };
        let record = self
            .tenant
            .open_record(&RecordPlace::new(header, position), content)?;
        Ok(Some(Step::To(record)))
    }
}

/// What stands where an event was looked for.
enum Step {
    To(Record),
    /// A frame of administrative records.
    Over(Range<u64>),
}

impl Iterator for RecordIter {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.next < self.end {
            match self.step(End::First) {
                Ok(None) => return None,
                Ok(Some(Step::To(record))) => return Some(Ok(record)),
                Ok(Some(Step::Over(frame))) => self.next = self.next.max(frame.end).min(self.end),
                Err(error) => return Some(Err(error)),
            }
        }
        self.unreadable.take().map(Err)
    }
}

impl DoubleEndedIterator for RecordIter {
    fn next_back(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.unreadable.take() {
            return Some(Err(error));
        }
        while self.next < self.end {
            match self.step(End::Last) {
                Ok(None) => return None,
                Ok(Some(Step::To(record))) => return Some(Ok(record)),
                Ok(Some(Step::Over(frame))) => self.end = self.end.min(frame.start).max(self.next),
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }
}

impl fmt::Debug for RecordIter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordIter")
            .field("of", &self.of)
            .field("next", &self.next)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

/// Whether what was read can be the event at this offset of a stream. What cannot be read says nothing.
fn is_of(read: &Result<Option<Step>, Error>, stream: StreamId, offset: u64) -> bool {
    match read {
        Ok(Some(Step::To(record))) => {
            record.stream == Some(stream) && record.offset == Offset::new(offset)
        }
        Ok(Some(Step::Over(_)) | None) => false,
        Err(_) => true,
    }
}

/// Returns the first number of a range, and the one after its last.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Unbounded => 0,
        Bound::Included(&start) => start,
        Bound::Excluded(&start) => start.saturating_add(1),
    };
    let end = match range.end_bound() {
        Bound::Unbounded => u64::MAX,
        Bound::Included(&end) => end.saturating_add(1),
        Bound::Excluded(&end) => end,
    };
    (start, end)
}
