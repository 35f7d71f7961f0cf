//! One projection of one log, taking in what is new.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use kimberlite_disk::DiskError;
use kimberlite_types::Position;

use super::{Named, RunnerOptions};
use crate::source::{Source, SourceError};
use crate::store::{Identity, StoreError};
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
    /// Up to where it was flushed.
    flushed: Position,
    /// Whether it could not begin anew when it had to.
    is_lost: bool,
    /// Rebuilds after damage since it last had the whole log.
    rebuilds: u32,
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
    /// Whether it is tried again by itself: there may be space by then.
    pub(super) fn passes(&self) -> bool {
        let full = |error: &StoreError| matches!(error, StoreError::Disk(DiskError::Full { .. }));
        matches!(self, Self::Target(TargetError::Store(error)) if full(error))
    }
}

impl Work {
    pub(super) fn new(
        named: Named,
        source: Arc<dyn Source>,
        target: Box<dyn Target>,
        options: RunnerOptions,
    ) -> Self {
        Self {
            named,
            flushed: target.applied().position,
            source,
            target,
            options,
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

    pub(super) fn is_rebuilding(&self) -> bool {
        self.target.is_rebuilding()
    }

    /// Whether a flush is worth its syncs now that the log is quiet.
    pub(super) fn is_flush_due(&self) -> bool {
        self.unflushed() >= QUIET_RECORDS_MIN
    }

    fn unflushed(&self) -> u64 {
        self.applied().get().saturating_sub(self.flushed.get())
    }

    /// Takes in the next batch; `true` when there is more.
    pub(super) fn step(&mut self) -> Result<bool, Stopped> {
        let stepped = catch_unwind(AssertUnwindSafe(|| self.step_or_fail()));
        let stepped = stepped.unwrap_or(Err(Stopped::Panicked));
        // Whoever reads it may have found damage, too.
        let is_told = matches!(stepped, Err(Stopped::Target(TargetError::Damaged { .. })));
        let is_damaged = is_told || self.target.is_damaged();
        if is_damaged && self.rebuilds < REBUILDS_MAX {
            let error = stepped.err();
            tracing::warn!(
                projection = self.named.name,
                error = error.as_ref().map(|error| error as &dyn std::error::Error),
                "a projection is damaged and is rebuilt"
            );
            self.rebuilds += 1;
            self.rebuild()?;
            return Ok(true);
        }
        if !is_damaged && matches!(stepped, Ok(false)) {
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
        // Before more is taken in, so that a full disk does not make memory grow.
        let is_much = self.target.pending_bytes() >= self.options.flush_bytes;
        if is_much || self.unflushed() >= UNFLUSHED_RECORDS_MAX {
            self.flush()?;
        }
        let from = self.target.applied().position;
        let mut take = |batch: &crate::Batch<'_>| self.target.apply(batch);
        self.source.read(from, self.options.batch, &mut take)??;
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

    pub(super) fn rebuild(&mut self) -> Result<(), TargetError> {
        self.is_lost = true;
        self.target.rebuild(self.identity())?;
        self.is_lost = false;
        self.flushed = Position::ZERO;
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<(), TargetError> {
        self.target.flush()?;
        self.flushed = self.target.applied().position;
        Ok(())
    }

    pub(super) fn recover(&mut self) -> Result<(), TargetError> {
        self.rebuilds = 0;
        if self.is_lost {
            return self.rebuild();
        }
        self.target.recover()?;
        self.flushed = self.target.applied().position;
        Ok(())
    }
}
