//! What is done with an open database.

mod append;
mod early;
mod keep;
mod project;
mod read;
mod retain;
mod retry;

pub(crate) use append::STREAMS;

use kimberlite::Tenant;

use crate::check;
use crate::world::{Checked, Life, World};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    OpenTenant,
    Append,
    /// Awaits the futures of a tenant.
    Await,
    /// With a version that the stream does not have.
    AppendElsewhere,
    /// Again, under the same key.
    Retry,
    /// Nothing, or under a name that is not allowed.
    AppendInvalid,
    ReadAll,
    ReadStream,
    ReadPosition,
    Streams,
    Observe,
    Verify,
    Project,
    Flush,
    Settle,
    Checkpoint,
    Hold,
    Release,
    Purge,
    BackUp,
    Copy,
    JumpInTime,
    PlanFault,
}

/// How often each is done, beside the others.
const WEIGHTS: [(Operation, u64); 23] = [
    (Operation::OpenTenant, 6),
    (Operation::Append, 40),
    (Operation::Await, 4),
    (Operation::AppendElsewhere, 5),
    (Operation::Retry, 6),
    (Operation::AppendInvalid, 1),
    (Operation::ReadAll, 3),
    (Operation::ReadStream, 6),
    (Operation::ReadPosition, 6),
    (Operation::Streams, 3),
    (Operation::Observe, 2),
    (Operation::Verify, 2),
    (Operation::Project, 6),
    (Operation::Flush, 4),
    (Operation::Settle, 4),
    (Operation::Checkpoint, 4),
    (Operation::Hold, 1),
    (Operation::Release, 1),
    (Operation::Purge, 2),
    (Operation::BackUp, 2),
    (Operation::Copy, 1),
    (Operation::JumpInTime, 1),
    (Operation::PlanFault, 3),
];

/// Does something, and holds what comes of it against the model.
pub(crate) fn perform(world: &mut World, life: &mut Life) -> Checked {
    let operation = draw(world);
    perform_this(world, life, operation)
}

/// Does something with the tenants that are open, without a fault beside those that were planned.
pub(crate) fn perform_calmly(world: &mut World, life: &mut Life) -> Checked {
    match draw(world) {
        Operation::PlanFault
        | Operation::OpenTenant
        | Operation::Hold
        | Operation::Release
        | Operation::Purge
        | Operation::BackUp => Ok(()),
        operation => perform_this(world, life, operation),
    }
}

fn perform_this(world: &mut World, life: &mut Life, operation: Operation) -> Checked {
    world.trace.counts.operations += 1;
    match operation {
        Operation::OpenTenant => keep::open_tenant(world, life)?,
        Operation::PlanFault => keep::plan_fault(world),
        Operation::Copy => keep::copy(world),
        Operation::BackUp => keep::back_up(world, life)?,
        Operation::JumpInTime => keep::jump_in_time(world),
        _ => return perform_on_one(world, life, operation),
    }
    Ok(())
}

/// Does something with one of the tenants that are open.
fn perform_on_one(world: &mut World, life: &mut Life, operation: Operation) -> Checked {
    let Some(&name) = world.rng.choose(&life.open) else {
        return Ok(());
    };
    let came = life.db.tenant(name);
    let tenant = &came.map_err(|error| format!("an open tenant is not: {error}"))?;
    let on = On { tenant, name };
    match operation {
        Operation::Append if life.is_patient => early::append(world, life, on),
        Operation::Append => append::append(world, life, on),
        Operation::Await => early::wait(world, life, on),
        Operation::AppendElsewhere => append::elsewhere(world, life, on),
        Operation::Retry => retry::retry(world, life, on),
        Operation::AppendInvalid => append::invalid(world, on),
        Operation::ReadAll => check::visible(world, tenant, name),
        Operation::ReadStream => read::stream(world, on),
        Operation::ReadPosition => read::position(world, on),
        Operation::Streams => read::streams(world, on),
        Operation::Observe => read::observe(world, on),
        Operation::Verify => check::verified(world, tenant, name),
        Operation::Project => project::project(world, on),
        Operation::Flush => keep::flush(world, on),
        Operation::Settle => keep::settle(world, on),
        Operation::Checkpoint => keep::checkpoint(world, on),
        Operation::Hold => retain::hold(world, on),
        Operation::Release => retain::release(world, on),
        Operation::Purge => retain::purge(world, on),
        Operation::OpenTenant
        | Operation::PlanFault
        | Operation::Copy
        | Operation::BackUp
        | Operation::JumpInTime => Ok(()),
    }
}

/// The tenant that an operation is about.
#[derive(Clone, Copy)]
struct On<'a> {
    tenant: &'a Tenant,
    name: &'static str,
}

fn draw(world: &mut World) -> Operation {
    let all = WEIGHTS.iter().map(|(_, weight)| weight).sum();
    let mut drawn = world.rng.below(all);
    for (operation, weight) in WEIGHTS {
        match drawn.checked_sub(weight) {
            Some(rest) => drawn = rest,
            None => return operation,
        }
    }
    Operation::Append
}
