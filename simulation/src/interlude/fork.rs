//! One log that was gone on with in two places.

use kimberlite::{ErrorKind, Event, ExpectedVersion};
use kimberlite_testkit::SimulatedDisk;

use super::spoil_copy;
use crate::world::{Checked, DIRECTORY, World, told};

/// Lets two copies of a tenant go on, each with its own events and checkpoint, and shows each the
/// checkpoints of the other: a writer must refuse both.
pub(super) fn check(world: &mut World) -> Checked {
    let names: Vec<_> = world.tenants.keys().copied().collect();
    let Some(&name) = world.rng.choose(&names) else {
        return Ok(());
    };
    let one = spoil_copy(&world.disk);
    go_on(world, &one, name)?;
    // The second goes on from the first one's past, with a past of its own from there.
    let two = spoil_copy(&world.disk);
    go_on(world, &two, name)?;
    for (log, notes) in [(&one, &two), (&two, &one)] {
        let mixed = spoil_copy(log);
        for part in ["checkpoint", "checkpoints"] {
            mixed.graft(format!("{DIRECTORY}/tenants/{name}/{part}"), notes);
        }
        world.trace.counts.spoiled += 1;
        let db = world.builder(&mixed).open();
        let db = db.map_err(|error| format!("forked: {}", told(&error)))?;
        match db.tenant(name) {
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::RolledBack) => {
                world.note(format!("the fork of {name}: {:?}", error.kind()));
                world.trace.counts.told += 1;
            }
            Err(error) => return Err(format!("a fork is told as {}", told(&error))),
            Ok(_) => return Err(format!("{name} goes on beside the checkpoint of its fork")),
        }
    }
    Ok(())
}

/// Appends to a tenant of a copy, and closes it with a checkpoint of its own.
fn go_on(world: &mut World, disk: &SimulatedDisk, name: &'static str) -> Checked {
    let events: Vec<_> = (0..=world.rng.below(3))
        .map(|_| Event::new("forked", world.rng.bytes(20)))
        .collect();
    let came = world.builder(disk).open().and_then(|db| {
        let stream = db.tenant(name)?.stream("forked")?;
        stream.append(ExpectedVersion::Any, &events)?;
        drop(stream);
        db.close()
    });
    came.map_err(|error| format!("a copy of {name} does not go on: {}", told(&error)))
}
