//! The log of one tenant: frames, segments, commit, index, recovery, checkpoints.
//!
//! A log is a directory of segment files. The one [`LogWriter`] appends commit groups of frames;
//! any number of [`LogReader`]s read records by position beside it. What the records mean is not
//! this crate's business: payloads are opaque bytes, and their kinds are passed on.
//!
//! * [`create_log`], [`open_writer`], [`open_observer`]: making and opening, with recovery.
//! * [`FrameBuilder`], [`UnplacedFrame`], [`LogWriter`], [`SyncStage`]: appending.
//! * [`AppendQueue`], [`SyncDriver`]: how many appends are under way, and who syncs for those that
//!   nobody blocks for.
//! * [`LogReader`], [`FrameCursor`], [`FrameView`], [`StoredRecord`]: reading without copies.
//! * [`CheckpointStore`]: signed checkpoints on disk.
//! * [`LogSnapshot`]: where to begin to read, and what its owner made of what stands before.
//! * [`verify`]: recomputing everything.
//! * [`Manifest`], [`SegmentPart`]: backups.
//!
//! It is not a database: it has no keys, no streams by name, and it knows no commands.

#![forbid(unsafe_code)]

mod append_queue;
mod background;
mod backup;
mod block_on;
mod budget;
mod checkpoint;
mod cursor;
mod damage;
mod error;
mod frame;
mod history;
mod mapped;
#[cfg(all(test, shuttle))]
mod model;
mod open;
mod options;
mod prepare;
mod purge;
mod reader;
mod recovery;
mod repair;
mod replay;
mod scan;
mod scrub;
mod segment;
mod snapshot;
mod survey;
mod sync;
mod sync_driver;
mod sync_stage;
mod tail;
mod verify;
mod writer;

pub use append_queue::{Admission, AppendQueue, Place, QueueLimit};
pub use background::Background;
pub use backup::{
    BackedUpFile, BackedUpTenant, FileContent, MANIFEST_BYTES_MAX, Manifest, ManifestError,
    SegmentContent, SegmentPart, copy_file, file_matches, sync_names, write_file,
};
pub use budget::Budget;
pub use checkpoint::{CheckpointFiles, CheckpointStore, HistoryState, Statement, Witness};
pub use cursor::FrameCursor;
pub use damage::{Damage, DamageKind};
pub use error::StorageError;
pub use frame::{
    Content, FRAME_HEADER_BYTES, FrameBuilder, FrameError, FrameHeader, FramePlacement, FrameView,
    PurgedPayload, StoredRecord, UnplacedFrame,
};
pub use kimberlite_crypto::Entropy;
pub use open::{
    OpenReport, Visitor, create_log, first_record, log_exists, open_observer, open_writer,
};
pub use options::{LogOptions, ReadMode, SegmentSpace, Visibility};
pub use purge::{PurgeChoice, PurgeOutcome, Purger};
pub use reader::LogReader;
pub use recovery::{TailDiscarded, TornTail};
pub use repair::{KeptAside, LogCut, kept_aside, set_aside};
pub use scrub::{ScrubProgress, ScrubSegment, closed_segments, scrub_segment};
pub use segment::{
    ClosedExtent, SEGMENT_HEADER_BYTES, SealError, SealFile, SegmentHeader, SegmentHeaderError,
    SegmentSeed,
};
pub use snapshot::{LogBase, LogSnapshot, SnapshotError};
pub use survey::{SegmentState, SegmentSummary};
pub use sync_driver::SyncDriver;
pub use sync_stage::{DurableWait, Settled, SyncStage};
pub use verify::{VerifiedLog, VerifyProgress, verify};
pub use writer::{Durability, LogWriter};
