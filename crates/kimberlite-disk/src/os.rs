//! The operating system's files, through the page cache and past it.
#![expect(
    clippy::disallowed_methods,
    reason = "the one backend that stands on std::fs"
)]

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use crate::lock::OsLock;
use crate::map::{FileView, map_read_only};
use crate::{Access, DirectoryLock, Disk, DiskDirectory, DiskError, DiskFile, Entry, OpenMode};

/// The permission bits of group and others.
const MODE_OTHERS: u32 = 0o077;

/// The disk of the operating system, through its page cache but for [`OpenMode::Direct`].
///
/// Has no state: two values are the same disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsDisk {}

impl OsDisk {
    /// The disk of this machine.
    pub const fn new() -> Self {
        Self {}
    }
}

impl Disk for OsDisk {
    fn create_dir(&self, path: &Path) -> Result<(), DiskError> {
        DirBuilder::new()
            .create(path)
            .map_err(|e| DiskError::from_io(path, "create", e))
    }

    fn create(&self, path: &Path, access: Access) -> Result<Arc<dyn DiskFile>, DiskError> {
        let mode = match access {
            Access::Shared => 0o644,
            Access::Private => 0o600,
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)
            .map_err(|e| DiskError::from_io(path, "create", e))?;
        Ok(Arc::new(OsFile {
            file,
            path: path.to_path_buf(),
        }))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DiskFile>, DiskError> {
        let mut options = OpenOptions::new();
        options.read(true).write(mode != OpenMode::Read);
        let opened = match mode {
            OpenMode::Read | OpenMode::ReadWrite => options.open(path),
            OpenMode::Direct => open_direct(&mut options, path),
        };
        let file = opened.map_err(|e| DiskError::from_io(path, "open", e))?;
        Ok(Arc::new(OsFile {
            file,
            path: path.to_path_buf(),
        }))
    }

    fn open_dir(&self, path: &Path) -> Result<Box<dyn DiskDirectory>, DiskError> {
        let opened = File::open(path).and_then(|file| {
            let is_dir = file.metadata()?.is_dir();
            if is_dir {
                Ok(file)
            } else {
                Err(io::ErrorKind::NotADirectory.into())
            }
        });
        let file = opened.map_err(|e| DiskError::from_io(path, "open directory", e))?;
        Ok(Box::new(OsDirectory {
            file,
            path: path.to_path_buf(),
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        fs::rename(from, to).map_err(|e| {
            // The system does not say which of the two is missing.
            let missing_target = e.kind() == io::ErrorKind::NotFound && from.exists();
            DiskError::from_io(if missing_target { to } else { from }, "rename", e)
        })
    }

    fn remove(&self, path: &Path) -> Result<(), DiskError> {
        fs::remove_file(path).map_err(|e| DiskError::from_io(path, "remove", e))
    }

    fn list(&self, path: &Path) -> Result<Vec<Entry>, DiskError> {
        let failed = |e| DiskError::from_io(path, "list", e);
        let mut entries = Vec::new();
        for entry in fs::read_dir(path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                // Removed since the directory was read.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(failed(e)),
            };
            let is_dir = metadata.is_dir();
            entries.push(Entry {
                // A name that is not UTF-8 is none of ours and will match nothing we look for.
                name: entry.file_name().to_string_lossy().into_owned(),
                is_dir,
                bytes: if is_dir { 0 } else { metadata.len() },
            });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn exists(&self, path: &Path) -> Result<bool, DiskError> {
        path.try_exists()
            .map_err(|e| DiskError::from_io(path, "look for", e))
    }

    fn is_locked(&self, path: &Path) -> Result<Option<bool>, DiskError> {
        OsLock::is_held(path).map(Some)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn DirectoryLock>, DiskError> {
        Ok(Box::new(OsLock::take(path)?))
    }
}

/// Returns how many file handles this process may have; `None` where there is no bound.
pub fn handles_max() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

/// An open file of the operating system.
#[derive(Debug)]
struct OsFile {
    file: File,
    path: PathBuf,
}

impl OsFile {
    fn failed(&self, operation: &'static str) -> impl Fn(io::Error) -> DiskError + '_ {
        move |error| DiskError::from_io(&self.path, operation, error)
    }

    fn short_read(&self, offset: u64, bytes: u64) -> DiskError {
        DiskError::ShortRead {
            path: self.path.clone(),
            offset,
            bytes,
        }
    }
}

impl DiskFile for OsFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), DiskError> {
        match self.file.read_exact_at(buffer, offset) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                Err(self.short_read(offset, u64::try_from(buffer.len()).unwrap_or(u64::MAX)))
            }
            Err(e) => Err(self.failed("read")(e)),
        }
    }

    fn write_all_at(&self, buffers: &[&[u8]], offset: u64) -> Result<(), DiskError> {
        let slices: Vec<IoSlice<'_>> = buffers.iter().map(|buffer| IoSlice::new(buffer)).collect();
        write_gathered(slices, offset, |slices, offset| {
            rustix::io::pwritev(&self.file, slices, offset).map_err(io::Error::from)
        })
        .map_err(self.failed("write"))
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        self.file.sync_data().map_err(self.failed("sync"))
    }

    fn sync_all(&self) -> Result<(), DiskError> {
        self.file.sync_all().map_err(self.failed("sync"))
    }

    fn bytes(&self) -> Result<u64, DiskError> {
        Ok(self.file.metadata().map_err(self.failed("measure"))?.len())
    }

    fn set_bytes(&self, bytes: u64) -> Result<(), DiskError> {
        self.file
            .set_len(bytes)
            .map_err(self.failed("set the length of"))
    }

    fn allocate(&self, range: Range<u64>) -> Result<(), DiskError> {
        let bytes = range.end.saturating_sub(range.start);
        if bytes == 0 {
            return Ok(());
        }
        loop {
            match fallocate(&self.file, FallocateFlags::empty(), range.start, bytes) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                // Some file systems take space by being written to only.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return self.zero(range),
                Err(e) => return Err(self.failed("allocate")(e.into())),
            }
        }
    }

    fn map(&self, bytes: u64) -> Result<Bytes, DiskError> {
        if self.bytes()? < bytes {
            return Err(self.short_read(0, bytes));
        }
        map_read_only(&self.file, bytes).map_err(self.failed("map"))
    }

    fn view(&self, bytes: u64) -> Result<Option<FileView>, DiskError> {
        if self.bytes()? < bytes {
            return Err(self.short_read(0, bytes));
        }
        FileView::new(&self.file, bytes)
            .map(Some)
            .map_err(self.failed("map"))
    }

    fn is_private(&self) -> Result<bool, DiskError> {
        let metadata = self
            .file
            .metadata()
            .map_err(self.failed("look at the mode of"))?;
        Ok(metadata.mode() & MODE_OTHERS == 0)
    }
}

/// An open directory of the operating system.
#[derive(Debug)]
struct OsDirectory {
    file: File,
    path: PathBuf,
}

impl DiskDirectory for OsDirectory {
    fn sync(&self) -> Result<(), DiskError> {
        self.file
            .sync_all()
            .map_err(|e| DiskError::from_io(&self.path, "sync directory", e))
    }
}

#[cfg(target_os = "linux")]
fn open_direct(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flag = rustix::fs::OFlags::DIRECT.bits();
    let flag = i32::try_from(flag).map_err(|_| io::ErrorKind::Unsupported)?;
    let file = options.custom_flags(flag).open(path)?;
    // A direct write into pages that are cached has to drop them one by one: all at once costs less.
    // A file system that keeps them all the same is slower, and nothing else.
    let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
    Ok(file)
}

#[cfg(not(target_os = "linux"))]
fn open_direct(_: &mut OpenOptions, _: &Path) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Writes all slices by as many calls of `write` as it takes, which may each write a part only:
/// the system bounds both the number of slices and the bytes of one call.
fn write_gathered(
    mut slices: Vec<IoSlice<'_>>,
    mut offset: u64,
    mut write: impl FnMut(&[IoSlice<'_>], u64) -> io::Result<usize>,
) -> io::Result<()> {
    let mut slices = slices.as_mut_slice();
    // Empty slices would make an exhausted list look as if there were more to write.
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        let written = match write(slices, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => written,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        offset = u64::try_from(written)
            .ok()
            .and_then(|written| offset.checked_add(written))
            .ok_or(io::ErrorKind::FileTooLarge)?;
        IoSlice::advance_slices(&mut slices, written);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
