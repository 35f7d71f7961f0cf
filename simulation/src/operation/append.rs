//! Appending: what is acknowledged goes into the model where the receipt says, what fails as what may
//! be there.

use kimberlite::{Ack, AppendOptions, Error, ErrorKind, Event, ExpectedVersion, Offset, Receipt};

use super::{On, retry};
use crate::model::{Append, Place, Purged, Standing};
use crate::world::{Checked, Life, World, told};

pub(crate) const STREAMS: [&str; 4] = ["s", "orders/7", "patient 42", "ledger"];
const TYPES: [&str; 3] = ["noted", "moved", "a type of event"];

/// Appends some events to some stream.
pub(super) fn append(world: &mut World, life: &Life, on: On<'_>) -> Checked {
    let stream = draw_stream(world);
    let events = draw_events(world);
    let len = world.model(on.name).stream_len(stream);
    let expected = match world.rng.below(4) {
        0 => exact(len),
        _ => ExpectedVersion::Any,
    };
    let handle = on.tenant.stream(stream);
    let handle = handle.map_err(|error| format!("a stream without a handle: {}", told(&error)))?;
    let key = retry::draw_key(world, on.name, stream, (expected, &events));
    let came = handle.append_with(retry::options(expected, key), &events);
    let bytes = events.iter().map(|it| it.data().len()).sum::<usize>();
    let what = format!(
        "append {} events, {bytes} bytes to {}/{stream}",
        events.len(),
        on.name
    );
    let durable = life.policy.is_durable();
    match acknowledged(world, &what, came)? {
        Came::Done(receipt) => {
            let place = Place {
                position: receipt.first_position().get(),
                offset: receipt.first_offset().get(),
            };
            world.note(format!("{what}: at {}", place.position));
            let model = world.model(on.name);
            let end = model.end();
            if place.offset != len
                || place.position < end
                || u64::from(receipt.count()) != events.len() as u64
            {
                return Err(format!(
                    "{what}: {receipt:?}, after offset {len}, position {end}"
                ));
            }
            // Its frame says up to where everything had been synced before it.
            let synced = |it: &&Append| it.standing == Standing::Durable;
            model.marked = model
                .marked
                .max(model.appends.iter().filter(synced).count());
            let standing = if durable {
                Standing::Durable
            } else {
                Standing::Written
            };
            let count = events.len() as u64;
            model.push(Append {
                stream,
                events,
                place: Some(place),
                standing,
                key,
                purged: Purged::default(),
            });
            world.trace.counts.events += count;
        }
        Came::Nothing => {}
        Came::Unknown => world.model(on.name).push(Append {
            stream,
            events,
            place: None,
            standing: Standing::Unknown,
            key,
            purged: Purged::default(),
        }),
    }
    Ok(())
}

/// Appends with a version that the stream does not have, which is refused.
pub(super) fn elsewhere(world: &mut World, life: &Life, on: On<'_>) -> Checked {
    let stream = draw_stream(world);
    let events = draw_events(world);
    let len = world.model(on.name).stream_len(stream);
    let wrong = match world.rng.below(3) {
        0 if len > 0 => ExpectedVersion::NoStream,
        1 if len > 1 => exact(len - 1),
        _ => exact(len + 1 + world.rng.below(5)),
    };
    let handle = on.tenant.stream(stream);
    let handle = handle.map_err(|error| format!("a stream without a handle: {}", told(&error)))?;
    let mut options = AppendOptions::new().expected(wrong);
    if life.is_patient {
        // It is decided on what is not durable, and would wait for that.
        options = options.ack(Ack::Buffered);
    }
    match handle.append_with(options, &events) {
        Err(error) if error.kind() == ErrorKind::WrongVersion => {
            world.note(format!("refused {wrong:?} of {}/{stream}", on.name));
            Ok(())
        }
        Err(error) => world
            .expect("append elsewhere", Err::<(), _>(error))
            .map(drop),
        Ok(receipt) => Err(format!(
            "{wrong:?} of a stream of {len} events: {receipt:?}"
        )),
    }
}

/// Appends what is not allowed, which is refused whatever the disk does.
pub(super) fn invalid(world: &mut World, on: On<'_>) -> Checked {
    let handle = on.tenant.stream("s");
    let handle = handle.map_err(|error| format!("a stream without a handle: {}", told(&error)))?;
    let events = match world.rng.below(2) {
        0 => Vec::new(),
        _ => vec![Event::new("", "an event without a type")],
    };
    match handle.append(ExpectedVersion::Any, &events) {
        Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
        other => Err(format!("what is not allowed came to {other:?}")),
    }
}

/// The version of a stream of `len` events.
pub(super) fn exact(len: u64) -> ExpectedVersion {
    len.checked_sub(1)
        .map_or(ExpectedVersion::NoStream, |last| {
            ExpectedVersion::Exact(Offset::new(last))
        })
}

pub(super) enum Came {
    Done(Receipt),
    /// Nothing was appended, for certain.
    Nothing,
    Unknown,
}

pub(super) fn acknowledged(
    world: &mut World,
    what: &str,
    came: Result<Receipt, Error>,
) -> Checked<Came> {
    let kind = came.as_ref().err().map(Error::kind);
    Ok(match (world.expect(what, came)?, kind) {
        (Some(receipt), _) => Came::Done(receipt),
        (None, Some(ErrorKind::OutcomeUnknown)) => Came::Unknown,
        (None, _) => Came::Nothing,
    })
}

pub(super) fn draw_stream(world: &mut World) -> &'static str {
    world.rng.choose(&STREAMS).copied().unwrap_or("s")
}

pub(super) fn draw_events(world: &mut World) -> Vec<Event> {
    let count = match world.rng.below(12) {
        0 => 1 + world.rng.below(40),
        1..=4 => 2 + world.rng.below(3),
        _ => 1,
    };
    (0..count).map(|_| draw_event(world)).collect()
}

fn draw_event(world: &mut World) -> Event {
    let bytes = match world.rng.below(10) {
        0 if world.large => world.rng.index(120_000),
        1 => world.rng.index(3_000),
        2 => 0,
        _ => world.rng.index(200),
    };
    world.numbered += 1;
    let mut data = world.numbered.to_le_bytes().to_vec();
    data.extend(world.rng.bytes(bytes));
    let event_type = world.rng.choose(&TYPES).copied().unwrap_or("noted");
    let event = Event::new(event_type, data);
    if world.rng.chance(1, 4) {
        let bytes = world.rng.index(60);
        event.with_metadata(world.rng.bytes(bytes))
    } else {
        event
    }
}
