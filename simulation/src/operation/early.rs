//! Appends that are answered before their sync, and such as are awaited.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use kimberlite::{Ack, ExpectedVersion, Receipt};

use super::append::{Came, acknowledged, draw_events, draw_stream, exact};
use super::{On, retry};
use crate::model::{Append, Place, Purged, Standing};
use crate::world::{Checked, Life, Pending, World, told};

/// Appends some events to some stream, where nothing is synced before somebody asks for it.
pub(super) fn append(world: &mut World, life: &mut Life, on: On<'_>) -> Checked {
    let stream = draw_stream(world);
    let events = draw_events(world);
    let offset = world.model(on.name).stream_len(stream);
    let expected = match world.rng.below(4) {
        0 => exact(offset),
        _ => ExpectedVersion::Any,
    };
    let key = retry::draw_key(world, on.name, stream, (expected, &events));
    let options = retry::options(expected, key);
    let handle = on.tenant.stream(stream);
    let handle = handle.map_err(|error| format!("a stream without a handle: {}", told(&error)))?;
    let count = events.len() as u64;
    let what = format!("append {count} events to {}/{stream}", on.name);
    let mut append = Append {
        stream,
        events,
        place: None,
        standing: Standing::Early,
        key,
        purged: Purged::default(),
    };
    if world.rng.chance(1, 3) {
        let mut future = handle.append_async(options.ack(Ack::Durable), &append.events);
        match pin!(&mut future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(came) => match acknowledged(world, &what, came)? {
                Came::Done(receipt) => {
                    return Err(format!("{what}: {receipt:?}, and nothing was synced"));
                }
                Came::Nothing => {}
                Came::Unknown => {
                    append.standing = Standing::Unknown;
                    world.model(on.name).push(append);
                }
            },
            Poll::Pending => {
                world.note(format!("{what}, to be awaited"));
                let model = world.model(on.name);
                life.pending.push(Pending {
                    name: on.name,
                    future,
                    nth: model.appends.len(),
                    offset,
                });
                model.push(append);
            }
        }
    } else {
        let came = handle.append_with(options.ack(Ack::Buffered), &append.events);
        match acknowledged(world, &what, came)? {
            Came::Done(receipt) => {
                world.note(format!("{what}, early: at {}", receipt.first_position()));
                append.place = Some(check(world, on, &receipt, (offset, count))?);
                world.model(on.name).push(append);
                world.trace.counts.early += 1;
            }
            Came::Nothing => {}
            Came::Unknown => {
                append.standing = Standing::Unknown;
                world.model(on.name).push(append);
            }
        }
    }
    // A segment that was full was synced before the next one.
    let durable = on.tenant.durable_position().get();
    world.model(on.name).durable_to(durable);
    Ok(())
}

/// Where a receipt says that events of a stream went, behind `offset` of them.
fn check(world: &mut World, on: On<'_>, receipt: &Receipt, of: (u64, u64)) -> Checked<Place> {
    let (offset, count) = of;
    let place = Place {
        position: receipt.first_position().get(),
        offset: receipt.first_offset().get(),
    };
    let end = world.model(on.name).end();
    let fits = place.offset == offset && u64::from(receipt.count()) == count;
    if !fits || place.position < end {
        return Err(format!(
            "{receipt:?}, after offset {offset}, position {end}"
        ));
    }
    Ok(place)
}

/// Has everything synced, and polls the futures of a tenant to their end.
pub(super) fn wait(world: &mut World, life: &mut Life, on: On<'_>) -> Checked {
    let (mine, others) = std::mem::take(&mut life.pending)
        .into_iter()
        .partition::<Vec<_>, _>(|pending| pending.name == on.name);
    life.pending = others;
    let came = on.tenant.flush();
    let flushed = world.expect("flush for futures", came)?.is_some();
    if flushed {
        world.model(on.name).synced();
    }
    for Pending {
        mut future,
        nth,
        offset,
        ..
    } in mine
    {
        let what = format!("await append {nth} of {}", on.name);
        let polled = pin!(&mut future).poll(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(came) = polled else {
            if flushed {
                return Err(format!("{what}: it is durable, and nobody says so"));
            }
            continue;
        };
        let Some(receipt) = world.expect(&what, came)? else {
            continue;
        };
        let place = Place {
            position: receipt.first_position().get(),
            offset: receipt.first_offset().get(),
        };
        let appends = &mut world.model(on.name).appends;
        let append = &mut appends[nth];
        let count = append.events.len() as u64;
        let is_whole = receipt.is_durable() && u64::from(receipt.count()) == count;
        if !is_whole || place.offset != offset {
            return Err(format!("{what}: {receipt:?}, after offset {offset}"));
        }
        append.place = Some(place);
        append.standing = Standing::Durable;
        world.note(format!("{what}: at {}", place.position));
        world.trace.counts.awaited += 1;
    }
    Ok(())
}
