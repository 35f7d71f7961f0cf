//! A store for derived state: a copy-on-write B+tree in one file.
//!
//! Keys are bytes in their order, of up to [`KEY_BYTES_MAX`]; values are bytes, of up to
//! [`VALUE_BYTES_MAX`]. One [`Store`] writes; any number of [`StoreReader`]s take [`Snapshot`]s, which
//! never change, wait for nobody and keep nobody waiting.
//!
//! A commit changes any number of entries at once, together with the position of the log up to which
//! they were derived. It is kept in memory and is seen by the next snapshot. A flush applies all that was
//! committed since the last one to the tree, in one go. What a crash takes is derived again from the log, so nothing is
//! written twice and no commit waits for the disk.
//!
//! With a [`StoreKey`] the pages are encrypted, each by itself, and decrypted into a bounded cache.
//!
//! * **Invariant:** the file holds a whole state that was committed, at every moment: the newest superblock
//!   that is whole, and what it points to. What does not agree with it is damage, never an answer.
//! * **Invariant:** a page is written only while nothing points to it: no durable superblock, no snapshot.

use core::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use kimberlite_crypto::{StoreIdentity, internal_hash};
use kimberlite_disk::{Access, Disk, DiskError, DiskFile, MemoryFile, OpenMode, directory_of};
use kimberlite_types::{ChainHash, LogId, Position};

mod cache;
mod check;
mod cursor;
mod error;
mod flush;
mod nearest;
mod node;
mod page;
mod page_writer;
mod pages;
mod recent;
mod sealing;
mod space;
mod superblock;
mod transaction;
mod tree;
mod value;

#[cfg(test)]
mod tests;

pub use self::check::StoreSize;
pub use self::cursor::{Cursor, Entry};
pub use self::error::StoreError;
pub use self::flush::Flush;
pub use self::sealing::StoreKey;
pub use self::transaction::WriteTransaction;
pub use self::value::{Nearest, Value};

use self::cache::PageCache;
use self::flush::UnderWay;
use self::page::{PAGE_BYTES, Page, PageId, RunRef};
use self::pages::{Access as PageAccess, Pages};
use self::recent::{Recent, Run};
use self::sealing::{Kind, Opener, Sealer};
use self::space::{FIRST_PAGE, Space};
use self::superblock::Superblock;
use self::tree::{Root, Tally};

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;
/// The longest value, in bytes: 16 MiB.
pub const VALUE_BYTES_MAX: usize = 16 << 20;
/// The longest value that stands in its leaf, so that two entries fit into one.
const INLINE_BYTES_MAX: usize = 900;

const _: () = assert!(2 * (KEY_BYTES_MAX + INLINE_BYTES_MAX + 4) + 12 <= page::BODY_BYTES);

/// What a store is derived from, and by what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    log_id: LogId,
    name_hash: [u8; 32],
    version: u32,
}

impl Identity {
    /// The store of version `version` of the projection `name` of a log.
    pub fn new(log_id: LogId, name: &str, version: u32) -> Self {
        Self {
            log_id,
            name_hash: *internal_hash(name.as_bytes()).as_bytes(),
            version,
        }
    }

    /// The version of the projection.
    pub const fn version(&self) -> u32 {
        self.version
    }

    const fn of_store(&self) -> StoreIdentity {
        StoreIdentity {
            log_id: self.log_id,
            name_hash: self.name_hash,
            version: self.version,
        }
    }

    /// What tells it from any other, for who keeps it in a file of his own.
    pub fn digest(&self) -> [u8; 32] {
        let version = self.version.to_le_bytes();
        let parts = [&self.log_id.as_bytes()[..], &self.name_hash, &version];
        *internal_hash(&parts.concat()).as_bytes()
    }
}

/// How much of the log was taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Everything before this position.
    pub position: Position,
    /// The chain hash before that position, by which another history is told from this one.
    pub chain: ChainHash,
}

