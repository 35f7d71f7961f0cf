//! Where projections get the log from.

use std::error::Error;

use kimberlite_types::Position;

use crate::batch::Batch;
use crate::store::Identity;
use crate::target::TargetError;

/// The log of a tenant, as far as projections may take it in.
pub trait Source: Send + Sync {
    /// The position up to which records may be taken in: they are durable.
    fn end(&self) -> Position;

    /// What state of this name and version is derived from now. It changes when what was read of the
    /// log would be read otherwise now, as after a purge: then all is derived anew.
    fn identity(&self, name: &str, version: u32) -> Identity;

    /// Reads the batch that begins at `from`, of some frames up to the end of the log or up to the first one that
    /// reaches a bound of `size`; none when the log ends there.
    ///
    /// # Errors
    ///
    /// [`SourceError`] when the log cannot be read.
    fn read(
        &self,
        from: Position,
        size: BatchSize,
    ) -> Result<Option<Box<dyn ReadBatch>>, SourceError>;
}

/// A batch that was read. It may be taken in some time later, in another thread.
pub trait ReadBatch: Send {
    /// What state of this name and version is derived from, as [`Source::identity`] said when it was read: state that
    /// is derived from something else does not take it in.
    fn identity(&self, name: &str, version: u32) -> Identity;

    /// The position behind its last record.
    fn end(&self) -> Position;

    /// Gives it to `take`.
    ///
    /// # Errors
    ///
    /// Those of `take`.
    fn give(
        &self,
        take: &mut dyn FnMut(&Batch<'_>) -> Result<(), TargetError>,
    ) -> Result<(), TargetError>;
}

/// How large a batch may grow before it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchSize {
    /// Records.
    pub records_max: usize,
    /// Bytes of what is stored of them.
    pub bytes_max: usize,
}

impl Default for BatchSize {
    fn default() -> Self {
        Self {
            records_max: 4096,
            bytes_max: 1 << 20,
        }
    }
}

/// Why the log could not be read.
#[derive(Debug, thiserror::Error)]
#[error("the log cannot be read at position {position}")]
pub struct SourceError {
    /// Where.
    pub position: Position,
    /// Why.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}
