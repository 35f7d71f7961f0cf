//! Shreds, and their completion.

use kimberlite_types::limits::SHREDS_MAX;
use kimberlite_types::{ShredId, Timestamp};

use super::retention::check_scope;
use crate::{Effect, ErasureAct, Limit, Rejection, Scope, Sealing, State};

/// Decides one act of erasure.
pub(super) fn apply(
    state: &mut State,
    act: ErasureAct,
    seal: Option<Sealing>,
    time: Timestamp,
) -> Result<Effect, Rejection> {
    if state.log_id.is_none() {
        return Err(Rejection::NoGenesis);
    }
    match act {
        ErasureAct::Shred { scope } => check_shred(state, scope)?,
        ErasureAct::Complete { shred } => {
            if !state.erasures.pending.contains_key(&shred) {
                return Err(Rejection::UnknownShred { shred });
            }
        }
    }
    let room = super::room(state, 1, time)?;
    if let ErasureAct::Shred { .. } = act {
        check_shreds(state.erasures.pending.len())?;
    }
    super::check_seal(state, seal, 1)?;

    match act {
        ErasureAct::Shred { scope } => {
            let position = room.slot.position;
            state.erasures.put_pending(ShredId::new(position), scope);
            state.erasures.set_erased(scope, position);
            // Whose keys sealed it, the kernel does not know: whoever appends opens another one.
            state.session = None;
        }
        ErasureAct::Complete { shred } => {
            let completed = state.erasures.complete(shred);
            debug_assert!(completed, "the shred was looked up above");
        }
    }
    super::take(state, room.after, time);
    Ok(Effect::Recorded(room.slot.sealed(seal)))
}

/// Checks that no hold covers the scope, and that it is not being shredded already.
fn check_shred(state: &State, scope: Scope) -> Result<(), Rejection> {
    check_scope(state, scope)?;
    if let Some((shred, scope)) = state.erasures.pending_of(scope) {
        return Err(Rejection::ShredPending { shred, scope });
    }
    match state.retentions.held(scope, state.next_position) {
        Some((hold, held)) => Err(Rejection::Held { hold, held }),
        None => Ok(()),
    }
}

/// Checks that one more shred may be pending beside `count` others.
fn check_shreds(count: usize) -> Result<(), Rejection> {
    super::check_one_more(Limit::Shreds, count, SHREDS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_allowed_shred_is_ordered_and_no_other() {
        assert_eq!(check_shreds(SHREDS_MAX - 1), Ok(()));
        let refused = check_shreds(SHREDS_MAX).unwrap_err();
        assert!(
            matches!(
                refused,
                Rejection::LimitReached {
                    what: Limit::Shreds,
                    ..
                }
            ),
            "{refused}"
        );
    }
}
