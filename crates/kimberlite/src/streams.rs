//! Finding where the events of a stream stand.
//!
//! The newest runs are in the catalog, in memory; older ones are in a store that follows the log, and are let go of
//! in memory once it has them. So what was appended is found at once, and memory does not grow with the log while the
//! store comes along.
//!
//! The store is derived and never believed: what it leads to is looked at, and where it cannot say what it should,
//! or says something else than the log, it is made anew, and the log is read for what it had.
//!
//! * **Invariant:** the catalog lets go of runs only that the store has, as it can be read then.

mod source;
mod store;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::PoisonError;

use kimberlite_projection::store::StoreError;
use kimberlite_projection::{FrameRun, Run, StoredRuns, StreamIndex};
use kimberlite_storage::{FrameView, StorageError};
use kimberlite_types::{Position, StreamId};

pub(crate) use source::knows;
pub(crate) use store::{RunPlace, RunStore, StoreNumber};

use crate::error::{Error, Problem};
use crate::tenant::TenantInner;

/// Runs that are looked up at once.
const RUNS_MAX: usize = 64;

/// At which end of a range runs are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    First,
    Last,
}

/// Runs, and which store they are from, if they are from one.
pub(crate) type Looked = (VecDeque<Run>, Option<StoreNumber>);

/// Some of the events of a stream.
#[derive(Clone, Debug)]
pub(crate) struct RunsWanted {
    pub(crate) stream: StreamId,
    /// At least one, and all that there are.
    pub(crate) offsets: Range<u64>,
    pub(crate) end: End,
}

impl RunsWanted {
    /// The offset that is looked for first.
    fn offset(&self) -> u64 {
        match self.end {
            End::First => self.offsets.start,
            End::Last => self.offsets.end - 1,
        }
    }

    fn of_index(&self, index: &StreamIndex) -> VecDeque<Run> {
        let runs = index.runs(self.stream, self.offsets.clone());
        match self.end {
            End::First => runs.take(RUNS_MAX).collect(),
            End::Last => {
                let mut last: VecDeque<Run> = runs.rev().take(RUNS_MAX).collect();
                last.make_contiguous().reverse();
                last
            }
        }
    }

    /// Those before offset `end`.
    fn of_store(&self, stored: &StoredRuns, end: u64) -> Result<VecDeque<Run>, StoreError> {
        let offsets = self.offsets.start..self.offsets.end.min(end);
        match self.end {
            End::First => stored.first_runs(self.stream, offsets, RUNS_MAX),
            End::Last => stored.last_runs(self.stream, offsets, RUNS_MAX),
        }
    }
}

impl TenantInner {
    /// Returns runs at one end of what is wanted, and which store said so. Whoever uses one looks whether it leads to
    /// the event, and says where it does not, or where there is none, that he was [`misled`](Self::misled).
    pub(crate) fn runs(&self, wanted: &RunsWanted) -> Result<Looked, Error> {
        loop {
            let (found_from, from) = {
                let index = &self.catalog().index;
                let found_from = index.found_from(wanted.stream).get();
                if wanted.offset() >= found_from || index.from() == Position::ZERO {
                    return Ok((wanted.of_index(index), None));
                }
                (found_from, index.from())
            };
            if let Some(runs) = self.stored_runs(wanted, found_from, from) {
                return Ok(runs);
            }
            self.fill_runs()?;
        }
    }

    /// What the store says, if it says something.
    fn stored_runs(&self, wanted: &RunsWanted, end: u64, from: Position) -> Option<Looked> {
        let store = self.shown.runs();
        let (stored, which) = store.view()?;
        if stored.applied().position < from {
            return None;
        }
        match wanted.of_store(&stored, end) {
            Ok(runs) => Some((runs, Some(which))),
            Err(error) => {
                store.abandon(which, Some(&error));
                None
            }
        }
    }

    /// Notices that a record is not the event that a store said.
    pub(crate) fn misled(&self, which: StoreNumber) {
        self.shown.runs().abandon(which, None);
    }

    /// Reads the log for the runs that the catalog does not have.
    fn fill_runs(&self) -> Result<(), Error> {
        let filling = self.shown.runs().filling();
        let _alone = filling.lock().unwrap_or_else(PoisonError::into_inner);
        let from = self.catalog().index.from();
        if from == Position::ZERO {
            return Ok(());
        }
        let position = from.get();
        tracing::info!(
            position,
            "the log is read for where events of streams stand"
        );
        let mut index = StreamIndex::new();
        let mut visit = |frame: &FrameView| {
            let frames = [source::summary(frame)];
            let run = FrameRun::new(index.applied(), &frames);
            let applied = run.and_then(|run| index.apply(&run));
            applied.map_err(|error| Box::new(Error::from(Problem::Index(error))).into())
        };
        let read: Result<(), StorageError> = self.reader.replay(Position::ZERO, from, &mut visit);
        read?;
        self.shown.fill_runs(index);
        Ok(())
    }
}
