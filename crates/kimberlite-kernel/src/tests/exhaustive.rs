//! Every sequence of a small set of commands, up to a small depth.
//!
//! Goal: no order of commands is forgotten, and the digest is a function of what the state holds
//! and of nothing else. Method: walk the tree of all sequences with the model beside, and keep for
//! each digest what its state held.

use std::collections::BTreeMap;
use std::string::String;
use std::vec;
use std::vec::Vec;

use kimberlite_types::{HoldId, Offset, SessionId, ShredId};

use super::model::{Model, contents};
use super::*;
use crate::idempotency::{Bounds, Window};
use crate::{ErasureAct, Generation, Retention, RetentionAct, Scope};

const DEPTH: usize = 9;
const ACTS_DEPTH: usize = 6;
const KEYS_DEPTH: usize = 7;

fn alphabet() -> Vec<Command> {
    let time = at(0);
    let seal = |session| {
        Some(Sealing {
            session: SessionId::new(Position::new(session)),
            first_counter: 3,
        })
    };
    let appended = |stream, expected, seal| Command::Append {
        stream: stream_at(stream),
        expected,
        count: 1,
        idempotency: None,
        seal,
        time,
    };
    vec![
        Command::Genesis {
            log_id: LOG_ID,
            time,
        },
        create(1, None),
        create(2, seal(2)),
        Command::OpenSession { time },
        append(1, 2),
        appended(1, ExpectedVersion::NoStream, None),
        appended(1, ExpectedVersion::Exact(Offset::ZERO), None),
        appended(1, ExpectedVersion::Any, seal(2)),
        append(2, 1),
        Command::Checkpoint {
            size: Position::new(2),
            time,
        },
        Command::Recovery { time: at(1) },
    ]
}

#[derive(Default)]
struct Walk {
    by_digest: BTreeMap<u64, String>,
    accepted: u64,
    repeated: u64,
    rejected: u64,
}

impl Walk {
    fn down(&mut self, state: &State, model: &Model, alphabet: &[Command], depth: usize) {
        let held = contents(state);
        assert_eq!(held, model.contents());
        let seen = self.by_digest.entry(state.digest().get());
        assert_eq!(
            *seen.or_insert_with(|| held.clone()),
            held,
            "a digest stands for one state"
        );
        if depth == 0 {
            return;
        }
        for &command in alphabet {
            let (mut state, mut model) = (state.clone(), model.clone());
            let effect = apply(&mut state, command);
            assert_eq!(effect, model.apply(&command), "{command:?}");
            match effect {
                // The state is unchanged, so what follows is walked elsewhere.
                Ok(Effect::Duplicate(_)) => self.repeated += 1,
                Err(_) => self.rejected += 1,
                Ok(_) => {
                    self.accepted += 1;
                    self.down(&state, &model, alphabet, depth - 1);
                }
            }
        }
    }
}

impl Walk {
    fn check(&self, decided_min: u64) {
        assert!(self.accepted > decided_min, "{}", self.accepted);
        assert!(self.rejected > decided_min, "{}", self.rejected);
        let distinct = self
            .by_digest
            .values()
            .collect::<std::collections::BTreeSet<_>>();
        assert_eq!(
            distinct.len(),
            self.by_digest.len(),
            "equal states have one digest"
        );
    }
}

#[test]
fn every_short_sequence_is_decided_as_by_the_model() {
    let mut walk = Walk::default();
    walk.down(&State::new(), &Model::default(), &alphabet(), DEPTH);
    walk.check(20_000);
}

/// Holds, rules and purges of the tenant and of one stream, behind its first event.
fn acts() -> Vec<Command> {
    let stream = Scope::Stream(stream_at(1));
    let purge = |scope, until| RetentionAct::Purge {
        scope,
        until: Position::new(until),
        newest: at(until),
    };
    let rule = |scope, age_ns, records| RetentionAct::Retain {
        scope,
        rule: Some(Retention { age_ns, records }),
    };
    let acts = [
        RetentionAct::Hold {
            scope: Scope::Tenant,
        },
        RetentionAct::Hold { scope: stream },
        RetentionAct::Release {
            hold: HoldId::new(Position::new(4)),
        },
        rule(Scope::Tenant, 3, 0),
        rule(stream, 0, 5),
        RetentionAct::Retain {
            scope: stream,
            rule: None,
        },
        purge(Scope::Tenant, 1),
        purge(Scope::Tenant, 4),
        purge(stream, 4),
        purge(stream, 5),
    ];
    let command = |(act, time)| Command::Retention {
        act,
        seal: None,
        time: at(time),
    };
    // Time goes on with rules and holds.
    acts.into_iter()
        .zip([5, 5, 5, 7, 7, 7, 7, 7, 7, 7])
        .map(command)
        .collect()
}

