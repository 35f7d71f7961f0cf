//! The lives of one database, one after the other.

use std::panic::{AssertUnwindSafe, catch_unwind};

use kimberlite::{SyncPolicy, WriteMode};
use kimberlite_testkit::CrashMode;

use crate::interlude::{self, lying_disk};
use crate::model::{Kept, TenantModel};
use crate::trace::Counts;
use crate::world::{Canary, Checked, Life, TENANTS, World};
use crate::{check, fault, operation};

/// So long that no sync begins by itself: who leads one, and when, is then the history's to say.
const PATIENT: SyncPolicy = SyncPolicy::GroupCommit {
    max_delay: std::time::Duration::from_hours(1),
};

/// How a history went.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The promise that was broken, if one was.
    pub failure: Option<String>,
    /// A digest of all steps: equal for equal histories.
    pub digest: String,
    /// The steps.
    pub trace: Vec<String>,
    /// What was met.
    pub counts: Counts,
}

/// Runs the history of a seed, with a fault that it must find or without.
pub fn simulate(seed: u64, canary: Option<Canary>) -> Report {
    let mut world = World::new(seed, canary);
    let came = catch_unwind(AssertUnwindSafe(|| run(&mut world)));
    let failure = match came {
        Ok(Ok(())) => None,
        Ok(Err(failure)) => Some(failure),
        Err(panic) => Some(format!("a panic: {}", message(panic.as_ref()))),
    };
    world.trace.counts.sealings = world.ledger.len() as u64;
    Report {
        seed,
        failure,
        digest: world.trace.digest(),
        counts: world.trace.counts,
        trace: world.trace.into_lines(),
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied())
        .unwrap_or("without words")
}

fn run(world: &mut World) -> Checked {
    let lives = 2 + world.rng.below(4);
    for nth in 0..lives {
        world.note(format!("life {nth}"));
        live(world)?;
        repeated_nonce(world)?;
        interlude::between_lives(world)?;
    }
    if world.rng.chance(1, 4) {
        lying_disk::last_life(world)?;
    } else {
        last_look(world)?;
    }
    repeated_nonce(world)
}

fn repeated_nonce(world: &World) -> Checked {
    if world.ledger.is_repeated() {
        return Err("a key and nonce sealed two payloads".to_owned());
    }
    Ok(())
}

/// One process, from opening the database to its end.
fn live(world: &mut World) -> Checked {
    // Faults while a database or a tenant is being made may leave one that power loss removes;
    // crashes may not.
    let is_made = world.tenants.len() == TENANTS.len();
    match world.rng.below(6) {
        0 | 1 => {
            let op = world.disk.ops() + 1 + world.rng.below(160);
            world.disk.crash_after(op);
            world.note(format!("crash in operation {op}"));
        }
        2 if is_made => fault::plan(world),
        _ => {}
    }
    if let Some(mut life) = open(world)? {
        for name in TENANTS {
            if world.tenants.contains_key(name) && world.rng.chance(3, 4) {
                check::opened(world, &mut life, name)?;
            }
        }
        let operations = 4 + world.rng.below(30);
        for _ in 0..operations {
            if world.disk.is_dead() {
                break;
            }
            operation::perform(world, &mut life)?;
        }
        end(world, life)?;
    } else {
        leave(world, None);
    }
    fault::end(world);
    Ok(())
}

/// Opens the database; `None` when a fault was met.
pub(crate) fn open(world: &mut World) -> Checked<Option<Life>> {
    let policies = [
        SyncPolicy::EveryBatch,
        SyncPolicy::EveryBatch,
        SyncPolicy::EveryRecord,
        SyncPolicy::OnFlush,
        SyncPolicy::GroupCommit {
            max_delay: std::time::Duration::ZERO,
        },
        PATIENT,
        PATIENT,
    ];
    let policy = world.rng.choose(&policies).copied().unwrap_or_default();
    world.note(format!("open, {policy:?}"));
    let disk = world.disk.clone();
    let came = world.builder(&disk).sync_policy(policy).open();
    Ok(world.expect("open", came)?.map(|db| Life {
        db,
        policy,
        open: Vec::new(),
        is_patient: policy == PATIENT,
        pending: Vec::new(),
    }))
}

/// Ends a process: by closing the database or not.
pub(crate) fn end(world: &mut World, life: Life) -> Checked {
    let Life {
        db, open, pending, ..
    } = life;
    let mut closed = None;
    if world.rng.chance(1, 3) {
        // Before the handles go, which would have what was answered early driven.
        leave_in_memory(world);
        leave(world, None);
        drop((pending, db));
        return Ok(());
    }
    // A future holds the lock of the directory.
    drop(pending);
    if !world.disk.is_dead() && world.rng.chance(1, 2) {
        let came = db.close();
        closed = world.expect("close", came)?;
        if closed.is_some() {
            world.note("close");
            for &name in &open {
                let model = world.model(name);
                model.mark();
                model.closed = true;
                model.checkpoint_size = model.checkpoint_size.max(model.end());
            }
        }
    } else {
        drop(db);
    }
    if world.disk.is_dead() || (world.faulty && closed.is_none()) {
        leave_in_memory(world);
    }
    leave(world, closed);
    Ok(())
}

/// Nothing drives what was answered early. Past the page cache it is in no file.
fn leave_in_memory(world: &mut World) {
    if world.write_mode == WriteMode::Direct {
        let models = world.tenants.values_mut();
        models.for_each(|model| model.kept = model.kept.min(Kept::Written));
    }
}

/// The process has ended, and with it perhaps the machine.
fn leave(world: &mut World, closed: Option<()>) {
    if world.canary == Some(Canary::EarlyAsDurable) {
        world.tenants.values_mut().for_each(TenantModel::synced);
    }
    if world.rng.chance(1, 3) {
        world.disk = world.disk.process_kill();
        world.note("the process ends");
    } else {
        let mode = match world.rng.below(6) {
            0 => CrashMode::LoseUnsynced,
            1 => CrashMode::KeepUnsynced,
            _ => CrashMode::Mixed(world.rng.next_u64()),
        };
        world.disk = world.disk.crash(mode);
        world.note(format!("power loss, {mode:?}"));
        world
            .tenants
            .values_mut()
            .for_each(|model| model.kept = Kept::Durable);
    }
    world.trace.counts.crashes += u64::from(closed.is_none());
}

/// At last everything is opened on a sound disk, verified, and appended to once more.
fn last_look(world: &mut World) -> Checked {
    world.note("last look");
    let Some(mut life) = open(world)? else {
        return Err("a sound disk was refused".to_owned());
    };
    let names: Vec<_> = world.tenants.keys().copied().collect();
    for name in names {
        if !check::opened(world, &mut life, name)? {
            continue;
        }
        let came = life.db.tenant(name);
        let tenant = came.map_err(|error| format!("an open tenant is not: {error}"))?;
        check::verified(world, &tenant, name)?;
        check::visible(world, &tenant, name)?;
    }
    Ok(())
}
