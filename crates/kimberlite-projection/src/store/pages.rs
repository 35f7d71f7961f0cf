//! Reads pages, and checks each against what its parent says when it is first loaded.
//!
//! * **Invariant:** nobody asks for a page but through a version of the store that points to it, and no
//!   page is written while such a version lives. So what a view shows of it stands still.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use kimberlite_disk::{DiskFile, FileView};
use lru::LruCache;

use super::error::StoreError;
use super::memory::MemoryNode;
use super::node::Layout;
use super::page::{BODY_BYTES, Checksum, PAGE_BYTES, Page, PageId, PageRef, RunRef};

const SHARDS: usize = 16;
const WORD_BITS: usize = 64;

/// The pages of a file, as far as it reached when this was made.
#[derive(Debug)]
pub(crate) struct Pages {
    file: Arc<dyn DiskFile>,
    count: u32,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Mapped {
        view: FileView,
        /// A bit for each page that was found to be what its parent says.
        checked: Box<[AtomicU64]>,
    },
    Copied(Arc<PageCache>),
}

/// A node that is being read.
#[derive(Clone, Debug)]
pub(crate) enum Handle<'a> {
    Memory(&'a MemoryNode),
    Mapped(&'a Page),
    Copied(Arc<Page>),
}

impl Handle<'_> {
    #[inline]
    pub(crate) fn page(&self) -> &Page {
        match self {
            Self::Memory(node) => &node.page,
            Self::Mapped(page) => page,
            Self::Copied(page) => page,
        }
    }
}

impl Pages {
    /// The pages of `file`, which has `count`: through a view where the disk gives one and `cache` is
    /// not forced on them.
    pub(crate) fn new(
        file: Arc<dyn DiskFile>,
        count: u32,
        cache: &Arc<PageCache>,
        mapped: bool,
    ) -> Result<Self, StoreError> {
        let view = if mapped {
            file.view(PageId::new(count).offset())?
        } else {
            None
        };
        let way = match view {
            Some(view) => {
                let words = PageId::new(count).index().div_ceil(WORD_BITS);
                Way::Mapped {
                    view,
                    checked: (0..words).map(|_| AtomicU64::new(0)).collect(),
                }
            }
            None => Way::Copied(Arc::clone(cache)),
        };
        Ok(Self { file, count, way })
    }

