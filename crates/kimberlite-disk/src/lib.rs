//! All file access of Kimberlite: the disk trait and the operating system's disk.
//!
//! Nothing outside this crate calls `std::fs`. The rest of Kimberlite is written against [`Disk`]
//! and [`DiskFile`], so that a simulated disk can stand in for the real one and lose, tear and
//! reorder what was not synced.
//!
//! * [`Disk`]: the directory tree. Creates, opens, renames, removes, lists, locks.
//! * [`DiskFile`]: one open file. Positioned reads, gathered writes, syncs, a read-only mapping.
//! * [`DiskDirectory`]: one open directory, to make the entries in it durable.
//! * [`OsDisk`]: the files of the operating system.
//! * [`Appender`]: appends to a file, through the page cache or past it.
//!
//! # What is durable when
//!
//! | act                                    | durable after                                       |
//! | -------------------------------------- | --------------------------------------------------- |
//! | bytes written                          | [`DiskFile::sync_data`] or [`DiskFile::sync_all`]   |
//! | bytes appended                         | [`Appender::sync`]                                  |
//! | length changed                         | as bytes written                                    |
//! | file created, renamed, removed         | [`Disk::sync_dir`] of the directory of its name     |
//! | [`Disk::create_dir_all`]               | at once                                             |
//! | [`Disk::write_new_atomic`]             | at once, and whole or not at all                    |
//!
//! A sync that failed says nothing about what reached the disk, and a second one that succeeds
//! does not either: the caller must treat everything since the last good sync as unknown.
//!
//! # Example
//!
//! ```
//! use kimberlite_disk::{Access, Disk, DiskFile, OsDisk};
//!
//! # let scratch = tempfile::tempdir().unwrap();
//! # let root = scratch.path();
//! let disk = OsDisk::new();
//! disk.create_dir_all(&root.join("log"))?;
//! let file = disk.create(&root.join("log/0.seg"), Access::Shared)?;
//! file.write_all_at(&[b"frame ", b"one"], 0)?;
//! file.sync_all()?;
//! disk.sync_dir(&root.join("log"))?;
//!
//! assert_eq!(disk.read(&root.join("log/0.seg"), 1 << 10)?, b"frame one");
//! # Ok::<(), kimberlite_disk::DiskError>(())
//! ```

#![deny(unsafe_code)]

mod appender;
mod direct;
mod disk;
mod error;
mod lock;
mod map;
mod memory;
mod os;

pub use appender::{Appender, WriteMode};
pub use direct::BLOCK_BYTES;
pub use disk::{
    Access, DirectoryLock, Disk, DiskDirectory, DiskFile, Entry, OpenMode, directory_of,
};
pub use error::DiskError;
pub use map::FileView;
pub use memory::MemoryFile;
pub use os::{OsDisk, handles_max};
