//! The one error type of the facade.

use std::fmt;
use std::path::PathBuf;

use kimberlite_crypto::{EnvelopeError, KeyProviderError, KeyringError, NoteError, OpenError};
use kimberlite_crypto::{RootKeyError, SessionError, SignerError, VerifierKeyError};
use kimberlite_disk::DiskError;
use kimberlite_kernel::{Rejection, ReplayError};
use kimberlite_projection::{IndexError, SourceError};
use kimberlite_storage::{Damage, ManifestError, StorageError};
use kimberlite_types::{NameError, Offset, Position};

/// Why something could not be done: a [`kind`](Error::kind) to act on, a message for people, and
/// the cause as [`source`](std::error::Error::source).
pub struct Error(Box<Problem>);

/// What went wrong, as far as a caller can act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The database, tenant, stream or key file does not exist.
    NotFound,
    /// Another process or handle has the database open.
    Locked,
    /// The keys at hand are not those that the data was written with.
    WrongKey,
    /// A key file is missing, damaged, or readable by others.
    KeyFile,
    /// Bytes on disk are not what was written. The message names segment, byte and position.
    Corrupt,
    /// The event's payload was purged; its hashes are still there.
    Purged,
    /// The log ends before a checkpoint that was made of it.
    RolledBack,
    /// The stream does not stand where the caller expected; read it and decide again.
    WrongVersion,
    /// The idempotency key belongs to an append that asked for something else; take another key.
    KeyReused,
    /// The request breaks another rule of the log, such as a limit.
    Rejected,
    /// A name or an event is not allowed.
    InvalidInput,
    /// A write failed and nobody knows whether it is durable; reopen the database to see.
    OutcomeUnknown,
    /// The disk is full; nothing was written.
    DiskFull,
    /// A backup or a restore was interrupted; run it again.
    Unfinished,
    /// As many appends are under way as the queue lets in; nothing was written. Try again when some
    /// have been answered.
    Overloaded,
    /// The database was opened for reading only, or is a backup.
    ReadOnly,
    /// The database was closed, or belongs to the process that this one was forked from.
    Closed,
    /// A projection stands still; its error says why, and it can be tried again.
    Projection,
    /// What was waited for did not come in time.
    TimedOut,
    /// The disk or the operating system refused.
    Io,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    #[error("there is no database in {}; create one by opening it for writing", path.display())]
    NoDatabase { path: PathBuf },
    #[error("there is no tenant named {name:?}")]
    NoTenant { name: String },
    #[error("{} is in use", path.display())]
    InUse {
        path: PathBuf,
        #[source]
        source: DiskError,
    },
    #[error("the log of tenant {name:?} is missing although its keys say that it was made; restore {}", path.display())]
    LogMissing { name: String, path: PathBuf },
    #[error("{} holds something else than a backup: name a directory that is empty", path.display())]
    NotABackup { path: PathBuf },
    #[error(
        "the backup in {} holds records of tenant {name:?} that the database does not have: back up \
         into another directory",
        path.display()
    )]
    OtherHistory { path: PathBuf, name: String },
    #[error("the backup in {} was never finished", path.display())]
    UnfinishedBackup { path: PathBuf },
    #[error("the manifest {} cannot be used", path.display())]
    Manifest {
        path: PathBuf,
        #[source]
        source: ManifestError,
    },
    #[error(
        "the backup has {files} files, more than a manifest of {bytes_max} bytes can name: nothing \
         was replaced"
    )]
    TooManyFiles { files: usize, bytes_max: u64 },
    #[error("tenant {name:?} has no checkpoint that could vouch for a backup: make one")]
    NoCheckpoint { name: String },
    #[error(
        "the log of tenant {name:?} is not the one that its checkpoint of {size} records signed: \
         verify it"
    )]
    CopyDiffers { name: String, size: u64 },
    #[error("{} is a backup: restore it elsewhere, or open it for reading", path.display())]
    IsBackup { path: PathBuf },
    #[error("the restore into {} was interrupted: run it again", path.display())]
    UnfinishedRestore { path: PathBuf },
    #[error("{} is not empty: restore into a directory that is", path.display())]
    NotEmpty { path: PathBuf },
    #[error("{} is not the file of a root key", path.display())]
    NotARootKey { path: PathBuf },
    #[error("{} is damaged: put it back from a backup", path.display())]
    Incarnation { path: PathBuf },
    #[error(
        "the record at position {position} is not the one with which the log's incarnation begins: \
         the file `incarnation` of the tenant is missing, or not of this log"
    )]
    IncarnationRecord { position: Position },
    #[error(
        "a checkpoint was signed as {origin:?}, of which the tenant's file `incarnation` does not \
         know: put that file back"
    )]
    UnknownIncarnation { origin: String },
    #[error("the log was restored or repaired more than 1,024 times")]
    TooManyIncarnations,
    #[error("the database is open for reading only")]
    ReadOnly,
    #[error("the database was closed")]
    Closed,
    #[error(
        "the database belongs to process {owner}, from which this one was forked: open it anew here"
    )]
    Forked { owner: u32 },
    #[error(
        "an append panicked and its outcome is unknown: reopen the database to see what is durable"
    )]
    GivenUp,
    #[error("the clock says that it is before 2020: set it, since time in a log never goes back")]
    ClockUnset,
    #[error("a file of the database is missing")]
    FileMissing(#[source] DiskError),
    #[error(transparent)]
    Name(NameError),
    #[error("{what} has {bytes} bytes, at most {bytes_max} are allowed")]
    TooLarge {
        what: &'static str,
        bytes: usize,
        bytes_max: usize,
    },
    #[error("an append has {count} events, 1 to {count_max} are allowed")]
    EventCount { count: usize, count_max: usize },
    #[error(
        "as many appends are under way as the queue lets in, {appends_max} of {bytes_max} bytes: try \
         again when some have been answered, or raise the limit"
    )]
    Overloaded { appends_max: usize, bytes_max: u64 },
    #[error("nothing was written at position {position} yet, the log ends at {end}")]
    NotWritten { position: Position, end: Position },
    #[error(
        "the state of the writer differs from what the log says up to position {position}: bad memory \
         or a bug; reopen the database, which reads the log"
    )]
    StateDiffers { position: Position },
    #[error("there is no such stream")]
    NoStream,
    #[error("the payload of the event at position {position} was purged")]
    Purged { position: Position },
    #[error("the event cannot be written as JSON")]
    Json(#[source] serde_json::Error),
    #[error(transparent)]
    Rejected(Rejection),
    #[error("the key file {} {problem}", path.display())]
    KeyFile {
        path: PathBuf,
        problem: KeyFileProblem,
    },
    #[error(
        "the root key does not open the keys of tenant {name:?}: use the key that the database \
         was made with"
    )]
    WrongRootKey { name: String },
    #[error("the signing key of tenant {name:?} is not the one that its log began with")]
    WrongSigner { name: String },
    #[error("key session {session} cannot be used for this record")]
    Session {
        session: Position,
        #[source]
        source: SessionError,
    },
    #[error("the keyring has no key for session {session}: restore the newest copy of the keyring")]
    KeyUnknown { session: Position },
    #[error("the record at position {position} does not open")]
    Payload {
        position: Position,
        #[source]
        source: OpenError,
    },
    #[error("the payload of the record at position {position} cannot be read")]
    Envelope {
        position: Position,
        #[source]
        source: EnvelopeError,
    },
    #[error("the {kind} record at position {position} cannot be read")]
    AdministrativeRecord {
        kind: &'static str,
        position: Position,
    },
    #[error("the checkpoint of {size} records cannot be used")]
    Checkpoint {
        size: u64,
        #[source]
        source: NoteError,
    },
    #[error("the tenant's name cannot be the name of a signing key")]
    Origin(#[source] VerifierKeyError),
    #[error("the key provider gives no key")]
    KeyProvider(#[source] KeyProviderError),
    #[error("the log cannot be replayed")]
    Replay(#[source] ReplayError),
    #[error("no frame begins at position {position}; verify the log")]
    NoFrame { position: Position },
    #[error(
        "{name:?} cannot be the name of a projection: 1 to 64 of a-z 0-9 - _ . are allowed, the first a letter or digit"
    )]
    ProjectionName { name: String },
    #[error("there is no projection named {name:?}")]
    NoProjection { name: String },
    #[error("projection {name:?} cannot go on")]
    Projection {
        name: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("a projection named {name:?} runs already")]
    ProjectionRuns { name: String },
    #[error(
        "the projection has taken in everything before position {applied}, and was waited for at {position}"
    )]
    ProjectionBehind {
        applied: Position,
        position: Position,
    },
    #[error(transparent)]
    Unreadable(Box<SourceError>),
    #[error("the event at offset {offset} of its stream is not where the log says")]
    LostEvent { offset: Offset },
    #[error("the log cannot be indexed")]
    Index(#[source] IndexError),
    #[error(transparent)]
    Storage(StorageError),
    #[error(transparent)]
    Disk(DiskError),
    #[error("the system gave no random bytes")]
    Entropy,
}

