//! What a state is as bytes, and what is refused.

#![expect(clippy::indexing_slicing, reason = "a test that panics has failed")]

use kimberlite_types::Idempotency;

use super::*;
use crate::{Command, ErasureAct, ExpectedVersion, RetentionAct, apply_committed};

fn state() -> State {
    let mut state = State::new();
    let time = Timestamp::from_nanoseconds(5);
    let mut apply = |command| *apply_committed(&mut state, command).unwrap().slot();
    let log_id = LogId::new([0xab; 32]);
    apply(Command::Genesis { log_id, time });
    for n in [3, 1, 2] {
        let name = NameHash::new([n; 32]);
        let slot = apply(Command::CreateStream {
            name,
            seal: None,
            time,
        });
        apply(Command::Append {
            stream: StreamId::new(slot.position),
            expected: ExpectedVersion::Any,
            count: u32::from(n),
            idempotency: (n > 1).then(|| Idempotency {
                key: IdempotencyKeyHash::new([n; 16]),
                request: RequestHash::new([n + 1; 16]),
            }),
            seal: None,
            time,
        });
    }
    apply(Command::OpenSession { time });
    let size = Position::new(4);
    apply(Command::Checkpoint { size, time });
    let mut decide = |act| {
        let seal = None;
        apply(Command::Retention { act, seal, time });
    };
    let stream = Scope::Stream(StreamId::new(Position::new(5)));
    decide(RetentionAct::Purge {
        scope: Scope::Tenant,
        until: Position::new(2),
        newest: time,
    });
    decide(RetentionAct::Purge {
        scope: stream,
        until: Position::new(7),
        newest: time,
    });
    for (scope, age_ns) in [(stream, 8), (Scope::Tenant, 9)] {
        let records = 4;
        let rule = Some(Retention { age_ns, records });
        decide(RetentionAct::Retain { scope, rule });
    }
    decide(RetentionAct::Hold {
        scope: Scope::Tenant,
    });
    decide(RetentionAct::Hold { scope: stream });
    state
}

#[test]
fn a_state_that_was_read_is_the_one_that_was_written() {
    let state = state();
    let bytes = state.to_snapshot().unwrap();
    let read = State::from_snapshot(&bytes).unwrap();
    assert_eq!(read.digest(), state.digest());
    assert_eq!(read.to_snapshot().as_ref(), Some(&bytes));
    assert_eq!(crate::check_invariants(&read), Ok(()));
    let names = State::snapshot_names(&bytes);
    assert_eq!(names.len(), 3);
    for (name, stream) in names {
        assert_eq!(read.stream_by_name(&name), Some(stream));
    }
    assert_eq!(State::snapshot_names(bytes.get(..200).unwrap()).len(), 0);
    assert_eq!(State::new().to_snapshot(), None);
}

/// A state with a shred that is complete, one that is not, and keys that were rotated.
fn erased() -> State {
    let mut state = State::new();
    let time = Timestamp::from_nanoseconds(5);
    let stream = |position| Scope::Stream(StreamId::new(Position::new(position)));
    let (seal, log_id) = (None, LogId::new([0xab; 32]));
    let shred = ShredId::new(Position::new(3));
    let erasure = |act| Command::Erasure { act, seal, time };
    let create = |n| Command::CreateStream {
        name: NameHash::new([n; 32]),
        seal,
        time,
    };
    for command in [
        Command::Genesis { log_id, time },
        create(1),
        create(2),
        erasure(ErasureAct::Shred { scope: stream(1) }),
        erasure(ErasureAct::Complete { shred }),
        erasure(ErasureAct::Shred { scope: stream(2) }),
        Command::Rotate {
            generation: Generation::new(1),
            seal,
            time,
        },
        Command::OpenSession { time },
    ] {
        apply_committed(&mut state, command).unwrap();
    }
    state
}

