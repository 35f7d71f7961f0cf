//! The log of a tenant, as its projections are given it.

use std::ops::Range;
use std::sync::Arc;

use kimberlite_crypto::internal_hash;
use kimberlite_projection::store::{Applied, Identity};
use kimberlite_projection::{
    Batch, BatchSize, Content, Event, ReadBatch, Source, SourceError, TargetError,
};
use kimberlite_storage::{Content as Stored, FrameCursor};
use kimberlite_types::{
    ChainHash, LogId, Offset, Position, RecordKind, StreamId, StreamName, Timestamp,
};

use crate::error::{Error, Problem};
use crate::ordered::Ordered;
use crate::read::{Record, RecordPlace};
use crate::streams::knows;
use crate::tenant::TenantInner;

/// The log of a tenant up to what is durable.
///
/// What was ordered purged is given as purged, whether its payload is there still or not: so what is derived
/// depends on what the log says, and not on when a purge came to its end.
pub(super) struct LogSource {
    tenant: Arc<TenantInner>,
}

impl LogSource {
    pub(super) fn new(tenant: &Arc<TenantInner>) -> Self {
        Self {
            tenant: Arc::clone(tenant),
        }
    }

    /// Whether a state that was derived up to `applied` is one of this log.
    pub(super) fn knows(&self, applied: Applied) -> bool {
        knows(&self.tenant.reader, applied)
    }

    /// The chain hash before `position`, where a frame begins or the log ends there.
    fn chain_before(&self, position: Position) -> Result<Option<ChainHash>, SourceError> {
        let chain = self.tenant.reader.chain_before(position);
        chain.map_err(|error| unreadable(position, error.into()))
    }
}

