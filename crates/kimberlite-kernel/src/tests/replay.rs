//! Logs that do not fit what the kernel decides.

use std::format;
use std::vec::Vec;

use kimberlite_types::{KeyedAppend, Offset, RecordKind, SessionId, ShredId};

use super::*;
use crate::{ErasureAct, Generation, ReplayError, ReplayedFrame, RetentionAct, Scope, Slot};

/// The frame that a command leaves in the log.
pub(super) fn frame_of(command: &Command, effect: &Effect) -> ReplayedFrame {
    let frame = ReplayedFrame::new(RecordKind::Recovery, *effect.slot());
    match *command {
        Command::Genesis { log_id, .. } => ReplayedFrame {
            kind: RecordKind::Genesis,
            log_id: Some(log_id),
            ..frame
        },
        Command::CreateStream { name, .. } => ReplayedFrame {
            kind: RecordKind::StreamCreated,
            name: Some(name),
            ..frame
        },
        Command::OpenSession { .. } => ReplayedFrame {
            kind: RecordKind::KeySession,
            ..frame
        },
        Command::Append {
            count, idempotency, ..
        } => ReplayedFrame {
            kind: RecordKind::Event,
            keyed: idempotency.map(|idempotency| KeyedAppend { idempotency, count }),
            ..frame
        },
        Command::Checkpoint { size, .. } => ReplayedFrame {
            kind: RecordKind::Checkpoint,
            checkpoint_size: Some(size),
            ..frame
        },
        Command::Recovery { .. } => frame,
        Command::Retention { act, .. } => ReplayedFrame {
            kind: act.kind(),
            retention: Some(act),
            ..frame
        },
        Command::Erasure { act, .. } => ReplayedFrame {
            kind: act.kind(),
            erasure: Some(act),
            ..frame
        },
        Command::Rotate { generation, .. } => ReplayedFrame {
            kind: RecordKind::KeyRotation,
            generation: Some(generation),
            ..frame
        },
        Command::Other { .. } => ReplayedFrame {
            kind: RecordKind::Unknown(99),
            ..frame
        },
    }
}

/// The same records in frames of at most `records`, as a large append is written.
pub(super) fn split(frame: &ReplayedFrame, records: u32) -> Vec<ReplayedFrame> {
    let slot = frame.slot;
    let step = usize::try_from(records).unwrap();
    (0..slot.count)
        .step_by(step)
        .map(|done| ReplayedFrame {
            slot: Slot {
                position: Position::new(slot.position.get() + u64::from(done)),
                count: records.min(slot.count - done),
                offset: (slot.offset).map(|offset| Offset::new(offset.get() + u64::from(done))),
                first_counter: slot.first_counter.saturating_add(done),
                ..slot
            },
            keyed: frame.keyed.filter(|_| done == 0),
            ..*frame
        })
        .collect()
}

/// Genesis (0), a stream (1), a session (2), two sealed events (3), a checkpoint (5).
fn log() -> Vec<ReplayedFrame> {
    let sealed = Command::Append {
        stream: stream_at(1),
        expected: ExpectedVersion::NoStream,
        count: 2,
        idempotency: Some(idempotency(1, 1)),
        seal: Some(Sealing {
            session: SessionId::new(Position::new(2)),
            first_counter: 10,
        }),
        time: at(4),
    };
    let commands = [
        Command::Genesis {
            log_id: LOG_ID,
            time: at(4),
        },
        Command::CreateStream {
            name: name(1),
            seal: None,
            time: at(4),
        },
        Command::OpenSession { time: at(4) },
        sealed,
        Command::Checkpoint {
            size: Position::new(5),
            time: at(4),
        },
    ];
    let mut state = State::new();
    let frame = |command| frame_of(&command, &apply(&mut state, command).unwrap());
    commands.map(frame).to_vec()
}

fn replay_all(frames: &[ReplayedFrame]) -> Result<State, ReplayError> {
    let mut state = State::new();
    for frame in frames {
        crate::replay(&mut state, frame)?;
        crate::check_invariants(&state).unwrap();
    }
    Ok(state)
}

