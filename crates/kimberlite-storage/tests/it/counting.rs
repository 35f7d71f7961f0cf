//! A disk that counts the mappings that are asked of it.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use kimberlite_disk::{
    Access, DirectoryLock, Disk, DiskDirectory, DiskError, DiskFile, Entry, OpenMode,
};
use kimberlite_testkit::SimulatedDisk;

#[derive(Debug, Clone)]
pub(crate) struct Counting {
    pub(crate) disk: SimulatedDisk,
    maps: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct CountingFile(Arc<dyn DiskFile>, Arc<AtomicUsize>);

impl Counting {
    pub(crate) fn new(disk: SimulatedDisk) -> Self {
        Self {
            disk,
            maps: Arc::default(),
        }
    }

    pub(crate) fn maps(&self) -> usize {
        self.maps.load(Ordering::Relaxed)
    }

    fn counted(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(CountingFile(file, Arc::clone(&self.maps)))
    }
}

impl Disk for Counting {
    fn create_dir(&self, path: &Path) -> Result<(), DiskError> {
        self.disk.create_dir(path)
    }

    fn create(&self, path: &Path, access: Access) -> Result<Arc<dyn DiskFile>, DiskError> {
        Ok(self.counted(self.disk.create(path, access)?))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DiskFile>, DiskError> {
        Ok(self.counted(self.disk.open(path, mode)?))
    }

    fn open_dir(&self, path: &Path) -> Result<Box<dyn DiskDirectory>, DiskError> {
        self.disk.open_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<(), DiskError> {
        self.disk.remove(path)
    }

    fn list(&self, path: &Path) -> Result<Vec<Entry>, DiskError> {
        self.disk.list(path)
    }

    fn exists(&self, path: &Path) -> Result<bool, DiskError> {
        self.disk.exists(path)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn DirectoryLock>, DiskError> {
        self.disk.lock(path)
    }
}

impl DiskFile for CountingFile {
    fn path(&self) -> &Path {
        self.0.path()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), DiskError> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, buffers: &[&[u8]], offset: u64) -> Result<(), DiskError> {
        self.0.write_all_at(buffers, offset)
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> Result<(), DiskError> {
        self.0.sync_all()
    }

    fn bytes(&self) -> Result<u64, DiskError> {
        self.0.bytes()
    }

    fn set_bytes(&self, bytes: u64) -> Result<(), DiskError> {
        self.0.set_bytes(bytes)
    }

    fn allocate(&self, range: Range<u64>) -> Result<(), DiskError> {
        self.0.allocate(range)
    }

    fn map(&self, bytes: u64) -> Result<Bytes, DiskError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.map(bytes)
    }

    fn is_private(&self) -> Result<bool, DiskError> {
        self.0.is_private()
    }
}
