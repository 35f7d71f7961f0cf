//! Which pages of the file are taken.
//!
//! A page is given back by the flush that no longer points to it, and is taken again only when
//!
//! 1. the superblock of that flush is durable: after a crash the one before it, which points
//!    to the page, is not what the store is opened with; and
//! 2. no version is read that points to the page: none that is older than that flush and was made
//!    when the page had been written already. So a version that is held for long keeps its own pages
//!    and none of those that came and went since.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::page::PageId;

const WORD_BITS: usize = 64;
/// Superblocks.
pub(crate) const FIRST_PAGE: u32 = 2;

/// Pages that were given back.
#[derive(Clone, Copy, Debug)]
struct Given {
    first: PageId,
    pages: u32,
    /// The flush that wrote them; none for pages that no version points to.
    born: Option<u64>,
    /// The flush that gave them back.
    flush: u64,
}

impl Given {
    /// Whether a version points to them that flush `flush` was the last one before.
    fn is_seen_by(&self, flush: u64) -> bool {
        flush < self.flush && self.born.is_some_and(|born| born <= flush)
    }
}

#[derive(Debug)]
pub(crate) struct Space {
    /// A bit for each page; those behind are free.
    taken: Vec<u64>,
    /// The flush that wrote each page; 0 when it was there before the store was opened.
    born: Vec<u64>,
    /// Those of the taken pages that were given back.
    gone: Vec<u64>,
    count: u32,
    free: u32,
    /// Where the search for a page goes on.
    next: u32,
    given: Vec<Given>,
}

/// Nothing of ours panics while it is held.
pub(crate) fn lock(space: &Mutex<Space>) -> MutexGuard<'_, Space> {
    space.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Space {
    /// The space of a file of `count` pages, of which nothing but the superblocks is taken.
    pub(crate) fn new(count: u32) -> Self {
        let mut space = Self {
            taken: Vec::new(),
            born: Vec::new(),
            gone: Vec::new(),
            count: 0,
            free: 0,
            next: FIRST_PAGE,
            given: Vec::new(),
        };
        space.grow_to(count);
        for page in 0..FIRST_PAGE.min(count) {
            space.take(page, 0);
        }
        space
    }

    /// Reads what [`PageMap::encode`] wrote, for a file of `count` pages.
    pub(crate) fn decode(bytes: &[u8], count: u32) -> Option<Self> {
        let mut space = Self::new(count);
        if bytes.len() != space.taken.len() * 8 {
            return None;
        }
        let (words, _) = bytes.as_chunks();
        for (index, word) in words.iter().enumerate() {
            let mut word = u64::from_le_bytes(*word);
            while word != 0 {
                let bit = word.trailing_zeros();
                word &= word - 1;
                let page = u32::try_from(index * WORD_BITS).ok()?.checked_add(bit)?;
                if page >= count {
                    return None;
                }
                if !space.is_taken(page) {
                    space.take(page, 0);
                }
            }
        }
        Some(space)
    }

    /// The pages that are taken and were not given back.
    pub(crate) fn map(&self) -> PageMap {
        let words = self.taken.iter().zip(&self.gone);
        PageMap {
            words: words.map(|(taken, gone)| taken & !gone).collect(),
        }
    }

    pub(crate) const fn count(&self) -> u32 {
        self.count
    }

    /// Pages that can be taken without a longer file.
    pub(crate) const fn free(&self) -> u32 {
        self.free
    }

    /// Pages that were given back and cannot be taken yet.
    pub(crate) fn given(&self) -> u64 {
        self.given.iter().map(|given| u64::from(given.pages)).sum()
    }

    pub(crate) fn is_taken(&self, page: u32) -> bool {
        is_set(&self.taken, page)
    }

    /// Whether these are pages behind the superblocks that were taken and not given back.
    pub(crate) fn is_run_taken(&self, first: PageId, pages: u32) -> bool {
        let first = first.get();
        let end = first
            .checked_add(pages)
            .filter(|end| FIRST_PAGE <= first && *end <= self.count);
        end.is_some_and(|end| {
            (first..end).all(|page| self.is_taken(page) && !is_set(&self.gone, page))
        })
    }

    /// The file has got longer.
    pub(crate) fn grow_to(&mut self, count: u32) {
        assert!(count >= self.count, "a store does not get shorter");
        self.free += count - self.count;
        self.count = count;
        let words = PageId::new(count).index().div_ceil(WORD_BITS);
        self.taken.resize(words, 0);
        self.gone.resize(words, 0);
        self.born.resize(PageId::new(count).index(), 0);
    }

    /// Takes `pages` pages that follow each other, for flush `flush`; `None` when the file has to grow.
    pub(crate) fn take_run(&mut self, pages: u32, flush: u64) -> Option<PageId> {
        if pages > self.free {
            return None;
        }
        let first = self
            .search(self.next, self.count, pages)
            .or_else(|| self.search(FIRST_PAGE, self.count, pages))?;
        for page in first..first + pages {
            self.take(page, flush);
        }
        self.next = first + pages;
        Some(PageId::new(first))
    }

    fn search(&self, from: u32, to: u32, pages: u32) -> Option<u32> {
        let (mut first, mut page) = (from, from);
        while page < to {
            let (word, bit) = place_of(page);
            let taken = self.taken.get(word).copied().unwrap_or(0);
            if bit == 1 && taken == u64::MAX {
                page = page.saturating_add(64);
                first = page;
                continue;
            }
            page += 1;
            if taken & bit != 0 {
                first = page;
            } else if page - first == pages {
                return Some(first);
            }
        }
        None
    }

    fn take(&mut self, page: u32, flush: u64) {
        assert!(!self.is_taken(page), "a page is taken once");
        set(&mut self.taken, page, true);
        if let Some(born) = self.born.get_mut(PageId::new(page).index()) {
            *born = flush;
        }
        self.free -= 1;
    }

    /// Gives pages back that flush `flush` no longer points to; `false` when they were not taken, or
    /// were given back before.
    #[must_use]
    pub(crate) fn give(&mut self, first: PageId, pages: u32, flush: u64) -> bool {
        let born = self.born.get(first.index()).copied();
        self.push(first, pages, born, flush)
    }

    /// The same for pages that the superblock alone pointed to.
    #[must_use]
    pub(crate) fn give_unread(&mut self, first: PageId, pages: u32, flush: u64) -> bool {
        self.push(first, pages, None, flush)
    }

    fn push(&mut self, first: PageId, pages: u32, born: Option<u64>, flush: u64) -> bool {
        if !self.is_run_taken(first, pages) {
            return false;
        }
        for page in first.get()..first.get() + pages {
            set(&mut self.gone, page, true);
        }
        self.given.push(Given {
            first,
            pages,
            born,
            flush,
        });
        true
    }

    /// Frees what was given back by flushes up to `durable` and is seen by none of the versions that are read, by the last
    /// flush before each.
    pub(crate) fn release(&mut self, durable: u64, read: &[u64]) {
        let given = core::mem::take(&mut self.given);
        for given in given {
            let is_seen = read.iter().any(|flush| given.is_seen_by(*flush));
            if given.flush > durable || is_seen {
                self.given.push(given);
                continue;
            }
            self.free_run(given.first, given.pages);
        }
    }

    /// How many pages the file should have, so that `pages` more can be taken in one run: at least an
    /// eighth more than now, so that it does not grow often.
    /// `None` when pages run out of numbers.
    pub(crate) fn grown_count(&self, pages: u32) -> Option<u32> {
        let more = pages.max(self.count / 8).max(GROWTH_PAGES_MIN);
        self.count.checked_add(more)
    }

    /// Frees pages that were taken and not pointed to by anything.
    pub(crate) fn untake(&mut self, taken: &[(PageId, u32)]) {
        for (first, pages) in taken {
            self.free_run(*first, *pages);
        }
    }

    fn free_run(&mut self, first: PageId, pages: u32) {
        for page in first.get()..first.get() + pages {
            assert!(self.is_taken(page), "a page is freed once");
            set(&mut self.taken, page, false);
            set(&mut self.gone, page, false);
            self.free += 1;
        }
    }
}

