//! Where commands go. Each family decides in a file of its own; what all share is here.
//!
//! Every family first checks everything and then changes the state, so that a rejection leaves it
//! as it was.

pub(crate) mod append;
mod checkpoint;
mod erasure;
mod genesis;
mod other;
mod recovery;
mod retention;
mod rotation;
mod session;
mod stream;

use kimberlite_types::limits::{POSITION_MAX, SESSION_SEALINGS_MAX, TIME_JUMP_NS_MAX};
use kimberlite_types::{KeyedAppend, Position, Timestamp};

use crate::{Command, Effect, Limit, Rejection, Sealing, Slot, State};

/// Applies a command to the state and says where its records belong.
///
/// "Committed" is meant of the order: the command is the next one in the log, and its effect holds
/// from now on for every command after it.
///
/// # Errors
///
/// [`Rejection`] when the command is refused; the state is then unchanged. When several reasons
/// hold, the one that the caller can do least about comes first: a missing genesis record, the shape
/// of the command, the idempotency key, the stream and its version, the time, the limits, the key
/// session.
pub fn apply_committed(state: &mut State, command: Command) -> Result<Effect, Rejection> {
    match command {
        Command::Genesis { log_id, time } => genesis::apply(state, log_id, time),
        Command::CreateStream { name, seal, time } => stream::apply(state, &name, seal, time),
        Command::OpenSession { time } => session::apply(state, time),
        Command::Append {
            stream,
            expected,
            count,
            idempotency,
            seal,
            time,
        } => {
            let request = append::Request {
                stream,
                expected,
                count,
                seal,
            };
            match idempotency {
                None => append::apply(state, &request, time),
                Some(idempotency) => {
                    let keyed = KeyedAppend { idempotency, count };
                    append::apply_keyed(state, &request, &keyed, time)
                }
            }
        }
        Command::Checkpoint { size, time } => checkpoint::apply(state, size, time),
        Command::Recovery { time } => recovery::apply(state, time),
        Command::Retention { act, seal, time } => retention::apply(state, act, seal, time),
        Command::Erasure { act, seal, time } => erasure::apply(state, act, seal, time),
        Command::Rotate {
            generation,
            seal,
            time,
        } => rotation::apply(state, generation, seal, time),
        Command::Other {
            count,
            stream,
            offset,
            seal,
            time,
        } => {
            let slot = Slot {
                stream,
                offset,
                ..Slot::new(state.next_position, count, time).sealed(seal)
            };
            other::apply(state, slot)
        }
    }
}

/// The part of the log that a command may take: checked, not yet taken.
struct Room {
    slot: Slot,
    after: Position,
}

/// Checks that the log has begun, and that `count` records of `time` may follow.
fn room(state: &State, count: u32, time: Timestamp) -> Result<Room, Rejection> {
    if state.log_id.is_none() {
        return Err(Rejection::NoGenesis);
    }
    check_time(state.last_time, time)?;
    let position = state.next_position;
    let after = position
        .checked_add(u64::from(count))
        .ok_or(Rejection::LimitReached {
            what: Limit::LogRecords,
            wanted: position.get().saturating_add(u64::from(count)),
            maximum: POSITION_MAX,
        })?;
    Ok(Room {
        slot: Slot::new(position, count, time),
        after,
    })
}

/// Checks that one more may join `count` others.
fn check_one_more(what: Limit, count: usize, maximum: usize) -> Result<(), Rejection> {
    if count < maximum {
        return Ok(());
    }
    Err(Rejection::LimitReached {
        what,
        wanted: count as u64 + 1,
        maximum: maximum as u64,
    })
}

/// Takes the room: from here on its records are part of the log.
fn take(state: &mut State, after: Position, time: Timestamp) {
    debug_assert!(after > state.next_position, "a command has records");
    debug_assert!(time >= state.last_time, "time never goes back");
    state.next_position = after;
    state.last_time = time;
    state.window.let_go_behind(after);
}

fn check_time(last: Timestamp, time: Timestamp) -> Result<(), Rejection> {
    match time.as_nanoseconds().checked_sub(last.as_nanoseconds()) {
        None => Err(Rejection::TimeWentBack { last, time }),
        Some(ahead_ns) if ahead_ns > TIME_JUMP_NS_MAX => Err(Rejection::TimeJump { last, time }),
        Some(_) => Ok(()),
    }
}

/// Checks that the records were sealed with the session that seals now, if they were sealed.
fn check_seal(state: &State, seal: Option<Sealing>, count: u32) -> Result<(), Rejection> {
    let Some(Sealing {
        session,
        first_counter,
    }) = seal
    else {
        return Ok(());
    };
    let current = state.session.ok_or(Rejection::NoSession)?;
    if session != current {
        return Err(Rejection::SessionEnded { session, current });
    }
    let wanted = u64::from(first_counter) + u64::from(count);
    if wanted > SESSION_SEALINGS_MAX {
        return Err(Rejection::LimitReached {
            what: Limit::SessionSealings,
            wanted,
            maximum: SESSION_SEALINGS_MAX,
        });
    }
    Ok(())
}
