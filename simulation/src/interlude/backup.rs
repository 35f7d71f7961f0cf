//! Backups that are restored.

use std::path::Path;

use kimberlite::{Database, Error, ErrorKind, Event, ExpectedVersion, RestoreOptions};
use kimberlite_testkit::SimulatedDisk;

use super::spoil_copy;
use crate::check::{Found, count_appends};
use crate::model::TenantModel;
use crate::world::{BACKUP, Backup, Checked, World, told};

const RESTORED: &str = "/restored";

/// Restores the backup into another directory of a copy. One that was made is there as it was made; one
/// that was begun since is there as a whole, or not, or the backup is refused until it is made again.
pub(super) fn check(world: &mut World) -> Checked {
    if world.backups.is_empty() {
        return Ok(());
    }
    let disk = spoil_copy(&world.disk);
    let came = restore(world, &disk);
    let is_certain = world.backups.iter().all(|backup| backup.is_done);
    let db = match came {
        Ok(db) => db,
        Err(error) if (!is_certain || world.is_directory_doubtful) && tells(&error) => {
            world.note(format!("an unfinished backup: {:?}", error.kind()));
            return Ok(());
        }
        Err(error) => return Err(format!("a backup is not restored: {}", told(&error))),
    };
    let backups = world.backups.clone();
    let mut why = Vec::new();
    for backup in &backups {
        match holds(&db, backup) {
            Ok(()) => {
                world.trace.counts.restores += 1;
                world.note("restore the backup");
                return goes_on(&db, backup);
            }
            Err(error) => why.push(error),
        }
    }
    Err(format!(
        "what is restored is no backup that was made: {why:?}"
    ))
}

fn restore(world: &mut World, disk: &SimulatedDisk) -> Result<Database, Error> {
    let options = RestoreOptions::new();
    let new = world.builder_at(disk, RESTORED);
    new.restore(Path::new(BACKUP), &options, &mut |_| ())?;
    world.builder_at(disk, RESTORED).open()
}

fn tells(error: &Error) -> bool {
    let kinds = [
        ErrorKind::Corrupt,
        ErrorKind::Unfinished,
        ErrorKind::NotFound,
    ];
    kinds.contains(&error.kind())
}

/// Whether every tenant holds what was acknowledged when the backup was made, and nothing else.
fn holds(db: &Database, backup: &Backup) -> Checked {
    for (name, model) in &backup.tenants {
        let tenant = db.existing_tenant(name);
        let tenant = tenant.map_err(|error| format!("{name}: {}", told(&error)))?;
        let found = tenant.read_all(..).map(Found::take);
        let found = found.collect::<Result<Vec<_>, _>>();
        let found = found.map_err(|error| format!("{name}: {}", told(&error)))?;
        let count = count_appends(&found, model).map_err(|error| format!("{name}: {error}"))?;
        let fits = |model: &TenantModel| {
            if backup.is_done {
                count == model.visible().count()
            } else {
                count >= model.required().min(model.visible().count())
            }
        };
        if !fits(model) {
            return Err(format!("{name}: {count} appends are there"));
        }
    }
    Ok(())
}

/// The restored logs are sound, and are appended to under a name of their own.
fn goes_on(db: &Database, backup: &Backup) -> Checked {
    let go_on = |name: &str| {
        let tenant = db.existing_tenant(name)?;
        let stream = tenant.stream("restored")?;
        let origin = tenant.checkpoint()?.origin().to_owned();
        stream.append(
            ExpectedVersion::NoStream,
            &[Event::new("restored", "it goes on")],
        )?;
        Ok::<_, Error>((tenant.verify()?.is_sound(), origin))
    };
    for name in backup.tenants.keys() {
        let (is_sound, origin) =
            go_on(name).map_err(|error| format!("{name}: {}", told(&error)))?;
        if !is_sound || !origin.contains("/2-") {
            return Err(format!("{name} is restored as {origin}, sound: {is_sound}"));
        }
    }
    Ok(())
}
