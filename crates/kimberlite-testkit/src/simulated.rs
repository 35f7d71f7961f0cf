//! A disk in memory that fails as disks do.
//!
//! **Bytes.** A file has what readers see, what the medium holds, and the list of changes between
//! them. After power loss each 512-byte sector holds what it held after *some* number of those
//! changes, chosen for each sector alone: that is what a page cache that writes back in any order
//! can leave, torn and reordered writes included, and no more than that.
//!
//! **Names.** A directory has the entries that are seen and those that are durable. After power
//! loss any set of the unsynced changes may have survived, as long as two changes of one name
//! keep their order; the two names of a rename within one directory change together.
//!
//! **Failed syncs.** What was unsynced then counts as clean: readers see it, no later sync writes
//! it, power loss takes it away.

mod core;
mod crash;
mod file;
mod node;
mod tree;

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kimberlite_disk::{
    Access, DirectoryLock, Disk, DiskDirectory, DiskError, DiskFile, Entry, OpenMode,
};

use self::core::{Core, Landing};
use self::file::{SimulatedDirectory, SimulatedFile, SimulatedLock};
pub use self::node::SECTOR_BYTES;
use self::tree::Tree;

/// Sees the path, the offset and the bytes of every write, the refused ones included. It is
/// called with the disk's lock held and must not use the disk.
pub type WriteObserver = Arc<dyn Fn(&Path, u64, &[u8]) + Send + Sync>;

/// Is called before a file is synced, with its path.
pub type SyncObserver = Arc<dyn Fn(&Path) + Send + Sync>;

/// What power loss does to what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashMode {
    /// All of it is lost.
    LoseUnsynced,
    /// All of it had reached the disk just in time.
    KeepUnsynced,
    /// By this seed each write is lost, kept or torn at 512-byte sectors, and each change of a
    /// directory is lost or kept, each for itself and so in any order.
    Mixed(u64),
}

/// What a disk may say without doing it. Faults like these are what the harnesses must find; no
/// database can hold out against all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// A sync of a file makes nothing durable.
    SkipSync,
    /// A sync of a directory makes nothing durable.
    SkipDirectorySync,
    /// A sync of a file leaves the newest change out, which the next one may make durable together
    /// with later ones.
    ReorderAcrossSync,
    /// A write is seen, and never reaches the medium.
    LoseWrite,
    /// A bit of what is read is not what was written.
    FlipOnRead,
}

/// A disk in memory that keeps durable and merely written state apart. A clone is the same disk.
///
/// Operations that change something are counted from 1: writes, changes of length, syncs,
/// creations, renames and removals. Paths with and without a leading `/` mean the same.
#[derive(Clone)]
pub struct SimulatedDisk {
    core: Arc<Mutex<Core>>,
}

impl SimulatedDisk {
    /// An empty disk. The seed decides what its faults leave behind.
    pub fn new(seed: u64) -> Self {
        Self::of(Core::new(seed))
    }

    /// How many operations there were on this disk.
    pub fn ops(&self) -> u64 {
        self.core().ops
    }

    /// How often bytes were read or mapped on this disk.
    pub fn reads(&self) -> u64 {
        self.core().reads
    }

    /// Whether the disk has crashed, or its process was killed.
    pub fn is_dead(&self) -> bool {
        self.core().dead
    }

    /// How many syncs of directories failed on this disk: names that were unsynced then count as clean.
    pub fn failed_directory_syncs(&self) -> u64 {
        self.core().failed_directory_syncs
    }

    /// How many syncs of files and directories succeeded on this disk.
    pub fn syncs(&self) -> u64 {
        self.core().syncs
    }

    /// Crashes the disk in the middle of operation number `op`, counted from 1: it fails, as does
    /// every call after it. What it was about to do counts as begun and not synced.
    pub fn crash_after(&self, op: u64) {
        self.core().crash_at = Some(op);
    }

    /// Fails the first sync, of a file or a directory, from operation number `op` on, once.
    pub fn fail_sync_at(&self, op: u64) {
        self.core().fail_sync_at = Some(op);
    }

    /// Fails the first write or change of length from operation number `op` on, once. Some part
    /// of a failed write, from its start up to the end of a sector, is written all the same.
    pub fn fail_write_at(&self, op: u64) {
        self.core().fail_write_at = Some(op);
    }

    /// Fails the first creation, renaming or removal from operation number `op` on, once.
    pub fn fail_names_at(&self, op: u64) {
        self.core().fail_names_at = Some(op);
    }

    /// Fails the first read of bytes, or mapping, from read number `read` on, once. Reads are counted
    /// from 1, apart from operations.
    pub fn fail_read_at(&self, read: u64) {
        self.core().fail_read_at = Some(read);
    }