#[test]
fn every_short_sequence_of_acts_of_retention_is_decided_as_by_the_model() {
    let mut walk = Walk::default();
    let (mut state, mut model) = (begun(), Model::default());
    let genesis = Command::Genesis {
        log_id: LOG_ID,
        time: at(0),
    };
    let session = Command::OpenSession { time: at(0) };
    for command in [genesis, create(1, None), session] {
        model.apply(&command).unwrap();
    }
    let event = append(1, 1);
    apply(&mut state, event).unwrap();
    model.apply(&event).unwrap();
    walk.down(&state, &model, &acts(), ACTS_DEPTH);
    walk.check(20_000);
}

/// Shreds of the tenant and of one stream, holds that stop them, rotations, and what is sealed.
fn erasures() -> Vec<Command> {
    let (time, stream) = (at(0), Scope::Stream(stream_at(1)));
    let id = |position| ShredId::new(Position::new(position));
    let seal = |session| {
        Some(Sealing {
            session: SessionId::new(Position::new(session)),
            first_counter: 3,
        })
    };
    let erasure = |act, seal| Command::Erasure { act, seal, time };
    let hold = |scope| Command::Retention {
        act: RetentionAct::Hold { scope },
        seal: None,
        time,
    };
    let rotate = |generation| Command::Rotate {
        generation: Generation::new(generation),
        seal: None,
        time,
    };
    let sealed = |session| Command::Append {
        stream: stream_at(1),
        expected: ExpectedVersion::Any,
        count: 1,
        idempotency: None,
        seal: seal(session),
        time,
    };
    let tenant = Scope::Tenant;
    vec![
        erasure(ErasureAct::Shred { scope: tenant }, None),
        erasure(ErasureAct::Shred { scope: stream }, seal(2)),
        erasure(ErasureAct::Complete { shred: id(3) }, None),
        erasure(ErasureAct::Complete { shred: id(4) }, None),
        hold(tenant),
        hold(stream),
        Command::Retention {
            act: RetentionAct::Release {
                hold: HoldId::new(Position::new(3)),
            },
            seal: None,
            time,
        },
        rotate(1),
        rotate(2),
        Command::OpenSession { time },
        sealed(2),
        sealed(4),
    ]
}

#[test]
fn every_short_sequence_of_acts_of_erasure_is_decided_as_by_the_model() {
    let mut walk = Walk::default();
    let (state, mut model) = (begun(), Model::default());
    let genesis = Command::Genesis {
        log_id: LOG_ID,
        time: at(0),
    };
    let session = Command::OpenSession { time: at(0) };
    for command in [genesis, create(1, None), session] {
        model.apply(&command).unwrap();
    }
    walk.down(&state, &model, &erasures(), ACTS_DEPTH);
    walk.check(5_000);
}

/// Appends of one and of two events with keys, some of them retries, and what moves the log on.
fn keyed() -> Vec<Command> {
    let keyed = |key, request, expected, count| Command::Append {
        stream: stream_at(1),
        expected,
        count,
        idempotency: Some(idempotency(key, request)),
        seal: None,
        time: at(0),
    };
    vec![
        keyed(1, 1, ExpectedVersion::NoStream, 1),
        keyed(1, 2, ExpectedVersion::Any, 1),
        keyed(2, 1, ExpectedVersion::Any, 2),
        keyed(3, 1, ExpectedVersion::Exact(Offset::ZERO), 1),
        Command::Append {
            stream: stream_at(9),
            expected: ExpectedVersion::Any,
            count: 1,
            idempotency: Some(idempotency(3, 1)),
            seal: None,
            time: at(0),
        },
        append(1, 1),
        Command::Recovery { time: at(0) },
    ]
}

#[test]
fn every_short_sequence_of_appends_with_keys_is_decided_as_by_the_model() {
    for bounds in [(4, 2), (3, 9), (99, 1)] {
        let bounds = Bounds {
            positions: bounds.0,
            keys: bounds.1,
        };
        let mut walk = Walk::default();
        let mut state = State {
            window: Window::with_bounds(bounds),
            ..State::new()
        };
        let mut model = Model::with_bounds(bounds);
        let genesis = Command::Genesis {
            log_id: LOG_ID,
            time: at(0),
        };
        for command in [genesis, create(1, None)] {
            apply(&mut state, command).unwrap();
            model.apply(&command).unwrap();
        }
        walk.down(&state, &model, &keyed(), KEYS_DEPTH);
        walk.check(5_000);
        assert!(walk.repeated > 3_000, "{}", walk.repeated);
    }
}
