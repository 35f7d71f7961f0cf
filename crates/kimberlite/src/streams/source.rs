//! The frames of a log, as the index of streams is given them.

use std::fmt;
use std::ops::Range;

use kimberlite_projection::store::{Applied, Identity};
use kimberlite_projection::{
    ApplyError, Batch, BatchSize, FrameSummary, Frames, ReadBatch, Source, SourceError, TargetError,
};
use kimberlite_storage::{FrameView, LogReader, StorageError};
use kimberlite_types::{LogId, Position, RecordKind};

use crate::error::{Error, Problem};

/// Records of a batch: it takes no more memory than what is new in them.
const BATCH_RECORDS: u64 = 1 << 16;

/// Gives what the headers of frames say. Holds nothing that keeps the tenant open.
#[derive(Clone)]
pub(super) struct HeaderSource {
    pub(super) reader: LogReader,
}

impl fmt::Debug for HeaderSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeaderSource")
    }
}

/// Whether a state that was derived up to `applied` is one of this log.
pub(crate) fn knows(reader: &LogReader, applied: Applied) -> bool {
    let Applied { position, chain } = applied;
    let is_here = || matches!(reader.chain_before(position), Ok(Some(here)) if here == chain);
    position == Position::ZERO || (position <= reader.durable() && is_here())
}

/// What the records of a frame have in common.
pub(super) fn summary(frame: &FrameView) -> FrameSummary {
    let header = frame.header();
    FrameSummary {
        // A watermark is of no kind, and has no records.
        kind: header.kind.unwrap_or(RecordKind::Checkpoint),
        position: header.base_position,
        count: u32::from(header.count),
        stream: header.stream,
        offset: header.base_offset,
        time: header.time,
    }
}

impl HeaderSource {
    /// Where a batch from `from` on ends: where a frame does.
    fn batch_end(&self, from: Position) -> Result<Option<Position>, StorageError> {
        let end = self.reader.durable();
        let Some(wanted) = from.checked_add(BATCH_RECORDS).filter(|it| *it < end) else {
            return Ok(Some(end));
        };
        let frame = self.reader.frame(wanted)?;
        Ok(frame.map(|frame| frame.header().base_position))
    }

    fn batch(&self, from: Position) -> Result<Option<HeaderBatch>, Error> {
        let missing = |position| Problem::NoFrame { position };
        let end = self.batch_end(from)?.ok_or_else(|| missing(from))?;
        if end <= from {
            return Ok(None);
        }
        let chain = self.reader.chain_before(end)?;
        let end = Applied {
            position: end,
            chain: chain.ok_or_else(|| missing(end))?,
        };
        Ok(Some(HeaderBatch {
            from,
            end,
            log_id: self.reader.log_id(),
        }))
    }
}

/// A run of the log, of which the index reads the headers itself.
struct HeaderBatch {
    from: Position,
    end: Applied,
    log_id: LogId,
}

impl ReadBatch for HeaderBatch {
    fn identity(&self, name: &str, version: u32) -> Identity {
        Identity::new(self.log_id, name, version)
    }

    fn end(&self) -> Position {
        self.end.position
    }

    fn give(
        &self,
        take: &mut dyn FnMut(&Batch<'_>) -> Result<(), TargetError>,
    ) -> Result<(), TargetError> {
        take(&Batch::new(self.from, &[], self.end).expect("nothing is in order"))
    }
}

impl Source for HeaderSource {
    fn end(&self) -> Position {
        self.reader.durable()
    }

    fn identity(&self, name: &str, version: u32) -> Identity {
        // What a purge takes is nothing that a header says.
        Identity::new(self.reader.log_id(), name, version)
    }

    fn read(
        &self,
        from: Position,
        _: BatchSize,
    ) -> Result<Option<Box<dyn ReadBatch>>, SourceError> {
        let batch = self.batch(from).map_err(|error| SourceError {
            position: from,
            source: Box::new(error),
        })?;
        Ok(batch.map(|batch| Box::new(batch) as Box<dyn ReadBatch>))
    }
}

impl Frames for HeaderSource {
    fn frames(
        &self,
        positions: Range<Position>,
        take: &mut dyn FnMut(&FrameSummary),
    ) -> Result<(), ApplyError> {
        let mut visit = |frame: &FrameView| {
            take(&summary(frame));
            Ok(())
        };
        let replayed = self
            .reader
            .replay(positions.start, positions.end, &mut visit);
        Ok(replayed?)
    }
}
