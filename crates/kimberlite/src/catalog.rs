//! What readers know of a tenant's log: which streams there are, and where their events stand.
//!
//! Derived from the records that readers may see, and from nothing else; the writer's kernel runs
//! ahead of it by what is not durable yet.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use kimberlite_crypto::log_id;
use kimberlite_kernel::{ReplayedFrame, Slot};
use kimberlite_projection::{FrameRun, FrameSummary, StreamIndex};
use kimberlite_storage::{Damage, DamageKind, FrameView};
use kimberlite_types::{NameHash, Position, RecordKind, SessionId, StreamId};

use crate::error::{Error, Problem};
use crate::ordered::Ordered;
use crate::payload::{checkpoint_size, decode_act, decode_erasure, split_stream_created};

/// Streams by the keyed hashes of their names.
pub(crate) type Names = HashMap<NameHash, StreamId, BuildHasherDefault<FirstBytes>>;

/// Takes a keyed hash, which nobody without the key can choose, for what it is hashed to.
#[derive(Debug, Default)]
pub(crate) struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 ^= u64::from_le_bytes(*first);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Streams by name, events by offset, key sessions in order.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) index: StreamIndex,
    pub(crate) sessions: Vec<SessionId>,
    names: Names,
    /// Purges that were ordered, and the holds in force.
    pub(crate) ordered: Arc<Ordered>,
    /// Position after the last record that is not there merely to keep a checkpoint.
    pub(crate) substantial_end: Position,
}

impl Catalog {
    /// Puts together what is known from its parts.
    pub(crate) fn new(
        index: StreamIndex,
        sessions: Vec<SessionId>,
        names: Names,
        substantial_end: Position,
    ) -> Self {
        Self {
            index,
            sessions,
            names,
            ordered: Arc::default(),
            substantial_end,
        }
    }

    pub(crate) fn stream(&self, name: &NameHash) -> Option<StreamId> {
        self.names.get(name).copied()
    }

    /// Takes in a frame that has become visible.
    pub(crate) fn apply(&mut self, frame: &ReplayedFrame) -> Result<(), Error> {
        let Slot {
            position,
            count,
            stream,
            offset,
            time,
            ..
        } = frame.slot;
        let summary = FrameSummary {
            kind: frame.kind,
            position,
            count,
            stream,
            offset,
            time,
        };
        let frames = [summary];
        let run = FrameRun::new(position, &frames).map_err(Problem::Index)?;
        self.index.apply(&run).map_err(Problem::Index)?;
        match frame.kind {
            RecordKind::StreamCreated => {
                let name = frame
                    .name
                    .ok_or_else(|| unreadable("stream-created", position))?;
                self.names.insert(name, StreamId::new(position));
            }
            RecordKind::KeySession => self.sessions.push(SessionId::new(position)),
            _ => {}
        }
        if let Some(act) = &frame.retention {
            Arc::make_mut(&mut self.ordered).apply(position, act);
        }
        if frame.kind != RecordKind::Checkpoint {
            self.substantial_end = run.end();
        }
        Ok(())
    }
}

/// Returns what a stored frame means to the kernel.
pub(crate) fn replayed(frame: &FrameView) -> Result<ReplayedFrame, Error> {
    let header = frame.header();
    let position = header.base_position;
    let kind = header
        .kind
        .ok_or_else(|| unreadable("watermark", position))?;
    let slot = Slot {
        position,
        count: u32::from(header.count),
        stream: header.stream,
        offset: header.base_offset,
        session: header.session,
        first_counter: header.first_counter,
        time: header.time,
    };
    // What a rotation holds is for a later version to say: a writer of this one goes no further.
    let mut replayed = ReplayedFrame {
        keyed: frame.keyed(),
        ..ReplayedFrame::new(kind, slot)
    };
    let payload = || {
        let record = frame.record(position);
        record
            .map(|record| record.payload().clone())
            .map_err(|damage| Error::from(kimberlite_storage::StorageError::Corrupt(damage)))
    };
    match kind {
        RecordKind::Genesis => replayed.log_id = Some(log_id(&payload()?)),
        RecordKind::StreamCreated => {
            replayed.name = split_stream_created(&payload()?).map(|(name, _)| name);
        }
        RecordKind::Hold | RecordKind::Release | RecordKind::Retain | RecordKind::Purge => {
            replayed.retention = decode_act(kind, &payload()?);
        }
        RecordKind::Shred | RecordKind::ShredComplete => {
            replayed.erasure = decode_erasure(kind, &payload()?);
        }
        RecordKind::Checkpoint => {
            replayed.checkpoint_size = checkpoint_size(&payload()?).map(Position::new);
        }
        _ => {}
    }
    Ok(replayed)
}

/// Returns the place of a frame that readers cannot go past, for this reason.
pub(crate) fn damage_at(frame: &FrameView, error: &Error) -> Damage {
    match error.damage() {
        Some(damage) => damage.clone(),
        None => frame.damage(DamageKind::AdministrativeRecord),
    }
}

fn unreadable(kind: &'static str, position: Position) -> Error {
    Problem::AdministrativeRecord { kind, position }.into()
}
