//! What the caller of the kernel must write, or need not.

use kimberlite_types::{Offset, Position, SessionId, StreamId, Timestamp};

use crate::Sealing;

/// The first counter of a slot whose records are not sealed: all ones, as in the record header.
pub const COUNTER_NONE: u32 = u32::MAX;

/// Where the records of a command belong.
///
/// Record `i` of `count` has position `position + i`, offset `offset + i` and counter
/// `first_counter + i`. A slot with more records than a frame may hold is written as several frames
/// of one commit group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The position of the first record.
    pub position: Position,
    /// How many records.
    pub count: u32,
    /// The stream that they belong to; none for the record that creates a stream.
    pub stream: Option<StreamId>,
    /// The offset of the first record in its stream.
    pub offset: Option<Offset>,
    /// The key session that sealed them; none for the record that opens a session.
    pub session: Option<SessionId>,
    /// The counter of the first record, [`COUNTER_NONE`] without a session.
    pub first_counter: u32,
    /// When the records are written.
    pub time: Timestamp,
}

impl Slot {
    /// Returns the position after the last record.
    ///
    /// # Panics
    ///
    /// When there is none, which the kernel refuses.
    pub fn end(&self) -> Position {
        let end = self.position.checked_add(u64::from(self.count));
        end.expect("the kernel gives no slot beyond the last position")
    }

    /// A slot for records outside any stream.
    pub(crate) fn new(position: Position, count: u32, time: Timestamp) -> Self {
        Self {
            position,
            count,
            stream: None,
            offset: None,
            session: None,
            first_counter: COUNTER_NONE,
            time,
        }
    }

    pub(crate) fn sealed(self, seal: Option<Sealing>) -> Self {
        match seal {
            Some(Sealing {
                session,
                first_counter,
            }) => Self {
                session: Some(session),
                first_counter,
                ..self
            },
            None => self,
        }
    }
}

/// What has become of a command, and what must now be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Events were appended to a stream.
    Append(Slot),
    /// The append is a retry: its events were appended before, here. Nothing is to be written, and
    /// the state is as it was.
    Duplicate(Slot),
    /// A stream began to exist.
    StreamCreated {
        /// The stream.
        stream: StreamId,
        /// Where its record belongs.
        slot: Slot,
    },
    /// A key session was opened.
    SessionOpened {
        /// The session.
        session: SessionId,
        /// Where its record belongs.
        slot: Slot,
    },
    /// A record of another kind takes its place in the log.
    Recorded(Slot),
}

impl Effect {
    /// Returns where the records belong, or stand already.
    pub const fn slot(&self) -> &Slot {
        match self {
            Self::Append(slot)
            | Self::Duplicate(slot)
            | Self::StreamCreated { slot, .. }
            | Self::SessionOpened { slot, .. }
            | Self::Recorded(slot) => slot,
        }
    }
}
