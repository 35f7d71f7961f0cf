//! Holds, releases, rules and purges.

use kimberlite_types::limits::HOLDS_MAX;
use kimberlite_types::{HoldId, Position, Timestamp};

use crate::{Effect, Limit, Rejection, Retention, RetentionAct, Scope, Sealing, State};

/// Decides one act of retention.
pub(super) fn apply(
    state: &mut State,
    act: RetentionAct,
    seal: Option<Sealing>,
    time: Timestamp,
) -> Result<Effect, Rejection> {
    if state.log_id.is_none() {
        return Err(Rejection::NoGenesis);
    }
    match act {
        RetentionAct::Hold { scope } => {
            check_scope(state, scope)?;
            // It would promise to keep what is being destroyed.
            if let Some((shred, scope)) = state.erasures.destroying(scope) {
                return Err(Rejection::ShredPending { shred, scope });
            }
        }
        RetentionAct::Retain { scope, .. } => check_scope(state, scope)?,
        RetentionAct::Release { hold } => {
            if !state.retentions.holds.contains_key(&hold) {
                return Err(Rejection::UnknownHold { hold });
            }
        }
        RetentionAct::Purge {
            scope,
            until,
            newest,
        } => check_purge(state, scope, until, newest)?,
    }
    let room = super::room(state, 1, time)?;
    if let RetentionAct::Hold { .. } = act {
        check_holds(state.retentions.holds.len())?;
    }
    super::check_seal(state, seal, 1)?;

    let retentions = &mut state.retentions;
    match act {
        RetentionAct::Hold { scope } => {
            retentions.put_hold(HoldId::new(room.slot.position), scope);
        }
        RetentionAct::Release { hold } => {
            let lifted = retentions.lift_hold(hold);
            debug_assert!(lifted, "the hold was looked up above");
        }
        RetentionAct::Retain { scope, rule } => retentions.set_rule(scope, rule),
        RetentionAct::Purge { scope, until, .. } => retentions.set_purged(scope, until),
    }
    super::take(state, room.after, time);
    Ok(Effect::Recorded(room.slot.sealed(seal)))
}

impl State {
    /// Says whether a purge would be decided now; nothing is changed.
    ///
    /// # Errors
    ///
    /// [`Rejection`] says why not.
    pub fn check_purge(
        &self,
        scope: Scope,
        until: Position,
        newest: Timestamp,
    ) -> Result<(), Rejection> {
        check_purge(self, scope, until, newest)
    }
}

pub(super) fn check_scope(state: &State, scope: Scope) -> Result<(), Rejection> {
    match scope {
        Scope::Stream(stream) if !state.streams.contains_key(&stream) => {
            Err(Rejection::UnknownStream { stream })
        }
        Scope::Stream(_) | Scope::Tenant => Ok(()),
    }
}

/// Checks that there is something to purge, that no hold covers it, and that all of it is as old as
/// the rules demand.
fn check_purge(
    state: &State,
    scope: Scope,
    until: Position,
    newest: Timestamp,
) -> Result<(), Rejection> {
    check_scope(state, scope)?;
    let records = state.next_position;
    if until > records {
        return Err(Rejection::PurgeAheadOfLog { until, records });
    }
    let last = state.retentions.purged(scope);
    if until <= last {
        return Err(Rejection::PurgeBehind { scope, until, last });
    }
    if let Some((hold, held)) = state.retentions.held(scope, until) {
        return Err(Rejection::Held { hold, held });
    }
    let last_ns = state.last_time.as_nanoseconds();
    let has = Retention {
        age_ns: last_ns.saturating_sub(newest.as_nanoseconds()),
        records: records.get() - until.get(),
    };
    match state.retentions.kept(scope, until, has) {
        None => Ok(()),
        Some((kept, rule)) => Err(Rejection::Retained {
            kept,
            rule,
            has,
            until,
        }),
    }
}

/// Checks that one more hold may join `count` others.
fn check_holds(count: usize) -> Result<(), Rejection> {
    super::check_one_more(Limit::Holds, count, HOLDS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_allowed_hold_is_put_and_no_other() {
        assert_eq!(check_holds(HOLDS_MAX - 1), Ok(()));
        let refused = check_holds(HOLDS_MAX).unwrap_err();
        assert!(
            matches!(
                refused,
                Rejection::LimitReached {
                    what: Limit::Holds,
                    ..
                }
            ),
            "{refused}"
        );
    }
}
