//! What can go wrong in a log.

use kimberlite_disk::DiskError;
use kimberlite_types::Position;

use crate::damage::Damage;

/// Why a log could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The disk refused; the log is as it was.
    #[error("the disk refused")]
    Disk(#[source] DiskError),
    /// Bytes that were durable are not what was written. Nothing was changed.
    #[error("the log is damaged: {0}")]
    Corrupt(Damage),
    /// The log ends before a checkpoint that was made of it.
    #[error(
        "the log was rolled back: it ends at position {end}, a checkpoint vouches for {witnessed} \
         records; restore the missing segments"
    )]
    RolledBack {
        /// Where the log ends.
        end: Position,
        /// How many records a checkpoint covers.
        witnessed: Position,
    },
    /// An earlier write or sync failed, so what is on disk is not known.
    #[error(
        "an earlier write failed and its outcome is unknown: reopen the database to see what is \
         durable"
    )]
    Poisoned,
    /// A write or sync failed; whether it is durable is not known.
    #[error(
        "the write failed and its outcome is unknown: reopen the database to see what is durable"
    )]
    OutcomeUnknown(#[source] DiskError),
    /// A commit group is over the limit.
    #[error("one append takes {bytes} bytes in the log, at most {bytes_max} are allowed")]
    GroupTooLarge {
        /// Bytes of the group.
        bytes: u64,
        /// Bytes that are allowed.
        bytes_max: u64,
    },
    /// The log directory holds files but no first segment.
    #[error("the log's first segment is missing: restore it, or restore the whole tenant")]
    FirstSegmentMissing,
    /// No randomness could be had.
    #[error("the system gave no random bytes")]
    Entropy,
    /// Whoever replays the log refused a frame.
    #[error("the log cannot be replayed at position {position}")]
    Replay {
        /// Position of the frame's first record.
        position: Position,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file of a backup is not what was backed up.
    #[error("the backup's file {path} is missing, damaged, or not what was written")]
    BackupFile {
        /// Its path below the directory of the backup.
        path: String,
    },
    /// The log is not the one that a snapshot says it is: open it without.
    #[error("the snapshot does not fit the log: all of the log has to be read")]
    SnapshotUnfit,
    /// A checkpoint file cannot be read.
    #[error("the checkpoint of {size} records is damaged")]
    CheckpointFile {
        /// Records that it covers.
        size: u64,
    },
}

impl From<DiskError> for StorageError {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}
