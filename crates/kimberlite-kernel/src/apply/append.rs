//! Appends of events: the common case, without allocation and with one lookup.

use kimberlite_types::limits::APPEND_EVENTS_MAX;
use kimberlite_types::{KeyedAppend, StreamId, Timestamp};

use crate::idempotency::Known;
use crate::{Effect, ExpectedVersion, Limit, Rejection, Sealing, Slot, State, digest};

const EVENTS_MAX: u64 = APPEND_EVENTS_MAX as u64;

/// What is to be appended where.
pub(crate) struct Request {
    pub(crate) stream: StreamId,
    pub(crate) expected: ExpectedVersion,
    pub(crate) count: u32,
    pub(crate) seal: Option<Sealing>,
}

/// Appends `count` events to a stream that is as expected.
#[inline]
pub(crate) fn apply(
    state: &mut State,
    request: &Request,
    time: Timestamp,
) -> Result<Effect, Rejection> {
    let &Request {
        stream,
        expected,
        count,
        seal,
    } = request;
    if state.log_id.is_none() {
        return Err(Rejection::NoGenesis);
    }
    check_count(count)?;
    // These two are decided here and reported below, because the lookup borrows the state to the
    // end and the stream comes first in what is reported.
    let room = super::room(state, count, time);
    let sealed = super::check_seal(state, seal, count);
    let stream_state = state
        .streams
        .get_mut(&stream)
        .ok_or(Rejection::UnknownStream { stream })?;
    let actual = stream_state.last_offset();
    if !expected.allows(actual) {
        return Err(Rejection::WrongVersion { expected, actual });
    }
    let room = room?;
    sealed?;

    let offset = stream_state.next_offset;
    let before = digest::stream_entry(stream, *stream_state);
    stream_state.next_offset = offset
        .checked_add(u64::from(count))
        .expect("a stream has no more events than its log has records");
    let after = digest::stream_entry(stream, *stream_state);
    state.streams_mix = state.streams_mix.wrapping_sub(before).wrapping_add(after);
    super::take(state, room.after, time);
    Ok(Effect::Append(Slot {
        stream: Some(stream),
        offset: Some(offset),
        ..room.slot.sealed(seal)
    }))
}

/// As [`apply`], unless it was done before: of that append `keyed` tells the key, and how many events
/// it has when `request` is only the first part of it.
///
/// Apart from it, so that an append without a key costs what it always did.
#[inline(never)]
pub(crate) fn apply_keyed(
    state: &mut State,
    request: &Request,
    keyed: &KeyedAppend,
    time: Timestamp,
) -> Result<Effect, Rejection> {
    if state.log_id.is_none() {
        return Err(Rejection::NoGenesis);
    }
    check_count(request.count)?;
    // Ahead of the version: what a retry expects was there the first time, and is not now.
    if let Some(first) = state.window.find(&keyed.idempotency)? {
        return Ok(Effect::Duplicate(first));
    }
    let effect = apply(state, request, time)?;
    let slot = effect.slot();
    let first = Known {
        request: keyed.idempotency.request,
        stream: request.stream,
        position: slot.position,
        offset: slot.offset.expect("events have offsets"),
        time,
        session: slot.session,
        count: keyed.count,
        first_counter: slot.first_counter,
    };
    state.window.put_new(keyed.idempotency.key, first);
    state.window.let_go_behind(state.next_position);
    Ok(effect)
}

fn check_count(count: u32) -> Result<(), Rejection> {
    match u64::from(count) {
        0 => Err(Rejection::EmptyAppend),
        wanted if wanted > EVENTS_MAX => Err(Rejection::LimitReached {
            what: Limit::AppendEvents,
            wanted,
            maximum: EVENTS_MAX,
        }),
        _ => Ok(()),
    }
}
