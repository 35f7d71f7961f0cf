//! Key sessions.

use kimberlite_types::{SessionId, Timestamp};

use crate::{Effect, Rejection, State};

/// Opens a key session. From here on only it seals; earlier ones stay readable, which is not the
/// kernel's business.
pub(super) fn apply(state: &mut State, time: Timestamp) -> Result<Effect, Rejection> {
    let room = super::room(state, 1, time)?;
    let session = SessionId::new(room.slot.position);
    debug_assert!(state.session < Some(session), "sessions follow each other");
    state.session = Some(session);
    super::take(state, room.after, time);
    Ok(Effect::SessionOpened {
        session,
        slot: room.slot,
    })
}
