//! What can be wrong with a log, and where.

use std::fmt;

use kimberlite_types::Position;

/// A place in a log whose bytes are not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file's name in the log's directory.
    pub segment: String,
    /// Byte of the file at which the damaged piece begins.
    pub byte: u64,
    /// The first record that is affected.
    pub position: Position,
    /// What is wrong.
    pub kind: DamageKind,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            segment,
            byte,
            position,
            kind,
        } = self;
        write!(
            f,
            "{kind} (segment {segment}, byte {byte}, position {position})"
        )
    }
}

impl std::error::Error for Damage {}

/// What is wrong at a damaged place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DamageKind {
    /// A segment's header page cannot be read.
    #[error("the segment's header page is damaged: {0}")]
    SegmentHeader(crate::segment::SegmentHeaderError),
    /// A segment belongs elsewhere.
    #[error("the segment belongs to another log or place")]
    ForeignSegment,
    /// A segment's file does not have the size that it was made with.
    #[error("the segment's file has {found} bytes, it was made with {expected}")]
    SegmentBytes {
        /// Bytes that the file was made with.
        expected: u64,
        /// Bytes that it has.
        found: u64,
    },
    /// A segment file is missing.
    #[error("a segment is missing here")]
    MissingSegment,
    /// A frame header cannot be read.
    #[error("a frame header is damaged: {0}")]
    FrameHeader(crate::frame::FrameError),
    /// A frame table is not what was written.
    #[error("a frame's table does not match its checksum")]
    TableChecksum,
    /// A table entry points outside its frame.
    #[error("a frame's table points outside the frame")]
    TableEntry,
    /// The events of an append with an idempotency key are not those that its first frame tells of.
    #[error("an append with an idempotency key does not have the events that its first frame says")]
    KeyedAppend,
    /// A payload is not what was written.
    #[error("a stored payload does not match its checksum")]
    PayloadChecksum,
    /// Bytes between frames are not zero.
    #[error("the padding after a frame is not zero")]
    Padding,
    /// A frame ends after its segment.
    #[error("a frame is cut off by the end of its segment")]
    CutFrame,
    /// A frame does not follow on its predecessor.
    #[error("a frame has position {found} where {expected} follows")]
    PositionGap {
        /// The position that follows.
        expected: Position,
        /// The position that was found.
        found: Position,
    },
    /// A commit group lacks its last frames.
    #[error("a commit group lacks its last frames")]
    IncompleteGroup,
    /// Frames end before the segment's records do.
    #[error("frames are missing: the next segment begins at position {expected}")]
    MissingFrames {
        /// The next segment's base.
        expected: Position,
    },
    /// Something was written where nothing should be.
    #[error("there are bytes behind the last frame")]
    TrailingBytes,
    /// The recomputed chain differs from the stored one.
    #[error("the hash chain is broken: a record before here is not the one that was written")]
    ChainBroken,
    /// The log differs from what a signed checkpoint states.
    #[error("the log up to here is not the one that its checkpoint was signed over")]
    CheckpointMismatch,
    /// An administrative record cannot be read, so that what follows has no meaning.
    #[error("an administrative record cannot be read")]
    AdministrativeRecord,
    /// The log does not begin its newest incarnation where it should.
    #[error("the record with which the log began anew, after a restore or a repair, is not here")]
    IncarnationRecord,
    /// A sealed segment's digest differs.
    #[error("the segment does not match its seal")]
    SealMismatch,
}
