//! Appends with keys, which are asked for again: what is there is not appended a second time.

use kimberlite::{Ack, AppendOptions, Event, ExpectedVersion, IdempotencyKey, Receipt};

use super::On;
use super::append::{Came, acknowledged, exact};
use crate::model::{Append, Place, Purged, Standing};
use crate::world::{Canary, Checked, Life, Retry, World, told};

/// Gives a key to every other append, and notes what is to be asked for again.
pub(super) fn draw_key(
    world: &mut World,
    name: &'static str,
    stream: &'static str,
    (expected, events): (ExpectedVersion, &[Event]),
) -> Option<IdempotencyKey> {
    if !world.rng.chance(1, 2) {
        return None;
    }
    let key = IdempotencyKey::from_bytes(&world.numbered.to_le_bytes());
    world.retries.push(Retry {
        name,
        stream,
        expected,
        events: events.to_vec(),
        key,
    });
    Some(key)
}

pub(super) fn options(expected: ExpectedVersion, key: Option<IdempotencyKey>) -> AppendOptions {
    let options = AppendOptions::new().expected(expected);
    match key {
        Some(key) => options.idempotency_key(key),
        None => options,
    }
}

/// Draws one of the appends with keys of a tenant, the newest as often as all others.
fn draw(world: &mut World, name: &str) -> Option<Retry> {
    let of_tenant = world.retries.iter().filter(|retry| retry.name == name);
    let mut of_tenant = of_tenant.cloned().collect::<Vec<_>>();
    let newest = of_tenant.pop();
    if world.rng.chance(1, 2) {
        return newest;
    }
    world.rng.choose(&of_tenant).cloned().or(newest)
}

/// Asks again for an append with a key.
pub(super) fn retry(world: &mut World, life: &Life, on: On<'_>) -> Checked {
    let Some(retry) = draw(world, on.name) else {
        return Ok(());
    };
    let model = world.model(on.name);
    let known = model.appends.iter().find(|it| it.key == Some(retry.key));
    let known = known.map(|append| (append.place, append.standing));
    let len = model.stream_len(retry.stream);
    if known.is_none() && retry.expected != ExpectedVersion::Any && retry.expected != exact(len) {
        // It was lost, and is now too late.
        return Ok(());
    }
    let key = (world.canary != Some(Canary::RetryWithoutKey)).then_some(retry.key);
    let mut options = options(retry.expected, key);
    if life.is_patient {
        options = options.ack(Ack::Buffered);
    }
    let handle = on.tenant.stream(retry.stream);
    let handle = handle.map_err(|error| format!("a stream without a handle: {}", told(&error)))?;
    let count = retry.events.len() as u64;
    let what = format!("retry {count} events of {}/{}", on.name, retry.stream);
    let came = handle.append_with(options, &retry.events);
    let came = acknowledged(world, &what, came)?;
    let (place, standing) = match (&came, known) {
        (Came::Done(receipt), Some(first)) => return told_again(world, &what, receipt, first),
        (Came::Done(receipt), None) => (Some(appended(world, on, receipt, len)?), standing(life)),
        (Came::Unknown, None) => (None, Standing::Unknown),
        (Came::Unknown | Came::Nothing, _) => return Ok(()),
    };
    world.model(on.name).push(Append {
        stream: retry.stream,
        events: retry.events,
        place,
        standing,
        key: Some(retry.key),
        purged: Purged::default(),
    });
    Ok(())
}

/// What is known of an append that was acknowledged.
fn standing(life: &Life) -> Standing {
    match (life.is_patient, life.policy.is_durable()) {
        (true, _) => Standing::Early,
        (false, true) => Standing::Durable,
        (false, false) => Standing::Written,
    }
}

fn place(receipt: &Receipt) -> Place {
    Place {
        position: receipt.first_position().get(),
        offset: receipt.first_offset().get(),
    }
}

/// The events are there, and the answer is the first.
fn told_again(
    world: &mut World,
    what: &str,
    receipt: &Receipt,
    (first, standing): (Option<Place>, Standing),
) -> Checked {
    let is_first = first.is_none_or(|first| first == place(receipt));
    if !receipt.is_duplicate() || !is_first || standing == Standing::Unknown {
        return Err(format!(
            "{what}: {receipt:?}, of one {standing:?} at {first:?}"
        ));
    }
    world.note(format!("{what}: there at {}", receipt.first_position()));
    world.trace.counts.duplicates += 1;
    Ok(())
}

/// The events were not there, and were appended to a stream of `len`.
fn appended(world: &mut World, on: On<'_>, receipt: &Receipt, len: u64) -> Checked<Place> {
    let place = place(receipt);
    let end = world.model(on.name).end();
    if receipt.is_duplicate() || place.offset != len || place.position < end {
        return Err(format!(
            "retry: {receipt:?}, after offset {len}, position {end}, of what is not there"
        ));
    }
    world.note(format!("retry: appended at {}", place.position));
    world.trace.counts.retried += 1;
    Ok(place)
}
