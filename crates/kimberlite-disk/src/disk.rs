//! The traits that all file access goes through.

use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::{DiskError, FileView};

/// How many zeros one slice of a zeroing write holds.
const ZEROS_BYTES: usize = 64 << 10;
/// How many of those slices go into one write.
const ZEROS_SLICES: usize = 16;
static ZEROS: [u8; ZEROS_BYTES] = [0; ZEROS_BYTES];

/// What is appended to a file's name while its new content is being written.
const TEMPORARY_SUFFIX: &str = ".tmp";

/// A tree of directories and files.
///
/// What a call changed in a directory (a name that came, went or moved) is durable only after
/// [`sync_dir`](Disk::sync_dir) of that directory, unless the method says otherwise.
pub trait Disk: Debug + Send + Sync {
    /// Creates one directory. The caller syncs the directory above it.
    ///
    /// # Errors
    ///
    /// [`DiskError::AlreadyExists`] when the name is taken.
    fn create_dir(&self, path: &Path) -> Result<(), DiskError>;

    /// Creates a file for reading and writing. The caller syncs its directory.
    ///
    /// # Errors
    ///
    /// [`DiskError::AlreadyExists`] when the name is taken.
    fn create(&self, path: &Path, access: Access) -> Result<Arc<dyn DiskFile>, DiskError>;

    /// Opens a file that exists.
    ///
    /// # Errors
    ///
    /// [`DiskError::NotFound`] when it does not.
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DiskFile>, DiskError>;

    /// Opens a directory to sync it later.
    ///
    /// Opened before the entries change, it can still be synced when the process has run out of
    /// handles in between, and it sees every write error since.
    ///
    /// # Errors
    ///
    /// [`DiskError::NotFound`] when it does not exist.
    fn open_dir(&self, path: &Path) -> Result<Box<dyn DiskDirectory>, DiskError>;

    /// Gives a file a new name, in place of a file that may have that name already. After power
    /// loss the new name stands for the old file or for the new one, never for neither. The
    /// caller syncs the directories of both names.
    ///
    /// # Errors
    ///
    /// [`DiskError::NotFound`] when `from` does not exist.
    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError>;

    /// Removes a file. The caller syncs its directory.
    ///
    /// # Errors
    ///
    /// [`DiskError::NotFound`] when it does not exist.
    fn remove(&self, path: &Path) -> Result<(), DiskError>;

    /// Lists what is in a directory, sorted by name.
    ///
    /// # Errors
    ///
    /// [`DiskError::NotFound`] when the directory does not exist.
    fn list(&self, path: &Path) -> Result<Vec<Entry>, DiskError>;

    /// Whether there is a file or directory of this name.
    ///
    /// # Errors
    ///
    /// When the answer cannot be had, for want of permission for example.
    fn exists(&self, path: &Path) -> Result<bool, DiskError>;

    /// Takes the lock file at `path`, which is created when absent, for this handle alone. Freed
    /// when the lock is dropped or the process ends, however it ends. The file stays.
    ///
    /// # Errors
    ///
    /// [`DiskError::Locked`] when another process or another handle in this process has it.
    fn lock(&self, path: &Path) -> Result<Box<dyn DirectoryLock>, DiskError>;

    /// Whether somebody holds the lock file at `path`, without taking it; `None` when this disk cannot
    /// tell. A writer that asks for the lock in this very moment may be told that it is held.
    ///
    /// # Errors
    ///
    /// When the file is there and cannot be opened.
    fn is_locked(&self, path: &Path) -> Result<Option<bool>, DiskError> {
        let _ = path;
        Ok(None)
    }

    /// Makes the entries of a directory durable.
    ///
    /// # Errors
    ///
    /// When the directory cannot be opened or the sync fails.
    fn sync_dir(&self, path: &Path) -> Result<(), DiskError> {
        self.open_dir(path)?.sync()
    }