/// The pages that one state of a store points to.
#[derive(Debug)]
pub(crate) struct PageMap {
    words: Vec<u64>,
}

impl PageMap {
    pub(crate) fn holds(&self, page: PageId) -> bool {
        page.get() >= FIRST_PAGE && is_set(&self.words, page.get())
    }

    /// Removes pages that the state no longer points to; `false` when it did not.
    #[must_use]
    pub(crate) fn remove(&mut self, first: PageId, pages: u32) -> bool {
        let Some(end) = first.get().checked_add(pages).filter(|_| pages > 0) else {
            return false;
        };
        (first.get()..end).all(|page| {
            let was_there = self.holds(PageId::new(page));
            set(&mut self.words, page, false);
            was_there
        })
    }

    /// Adds pages that were taken for the state.
    pub(crate) fn add(&mut self, first: PageId, pages: u32) {
        let end = first.get() + pages;
        let words = PageId::new(end).index().div_ceil(WORD_BITS);
        self.words.resize(words.max(self.words.len()), 0);
        for page in first.get()..end {
            set(&mut self.words, page, true);
        }
    }

    /// A bit for each page of a file of `count`, as little-endian words of 64.
    pub(crate) fn encode(&mut self, count: u32) -> Vec<u8> {
        self.words
            .resize(PageId::new(count).index().div_ceil(WORD_BITS), 0);
        self.words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect()
    }

    /// Bytes that [`encode`](Self::encode) gives for a file of `count` pages.
    pub(crate) fn encoded_bytes(count: u32) -> u32 {
        count.div_ceil(64) * 8
    }
}

/// Pages that a file grows by at least: 64 KiB.
const GROWTH_PAGES_MIN: u32 = 16;

fn is_set(words: &[u64], page: u32) -> bool {
    let (word, bit) = place_of(page);
    words.get(word).is_some_and(|word| word & bit != 0)
}

fn set(words: &mut [u64], page: u32, to: bool) {
    let (word, bit) = place_of(page);
    if let Some(word) = words.get_mut(word) {
        *word = if to { *word | bit } else { *word & !bit };
    }
}

const fn place_of(page: u32) -> (usize, u64) {
    (PageId::new(page).index() / WORD_BITS, 1 << (page % 64))
}
