//! Everything that holds between commands, checked by walking the whole state.

use alloc::vec::Vec;

use kimberlite_types::{Position, StreamId, Timestamp};

use crate::digest;
use crate::erasure::{self, Erasures};
use crate::idempotency;
use crate::retention::{self, Retentions};
use crate::{Generation, State};

/// Something that should always hold and does not: a bug, or bad memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the state breaks an invariant: {what}")]
pub struct BrokenInvariant {
    /// What should hold.
    pub what: &'static str,
}

/// Checks every invariant of a state, in time proportional to its size.
///
/// # Errors
///
/// [`BrokenInvariant`] names the first that does not hold.
pub fn check_invariants(state: &State) -> Result<(), BrokenInvariant> {
    check_beginning(state)?;
    check_names(state)?;
    retention::check(state)?;
    erasure::check(state)?;
    idempotency::check(state)?;
    check_extent(state)?;
    check_mixes(state)
}

pub(crate) fn hold(what: &'static str, holds: bool) -> Result<(), BrokenInvariant> {
    if holds {
        Ok(())
    } else {
        Err(BrokenInvariant { what })
    }
}

fn check_beginning(state: &State) -> Result<(), BrokenInvariant> {
    let empty = state.next_position == Position::ZERO;
    hold(
        "a log has records once it has begun",
        state.log_id.is_none() == empty,
    )?;
    let nothing = state.last_time == Timestamp::default()
        && state.session.is_none()
        && state.last_checkpoint.is_none()
        && state.names.is_empty()
        && state.streams.is_empty()
        && state.retentions == Retentions::default()
        && state.erasures == Erasures::default()
        && state.generation == Generation::FIRST
        && state.window.is_empty();
    hold("a log that has not begun holds nothing", !empty || nothing)
}

fn check_names(state: &State) -> Result<(), BrokenInvariant> {
    let mut named: Vec<StreamId> = state.names.values().copied().collect();
    named.sort_unstable();
    let mut streams: Vec<StreamId> = state.streams.keys().copied().collect();
    streams.sort_unstable();
    hold(
        "names and streams lead to each other, one to one",
        named == streams,
    )
}

fn check_extent(state: &State) -> Result<(), BrokenInvariant> {
    let inside = |position: Position| Position::ZERO < position && position < state.next_position;
    let created = state.streams.keys().all(|stream| inside(stream.position()));
    hold("streams were created in the log", created)?;
    let opened = state
        .session
        .is_none_or(|session| inside(session.position()));
    hold("the session was opened in the log", opened)?;
    // The record of a checkpoint follows what it covers.
    let covered = state
        .last_checkpoint
        .is_none_or(|size| size < state.next_position);
    hold("checkpoints cover what is in the log", covered)?;

    let events: u128 = state
        .streams
        .values()
        .map(|stream| u128::from(stream.next_offset.get()))
        .sum();
    let others = state.streams.len()
        + usize::from(state.log_id.is_some())
        + usize::from(state.session.is_some())
        + usize::from(state.last_checkpoint.is_some())
        + state.retentions.holds.len()
        + state.erasures.pending.len()
        + state.generation.get() as usize;
    let records = events + others as u128;
    hold(
        "the log is as long as what it holds",
        records <= u128::from(state.next_position.get()),
    )
}

fn check_mixes(state: &State) -> Result<(), BrokenInvariant> {
    // Sums, so the order of the maps does not matter.
    let names = state.names.iter().fold(0_u64, |sum, (name, stream)| {
        sum.wrapping_add(digest::name_entry(name, *stream))
    });
    hold(
        "the mix of the names is that of their entries",
        names == state.names_mix,
    )?;
    let streams = state.streams.iter().fold(0_u64, |sum, (stream, state)| {
        sum.wrapping_add(digest::stream_entry(*stream, *state))
    });
    hold(
        "the mix of the streams is that of their entries",
        streams == state.streams_mix,
    )
}