    /// Takes over what `before`, a smaller view of the same file, has checked.
    pub(crate) fn know_from(&mut self, before: &Self) {
        if let (Way::Mapped { checked, .. }, Way::Mapped { checked: known, .. }) =
            (&mut self.way, &before.way)
        {
            for (word, known) in checked.iter().zip(known) {
                word.store(known.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
    }

    pub(crate) const fn count(&self) -> u32 {
        self.count
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.file.path().to_path_buf()
    }

    /// Loads the node that stands in a page.
    #[inline]
    pub(crate) fn load(&self, place: PageRef) -> Result<(Handle<'_>, Layout), StoreError> {
        let handle = match &self.way {
            Way::Mapped { view, checked } => {
                let page = view
                    .bytes(place.page.offset(), PAGE_BYTES)
                    .and_then(|bytes| bytes.first_chunk())
                    .ok_or_else(|| self.damaged(place.page, "behind the end of the file"))?;
                let (word, bit) = place_of(place.page);
                let word = checked.get(word);
                let is_checked = |word: &AtomicU64| word.load(Ordering::Relaxed) & bit != 0;
                if !word.is_some_and(is_checked) {
                    self.check(place, page)?;
                    if let Some(word) = word {
                        word.fetch_or(bit, Ordering::Relaxed);
                    }
                }
                Handle::Mapped(page)
            }
            Way::Copied(cache) => Handle::Copied(match cache.find(place.page) {
                Some(page) => page,
                None => self.read(place, cache)?,
            }),
        };
        let layout =
            Layout::read(handle.page()).ok_or_else(|| self.damaged(place.page, "is no node"))?;
        Ok((handle, layout))
    }

    #[cold]
    fn read(&self, place: PageRef, cache: &PageCache) -> Result<Arc<Page>, StoreError> {
        if place.page.get() >= self.count {
            return Err(self.damaged(place.page, "behind the end of the file"));
        }
        let mut page = Arc::new([0; PAGE_BYTES]);
        let bytes = Arc::get_mut(&mut page).expect("nobody else has the page yet");
        self.file.read_exact_at(bytes, place.page.offset())?;
        self.check(place, &page)?;
        cache.insert(place.page, Arc::clone(&page));
        Ok(page)
    }

    #[cold]
    fn check(&self, place: PageRef, page: &Page) -> Result<(), StoreError> {
        if Checksum::of_page(page) != place.checksum {
            return Err(self.damaged(place.page, "is not what its parent says"));
        }
        // What has the right checksum was written by us; it is looked at all the same, because
        // anybody can write a checksum.
        match Layout::read(page) {
            Some(layout) if layout.check(page) => Ok(()),
            _ => Err(self.damaged(place.page, "is no node")),
        }
    }

    /// Reads a long value.
    pub(crate) fn read_run(&self, run: RunRef) -> Result<Bytes, StoreError> {
        let end = run.first.get().checked_add(run.pages());
        if end.is_none_or(|end| end > self.count) {
            return Err(self.damaged(run.first, "behind the end of the file"));
        }
        let bytes = usize::try_from(run.bytes)
            .map_err(|_| self.damaged(run.first, "larger than memory"))?;
        let mut value = Vec::with_capacity(bytes);
        let mut page = [0; PAGE_BYTES];
        for index in 0..run.pages() {
            let place = PageId::new(run.first.get() + index);
            self.file.read_exact_at(&mut page, place.offset())?;
            let part = BODY_BYTES.min(bytes - value.len());
            value.extend_from_slice(page.get(..part).unwrap_or_default());
        }
        if Checksum::of(&value) != run.checksum {
            return Err(self.damaged(run.first, "is not the value that was written"));
        }
        Ok(Bytes::from(value))
    }

    /// Forgets what is known of a page, which is about to be written.
    pub(crate) fn forget(&self, page: PageId) {
        match &self.way {
            Way::Mapped { checked, .. } => {
                let (word, bit) = place_of(page);
                if let Some(word) = checked.get(word) {
                    word.fetch_and(!bit, Ordering::Relaxed);
                }
            }
            Way::Copied(cache) => cache.remove(page),
        }
    }

    pub(crate) fn damaged(&self, page: PageId, what: &'static str) -> StoreError {
        StoreError::Damaged {
            path: self.path(),
            page: page.get(),
            what,
        }
    }
}

const fn place_of(page: PageId) -> (usize, u64) {
    (page.index() / WORD_BITS, 1 << (page.index() % WORD_BITS))
}

/// Pages that were read lately, where a file is not mapped.
pub(crate) struct PageCache {
    shards: [Mutex<LruCache<PageId, Arc<Page>>>; SHARDS],
    shard_pages_max: usize,
}

impl PageCache {
    pub(crate) fn new(pages_max: usize) -> Self {
        Self {
            shards: core::array::from_fn(|_| Mutex::new(LruCache::unbounded())),
            shard_pages_max: pages_max.div_ceil(SHARDS).max(1),
        }
    }

    fn shard(&self, page: PageId) -> &Mutex<LruCache<PageId, Arc<Page>>> {
        let shard = self.shards.get(page.index() % SHARDS);
        shard.expect("a remainder is below its divisor")
    }

    fn find(&self, page: PageId) -> Option<Arc<Page>> {
        let mut shard = self
            .shard(page)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        shard.get(&page).cloned()
    }

    fn insert(&self, place: PageId, page: Arc<Page>) {
        let mut shard = self
            .shard(place)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        shard.put(place, page);
        if shard.len() > self.shard_pages_max {
            shard.pop_lru();
        }
    }

    fn remove(&self, page: PageId) {
        let mut shard = self
            .shard(page)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        shard.pop(&page);
    }
}

impl core::fmt::Debug for PageCache {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("PageCache")
            .field("shard_pages_max", &self.shard_pages_max)
            .finish_non_exhaustive()
    }
}
