//! The state of one tenant.
//!
//! What holds between commands (see [`check_invariants`](crate::check_invariants)):
//!
//! 1. Before genesis the state is empty; after it the log id never changes.
//! 2. Every name leads to one stream of its own, and every stream has a name.
//! 3. Streams, sessions and checkpoints lie before the next position, and the log is at least as
//!    long as what it holds.
//! 4. Holds, rules and purges are of what is in the log, and nothing was purged that was not there.
//! 5. Shreds are of what is in the log, no hold covers what is being shredded, and no session seals that
//!    was opened before a shred.
//! 6. Keys of appends are in the order of the log, and no more of them than the limits say.
//! 7. The mixes of the maps are those of their contents.
//!
//! The maps are for lookups: nothing that is stored or hashed depends on their order.

use hashbrown::HashMap;
use kimberlite_types::{LogId, NameHash, Offset, Position, SessionId, StreamId, Timestamp};

use crate::digest::{self, StateDigest};
use crate::erasure::Erasures;
use crate::idempotency::Window;
use crate::retention::Retentions;
use crate::rotation::Generation;

/// What the kernel knows about one tenant's log.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub(crate) log_id: Option<LogId>,
    pub(crate) next_position: Position,
    pub(crate) last_time: Timestamp,
    pub(crate) session: Option<SessionId>,
    pub(crate) last_checkpoint: Option<Position>,
    pub(crate) names: HashMap<NameHash, StreamId>,
    pub(crate) streams: HashMap<StreamId, StreamState>,
    pub(crate) names_mix: u64,
    pub(crate) streams_mix: u64,
    pub(crate) retentions: Retentions,
    pub(crate) erasures: Erasures,
    pub(crate) generation: Generation,
    pub(crate) window: Window,
}

/// What the kernel knows about one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamState {
    pub(crate) next_offset: Offset,
}

impl StreamState {
    /// Returns the offset that the next event gets, which is also how many events there are.
    pub const fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// Returns the offset of the last event.
    pub const fn last_offset(&self) -> Option<Offset> {
        match self.next_offset.get().checked_sub(1) {
            Some(last) => Some(Offset::new(last)),
            None => None,
        }
    }
}

impl State {
    /// Makes the state of a log without records.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns which log this is, once it has begun.
    pub const fn log_id(&self) -> Option<&LogId> {
        self.log_id.as_ref()
    }

    /// Returns the position that the next record gets, which is also how many records there are.
    pub const fn next_position(&self) -> Position {
        self.next_position
    }

    /// Returns the time of the last record, zero without one; no later record may have an earlier
    /// time.
    pub const fn last_time(&self) -> Timestamp {
        self.last_time
    }

    /// Returns the key session that seals new records; none before the first one, nor after a shred or a
    /// rotation until another one is opened.
    pub const fn session(&self) -> Option<SessionId> {
        self.session
    }

    /// Returns the generation of keys that seals and signs.
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// Returns how many records the last checkpoint that stands in the log covers.
    pub const fn last_checkpoint(&self) -> Option<Position> {
        self.last_checkpoint
    }

    /// Returns the stream whose name has this keyed hash.
    pub fn stream_by_name(&self, name: &NameHash) -> Option<StreamId> {
        self.names.get(name).copied()
    }

    /// Returns what is known about a stream.
    pub fn stream(&self, stream: StreamId) -> Option<&StreamState> {
        self.streams.get(&stream)
    }

    /// Returns how many streams there are.
    pub fn streams_count(&self) -> usize {
        self.streams.len()
    }

    /// Returns a digest of everything above, in constant time.
    ///
    /// Equal states have equal digests, however they were reached. Different states have different
    /// ones but for a chance of 2^-64: enough to find a bug or bad memory, no defence against
    /// somebody who looks for a collision.
    pub fn digest(&self) -> StateDigest {
        digest::state(self)
    }
}
