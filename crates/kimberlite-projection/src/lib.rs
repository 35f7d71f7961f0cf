//! Derived state of Kimberlite: the projection trait and the stream index.
//!
//! A [`Projection`] is state that is derived from the log and from nothing else, so that it can
//! always be rebuilt. It takes the log in [`Batch`]es, strictly in position order: every batch
//! begins where the last one ended, which [`Batch::follows`] checks.
//!
//! The [`StreamIndex`] is the projection that every tenant has: it finds the position of an event
//! by its stream and offset.
//!
//! ```
//! use kimberlite_projection::{Batch, FrameSummary, Projection, StreamIndex};
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
//! index.apply(&Batch::new(Position::ZERO, &frames)?)?;
//! assert_eq!(index.applied(), Position::new(8));
//! assert_eq!(index.len(stream), 5);
//! assert_eq!(index.position_of(stream, Offset::new(4)), Some(Position::new(7)));
//! let first: Vec<u64> = index.runs(stream, ..).map(|run| run.position.get()).collect();
//! assert_eq!(first, [2, 6]);
//! # Ok::<(), kimberlite_projection::ProjectionError>(())
//! ```

#![forbid(unsafe_code)]

mod batch;
mod error;
mod projection;
pub mod store;
mod stream_index;

pub use batch::{Batch, FrameSummary};
pub use error::ProjectionError;
pub use projection::Projection;
pub use stream_index::{Run, Runs, SnapshotError, StreamIndex};
