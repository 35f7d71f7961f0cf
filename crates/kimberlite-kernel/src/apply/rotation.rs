//! Rotation of keys.

use kimberlite_types::Timestamp;

use crate::{Effect, Generation, Limit, Rejection, Sealing, State};

/// Opens the next generation of keys. The open session ends: what comes behind is sealed by keys of
/// the new generation.
pub(super) fn apply(
    state: &mut State,
    generation: Generation,
    seal: Option<Sealing>,
    time: Timestamp,
) -> Result<Effect, Rejection> {
    if state.log_id.is_none() {
        return Err(Rejection::NoGenesis);
    }
    let current = state.generation;
    let next = current.next().ok_or(Rejection::LimitReached {
        what: Limit::Generations,
        wanted: u64::from(current.get()) + 1,
        maximum: u64::from(u32::MAX),
    })?;
    // Neither back nor the same one twice, as two that rotate at once would ask for; and none is
    // passed over, so that whoever reads the log misses no keys.
    if generation != next {
        return Err(Rejection::WrongGeneration { generation, next });
    }
    let room = super::room(state, 1, time)?;
    super::check_seal(state, seal, 1)?;
    state.generation = generation;
    state.session = None;
    super::take(state, room.after, time);
    Ok(Effect::Recorded(room.slot.sealed(seal)))
}
