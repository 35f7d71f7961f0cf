//! Checkpoints that are kept in the log.

use kimberlite_types::{Position, Timestamp};

use crate::{Effect, Rejection, State};

/// Records a checkpoint of the first `size` records, no fewer than the last one covers. One of the
/// same size may be recorded again, as after a crash between signing and recording.
pub(super) fn apply(
    state: &mut State,
    size: Position,
    time: Timestamp,
) -> Result<Effect, Rejection> {
    if state.log_id.is_none() {
        return Err(Rejection::NoGenesis);
    }
    let records = state.next_position;
    if size > records {
        return Err(Rejection::CheckpointAheadOfLog { size, records });
    }
    if let Some(last) = state.last_checkpoint.filter(|last| size < *last) {
        return Err(Rejection::CheckpointBehind { size, last });
    }
    let room = super::room(state, 1, time)?;
    state.last_checkpoint = Some(size);
    super::take(state, room.after, time);
    Ok(Effect::Recorded(room.slot))
}
