//! Nodes that are not in the file yet.

use std::sync::Arc;

use bytes::Bytes;

use super::node::build::{Part, write};
use super::node::{Layout, Slot};
use super::page::{Checksum, Page, PageId, PageRef};
use super::spare::{NodePage, SparePages};

/// Stands where the reference to a child will be once that has a page.
pub(crate) const NO_PAGE: PageRef = PageRef {
    page: PageId::new(0),
    checksum: Checksum::new([0; Checksum::BYTES]),
};

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
    pub(crate) page: NodePage,
    pub(crate) layout: Layout,
    /// The commit that made it.
    pub(crate) commit: u64,
    links: Links,
}

/// The commit that makes a node, and what becomes of its page.
pub(crate) type Origin<'a> = (u64, &'a Arc<SparePages>);

#[derive(Debug)]
enum Links {
    /// The long values of a leaf that have no pages yet, by entry.
    Values(Box<[(usize, Bytes)]>),
    /// The children of a branch that have no pages yet; the others stand in the page.
    Children(Children),
}

/// The most children that stand in a group.
const GROUP_MAX: usize = 32;

type Group = [Option<Arc<MemoryNode>>];

/// Those of the children of a branch that are in memory. Branches that differ in few share the others, in groups, so
/// that a commit touches the counters of a few dozen nodes and not of all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Children {
    groups: Vec<Arc<Group>>,
    /// The first child of each group.
    starts: Vec<usize>,
    count: usize,
}

impl Children {
    /// None of so many.
    pub(crate) fn none(count: usize) -> Self {
        core::iter::repeat_n(None, count).collect()
    }

    fn get(&self, index: usize) -> Option<&Arc<MemoryNode>> {
        let group = self.starts.partition_point(|start| *start <= index) - 1;
        let start = self.starts.get(group)?;
        self.groups.get(group)?.get(index - start)?.as_ref()
    }

    fn iter(&self) -> impl Iterator<Item = Option<&Arc<MemoryNode>>> {
        let groups = self.groups.iter();
        groups.flat_map(|group| group.iter().map(Option::as_ref))
    }

    /// The same with others in the place of some, in the order of these: several where one of them is named as often.
    pub(crate) fn with(&self, new: Vec<(usize, Option<Arc<MemoryNode>>)>) -> Self {
        let mut new = new.into_iter().peekable();
        let mut children = Self::default();
        for (group, start) in self.groups.iter().zip(&self.starts) {
            let end = start + group.len();
            if new.peek().is_none_or(|(index, _)| *index >= end) {
                children.push(Arc::clone(group));
                continue;
            }
            let mut changed = Vec::with_capacity(group.len() + 1);
            for (index, node) in (*start..end).zip(group.iter()) {
                if new.peek().is_none_or(|(new, _)| *new != index) {
                    changed.push(node.clone());
                }
                while let Some((_, node)) = new.next_if(|(new, _)| *new == index) {
                    changed.push(node);
                }
            }
            let parts = changed.len().div_ceil(GROUP_MAX);
            for part in changed.chunks(changed.len().div_ceil(parts)) {
                children.push(part.into());
            }
        }
        children
    }

    fn push(&mut self, group: Arc<Group>) {
        self.starts.push(self.count);
        self.count += group.len();
        self.groups.push(group);
    }
}

impl FromIterator<Option<Arc<MemoryNode>>> for Children {
    fn from_iter<I: IntoIterator<Item = Option<Arc<MemoryNode>>>>(nodes: I) -> Self {
        let nodes: Vec<_> = nodes.into_iter().collect();
        let mut children = Self::default();
        for group in nodes.chunks(GROUP_MAX / 2) {
            children.push(group.into());
        }
        children
    }
}

