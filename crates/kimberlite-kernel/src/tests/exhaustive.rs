//! Every sequence of a small set of commands, up to a small depth.
//!
//! Goal: no order of commands is forgotten, and the digest is a function of what the state holds
//! and of nothing else. Method: walk the tree of all sequences with the model beside, and keep for
//! each digest what its state held.

use std::collections::BTreeMap;
use std::string::String;
use std::vec;
use std::vec::Vec;

use kimberlite_types::{Offset, SessionId};

use super::model::{Model, contents};
use super::*;

const DEPTH: usize = 9;

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
    rejected: u64,
}

impl Walk {
    fn down(&mut self, state: &State, model: &Model, depth: usize) {
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
        for command in alphabet() {
            let (mut state, mut model) = (state.clone(), model.clone());
            let effect = apply(&mut state, command);
            assert_eq!(effect, model.apply(&command), "{command:?}");
            match effect {
                Ok(_) => {
                    self.accepted += 1;
                    self.down(&state, &model, depth - 1);
                }
                // The state is unchanged, so what follows is walked elsewhere.
                Err(_) => self.rejected += 1,
            }
        }
    }
}

#[test]
fn every_short_sequence_is_decided_as_by_the_model() {
    let mut walk = Walk::default();
    walk.down(&State::new(), &Model::default(), DEPTH);
    assert!(walk.accepted > 20_000, "{}", walk.accepted);
    assert!(walk.rejected > 20_000, "{}", walk.rejected);
    let distinct = walk
        .by_digest
        .values()
        .collect::<std::collections::BTreeSet<_>>();
    assert_eq!(
        distinct.len(),
        walk.by_digest.len(),
        "equal states have one digest"
    );
}
