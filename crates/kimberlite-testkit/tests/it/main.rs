//! The disks, real and simulated, and whether the simulated one is honest.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod bytes;
mod conformance;
mod faults;
mod lies;
mod model;
mod names;
mod processes;
