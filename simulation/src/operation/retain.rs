//! Legal holds and purges: what is held stays, what was purged never comes back.

use kimberlite::{Error, ErrorKind, HoldId, Position, PurgeOptions};

use super::On;
use super::append::STREAMS;
use crate::world::{Checked, World, told};

/// Puts a legal hold on everything, or on a stream that has events.
pub(super) fn hold(world: &mut World, on: On<'_>) -> Checked {
    let stream = draw_scope(world, on);
    let came = match stream {
        None => on.tenant.hold("a case"),
        Some(name) => on
            .tenant
            .stream(name)
            .and_then(|stream| stream.hold("a case")),
    };
    // Who fails may have written its record.
    world.model(on.name).are_holds_doubtful |= came.is_err();
    if let Some(hold) = world.expect("hold", came)? {
        let id = hold.position().get();
        world.note(format!("hold {id} on {}/{stream:?}", on.name));
        let model = world.model(on.name);
        model.holds.insert(id, stream);
        model.synced();
    }
    Ok(())
}

/// Lifts one of the legal holds.
pub(super) fn release(world: &mut World, on: On<'_>) -> Checked {
    let holds: Vec<u64> = world.model(on.name).holds.keys().copied().collect();
    let is_doubtful = world.model(on.name).are_holds_doubtful;
    let Some(&id) = world.rng.choose(&holds).filter(|_| !is_doubtful) else {
        return Ok(());
    };
    let hold = HoldId::new(Position::new(id));
    let came = on.tenant.release(hold, "closed");
    world.model(on.name).are_holds_doubtful |= came.is_err();
    if world.expect("release", came)?.is_some() {
        world.note(format!("release {id} of {}", on.name));
        let model = world.model(on.name);
        model.holds.remove(&id);
        model.synced();
    }
    Ok(())
}

/// Purges everything before some position, or what a stream has before it.
pub(super) fn purge(world: &mut World, on: On<'_>) -> Checked {
    if world.model(on.name).are_holds_doubtful {
        return Ok(());
    }
    let stream = draw_scope(world, on);
    let until = world.rng.below(on.tenant.durable_position().get() + 1);
    let mut options = PurgeOptions::new(Position::new(until));
    if let Some(name) = stream {
        options = options.stream(name);
    }
    let what = format!("purge {}/{stream:?} before {until}", on.name);
    let came = on.tenant.purge(&options, &mut |_| ());
    let model = world.model(on.name);
    if let Err(error) = &came
        && error.kind() == ErrorKind::Rejected
    {
        return refused(world, &what, error, on);
    }
    model.purge_tried(stream, until);
    let Some(report) = world.expect(&what, came)? else {
        return Ok(());
    };
    world.note(format!("{what}: {} events", report.outcome.events));
    world.trace.counts.purged += report.outcome.events;
    let model = world.model(on.name);
    model.synced();
    model.purge_done(stream, report.until.get());
    Ok(())
}

fn refused(world: &mut World, what: &str, error: &Error, on: On<'_>) -> Checked {
    if world.model(on.name).holds.is_empty() {
        return Err(format!("{what}, and nothing is held: {}", told(error)));
    }
    world.note(format!("{what}: refused"));
    Ok(())
}

/// A stream that has events which readers see, or none for all of them.
fn draw_scope(world: &mut World, on: On<'_>) -> Option<&'static str> {
    let model = world.model(on.name);
    let mut streams = STREAMS.to_vec();
    streams.retain(|name| model.visible().any(|append| append.stream == *name));
    if world.rng.chance(1, 2) {
        return None;
    }
    world.rng.choose(&streams).copied()
}