/// What [`state`] is in bytes, as this release writes them and as they were before there were shreds.
fn bytes_of(version: u8) -> Vec<u8> {
    let mut expected = std::vec![version, 0, 0, 0, 0, 0, 0, 0];
    expected.extend([0xab; 32]);
    for word in [18_u64, 5, 10, 4, 3, 2, 2, 2, 2] {
        expected.extend(word.to_le_bytes());
    }
    if version == 3 {
        expected.extend([0; 24]);
    }
    for (id, offset, name) in [(1_u64, 3_u64, 3_u8), (5, 1, 1), (7, 2, 2)] {
        expected.extend(id.to_le_bytes());
        expected.extend(offset.to_le_bytes());
        expected.extend([name; 32]);
    }
    let (tenant, stream) = (u64::MAX, 5);
    let holds = [16, tenant, 17, stream];
    let rules = [tenant, 9, 4, stream, 8, 4];
    let purges = [tenant, 2, stream, 7];
    for word in holds.into_iter().chain(rules).chain(purges) {
        expected.extend(word.to_le_bytes());
    }
    for (n, stream, position) in [(3, 1, 2_u64), (2, 7, 8)] {
        expected.extend([n; 16]);
        expected.extend([n + 1; 16]);
        for word in [stream, position, 0, 5, u64::MAX] {
            expected.extend(word.to_le_bytes());
        }
        expected.extend([n, 0, 0, 0, 255, 255, 255, 255]);
    }
    expected
}

#[test]
fn the_bytes_are_those_of_the_format() {
    assert_eq!(state().to_snapshot(), Some(bytes_of(3)));
    let bytes = erased().to_snapshot().unwrap();
    let (fixed, entries) = bytes.split_at(STREAMS);
    let words = |bytes: &[u8]| bytes.as_chunks().0.to_vec();
    // Next position, time, session, no checkpoint; two streams; generation, shreds, erased scopes.
    let expected = [8, 5, 7, u64::MAX, 2, 0, 0, 0, 0, 1, 1, 2];
    assert_eq!(words(&fixed[40..]), expected.map(u64::to_le_bytes));
    let expected = [5_u64, 2, 1, 3, 2, 5];
    assert_eq!(words(&entries[2 * 48..]), expected.map(u64::to_le_bytes));
}

#[test]
fn a_snapshot_of_before_there_were_shreds_is_read() {
    let read = State::from_snapshot(&bytes_of(2)).unwrap();
    assert_eq!(read.digest(), state().digest());
    assert_eq!(read.to_snapshot(), Some(bytes_of(3)));
    let (before, now) = (bytes_of(2), bytes_of(3));
    assert!(State::snapshot_names(&before).eq(State::snapshot_names(&now)));
    for cut in 0..bytes_of(2).len() {
        let read = State::from_snapshot(&bytes_of(2)[..cut]);
        assert_eq!(read.unwrap_err(), SnapshotError::Length, "cut at {cut}");
    }
}

#[test]
fn what_no_state_holds_of_erasure_is_refused() {
    const SHREDS: usize = STREAMS + 2 * 48;
    const ERASED: usize = SHREDS + 16;
    let bytes = erased().to_snapshot().unwrap();
    assert_eq!(
        State::from_snapshot(&bytes).unwrap().digest(),
        erased().digest()
    );
    let field = |field| SnapshotError::Field { field };
    let cases = [
        (40, 7, field("session")),
        (56, 5, field("session")),
        (112, 1 << 32, field("generation")),
        (112, 4, field("next offset")),
        (120, 2, SnapshotError::Length),
        (128, u64::MAX, SnapshotError::Length),
        (SHREDS, 0, field("shred")),
        (SHREDS, 6, field("shred")),
        (SHREDS + 8, 1, field("shred")),
        (SHREDS + 8, 3, field("shred")),
        (SHREDS + 8, u64::MAX, field("shred")),
        (ERASED, 2, field("erased scope")),
        (ERASED, 3, field("erased scope")),
        (ERASED + 8, 0, field("erased scope")),
        (ERASED + 24, 8, field("erased scope")),
        (ERASED + 24, 4, field("shred")),
    ];
    for (at, value, error) in cases {
        let mut changed = bytes.clone();
        changed[at..at + 8].copy_from_slice(&u64::to_le_bytes(value));
        let read = State::from_snapshot(&changed);
        assert_eq!(read.unwrap_err(), error, "byte {at} is {value}");
    }
    // A hold on what is being shredded, and a second shred of the same scope.
    let mut held = bytes.clone();
    held[80] = 1;
    let hold = [1_u64, 2].map(u64::to_le_bytes);
    held.splice(SHREDS..SHREDS, hold.into_iter().flatten());
    assert_eq!(State::from_snapshot(&held).unwrap_err(), field("shred"));
    let mut twice = bytes.clone();
    twice[120] = 2;
    let earlier = [4_u64, 2].map(u64::to_le_bytes);
    twice.splice(SHREDS..SHREDS, earlier.into_iter().flatten());
    assert_eq!(State::from_snapshot(&twice).unwrap_err(), field("shred"));
}

