//! One projection of one log, taking in what is new.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use kimberlite_disk::DiskError;
use kimberlite_types::Position;

use super::pool::{Beside, Pool};
use super::{Named, RunnerOptions};
use crate::errand::Errand;
use crate::source::{ReadBatch, Source, SourceError};
use crate::store::{Flush, Identity, StoreError};
use crate::target::{Target, TargetError};

/// Records that are flushed once the log is quiet; fewer are soon derived again.
const QUIET_RECORDS_MIN: u64 = 1_000;

/// Records behind the last flush that are never derived again.
const UNFLUSHED_RECORDS_MAX: u64 = 1_000_000;

/// How often what is rebuilt may be damaged again before that is given up.
const REBUILDS_MAX: u32 = 2;

/// A target and the log that it follows.
pub(super) struct Work {
    named: Named,
    source: Arc<dyn Source>,
    target: Box<dyn Target>,
    options: RunnerOptions,
    pool: Arc<Pool>,
    /// The batch behind the one that was taken in last, which is read meanwhile.
    ahead: Option<Ahead>,
    /// Up to where it was flushed.
    flushed: Position,
    /// Up to where the flush that is under way reaches.
    flushing: Option<Position>,
    /// Whether the last flush failed: nothing is taken in beside the next one.
    has_failed: bool,
    /// Whether it could not begin anew when it had to.
    is_lost: bool,
    /// Rebuilds after damage since it last had the whole log.
    rebuilds: u32,
}

type Read = Result<Option<Box<dyn ReadBatch>>, SourceError>;

/// A batch that is read before it is needed. When it goes nobody reads it any more.
struct Ahead {
    from: Position,
    errand: Arc<Errand<Read>>,
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.errand.stop();
    }
}

/// Why a projection stands still.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stopped {
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("the projection panicked")]
    Panicked,
}

impl Stopped {
    /// Whether it is tried again by itself: there may be space by then, and nobody else in the way.
    pub(super) fn passes(&self) -> bool {
        matches!(
            self,
            Self::Target(
                TargetError::Unavailable { .. }
                    | TargetError::Store(StoreError::Disk(DiskError::Full { .. }))
            )
        )
    }
}

impl Work {
    pub(super) fn new(
        named: Named,
        source: Arc<dyn Source>,
        target: Box<dyn Target>,
        (options, pool): (RunnerOptions, Arc<Pool>),
    ) -> Self {
        Self {
            named,
            flushed: target.applied().position,
            source,
            target,
            options,
            pool,
            ahead: None,
            flushing: None,
            has_failed: false,
            is_lost: false,
            rebuilds: 0,
        }
    }

    pub(super) fn applied(&self) -> Position {
        self.target.applied().position
    }

    pub(super) fn readable(&self) -> Position {
        self.target.readable()
    }

    /// Whether something is damaged, by what an error tells or because whoever reads has found it.
    fn is_damaged(&self, error: Option<&Stopped>) -> bool {
        let is_told = matches!(error, Some(Stopped::Target(TargetError::Damaged { .. })));
        is_told || self.target.is_damaged()
    }

    /// Whether it begins anew with the next step because something is damaged, which has not been so too often.
    pub(super) fn has_to_rebuild(&mut self, error: Option<&Stopped>) -> bool {
        if !self.is_damaged(error) || self.rebuilds >= REBUILDS_MAX {
            return false;
        }
        tracing::warn!(
            projection = self.named.name,
            error = error.map(|error| error as &dyn std::error::Error),
            "a projection is damaged and is rebuilt"
        );
        self.rebuilds += 1;
        self.is_lost = true;
        true
    }

    pub(super) fn is_rebuilding(&self) -> bool {
        self.target.is_rebuilding()
    }

    /// Whether a flush is worth its syncs now that the log is quiet.
    pub(super) fn is_flush_due(&self) -> bool {
        self.flushing.is_some() || self.unflushed() >= QUIET_RECORDS_MIN
    }

    /// Records that no flush has, also none that is under way.
    fn unflushed(&self) -> u64 {
        let flushed = self.flushing.unwrap_or(self.flushed);
        self.applied().get().saturating_sub(flushed.get())
    }

    /// Takes in the next batch; `true` when there is more.
    pub(super) fn step(&mut self) -> Result<bool, Stopped> {
        let stepped = catch_unwind(AssertUnwindSafe(|| self.step_or_fail()));
        let stepped = stepped.unwrap_or(Err(Stopped::Panicked));
        if self.has_to_rebuild(stepped.as_ref().err()) {
            self.rebuild()?;
            return Ok(true);
        }
        if matches!(stepped, Ok(false)) && !self.is_damaged(None) {
            self.rebuilds = 0;
        }
        stepped
    }

    fn identity(&self) -> Identity {
        self.source.identity(&self.named.name, self.named.version)
    }

