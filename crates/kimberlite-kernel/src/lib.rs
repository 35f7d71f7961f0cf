//! The pure state machine of Kimberlite: the state of one tenant and the commands that change it.
//!
//! [`apply_committed`] takes a [`State`] and a [`Command`] and either changes the state and says
//! with an [`Effect`] where the records belong, or leaves it as it was and answers with a
//! [`Rejection`]. It is deterministic and total: no clock, no randomness, no I/O, no panic for any
//! command. The crate is `no_std`, so the compiler keeps it so.
//!
//! The kernel never sees a key or a plaintext. Streams are told apart by keyed hashes of their
//! names, key sessions by the position of the record that opened them.
//!
//! An append with an idempotency key is known for as long as the limits say, counted in records and
//! keys; its retry is answered as it was, and changes nothing.
//!
//! [`replay`] rebuilds the state from the frames of a log, and checks each of them against what the
//! kernel decides today. [`State::to_snapshot`] keeps a state to start from. [`State::digest`] compares two states in constant time;
//! [`check_invariants`] walks a whole one.
//!
//! ```
//! use kimberlite_kernel::{Command, Effect, ExpectedVersion, State, apply_committed};
//! use kimberlite_types::{LogId, NameHash, Offset, Timestamp};
//!
//! let mut state = State::new();
//! let time = Timestamp::from_nanoseconds(1_700_000_000_000_000_000);
//! apply_committed(&mut state, Command::Genesis { log_id: LogId::new([1; 32]), time })?;
//! let name = NameHash::new([2; 32]);
//! apply_committed(&mut state, Command::CreateStream { name, seal: None, time })?;
//! let stream = state.stream_by_name(&name).expect("it was just created");
//!
//! let append = Command::Append {
//!     stream,
//!     expected: ExpectedVersion::NoStream,
//!     count: 3,
//!     idempotency: None,
//!     seal: None,
//!     time,
//! };
//! let effect = apply_committed(&mut state, append)?;
//! assert_eq!(effect.slot().offset, Some(Offset::ZERO));
//! assert_eq!(state.next_position().get(), 5);
//!
//! // The stream has events now, so the same command is refused and changes nothing.
//! let before = state.digest();
//! assert!(apply_committed(&mut state, append).is_err());
//! assert_eq!(state.digest(), before);
//! # Ok::<(), kimberlite_kernel::Rejection>(())
//! ```

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod apply;
mod command;
mod digest;
mod effect;
mod erasure;
mod idempotency;
mod invariants;
mod rejection;
mod replay;
mod retention;
mod rotation;
mod snapshot;
mod state;
#[cfg(test)]
mod tests;

pub use apply::apply_committed;
pub use command::{Command, ExpectedVersion, Sealing};
pub use digest::StateDigest;
pub use effect::{COUNTER_NONE, Effect, Slot};
pub use erasure::ErasureAct;
pub use invariants::{BrokenInvariant, check_invariants};
pub use rejection::{Limit, Rejection};
pub use replay::{ReplayError, ReplayedFrame, replay};
pub use retention::{Retention, RetentionAct, Scope};
pub use rotation::Generation;
pub use snapshot::SnapshotError;
pub use state::{State, StreamState};
