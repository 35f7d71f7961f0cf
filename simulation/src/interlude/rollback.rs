//! Older copies that take the place of what is newer.

use kimberlite::ErrorKind;

use super::{Opening, spoil_copy};
use crate::world::{Checked, DIRECTORY, World, told};

/// Goes on from an older copy of the whole directory, which nothing inside can tell; what was in the
/// copy must be there, and what is sealed from now on must be sealed anew.
pub(super) fn restore(world: &mut World) {
    if let Some(copy) = world.copy.take() {
        world.disk = copy.disk;
        world.tenants = copy.tenants;
        world.backups = copy.backups;
        world.note("restore the copy");
    }
}

/// Puts the older log of a tenant beside its newer checkpoints: when they speak of more than it
/// holds, it must be refused.
pub(super) fn check_copy(world: &mut World) -> Checked {
    let Some(older) = world.copy.as_ref().map(|copy| spoil_copy(&copy.disk)) else {
        return Ok(());
    };
    let names: Vec<_> = world.tenants.keys().copied().collect();
    for name in names {
        let came = world.builder(&older).read_only(true).open();
        let came = came.and_then(|db| Ok(db.existing_tenant(name)?.durable_position()));
        // The tenant may not have been made yet.
        let Ok(end) = came else { continue };
        let mixed = spoil_copy(&world.disk);
        let log = format!("{DIRECTORY}/tenants/{name}/log");
        mixed.graft(&log, &older);
        let size = world.model(name).checkpoint_size;
        world.trace.counts.spoiled += 1;
        if size <= end.get() {
            continue;
        }
        for opening in [Opening::Observer, Opening::Writer] {
            let builder = world.builder(&mixed);
            let builder = builder.read_only(opening == Opening::Observer);
            let db = builder
                .open()
                .map_err(|error| format!("rolled back: {}", told(&error)))?;
            let came = db.tenant(name);
            // What a write left behind that failed before the copy was made is damage, when a checkpoint
            // vouches for what stands there.
            let is_told = match (&came, opening) {
                (Err(error), _) => {
                    matches!(error.kind(), ErrorKind::RolledBack | ErrorKind::Corrupt)
                }
                (Ok(tenant), Opening::Observer) => {
                    let report = tenant.open_report();
                    (report.rolled_back.is_some() || !report.damage.is_empty())
                        && tenant.read_all(..).any(|record| record.is_err())
                        && !tenant.verify().is_ok_and(|report| report.is_sound())
                }
                (Ok(_), Opening::Writer) => false,
            };
            if !is_told {
                let came = came.map(|tenant| tenant.open_report().clone());
                return Err(format!(
                    "{name} ends at {end}, a checkpoint has {size} records, {opening:?}: {came:?}"
                ));
            }
        }
        world.trace.counts.told += 1;
        world.note(format!("{name}, rolled back from {size} to {end}, is told"));
    }
    Ok(())
}
