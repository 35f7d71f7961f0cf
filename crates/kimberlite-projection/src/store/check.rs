//! Looks at every page of a store: whether it is what its parent says, and whether all of them together
//! are a tree.

use std::sync::Arc;

use super::cache::PageCache;
use super::error::StoreError;
use super::node::Slot;
use super::page::{PageId, RunRef};
use super::pages::{Access, Pages};
use super::sealing::Kind;
use super::space::lock;
use super::tree::{Node, Root};
use super::{Store, Version};

/// Pages that are kept while a store is looked at: those on the way to the one that is looked at.
const CACHE_PAGES: usize = 1024;

/// How much a store holds, and where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreSize {
    /// Entries that were flushed.
    pub entries: u64,
    /// Pages of the file that hold them.
    pub used_pages: u64,
    /// Pages of the file that were given back and will be taken again when nobody reads them.
    pub given_pages: u64,
    /// Pages of the file that can be taken.
    pub free_pages: u64,
    /// Pages of the file.
    pub file_pages: u64,
}

impl Store {
    /// Reads all of the newest state that was flushed, from the disk, and checks each page and how they fit together. What
    /// was committed since is in memory, and is not looked at.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`] names the first page that is wrong; errors of the disk.
    pub fn verify(&self) -> Result<StoreSize, StoreError> {
        let version = self.shared.current();
        let cache = Arc::new(PageCache::new(CACHE_PAGES));
        let file = Arc::clone(&self.file);
        // Not through the mapping, whose pages may have been checked long ago.
        let access = Access {
            cache: &cache,
            mapped: false,
            opener: self.opener.as_ref(),
            damage: &self.damage,
        };
        let pages = Pages::new(file, version.pages.count(), access)?;
        let mut walk = Walk {
            pages: &pages,
            store: self,
            seen: vec![false; PageId::new(lock(&self.space).count()).index()],
            entries: 0,
            last: None,
        };
        if let Some(root) = &version.root {
            walk.root(root)?;
        }
        walk.finish(&version)
    }
}

struct Walk<'a> {
    pages: &'a Pages,
    store: &'a Store,
    seen: Vec<bool>,
    entries: u64,
    /// The key before.
    last: Option<Vec<u8>>,
}

impl Walk<'_> {
    fn root(&mut self, root: &Root) -> Result<(), StoreError> {
        let node = Node::root(self.pages, root)?;
        self.note(root.place.page, 1)?;
        if !node.layout.is_leaf() && node.layout.count < 2 {
            return Err(self.wrong("is a root with one child"));
        }
        self.node(&node, &[], None)
    }

    /// Walks over a node whose keys are at or above `low` and below `high`.
    fn node(&mut self, node: &Node<'_>, low: &[u8], high: Option<&[u8]>) -> Result<(), StoreError> {
        let page = node.handle.page();
        if !node.layout.check(page) {
            return Err(self.wrong("is no node"));
        }
        if node.layout.is_leaf() {
            return self.leaf(node, low, high);
        }
        let keys: Vec<Vec<u8>> = (0..node.layout.keys())
            .map(|index| whole_key(node, index))
            .collect();
        let is_bounded = keys
            .iter()
            .all(|key| low <= key.as_slice() && high.is_none_or(|high| key.as_slice() < high));
        if !is_bounded {
            return Err(self.wrong("has keys that belong elsewhere"));
        }
        for index in 0..node.layout.count {
            if let Some(place) = node.layout.child(page, index) {
                self.note(place.page, 1)?;
            }
            let child = node.child(self.pages, index)?;
            let from = index.checked_sub(1).and_then(|key| keys.get(key));
            let from = from.map_or(low, Vec::as_slice);
            let to = keys.get(index).map(Vec::as_slice).or(high);
            self.node(&child, from, to)?;
        }
        Ok(())
    }

    fn leaf(&mut self, node: &Node<'_>, low: &[u8], high: Option<&[u8]>) -> Result<(), StoreError> {
        for index in 0..node.layout.count {
            let key = whole_key(node, index);
            let is_bounded = low <= key.as_slice() && high.is_none_or(|high| key.as_slice() < high);
            if !is_bounded || self.last.as_ref().is_some_and(|last| *last >= key) {
                return Err(self.wrong("has keys that belong elsewhere"));
            }
            self.last = Some(key);
            self.entries += 1;
            if let Some(Slot::Run(run)) = node.layout.slot(node.handle.page(), index) {
                self.run(run)?;
            }
        }
        Ok(())
    }

    fn run(&mut self, run: RunRef) -> Result<(), StoreError> {
        self.pages.read_run(run, Kind::Value)?;
        self.note(run.first, run.pages())
    }

    /// Notes pages that something points to.
    fn note(&mut self, first: PageId, pages: u32) -> Result<(), StoreError> {
        for page in first.get()..first.get().saturating_add(pages) {
            if !lock(&self.store.space).is_run_taken(PageId::new(page), 1) {
                let page = PageId::new(page);
                return Err(self.pages.damaged(page, "is used and not taken"));
            }
            match self.seen.get_mut(PageId::new(page).index()) {
                Some(seen) if !*seen => *seen = true,
                _ => {
                    let page = PageId::new(page);
                    return Err(self.pages.damaged(page, "is used twice"));
                }
            }
        }
        Ok(())
    }

    fn finish(mut self, version: &Version) -> Result<StoreSize, StoreError> {
        if self.entries != version.entries {
            return Err(self.pages.damaged(PageId::new(0), "counts other entries"));
        }
        let used_pages = self.seen.iter().filter(|seen| **seen).count();
        if let Some(run) = self.store.space_run {
            self.note(run.first, run.pages())?;
        }
        let space = lock(&self.store.space);
        let taken = (0..space.count())
            .filter(|page| space.is_taken(*page))
            .count();
        let pointed = self.seen.iter().filter(|seen| **seen).count();
        let superblocks = PageId::new(super::FIRST_PAGE).index();
        let number = |pages| u64::try_from(pages).expect("pages are numbered by 32 bits");
        // One that is under way takes pages that nothing points to yet, and one that failed may have left some.
        let is_known = !self.store.is_poisoned && self.store.under_way.is_none();
        if is_known && number(taken) != number(pointed + superblocks) + space.given() {
            return Err(self
                .pages
                .damaged(PageId::new(0), "has pages that are taken for nothing"));
        }
        Ok(StoreSize {
            entries: self.entries,
            used_pages: number(used_pages),
            given_pages: space.given(),
            free_pages: u64::from(space.free()),
            file_pages: u64::from(space.count()),
        })
    }

    fn wrong(&self, what: &'static str) -> StoreError {
        self.pages.damaged(PageId::new(0), what)
    }
}

fn whole_key(node: &Node<'_>, index: usize) -> Vec<u8> {
    let page = node.handle.page();
    let mut key = node.layout.prefix(page).to_vec();
    key.extend_from_slice(node.layout.suffix(page, index).unwrap_or_default());
    key
}