    /// Has no space for any operation whose number is in `ops`: not for new bytes, nor for names, nor
    /// for what is overwritten or removed, as on a disk that copies on writing. A sync that has none
    /// fails like any other.
    pub fn fill_during(&self, ops: Range<u64>) {
        self.core().full_during = ops;
    }

    /// Lies once in `one_in` chances from now on, here and on the disks that follow from this one.
    pub fn tell_lies(&self, lie: Lie, one_in: u64) {
        self.core().lie = Some((lie, one_in));
    }

    /// Makes the disk lie about the first write from operation number `op` on, once: it never
    /// reaches the medium, which shows when power was lost, however often it was synced.
    pub fn lose_write_at(&self, op: u64) {
        self.core().misplace_write_at = Some((op, Landing::Nowhere));
    }

    /// Like [`lose_write_at`](SimulatedDisk::lose_write_at), and the bytes land at `offset` of the
    /// same file instead.
    pub fn misdirect_write_at(&self, op: u64, offset: u64) {
        let offset = usize::try_from(offset).expect("a byte of a file in memory");
        self.core().misplace_write_at = Some((op, Landing::Here(offset)));
    }

    /// The same, and the bytes land at `offset` of the file at `path` instead, as far as that goes.
    pub fn misdirect_write_to(&self, op: u64, path: impl AsRef<Path>, offset: u64) {
        let offset = usize::try_from(offset).expect("a byte of a file in memory");
        let mut core = self.core();
        let node = core.tree.find(path.as_ref());
        let node = node.expect("the test names a file that is there");
        core.misplace_write_at = Some((op, Landing::In(node, offset)));
    }

    /// Limits what all files may hold together; a write beyond it is cut short and refused.
    pub fn set_space_bytes(&self, space_bytes: Option<u64>) {
        self.core().space_bytes = space_bytes;
    }

    /// Refuses to open files for direct writes, as some file systems do.
    pub fn refuse_direct(&self) {
        self.core().refuses_direct = true;
    }

    /// How often a file was to be opened for direct writes.
    pub fn direct_opens(&self) -> u64 {
        self.core().direct_opens
    }

    /// What all files hold together.
    pub fn used_bytes(&self) -> u64 {
        self.core().tree.used_bytes()
    }

    /// Shows every write to `observer`, here and on the disks that follow from this one by a
    /// crash, a kill or a snapshot.
    pub fn set_write_observer(&self, observer: WriteObserver) {
        self.core().observer = Some(observer);
    }

    /// Calls `observer` before every sync of a file, here alone. It may wait, and the disk can be used
    /// meanwhile: so a test holds a sync for as long as it likes.
    pub fn set_sync_observer(&self, observer: SyncObserver) {
        self.core().sync_observer = Some(observer);
    }

    /// The disk as it is found after power loss. This one is dead from now on, but can be asked
    /// again how it is found in another mode.
    #[must_use]
    pub fn crash(&self, mode: CrashMode) -> Self {
        let mut core = self.core();
        core.dead = true;
        Self::of(core.after_power_loss(mode))
    }

    /// The disk as the next process finds it after this one was killed: all that was written is
    /// there, in the page cache and as little durable as before; the locks are free. Of a write
    /// that `crash_after` cut off some part, from its start, is there. This disk is dead from now
    /// on, but can be asked again.
    #[must_use]
    pub fn process_kill(&self) -> Self {
        let mut core = self.core();
        core.dead = true;
        Self::of(core.after_process_kill())
    }

    /// An equal disk that goes its own way, with the same bytes and names, durable and not, but
    /// without locks and planned faults: `disk.twin().crash(mode)` looks at a crash and lets this
    /// disk live on.
    #[must_use]
    pub fn twin(&self) -> Self {
        Self::of(self.core().twin())
    }