/// Changes frame `nth` and demands an error at its position that names `field`.
fn check(nth: usize, field: &str, change: impl FnOnce(&mut ReplayedFrame)) {
    let mut frames = log();
    change(&mut frames[nth]);
    let position = frames[nth].slot.position;
    match replay_all(&frames).unwrap_err() {
        ReplayError::Missing {
            position: p,
            field: f,
            ..
        }
        | ReplayError::Differs {
            position: p,
            field: f,
            ..
        } => assert_eq!((p, f), (position, field)),
        ReplayError::Repeated { .. } => panic!("nothing is there twice"),
        ReplayError::Rejected {
            position: p,
            rejection,
            ..
        } => {
            assert_eq!(p, position);
            assert!(format!("{rejection:?}").starts_with(field), "{rejection:?}");
        }
    }
}

#[test]
fn each_field_that_does_not_fit_is_named() {
    assert!(replay_all(&log()).is_ok());
    check(0, "log id", |frame| frame.log_id = None);
    check(1, "name hash", |frame| frame.name = None);
    check(3, "stream", |frame| frame.slot.stream = None);
    check(4, "checkpoint size", |frame| frame.checkpoint_size = None);

    check(3, "position", |frame| {
        frame.slot.position = Position::new(4);
    });
    check(3, "position", |frame| {
        frame.slot.position = Position::new(2);
    });
    check(3, "offset", |frame| {
        frame.slot.offset = Some(Offset::new(1));
    });
    check(3, "offset", |frame| frame.slot.offset = None);
    check(4, "count", |frame| frame.slot.count = 2);
    check(4, "stream", |frame| frame.slot.stream = Some(stream_at(1)));
    check(4, "offset", |frame| frame.slot.offset = Some(Offset::ZERO));
    let events = "number of events of the append";
    let keyed = |count| KeyedAppend {
        idempotency: idempotency(1, 1),
        count,
    };
    check(3, events, |frame| frame.keyed = Some(keyed(1)));
    check(3, events, |frame| frame.keyed = Some(keyed(65_537)));
    check(4, events, |frame| frame.keyed = Some(keyed(1)));
    check(2, "session", |frame| {
        frame.slot.session = Some(SessionId::new(Position::ZERO));
    });

    check(3, "UnknownStream", |frame| {
        frame.slot.stream = Some(stream_at(2));
    });
    check(3, "SessionEnded", |frame| {
        frame.slot.session = Some(SessionId::new(Position::new(1)));
    });
    check(3, "LimitReached", |frame| {
        frame.slot.first_counter = u32::MAX;
    });
    check(3, "TimeWentBack", |frame| frame.slot.time = at(3));
    check(4, "CheckpointAheadOfLog", |frame| {
        frame.checkpoint_size = Some(Position::new(6));
    });
    check(1, "GenesisTwice", |frame| {
        frame.kind = RecordKind::Genesis;
        frame.log_id = Some(LOG_ID);
    });
    check(0, "NoGenesis", |frame| frame.kind = RecordKind::Recovery);
}

#[test]
fn a_log_does_not_hold_an_append_and_its_retry() {
    let mut frames = log();
    let mut retry = frames[3];
    retry.slot.position = Position::new(6);
    retry.slot.offset = Some(Offset::new(2));
    frames.push(retry);
    let (position, first) = (Position::new(6), Position::new(3));
    assert_eq!(
        replay_all(&frames).unwrap_err(),
        ReplayError::Repeated { position, first }
    );
    let other = KeyedAppend {
        idempotency: idempotency(1, 2),
        count: 2,
    };
    frames[5].keyed = Some(other);
    assert_eq!(
        replay_all(&frames).unwrap_err(),
        ReplayError::Rejected {
            position,
            kind: RecordKind::Event,
            rejection: Rejection::KeyReused { first },
        }
    );
    frames[5].keyed = None;
    assert!(replay_all(&frames).is_ok());
}

#[test]
fn an_act_of_retention_is_that_of_its_kind() {
    let hold = RetentionAct::Hold {
        scope: Scope::Tenant,
    };
    let mut frames = log();
    let mut frame = frames[4];
    frame.slot.position = Position::new(6);
    (frame.kind, frame.retention) = (RecordKind::Hold, Some(hold));
    frames.push(frame);
    assert!(replay_all(&frames).is_ok());
    for (kind, act) in [(RecordKind::Purge, Some(hold)), (RecordKind::Hold, None)] {
        let last = frames.last_mut().unwrap();
        (last.kind, last.retention) = (kind, act);
        let position = Position::new(6);
        let field = "act";
        let error = replay_all(&frames).unwrap_err();
        assert_eq!(
            error,
            ReplayError::Missing {
                position,
                kind,
                field
            }
        );
    }
}