    fn step_or_fail(&mut self) -> Result<bool, Stopped> {
        if self.is_lost || self.target.identity() != self.identity() {
            self.rebuild()?;
        }
        self.make_room()?;
        let from = self.target.applied().position;
        if let Some(batch) = self.next_batch(from)? {
            // A purge was ordered since it was looked for. What is derived now would be of neither.
            if !self.is_of_target(&*batch) {
                return Ok(true);
            }
            self.read_ahead(batch.end());
            batch.give(&mut |batch| self.target.apply(batch))?;
        }
        let applied = self.target.applied().position;
        if from < applied && applied < self.source.end() {
            return Ok(true);
        }
        if self.target.is_rebuilding() {
            self.target.caught_up()?;
            self.flushed = applied;
        }
        Ok(false)
    }

    /// Flushes before more is taken in, so that memory is bounded, or begins to.
    fn make_room(&mut self) -> Result<(), TargetError> {
        let ended = self.target.end_flush();
        self.note_ended(ended)?;
        let is_full = |work: &Self, bytes_max| work.target.pending_bytes() >= bytes_max;
        if self.flushing.is_some() && is_full(self, 2 * self.options.flush_bytes) {
            let finished = self.target.finish_flush();
            self.note_ended(finished.map(|()| true))?;
        }
        let is_much = is_full(self, self.options.flush_bytes);
        let is_due = is_much || self.unflushed() >= UNFLUSHED_RECORDS_MAX;
        if self.flushing.is_some() || !is_due {
            return Ok(());
        }
        // A full disk must not make memory grow.
        if self.has_failed || self.pool.is_inline() {
            return self.flush();
        }
        if let Some(flush) = self.begin_flush()? {
            self.pool.send(Arc::new(flush));
        }
        Ok(())
    }

    /// Begins to make durable what was taken in; what is returned does so.
    pub(super) fn begin_flush(&mut self) -> Result<Option<Flush>, TargetError> {
        let flush = self.target.begin_flush()?;
        if self.flushing.is_none() {
            let applied = self.target.applied().position;
            match flush {
                Some(_) => self.flushing = Some(applied),
                None => self.flushed = applied,
            }
        }
        Ok(flush)
    }

    fn note_ended(&mut self, ended: Result<bool, TargetError>) -> Result<(), TargetError> {
        match ended {
            Ok(true) => self.flushed = self.flushing.take().unwrap_or(self.flushed),
            Ok(false) => {}
            Err(_) => {
                self.flushing = None;
                self.has_failed = true;
            }
        }
        ended.map(drop)
    }

    /// The batch that begins at `from`.
    fn next_batch(&mut self, from: Position) -> Read {
        if let Some(ahead) = self.ahead.take()
            && ahead.from == from
            && let Some(Ok(Some(batch))) = ahead.errand.finish()
            && self.is_of_target(&*batch)
        {
            return Ok(Some(batch));
        }
        // What went wrong ahead is told from here, where it goes wrong again.
        self.source.read(from, self.options.batch)
    }

    /// Whether what a batch says is what the target is derived from: of what was ordered purged since it was read,
    /// the payload stands in it.
    fn is_of_target(&self, batch: &dyn ReadBatch) -> bool {
        batch.identity(&self.named.name, self.named.version) == self.target.identity()
    }

    /// Has another thread read the batch that begins at `from`, if there is one.
    fn read_ahead(&mut self, from: Position) {
        if self.pool.is_inline() || from >= self.source.end() {
            return;
        }
        let (source, size) = (Arc::clone(&self.source), self.options.batch);
        let errand = Arc::new(Errand::new(move || source.read(from, size)));
        self.pool.send(Arc::clone(&errand) as Arc<dyn Beside>);
        self.ahead = Some(Ahead { from, errand });
    }

    pub(super) fn rebuild(&mut self) -> Result<(), TargetError> {
        self.ahead = None;
        self.flushing = None;
        self.has_failed = false;
        self.is_lost = true;
        self.target.rebuild(self.identity())?;
        self.is_lost = false;
        self.flushed = Position::ZERO;
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<(), TargetError> {
        let flushed = self.target.flush();
        self.note_ended(flushed.map(|()| true))?;
        self.has_failed = false;
        self.flushed = self.target.applied().position;
        Ok(())
    }

    /// Takes in what came of a flush that was begun.
    pub(super) fn end_flush(&mut self) -> Result<(), TargetError> {
        let ended = self.target.end_flush();
        self.note_ended(ended)
    }

    pub(super) fn recover(&mut self) -> Result<(), TargetError> {
        self.ahead = None;
        self.rebuilds = 0;
        if self.is_lost {
            return self.rebuild();
        }
        self.target.recover()?;
        self.flushing = None;
        self.flushed = self.target.applied().position;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_the_way_passes_and_what_failed_does_not() {
        let (path, reason) = (std::path::PathBuf::from("p"), "a reason");
        let full = StoreError::Disk(DiskError::Full { path: path.clone() });
        let unavailable = TargetError::Unavailable {
            path: path.clone(),
            source: reason.into(),
        };
        let failed = TargetError::Failed {
            position: Position::ZERO,
            source: reason.into(),
        };
        let damaged = TargetError::Damaged {
            path,
            source: reason.into(),
        };
        for (error, passes) in [
            (TargetError::Store(full), true),
            (unavailable, true),
            (failed, false),
            (damaged, false),
        ] {
            let stopped = Stopped::Target(error);
            assert_eq!(stopped.passes(), passes, "{stopped}");
        }
        assert!(!Stopped::Panicked.passes());
    }
}
