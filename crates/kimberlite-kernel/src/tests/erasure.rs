//! Shreds and rotations: what refuses one, and what it ends.

use kimberlite_types::{HoldId, SessionId, ShredId};

use super::*;
use crate::{ErasureAct, Generation, RetentionAct, Scope};

fn decide(state: &mut State, act: ErasureAct) -> Result<Effect, Rejection> {
    let (seal, time) = (None, at(0));
    apply(state, Command::Erasure { act, seal, time })
}

fn hold(state: &mut State, scope: Scope) -> Result<Effect, Rejection> {
    let act = RetentionAct::Hold { scope };
    let (seal, time) = (None, at(0));
    apply(state, Command::Retention { act, seal, time })
}

fn sealed(session: u64) -> Command {
    let mut command = append(1, 1);
    if let Command::Append { seal, .. } = &mut command {
        *seal = Some(Sealing {
            session: SessionId::new(Position::new(session)),
            first_counter: 0,
        });
    }
    command
}

#[test]
fn a_hold_stops_a_shred_of_what_it_covers_and_comes_too_late_behind_one() {
    let stream = Scope::Stream(stream_at(1));
    for (held, scope) in [
        (Scope::Tenant, Scope::Tenant),
        (Scope::Tenant, stream),
        (stream, Scope::Tenant),
        (stream, stream),
    ] {
        let mut state = begun();
        let put = hold(&mut state, held).unwrap().slot().position;
        let refused = decide(&mut state, ErasureAct::Shred { scope });
        let id = HoldId::new(put);
        assert_eq!(refused, Err(Rejection::Held { hold: id, held }));

        let mut state = begun();
        let ordered = decide(&mut state, ErasureAct::Shred { scope }).unwrap();
        let shred = ShredId::new(ordered.slot().position);
        let refused = Err(Rejection::ShredPending { shred, scope });
        assert_eq!(hold(&mut state, held), refused);
        decide(&mut state, ErasureAct::Complete { shred }).unwrap();
        assert!(hold(&mut state, held).is_ok(), "of what comes behind");
    }
    let mut state = begun();
    let other = apply(&mut state, create(2, None)).unwrap().slot().position;
    let other = Scope::Stream(StreamId::new(other));
    hold(&mut state, other).unwrap();
    assert!(decide(&mut state, ErasureAct::Shred { scope: stream }).is_ok());
}

#[test]
fn a_scope_is_shredded_again_once_it_is_complete_and_completed_once() {
    let stream = Scope::Stream(stream_at(1));
    let mut state = begun();
    let (first, second) = (
        ShredId::new(Position::new(3)),
        ShredId::new(Position::new(4)),
    );
    decide(&mut state, ErasureAct::Shred { scope: stream }).unwrap();
    // The tenant is more than its stream; its stream is not more than the tenant.
    decide(
        &mut state,
        ErasureAct::Shred {
            scope: Scope::Tenant,
        },
    )
    .unwrap();
    let pending = |shred, scope| Err(Rejection::ShredPending { shred, scope });
    let again = ErasureAct::Shred { scope: stream };
    assert_eq!(decide(&mut state, again), pending(first, stream));
    decide(&mut state, ErasureAct::Complete { shred: first }).unwrap();
    assert_eq!(decide(&mut state, again), pending(second, Scope::Tenant));
    let twice = decide(&mut state, ErasureAct::Complete { shred: first });
    assert_eq!(twice, Err(Rejection::UnknownShred { shred: first }));
    decide(&mut state, ErasureAct::Complete { shred: second }).unwrap();
    assert_eq!(state.erased(stream), Position::new(4));
    decide(&mut state, again).unwrap();
    assert_eq!(state.erased(stream), Position::new(7));
    assert_eq!(state.erased(Scope::Tenant), Position::new(4));
}

#[test]
fn a_shred_and_a_rotation_end_the_session_and_a_completion_does_not() {
    let (seal, time) = (None, at(0));
    let shred = Command::Erasure {
        act: ErasureAct::Shred {
            scope: Scope::Stream(stream_at(1)),
        },
        seal,
        time,
    };
    let rotate = Command::Rotate {
        generation: Generation::new(1),
        seal,
        time,
    };
    for ends in [shred, rotate] {
        let mut state = begun();
        assert!(apply(&mut state, sealed(2)).is_ok());
        apply(&mut state, ends).unwrap();
        assert_eq!(state.session(), None);
        assert_eq!(apply(&mut state, sealed(2)), Err(Rejection::NoSession));
        let opened = apply(&mut state, Command::OpenSession { time }).unwrap();
        let session = opened.slot().position.get();
        assert!(apply(&mut state, sealed(session)).is_ok());
        let pending = state.pending_shreds().next();
        if let Some((shred, _)) = pending {
            decide(&mut state, ErasureAct::Complete { shred }).unwrap();
            assert!(apply(&mut state, sealed(session)).is_ok());
        }
    }
}

#[test]
fn keys_are_rotated_to_the_next_generation_and_to_no_other() {
    let mut state = begun();
    let mut rotate = |number| {
        let generation = Generation::new(number);
        let (seal, time) = (None, at(0));
        apply(
            &mut state,
            Command::Rotate {
                generation,
                seal,
                time,
            },
        )
    };
    let refused = |number, next| {
        Err(Rejection::WrongGeneration {
            generation: Generation::new(number),
            next: Generation::new(next),
        })
    };
    assert_eq!(rotate(0), refused(0, 1));
    assert_eq!(rotate(2), refused(2, 1));
    rotate(1).unwrap();
    assert_eq!(rotate(1), refused(1, 2));
    assert_eq!(rotate(0), refused(0, 2));
    rotate(2).unwrap();
    assert_eq!(state.generation(), Generation::new(2));
}
