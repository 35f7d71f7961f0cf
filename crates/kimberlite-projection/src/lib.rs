//! Derived state of Kimberlite: projections, the stores that they keep, and the index of streams.
//!
//! A [`Projection`] is state that is derived from the log and from nothing else, so that it can
//! always be rebuilt: a function that takes in the log in [`Batch`]es and changes [`Table`]s of a [`store`].
//! A [`Runner`] keeps projections up with their logs, and [`testkit`] checks that they are what they say.
//! It is not where a log is opened or read: that is the facade's, which gives the log as a [`Source`].
//!
//! The [`StreamIndex`] is what every tenant has: it finds the position of an event by its stream and offset.
//! It takes in the log as [`FrameRun`]s; what it has taken in long ago is in the store of [`StreamRuns`].
//!
//! ```
//! use kimberlite_projection::{FrameRun, FrameSummary, StreamIndex};
//! use kimberlite_types::{Offset, Position, RecordKind, StreamId, Timestamp};
//!
//! let time = Timestamp::default();
//! let stream = StreamId::new(Position::new(1));
//! let record = |kind, position| FrameSummary {
//!     kind,
//!     position: Position::new(position),
//!     count: 1,
//!     stream: None,
//!     offset: None,
//!     time,
//! };
//! let events = |position, count, offset| FrameSummary {
//!     count,
//!     stream: Some(stream),
//!     offset: Some(Offset::new(offset)),
//!     ..record(RecordKind::Event, position)
//! };
//! let frames = [
//!     record(RecordKind::Genesis, 0),
//!     record(RecordKind::StreamCreated, 1),
//!     events(2, 3, 0),
//!     record(RecordKind::Checkpoint, 5),
//!     events(6, 2, 3),
//! ];
//!
//! let mut index = StreamIndex::new();
//! index.apply(&FrameRun::new(Position::ZERO, &frames)?)?;
//! assert_eq!(index.applied(), Position::new(8));
//! assert_eq!(index.len(stream), 5);
//! assert_eq!(index.position_of(stream, Offset::new(4)), Some(Position::new(7)));
//! let first: Vec<u64> = index.runs(stream, 0..u64::MAX).map(|run| run.position.get()).collect();
//! assert_eq!(first, [2, 6]);
//! # Ok::<(), kimberlite_projection::IndexError>(())
//! ```

#![forbid(unsafe_code)]

mod batch;
mod errand;
mod frame_run;
mod index_error;
mod projection;
mod runner;
mod source;
pub mod store;
mod store_target;
mod stream_index;
mod sync;
mod table;
mod target;
pub mod testkit;

pub use batch::{Batch, BatchError, Content, Event};
pub use frame_run::{FrameRun, FrameSummary};
pub use index_error::IndexError;
pub use projection::{ApplyError, Projection};
pub use runner::{
    FollowError, Follower, FollowerState, FollowerStatus, Followers, Named, Parked, Runner,
    RunnerHandle, RunnerOptions, WaitError,
};
pub use source::{BatchSize, ReadBatch, Source, SourceError};
pub use store_target::{Reads, STORE_FILE, STORE_NEW_FILE, StoreTarget, remove_stores};
pub use stream_index::{
    Frames, Part, Run, Runs, STREAM_RUNS_NAME, STREAM_RUNS_VERSION, SnapshotError, StoredRuns,
    StreamIndex, StreamRuns,
};
pub use table::{FixedBytes, Key, Scan, Stored, Table};
pub use target::{Target, TargetError};
