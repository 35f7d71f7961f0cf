//! A run of the log, as projections are given it.

use core::fmt;

use kimberlite_types::{Offset, Position, StreamId, Timestamp};

use crate::store::Applied;

/// An event of the log, as a projection sees it.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// Where it stands in the log.
    pub position: Position,
    /// The name of its stream.
    pub stream: &'a str,
    /// The id of its stream.
    pub stream_id: StreamId,
    /// Where it stands in its stream.
    pub offset: Offset,
    /// When its writer says that it was appended; never before the event ahead of it.
    pub time: Timestamp,
    /// What it says.
    pub content: Content<'a>,
}

/// What an event says.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Content<'a> {
    /// It is there.
    Payload {
        /// The type of the event.
        event_type: &'a str,
        /// Its metadata, empty when there is none.
        metadata: &'a [u8],
        /// Its data.
        data: &'a [u8],
    },
    /// A purge took it away, or is about to: that there was an event is all that is known.
    Purged,
}

impl<'a> Event<'a> {
    /// Returns its type and data; none of an event whose payload is gone.
    pub const fn payload(&self) -> Option<(&'a str, &'a [u8])> {
        match self.content {
            Content::Payload {
                event_type, data, ..
            } => Some((event_type, data)),
            Content::Purged => None,
        }
    }
}

/// What events say is secret: their lengths are shown.
impl fmt::Debug for Content<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Payload { metadata, data, .. } => f
                .debug_struct("Payload")
                .field("metadata_bytes", &metadata.len())
                .field("data_bytes", &data.len())
                .finish_non_exhaustive(),
            Self::Purged => f.write_str("Purged"),
        }
    }
}

/// The events of a run of the log: all that stand in it, in order.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    first: Position,
    end: Applied,
    events: &'a [Event<'a>],
}

/// Why events are no batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the event at position {position} is out of order, or not between {first} and {end}")]
pub struct BatchError {
    /// The position of the event that does not fit.
    pub position: Position,
    /// Where the batch begins.
    pub first: Position,
    /// Where it ends.
    pub end: Position,
}

impl<'a> Batch<'a> {
    /// Makes the batch of the records from position `first` up to `end`, of which `events` are the
    /// events.
    ///
    /// # Errors
    ///
    /// [`BatchError`] when they do not stand there in order.
    pub fn new(first: Position, events: &'a [Event<'a>], end: Applied) -> Result<Self, BatchError> {
        let mut next = first;
        for event in events {
            let position = event.position;
            if position < next || position >= end.position {
                return Err(BatchError {
                    position,
                    first,
                    end: end.position,
                });
            }
            next = Position::new(position.get() + 1);
        }
        Ok(Self { first, end, events })
    }

    /// Returns the position of its first record.
    pub const fn first(&self) -> Position {
        self.first
    }

    /// Returns the position behind its last record, and the chain hash there.
    pub const fn end(&self) -> Applied {
        self.end
    }

    /// Returns the events, in order. Records that are not events take positions and are not among them.
    pub const fn events(&self) -> &'a [Event<'a>] {
        self.events
    }
}

#[cfg(test)]
mod tests {
    use kimberlite_types::ChainHash;

    use super::*;

    fn check(first: u64, positions: &[u64], end: u64) -> bool {
        let event = |&position: &u64| Event {
            position: Position::new(position),
            stream: "s",
            stream_id: StreamId::new(Position::new(1)),
            offset: Offset::new(0),
            time: Timestamp::default(),
            content: Content::Purged,
        };
        let events: Vec<_> = positions.iter().map(event).collect();
        let end = Applied {
            position: Position::new(end),
            chain: ChainHash::new([0; 32]),
        };
        Batch::new(Position::new(first), &events, end).is_ok()
    }

    #[test]
    fn the_events_of_a_batch_stand_in_it_in_order() {
        assert!(check(3, &[], 3) && check(3, &[3, 4, 9], 10));
        assert!(!check(3, &[2], 10));
        assert!(!check(3, &[4, 4], 10));
        assert!(!check(3, &[5, 4], 10));
        assert!(!check(3, &[10], 10));
    }

    #[test]
    fn what_an_event_says_is_not_printed() {
        let content = Content::Payload {
            event_type: "diagnosis",
            metadata: b"",
            data: b"secret",
        };
        let shown = format!("{content:?}");
        assert!(!shown.contains("secret") && !shown.contains("diagnosis"));
    }
}
