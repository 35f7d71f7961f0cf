//! What the kernel can be asked for.

use core::fmt;

use kimberlite_types::{
    Idempotency, LogId, NameHash, Offset, Position, SessionId, StreamId, Timestamp,
};

use crate::{ErasureAct, Generation, RetentionAct};

/// One change of a tenant's state; each takes one run of positions in the log.
///
/// Every command carries its time, because the kernel has no clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Begins the log; always the first command, and only that.
    Genesis {
        /// Which log this is.
        log_id: LogId,
        /// When the record is written.
        time: Timestamp,
    },
    /// Creates a stream; its id is the position of this record.
    CreateStream {
        /// The keyed hash of its name.
        name: NameHash,
        /// What the record's payload was sealed with, if it was.
        seal: Option<Sealing>,
        /// When the record is written.
        time: Timestamp,
    },
    /// Opens a key session, which replaces the one before for sealing; what that one sealed stays
    /// readable.
    OpenSession {
        /// When the record is written.
        time: Timestamp,
    },
    /// Appends events to a stream: all of them or none.
    Append {
        /// The stream to append to.
        stream: StreamId,
        /// What the caller takes the stream to hold.
        expected: ExpectedVersion,
        /// How many events.
        count: u32,
        /// What a retry of it is recognised by, if it may be retried.
        idempotency: Option<Idempotency>,
        /// What the events were sealed with, if they were.
        seal: Option<Sealing>,
        /// When the records are written.
        time: Timestamp,
    },
    /// Keeps a signed checkpoint in the log.
    Checkpoint {
        /// How many records the checkpoint covers.
        size: Position,
        /// When the record is written.
        time: Timestamp,
    },
    /// Notes that a torn tail was discarded when the log was opened.
    Recovery {
        /// When the record is written.
        time: Timestamp,
    },
    /// Decides how long payloads are kept.
    Retention {
        /// What is decided.
        act: RetentionAct,
        /// What the record's payload was sealed with, if it was.
        seal: Option<Sealing>,
        /// When the record is written.
        time: Timestamp,
    },
    /// Decides what is erased by destroying its keys.
    Erasure {
        /// What is decided.
        act: ErasureAct,
        /// What the record's payload was sealed with, if it was.
        seal: Option<Sealing>,
        /// When the record is written.
        time: Timestamp,
    },
    /// Opens another generation of keys.
    Rotate {
        /// Which one: the one after that in use.
        generation: Generation,
        /// What the record's payload was sealed with, if it was.
        seal: Option<Sealing>,
        /// When the record is written.
        time: Timestamp,
    },
    /// Records of a kind that this version passes over: they take positions and time, and their
    /// other fields stand as they are, unchecked.
    Other {
        /// How many records.
        count: u32,
        /// The stream that they name.
        stream: Option<StreamId>,
        /// The offset that they name.
        offset: Option<Offset>,
        /// What they say they were sealed with.
        seal: Option<Sealing>,
        /// When the records are written.
        time: Timestamp,
    },
}

/// Which key session sealed the records of a command, and with which counters: `first_counter` and
/// as many after it as the command has records, less one.
///
/// Callers seal at the same time and before their order is known, so counters may skip and may
/// arrive out of order. That none is used twice is the promise of who hands them out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealing {
    /// The key session.
    pub session: SessionId,
    /// The counter of the first record.
    pub first_counter: u32,
}

/// What an append takes its stream to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExpectedVersion {
    /// Whatever is there.
    #[default]
    Any,
    /// The stream has no events.
    NoStream,
    /// The stream's last event has this offset.
    Exact(Offset),
}

impl ExpectedVersion {
    /// Whether a stream whose last event has offset `last` is as expected.
    pub fn allows(self, last: Option<Offset>) -> bool {
        match self {
            Self::Any => true,
            Self::NoStream => last.is_none(),
            Self::Exact(offset) => last == Some(offset),
        }
    }
}

impl fmt::Display for ExpectedVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("anything"),
            Self::NoStream => f.write_str("no events"),
            Self::Exact(offset) => write!(f, "a last event at offset {offset}"),
        }
    }
}
