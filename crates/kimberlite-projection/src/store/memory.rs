//! Nodes that are not in the file yet.

use std::sync::Arc;

use bytes::Bytes;

use super::node::build::{Part, write};
use super::node::{Layout, Slot};
use super::page::{Page, PageRef};

/// What a branch, or the store itself, points to.
#[derive(Clone, Debug)]
pub(crate) enum Child {
    /// A page of the file.
    Stored(PageRef),
    /// A node in memory.
    Memory(Arc<MemoryNode>),
}

/// A node that was committed and not written. Never changes; versions of the store share it.
#[derive(Debug)]
pub(crate) struct MemoryNode {
    pub(crate) page: Box<Page>,
    pub(crate) layout: Layout,
    links: Links,
}

#[derive(Debug)]
enum Links {
    /// The long values of a leaf that have no pages yet, by entry.
    Values(Box<[(usize, Bytes)]>),
    /// The children of a branch that have no pages yet; the others stand in the page.
    Children(Box<[Option<Arc<MemoryNode>>]>),
}

impl MemoryNode {
    /// Makes a leaf. `values` are those of entries that hold a reference to no page, in order.
    pub(crate) fn leaf(parts: &[Part<'_>], values: Box<[(usize, Bytes)]>) -> Self {
        Self::new(0, parts, Links::Values(values))
    }

    /// Makes a branch. `children` says of each entry whether it is in memory.
    pub(crate) fn branch(
        level: u8,
        parts: &[Part<'_>],
        children: Box<[Option<Arc<Self>>]>,
    ) -> Self {
        assert_eq!(parts.len(), children.len(), "every child has an entry");
        assert!(level > 0, "leaves have no children");
        Self::new(level, parts, Links::Children(children))
    }

    /// Makes a leaf of a page that holds all of its values.
    pub(crate) fn of_page(page: Box<Page>) -> Self {
        Self::of_parts(page, Links::Values(Box::default()))
    }

    /// Makes a branch that is `page` but for some of its children, which are in memory.
    pub(crate) fn with_children(
        mut page: Box<Page>,
        layout: &Layout,
        mut children: Box<[Option<Arc<Self>>]>,
        new: Vec<(usize, Arc<Self>)>,
    ) -> Self {
        assert_eq!(layout.count, children.len(), "every child has an entry");
        for (index, child) in new {
            if let Some(at) = layout.value_at(&page, index)
                && let Some(place) = page.get_mut(at..at + PageRef::BYTES)
            {
                place.fill(0);
            }
            if let Some(place) = children.get_mut(index) {
                *place = Some(child);
            }
        }
        Self::of_parts(page, Links::Children(children))
    }

    /// The children of a branch that are in memory.
    pub(crate) fn children(&self) -> &[Option<Arc<Self>>] {
        match &self.links {
            Links::Children(children) => children,
            Links::Values(_) => &[],
        }
    }

    /// Whether there are long values that have no pages yet.
    pub(crate) fn has_pending_values(&self) -> bool {
        matches!(&self.links, Links::Values(values) if !values.is_empty())
    }

    fn new(level: u8, parts: &[Part<'_>], links: Links) -> Self {
        Self::of_parts(write(level, parts), links)
    }

    fn of_parts(page: Box<Page>, links: Links) -> Self {
        let layout = Layout::read(&page).expect("what was written can be read");
        Self {
            page,
            layout,
            links,
        }
    }

    /// Child `index` of a branch.
    pub(crate) fn child(&self, index: usize) -> Option<Child> {
        if let Some(node) = self.memory_child(index) {
            return Some(Child::Memory(Arc::clone(node)));
        }
        self.layout.child(&self.page, index).map(Child::Stored)
    }

    /// Child `index` of a branch, if it is in memory.
    pub(crate) fn memory_child(&self, index: usize) -> Option<&Arc<Self>> {
        match &self.links {
            Links::Children(children) => children.get(index)?.as_ref(),
            Links::Values(_) => None,
        }
    }

    /// The long value of entry `index` of a leaf, if it has no pages yet.
    pub(crate) fn pending_value(&self, index: usize) -> Option<&Bytes> {
        match &self.links {
            Links::Values(values) => {
                let at = values.binary_search_by_key(&index, |(entry, _)| *entry);
                at.ok()
                    .and_then(|at| values.get(at))
                    .map(|(_, value)| value)
            }
            Links::Children(_) => None,
        }
    }

    /// Bytes of memory that go with the node, without its children.
    pub(crate) fn memory_bytes(&self) -> usize {
        let links = match &self.links {
            Links::Values(values) => values.iter().map(|(_, value)| value.len()).sum(),
            Links::Children(children) => size_of_val(&**children),
        };
        size_of::<Self>() + self.page.len() + links
    }

    /// What a leaf holds for entry `index`: its slot in the page.
    pub(crate) fn slot(&self, index: usize) -> Option<Slot<'_>> {
        self.layout.slot(&self.page, index)
    }
}
