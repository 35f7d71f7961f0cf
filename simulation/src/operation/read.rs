//! Reading: what a writer shows, and a reader beside it.

use kimberlite::{Position, Stream};

use super::On;
use super::append::STREAMS;
use crate::check::{Found, count_appends, is};
use crate::model::{Append, Expected};
use crate::world::{Checked, World, told};

/// Reads a part of a stream, from either end.
pub(super) fn stream(world: &mut World, on: On<'_>) -> Checked {
    let name = world.rng.choose(&STREAMS).copied().unwrap_or("s");
    let stream = on.tenant.stream(name);
    let stream = stream.map_err(|error| format!("a stream without a handle: {}", told(&error)))?;
    let Some(len) = seen_len(world, on, &stream, name)? else {
        return Ok(());
    };
    let start = world.rng.below(len + 2);
    let end = start + world.rng.below(len + 2);
    let backwards = world.rng.chance(1, 2);
    let records = stream.read(start..end);
    let came: Result<Vec<Found>, _> = if backwards {
        records.rev().map(Found::take).collect()
    } else {
        records.map(Found::take).collect()
    };
    let Some(mut found) = world.expect("read a stream", came)? else {
        return Ok(());
    };
    if backwards {
        found.reverse();
    }
    world.note(format!(
        "read {start}..{end} of {}/{name}: {}",
        on.name,
        found.len()
    ));
    let model = world.model(on.name);
    let expected = model.written().filter(|append| append.stream == name);
    let expected = expected.flat_map(Append::expected);
    let (start, end) = (to_index(start), to_index(end.min(len)));
    let expected: Vec<_> = expected.take(end).skip(start).collect();
    same(&found, &expected).map_err(|error| format!("read {}/{name}: {error}", on.name))
}

/// Tells how long a stream is by the model; `None` where the log may hold more of it than that.
fn seen_len(
    world: &mut World,
    on: On<'_>,
    stream: &Stream,
    name: &'static str,
) -> Checked<Option<u64>> {
    let model = world.model(on.name);
    let len = model.stream_len(name);
    let doubtful = model.is_doubtful();
    let came = stream
        .len()
        .map_err(|error| format!("no length: {}", told(&error)))?;
    if came != len && !doubtful {
        return Err(format!("{}/{name} has {came} events, not {len}", on.name));
    }
    Ok((came == len).then_some(len))
}

fn same(found: &[Found], expected: &[Expected<'_>]) -> Checked {
    if found.len() != expected.len() {
        return Err(format!("{} events, not {}", found.len(), expected.len()));
    }
    let mut pairs = found.iter().zip(expected);
    match pairs.find(|(record, expected)| !is(record, expected)) {
        None => Ok(()),
        Some((record, expected)) => Err(format!(
            "{record:?} is not what was put at {:?}",
            expected.place
        )),
    }
}

/// Reads an event by its position.
pub(super) fn position(world: &mut World, on: On<'_>) -> Checked {
    let events = world.model(on.name).visible().flat_map(Append::expected);
    let known = events.filter_map(|it| Some((it.place?, it.event.clone(), it)));
    let known = known.map(|(place, event, it)| (place, event, it.is_purged, it.may_be_purged));
    let known = known.collect::<Vec<_>>();
    let Some((place, event, is_purged, may_be_purged)) = world.rng.choose(&known).cloned() else {
        return Ok(());
    };
    let came = on.tenant.read_position(Position::new(place.position));
    let came = came.transpose().map(Found::take).transpose();
    let Some(found) = world.expect("read a position", came)? else {
        return Ok(());
    };
    world.note(format!("read {}/{}", on.name, place.position));
    let expected = Expected {
        event: &event,
        place: Some(place),
        is_purged,
        may_be_purged,
    };
    if found.as_ref().is_some_and(|found| is(found, &expected)) {
        return Ok(());
    }
    Err(format!(
        "position {} of {}: {found:?}",
        place.position, on.name
    ))
}

/// Lists the streams.
pub(super) fn streams(world: &mut World, on: On<'_>) -> Checked {
    let came = on.tenant.streams();
    let Some(streams) = world.expect("list streams", came)? else {
        return Ok(());
    };
    let model = world.model(on.name);
    let doubtful = model.is_doubtful();
    let mut listed = 0;
    for stream in &streams {
        let name = stream.name.as_str();
        let len = STREAMS.iter().find(|known| **known == name);
        let len = len.map(|known| model.stream_len(known));
        // One whose first append was refused has none.
        if len != Some(stream.events) && !doubtful {
            return Err(format!("{} has {stream:?}, not {len:?}", on.name));
        }
        listed += u64::from(len > Some(0));
    }
    let expected = STREAMS.iter().filter(|name| model.stream_len(name) > 0);
    if listed < expected.count() as u64 && !doubtful {
        return Err(format!("{} lists {streams:?} only", on.name));
    }
    world.note(format!("list {}: {}", on.name, streams.len()));
    Ok(())
}

/// Opens the database for reading only, beside its writer.
pub(super) fn observe(world: &mut World, on: On<'_>) -> Checked {
    let disk = world.disk.clone();
    let came = world.builder(&disk).read_only(true).open();
    let Some(db) = world.expect("observe", came)? else {
        return Ok(());
    };
    let came = db.tenant(on.name);
    let Some(tenant) = world.expect("observe a tenant", came)? else {
        return Ok(());
    };
    let came = tenant.read_all(..).map(Found::take);
    let came = came.collect::<Result<Vec<_>, _>>();
    let Some(found) = world.expect("observe events", came)? else {
        return Ok(());
    };
    let model = world.model(on.name);
    let count = count_appends(&found, model);
    let count = count.map_err(|error| format!("observe {}: {error}", on.name))?;
    let visible = model.visible().count();
    if count < visible {
        return Err(format!(
            "observe {}: {count} appends are seen, {visible} were acknowledged",
            on.name
        ));
    }
    let report = tenant.open_report();
    if !report.damage.is_empty() || report.rolled_back.is_some() {
        return Err(format!("observe {}: {report:?}", on.name));
    }
    world.note(format!("observe {}: {count} appends", on.name));
    Ok(())
}

fn to_index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
