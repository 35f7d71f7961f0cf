//! Why the stream index did not take records in.

use kimberlite_types::{Offset, Position, StreamId};

/// Why the stream index did not take records in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// Records are left out.
    #[error("records are left out: position {found} follows where {expected} is next")]
    Gap {
        /// The position that is next.
        expected: Position,
        /// The position that was given.
        found: Position,
    },
    /// Records were taken in already.
    #[error("records are repeated: position {found} is given where {expected} is next")]
    Repeated {
        /// The position that is next.
        expected: Position,
        /// The position that was given.
        found: Position,
    },
    /// A frame reaches past the last position.
    #[error("the {count} records at position {position} reach past the end of any log")]
    PastEnd {
        /// Where the frame begins.
        position: Position,
        /// How many records it has.
        count: u32,
    },
    /// Events without a stream, or without an offset in it.
    #[error("the events at position {position} name no stream and offset; verify the log")]
    NoStream {
        /// Where the frame begins.
        position: Position,
    },
    /// Events of a stream that was not created before them.
    #[error(
        "the events at position {position} name stream {stream}, which does not exist; verify the log"
    )]
    UnknownStream {
        /// Where the frame begins.
        position: Position,
        /// The stream.
        stream: StreamId,
    },
    /// Events that do not follow those before them in their stream.
    #[error(
        "the events at position {position} begin at offset {found} of stream {stream}, where \
         {expected} is next; verify the log"
    )]
    WrongOffset {
        /// Where the frame begins.
        position: Position,
        /// The stream.
        stream: StreamId,
        /// The offset that is next in the stream.
        expected: Offset,
        /// The offset that was given.
        found: Offset,
    },
}