impl MemoryNode {
    /// Makes a leaf. `values` are those of entries that hold a reference to no page, in order.
    pub(crate) fn leaf(
        origin: Origin<'_>,
        parts: &[Part<'_>],
        values: Box<[(usize, Bytes)]>,
    ) -> Self {
        Self::of_parts(origin, write(0, parts), Links::Values(values))
    }

    /// Makes a branch. `children` says of each entry whether it is in memory.
    pub(crate) fn branch(
        origin: Origin<'_>,
        level: u8,
        parts: &[Part<'_>],
        children: Children,
    ) -> Self {
        assert_eq!(parts.len(), children.count, "every child has an entry");
        assert!(level > 0, "leaves have no children");
        Self::of_parts(origin, write(level, parts), Links::Children(children))
    }

    /// Makes a leaf of a page that holds all of its values.
    pub(crate) fn of_page(origin: Origin<'_>, page: Box<Page>) -> Self {
        Self::of_parts(origin, page, Links::Values(Box::default()))
    }

    /// Makes a branch of a page, which holds the places of those children that are not in memory.
    pub(crate) fn branch_of_page(origin: Origin<'_>, page: Box<Page>, children: Children) -> Self {
        let count = children.count;
        let branch = Self::of_parts(origin, page, Links::Children(children));
        assert_eq!(branch.layout.count, count, "every child has an entry");
        branch
    }

    /// Makes a branch that is `page` but for some of its children.
    pub(crate) fn with_children(
        origin: Origin<'_>,
        mut page: Box<Page>,
        (layout, children): (&Layout, &Children),
        new: Vec<(usize, Child)>,
    ) -> Self {
        let new = new.into_iter().map(|(index, child)| {
            let (place, node) = match child {
                Child::Stored(place) => (place, None),
                Child::Memory(node) => (NO_PAGE, Some(node)),
            };
            if let Some(at) = layout.value_at(&page, index)
                && let Some(bytes) = page.get_mut(at..at + PageRef::BYTES)
            {
                bytes.copy_from_slice(&place.encode());
            }
            (index, node)
        });
        let children = children.with(new.collect());
        Self::branch_of_page(origin, page, children)
    }

    /// The branch as it is once nodes were written: in the place of those of its children there are the pages that
    /// `place_of` says, and in that of those above them what becomes of these. `None` where nothing changes.
    pub(crate) fn settled(
        &self,
        place_of: &impl Fn(&Arc<Self>) -> Option<PageRef>,
    ) -> Option<Self> {
        let children = self.children()?;
        let mut new = Vec::new();
        for (index, child) in children.iter().enumerate() {
            let Some(child) = child else { continue };
            if let Some(place) = place_of(child) {
                new.push((index, Child::Stored(place)));
            } else if let Some(settled) = child.settled(place_of) {
                new.push((index, Child::Memory(Arc::new(settled))));
            }
        }
        if new.is_empty() {
            return None;
        }
        let place = (&self.layout, children);
        Some(Self::with_children(
            (self.commit, self.page.spare()),
            Box::new(*self.page),
            place,
            new,
        ))
    }

    /// The children of a branch that are in memory.
    pub(crate) fn children(&self) -> Option<&Children> {
        match &self.links {
            Links::Children(children) => Some(children),
            Links::Values(_) => None,
        }
    }

    /// Whether there are long values that have no pages yet.
    pub(crate) fn has_pending_values(&self) -> bool {
        matches!(&self.links, Links::Values(values) if !values.is_empty())
    }

    /// Whether it points to something that has no page yet.
    pub(crate) fn has_links(&self) -> bool {
        match &self.links {
            Links::Values(values) => !values.is_empty(),
            Links::Children(children) => children.iter().any(|child| child.is_some()),
        }
    }

    fn of_parts(origin: Origin<'_>, page: Box<Page>, links: Links) -> Self {
        let layout = Layout::read(&page).expect("what was written can be read");
        let (commit, spare) = origin;
        Self {
            page: NodePage::new(page, spare),
            layout,
            commit,
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
            Links::Children(children) => children.get(index),
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
            Links::Children(children) => children.count * size_of::<Option<Arc<Self>>>(),
        };
        size_of::<Self>() + self.page.len() + links
    }

    /// What a leaf holds for entry `index`: its slot in the page.
    pub(crate) fn slot(&self, index: usize) -> Option<Slot<'_>> {
        self.layout.slot(&self.page, index)
    }
}
