//! Records of kinds that this version passes over.

use crate::{Effect, Rejection, Slot, State};

/// Takes the positions and the time of the records; the rest of the slot stands as it is.
pub(super) fn apply(state: &mut State, slot: Slot) -> Result<Effect, Rejection> {
    if state.log_id.is_none() {
        return Err(Rejection::NoGenesis);
    }
    if slot.count == 0 {
        return Err(Rejection::EmptyAppend);
    }
    let room = super::room(state, slot.count, slot.time)?;
    super::take(state, room.after, slot.time);
    Ok(Effect::Recorded(slot))
}