/// What the file of a store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreSummary {
    /// What it is derived from, and by what.
    pub identity: Identity,
    /// How much of the log was taken in when it was flushed.
    pub applied: Applied,
    /// Entries.
    pub entries: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Whether its pages are encrypted.
    pub is_encrypted: bool,
}

/// How a store is read, and what it is encrypted with.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoreOptions {
    /// Whether pages are read through a mapping of the file, where the disk gives one. Those of an encrypted
    /// store never are. Default: true.
    pub mapped: bool,
    /// Bytes of pages that are kept in memory when they are not mapped; those of an encrypted store as they
    /// were decrypted. Default: 32 MiB.
    pub cache_bytes_max: usize,
    /// What the pages are encrypted with. A store is opened with the key that it was made with, and one that
    /// was made without a key without one. Default: none.
    pub key: Option<StoreKey>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            mapped: true,
            cache_bytes_max: 32 << 20,
            key: None,
        }
    }
}

/// A state of the store that never changes.
#[derive(Debug)]
struct Version {
    /// The tree in the file.
    root: Option<Root>,
    /// Entries of the tree.
    entries: u64,
    /// What was committed behind it.
    recent: Recent,
    applied: Applied,
    /// Commits before it.
    commit: u64,
    /// Flushes before it: the one that wrote the tree is the last of them.
    flush: u64,
    pages: Arc<Pages>,
}

impl Version {
    /// How many entries the tree has that comes of this one's.
    fn entries_with(&self, root: Option<&Root>, tally: &Tally) -> Result<u64, StoreError> {
        let entries = self.entries.checked_add(tally.added);
        // Who can write checksums can count wrong.
        entries
            .and_then(|entries| entries.checked_sub(tally.removed))
            .filter(|entries| root.is_some() == (*entries > 0))
            .ok_or_else(|| self.pages.damaged(PageId::new(0), "counts other entries"))
    }
}

#[derive(Debug)]
struct Shared {
    current: RwLock<Arc<Version>>,
}

impl Shared {
    fn current(&self) -> Arc<Version> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The writer of a store.
pub struct Store {
    file: Arc<dyn DiskFile>,
    identity: Identity,
    mapped: bool,
    cache: Arc<PageCache>,
    /// Of an encrypted store.
    opener: Option<Arc<Opener>>,
    /// Likewise, while no flush has it.
    sealer: Option<Sealer>,
    /// Whether somebody has found a page damaged.
    damage: Arc<AtomicBool>,
    shared: Arc<Shared>,
    /// Versions that may still be read, oldest first, with the flushes before each.
    read: Vec<(u64, Weak<Version>)>,
    space: Arc<Mutex<Space>>,
    space_run: Option<RunRef>,
    /// Commits that are durable.
    durable: u64,
    under_way: Option<UnderWay>,
    is_poisoned: bool,
    /// The process that opened it.
    process: u32,
}

impl Store {
    /// Makes a store without entries, durably.
    ///
    /// # Errors
    ///
    /// [`DiskError::AlreadyExists`] when there is a file of that name, and other errors of the disk;
    /// [`StoreError::Entropy`].
    pub fn create(
        disk: &dyn Disk,
        path: &Path,
        identity: Identity,
        options: StoreOptions,
    ) -> Result<Self, StoreError> {
        let directory = disk.open_dir(directory_of(path))?;
        let store = Self::create_in(disk.create(path, Access::Private)?, identity, options)?;
        directory.sync()?;
        Ok(store)
    }

    /// Makes a store without entries that is nowhere but in memory.
    ///
    /// # Errors
    ///
    /// [`DiskError::Full`] when there is no memory for it.
    pub fn in_memory(identity: Identity, options: StoreOptions) -> Result<Self, StoreError> {
        Self::create_in(Arc::new(MemoryFile::new("memory")), identity, options)
    }