/// What is wrong with a key file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyFileProblem {
    #[error("is missing: restore it, nothing can be read without it")]
    Missing,
    #[error("can be read by others: make it yours alone with `chmod 600`")]
    NotPrivate,
    #[error("is not text")]
    NotText,
    #[error("cannot be read: {0}")]
    RootKey(RootKeyError),
    #[error("cannot be read: {0}")]
    Signer(SignerError),
    #[error("cannot be read: {0}")]
    Keyring(KeyringError),
}

impl Error {
    /// Returns the damaged place, where that is what the error tells.
    pub(crate) fn damage(&self) -> Option<&Damage> {
        match &*self.0 {
            Problem::Storage(StorageError::Corrupt(damage)) => Some(damage),
            _ => None,
        }
    }

    /// Returns what went wrong, as far as a caller can act on it.
    pub fn kind(&self) -> ErrorKind {
        match &*self.0 {
            Problem::NoDatabase { .. }
            | Problem::NoTenant { .. }
            | Problem::NoStream
            | Problem::NoProjection { .. }
            | Problem::NoCheckpoint { .. } => ErrorKind::NotFound,
            Problem::Purged { .. } => ErrorKind::Purged,
            Problem::UnfinishedBackup { .. } | Problem::UnfinishedRestore { .. } => {
                ErrorKind::Unfinished
            }
            Problem::InUse { .. } => ErrorKind::Locked,
            Problem::LogMissing { .. } => ErrorKind::RolledBack,
            Problem::ReadOnly | Problem::IsBackup { .. } => ErrorKind::ReadOnly,
            Problem::Closed | Problem::Forked { .. } => ErrorKind::Closed,
            Problem::GivenUp => ErrorKind::OutcomeUnknown,
            Problem::Overloaded { .. } => ErrorKind::Overloaded,
            Problem::Name(_)
            | Problem::TooLarge { .. }
            | Problem::EventCount { .. }
            | Problem::NotABackup { .. }
            | Problem::NotEmpty { .. }
            | Problem::NotARootKey { .. }
            | Problem::TooManyIncarnations
            | Problem::OtherHistory { .. }
            | Problem::TooManyFiles { .. }
            | Problem::NotWritten { .. }
            | Problem::Origin(_)
            | Problem::ProjectionName { .. }
            | Problem::ProjectionRuns { .. }
            | Problem::Json(_) => ErrorKind::InvalidInput,
            Problem::Rejected(Rejection::WrongVersion { .. }) => ErrorKind::WrongVersion,
            Problem::Rejected(Rejection::KeyReused { .. }) => ErrorKind::KeyReused,
            Problem::Rejected(_) | Problem::ClockUnset => ErrorKind::Rejected,
            Problem::KeyFile { .. } => ErrorKind::KeyFile,
            Problem::WrongRootKey { .. }
            | Problem::WrongSigner { .. }
            | Problem::Session { .. }
            | Problem::KeyUnknown { .. }
            | Problem::KeyProvider(_) => ErrorKind::WrongKey,
            Problem::Payload { .. }
            | Problem::Envelope { .. }
            | Problem::StateDiffers { .. }
            | Problem::AdministrativeRecord { .. }
            | Problem::Checkpoint { .. }
            | Problem::Manifest { .. }
            | Problem::Incarnation { .. }
            | Problem::IncarnationRecord { .. }
            | Problem::UnknownIncarnation { .. }
            | Problem::CopyDiffers { .. }
            | Problem::Replay(_)
            | Problem::NoFrame { .. }
            | Problem::Unreadable(_)
            | Problem::LostEvent { .. }
            | Problem::Index(_) => ErrorKind::Corrupt,
            Problem::Storage(error) => storage_kind(error),
            Problem::Disk(error) => disk_kind(error),
            Problem::Projection { .. } => ErrorKind::Projection,
            Problem::ProjectionBehind { .. } => ErrorKind::TimedOut,
            Problem::Entropy | Problem::FileMissing(_) => ErrorKind::Io,
        }
    }
}

