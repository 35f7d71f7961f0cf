//! Holds, rules and purges, and what refuses one.

use kimberlite_types::HoldId;

use super::*;
use crate::{Retention, RetentionAct, Scope};

/// Every rejection of this family.
pub(super) fn rejections() -> [Rejection; 5] {
    let position = Position::new;
    [
        Rejection::Held {
            hold: HoldId::new(position(4)),
            held: Scope::Tenant,
        },
        Rejection::UnknownHold {
            hold: HoldId::new(position(4)),
        },
        Rejection::Retained {
            kept: Scope::Stream(stream_at(1)),
            rule: Retention::default(),
            has: Retention::default(),
            until: position(3),
        },
        Rejection::PurgeBehind {
            scope: Scope::Tenant,
            until: position(3),
            last: position(3),
        },
        Rejection::PurgeAheadOfLog {
            until: position(3),
            records: position(2),
        },
    ]
}

fn decide(state: &mut State, act: RetentionAct, time: u64) -> Result<Effect, Rejection> {
    let time = at(time);
    apply(
        state,
        Command::Retention {
            act,
            seal: None,
            time,
        },
    )
}

fn purge(scope: Scope, until: u64, newest: u64) -> RetentionAct {
    RetentionAct::Purge {
        scope,
        until: Position::new(until),
        newest: at(newest),
    }
}

#[test]
fn a_hold_stops_purges_of_what_it_covers_and_no_others_until_it_is_released() {
    let stream = Scope::Stream(stream_at(1));
    let mut state = begun();
    apply(&mut state, append(1, 2)).unwrap();
    let hold = RetentionAct::Hold { scope: stream };
    let held = *decide(&mut state, hold, 0).unwrap().slot();
    let other = *apply(&mut state, create(2, None)).unwrap().slot();
    let other = Scope::Stream(StreamId::new(other.position));
    let refused = Err(Rejection::Held {
        hold: HoldId::new(held.position),
        held: stream,
    });
    assert_eq!(decide(&mut state, purge(stream, 5, 0), 0), refused);
    assert_eq!(decide(&mut state, purge(Scope::Tenant, 5, 0), 0), refused);
    assert!(decide(&mut state, purge(other, 5, 0), 0).is_ok());
    // Below its own record no stream has anything that could be purged.
    assert!(decide(&mut state, purge(Scope::Tenant, 1, 0), 0).is_ok());
    let hold = HoldId::new(held.position);
    assert!(decide(&mut state, RetentionAct::Release { hold }, 0).is_ok());
    assert_eq!(
        decide(&mut state, RetentionAct::Release { hold }, 0),
        Err(Rejection::UnknownHold { hold })
    );
    assert!(decide(&mut state, purge(Scope::Tenant, 5, 0), 0).is_ok());
}

#[test]
fn a_rule_is_met_by_the_times_and_positions_of_records_and_not_by_the_time_of_the_purge() {
    let mut state = begun();
    let rule = Retention {
        age_ns: 10,
        records: 4,
    };
    let retain = RetentionAct::Retain {
        scope: Scope::Tenant,
        rule: Some(rule),
    };
    decide(&mut state, retain, 3).unwrap();
    let has = |age_ns, records| Retention { age_ns, records };
    let refused = |has, until| {
        Err(Rejection::Retained {
            kept: Scope::Tenant,
            rule,
            has,
            until: Position::new(until),
        })
    };
    // The purge itself comes late enough, but no record before it does.
    let tenant = |until| purge(Scope::Tenant, until, 0);
    assert_eq!(decide(&mut state, tenant(2), 99), refused(has(3, 2), 2));
    apply(&mut state, Command::Recovery { time: at(9) }).unwrap();
    apply(&mut state, Command::Recovery { time: at(9) }).unwrap();
    assert_eq!(decide(&mut state, tenant(2), 99), refused(has(9, 4), 2));
    apply(&mut state, Command::Recovery { time: at(10) }).unwrap();
    assert_eq!(decide(&mut state, tenant(4), 10), refused(has(10, 3), 4));
    assert!(decide(&mut state, tenant(3), 10).is_ok());
}

#[test]
fn the_rule_of_a_stream_stands_in_place_of_the_tenants_until_it_is_taken_away() {
    let stream = Scope::Stream(stream_at(1));
    let mut state = begun();
    apply(&mut state, append(1, 2)).unwrap();
    let rule = |age_ns| Some(Retention { age_ns, records: 0 });
    let retain = |scope, rule| RetentionAct::Retain { scope, rule };
    decide(&mut state, retain(Scope::Tenant, rule(10)), 5).unwrap();
    assert!(decide(&mut state, purge(stream, 4, 0), 5).is_err());
    decide(&mut state, retain(stream, rule(5)), 5).unwrap();
    assert!(decide(&mut state, purge(stream, 4, 0), 5).is_ok());
    decide(&mut state, retain(stream, None), 5).unwrap();
    assert!(decide(&mut state, purge(stream, 5, 0), 5).is_err());
    // A purge of the tenant keeps the longest of all.
    decide(&mut state, retain(stream, rule(20)), 10).unwrap();
    let refused = decide(&mut state, purge(Scope::Tenant, 5, 0), 10).unwrap_err();
    assert!(
        matches!(refused, Rejection::Retained { kept, .. } if kept == stream),
        "{refused}"
    );
}

#[test]
fn a_purge_goes_on_from_the_last_and_not_past_the_end() {
    let stream = Scope::Stream(stream_at(1));
    let mut state = begun();
    let (until, last, records) = (Position::new(2), Position::new(2), Position::new(3));
    let ahead = Position::new(4);
    assert_eq!(
        decide(&mut state, purge(Scope::Tenant, 4, 0), 0),
        Err(Rejection::PurgeAheadOfLog {
            until: ahead,
            records
        })
    );
    assert!(decide(&mut state, purge(Scope::Tenant, 2, 0), 0).is_ok());
    // What was purged of the tenant was purged of the stream.
    for scope in [Scope::Tenant, stream] {
        assert_eq!(
            decide(&mut state, purge(scope, 2, 0), 0),
            Err(Rejection::PurgeBehind { scope, until, last })
        );
    }
    assert!(decide(&mut state, purge(stream, 3, 0), 0).is_ok());
    assert_eq!(state.purged(Scope::Tenant), last);
    assert_eq!(state.purged(stream), Position::new(3));
}
