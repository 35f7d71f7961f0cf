//! Where derived state is kept, as whoever drives it sees it.

use std::path::PathBuf;

use kimberlite_types::Position;

use crate::batch::Batch;
use crate::projection::ApplyError;
use crate::store::{Applied, Flush, Identity, StoreError};

/// A place that takes in the log, batch by batch: a store with a [`Projection`](crate::Projection), or
/// anything else that keeps how far it is together with what it has.
pub trait Target: Send {
    /// What it is derived from, and by what.
    fn identity(&self) -> Identity;

    /// How far it is; where it is being rebuilt, how far the new state is.
    fn applied(&self) -> Applied;

    /// How far what is read of it is: behind, or ahead of, [`applied`](Self::applied) while it is being rebuilt
    /// and the old state is read.
    fn readable(&self) -> Position;

    /// Whether it is being rebuilt.
    fn is_rebuilding(&self) -> bool;

    /// Whether it was found damaged, by whoever reads it too, so that it has to be rebuilt.
    fn is_damaged(&self) -> bool;

    /// Takes in a batch that begins where it is, together with the position behind it, or nothing.
    ///
    /// # Errors
    ///
    /// [`TargetError::Damaged`] when it has to be rebuilt; any other error says to try again, later.
    fn apply(&mut self, batch: &Batch<'_>) -> Result<(), TargetError>;

    /// Bytes that are not durable yet, about.
    fn pending_bytes(&self) -> usize;

    /// Makes durable what was taken in.
    ///
    /// # Errors
    ///
    /// As [`apply`](Self::apply).
    fn flush(&mut self) -> Result<(), TargetError>;

    /// Begins to make durable what was taken in, so that it can take in more meanwhile: what is returned does it, in any
    /// thread. None where nothing is left to be done, as where this waits for the disk itself.
    ///
    /// # Errors
    ///
    /// As [`apply`](Self::apply).
    fn begin_flush(&mut self) -> Result<Option<Flush>, TargetError> {
        self.flush().map(|()| None)
    }

    /// Takes in what came of a flush that was begun, if it has come to its end; `true` when none is under way.
    ///
    /// # Errors
    ///
    /// As [`apply`](Self::apply).
    fn end_flush(&mut self) -> Result<bool, TargetError> {
        Ok(true)
    }

    /// Waits for the end of a flush that was begun.
    ///
    /// # Errors
    ///
    /// As [`apply`](Self::apply).
    fn finish_flush(&mut self) -> Result<(), TargetError> {
        Ok(())
    }

    /// Begins anew, from the first record. What is there can be read until [`caught_up`](Self::caught_up).
    ///
    /// # Errors
    ///
    /// [`TargetError::Store`] when there is no place for it.
    fn rebuild(&mut self, identity: Identity) -> Result<(), TargetError>;

    /// Is told, while it is being rebuilt, that it has taken in the whole log: what was built is read from then on.
    ///
    /// # Errors
    ///
    /// As [`apply`](Self::apply).
    fn caught_up(&mut self) -> Result<(), TargetError>;

    /// Recovers from an error, if there is something to do before it is tried again.
    ///
    /// # Errors
    ///
    /// As [`apply`](Self::apply).
    fn recover(&mut self) -> Result<(), TargetError>;
}

/// Why a target did not take something in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// It is not what was written there, and is rebuilt.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no space for it now, or somebody else keeps it for himself: it is tried again with what comes next,
    /// without being recovered. Nothing of the batch was taken in.
    #[error("{} cannot be written to now", path.display())]
    Unavailable {
        /// Its file.
        path: PathBuf,
        /// What stands in the way.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The projection could not take the batch in.
    #[error("the projection failed in the batch that begins at position {position}")]
    Failed {
        /// Where the batch begins.
        position: Position,
        /// Why.
        #[source]
        source: ApplyError,
    },
}
