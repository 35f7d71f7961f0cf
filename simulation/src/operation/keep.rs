//! What keeps a database: opening, syncing, checkpoints, copies; and what disturbs it.

use kimberlite::{BackupOptions, ErrorKind, WriteMode};

use super::On;
use crate::model::Kept;
use crate::world::{BACKUP, Backup, Checked, DirectoryCopy, Life, TENANTS, World};
use crate::{check, fault};

/// Opens another tenant, and makes it when there is none.
pub(super) fn open_tenant(world: &mut World, life: &mut Life) -> Checked {
    let name = world.rng.choose(&TENANTS).copied().unwrap_or("alpha");
    // A failed sync while a tenant is being made may leave one that power loss removes.
    let may_be_made = !world.faulty || world.tenants.contains_key(name);
    if life.open.contains(&name) || !may_be_made {
        return Ok(());
    }
    check::opened(world, life, name).map(drop)
}

pub(super) fn plan_fault(world: &mut World) {
    fault::plan(world);
    for model in world.tenants.values_mut() {
        if world.faulty {
            model.kept = Kept::Durable;
        }
    }
}

pub(super) fn flush(world: &mut World, on: On<'_>) -> Checked {
    let came = on.tenant.flush();
    if world.expect("flush", came)?.is_some() {
        world.note(format!("flush {}", on.name));
        world.model(on.name).synced();
    }
    Ok(())
}

pub(super) fn settle(world: &mut World, on: On<'_>) -> Checked {
    let came = on.tenant.settle();
    if world.expect("settle", came)?.is_some() {
        world.note(format!("settle {}", on.name));
        world.model(on.name).mark();
    }
    Ok(())
}

pub(super) fn checkpoint(world: &mut World, on: On<'_>) -> Checked {
    let came = on.tenant.checkpoint();
    let Some(checkpoint) = world.expect("checkpoint", came)? else {
        return Ok(());
    };
    let size = checkpoint.size();
    world.note(format!("checkpoint {}: {size} records", on.name));
    let model = world.model(on.name);
    model.mark();
    if size < model.end() || size < model.checkpoint_size {
        return Err(format!(
            "a checkpoint of {size} records, behind event {} and checkpoint {}",
            model.end(),
            model.checkpoint_size
        ));
    }
    model.checkpoint_size = size;
    Ok(())
}

/// Backs up all tenants, once all of them are open.
pub(super) fn back_up(world: &mut World, life: &mut Life) -> Checked {
    let names: Vec<_> = world.tenants.keys().copied().collect();
    for name in names {
        if !life.open.contains(&name) && !check::opened(world, life, name)? {
            return Ok(());
        }
    }
    let options = BackupOptions::new().with_root_key(true);
    let came = life.db.backup(BACKUP.as_ref(), &options, &mut |_| ());
    if let Err(error) = &came
        && error.kind() == ErrorKind::InvalidInput
        && world.is_directory_doubtful
    {
        // The notes that the backup holds too are gone with their directory.
        world.note("back up: another directory is asked for");
        return Ok(());
    }
    let is_done = world.expect("back up", came)?.is_some();
    if is_done {
        // Each log was copied up to a checkpoint that was made for it.
        for model in world.tenants.values_mut() {
            model.mark();
            model.checkpoint_size = model.checkpoint_size.max(model.end());
        }
        world.backups.clear();
        world.trace.counts.backups += 1;
    }
    world.note(format!("back up: {is_done}"));
    world.backups.push(Backup {
        is_done,
        tenants: world.tenants.clone(),
    });
    Ok(())
}

/// Copies the directory as it is now.
pub(super) fn copy(world: &mut World) {
    let disk = world.disk.snapshot();
    disk.set_space_bytes(None);
    let mut tenants = world.tenants.clone();
    if world.write_mode == WriteMode::Direct {
        // What nobody synced is in no file yet.
        let models = tenants.values_mut();
        models.for_each(|model| model.kept = model.kept.min(Kept::Written));
    }
    let backups = world.backups.clone();
    world.copy = Some(DirectoryCopy {
        disk,
        tenants,
        backups,
    });
    world.note("copy the directory");
}

/// The clock may go back, and by as much as a day ahead.
pub(super) fn jump_in_time(world: &mut World) {
    let by = world.rng.below(86_400_000_000_000);
    if world.rng.chance(1, 2) {
        world.clock.jump_back(by);
    } else {
        world.clock.jump_ahead(by);
    }
    world.note(format!("jump by {by} ns"));
}
