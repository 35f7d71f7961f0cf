//! The invariants check proves itself: planted faults are caught, and the digest sees each.

use kimberlite_types::{HoldId, Offset, SessionId, ShredId};

use super::*;
use crate::idempotency::Known;
use crate::state::StreamState;
use crate::{Generation, Retention, Scope, check_invariants};

fn first(stream: u64, position: u64) -> Known {
    Known {
        request: RequestHash::new([0; 16]),
        stream: stream_at(stream),
        position: Position::new(position),
        offset: Offset::ZERO,
        time: at(0),
        session: None,
        count: 1,
        first_counter: u32::MAX,
    }
}

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
    let stream = Scope::Stream(stream_at(4));
    check("holds were put", |state| {
        let hold = HoldId::new(Position::new(5));
        state.retentions.put_hold(hold, Scope::Tenant);
    });
    check("of what exists", |state| {
        let hold = HoldId::new(Position::new(4));
        state.retentions.put_hold(hold, stream);
    });
    check("of what exists", |state| {
        let rule = Some(Retention::default());
        state.retentions.set_rule(stream, rule);
    });
    check("of what exists", |state| {
        state.retentions.set_purged(stream, Position::new(2));
    });
    check("stands behind what it purges", |state| {
        let until = Position::new(5);
        state.retentions.set_purged(Scope::Tenant, until);
    });
    check("reaches further", |state| {
        state.retentions.set_purged(Scope::Tenant, Position::new(2));
        let stream = Scope::Stream(stream_at(1));
        state.retentions.set_purged(stream, Position::new(2));
    });
    check("mix of holds, rules and purges", |state| {
        state.retentions.mix += 1;
    });
    let keyed = |state: &mut State, key, stream, position| {
        let first = first(stream, position);
        assert!(state.window.put(idempotency(key, 0).key, first));
    };
    check("appends with keys are in the log", |state| {
        keyed(state, 1, 1, 5);
    });
    check("streams that exist", |state| keyed(state, 1, 4, 4));
    check("no more keys", |state| {
        keyed(state, 1, 1, 3);
        state.next_position = Position::new(1_000_004);
    });
    check("mix of the keys", |state| state.window.mix += 1);
    check("mix of the names", |state| state.names_mix ^= 1);
    check("mix of the streams", |state| {
        state.streams.get_mut(&stream_at(1)).unwrap().next_offset = Offset::new(1);
    });
}

#[test]
fn every_planted_fault_of_erasure_is_named() {
    let stream = Scope::Stream(stream_at(4));
    let shred = |position| ShredId::new(Position::new(position));
    let tenant = Scope::Tenant;
    check("shreds are of what exists", |state| {
        state.erasures.set_erased(stream, Position::new(2));
    });
    check("once at a time", |state| {
        state.session = None;
        state.erasures.put_pending(shred(4), tenant);
    });
    check("once at a time", |state| {
        state.session = None;
        state.erasures.set_erased(tenant, Position::new(4));
        for position in [3, 4] {
            state.erasures.put_pending(shred(position), tenant);
        }
    });
    check("no hold covers", |state| {
        state.session = None;
        state.erasures.set_erased(tenant, Position::new(4));
        state.erasures.put_pending(shred(4), tenant);
        let hold = HoldId::new(Position::new(3));
        let stream = Scope::Stream(stream_at(1));
        state.retentions.put_hold(hold, stream);
    });
    check("erased further", |state| {
        state.erasures.set_erased(tenant, Position::new(2));
        let stream = Scope::Stream(stream_at(1));
        state.erasures.set_erased(stream, Position::new(2));
    });
    check("shreds were ordered", |state| {
        state.erasures.set_erased(tenant, Position::new(5));
    });
    check("no session seals", |state| {
        state.erasures.set_erased(tenant, Position::new(3));
    });
    check("mix of shreds", |state| state.erasures.mix += 1);
    check("as long as", |state| state.generation = Generation::new(9));
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
    check(|state| state.retentions.mix += 1);
    check(|state| state.erasures.mix += 1);
    check(|state| state.generation = Generation::new(1));
    check(|state| state.window.mix += 1);
}

#[test]
fn what_is_known_of_retention_mixes_each_word_and_what_it_is() {
    use crate::digest::{erased_entry, hold_entry, purge_entry, rule_entry, shred_entry};

    let mut mixes = std::collections::BTreeSet::new();
    let scopes = (1..9).map(|id| Scope::Stream(stream_at(id)));
    for scope in scopes.chain([Scope::Tenant]) {
        for number in 1..9 {
            let position = Position::new(number);
            assert!(mixes.insert(hold_entry(HoldId::new(position), scope)));
            assert!(mixes.insert(purge_entry(scope, position)));
            assert!(mixes.insert(erased_entry(scope, position)));
            assert!(mixes.insert(shred_entry(ShredId::new(position), scope)));
            for records in 0..9 {
                let age_ns = number;
                assert!(mixes.insert(rule_entry(scope, Retention { age_ns, records })));
            }
        }
    }
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

#[test]
fn an_append_with_a_key_mixes_each_field() {
    let mut mixes = std::collections::BTreeSet::new();
    let mut add = |key, change: fn(&mut Known)| {
        let mut first = first(1, 3);
        change(&mut first);
        let entry = crate::digest::key_entry(&idempotency(key, 0).key, &first);
        assert!(mixes.insert(entry));
    };
    add(1, |_| ());
    add(2, |_| ());
    add(1, |first| first.request = RequestHash::new([1; 16]));
    add(1, |first| first.stream = stream_at(2));
    add(1, |first| first.position = Position::new(4));
    add(1, |first| first.offset = Offset::new(1));
    add(1, |first| first.time = at(1));
    add(1, |first| {
        first.session = Some(SessionId::new(Position::new(2)));
    });
    add(1, |first| first.count = 2);
    add(1, |first| first.first_counter = 2);
}