/// Gives `take` all events before position `end`, batch by batch. Nobody asks what comes of them which history it
/// is of: the chain hashes are zero.
///
/// # Errors
///
/// When the log cannot be read, and those of `take`.
pub(super) fn read_before(
    tenant: &TenantInner,
    end: Position,
    take: &mut dyn FnMut(&Batch<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut from = Position::ZERO;
    while from < end {
        let mut opening = Opening::new(tenant);
        let opened = opening.open(from, end, BatchSize::default());
        let behind = opened.map_err(|error| Problem::Unreadable(Box::new(error)))?;
        if behind == from {
            break;
        }
        let opened = opening.opened(Applied {
            position: behind,
            chain: ChainHash::new([0; 32]),
        });
        take(&opened.batch(&opened.events()))?;
        from = behind;
    }
    Ok(())
}

impl Source for LogSource {
    fn end(&self) -> Position {
        self.tenant.reader.durable()
    }

    fn identity(&self, name: &str, version: u32) -> Identity {
        let log_id = self.tenant.reader.log_id();
        identity_of(log_id, &self.tenant.catalog().ordered, (name, version))
    }

    fn read(
        &self,
        from: Position,
        size: BatchSize,
    ) -> Result<Option<Box<dyn ReadBatch>>, SourceError> {
        let mut opening = Opening::new(&self.tenant);
        let end = opening.open(from, self.end(), size)?;
        if end == from {
            return Ok(None);
        }
        let missing = || unreadable(end, Problem::NoFrame { position: end }.into());
        let opened = opening.opened(Applied {
            position: end,
            chain: self.chain_before(end)?.ok_or_else(missing)?,
        });
        Ok(Some(Box::new(opened)))
    }
}

/// What is derived by a projection, where `ordered` was ordered purged, and is given as purged.
fn identity_of(log_id: LogId, ordered: &Ordered, (name, version): (&str, u32)) -> Identity {
    let words = ordered.words();
    if words.is_empty() {
        return Identity::new(log_id, name, version);
    }
    let words: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let name = format!("{name} {}", internal_hash(&words));
    Identity::new(log_id, &name, version)
}

/// A batch that was read. Holds nothing of the tenant but what it shows, and the mappings that this stands in.
struct Opened {
    first: Position,
    end: Applied,
    log_id: LogId,
    /// By what was ordered purged when its events were opened, all of them by the same.
    ordered: Arc<Ordered>,
    streams: Vec<(StreamId, StreamName)>,
    events: Vec<OpenedEvent>,
}

impl Opened {
    fn events(&self) -> Vec<Event<'_>> {
        let events = self.events.iter();
        events.map(|event| event.seen(&self.streams)).collect()
    }

    fn batch<'e>(&self, events: &'e [Event<'e>]) -> Batch<'e> {
        Batch::new(self.first, events, self.end).expect("a log has its records in order")
    }
}

impl ReadBatch for Opened {
    fn identity(&self, name: &str, version: u32) -> Identity {
        identity_of(self.log_id, &self.ordered, (name, version))
    }

    fn end(&self) -> Position {
        self.end.position
    }

    fn give(
        &self,
        take: &mut dyn FnMut(&Batch<'_>) -> Result<(), TargetError>,
    ) -> Result<(), TargetError> {
        take(&self.batch(&self.events()))
    }
}

/// The events of a batch, while they are opened.
struct Opening<'s> {
    tenant: &'s TenantInner,
    first: Position,
    ordered: Arc<Ordered>,
    frames: FrameCursor,
    /// Streams of the frames, in order.
    streams: Vec<(StreamId, StreamName)>,
    events: Vec<OpenedEvent>,
    bytes: usize,
}

struct OpenedEvent {
    /// Which of the streams.
    stream: usize,
    position: Position,
    offset: Offset,
    time: Timestamp,
    /// None of one that is purged.
    record: Option<Record>,
}

impl<'s> Opening<'s> {
    fn new(tenant: &'s TenantInner) -> Self {
        Self {
            tenant,
            first: Position::ZERO,
            ordered: Arc::clone(&tenant.catalog().ordered),
            frames: FrameCursor::new(tenant.reader.clone()),
            streams: Vec::new(),
            events: Vec::new(),
            bytes: 0,
        }
    }

    /// Opens the frames from `from` on, and of the one that reaches past `end` what stands before that; returns
    /// where the last one ends.
    fn open(
        &mut self,
        from: Position,
        end: Position,
        size: BatchSize,
    ) -> Result<Position, SourceError> {
        self.first = from;
        let mut next = from;
        let mut records = 0;
        while next < end && self.bytes < size.bytes_max && records < size.records_max {
            let frame = self.frames.frame(next);
            let frame = frame.map_err(|error| unreadable(next, error.into()))?;
            let Some(header) = frame.map(|frame| *frame.header()) else {
                break;
            };
            if header.base_position != next {
                return Err(unreadable(next, Problem::NoFrame { position: next }.into()));
            }
            records += usize::from(header.count);
            let frame_end = header.end_position().min(end);
            if let (Some(RecordKind::Event), Some(stream)) = (header.kind, header.stream) {
                self.enter(stream)?;
                let is_purged = self.ordered.includes(&header);
                self.open_events(next.get()..frame_end.get(), is_purged)?;
            }
            next = frame_end;
        }
        Ok(next)
    }

    fn enter(&mut self, stream: StreamId) -> Result<(), SourceError> {
        if self.streams.last().is_none_or(|(last, _)| *last != stream) {
            let name = self.tenant.stream_name(stream);
            let name = name.map_err(|error| unreadable(stream.position(), error))?;
            self.streams.push((stream, name));
        }
        Ok(())
    }

    fn open_events(&mut self, positions: Range<u64>, is_purged: bool) -> Result<(), SourceError> {
        for position in positions.map(Position::new) {
            let (place, content) = match self.frames.content(position) {
                Ok(Some((header, content))) => (RecordPlace::new(header, position), content),
                Ok(None) => return Err(unreadable(position, Problem::NoFrame { position }.into())),
                Err(error) => return Err(unreadable(position, error.into())),
            };
            let record = match content {
                Stored::Payload(_) if !is_purged => {
                    let record = self.tenant.open_record(&place, content);
                    Some(record.map_err(|error| unreadable(position, error))?)
                }
                _ => None,
            };
            self.bytes += record.as_ref().map_or(0, Record::bytes);
            self.events.push(OpenedEvent {
                stream: self.streams.len() - 1,
                position,
                offset: place.offset(),
                time: place.frame.time,
                record,
            });
        }
        Ok(())
    }

    /// What was opened, up to `end`.
    fn opened(self, end: Applied) -> Opened {
        Opened {
            first: self.first,
            end,
            log_id: self.tenant.reader.log_id(),
            ordered: self.ordered,
            streams: self.streams,
            events: self.events,
        }
    }
}

impl OpenedEvent {
    fn seen<'a>(&'a self, streams: &'a [(StreamId, StreamName)]) -> Event<'a> {
        let (stream_id, stream) = streams.get(self.stream).expect("its stream was entered");
        let payload = |record: &'a Record| Content::Payload {
            event_type: record.event_type(),
            metadata: record.metadata(),
            data: record.data(),
        };
        Event {
            position: self.position,
            stream: stream.as_str(),
            stream_id: *stream_id,
            offset: self.offset,
            time: self.time,
            content: self.record.as_ref().map_or(Content::Purged, payload),
        }
    }
}

fn unreadable(position: Position, error: Error) -> SourceError {
    SourceError {
        position,
        source: Box::new(error),
    }
}
