//! Pages of memory that are used again.
//!
//! A commit makes a page for each node that it changes, and lets go of as many, since the version before goes. To ask the
//! allocator for each takes longer than to fill it.

use core::fmt;
use core::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use super::page::{PAGE_BYTES, Page};

/// Pages that are kept: 2 MiB of them, a few batches of changes.
const SPARE_PAGES_MAX: usize = 512;

/// Pages that no node has any more.
#[derive(Default)]
pub(crate) struct SparePages {
    pages: Mutex<Vec<Box<Page>>>,
}

impl SparePages {
    /// A page, whatever is in it.
    pub(crate) fn take(&self) -> Box<Page> {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let spare = pages.pop();
        drop(pages);
        spare.unwrap_or_else(|| Box::new([0; PAGE_BYTES]))
    }

    fn give(&self, page: Box<Page>) {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if pages.len() < SPARE_PAGES_MAX {
            pages.push(page);
        }
    }
}

impl fmt::Debug for SparePages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SparePages").finish_non_exhaustive()
    }
}

/// The page of a node. Another node may have it once it goes.
pub(crate) struct NodePage {
    /// None while it goes.
    page: Option<Box<Page>>,
    spare: Arc<SparePages>,
}

impl NodePage {
    pub(crate) fn new(page: Box<Page>, spare: &Arc<SparePages>) -> Self {
        Self {
            page: Some(page),
            spare: Arc::clone(spare),
        }
    }

    /// What becomes of it.
    pub(crate) const fn spare(&self) -> &Arc<SparePages> {
        &self.spare
    }
}

impl Deref for NodePage {
    type Target = Page;

    #[inline]
    fn deref(&self) -> &Page {
        self.page.as_deref().expect("it goes last")
    }
}

impl Drop for NodePage {
    fn drop(&mut self) {
        if let Some(page) = self.page.take() {
            self.spare.give(page);
        }
    }
}

impl fmt::Debug for NodePage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodePage").finish_non_exhaustive()
    }
}
