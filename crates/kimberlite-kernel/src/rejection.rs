//! Why a command was refused.

use core::fmt;

use kimberlite_types::{HoldId, Offset, Position, SessionId, ShredId, StreamId, Timestamp};

use crate::{ExpectedVersion, Generation, Retention, Scope};

/// Why a command was refused. The state is as it was before.
///
/// A rejection is an answer, not a failure: the same command on the same state is always refused
/// for the same reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The stream does not hold what the caller took it to hold.
    #[error(
        "the stream should have {expected} but has {}; read what was added and decide again",
        Last(*actual)
    )]
    WrongVersion {
        /// What the caller expected.
        expected: ExpectedVersion,
        /// The offset of the stream's last event.
        actual: Option<Offset>,
    },
    /// The idempotency key belongs to another append.
    #[error(
        "the idempotency key belongs to the append at position {first}, which asked for something \
         else; use a key of its own for each append"
    )]
    KeyReused {
        /// Where that append begins.
        first: Position,
    },
    /// No stream has this id.
    #[error("no stream {stream} exists in this log; create the stream first")]
    UnknownStream {
        /// The id.
        stream: StreamId,
    },
    /// A stream of this name exists.
    #[error("the stream already exists as stream {stream}; use that one")]
    StreamExists {
        /// The stream of that name.
        stream: StreamId,
    },
    /// The records were sealed for a key session that does not seal any more.
    #[error("key session {session} no longer seals; seal again with session {current}")]
    SessionEnded {
        /// The session that the records were sealed with.
        session: SessionId,
        /// The session that seals now.
        current: SessionId,
    },
    /// The records are sealed, but no key session is open: none was, or a shred or a rotation ended it.
    #[error("no key session is open; open one and seal again with it")]
    NoSession,
    /// The time lies before that of the last record.
    #[error(
        "time {time} lies before that of the last record, {last}; use that time or a later one"
    )]
    TimeWentBack {
        /// The time of the last record.
        last: Timestamp,
        /// The time of the command.
        time: Timestamp,
    },
    /// The time lies too far ahead of the last record.
    #[error(
        "time {time} lies more than ten years after that of the last record, {last}; \
         check the clock"
    )]
    TimeJump {
        /// The time of the last record.
        last: Timestamp,
        /// The time of the command.
        time: Timestamp,
    },
    /// A bound of the format would be passed.
    #[error("{what}: {wanted} wanted, at most {maximum} allowed; {}", what.remedy())]
    LimitReached {
        /// Which bound.
        what: Limit,
        /// What the command would have needed.
        wanted: u64,
        /// What is allowed.
        maximum: u64,
    },
    /// The command has no records.
    #[error("there is nothing to append; pass at least one event")]
    EmptyAppend,
    /// The log has not begun.
    #[error("the log has no genesis record; begin it with one")]
    NoGenesis,
    /// The log has begun already.
    #[error("the log has a genesis record already; use another directory for another log")]
    GenesisTwice,
    /// The checkpoint covers less than the one before.
    #[error(
        "a checkpoint of {size} records lies behind the last one of {last}; make one of the \
         whole log"
    )]
    CheckpointBehind {
        /// Records that the checkpoint covers.
        size: Position,
        /// Records that the last one covers.
        last: Position,
    },
    /// The checkpoint covers records that the log does not have.
    #[error(
        "a checkpoint of {size} records lies ahead of the log, which has {records}; make one of \
         what is there"
    )]
    CheckpointAheadOfLog {
        /// Records that the checkpoint covers.
        size: Position,
        /// Records that the log has.
        records: Position,
    },
    /// A legal hold covers what was to be purged or shredded.
    #[error("legal hold {hold} on {held} covers what would be erased; release it first")]
    Held {
        /// The oldest hold that does.
        hold: HoldId,
        /// What it covers.
        held: Scope,
    },
    /// No hold in force has this id.
    #[error("no legal hold {hold} is in force; list those that are")]
    UnknownHold {
        /// The id.
        hold: HoldId,
    },
    /// What was to be purged is too young by a rule.
    #[error(
        "{kept} is to be kept for {rule}, and what would be purged below position {until} has \
         {has}; purge less, or wait for later records"
    )]
    Retained {
        /// Whose rule it is.
        kept: Scope,
        /// The rule.
        rule: Retention,
        /// How old the youngest record is that would be purged, counted up to the last of the log.
        has: Retention,
        /// The position up to which would be purged.
        until: Position,
    },
    /// As much was purged before.
    #[error("{scope} was purged below position {last} before; name a later position than {until}")]
    PurgeBehind {
        /// What was to be purged.
        scope: Scope,
        /// Up to where it was to be purged.
        until: Position,
        /// Up to where it was.
        last: Position,
    },
    /// The log has fewer records than were to be purged.
    #[error(
        "a purge below position {until} lies ahead of the log, which has {records} records; \
         purge what is there"
    )]
    PurgeAheadOfLog {
        /// Up to where was to be purged.
        until: Position,
        /// Records that the log has.
        records: Position,
    },
    /// The scope is being shredded.
    #[error("shred {shred} of {scope} is not complete; complete it first")]
    ShredPending {
        /// The oldest shred that is.
        shred: ShredId,
        /// What it erases.
        scope: Scope,
    },
    /// No shred that is not complete has this id.
    #[error("no shred {shred} is waiting for its completion; list those that are")]
    UnknownShred {
        /// The id.
        shred: ShredId,
    },
    /// The generation of keys does not follow the one in use.
    #[error("generation {generation} of the keys does not follow; open generation {next}")]
    WrongGeneration {
        /// The one that was to be opened.
        generation: Generation,
        /// The one that may be.
        next: Generation,
    },
}

/// A bound that a command can meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Records of one log.
    LogRecords,
    /// Streams of one tenant.
    Streams,
    /// Events of one append.
    AppendEvents,
    /// Sealings under one key session.
    SessionSealings,
    /// Legal holds in force.
    Holds,
    /// Shreds that are not complete.
    Shreds,
    /// Generations of keys.
    Generations,
}

impl Limit {
    fn remedy(self) -> &'static str {
        match self {
            Self::LogRecords | Self::Generations => "begin a new log",
            Self::Streams => "use another tenant",
            Self::AppendEvents => "split the append",
            Self::SessionSealings => "open a new key session and seal again",
            Self::Holds => "release holds that are not needed",
            Self::Shreds => "complete those that were ordered",
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LogRecords => "records of one log",
            Self::Streams => "streams of one tenant",
            Self::AppendEvents => "events of one append",
            Self::SessionSealings => "sealings of one key session",
            Self::Holds => "legal holds in force",
            Self::Shreds => "shreds that are not complete",
            Self::Generations => "generations of keys",
        })
    }
}

struct Last(Option<Offset>);

impl fmt::Display for Last {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(offset) => write!(f, "a last event at offset {offset}"),
            None => f.write_str("no events"),
        }
    }
}
