//! Runs of streams in a store, which a runner keeps up with the log like any projection's.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use kimberlite_types::{Offset, Position, RecordKind, StreamId};

use super::Run;
use crate::batch::Batch;
use crate::frame_run::FrameSummary;
use crate::projection::{ApplyError, Projection};
use crate::store::{Applied, Snapshot, StoreError, WriteTransaction};
use crate::table::Table;

/// What the projection of the runs of streams is called: no other one can be called so.
pub const STREAM_RUNS_NAME: &str = "_streams";

/// Its version.
pub const STREAM_RUNS_VERSION: u32 = 1;

/// Where the run of a stream that begins at this offset begins in the log.
const RUNS: Table<(StreamId, Offset), Position> = Table::new(1);

/// Gives the frames of a log.
pub trait Frames: Send + Sync + 'static {
    /// Gives `take` the frames that begin between two positions, where a frame begins or the log ends, in order.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    fn frames(
        &self,
        positions: Range<Position>,
        take: &mut dyn FnMut(&FrameSummary),
    ) -> Result<(), ApplyError>;
}

/// The runs of all streams, as a projection. It needs no events: its batches may be without them.
#[derive(Debug)]
pub struct StreamRuns<F> {
    frames: F,
    /// The run that the last batch ended with, so that it need not be looked up.
    last: Mutex<Option<Last>>,
}

/// A run that may go on.
#[derive(Clone, Copy, Debug)]
struct Last {
    stream: StreamId,
    /// The next event of the stream is of this run if it stands here.
    next: (Offset, Position),
    /// Where the batch ended.
    batch_end: Position,
}

impl<F: Frames> StreamRuns<F> {
    /// The runs of what `frames` gives.
    pub fn new(frames: F) -> Self {
        Self {
            frames,
            last: Mutex::default(),
        }
    }
}

impl<F: Frames> Projection for StreamRuns<F> {
    type View = StoredRuns;

    fn name(&self) -> &str {
        STREAM_RUNS_NAME
    }

    fn version(&self) -> u32 {
        STREAM_RUNS_VERSION
    }

    fn apply(&self, batch: &Batch<'_>, write: &mut WriteTransaction<'_>) -> Result<(), ApplyError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // What another batch ended with may not have been committed.
        let mut run = last.take().filter(|last| last.batch_end == batch.first());
        let batch_end = batch.end().position;
        let mut put = Ok(());
        self.frames.frames(batch.first()..batch_end, &mut |frame| {
            let (RecordKind::Event, Some(stream), Some(offset)) =
                (frame.kind, frame.stream, frame.offset)
            else {
                return;
            };
            let place = (offset, frame.position);
            let goes_on = run.is_some_and(|run| run.stream == stream && run.next == place);
            if !goes_on && put.is_ok() {
                put = RUNS.put(write, (stream, offset), frame.position);
            }
            run = behind(place, frame.count).map(|next| Last {
                stream,
                next,
                batch_end,
            });
        })?;
        put?;
        *last = run;
        Ok(())
    }
}

fn behind((offset, position): (Offset, Position), count: u32) -> Option<(Offset, Position)> {
    let offset = offset.get().checked_add(u64::from(count))?;
    Some((Offset::new(offset), position.checked_add(u64::from(count))?))
}

/// Looks runs of streams up in a state of their store.
#[derive(Clone, Debug)]
pub struct StoredRuns {
    snapshot: Snapshot,
}

impl From<Snapshot> for StoredRuns {
    fn from(snapshot: Snapshot) -> Self {
        Self { snapshot }
    }
}

impl StoredRuns {
    /// Returns what it is of: the log before that position.
    pub fn applied(&self) -> Applied {
        self.snapshot.applied()
    }

    /// Returns the first runs of `stream` that hold the given offsets, cut to them, at most `runs_max`. The stream has to have
    /// these events before [`applied`](Self::applied).
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub fn first_runs(
        &self,
        stream: StreamId,
        offsets: Range<u64>,
        runs_max: usize,
    ) -> Result<VecDeque<Run>, StoreError> {
        let Range { start, end } = offsets;
        let at = |offset| (stream, Offset::new(offset));
        let before = RUNS.range(&self.snapshot, at(0)..=at(start)).next_back();
        let behind = RUNS.range(&self.snapshot, at(start.saturating_add(1))..at(end));
        let mut found = VecDeque::new();
        for entry in before.into_iter().chain(behind) {
            let ((_, offset), position) = entry?;
            cut_last(&mut found, offset.get());
            if found.len() == runs_max {
                return Ok(found);
            }
            found.extend(cut(offset.get(), position, start..end));
        }
        Ok(found)
    }

    /// Returns the last runs of `stream` likewise, in order.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub fn last_runs(
        &self,
        stream: StreamId,
        offsets: Range<u64>,
        runs_max: usize,
    ) -> Result<VecDeque<Run>, StoreError> {
        let Range { start, mut end } = offsets;
        let at = |offset| (stream, Offset::new(offset));
        let mut found = VecDeque::new();
        for entry in RUNS.range(&self.snapshot, at(0)..at(end)).rev() {
            if found.len() == runs_max || end <= start {
                break;
            }
            let ((_, offset), position) = entry?;
            if let Some(run) = cut(offset.get(), position, start..end) {
                found.push_front(run);
            }
            end = offset.get();
        }
        Ok(found)
    }
}

/// The run that begins there, cut to some offsets; nothing when it has none of them.
fn cut(offset: u64, position: Position, offsets: Range<u64>) -> Option<Run> {
    let first = offset.max(offsets.start);
    let count = offsets.end.checked_sub(first).filter(|count| *count > 0)?;
    Some(Run {
        offset: Offset::new(first),
        position: position.checked_add(first - offset)?,
        count,
    })
}

/// Has the last run end before an offset.
fn cut_last(runs: &mut VecDeque<Run>, end: u64) {
    if let Some(last) = runs.back_mut() {
        let count = end.saturating_sub(last.offset.get());
        last.count = last.count.min(count.max(1));
    }
}