#[test]
fn a_shred_or_a_rotation_without_what_it_decides_is_never_passed_over() {
    let scope = Scope::Tenant;
    let shred = ErasureAct::Shred { scope };
    let mut frames = log();
    let mut frame = frames[4];
    frame.slot.position = Position::new(6);
    (frame.kind, frame.erasure) = (RecordKind::Shred, Some(shred));
    frames.push(frame);
    let state = replay_all(&frames).unwrap();
    let id = ShredId::new(Position::new(6));
    assert_eq!(state.pending_shreds().collect::<Vec<_>>(), [(id, scope)]);
    let missing = |kind, field| ReplayError::Missing {
        position: Position::new(6),
        kind,
        field,
    };
    let complete = ErasureAct::Complete { shred: id };
    for (kind, act) in [
        (RecordKind::Shred, None),
        (RecordKind::Shred, Some(complete)),
        (RecordKind::ShredComplete, Some(shred)),
    ] {
        let last = frames.last_mut().unwrap();
        (last.kind, last.erasure) = (kind, act);
        assert_eq!(replay_all(&frames).unwrap_err(), missing(kind, "act"));
    }
    let last = frames.last_mut().unwrap();
    (last.kind, last.erasure) = (RecordKind::KeyRotation, None);
    let refused = missing(RecordKind::KeyRotation, "generation");
    assert_eq!(replay_all(&frames).unwrap_err(), refused);
    frames.last_mut().unwrap().generation = Some(Generation::new(1));
    let state = replay_all(&frames).unwrap();
    assert_eq!((state.generation().get(), state.session()), (1, None));
    // The session that stood before seals no more.
    let mut sealed = frames[3];
    sealed.slot.position = Position::new(7);
    sealed.slot.offset = Some(Offset::new(2));
    sealed.keyed = None;
    frames.push(sealed);
    let refused = replay_all(&frames).unwrap_err();
    let rejection = Rejection::NoSession;
    assert!(
        matches!(refused, ReplayError::Rejected { rejection: it, .. } if it == rejection),
        "{refused}"
    );
}

#[test]
fn the_counter_of_a_frame_without_a_session_is_not_looked_at() {
    let mut frames = log();
    frames[1].slot.first_counter = 0;
    assert!(replay_all(&frames).is_ok());
}

#[test]
fn a_missing_or_repeated_frame_is_found() {
    for nth in 0..log().len() - 1 {
        let mut frames = log();
        frames.remove(nth);
        assert!(replay_all(&frames).is_err(), "without frame {nth}");
        let mut frames = log();
        frames.insert(nth, frames[nth]);
        assert!(replay_all(&frames).is_err(), "frame {nth} twice");
    }
}

#[test]
fn an_idle_watermark_changes_nothing_and_stands_at_the_next_position() {
    let mut frames = log();
    let digest = replay_all(&frames).unwrap().digest();
    let mut watermark = frames[4];
    watermark.kind = RecordKind::Unknown(0);
    watermark.slot.count = 0;
    watermark.slot.position = Position::new(6);
    frames.push(watermark);
    assert_eq!(replay_all(&frames).unwrap().digest(), digest);
    watermark.slot.position = Position::new(5);
    frames.push(watermark);
    assert!(replay_all(&frames).is_err());
}

#[test]
fn kinds_that_this_version_passes_over_take_positions_and_time() {
    let mut frames = log();
    let mut unknown = frames[3];
    (unknown.kind, unknown.keyed) = (RecordKind::Unknown(77), None);
    unknown.slot.position = Position::new(6);
    unknown.slot.time = at(9);
    frames.push(unknown);
    let state = replay_all(&frames).unwrap();
    assert_eq!(state.next_position(), Position::new(8));
    assert_eq!(state.last_time(), at(9));
    assert_eq!(
        state.stream(stream_at(1)).unwrap().next_offset(),
        Offset::new(2)
    );
}
