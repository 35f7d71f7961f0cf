//! The state from the log.
//!
//! Each frame is turned into the command that it came from and applied again. What the kernel
//! decides is then compared with what the log holds, so that a log written by a kernel that decided
//! otherwise does not pass.

use kimberlite_types::limits::APPEND_EVENTS_MAX;
use kimberlite_types::{
    KeyedAppend, LogId, NameHash, Offset, Position, RecordKind, SessionId, StreamId,
};

use crate::apply::{append, apply_committed};
use crate::{
    Command, Effect, ErasureAct, ExpectedVersion, Generation, Rejection, RetentionAct, Sealing,
    Slot, State,
};

/// A frame of the log, as far as the kernel needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayedFrame {
    /// What its records are.
    pub kind: RecordKind,
    /// Where it stands. The first counter of a frame without a session is not looked at.
    pub slot: Slot,
    /// The keyed hash of the name: for the creation of a stream.
    pub name: Option<NameHash>,
    /// How many records the checkpoint covers: for a checkpoint.
    pub checkpoint_size: Option<Position>,
    /// Which log this is: for genesis.
    pub log_id: Option<LogId>,
    /// What is decided: for a hold, a release, a rule or a purge.
    pub retention: Option<RetentionAct>,
    /// What is decided: for a shred or its completion.
    pub erasure: Option<ErasureAct>,
    /// Which generation of keys: for a rotation.
    pub generation: Option<Generation>,
    /// What a retry is recognised by: for the first frame of an append that carried a key.
    pub keyed: Option<KeyedAppend>,
}

impl ReplayedFrame {
    /// A frame that says nothing but where it stands.
    pub const fn new(kind: RecordKind, slot: Slot) -> Self {
        Self {
            kind,
            slot,
            name: None,
            checkpoint_size: None,
            log_id: None,
            retention: None,
            erasure: None,
            generation: None,
            keyed: None,
        }
    }
}

/// Why a frame does not fit the state that the frames before it give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The frame lacks something that its kind needs.
    #[error("the {kind} record at position {position} has no {field}; verify the log")]
    Missing {
        /// Where the frame begins.
        position: Position,
        /// What its records are.
        kind: RecordKind,
        /// What is missing.
        field: &'static str,
    },
    /// The kernel would have refused the frame.
    #[error("the {kind} record at position {position} could not have been written here")]
    Rejected {
        /// Where the frame begins.
        position: Position,
        /// What its records are.
        kind: RecordKind,
        /// Why it would have been refused.
        #[source]
        rejection: Rejection,
    },
    /// The frame appends what had been appended before.
    #[error("the append at position {position} is a retry of the one at {first}; verify the log")]
    Repeated {
        /// Where the frame begins.
        position: Position,
        /// Where the events stood already.
        first: Position,
    },
    /// The kernel would have put something else into the frame.
    #[error(
        "the {kind} record at position {position} has another {field} than the records before it \
         give: {logged} instead of {decided} (all ones: none); verify the log"
    )]
    Differs {
        /// Where the frame begins.
        position: Position,
        /// What its records are.
        kind: RecordKind,
        /// Which field.
        field: &'static str,
        /// What the log holds, in its stored form.
        logged: u64,
        /// What the kernel decides, in its stored form.
        decided: u64,
    },
}

/// Applies a frame of the log to the state that all frames before it gave.
///
/// A frame without records (an idle watermark) changes nothing; it must stand at the next position.
///
/// # Errors
///
/// [`ReplayError`] names the position and the field that does not fit. The state is then of no
/// further use.
pub fn replay(state: &mut State, frame: &ReplayedFrame) -> Result<(), ReplayError> {
    let position = state.next_position();
    if frame.slot.position != position || frame.slot.count == 0 {
        return compare(
            frame,
            &Slot {
                position,
                ..frame.slot
            },
        );
    }
    let applied = match &frame.keyed {
        None => apply_committed(state, command(frame)?),
        Some(keyed) => {
            let request = first_part(frame, keyed)?;
            append::apply_keyed(state, &request, keyed, frame.slot.time)
        }
    };
    let effect = applied.map_err(|rejection| ReplayError::Rejected {
        position,
        kind: frame.kind,
        rejection,
    })?;
    if let Effect::Duplicate(slot) = effect {
        let first = slot.position;
        return Err(ReplayError::Repeated { position, first });
    }
    compare(frame, effect.slot())
}

