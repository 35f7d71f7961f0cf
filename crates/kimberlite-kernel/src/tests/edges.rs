//! Limits, each at its edge, and what rejections say.

use std::string::ToString;

use kimberlite_types::limits::{
    APPEND_EVENTS_MAX, POSITION_MAX, SESSION_SEALINGS_MAX, STREAMS_MAX, TIME_JUMP_NS_MAX,
};
use kimberlite_types::{Offset, SessionId, ShredId};

use super::*;
use crate::{Generation, Limit, Scope};

fn limit(what: Limit, wanted: u64, maximum: u64) -> Result<Effect, Rejection> {
    Err(Rejection::LimitReached {
        what,
        wanted,
        maximum,
    })
}

#[test]
fn an_append_has_at_least_one_event_and_at_most_the_limit() {
    let maximum = u32::try_from(APPEND_EVENTS_MAX).unwrap();
    let mut state = begun();
    assert!(apply(&mut state, append(1, maximum)).is_ok());
    assert_eq!(
        apply(&mut state, append(1, maximum + 1)),
        limit(Limit::AppendEvents, u64::from(maximum) + 1, maximum.into())
    );
    assert_eq!(apply(&mut state, append(1, 0)), Err(Rejection::EmptyAppend));
}

#[test]
fn the_last_counter_of_a_session_is_used_and_none_past_it() {
    let sealed = |first_counter, count| Command::Append {
        stream: stream_at(1),
        expected: ExpectedVersion::Any,
        count,
        idempotency: None,
        seal: Some(Sealing {
            session: SessionId::new(Position::new(2)),
            first_counter,
        }),
        time: at(0),
    };
    let mut state = begun();
    let effect = apply(&mut state, sealed(u32::MAX, 1)).unwrap();
    assert_eq!(effect.slot().first_counter, u32::MAX);
    assert!(apply(&mut state, sealed(u32::MAX - 9, 10)).is_ok());
    assert_eq!(
        apply(&mut state, sealed(u32::MAX - 9, 11)),
        limit(
            Limit::SessionSealings,
            SESSION_SEALINGS_MAX + 1,
            SESSION_SEALINGS_MAX
        )
    );
    assert!(
        apply(&mut state, sealed(0, 1)).is_ok(),
        "counters arrive in any order"
    );
}

#[test]
fn the_last_position_is_never_passed() {
    let mut state = begun();
    state.next_position = Position::new(POSITION_MAX - 2);
    assert_eq!(
        apply(&mut state, append(1, 3)),
        limit(Limit::LogRecords, POSITION_MAX + 1, POSITION_MAX)
    );
    assert!(apply(&mut state, append(1, 2)).is_ok());
    assert_eq!(state.next_position(), Position::new(POSITION_MAX));
    for command in [
        append(1, 1),
        create(2, None),
        Command::OpenSession { time: at(0) },
        Command::Recovery { time: at(0) },
        Command::Checkpoint {
            size: Position::new(4),
            time: at(0),
        },
    ] {
        assert_eq!(
            apply(&mut state, command),
            limit(Limit::LogRecords, POSITION_MAX + 1, POSITION_MAX)
        );
    }
}

#[test]
fn time_stands_still_or_goes_on_but_not_too_far() {
    let mut state = State::new();
    let start = 1_700_000_000_000_000_000;
    let genesis = Command::Genesis {
        log_id: LOG_ID,
        time: at(start),
    };
    apply(&mut state, genesis).unwrap();
    let mut recover = |time| apply(&mut state, Command::Recovery { time: at(time) });
    assert!(recover(start).is_ok());
    let farthest = start + TIME_JUMP_NS_MAX;
    let (last, time) = (at(start), at(farthest + 1));
    assert_eq!(
        recover(farthest + 1),
        Err(Rejection::TimeJump { last, time })
    );
    assert!(recover(farthest).is_ok());
    let (last, time) = (at(farthest), at(farthest - 1));
    assert_eq!(
        recover(farthest - 1),
        Err(Rejection::TimeWentBack { last, time })
    );
}

#[test]
fn only_the_newest_session_seals() {
    let mut state = begun();
    let sealed = |session| {
        create(
            9,
            Some(Sealing {
                session: SessionId::new(Position::new(session)),
                first_counter: 0,
            }),
        )
    };
    apply(&mut state, Command::OpenSession { time: at(0) }).unwrap();
    assert_eq!(
        apply(&mut state, sealed(2)),
        Err(Rejection::SessionEnded {
            session: SessionId::new(Position::new(2)),
            current: SessionId::new(Position::new(3)),
        })
    );
    let effect = apply(&mut state, sealed(3)).unwrap();
    assert_eq!(effect.slot().session, state.session());
}

