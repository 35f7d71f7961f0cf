//! Snapshots: what an opening makes of the records before a checkpoint, kept to start from.
//!
//! One is made behind a checkpoint, in the background and without the commit lock: from the last
//! snapshot the frames since then are read again, as an opening would, and what comes out must be
//! what the writer has. That costs as much as the log has grown, and writing it as much as the state
//! is large, so it is done only once the log has grown by more than that.
//!
//! Whoever can write files could say anything in a snapshot, and an opening decides by it: so it is
//! signed by the tenant's signer, and counts only beside its signed note.

mod maker;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use kimberlite_crypto::VerifierKey;
use kimberlite_kernel::{State, replay};
use kimberlite_projection::StreamIndex;
use kimberlite_storage::{CheckpointStore, FrameView, LogBase, LogSnapshot};
use kimberlite_types::{LogId, Position, SessionId, StreamId};

use crate::catalog::{Catalog, Names, replayed};
use crate::checkpoint::Checkpoints;
use crate::error::{Error, Problem};
use crate::ordered::Ordered;

pub(crate) use maker::{SnapshotMaker, Wanted};

/// Bytes of a snapshot from which on a second thread helps to read it.
const SIDE_BY_SIDE_BYTES_MIN: usize = 1 << 20;

/// What a log means up to some record: what deciding and reading go by.
#[derive(Debug, Default)]
pub(crate) struct Derived {
    pub(crate) state: State,
    pub(crate) catalog: Catalog,
}

/// A snapshot that an opening may begin at.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) base: LogBase,
    pub(crate) derived: Derived,
    pub(crate) kept: Kept,
}

/// The newest snapshot; all zeros for none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Kept {
    /// Records that it stands for.
    position: Position,
    /// Bytes of the log when it was made.
    log_bytes: u64,
    /// Its own bytes.
    bytes: u64,
}

impl Derived {
    /// Takes in the next frame.
    pub(crate) fn apply(&mut self, frame: &FrameView) -> Result<(), Error> {
        let frame = replayed(frame)?;
        replay(&mut self.state, &frame).map_err(Problem::Replay)?;
        self.catalog.apply(&frame)
    }

    /// Returns all of it as bytes; `None` of an empty log.
    ///
    /// `state bytes u64 ‖ state ‖ index bytes u64 ‖ index ‖ sessions u64 ‖ sessions u64 each ‖
    /// substantial end u64`. The names of the streams are in the state.
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        let state = self.state.to_snapshot()?;
        let index = self.catalog.index.to_snapshot();
        let sessions = &self.catalog.sessions;
        let mut bytes = Vec::with_capacity(state.len() + index.len() + sessions.len() * 8 + 32);
        for part in [state, index] {
            put(&mut bytes, count(part.len()));
            bytes.extend_from_slice(&part);
        }
        put(&mut bytes, count(sessions.len()));
        for session in sessions {
            put(&mut bytes, session.position().get());
        }
        put(&mut bytes, self.catalog.substantial_end.get());
        Some(bytes)
    }

    /// Reads what [`encode`](Self::encode) has written of the first `position` records; `None` when
    /// the bytes are anything else.
    pub(crate) fn decode(mut bytes: &[u8], position: Position) -> Option<Self> {
        let bytes = &mut bytes;
        let (state, index) = (part(bytes)?, part(bytes)?);
        let (state, (names, index)) = both(
            state.len() + index.len(),
            || State::from_snapshot(state).ok(),
            || {
                let names = State::snapshot_names(state).collect::<Names>();
                (names, StreamIndex::from_snapshot(index).ok())
            },
        );
        let (state, index) = (state?, index?);
        let sessions = take(bytes)?;
        let sessions = usize::try_from(sessions).ok()?.checked_mul(8)?;
        let (sessions, rest) = bytes.split_at_checked(sessions)?;
        let session = |session: &[u8; 8]| SessionId::from_stored(u64::from_le_bytes(*session));
        let sessions = sessions.as_chunks().0.iter().map(session);
        let sessions = sessions.collect::<Option<Vec<_>>>()?;
        *bytes = rest;
        let substantial_end = Position::new(take(bytes)?);
        let agree = bytes.is_empty()
            && (state.next_position(), index.applied()) == (position, position)
            && substantial_end <= position
            && sessions.is_sorted_by(|a, b| a < b)
            // A shred ends a session and opens none.
            && state.session().is_none_or(|open| sessions.last() == Some(&open))
            && index.streams().len() == state.streams_count()
            && agree_on_streams(&state, &index);
        if !agree {
            return None;
        }
        let mut catalog = Catalog::new(index, sessions, names, substantial_end);
        catalog.ordered = Arc::new(Ordered::of(&state));
        Some(Self { state, catalog })
    }
}

