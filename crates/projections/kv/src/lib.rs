//! A projection of Kimberlite: the newest value of each key, and every one before it.
//!
//! What an event does to which key is said by a function of the event; [`Kv::by_stream`] has the data of the
//! newest event of each stream.
//!
//! ```
//! use kimberlite::{Database, Event, ExpectedVersion};
//! use kimberlite_projection_kv::Kv;
//!
//! # let dir = tempfile::tempdir()?;
//! let db = Database::open(dir.path())?;
//! let clinic = db.tenant("clinic-7")?;
//! let wards = clinic.project(Kv::new("wards", 1, |event, changes| {
//!     match event.payload() {
//!         Some(("admitted" | "moved", ward)) => changes.put(event.stream, ward),
//!         Some(("discharged", _)) => changes.remove(event.stream),
//!         _ => {}
//!     }
//! }))?;
//!
//! let patient = clinic.stream("patient/42")?;
//! let admitted = patient.append(ExpectedVersion::Any, &[Event::new("admitted", "ward 3")])?;
//! let moved = patient.append(ExpectedVersion::Any, &[Event::new("moved", "ward 5")])?;
//! wards.wait_for(moved.last_position())?;
//!
//! let view = wards.view();
//! assert_eq!(view.get("patient/42")?.expect("admitted").value, b"ward 5");
//! let then = view.get_at("patient/42", admitted.last_position())?;
//! assert_eq!(then.expect("admitted").value, b"ward 3");
//! assert_eq!(view.history("patient/42")?.count(), 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Keys are up to 1,000 bytes, and less where they have zero bytes; values are up to 16 MiB less 8 bytes. An
//! event with a longer one is passed over by [`Changes`], which counts it under [`View::refused`].
//!
//! Two tables of the store: the newest value of each key with the position of its event, and, of those before it,
//! `(key, all ones less position) → whether there was a value ‖ value`. So the newest is one lookup, and one
//! of any time before is two, however often a key has changed.

#![forbid(unsafe_code)]

mod changes;
mod view;

#[cfg(test)]
mod tests;

use kimberlite_projection::store::WriteTransaction;
use kimberlite_projection::{ApplyError, Batch, Event, Projection, Table};
use kimberlite_types::Position;

pub use changes::Changes;
pub use view::{Change, Entry, History, KvError, Scan, ScanAt, View};

/// The newest value of each key, behind the position of its event.
const NEWEST: Table<Vec<u8>, (Position, Vec<u8>)> = Table::new(1);
/// What there was before, newest first: whether there was a value, and which.
const BEFORE: Table<(Vec<u8>, u64), (bool, Vec<u8>)> = Table::new(2);
/// How many changes were refused.
const REFUSED: Table<u8, u64> = Table::new(3);

/// The longest key, as it is stored.
const KEY_BYTES_MAX: usize = 1_000;

/// The newest value of each key, and every one before it.
pub struct Kv<F> {
    name: String,
    version: u32,
    changes_of: F,
}

impl<F> Kv<F>
where
    F: Fn(&Event<'_>, &mut Changes<'_, '_>) + Send + Sync + 'static,
{
    /// Makes a projection of this name, which changes what `changes_of` says for each event. When that is
    /// changed, `version` has to be another one.
    pub fn new(name: impl Into<String>, version: u32, changes_of: F) -> Self {
        Self {
            name: name.into(),
            version,
            changes_of,
        }
    }
}

impl Kv<fn(&Event<'_>, &mut Changes<'_, '_>)> {
    /// Makes the projection `newest`: to the name of each stream the data of its newest event.
    pub fn by_stream() -> Self {
        Self::new("newest", 1, |event, changes| {
            if let Some((_, data)) = event.payload() {
                changes.put(event.stream, data);
            }
        })
    }
}

impl<F> Projection for Kv<F>
where
    F: Fn(&Event<'_>, &mut Changes<'_, '_>) + Send + Sync + 'static,
{
    type View = View;

    fn name(&self) -> &str {
        &self.name
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn apply(&self, batch: &Batch<'_>, write: &mut WriteTransaction<'_>) -> Result<(), ApplyError> {
        let mut changes = Changes::new(write);
        for event in batch.events() {
            changes.turn_to(event.position);
            (self.changes_of)(event, &mut changes);
        }
        Ok(changes.end()?)
    }
}

impl<F> core::fmt::Debug for Kv<F> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Kv")
            .field("name", &self.name)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// The part of a key of the second table that puts the newest first.
fn newest_first(position: Position) -> u64 {
    u64::MAX - position.get()
}
