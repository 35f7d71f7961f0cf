//! What a projection is.

use core::fmt;

use kimberlite_types::Position;

use crate::{Batch, ProjectionError};

/// State that is derived from the log, and can be rebuilt from it at any time.
///
/// A projection is a function of the records that it was given: no clock, no randomness, nothing
/// from outside. Two projections of one name and version that were given the same log are equal,
/// however the log was cut into batches.
pub trait Projection: fmt::Debug + Send {
    /// Returns the name of the projection, one of its own among those of a tenant.
    fn name(&self) -> &'static str;

    /// Returns the version of what `apply` does. When it changes, what was derived by another one
    /// is thrown away and rebuilt.
    fn version(&self) -> u32;

    /// Takes in the records of a batch.
    ///
    /// # Errors
    ///
    /// [`ProjectionError::Gap`] and [`ProjectionError::Repeated`] when the batch does not begin at
    /// [`applied`](Self::applied); nothing has changed then. Any other error means that the batch
    /// cannot be taken in; [`applied`](Self::applied) says how far it was.
    fn apply(&mut self, batch: &Batch<'_>) -> Result<(), ProjectionError>;

    /// Returns how many records have been taken in: everything before this position.
    fn applied(&self) -> Position;
}
