//! The kernel as those see it who call it.
#![expect(clippy::unwrap_used, reason = "a failed step of a test is its failure")]

mod allocations;