fn storage_kind(error: &StorageError) -> ErrorKind {
    match error {
        StorageError::Corrupt(_)
        | StorageError::Replay { .. }
        | StorageError::BackupFile { .. }
        | StorageError::CheckpointFile { .. } => ErrorKind::Corrupt,
        StorageError::RolledBack { .. } | StorageError::FirstSegmentMissing => {
            ErrorKind::RolledBack
        }
        StorageError::Poisoned | StorageError::OutcomeUnknown(_) => ErrorKind::OutcomeUnknown,
        StorageError::GroupTooLarge { .. } => ErrorKind::InvalidInput,
        StorageError::Disk(error) => disk_kind(error),
        _ => ErrorKind::Io,
    }
}

fn disk_kind(error: &DiskError) -> ErrorKind {
    match error {
        DiskError::NotFound { .. } => ErrorKind::NotFound,
        DiskError::Locked { .. } => ErrorKind::Locked,
        DiskError::Full { .. } => ErrorKind::DiskFull,
        _ => ErrorKind::Io,
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Self {
        match error {
            // What the replay was refused with is an error of this crate, and the better message.
            StorageError::Replay { position, source } => match source.downcast::<Error>() {
                Ok(error) => *error,
                Err(source) => Problem::Storage(StorageError::Replay { position, source }).into(),
            },
            StorageError::Disk(error @ DiskError::NotFound { .. }) => {
                Problem::FileMissing(error).into()
            }
            StorageError::Disk(error) => error.into(),
            other => Problem::Storage(other).into(),
        }
    }
}

impl From<DiskError> for Error {
    fn from(error: DiskError) -> Self {
        Problem::Disk(error).into()
    }
}

impl From<NameError> for Error {
    fn from(error: NameError) -> Self {
        Problem::Name(error).into()
    }
}

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Self {
        Problem::Rejected(rejection).into()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&*self.0)
    }
}
