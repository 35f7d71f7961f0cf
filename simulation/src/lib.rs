//! Seeded histories of whole databases, held against a simple model.
//!
//! A history is a few lives of one database on a simulated disk: it is opened, appended to, read,
//! verified and closed, while syncs fail, space runs out and power is lost. Between lives its files
//! are damaged, rolled back, copied and forked. A list of what was appended says what must be found:
//! every acknowledged event, where it was put; an append that was not acknowledged whole or not at
//! all; no damage where there is none, and damage told where it is. See docs/testing.md.
//!
//! The seed decides everything. [`simulate`] runs one history and says how it went.
//!
//! Something new to do with a database is a variant of `Operation` and its function under
//! `operation/`, a new fault of a disk a variant of `Fault`, something new that happens to the files
//! of a closed database a variant of `Interlude`.

#![forbid(unsafe_code)]

mod check;
mod environment;
mod fault;
mod history;
mod interlude;
mod model;
mod operation;
mod trace;
mod world;

pub use history::{Report, simulate};
pub use trace::Counts;
pub use world::Canary;
