//! Ids, names, limits and the canonical record header of Kimberlite.
//!
//! The words of the log, without I/O, clocks or randomness: everything here is a value that can be
//! compared, encoded and decoded. The crate is `no_std`, so that the kernel can be.
//!
//! * [`Position`], [`Offset`], [`StreamId`], [`SessionId`], [`HoldId`], [`Timestamp`]: integers with a
//!   meaning.
//! * [`TenantName`], [`StreamName`], [`EventType`]: checked names.
//! * [`Idempotency`]: what a retried append is recognised by.
//! * [`RecordHeader`]: the 84 bytes of a record that are hashed into the log's history.
//! * [`limits`]: every bound of the format, in one place.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod digest;
mod header;
mod id;
mod idempotency;
mod kind;
pub mod limits;
mod name;
mod time;

pub use digest::{
    ChainHash, LeafHash, LogId, NameHash, NodeHash, ParseHashError, PayloadDigest, RootHash,
};
pub use header::{HeaderError, RECORD_HEADER_BYTES, RecordHeader};
pub use id::{HoldId, Offset, Position, SessionId, ShredId, StreamId};
pub use idempotency::{
    Idempotency, IdempotencyKeyHash, KEYED_APPEND_BYTES, KeyedAppend, RequestHash,
};
pub use kind::{RecordFlags, RecordKind, UnknownFlags};
pub use name::{EventType, NameError, SmallName, StreamName, TenantName};
pub use time::Timestamp;
