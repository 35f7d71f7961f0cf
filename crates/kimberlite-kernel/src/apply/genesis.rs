//! The beginning of a log.

use kimberlite_types::{LogId, Position, Timestamp};

use crate::{Effect, Rejection, Slot, State};

/// Begins the log. Its first time has nothing to be compared with.
pub(super) fn apply(
    state: &mut State,
    log_id: LogId,
    time: Timestamp,
) -> Result<Effect, Rejection> {
    if state.log_id.is_some() {
        return Err(Rejection::GenesisTwice);
    }
    debug_assert_eq!(
        state.next_position,
        Position::ZERO,
        "genesis is the first record"
    );
    let slot = Slot::new(Position::ZERO, 1, time);
    state.log_id = Some(log_id);
    super::take(state, Position::new(1), time);
    Ok(Effect::Recorded(slot))
}