/// Whether both say of each stream how many events it has.
fn agree_on_streams(state: &State, index: &StreamIndex) -> bool {
    let streams = index.streams();
    let half = streams.len() / 2;
    let agrees = |(id, events): (StreamId, u64)| {
        let stream = state.stream(id);
        stream.is_some_and(|stream| stream.next_offset().get() == events)
    };
    let (one, other) = both(
        streams.len() * size_of::<(StreamId, u64)>(),
        || index.streams().take(half).all(agrees),
        || index.streams().skip(half).all(agrees),
    );
    one && other
}

/// Does two things, side by side where there are many bytes to be read.
fn both<A, B: Send>(
    bytes: usize,
    one: impl FnOnce() -> A,
    other: impl FnOnce() -> B + Send,
) -> (A, B) {
    if bytes < SIDE_BY_SIDE_BYTES_MIN {
        return (one(), other());
    }
    let other = Mutex::new(Some(other));
    let take = || {
        let mut other = other.lock().unwrap_or_else(PoisonError::into_inner);
        other.take().map(|other| other())
    };
    std::thread::scope(|scope| {
        // Where there is no thread to be had this one does both.
        let helper = std::thread::Builder::new().spawn_scoped(scope, take);
        let one = one();
        let taken = helper.ok().and_then(|helper| match helper.join() {
            Ok(taken) => taken,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        let other = taken.or_else(take);
        (one, other.expect("one of the two has done it"))
    })
}

fn count(count: usize) -> u64 {
    u64::try_from(count).expect("memory is smaller than 2^64 bytes")
}

fn put(bytes: &mut Vec<u8>, word: u64) {
    bytes.extend_from_slice(&word.to_le_bytes());
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let (word, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*word))
}

fn part<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take(bytes)?).ok()?;
    let (part, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(part)
}

impl Start {
    /// Reads the snapshot of `position` records; `None` when it is damaged or not signed.
    fn read(store: &CheckpointStore, key: &VerifierKey, position: Position) -> Option<Self> {
        let bytes = store.snapshot(position).ok()?;
        let LogSnapshot {
            base,
            log_bytes,
            contents,
        } = LogSnapshot::decode(&bytes, key).ok()?;
        let derived = Derived::decode(&contents, position)?;
        let kept = Kept {
            position,
            log_bytes,
            bytes: count(bytes.len()),
        };
        let fits = base.position == position
            && derived.state.log_id() == Some(&base.log_id)
            && derived.state.last_time() == base.time;
        fits.then_some(Self {
            base,
            derived,
            kept,
        })
    }

    /// Finds the newest snapshot of a log that an opening may begin at: one that stands beside the
    /// signed note of the same history. Others are passed over: the log says all that they say.
    pub(crate) fn find(checkpoints: &Checkpoints, log_id: LogId) -> Option<Self> {
        let store = checkpoints.store();
        let usable = |position: &Position| {
            let note = checkpoints.read(*position).ok()?;
            let start = Self::read(store, checkpoints.verifier(), *position)?;
            let place = (start.base.log_id, start.base.chain);
            (place == (log_id, note.chain())).then_some(start)
        };
        let positions = store.snapshots().unwrap_or_default();
        positions.iter().rev().find_map(|position| {
            let start = usable(position);
            if start.is_none() {
                let position = position.get();
                tracing::warn!(position, "a snapshot that cannot be used is passed over");
            }
            start
        })
    }
}
