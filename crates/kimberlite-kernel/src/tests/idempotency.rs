//! Appends with keys: what a retry is told, and for how long.

use kimberlite_types::limits::{IDEMPOTENCY_KEYS_MAX, IDEMPOTENCY_POSITIONS_MAX};
use kimberlite_types::{Offset, SessionId};

use super::*;

fn keyed(stream: u64, expected: ExpectedVersion, of: Idempotency) -> Command {
    Command::Append {
        stream: stream_at(stream),
        expected,
        count: 2,
        idempotency: Some(of),
        seal: None,
        time: at(0),
    }
}

#[test]
fn a_retry_is_told_where_its_events_stand_and_changes_nothing() {
    let mut state = begun();
    let command = keyed(1, ExpectedVersion::NoStream, idempotency(1, 1));
    let first = *apply(&mut state, command).unwrap().slot();
    apply(&mut state, append(1, 3)).unwrap();
    // The stream has events now, and the time has gone on.
    apply(&mut state, Command::Recovery { time: at(9) }).unwrap();
    assert_eq!(apply(&mut state, command), Ok(Effect::Duplicate(first)));
    assert_eq!(state.first_answer(&idempotency(1, 1)), Ok(Some(first)));
    assert_eq!(state.first_answer(&idempotency(2, 1)), Ok(None));
    assert_eq!(state.keys_count(), 1);
}

#[test]
fn a_retry_needs_neither_the_session_that_has_ended_nor_the_stream_that_it_names() {
    let mut state = begun();
    let sealed = |session| Command::Append {
        stream: stream_at(1),
        expected: ExpectedVersion::Any,
        count: 1,
        idempotency: Some(idempotency(1, 1)),
        seal: Some(Sealing {
            session: SessionId::new(Position::new(session)),
            first_counter: 7,
        }),
        time: at(0),
    };
    let first = *apply(&mut state, sealed(2)).unwrap().slot();
    assert_eq!(first.first_counter, 7);
    apply(&mut state, Command::OpenSession { time: at(0) }).unwrap();
    assert_eq!(apply(&mut state, sealed(2)), Ok(Effect::Duplicate(first)));
    // That it is the same request is for the hash to say, of which the name is a part.
    let command = keyed(99, ExpectedVersion::Any, idempotency(1, 1));
    assert_eq!(apply(&mut state, command), Ok(Effect::Duplicate(first)));
}

#[test]
fn a_key_that_comes_with_another_request_is_refused() {
    let mut state = begun();
    apply(&mut state, create(2, None)).unwrap();
    let command = keyed(1, ExpectedVersion::Any, idempotency(1, 1));
    let first = apply(&mut state, command).unwrap().slot().position;
    let refused = Err(Rejection::KeyReused { first });
    for stream in [1, 3] {
        let other = keyed(stream, ExpectedVersion::Any, idempotency(1, 2));
        assert_eq!(apply(&mut state, other), refused);
        // Ahead of the version, as for a retry.
        let expected = ExpectedVersion::Exact(Offset::new(77));
        let other = keyed(stream, expected, idempotency(1, 2));
        assert_eq!(apply(&mut state, other), refused);
    }
}

#[test]
fn a_refused_append_leaves_its_key_free() {
    let mut state = begun();
    let expected = ExpectedVersion::Exact(Offset::ZERO);
    let refused = keyed(1, expected, idempotency(1, 1));
    assert!(apply(&mut state, refused).is_err());
    let command = keyed(1, ExpectedVersion::Any, idempotency(1, 2));
    assert!(matches!(apply(&mut state, command), Ok(Effect::Append(_))));
}

#[test]
fn an_append_is_known_for_so_many_records_and_not_for_one_more() {
    let mut state = begun();
    let command = keyed(1, ExpectedVersion::Any, idempotency(1, 1));
    let first = *apply(&mut state, command).unwrap().slot();
    let mut others = IDEMPOTENCY_POSITIONS_MAX - 2;
    let pass = |state: &mut State, count: u64| {
        let count = u32::try_from(count).unwrap();
        let other = Command::Other {
            count,
            stream: None,
            offset: None,
            seal: None,
            time: at(0),
        };
        apply(state, other).unwrap();
    };
    while others > 0 {
        let count = others.min(300_000);
        pass(&mut state, count);
        others -= count;
    }
    assert_eq!(apply(&mut state, command), Ok(Effect::Duplicate(first)));
    let read = State::from_snapshot(&state.to_snapshot().unwrap()).unwrap();
    assert_eq!(read.first_answer(&idempotency(1, 1)), Ok(Some(first)));
    pass(&mut state, 1);
    assert_eq!(state.keys_count(), 0);
    assert!(matches!(apply(&mut state, command), Ok(Effect::Append(_))));
}

#[test]
fn so_many_newest_appends_with_keys_are_known_and_not_one_more() {
    let mut state = begun();
    let of = |number: usize| {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&number.to_le_bytes());
        Idempotency {
            key: IdempotencyKeyHash::new(key),
            request: RequestHash::new([1; 16]),
        }
    };
    let command = |number| keyed(1, ExpectedVersion::Any, of(number));
    for number in 0..IDEMPOTENCY_KEYS_MAX {
        apply_committed(&mut state, command(number)).unwrap();
    }
    assert!(state.first_answer(&of(0)).unwrap().is_some());
    apply(&mut state, command(IDEMPOTENCY_KEYS_MAX)).unwrap();
    assert_eq!(state.first_answer(&of(0)), Ok(None));
    assert!(state.first_answer(&of(1)).unwrap().is_some());
    assert_eq!(state.keys_count(), IDEMPOTENCY_KEYS_MAX);
    let read = State::from_snapshot(&state.to_snapshot().unwrap()).unwrap();
    assert_eq!(read.digest(), state.digest());
    assert_eq!(read.first_answer(&of(0)), Ok(None));
}
