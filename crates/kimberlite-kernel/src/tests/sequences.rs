//! Random commands against the model; the log that they leave, replayed whole and in pieces, gives
//! the same state.

use kimberlite_types::limits::TIME_JUMP_NS_MAX;
use kimberlite_types::{HoldId, Offset, SessionId, ShredId};
use proptest::prelude::*;

use super::model::{Model, contents};
use super::replay::{frame_of, split};
use super::*;
use crate::idempotency::{Bounds, Window};
use crate::{ErasureAct, Generation, Retention, RetentionAct, Scope};

/// Stands for the newest session: genesis is there, so no session ever is.
const NEWEST: Position = Position::ZERO;

fn position() -> impl Strategy<Value = Position> {
    prop_oneof![4 => Just(1), 8 => 0..16_u64, 1 => any::<u64>()].prop_map(Position::new)
}

fn seal() -> impl Strategy<Value = Option<Sealing>> {
    let counter = prop_oneof![4 => 0..100_u32, 1 => u32::MAX - 3..=u32::MAX];
    let session = prop_oneof![3 => Just(NEWEST), 1 => position()];
    let sealing = (session, counter).prop_map(|(session, first_counter)| Sealing {
        session: SessionId::new(session),
        first_counter,
    });
    prop::option::weighted(0.4, sealing)
}

fn expected() -> impl Strategy<Value = ExpectedVersion> {
    prop_oneof![
        4 => Just(ExpectedVersion::Any),
        1 => Just(ExpectedVersion::NoStream),
        2 => (0..6_u64).prop_map(|offset| ExpectedVersion::Exact(Offset::new(offset))),
        1 => any::<u64>().prop_map(|offset| ExpectedVersion::Exact(Offset::new(offset))),
    ]
}

fn count() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 0..5_u32, 1 => 65_535..65_538_u32, 1 => any::<u32>()]
}

/// Few keys, so that they come again, now and then with another request.
fn key() -> impl Strategy<Value = Option<Idempotency>> {
    let request = prop_oneof![4 => Just(0_u8), 1 => Just(1)];
    let key = (0..4_u8, request).prop_map(|(key, request)| idempotency(key, request));
    prop::option::weighted(0.5, key)
}

/// Times that mostly stand still or go on, and at times go back or jump.
fn time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        12 => Just(5_u64),
        2 => 0..12_u64,
        1 => Just(TIME_JUMP_NS_MAX + 6),
        1 => any::<u64>(),
    ]
    .prop_map(Timestamp::from_nanoseconds)
}

fn scope() -> impl Strategy<Value = Scope> {
    prop_oneof![
        Just(Scope::Tenant),
        position().prop_map(|position| Scope::Stream(StreamId::new(position))),
    ]
}

fn act() -> impl Strategy<Value = RetentionAct> {
    let rule = (0..12_u64, 0..12_u64).prop_map(|(age_ns, records)| Retention { age_ns, records });
    prop_oneof![
        2 => scope().prop_map(|scope| RetentionAct::Hold { scope }),
        2 => position().prop_map(|hold| RetentionAct::Release { hold: HoldId::new(hold) }),
        1 => (scope(), prop::option::of(rule))
            .prop_map(|(scope, rule)| RetentionAct::Retain { scope, rule }),
        3 => (scope(), position(), time())
            .prop_map(|(scope, until, newest)| RetentionAct::Purge { scope, until, newest }),
    ]
}

fn erasure() -> impl Strategy<Value = ErasureAct> {
    prop_oneof![
        scope().prop_map(|scope| ErasureAct::Shred { scope }),
        position().prop_map(|shred| ErasureAct::Complete {
            shred: ShredId::new(shred)
        }),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        4 => (act(), seal(), time())
            .prop_map(|(act, seal, time)| Command::Retention { act, seal, time }),
        3 => (erasure(), seal(), time())
            .prop_map(|(act, seal, time)| Command::Erasure { act, seal, time }),
        1 => (0..4_u32, seal(), time()).prop_map(|(generation, seal, time)| Command::Rotate {
            generation: Generation::new(generation), seal, time,
        }),
        1 => time().prop_map(|time| Command::Genesis { log_id: LOG_ID, time }),
        4 => (0..5_u8, seal(), time())
            .prop_map(|(number, seal, time)| Command::CreateStream { name: name(number), seal, time }),
        2 => time().prop_map(|time| Command::OpenSession { time }),
        16 => (position(), expected(), count(), key(), seal(), time()).prop_map(
            |(stream, expected, count, idempotency, seal, time)| Command::Append {
                stream: StreamId::new(stream), expected, count, idempotency, seal, time,
            }
        ),
        2 => (position(), time()).prop_map(|(size, time)| Command::Checkpoint { size, time }),
        1 => time().prop_map(|time| Command::Recovery { time }),
        1 => (0..4_u32, prop::option::of(position()), seal(), time()).prop_map(
            |(count, stream, seal, time)| Command::Other {
                count, stream: stream.map(StreamId::new), offset: None, seal, time,
            }
        ),
    ]
}

/// Puts the newest session where the command names it.
fn resolve(state: &State, mut command: Command) -> Command {
    if let Command::CreateStream { seal, .. }
    | Command::Append { seal, .. }
    | Command::Retention { seal, .. }
    | Command::Erasure { seal, .. }
    | Command::Rotate { seal, .. } = &mut command
        && let Some(seal) = seal
        && seal.session.position() == NEWEST
    {
        seal.session = state.session().unwrap_or(seal.session);
    }
    command
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn the_kernel_decides_as_the_model_and_replay_gives_the_same_state(
        commands in prop::collection::vec(command(), 0..40),
        frame_records in 1..5_u32,
        bounds in (1..40_u64, 1..5_usize),
    ) {
        let bounds = Bounds { positions: bounds.0, keys: bounds.1 };
        let empty = || State { window: Window::with_bounds(bounds), ..State::new() };
        let genesis = Command::Genesis { log_id: LOG_ID, time: at(0) };
        let mut state = empty();
        let mut model = Model::with_bounds(bounds);
        let mut replayed = empty();
        for command in [genesis, create(0, None)].into_iter().chain(commands) {
            let command = resolve(&state, command);
            let effect = apply(&mut state, command);
            prop_assert_eq!(&effect, &model.apply(&command));
            prop_assert_eq!(contents(&state), model.contents());
            if let Ok(effect) = effect && !matches!(effect, Effect::Duplicate(_)) {
                let frame = frame_of(&command, &effect);
                // Large appends are cut less finely, to keep the test short.
                for frame in split(&frame, frame_records.max(frame.slot.count / 8)) {
                    crate::replay(&mut replayed, &frame).unwrap();
                    crate::check_invariants(&replayed).unwrap();
                }
            }
            prop_assert_eq!(state.digest(), replayed.digest());
            prop_assert_eq!(contents(&state), contents(&replayed));
            if let Some(bytes) = state.to_snapshot() {
                let read = State::from_snapshot(&bytes).unwrap();
                prop_assert_eq!(state.digest(), read.digest());
                prop_assert_eq!(contents(&state), contents(&read));
            }
        }
    }
}