    /// Creates a directory and all above it that are missing, and makes them durable.
    ///
    /// # Errors
    ///
    /// When a directory cannot be made or synced.
    fn create_dir_all(&self, path: &Path) -> Result<(), DiskError> {
        let mut missing = Vec::new();
        let mut existing = path;
        while !existing.as_os_str().is_empty() && !self.exists(existing)? {
            missing.push(existing);
            let Some(above) = existing.parent() else {
                break;
            };
            existing = above;
        }
        // Each directory is synced into the one above before the next is made, so of those that
        // are there only the deepest can be left undurable by a process that was killed.
        if let Some(above) = existing.parent()
            && let Err(error) = self.sync_dir(or_current(above))
            && !is_permission_denied(&error)
        {
            return Err(error);
        }
        for directory in missing.into_iter().rev() {
            let above = self.open_dir(directory_of(directory))?;
            match self.create_dir(directory) {
                // Another process may be making the same tree.
                Ok(()) | Err(DiskError::AlreadyExists { .. }) => above.sync()?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads a whole file of up to `bytes_max` bytes.
    ///
    /// # Errors
    ///
    /// [`DiskError::NotFound`], and [`DiskError::TooLarge`] when the file is longer.
    fn read(&self, path: &Path, bytes_max: u64) -> Result<Vec<u8>, DiskError> {
        let file = self.open(path, OpenMode::Read)?;
        let bytes = file.bytes()?;
        let too_large = || DiskError::TooLarge {
            path: path.to_path_buf(),
            bytes,
            bytes_max,
        };
        if bytes > bytes_max {
            return Err(too_large());
        }
        let mut content = vec![0; usize::try_from(bytes).map_err(|_| too_large())?];
        file.read_exact_at(&mut content, 0)?;
        Ok(content)
    }

    /// Gives the file at `path` this content, durably, in place of what it held. After a crash at
    /// any moment it holds the old content or the new one, whole.
    ///
    /// A crash may leave `path` with `.tmp` appended behind, which the next call replaces.
    ///
    /// # Errors
    ///
    /// Whatever fails on the way. Unless it was the very last sync, the old content stands.
    fn write_new_atomic(
        &self,
        path: &Path,
        content: &[u8],
        access: Access,
    ) -> Result<(), DiskError> {
        let directory = self.open_dir(directory_of(path))?;
        let temporary = temporary_name(path);
        match self.remove(&temporary) {
            Ok(()) | Err(DiskError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        // 1. A crash up to the rename leaves the old content, and perhaps the temporary file.
        let file = self.create(&temporary, access)?;
        file.write_all_at(&[content], 0)?;
        // 2. Content and length are durable before any name that counts points to them.
        file.sync_all()?;
        // 3. A crash between rename and sync leaves either name standing, with whole content.
        self.rename(&temporary, path)?;
        // 4. From here on the new content stands.
        directory.sync()
    }
}

/// One open file.
pub trait DiskFile: Debug + Send + Sync {
    /// The path that the file was opened by.
    fn path(&self) -> &Path;

    /// Fills `buffer` from the bytes at `offset`.
    ///
    /// # Errors
    ///
    /// [`DiskError::ShortRead`] when the file ends first.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), DiskError>;

    /// Writes all buffers one after the other, the first at `offset`, and grows the file as
    /// needed. Not atomic: after a crash or an error any part may have been written.
    ///
    /// # Errors
    ///
    /// [`DiskError::Full`] when the disk has no space.
    fn write_all_at(&self, buffers: &[&[u8]], offset: u64) -> Result<(), DiskError>;

    /// Makes the bytes written so far, and the length that is needed to read them, durable.
    ///
    /// # Errors
    ///
    /// After a failed sync nobody knows what is durable, and syncing again does not help.
    fn sync_data(&self) -> Result<(), DiskError>;

    /// Makes bytes, length and all that the file system keeps of the file durable.
    ///
    /// # Errors
    ///
    /// As for [`sync_data`](DiskFile::sync_data).
    fn sync_all(&self) -> Result<(), DiskError>;

    /// The length of the file.
    ///
    /// # Errors
    ///
    /// When the operating system cannot tell.
    fn bytes(&self) -> Result<u64, DiskError>;

    /// Cuts the file, or grows it with zeros, to this length. Durable after a sync.
    ///
    /// # Errors
    ///
    /// [`DiskError::Full`] when the disk has no space.
    fn set_bytes(&self, bytes: u64) -> Result<(), DiskError>;

    /// A read-only view of the first `bytes` bytes, without a copy where the disk can.
    ///
    /// To be called only for files that no longer change: neither their first `bytes` bytes nor,
    /// below that, their length. A file that is cut by somebody else under a view ends the
    /// process at the next touch of the missing part.
    ///
    /// # Errors
    ///
    /// [`DiskError::ShortRead`] when the file is shorter.
    fn map(&self, bytes: u64) -> Result<Bytes, DiskError>;

    /// A read-only view of the first `bytes` bytes of a file whose bytes may change where nobody looks;
    /// `None` where the disk has none.
    ///
    /// What is borrowed from the view must not change while it is borrowed, and the file must not get
    /// shorter while there is a view of it.
    ///
    /// # Errors
    ///
    /// [`DiskError::ShortRead`] when the file is shorter.
    fn view(&self, bytes: u64) -> Result<Option<FileView>, DiskError> {
        let _ = bytes;
        Ok(None)
    }

    /// Whether neither the group nor others may read or write the file.
    ///
    /// # Errors
    ///
    /// When the operating system cannot tell.
    fn is_private(&self) -> Result<bool, DiskError>;

    /// Takes space for a range behind the end of the file, and grows the file to its end. It reads
    /// as zeros, and a write into it does not find the disk full.
    ///
    /// Cheaper than [`zero`](DiskFile::zero) where the file system only notes what is taken; the
    /// price is paid by the first sync after a write into it.
    ///
    /// # Errors
    ///
    /// As for [`write_all_at`](DiskFile::write_all_at).
    fn allocate(&self, range: Range<u64>) -> Result<(), DiskError> {
        self.zero(range)
    }

    /// Writes zeros over a range, and grows the file to its end.
    ///
    /// # Errors
    ///
    /// As for [`write_all_at`](DiskFile::write_all_at).
    fn zero(&self, range: Range<u64>) -> Result<(), DiskError> {
        let mut offset = range.start;
        while offset < range.end {
            let mut slices: Vec<&[u8]> = Vec::with_capacity(ZEROS_SLICES);
            let mut end = offset;
            while end < range.end && slices.len() < ZEROS_SLICES {
                let left = usize::try_from(range.end - end).unwrap_or(usize::MAX);
                let (slice, _) = ZEROS.split_at(left.min(ZEROS_BYTES));
                end = end.saturating_add(u64::try_from(slice.len()).unwrap_or(u64::MAX));
                slices.push(slice);
            }
            self.write_all_at(&slices, offset)?;
            offset = end;
        }
        Ok(())
    }
}

/// One open directory.
pub trait DiskDirectory: Debug + Send + Sync {
    /// Makes the entries of the directory durable: names that came, went or moved.
    ///
    /// # Errors
    ///
    /// After a failed sync nobody knows which entries are durable.
    fn sync(&self) -> Result<(), DiskError>;
}

/// A lock on a directory, held until it is dropped.
pub trait DirectoryLock: Debug + Send + Sync {}

/// Who may read a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The owner writes, everybody reads, as far as the process's mask allows (mode 0644).
    Shared,
    /// The owner alone reads and writes (mode 0600).
    Private,
}

/// What an open file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Reading only: writes and changes of length fail.
    Read,
    /// Reading and writing.
    ReadWrite,
    /// Writing past the page cache: offset, length and place in memory of each write are multiples
    /// of [`BLOCK_BYTES`](crate::BLOCK_BYTES).
    ///
    /// Where the file system does not know that, opening or writing fails with
    /// [`io::ErrorKind::InvalidInput`] or [`io::ErrorKind::Unsupported`].
    Direct,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name, without the directory's.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// The length of a file; 0 for a directory.
    pub bytes: u64,
}

/// The directory that holds the name of `path`.
pub fn directory_of(path: &Path) -> &Path {
    path.parent().map_or(Path::new("/"), or_current)
}

/// The parent of a plain name is the empty path, which stands for the current directory.
fn or_current(path: &Path) -> &Path {
    if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    }
}

fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(TEMPORARY_SUFFIX);
    PathBuf::from(name)
}

/// A directory above ours may be closed to us; then somebody else made it and the one in it.
fn is_permission_denied(error: &DiskError) -> bool {
    matches!(error, DiskError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
}
