//! A disk that acknowledges a write and loses it, or puts it elsewhere.

use super::{Opening, check_spoiled, spoil_copy};
use crate::history::open;
use crate::model::Kept;
use crate::world::{Checked, TENANTS, World};
use crate::{check, operation};
use kimberlite_testkit::CrashMode;

/// The last life of a history: one write goes astray, then power is lost. What was below a watermark
/// is there, or its absence is told.
pub(crate) fn last_life(world: &mut World) -> Checked {
    world.note("last life, on a disk that lies");
    let Some(mut life) = open(world)? else {
        return Err("a sound disk was refused".to_owned());
    };
    for name in TENANTS {
        if world.tenants.contains_key(name) {
            check::opened(world, &mut life, name)?;
        }
    }
    if life.open.is_empty() {
        return Ok(());
    }
    plan(world);
    for _ in 0..4 + world.rng.below(16) {
        operation::perform_calmly(world, &mut life)?;
    }
    drop(life);
    world.disk = world.disk.crash(CrashMode::KeepUnsynced);
    world
        .tenants
        .values_mut()
        .for_each(|model| model.kept = Kept::Durable);
    world.trace.counts.crashes += 1;
    let again = spoil_copy(&world.disk);
    let disk = spoil_copy(&world.disk);
    check_spoiled(world, &disk, Opening::Observer, true)?;
    check_spoiled(world, &again, Opening::Writer, true)
}

fn plan(world: &mut World) {
    let op = world.disk.ops() + 1 + world.rng.below(20);
    let files = world.disk.files();
    let file = world.rng.choose(&files).cloned().unwrap_or_default();
    let bytes = world.disk.contents(&file).len() as u64;
    match world.rng.below(3) {
        0 => world.disk.lose_write_at(op),
        1 => world.disk.misdirect_write_at(op, world.rng.below(16 << 10)),
        _ => {
            let offset = world.rng.below(bytes);
            world.disk.misdirect_write_to(op, &file, offset);
        }
    }
    world.note(format!("a write goes astray from operation {op} on"));
}