    /// Makes a store without entries in an empty file, which is durable then.
    pub(crate) fn create_in(
        file: Arc<dyn DiskFile>,
        identity: Identity,
        options: StoreOptions,
    ) -> Result<Self, StoreError> {
        file.allocate(0..PageId::new(FIRST_PAGE).offset())?;
        let mut store = Self::begin(file, identity, options, None)?;
        store.flush()?;
        store.file.sync_all()?;
        Ok(store)
    }

    /// Opens a store at the newest state that was flushed. Whoever opens it sees to it that nobody else
    /// writes to the file, as the lock of a database's directory does.
    ///
    /// # Errors
    ///
    /// [`DiskError::NotFound`] when there is none; [`StoreError::NoSuperblock`], [`StoreError::Foreign`],
    /// [`StoreError::WrongKey`], [`StoreError::Encrypted`], [`StoreError::NotEncrypted`] and
    /// [`StoreError::Damaged`] when it has to be rebuilt; [`StoreError::Entropy`].
    pub fn open(
        disk: &dyn Disk,
        path: &Path,
        identity: Identity,
        options: StoreOptions,
    ) -> Result<Self, StoreError> {
        Self::open_in(disk.open(path, OpenMode::ReadWrite)?, identity, options)
    }

    /// Takes the newest state that was flushed, beside a process that may write to the file. Pages that are written anew
    /// while it is read show as [`StoreError::Damaged`]: they are never mapped.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn observe(
        disk: &dyn Disk,
        path: &Path,
        identity: Identity,
        options: StoreOptions,
    ) -> Result<Snapshot, StoreError> {
        let options = StoreOptions {
            mapped: false,
            ..options
        };
        let store = Self::open_in(disk.open(path, OpenMode::Read)?, identity, options)?;
        Ok(store.snapshot())
    }

    pub(crate) fn open_in(
        file: Arc<dyn DiskFile>,
        identity: Identity,
        options: StoreOptions,
    ) -> Result<Self, StoreError> {
        let superblock = newest_superblock(&*file)?;
        let path = file.path().to_path_buf();
        if superblock.identity != identity {
            return Err(StoreError::Foreign { path });
        }
        match (&options.key, superblock.code) {
            (None, None) => {}
            (None, Some(_)) => return Err(StoreError::Encrypted { path }),
            (Some(_), None) => return Err(StoreError::NotEncrypted { path }),
            (Some(key), Some(_)) if superblock.is_coded_by(key.key()) => {}
            (Some(_), Some(_)) => return Err(StoreError::WrongKey { path }),
        }
        Self::begin(file, identity, options, Some(superblock))
    }

    /// Says what the file of a store holds by the word of its newest superblock, which whoever can write
    /// files can have forged.
    ///
    /// # Errors
    ///
    /// [`StoreError::NoSuperblock`], and errors of the disk.
    pub fn survey(disk: &dyn Disk, path: &Path) -> Result<StoreSummary, StoreError> {
        let file = disk.open(path, OpenMode::Read)?;
        let superblock = newest_superblock(&*file)?;
        Ok(StoreSummary {
            identity: superblock.identity,
            applied: superblock.applied,
            entries: superblock.entries,
            bytes: file.bytes()?,
            is_encrypted: superblock.code.is_some(),
        })
    }

