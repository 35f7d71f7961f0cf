//! What happens to the files of a database that nobody has open.

mod backup;
mod damage;
mod fork;
pub(crate) mod lying_disk;
mod rollback;

use std::sync::Arc;

use kimberlite::{Error, ErrorKind, Tenant};
use kimberlite_testkit::SimulatedDisk;

use crate::check::Spoiled;
use crate::world::{Checked, World, told};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interlude {
    Nothing,
    /// Bits rot in a copy.
    Damage,
    /// An older copy takes the place of the whole directory.
    Restore,
    /// An older log lies beside newer checkpoints, in a copy.
    RollBack,
    /// Two copies go on, and one meets the other's checkpoints.
    Fork,
    /// The backup is restored beside the database.
    RestoreBackup,
}

const INTERLUDES: [Interlude; 10] = [
    Interlude::Nothing,
    Interlude::Nothing,
    Interlude::Nothing,
    Interlude::Damage,
    Interlude::Damage,
    Interlude::Restore,
    Interlude::RollBack,
    Interlude::Fork,
    Interlude::RestoreBackup,
    Interlude::RestoreBackup,
];

pub(crate) fn between_lives(world: &mut World) -> Checked {
    let interlude = world.rng.choose(&INTERLUDES).copied();
    match interlude.unwrap_or(Interlude::Nothing) {
        Interlude::Nothing => Ok(()),
        Interlude::Damage => damage::check_copy(world),
        Interlude::Restore => {
            rollback::restore(world);
            Ok(())
        }
        Interlude::RollBack => rollback::check_copy(world),
        Interlude::Fork => fork::check(world),
        Interlude::RestoreBackup => backup::check(world),
    }
}

/// A durable copy of the directory that nobody watches.
fn spoil_copy(disk: &SimulatedDisk) -> SimulatedDisk {
    let copy = disk.snapshot();
    copy.set_write_observer(Arc::new(|_, _, _| {}));
    copy
}

/// How a spoiled directory is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opening {
    Observer,
    Writer,
}

/// Opens a spoiled directory, and checks that what is missing is told. An error is telling.
fn check_spoiled(
    world: &mut World,
    disk: &SimulatedDisk,
    opening: Opening,
    may_lose_unmarked: bool,
) -> Checked {
    world.trace.counts.spoiled += 1;
    let builder = world.builder(disk).read_only(opening == Opening::Observer);
    let mut is_told = false;
    match builder.open() {
        Err(error) => is_told = refused(&error)?,
        Ok(db) => {
            let names: Vec<_> = world.tenants.keys().copied().collect();
            for name in names {
                is_told |= match db.tenant(name) {
                    Err(error) => refused(&error)?,
                    Ok(tenant) => check_tenant(world, &tenant, name, may_lose_unmarked)?,
                };
            }
        }
    }
    world.trace.counts.told += u64::from(is_told);
    world.note(format!("{opening:?}: told {is_told}"));
    Ok(())
}

fn check_tenant(
    world: &mut World,
    tenant: &Tenant,
    name: &'static str,
    may_lose_unmarked: bool,
) -> Checked<bool> {
    let model = world.model(name);
    let spoiled = Spoiled {
        model,
        may_lose_unmarked,
    };
    spoiled
        .check(tenant)
        .map_err(|error| format!("{name}: {error}"))
}

/// An error that tells of damage, whatever it was that was damaged.
fn refused(error: &Error) -> Checked<bool> {
    let tells = [
        ErrorKind::Corrupt,
        ErrorKind::RolledBack,
        ErrorKind::KeyFile,
        ErrorKind::WrongKey,
        ErrorKind::NotFound,
    ];
    if tells.contains(&error.kind()) {
        Ok(true)
    } else {
        Err(format!("damage is told as {}", told(error)))
    }
}