const STREAMS: usize = 136;
const HOLDS: usize = STREAMS + 3 * 48;
const RULES: usize = HOLDS + 2 * 16;
const PURGES: usize = RULES + 2 * 24;
const KEYS: usize = PURGES + 2 * 16;

#[test]
fn what_no_state_holds_is_refused() {
    let bytes = state().to_snapshot().unwrap();
    let field = |field| SnapshotError::Field { field };
    let cases: [(usize, u64, SnapshotError); 41] = [
        (0, 1, SnapshotError::Version { found: 1 }),
        (0, 1 << 32 | 2, field("padding")),
        (40, 0, field("next position")),
        (40, u64::MAX, field("next position")),
        (40, 17, field("hold")),
        (56, 18, field("session")),
        (56, 0, field("session")),
        (64, 18, field("last checkpoint")),
        (72, 4, SnapshotError::Length),
        (80, 3, SnapshotError::Length),
        (88, u64::MAX, SnapshotError::Length),
        (96, 1, SnapshotError::Length),
        (104, 3, SnapshotError::Length),
        (112, 5, field("next offset")),
        (112, 1 << 32, field("generation")),
        (120, 1, SnapshotError::Length),
        (128, 1, SnapshotError::Length),
        (STREAMS, 0, field("stream")),
        (STREAMS + 48, 1, field("stream")),
        (STREAMS + 96, 18, field("stream")),
        (STREAMS + 96 + 8, 12, field("next offset")),
        (HOLDS, 17, field("hold")),
        (HOLDS, 0, field("hold")),
        (HOLDS + 8, 6, field("hold")),
        (RULES, 6, field("rule")),
        (RULES, 7, field("rule")),
        (PURGES, 7, field("purge")),
        (PURGES + 8, 18, field("purge")),
        (PURGES + 24, 2, field("purge")),
        (KEYS + 32, u64::MAX, field("key")),
        (KEYS + 32, 2, field("key")),
        (KEYS + 40, 0, field("key")),
        (KEYS + 40, u64::MAX, field("key")),
        (KEYS + 48, 1, field("key")),
        (KEYS + 48, u64::MAX, field("key")),
        (KEYS + 56, 6, field("key")),
        (KEYS + 64, 2, field("key")),
        (KEYS + 72, u64::MAX << 32, field("key")),
        (KEYS + 72, 3, field("key")),
        (KEYS + 80 + 40, 4, field("key")),
        (KEYS + 80 + 40, 17, field("key")),
    ];
    for (at, value, error) in cases {
        let mut changed = bytes.clone();
        changed
            .get_mut(at..at + 8)
            .unwrap()
            .copy_from_slice(&value.to_le_bytes());
        let read = State::from_snapshot(&changed);
        assert_eq!(read.unwrap_err(), error, "byte {at}");
    }
    let mut twice = bytes.clone();
    twice.copy_within(STREAMS + 16..STREAMS + 48, STREAMS + 48 + 16);
    let read = State::from_snapshot(&twice);
    assert_eq!(read.unwrap_err(), field("name hash"));
    let mut twice = bytes.clone();
    twice.copy_within(KEYS..KEYS + 16, KEYS + 80);
    let read = State::from_snapshot(&twice);
    assert_eq!(read.unwrap_err(), field("key"));
    for cut in 0..bytes.len() {
        let read = State::from_snapshot(bytes.get(..cut).unwrap());
        assert_eq!(read.unwrap_err(), SnapshotError::Length, "cut at {cut}");
    }
}