    /// A store that stands where `newest` says, or has nothing yet.
    fn begin(
        file: Arc<dyn DiskFile>,
        identity: Identity,
        options: StoreOptions,
        newest: Option<Superblock>,
    ) -> Result<Self, StoreError> {
        let count = newest.map_or(FIRST_PAGE, |superblock| superblock.page_count);
        if file.bytes()? < PageId::new(count).offset() {
            return Err(StoreError::Damaged {
                path: file.path().to_path_buf(),
                page: count,
                what: "the file ends before it",
            });
        }
        let damage = Arc::new(AtomicBool::new(false));
        let cache = Arc::new(PageCache::new(options.cache_bytes_max / PAGE_BYTES));
        let sealer = match options.key {
            None => None,
            Some(key) => {
                let sealer = Sealer::new(key, identity.of_store());
                let path = || file.path().to_path_buf();
                Some(sealer.ok_or_else(|| StoreError::Entropy { path: path() })?)
            }
        };
        let opener = sealer.as_ref().map(Sealer::opener).cloned();
        let access = PageAccess {
            cache: &cache,
            mapped: options.mapped,
            opener: opener.as_ref(),
            damage: &damage,
        };
        let pages = Pages::new(Arc::clone(&file), count, access)?;
        let (space, space_run) = match newest {
            None => (Space::new(count), None),
            Some(superblock) => (
                read_space(&pages, superblock.space)?,
                Some(superblock.space),
            ),
        };
        let nothing = Applied {
            position: Position::ZERO,
            chain: ChainHash::new([0; 32]),
        };
        let version = Arc::new(Version {
            root: newest.as_ref().and_then(Root::of),
            entries: newest.map_or(0, |superblock| superblock.entries),
            recent: Recent::default(),
            applied: newest.map_or(nothing, |superblock| superblock.applied),
            commit: 1,
            flush: newest.map_or(0, |superblock| superblock.flush),
            pages: Arc::new(pages),
        });
        Ok(Self {
            file,
            identity,
            mapped: options.mapped,
            cache,
            opener,
            sealer,
            damage,
            read: vec![(version.flush, Arc::downgrade(&version))],
            shared: Arc::new(Shared {
                current: RwLock::new(version),
            }),
            space: Arc::new(Mutex::new(space)),
            space_run,
            durable: u64::from(newest.is_some()),
            under_way: None,
            is_poisoned: false,
            process: std::process::id(),
        })
    }

    /// A handle that reads, in any thread.
    pub fn reader(&self) -> StoreReader {
        StoreReader {
            shared: Arc::clone(&self.shared),
        }
    }

    /// The newest state that was committed.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            version: self.shared.current(),
        }
    }

    /// How much of the log was taken in.
    pub fn applied(&self) -> Applied {
        self.shared.current().applied
    }

    /// Whether somebody who reads, or the writer, has found damage since it was opened: it has to be rebuilt.
    pub fn is_damaged(&self) -> bool {
        self.damage.load(Ordering::Relaxed)
    }

    /// Whether a write failed, after which it takes nothing more.
    pub const fn is_poisoned(&self) -> bool {
        self.is_poisoned
    }

    /// Bytes of memory that hold what was committed since the last flush, with what is being flushed.
    pub fn pending_bytes(&self) -> usize {
        self.shared.current().recent.bytes()
    }

    /// Begins a commit.
    pub fn write(&mut self) -> WriteTransaction<'_> {
        WriteTransaction::new(self)
    }

    fn path(&self) -> PathBuf {
        self.file.path().to_path_buf()
    }

    fn check_usable(&self) -> Result<(), StoreError> {
        if self.process != std::process::id() {
            return Err(StoreError::Forked { path: self.path() });
        }
        if self.is_poisoned {
            return Err(StoreError::Poisoned { path: self.path() });
        }
        Ok(())
    }

    fn commit(&mut self, run: Run, applied: Applied) -> Result<(), StoreError> {
        self.check_usable()?;
        let before = self.shared.current();
        if applied.position < before.applied.position {
            return Err(StoreError::Backward {
                expected: before.applied.position.get(),
                found: applied.position.get(),
            });
        }
        // Those that are being written stay apart, as they go when that has ended.
        let kept = self.under_way.as_ref().map_or(0, |it| it.runs);
        let recent = if run.is_empty() {
            before.recent.clone()
        } else {
            before.recent.with(run, kept)
        };
        self.publish(Version {
            root: before.root,
            entries: before.entries,
            recent,
            applied,
            commit: before.commit + 1,
            flush: before.flush,
            pages: Arc::clone(&before.pages),
        });
        Ok(())
    }

    fn publish(&mut self, version: Version) {
        let version = Arc::new(version);
        self.read.retain(|(_, version)| version.strong_count() > 0);
        self.read.push((version.flush, Arc::downgrade(&version)));
        let mut current = self
            .shared
            .current
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let before = core::mem::replace(&mut *current, version);
        drop(current);
        drop(before);
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.file.path())
            .field("applied", &self.applied())
            .field("recent", &self.shared.current().recent.len())
            .field("is_poisoned", &self.is_poisoned)
            .finish_non_exhaustive()
    }
}

