//! What a projection is.

use std::error::Error;

use crate::batch::Batch;
use crate::store::{Snapshot, WriteTransaction};

/// State that is derived from the log into a store, and can be rebuilt from it at any time.
///
/// A projection is a function of the records that it is given and of what it has stored: no clock, no
/// randomness, nothing from outside, and nothing that it keeps elsewhere. Two stores of one name and
/// version that were given the same log are equal, however the log was cut into batches; `testkit`
/// checks that.
pub trait Projection: Send + Sync + 'static {
    /// What reads a state of the store: [`Snapshot`] itself, or what wraps one.
    type View: From<Snapshot>;

    /// The name, one of its own among the projections of a tenant: 1 to 64 of `a-z 0-9 - _ .`,
    /// beginning with a letter or digit.
    fn name(&self) -> &str;

    /// The version of what [`apply`](Self::apply) does. When it changes, what another one has stored is
    /// left aside and all is derived anew.
    fn version(&self) -> u32;

    /// Takes in the events of a batch, which begins where the last one ended. All changes are committed
    /// together with the position behind the batch, or none.
    ///
    /// # Errors
    ///
    /// Any error stops the projection at the beginning of the batch; reads go on, and it can be tried
    /// again. An event that makes no sense is better passed over than an error: it stays in the log.
    fn apply(&self, batch: &Batch<'_>, write: &mut WriteTransaction<'_>) -> Result<(), ApplyError>;
}

/// Why a projection could not take in a batch.
pub type ApplyError = Box<dyn Error + Send + Sync>;
