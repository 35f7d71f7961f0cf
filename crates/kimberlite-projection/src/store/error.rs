//! Why a store cannot be opened, read or written.

use std::path::PathBuf;

use kimberlite_disk::DiskError;

/// Why a store cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// No superblock is whole: the store was never finished, or is damaged. It can only be rebuilt.
    #[error("{} has no whole superblock; rebuild the projection", path.display())]
    NoSuperblock {
        /// The file of the store.
        path: PathBuf,
    },
    /// The store belongs to another log, another projection or another version of it.
    #[error("{} was derived by something else; rebuild the projection", path.display())]
    Foreign {
        /// The file of the store.
        path: PathBuf,
    },
    /// The store is encrypted, under another key than the one that was given. Or somebody without the key has
    /// written its superblock.
    #[error("{} was not encrypted under this key; rebuild the projection", path.display())]
    WrongKey {
        /// The file of the store.
        path: PathBuf,
    },
    /// The store is encrypted, and no key was given.
    #[error("{} is encrypted, and opened without a key; rebuild the projection", path.display())]
    Encrypted {
        /// The file of the store.
        path: PathBuf,
    },
    /// A key was given, and the store is not encrypted.
    #[error("{} is not encrypted, and opened with a key; rebuild the projection", path.display())]
    NotEncrypted {
        /// The file of the store.
        path: PathBuf,
    },
    /// The source of random bytes gave none.
    #[error("there are no random bytes to encrypt {} with", path.display())]
    Entropy {
        /// The file of the store.
        path: PathBuf,
    },
    /// The store is encrypted, and was opened by the process that this one was forked from: both would
    /// encrypt different pages in the same way.
    #[error("{} was opened before this process was forked; open it anew", path.display())]
    Forked {
        /// The file of the store.
        path: PathBuf,
    },
    /// A page is not what was written there.
    #[error("page {page} of {} is damaged: {what}; rebuild the projection", path.display())]
    Damaged {
        /// The file of the store.
        path: PathBuf,
        /// The page: bytes 4,096 × `page` and on.
        page: u32,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A key is longer than a store takes.
    #[error("a key of {bytes} bytes; at most {bytes_max} are allowed")]
    KeyTooLong {
        /// Its length.
        bytes: usize,
        /// The longest.
        bytes_max: usize,
    },
    /// A value is longer than a store takes.
    #[error("a value of {bytes} bytes; at most {bytes_max} are allowed")]
    ValueTooLong {
        /// Its length.
        bytes: usize,
        /// The longest.
        bytes_max: usize,
    },
    /// A commit does not go on from where the store is.
    #[error("a commit up to position {found}, where {expected} was applied before")]
    Backward {
        /// The position that was applied.
        expected: u64,
        /// The position of the commit.
        found: u64,
    },
    /// The file has as many pages as can be numbered.
    #[error("{} has no page left of the 2^32 that a store can have", path.display())]
    OutOfPages {
        /// The file of the store.
        path: PathBuf,
    },
    /// An entry is not what the type of its table says.
    #[error(
        "an entry of table {table} is not of the table's type; give the projection another version"
    )]
    WrongType {
        /// The number of the table.
        table: u16,
    },
    /// An earlier write failed. What was committed since the last flush is lost with this handle.
    #[error("a write to {} failed before; open the projection again", path.display())]
    Poisoned {
        /// The file of the store.
        path: PathBuf,
    },
}