/// Reads which pages are taken.
fn read_space(pages: &Pages, run: RunRef) -> Result<Space, StoreError> {
    let wrong = || pages.damaged(run.first, "says nothing of which pages are taken");
    let space = Space::decode(&pages.read_run(run, Kind::Space)?, pages.count());
    let space = space.filter(|space| space.is_run_taken(run.first, run.pages()));
    space.ok_or_else(wrong)
}

fn newest_superblock(file: &dyn DiskFile) -> Result<Superblock, StoreError> {
    let mut newest: Option<Superblock> = None;
    for slot in 0..FIRST_PAGE {
        let mut page: Box<Page> = Box::new([0; PAGE_BYTES]);
        match file.read_exact_at(&mut page[..], PageId::new(slot).offset()) {
            Ok(()) => {}
            Err(DiskError::ShortRead { .. }) => continue,
            Err(error) => return Err(error.into()),
        }
        if let Some(superblock) = Superblock::decode(&page)
            && newest.is_none_or(|newest| newest.flush < superblock.flush)
        {
            newest = Some(superblock);
        }
    }
    newest.ok_or_else(|| StoreError::NoSuperblock {
        path: file.path().to_path_buf(),
    })
}

/// Takes snapshots of a store, in any thread.
#[derive(Clone, Debug)]
pub struct StoreReader {
    shared: Arc<Shared>,
}

impl StoreReader {
    /// The newest state that was committed.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            version: self.shared.current(),
        }
    }
}

/// A state of the store that was committed. It stays as it is for as long as it is held, and the pages
/// that it alone needs are taken again once it goes.
#[derive(Clone, Debug)]
pub struct Snapshot {
    version: Arc<Version>,
}

impl Snapshot {
    /// Looks a key up.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`], and errors of the disk.
    pub fn find(&self, key: &[u8]) -> Result<Option<Value<'_>>, StoreError> {
        let Version {
            recent,
            root,
            pages,
            ..
        } = &*self.version;
        if let Some(held) = recent.find(key) {
            return Ok(held.value());
        }
        match root {
            Some(root) => tree::find(pages, root, key),
            None => Ok(None),
        }
    }

    /// Looks up the first entry whose key is `key` or above and begins with `beginning`, as `key` does. Takes about as
    /// long as [`find`](Self::find), other than a [`cursor`](Self::cursor).
    ///
    /// # Errors
    ///
    /// As for [`find`](Self::find).
    pub fn find_nearest(
        &self,
        key: &[u8],
        beginning: &[u8],
    ) -> Result<Option<Nearest<'_>>, StoreError> {
        nearest::find(&self.version, key, beginning)
    }

    /// A cursor, before the first entry whose key is `key` or above.
    ///
    /// # Errors
    ///
    /// As for [`find`](Self::find).
    pub fn cursor_at(&self, key: &[u8]) -> Result<Cursor<'_>, StoreError> {
        let mut cursor = Cursor::new(&self.version);
        cursor.seek(key)?;
        Ok(cursor)
    }

    /// A cursor, before the first entry.
    ///
    /// # Errors
    ///
    /// As for [`find`](Self::find).
    pub fn cursor(&self) -> Result<Cursor<'_>, StoreError> {
        let mut cursor = Cursor::new(&self.version);
        cursor.seek_first()?;
        Ok(cursor)
    }

    /// How much of the log was taken in.
    pub fn applied(&self) -> Applied {
        self.version.applied
    }
}
