//! Test tools of Kimberlite: a disk that fails as disks do, and seeded randomness.
//!
//! * [`SimulatedDisk`]: a [`Disk`](kimberlite_disk::Disk) in memory that keeps apart what is
//!   durable and what is merely written, and can be crashed at every operation.
//! * [`Rng`]: small, seeded and the same everywhere; workloads draw from it.
//! * [`NonceLedger`]: sees whether a key and nonce are ever used twice.
//! * [`check_disk`]: what every implementation of `Disk` has to do, as one check.
//!
//! # A crash test
//!
//! Run the workload once to count its operations, then once for each, with a crash there:
//!
//! ```
//! use std::path::Path;
//!
//! use kimberlite_disk::{Access, Disk, DiskError};
//! use kimberlite_testkit::{CrashMode, SimulatedDisk};
//!
//! fn workload(disk: &SimulatedDisk) -> Result<(), DiskError> {
//!     disk.create_dir_all(Path::new("/db"))?;
//!     disk.write_new_atomic(Path::new("/db/checkpoint"), b"one", Access::Shared)?;
//!     disk.write_new_atomic(Path::new("/db/checkpoint"), b"two", Access::Shared)
//! }
//!
//! let counted = SimulatedDisk::new(1);
//! workload(&counted)?;
//! for op in 1..=counted.ops() {
//!     let disk = SimulatedDisk::new(1);
//!     disk.crash_after(op);
//!     assert!(workload(&disk).is_err());
//!     for seed in 0..8 {
//!         let found = disk.crash(CrashMode::Mixed(seed));
//!         match found.read(Path::new("/db/checkpoint"), 3) {
//!             Ok(content) => assert!(content == b"one" || content == b"two"),
//!             Err(error) => assert!(error.is_not_found()),
//!         }
//!     }
//! }
//! # Ok::<(), DiskError>(())
//! ```

#![forbid(unsafe_code)]

mod conformance;
mod ledger;
mod rng;
mod simulated;

pub use conformance::check_disk;
pub use ledger::NonceLedger;
pub use rng::Rng;
pub use simulated::{CrashMode, Lie, SECTOR_BYTES, SimulatedDisk, SyncObserver, WriteObserver};
