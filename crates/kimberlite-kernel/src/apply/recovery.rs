//! Notes that a torn tail was discarded.

use kimberlite_types::Timestamp;

use crate::{Effect, Rejection, State};

/// Records a recovery. What was discarded was never part of the state.
pub(super) fn apply(state: &mut State, time: Timestamp) -> Result<Effect, Rejection> {
    let room = super::room(state, 1, time)?;
    super::take(state, room.after, time);
    Ok(Effect::Recorded(room.slot))
}
