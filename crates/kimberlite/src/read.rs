//! Events as they are read.

use std::collections::VecDeque;
use std::fmt;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use kimberlite_crypto::Envelope;
use kimberlite_projection::Run;
use kimberlite_storage::{FrameCursor, FrameHeader};
use kimberlite_types::{Offset, Position, RecordKind, StreamId, Timestamp};

use crate::error::{Error, Problem};
use crate::streams::{End, RunsWanted, StoreNumber};
use crate::tenant::TenantInner;

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
/// log, opened for reading only, cannot be read to its end, one error stands for the rest. Where the events of
/// a stream cannot be found because the log is damaged before them and the store of their places is not there, one error
/// stands for all of these.
pub struct RecordIter {
    tenant: Arc<TenantInner>,
    of: Of,
    next: u64,
    end: u64,
    frames: FrameCursor,
    /// Runs of the stream at either end.
    first: HeldRuns,
    last: HeldRuns,
    /// The event of a stream that was found among those that are kept.
    kept: Option<Record>,
    /// How many purges had begun when this was made.
    purges: u64,
    /// Why what was asked for behind `end` cannot be read.
    unreadable: Option<Error>,
}

/// Runs that were looked up, and the store that they are from, if they are from one.
#[derive(Debug, Default)]
struct HeldRuns {
    runs: VecDeque<Run>,
    of: Option<StoreNumber>,
}

impl HeldRuns {
    /// Returns where the event at an offset stands, and lets go of the runs at that end that do not have it.
    fn find(&mut self, offset: Offset, end: End) -> Option<Position> {
        loop {
            let run = match end {
                End::First => self.runs.front(),
                End::Last => self.runs.back(),
            };
            if let Some(position) = run?.position_of(offset) {
                return Some(position);
            }
            match end {
                End::First => self.runs.pop_front(),
                End::Last => self.runs.pop_back(),
            };
        }
    }
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
            first: HeldRuns::default(),
            last: HeldRuns::default(),
            kept: None,
            purges: tenant.purges.load(Ordering::Acquire),
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

    /// Returns the number of what comes next at one end.
    fn number_at(&self, end: End) -> u64 {
        match end {
            End::First => self.next,
            End::Last => self.end - 1,
        }
    }

    /// Returns the position of what comes next at one end.
    fn position_at(&mut self, end: End) -> Result<Option<Position>, Error> {
        let nth = self.number_at(end);
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
        loop {
            let mut found = self.runs_at(end).find(offset, end);
            if found.is_none() {
                let (runs, of) = self.tenant.runs(&RunsWanted {
                    stream,
                    offsets: self.next..self.end,
                    end,
                })?;
                *self.runs_at(end) = HeldRuns { runs, of };
                found = self.runs_at(end).find(offset, end);
            }
            if found.is_some_and(|position| self.is_at(position, stream, offset)) {
                return Ok(found);
            }
            let Some(which) = self.runs_at(end).of else {
                return self.lost(offset);
            };
            // A store is not believed twice.
            self.tenant.misled(which);
            self.first = HeldRuns::default();
            self.last = HeldRuns::default();
        }
    }

    fn runs_at(&mut self, end: End) -> &mut HeldRuns {
        match end {
            End::First => &mut self.first,
            End::Last => &mut self.last,
        }
    }

    /// Whether the event at an offset of a stream stands there. A frame that cannot be read says nothing of that.
    fn is_at(&mut self, position: Position, stream: StreamId, offset: Offset) -> bool {
        self.kept = self.tenant.kept(position);
        if let Some(record) = &self.kept {
            return record.stream_id() == Some(stream) && record.offset() == offset;
        }
        match self.frames.frame(position) {
            Ok(Some(frame)) => {
                let header = frame.header();
                header.kind == Some(RecordKind::Event)
                    && header.stream == Some(stream)
                    && RecordPlace::new(header, position).offset() == offset
            }
            Ok(None) => false,
            Err(_) => true,
        }
    }

    /// What the log itself says is not there: behind the end of one that is damaged, or the index is wrong.
    fn lost(&self, offset: Offset) -> Result<Option<Position>, Error> {
        match self.tenant.unreadable_end() {
            Some(_) => Ok(None),
            None => Err(Problem::LostEvent { offset }.into()),
        }
    }

    /// Reads what comes next at one end, which is then passed.
    fn step(&mut self, end: End) -> Result<Option<Step>, Error> {
        let position = self.position_at(end);
        match end {
            _ if position.is_err() => self.pass_unfound(end),
            End::First => self.next += 1,
            End::Last => self.end -= 1,
        }
        match position? {
            Some(position) => self.read(position),
            None => Ok(None),
        }
    }

    /// Passes all that cannot be found, for which one error stands: what is in memory can be.
    fn pass_unfound(&mut self, end: End) {
        match (end, self.of) {
            (End::First, Of::Offsets(stream)) => {
                let found_from = self.tenant.catalog().index.found_from(stream).get();
                self.next = found_from.clamp(self.next + 1, self.end);
            }
            (End::First, _) => self.next += 1,
            (End::Last, _) => self.end = self.next,
        }
    }

    /// Reads the event at `position`; where another record stands there, its positions.
    fn read(&mut self, position: Position) -> Result<Option<Step>, Error> {
        if let Some(record) = self.kept.take() {
            return Ok(Some(Step::To(record)));
        }
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
        let place = RecordPlace::new(header, position);
        let record = match self.of {
            Of::Offsets(_) => self.tenant.open_and_keep(&place, content, self.purges),
            Of::Positions | Of::Nothing => self.tenant.open_record(&place, content),
        };
        record.map(Step::To).map(Some)
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
