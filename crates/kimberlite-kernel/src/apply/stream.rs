//! Creation of streams.

use kimberlite_types::limits::STREAMS_MAX;
use kimberlite_types::{NameHash, StreamId, Timestamp};

use crate::state::StreamState;
use crate::{Effect, Limit, Rejection, Sealing, State, digest};

/// Creates a stream under a name that no other has.
pub(super) fn apply(
    state: &mut State,
    name: &NameHash,
    seal: Option<Sealing>,
    time: Timestamp,
) -> Result<Effect, Rejection> {
    if state.log_id.is_none() {
        return Err(Rejection::NoGenesis);
    }
    if let Some(stream) = state.stream_by_name(name) {
        return Err(Rejection::StreamExists { stream });
    }
    let room = super::room(state, 1, time)?;
    check_streams(state.streams.len())?;
    super::check_seal(state, seal, 1)?;

    let stream = StreamId::new(room.slot.position);
    let stream_state = StreamState::default();
    let replaced = state.streams.insert(stream, stream_state);
    debug_assert!(replaced.is_none(), "a position creates one stream");
    state.names.insert(*name, stream);
    let streams_entry = digest::stream_entry(stream, stream_state);
    state.streams_mix = state.streams_mix.wrapping_add(streams_entry);
    let names_entry = digest::name_entry(name, stream);
    state.names_mix = state.names_mix.wrapping_add(names_entry);
    super::take(state, room.after, time);
    let slot = room.slot.sealed(seal);
    Ok(Effect::StreamCreated { stream, slot })
}

/// Checks that one more stream may join `count` others.
fn check_streams(count: usize) -> Result<(), Rejection> {
    super::check_one_more(Limit::Streams, count, STREAMS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_allowed_stream_is_created_and_no_other() {
        assert_eq!(check_streams(STREAMS_MAX - 1), Ok(()));
        assert_eq!(
            check_streams(STREAMS_MAX),
            Err(Rejection::LimitReached {
                what: Limit::Streams,
                wanted: STREAMS_MAX as u64 + 1,
                maximum: STREAMS_MAX as u64,
            })
        );
    }
}
