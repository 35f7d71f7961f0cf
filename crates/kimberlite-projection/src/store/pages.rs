//! Reads pages, and checks each against what its parent says when it is first loaded.
//!
//! * **Invariant:** nobody asks for a page but through a version of the store that points to it, and no
//!   page is written while such a version lives. So what a view shows of it stands still.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use kimberlite_crypto::InternalHasher;
use kimberlite_disk::{DiskFile, FileView};

use super::cache::{HeldPage, PageCache};
use super::error::StoreError;
use super::node::Layout;
use super::page::{BODY_BYTES, Checksum, PAGE_BYTES, Page, PageId, PageRef, RunRef};
use super::sealing::{Kind, Opener};

const WORD_BITS: usize = 64;
const NOT_AS_THE_PARENT_SAYS: &str = "is not what its parent says";

/// The pages of a file, as far as it reached when this was made.
#[derive(Debug)]
pub(crate) struct Pages {
    file: Arc<dyn DiskFile>,
    count: u32,
    way: Way,
    /// Opens pages that are encrypted. These are never mapped.
    opener: Option<Arc<Opener>>,
    /// Is set when a page is found damaged.
    damage: Arc<AtomicBool>,
}

/// How pages come into memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access<'a> {
    pub(crate) cache: &'a Arc<PageCache>,
    /// Whether they are mapped where they can be.
    pub(crate) mapped: bool,
    pub(crate) opener: Option<&'a Arc<Opener>>,
    pub(crate) damage: &'a Arc<AtomicBool>,
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
    Borrowed(&'a Page),
    Copied(Arc<HeldPage>),
}

impl Handle<'_> {
    #[inline]
    pub(crate) fn page(&self) -> &Page {
        match self {
            Self::Borrowed(page) => page,
            Self::Copied(page) => page,
        }
    }
}

impl Pages {
    /// The pages of `file`, which has `count`.
    pub(crate) fn new(
        file: Arc<dyn DiskFile>,
        count: u32,
        access: Access<'_>,
    ) -> Result<Self, StoreError> {
        let view = if access.mapped && access.opener.is_none() {
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
            None => Way::Copied(Arc::clone(access.cache)),
        };
        Ok(Self {
            file,
            count,
            way,
            opener: access.opener.cloned(),
            damage: Arc::clone(access.damage),
        })
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
                Handle::Borrowed(page)
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
    fn read(&self, place: PageRef, cache: &PageCache) -> Result<Arc<HeldPage>, StoreError> {
        if place.page.get() >= self.count {
            return Err(self.damaged(place.page, "behind the end of the file"));
        }
        let mut page = Arc::new(HeldPage::new(self.opener.is_some()));
        let bytes = Arc::get_mut(&mut page).expect("nobody else has the page yet");
        let bytes = bytes.page_mut();
        self.file.read_exact_at(bytes, place.page.offset())?;
        match &self.opener {
            None => self.check(place, bytes)?,
            Some(opener) => {
                if Checksum::of(bytes) != place.checksum {
                    return Err(self.damaged(place.page, NOT_AS_THE_PARENT_SAYS));
                }
                self.open(opener, place.page, Kind::Node, bytes)?;
                self.check_node(place, bytes)?;
            }
        }
        cache.insert(place.page, Arc::clone(&page));
        Ok(page)
    }

    #[cold]
    fn check(&self, place: PageRef, page: &Page) -> Result<(), StoreError> {
        if Checksum::of_page(page) != place.checksum {
            return Err(self.damaged(place.page, NOT_AS_THE_PARENT_SAYS));
        }
        self.check_node(place, page)
    }

    fn open(
        &self,
        opener: &Opener,
        page: PageId,
        kind: Kind,
        bytes: &mut Page,
    ) -> Result<(), StoreError> {
        if opener.open(page, kind, bytes) {
            Ok(())
        } else {
            Err(self.damaged(page, "was not encrypted for this place"))
        }
    }

    fn check_node(&self, place: PageRef, page: &Page) -> Result<(), StoreError> {
        // What has the right checksum was written by us; it is looked at all the same, because
        // anybody can write a checksum.
        match Layout::read(page) {
            Some(layout) if layout.check(page) => Ok(()),
            _ => Err(self.damaged(place.page, "is no node")),
        }
    }

    /// Reads a long value, or the map of taken pages.
    pub(crate) fn read_run(&self, run: RunRef, kind: Kind) -> Result<Bytes, StoreError> {
        let end = run.first.get().checked_add(run.pages());
        if end.is_none_or(|end| end > self.count) {
            return Err(self.damaged(run.first, "behind the end of the file"));
        }
        let bytes = usize::try_from(run.bytes)
            .map_err(|_| self.damaged(run.first, "larger than memory"))?;
        let mut value = Vec::with_capacity(bytes);
        let mut held = HeldPage::new(self.opener.is_some());
        let page = held.page_mut();
        let mut hasher = InternalHasher::new();
        for index in 0..run.pages() {
            let place = PageId::new(run.first.get() + index);
            self.file.read_exact_at(page, place.offset())?;
            let part = BODY_BYTES.min(bytes - value.len());
            match &self.opener {
                None => hasher.update(page.get(..part).unwrap_or_default()),
                Some(_) => hasher.update(page),
            };
            if let Some(opener) = &self.opener {
                self.open(opener, place, kind, page)?;
            }
            value.extend_from_slice(page.get(..part).unwrap_or_default());
        }
        if Checksum::beginning(&hasher.finish()) != run.checksum {
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
        self.damage.store(true, Ordering::Relaxed);
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
