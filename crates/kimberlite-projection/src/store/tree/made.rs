//! Nodes that were made and may have no page yet.

use super::SPARSE_BYTES;
use super::read::Node;
use crate::store::node::Layout;
use crate::store::page::{Checksum, Page, PageId, PageRef};
use crate::store::pages::Handle;

/// Stands where the reference to a child will be once that has a page.
pub(super) const NO_PAGE: PageRef = PageRef {
    page: PageId::new(0),
    checksum: Checksum::new([0; Checksum::BYTES]),
};

/// A node of the tree that is being made.
#[derive(Debug)]
pub(super) enum Child {
    /// In a page that was there before.
    Stored(PageRef),
    /// In a page that was written just now, and cannot be read yet.
    Written(PageRef),
    /// In no page yet.
    Made(Box<MadeNode>),
}

/// A node that has no page yet.
#[derive(Debug)]
pub(super) struct MadeNode {
    pub(super) page: Box<Page>,
    layout: Layout,
    /// The child of a branch that has one alone, until the branch is written.
    pub(super) only: Option<Child>,
}

impl MadeNode {
    pub(super) fn new(page: Box<Page>) -> Self {
        let layout = Layout::read(&page).expect("what was made can be read");
        Self {
            page,
            layout,
            only: None,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.layout.bytes(&self.page)
    }

    pub(super) fn node(&self) -> Node<'_> {
        Node {
            handle: Handle::Borrowed(&self.page),
            layout: self.layout,
        }
    }

    /// Says where child `index` of a branch is.
    pub(super) fn place(&mut self, index: usize, place: PageRef) {
        let at = self.layout.value_at(&self.page, index);
        let at = at.and_then(|at| self.page.get_mut(at..at + PageRef::BYTES));
        at.expect("a branch has a place for each child")
            .copy_from_slice(&place.encode());
    }
}

impl Child {
    pub(super) fn made(&self) -> Option<&MadeNode> {
        match self {
            Self::Made(node) => Some(node),
            Self::Stored(_) | Self::Written(_) => None,
        }
    }

    /// Whether it was made just now and could do with more entries.
    pub(super) fn is_sparse(&self) -> bool {
        self.made().is_some_and(|node| node.bytes() < SPARSE_BYTES)
    }
}
