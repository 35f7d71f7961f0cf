//! Embedded, verifiable log database.
//!
//! An application opens a directory and appends events. Every event is durable when the call
//! returns, ordered, hash-chained, a leaf of a Merkle tree under signed checkpoints, and encrypted
//! per tenant. All data is an immutable, ordered log; all state is a derived view.
//!
//! It is not a SQL engine, not a message broker, and not a blockchain.
//!
//! ```
//! use kimberlite::{Database, Event, ExpectedVersion};
//!
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path();
//! let db = Database::open(path)?; // made when absent; encryption on, keys in `keys/`
//! let clinic = db.tenant("clinic-7")?; // own log, keys, signer
//! let patient = clinic.stream("patient/42")?; // comes into being with its first event
//!
//! let receipt = patient.append(
//!     ExpectedVersion::Any,
//!     &[Event::new("admitted", "ward 3"), Event::new("triaged", "priority 2")],
//! )?; // durable now
//! assert_eq!(receipt.count(), 2);
//!
//! for record in patient.read(0..) {
//!     let record = record?;
//!     println!("{} {:?}", record.event_type(), record.data());
//! }
//!
//! let checkpoint = clinic.checkpoint()?; // a signed note
//! assert!(clinic.verify()?.is_sound()); // recomputes everything
//! # assert!(checkpoint.size() > 2);
//! db.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Without blocking
//!
//! [`Stream::append_async`] gives a future for any executor, [`Ack::Buffered`] an answer before the
//! sync. How many appends may be under way is bounded ([`DatabaseBuilder::queue_limit`]):
//! [`Stream::try_append`] is refused where [`Stream::append`] waits.
//!
//! # Guarantees
//!
//! Under [`SyncPolicy::EveryRecord`] and [`SyncPolicy::EveryBatch`], the default, an append that has
//! returned survives power loss, unless it asked for an early answer. Events of one append are there together or not at all. What was
//! acknowledged is never silently dropped: damage is an error that says where it is, and a log that
//! is shorter than its newest checkpoint is reported as rolled back.
//!
//! # Limits
//!
//! [`limits`] names them all: 16 MiB of data an event, 65,536 events an append.
//!
//! # Features
//!
//! * `aws-lc-rs` (default): the fastest AES-256-GCM, needs a C compiler. Without it a portable
//!   implementation writes the same bytes.

#![forbid(unsafe_code)]

mod append;
mod backup;
mod cache;
mod catalog;
mod checkpoint;
mod database;
mod doctor;
mod engine;
mod environment;
mod error;
mod event;
mod idempotency;
mod incarnation;
mod inspect;
mod keys;
mod open;
mod opened;
mod options;
mod ordered;
mod payload;
mod project;
mod quiet;
mod read;
mod repair;
mod restore;
mod retention;
mod scrub;
mod shown;
mod sieve;
mod snapshot;
mod stream;
mod streams;
mod subscribe;
mod tenant;
mod verify;

pub use append::{Ack, AppendFuture, AppendOptions, DurableFuture, WhenFull};
pub use backup::{BackupOptions, BackupProgress, BackupReport, TenantBackup};
pub use cache::CacheStats;
pub use checkpoint::Checkpoint;
pub use database::Database;
pub use doctor::{Condition, Diagnosis, Symptom};
pub use environment::{Clock, SystemClock, SystemEntropy};
pub use error::{Error, ErrorKind};
pub use event::Event;
pub use idempotency::IdempotencyKey;
pub use inspect::{Inspection, KeySummary, Stats};
pub use kimberlite_disk::{Disk, WriteMode};
pub use kimberlite_kernel::{ExpectedVersion, Retention};
pub use kimberlite_storage::{
    Budget, Damage, DamageKind, Entropy, FrameHeader, OpenReport, PurgeOutcome, QueueLimit,
    ReadMode, ScrubProgress, SegmentState, SegmentSummary, TailDiscarded, TornTail, VerifyProgress,
};
pub use kimberlite_types::{
    ChainHash, EventType, HoldId, Offset, Position, RecordKind, RootHash, SessionId, StreamId,
    StreamName, TenantName, Timestamp, limits,
};
pub use options::{DatabaseBuilder, Encryption, SyncPolicy};
pub use project::{Followed, Projected, ProjectionFiles, TargetPlace};
pub use read::{Record, RecordIter};
pub use repair::{RepairOptions, RepairReport};
pub use restore::{RestoreOptions, RestoreProgress, RestoreReport, RestoredTenant};
pub use retention::{Hold, PurgeOptions, PurgeReport};
pub use scrub::{ScrubOptions, ScrubReport};
pub use stream::{Receipt, Stream};
pub use subscribe::Subscription;
pub use tenant::{StreamSummary, Tenant};
pub use verify::{Finding, VerifyReport};

/// What a projection is written with; see [`Tenant::project`].
pub mod projection {
    pub use kimberlite_projection::store;
    pub use kimberlite_projection::{
        ApplyError, Batch, Content, Event, FollowerState, FollowerStatus, Key, Parked, Projection,
        Scan, Stored, Table, Target, TargetError,
    };
}
