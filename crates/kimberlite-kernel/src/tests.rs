//! Tests of the kernel as a whole.

mod edges;
mod erasure;
mod exhaustive;
mod faults;
mod idempotency;
mod model;
mod replay;
mod retention;
mod sequences;

use kimberlite_types::{
    Idempotency, IdempotencyKeyHash, LogId, NameHash, Position, RequestHash, StreamId, Timestamp,
};

use crate::{Command, Effect, ExpectedVersion, Rejection, Sealing, State, apply_committed};

const LOG_ID: LogId = LogId::new([7; 32]);

fn at(nanoseconds: u64) -> Timestamp {
    Timestamp::from_nanoseconds(nanoseconds)
}

fn name(number: u8) -> NameHash {
    let mut bytes = [0; 32];
    bytes[31] = number;
    NameHash::new(bytes)
}

fn stream_at(position: u64) -> StreamId {
    StreamId::new(Position::new(position))
}

fn append(stream: u64, count: u32) -> Command {
    Command::Append {
        stream: stream_at(stream),
        expected: ExpectedVersion::Any,
        count,
        idempotency: None,
        seal: None,
        time: at(0),
    }
}

fn idempotency(key: u8, request: u8) -> Idempotency {
    Idempotency {
        key: IdempotencyKeyHash::new([key; 16]),
        request: RequestHash::new([request; 16]),
    }
}

fn create(number: u8, seal: Option<Sealing>) -> Command {
    Command::CreateStream {
        name: name(number),
        seal,
        time: at(0),
    }
}

/// Applies a command; a rejection must leave the state as it was, anything must leave it whole.
fn apply(state: &mut State, command: Command) -> Result<Effect, Rejection> {
    let before = state.digest();
    let next_position = state.next_position();
    let result = apply_committed(state, command);
    crate::check_invariants(state).unwrap();
    match &result {
        Ok(Effect::Duplicate(slot)) => {
            assert!(slot.end() <= next_position);
            assert_eq!(state.next_position(), next_position);
            assert_eq!(state.digest(), before, "{command:?}");
        }
        Ok(effect) => {
            let slot = effect.slot();
            assert_eq!(slot.position, next_position);
            assert_eq!(
                state.next_position().get(),
                next_position.get() + u64::from(slot.count)
            );
            assert_eq!(state.last_time(), slot.time);
            assert_ne!(state.digest(), before, "{command:?}");
        }
        Err(_) => assert_eq!(state.digest(), before, "{command:?}"),
    }
    result
}

/// A state after genesis (0), one stream (1) and one session (2).
fn begun() -> State {
    let mut state = State::new();
    let genesis = Command::Genesis {
        log_id: LOG_ID,
        time: at(0),
    };
    for command in [
        genesis,
        create(1, None),
        Command::OpenSession { time: at(0) },
    ] {
        apply(&mut state, command).unwrap();
    }
    state
}
