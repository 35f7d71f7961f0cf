//! Open files, open directories and held locks of a simulated disk.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use kimberlite_disk::{BLOCK_BYTES, DirectoryLock, DiskDirectory, DiskError, DiskFile, OpenMode};

use super::core::Core;
use super::lock;
use super::node::FileNode;
use super::tree::NodeId;

/// The error number of a write through a handle that is for reading.
const EBADF: i32 = 9;

#[derive(Debug)]
pub(super) struct SimulatedFile {
    place: Place,
    mode: OpenMode,
}

impl SimulatedFile {
    pub(super) fn new(core: &Arc<Mutex<Core>>, node: NodeId, path: &Path, mode: OpenMode) -> Self {
        Self {
            place: Place::new(core, node, path),
            mode,
        }
    }

    /// Looks at the file, unless the disk is dead.
    fn look<T>(
        &self,
        operation: &'static str,
        look: impl FnOnce(&FileNode) -> T,
    ) -> Result<T, DiskError> {
        let core = self.place.core();
        core.alive(&self.place.path, operation)?;
        Ok(look(
            core.tree
                .file(self.place.node)
                .expect("an open file has a node"),
        ))
    }

    fn begin_read(&self, operation: &'static str) -> Result<(), DiskError> {
        self.place.core().begin_read(&self.place.path, operation)
    }

    fn writable(&self, operation: &'static str) -> Result<(), DiskError> {
        match self.mode {
            OpenMode::ReadWrite | OpenMode::Direct => Ok(()),
            OpenMode::Read => {
                let source = io::Error::from_raw_os_error(EBADF);
                Err(DiskError::from_io(&self.place.path, operation, source))
            }
        }
    }

    /// Refuses what a direct write is refused for.
    fn aligned(&self, buffers: &[&[u8]], offset: u64) -> Result<(), DiskError> {
        let is_block = |number: usize| number.is_multiple_of(BLOCK_BYTES);
        let are_blocks = usize::try_from(offset).is_ok_and(is_block)
            && buffers
                .iter()
                .all(|buffer| is_block(buffer.len()) && is_block(buffer.as_ptr().addr()));
        if self.mode != OpenMode::Direct || are_blocks {
            return Ok(());
        }
        let source = io::Error::from(io::ErrorKind::InvalidInput);
        Err(DiskError::from_io(&self.place.path, "write", source))
    }

    /// The part of the content that was asked for, if the file has it.
    fn part(content: &[u8], offset: u64, bytes: u64) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        let end = usize::try_from(offset.checked_add(bytes)?).ok()?;
        content.get(start..end)
    }

    fn short_read(&self, offset: u64, bytes: u64) -> DiskError {
        DiskError::ShortRead {
            path: self.place.path.clone(),
            offset,
            bytes,
        }
    }
}

impl DiskFile for SimulatedFile {
    fn path(&self) -> &Path {
        &self.place.path
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), DiskError> {
        if buffer.is_empty() {
            return self.look("read", |_| ());
        }
        let bytes = u64::try_from(buffer.len()).unwrap_or(u64::MAX);
        self.begin_read("read")?;
        let found = self.look("read", |file| {
            let part = Self::part(file.visible(), offset, bytes)?;
            buffer.copy_from_slice(part);
            Some(())
        })?;
        found.ok_or_else(|| self.short_read(offset, bytes))?;
        self.place.core().falsify(buffer);
        Ok(())
    }

    fn write_all_at(&self, buffers: &[&[u8]], offset: u64) -> Result<(), DiskError> {
        let bytes = buffers.concat();
        if bytes.is_empty() {
            return self.look("write", |_| ());
        }
        self.writable("write")?;
        self.aligned(buffers, offset)?;
        self.place
            .core()
            .write(self.place.node, &self.place.path, offset, bytes)
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        let observer = self.place.core().sync_observer.clone();
        if let Some(observer) = observer {
            observer(&self.place.path);
        }
        self.place
            .core()
            .sync_file(self.place.node, &self.place.path)
    }

    fn sync_all(&self) -> Result<(), DiskError> {
        self.sync_data()
    }

    fn bytes(&self) -> Result<u64, DiskError> {
        let length = self.look("measure", |file| file.visible().len())?;
        Ok(u64::try_from(length).expect("a file in memory is shorter than 2^64 bytes"))
    }

    fn set_bytes(&self, bytes: u64) -> Result<(), DiskError> {
        self.writable("set the length of")?;
        self.place
            .core()
            .set_bytes(self.place.node, &self.place.path, bytes)
    }

    fn map(&self, bytes: u64) -> Result<Bytes, DiskError> {
        self.begin_read("map")?;
        let copy = |file: &FileNode| Self::part(file.visible(), 0, bytes).map(<[u8]>::to_vec);
        let mut copy = self
            .look("map", copy)?
            .ok_or_else(|| self.short_read(0, bytes))?;
        self.place.core().falsify(&mut copy);
        Ok(Bytes::from(copy))
    }

    fn is_private(&self) -> Result<bool, DiskError> {
        self.look("look at the mode of", |file| file.private)
    }
}

#[derive(Debug)]
pub(super) struct SimulatedDirectory {
    place: Place,
}

impl SimulatedDirectory {
    pub(super) fn new(core: &Arc<Mutex<Core>>, node: NodeId, path: &Path) -> Self {
        Self {
            place: Place::new(core, node, path),
        }
    }
}

impl DiskDirectory for SimulatedDirectory {
    fn sync(&self) -> Result<(), DiskError> {
        self.place
            .core()
            .sync_directory(self.place.node, &self.place.path)
    }
}

/// A lock; those of a dead disk free nothing, for its successor has none.
#[derive(Debug)]
pub(super) struct SimulatedLock {
    place: Place,
}

impl SimulatedLock {
    pub(super) fn new(core: &Arc<Mutex<Core>>, node: NodeId) -> Self {
        Self {
            place: Place::new(core, node, Path::new("")),
        }
    }
}

impl DirectoryLock for SimulatedLock {}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        self.place.core().locked.remove(&self.place.node);
    }
}

/// A node of a disk and the path that it was reached by.
struct Place {
    core: Arc<Mutex<Core>>,
    node: NodeId,
    path: PathBuf,
}

impl Place {
    fn new(core: &Arc<Mutex<Core>>, node: NodeId, path: &Path) -> Self {
        Self {
            core: Arc::clone(core),
            node,
            path: path.to_path_buf(),
        }
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        lock(&self.core)
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