    /// A copy of all files as readers see them, itself wholly durable, without locks and planned
    /// faults: a directory that somebody copied.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        Self::of(self.core().snapshot())
    }

    /// Puts the files at and below `path` of another disk in place of what is there, durably: a part
    /// of a directory that somebody restored from a copy.
    pub fn graft(&self, path: impl AsRef<Path>, from: &Self) {
        let branch = from.core().tree.branch(path.as_ref());
        self.core().tree.graft(path.as_ref(), branch);
    }

    /// The paths of all files, sorted.
    pub fn files(&self) -> Vec<PathBuf> {
        self.core().tree.files()
    }

    /// What readers see of a file that is there.
    pub fn contents(&self, path: impl AsRef<Path>) -> Vec<u8> {
        self.with_file(path.as_ref(), |file| file.visible().to_vec())
    }

    /// What the medium holds of a file that is there.
    pub fn durable_contents(&self, path: impl AsRef<Path>) -> Vec<u8> {
        self.with_file(path.as_ref(), |file| file.durable().to_vec())
    }

    /// Turns the bits of `mask` in one byte of a file, on the medium and in the cache.
    pub fn flip(&self, path: impl AsRef<Path>, byte: u64, mask: u8) {
        let byte = usize::try_from(byte).expect("a byte of a file in memory");
        self.with_file(path.as_ref(), |file| file.rot(byte, |old| old ^ mask));
    }

    /// Puts bytes into a file behind everybody's back, on the medium and in the cache. The file
    /// does not grow.
    pub fn overwrite(&self, path: impl AsRef<Path>, offset: u64, bytes: &[u8]) {
        let offset = usize::try_from(offset).expect("a byte of a file in memory");
        self.with_file(path.as_ref(), |file| {
            for (index, &new) in bytes.iter().enumerate() {
                file.rot(offset + index, |_| new);
            }
        });
    }

    /// Changes who may read a file.
    pub fn set_access(&self, path: impl AsRef<Path>, access: Access) {
        self.with_file(path.as_ref(), |file| {
            file.private = access == Access::Private;
        });
    }

    fn of(core: Core) -> Self {
        Self {
            core: Arc::new(Mutex::new(core)),
        }
    }

    /// A panic of a caller elsewhere leaves the disk as usable as a real one.
    fn core(&self) -> MutexGuard<'_, Core> {
        lock(&self.core)
    }

    fn with_file<T>(&self, path: &Path, act: impl FnOnce(&mut node::FileNode) -> T) -> T {
        let mut core = self.core();
        let node = core
            .tree
            .find(path)
            .expect("the test names a file that is there");
        act(core
            .tree
            .file_mut(node)
            .expect("the test names a file, not a directory"))
    }
}

impl fmt::Debug for SimulatedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let core = self.core();
        f.debug_struct("SimulatedDisk")
            .field("ops", &core.ops)
            .field("dead", &core.dead)
            .field("files", &core.tree.files())
            .finish_non_exhaustive()
    }
}

impl Disk for SimulatedDisk {
    fn create_dir(&self, path: &Path) -> Result<(), DiskError> {
        self.core().change_tree(path, "create", |tree| {
            tree.create_directory(path).map(|_| ())
        })
    }

    fn create(&self, path: &Path, access: Access) -> Result<Arc<dyn DiskFile>, DiskError> {
        let private = access == Access::Private;
        let node = self
            .core()
            .change_tree(path, "create", |tree| tree.create_file(path, private))?;
        Ok(Arc::new(SimulatedFile::new(
            &self.core,
            node,
            path,
            OpenMode::ReadWrite,
        )))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DiskFile>, DiskError> {
        let mut core = self.core();
        core.alive(path, "open")?;
        if mode == OpenMode::Direct {
            core.direct_opens += 1;
            if core.refuses_direct {
                let refused = io::ErrorKind::InvalidInput.into();
                return Err(DiskError::from_io(path, "open", refused));
            }
        }
        let node = core.tree.existing(path)?;
        core.tree
            .file(node)
            .ok_or_else(|| tree::is_a_directory(path, "open"))?;
        Ok(Arc::new(SimulatedFile::new(&self.core, node, path, mode)))
    }

    fn open_dir(&self, path: &Path) -> Result<Box<dyn DiskDirectory>, DiskError> {
        let core = self.core();
        core.alive(path, "open directory")?;
        let node = core.tree.existing_directory(path, "open directory")?;
        Ok(Box::new(SimulatedDirectory::new(&self.core, node, path)))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        self.core()
            .change_tree(from, "rename", |tree| tree.rename(from, to))
    }

    fn remove(&self, path: &Path) -> Result<(), DiskError> {
        self.core()
            .change_tree(path, "remove", |tree| tree.remove(path))
    }

    fn list(&self, path: &Path) -> Result<Vec<Entry>, DiskError> {
        let core = self.core();
        core.alive(path, "list")?;
        core.tree.list(path)
    }

    fn exists(&self, path: &Path) -> Result<bool, DiskError> {
        let core = self.core();
        core.alive(path, "look for")?;
        Ok(core.tree.find(path).is_some())
    }

    fn is_locked(&self, path: &Path) -> Result<Option<bool>, DiskError> {
        let core = self.core();
        core.alive(path, "look at the lock")?;
        let node = core.tree.find(path);
        Ok(Some(node.is_some_and(|node| core.locked.contains(&node))))
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn DirectoryLock>, DiskError> {
        let mut core = self.core();
        core.alive(path, "lock")?;
        let node = match core.tree.find(path) {
            Some(node) => node,
            None => core.change_tree(path, "lock", |tree| tree.create_file(path, false))?,
        };
        if !core.locked.insert(node) {
            return Err(DiskError::Locked {
                path: path.to_path_buf(),
                holder: None,
            });
        }
        Ok(Box::new(SimulatedLock::new(&self.core, node)))
    }
}

fn lock(core: &Mutex<Core>) -> MutexGuard<'_, Core> {
    core.lock().unwrap_or_else(PoisonError::into_inner)
}
