//! A projection: whatever became of what it had stored, it has some prefix of the log, and all of what is durable once
//! it was waited for.

use std::time::Duration;

use kimberlite::projection::store::{Snapshot, StoreError, WriteTransaction};
use kimberlite::projection::{ApplyError, Batch, Projection};
use kimberlite::{Error, Position, Projected};

use super::On;
use crate::check::Found;
use crate::model::Append;
use crate::world::{Canary, Checked, World};

/// What is stored of a purged event; of another one its data stands behind [`THERE`].
const PURGED: &[u8] = b"-";
const THERE: &[u8] = b"+";

/// Every event by its position.
#[derive(Debug)]
struct Events {
    /// Leaves out one event in so many.
    forgets: Option<u64>,
}

impl Projection for Events {
    type View = Snapshot;

    fn name(&self) -> &'static str {
        "events"
    }

    fn version(&self) -> u32 {
        1
    }

    fn apply(&self, batch: &Batch<'_>, write: &mut WriteTransaction<'_>) -> Result<(), ApplyError> {
        for event in batch.events() {
            let position = event.position.get();
            if self.forgets.is_some_and(|one_in| position % one_in == 0) {
                continue;
            }
            let value = match event.payload() {
                Some((_, data)) => [THERE, data].concat(),
                None => PURGED.to_vec(),
            };
            write.put(&position.to_le_bytes(), &value)?;
        }
        Ok(())
    }
}

/// Has a projection take in the log, and holds what it has against that.
pub(super) fn project(world: &mut World, on: On<'_>) -> Checked {
    let forgets = (world.canary == Some(Canary::ForgetfulProjection)).then_some(5);
    let came = on.tenant.project(Events { forgets });
    let Some(projected) = world.expect("project", came)? else {
        return Ok(());
    };
    let before = projected.view();
    held_against(world, on, &before)?;
    if world.rng.chance(1, 8) {
        let came = projected.rebuild();
        world.expect("rebuild", came)?;
    }
    let end = on.tenant.durable_position().get();
    let waited = wait(&projected, end);
    if world.expect("wait for a projection", waited)?.is_none() {
        return Ok(());
    }
    let view = projected.view();
    let applied = view.applied().position.get();
    if applied < end {
        return Err(format!("a projection has {applied} records, not {end}"));
    }
    held_against(world, on, &view)?;
    world.note(format!("project {}: {applied} records", on.name));
    world.trace.counts.projected += 1;
    if world.rng.chance(1, 2) {
        let came = projected.flush();
        world.expect("flush a projection", came)?;
    }
    Ok(())
}

fn wait(projected: &Projected<Events>, end: u64) -> Result<(), Error> {
    let last = Position::new(end.saturating_sub(1));
    projected.wait_for_at_most(last, Duration::ZERO)
}

/// Holds a state against the events of the log that it says to have.
fn held_against(world: &mut World, on: On<'_>, view: &Snapshot) -> Checked {
    let applied = view.applied().position.get();
    let mut found = 0;
    for position in 0..applied {
        let came = on.tenant.read_position(Position::new(position));
        let came = came.transpose().map(Found::take).transpose();
        let Some(event) = world.expect("read an event", came)? else {
            return Ok(());
        };
        let stored = match view.find(&position.to_le_bytes()) {
            Ok(stored) => stored,
            // It is rebuilt; nobody can have damaged it but a fault.
            Err(_) if world.faulty || world.disk.is_dead() => return Ok(()),
            Err(error) => return Err(format!("a projection cannot be read: {error}")),
        };
        found += u64::from(stored.is_some());
        let agrees = match (&event, stored.as_deref()) {
            (None, None) | (Some(Found::Purged), Some(PURGED)) => true,
            // What was ordered purged counts as that from then on.
            (Some(Found::Event(_)), Some(PURGED)) => may_be_purged(world, on, position),
            (Some(Found::Event(record)), Some(stored)) => {
                stored.strip_prefix(THERE) == Some(record.data())
            }
            _ => false,
        };
        if !agrees {
            return Err(format!(
                "a projection of {} has {:?} at {position}, the log {event:?}",
                on.name,
                stored.map(|stored| stored.len())
            ));
        }
    }
    match count(view) {
        Ok(entries) if entries == found => Ok(()),
        Ok(entries) => Err(format!(
            "a projection has {entries} entries, of which {found} are events"
        )),
        Err(_) if world.faulty || world.disk.is_dead() => Ok(()),
        Err(error) => Err(format!("a projection cannot be read: {error}")),
    }
}

/// How many entries a state has.
fn count(view: &Snapshot) -> Result<u64, StoreError> {
    let mut cursor = view.cursor()?;
    let mut entries = 0;
    while cursor.next_entry()?.is_some() {
        entries += 1;
    }
    Ok(entries)
}

fn may_be_purged(world: &mut World, on: On<'_>, position: u64) -> bool {
    let appends = world.model(on.name).appends.iter();
    let mut events = appends.flat_map(Append::expected);
    // An event whose place nobody was told may be any.
    events.any(|it| it.may_be_purged && it.place.is_none_or(|place| place.position == position))
}
