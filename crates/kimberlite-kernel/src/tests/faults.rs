//! The invariants check proves itself: planted faults are caught, and the digest sees each.

use kimberlite_types::{Offset, SessionId};

use super::*;
use crate::check_invariants;
use crate::state::StreamState;

fn check(what: &str, plant: impl FnOnce(&mut State)) {
    let mut state = begun();
    apply(&mut state, append(1, 2)).unwrap();
    plant(&mut state);
    let broken = check_invariants(&state).unwrap_err();
    assert!(broken.what.contains(what), "{broken}");
}

#[test]
fn every_planted_fault_is_named() {
    check("records once it has begun", |state| state.log_id = None);
    check("has not begun", |state| {
        state.log_id = None;
        state.next_position = Position::ZERO;
    });
    check("one to one", |state| {
        state.names.remove(&name(1));
    });
    check("one to one", |state| {
        state.names.insert(name(2), stream_at(1));
    });
    check("streams were created", |state| {
        state.names.insert(name(2), stream_at(99));
        state.streams.insert(stream_at(99), StreamState::default());
    });
    check("session was opened", |state| {
        state.session = Some(SessionId::new(Position::new(5)));
    });
    check("checkpoints cover", |state| {
        state.last_checkpoint = Some(Position::new(5));
    });
    check("as long as", |state| {
        state.streams.get_mut(&stream_at(1)).unwrap().next_offset = Offset::new(3);
    });
    check("mix of the names", |state| state.names_mix ^= 1);
    check("mix of the streams", |state| {
        state.streams.get_mut(&stream_at(1)).unwrap().next_offset = Offset::new(1);
    });
}

#[test]
fn every_field_is_part_of_the_digest() {
    let state = begun();
    let check = |plant: fn(&mut State)| {
        let mut changed = state.clone();
        assert_eq!(changed.digest(), state.digest());
        plant(&mut changed);
        assert_ne!(changed.digest(), state.digest());
    };
    check(|state| state.log_id = None);
    check(|state| state.log_id = Some(LogId::new([8; 32])));
    check(|state| state.next_position = Position::new(4));
    check(|state| state.last_time = at(1));
    check(|state| state.session = None);
    check(|state| state.last_checkpoint = Some(Position::ZERO));
    check(|state| state.names_mix += 1);
    check(|state| state.streams_mix += 1);
}

#[test]
fn an_entry_mixes_each_word_of_its_key_and_value() {
    use crate::digest::{name_entry, stream_entry};

    let mut mixes = std::collections::BTreeSet::new();
    for byte in 0..32 {
        let mut bytes = [0; 32];
        bytes[byte] = 1;
        assert!(mixes.insert(name_entry(&NameHash::new(bytes), stream_at(0))));
    }
    for number in 0..32 {
        assert!(mixes.insert(name_entry(&NameHash::new([0; 32]), stream_at(number))));
        for offset in 0..32 {
            let next_offset = Offset::new(offset);
            assert!(mixes.insert(stream_entry(stream_at(number), StreamState { next_offset })));
        }
    }
}