#[test]
fn a_checkpoint_covers_what_is_there_and_no_less_than_the_last() {
    let mut state = begun();
    let mut record = |size| {
        let size = Position::new(size);
        apply(&mut state, Command::Checkpoint { size, time: at(0) })
    };
    let (size, records) = (Position::new(4), Position::new(3));
    assert_eq!(
        record(4),
        Err(Rejection::CheckpointAheadOfLog { size, records })
    );
    assert!(record(3).is_ok());
    assert!(record(3).is_ok(), "the same one may be recorded again");
    let (size, last) = (Position::new(2), Position::new(3));
    assert_eq!(record(2), Err(Rejection::CheckpointBehind { size, last }));
}

#[test]
fn a_wrong_version_comes_before_an_ended_session() {
    let mut state = begun();
    let command = Command::Append {
        stream: stream_at(1),
        expected: ExpectedVersion::Exact(Offset::ZERO),
        count: 1,
        idempotency: None,
        seal: Some(Sealing {
            session: SessionId::new(Position::new(1)),
            first_counter: 0,
        }),
        time: at(0),
    };
    assert_eq!(
        apply(&mut state, command),
        Err(Rejection::WrongVersion {
            expected: ExpectedVersion::Exact(Offset::ZERO),
            actual: None,
        }),
        "nobody seals again for an append that is refused all the same"
    );
}

#[test]
fn every_rejection_says_what_to_do() {
    let position = Position::new;
    let wrong_version = |expected, actual| Rejection::WrongVersion { expected, actual };
    let rejections = [
        wrong_version(ExpectedVersion::NoStream, Some(Offset::new(4))),
        wrong_version(ExpectedVersion::Exact(Offset::new(1)), None),
        Rejection::KeyReused { first: position(4) },
        Rejection::UnknownStream {
            stream: stream_at(1),
        },
        Rejection::StreamExists {
            stream: stream_at(1),
        },
        Rejection::SessionEnded {
            session: SessionId::new(position(1)),
            current: SessionId::new(position(2)),
        },
        Rejection::NoSession,
        Rejection::TimeWentBack {
            last: at(2),
            time: at(1),
        },
        Rejection::TimeJump {
            last: at(2),
            time: at(1),
        },
        Rejection::LimitReached {
            what: Limit::Streams,
            wanted: STREAMS_MAX as u64 + 1,
            maximum: STREAMS_MAX as u64,
        },
        Rejection::EmptyAppend,
        Rejection::ShredPending {
            shred: ShredId::new(position(3)),
            scope: Scope::Tenant,
        },
        Rejection::UnknownShred {
            shred: ShredId::new(position(3)),
        },
        Rejection::WrongGeneration {
            generation: Generation::new(1),
            next: Generation::new(2),
        },
        Rejection::NoGenesis,
        Rejection::GenesisTwice,
        Rejection::CheckpointBehind {
            size: position(1),
            last: position(2),
        },
        Rejection::CheckpointAheadOfLog {
            size: position(3),
            records: position(2),
        },
    ];
    for rejection in rejections.into_iter().chain(retention::rejections()) {
        let text = rejection.to_string();
        let remedy = text.split("; ").nth(1);
        assert!(remedy.is_some_and(|remedy| !remedy.is_empty()), "{text}");
        assert!(
            text.starts_with(char::is_lowercase) && !text.ends_with('.'),
            "{text}"
        );
    }
    assert_eq!(
        wrong_version(ExpectedVersion::NoStream, Some(Offset::new(4))).to_string(),
        "the stream should have no events but has a last event at offset 4; read what was added \
         and decide again"
    );
}

#[test]
fn the_last_generation_of_keys_is_opened_and_none_past_it() {
    let mut state = begun();
    state.generation = Generation::new(u32::MAX - 1);
    let rotate = |number| Command::Rotate {
        generation: Generation::new(number),
        seal: None,
        time: at(0),
    };
    // The log is shorter than it would be, so the invariants are not looked at.
    assert!(apply_committed(&mut state, rotate(u32::MAX)).is_ok());
    let maximum = u64::from(u32::MAX);
    assert_eq!(
        apply_committed(&mut state, rotate(0)),
        limit(Limit::Generations, maximum + 1, maximum)
    );
}