/// Returns what the first frame of an append with a key asks for. Only an append carries one, and it
/// has the events of this frame at least.
fn first_part(frame: &ReplayedFrame, keyed: &KeyedAppend) -> Result<append::Request, ReplayError> {
    let slot = &frame.slot;
    let whole = u64::from(keyed.count);
    let fits = frame.kind == RecordKind::Event
        && slot.count <= keyed.count
        && whole <= APPEND_EVENTS_MAX as u64
        && slot.position.checked_add(whole).is_some()
        && slot.offset.is_none_or(|it| it.checked_add(whole).is_some());
    if !fits {
        return Err(ReplayError::Differs {
            position: slot.position,
            kind: frame.kind,
            field: "number of events of the append",
            logged: whole,
            decided: u64::from(slot.count),
        });
    }
    events(frame)
}

fn events(frame: &ReplayedFrame) -> Result<append::Request, ReplayError> {
    let slot = &frame.slot;
    let stream = slot.stream.ok_or(ReplayError::Missing {
        position: slot.position,
        kind: frame.kind,
        field: "stream",
    })?;
    Ok(append::Request {
        stream,
        // What the writer expected was checked when it wrote, and is not in the log.
        expected: ExpectedVersion::Any,
        count: slot.count,
        seal: seal(slot),
    })
}

fn seal(slot: &Slot) -> Option<Sealing> {
    let first_counter = slot.first_counter;
    slot.session.map(|session| Sealing {
        session,
        first_counter,
    })
}

fn command(frame: &ReplayedFrame) -> Result<Command, ReplayError> {
    let Slot {
        position,
        count,
        stream,
        offset,
        time,
        ..
    } = frame.slot;
    let (kind, seal) = (frame.kind, seal(&frame.slot));
    let missing = |field| ReplayError::Missing {
        position,
        kind,
        field,
    };
    Ok(match kind {
        RecordKind::Genesis => Command::Genesis {
            log_id: frame.log_id.ok_or_else(|| missing("log id"))?,
            time,
        },
        RecordKind::StreamCreated => Command::CreateStream {
            name: frame.name.ok_or_else(|| missing("name hash"))?,
            seal,
            time,
        },
        RecordKind::KeySession => Command::OpenSession { time },
        RecordKind::Event => {
            let append::Request {
                stream,
                expected,
                count,
                seal,
            } = events(frame)?;
            Command::Append {
                stream,
                expected,
                count,
                // Told beside the command, with the number of events in all frames.
                idempotency: None,
                seal,
                time,
            }
        }
        RecordKind::Checkpoint => {
            let size = frame.checkpoint_size;
            let size = size.ok_or_else(|| missing("checkpoint size"))?;
            Command::Checkpoint { size, time }
        }
        RecordKind::Recovery => Command::Recovery { time },
        RecordKind::Hold | RecordKind::Release | RecordKind::Purge | RecordKind::Retain => {
            let act = frame.retention.filter(|act| act.kind() == kind);
            let act = act.ok_or_else(|| missing("act"))?;
            Command::Retention { act, seal, time }
        }
        RecordKind::Shred | RecordKind::ShredComplete => {
            let act = frame.erasure.filter(|act| act.kind() == kind);
            let act = act.ok_or_else(|| missing("act"))?;
            Command::Erasure { act, seal, time }
        }
        RecordKind::KeyRotation => Command::Rotate {
            generation: frame.generation.ok_or_else(|| missing("generation"))?,
            seal,
            time,
        },
        RecordKind::Restore | RecordKind::Unknown(_) => Command::Other {
            count,
            stream,
            offset,
            seal,
            time,
        },
    })
}

fn compare(frame: &ReplayedFrame, decided: &Slot) -> Result<(), ReplayError> {
    let fields = |slot: &Slot| {
        [
            ("position", slot.position.get()),
            ("count", u64::from(slot.count)),
            ("stream", StreamId::to_stored(slot.stream)),
            ("offset", slot.offset.map_or(u64::MAX, Offset::get)),
            ("session", SessionId::to_stored(slot.session)),
            (
                "first counter",
                slot.session
                    .map_or(u64::MAX, |_| u64::from(slot.first_counter)),
            ),
            ("time", slot.time.as_nanoseconds()),
        ]
    };
    let logged = fields(&frame.slot);
    for ((field, logged), (_, decided)) in logged.into_iter().zip(fields(decided)) {
        if logged != decided {
            return Err(ReplayError::Differs {
                position: frame.slot.position,
                kind: frame.kind,
                field,
                logged,
                decided,
            });
        }
    }
    Ok(())
}
