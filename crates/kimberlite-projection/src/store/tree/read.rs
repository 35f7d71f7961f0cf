//! Reads nodes of a tree, and looks keys up.

use std::sync::Arc;

use bumpalo::Bump;

use super::Root;
use crate::store::error::StoreError;
use crate::store::node::{Layout, Slot};
use crate::store::page::{PageId, PageRef};
use crate::store::pages::{Handle, Pages};
use crate::store::sealing::Kind;
use crate::store::value::{Nearest, Value};

/// A node of the tree that is being read.
#[derive(Clone, Debug)]
pub(crate) struct Node<'a> {
    pub(crate) handle: Handle<'a>,
    pub(crate) layout: Layout,
}

impl<'a> Node<'a> {
    /// Loads the root.
    pub(crate) fn root(pages: &'a Pages, root: &Root) -> Result<Self, StoreError> {
        Self::load(pages, root.place, root.level)
    }

    /// Loads the node of level `level` that stands in a page.
    #[inline]
    pub(super) fn load(pages: &'a Pages, place: PageRef, level: u8) -> Result<Self, StoreError> {
        let (handle, layout) = pages.load(place)?;
        if layout.level != level {
            return Err(pages.damaged(place.page, "is of another level"));
        }
        Ok(Self { handle, layout })
    }

    /// Loads child `index` of a branch.
    #[inline]
    pub(crate) fn child(&self, pages: &'a Pages, index: usize) -> Result<Self, StoreError> {
        let place = self
            .layout
            .child(self.handle.page(), index)
            .ok_or_else(|| pages.damaged(PageId::new(0), "has no such child"))?;
        Self::load(pages, place, self.layout.level - 1)
    }

    /// The value of entry `index` of a leaf.
    #[inline]
    pub(crate) fn value(&self, pages: &Pages, index: usize) -> Result<Value<'a>, StoreError> {
        if let Handle::Borrowed(page) = self.handle
            && let Some(Slot::Inline(bytes)) = self.layout.slot(page, index)
        {
            return Ok(Value::borrowed(bytes));
        }
        self.value_elsewhere(pages, index)
    }

    /// The same where it does not stand in a page that is borrowed.
    fn value_elsewhere(&self, pages: &Pages, index: usize) -> Result<Value<'a>, StoreError> {
        let missing = || pages.damaged(PageId::new(0), "has no such entry");
        let page = self.handle.page();
        match self.layout.slot(page, index).ok_or_else(missing)? {
            Slot::Run(run) => pages.read_run(run, Kind::Value).map(Value::owned),
            Slot::Inline(bytes) => {
                let at = self.layout.value_at(page, index).ok_or_else(missing)?;
                let range = at..at + bytes.len();
                Ok(match &self.handle {
                    Handle::Borrowed(page) => Value::borrowed(page.get(range).unwrap_or_default()),
                    Handle::Copied(page) => Value::copied(Arc::clone(page), range),
                })
            }
        }
    }

    /// The whole of key `index`, in the arena unless it stands in the page as it is.
    pub(super) fn key<'k>(&'k self, index: usize, arena: &'k Bump) -> &'k [u8] {
        let page = self.handle.page();
        let prefix = self.layout.prefix(page);
        let suffix = self.layout.suffix(page, index).unwrap_or_default();
        if prefix.is_empty() {
            return suffix;
        }
        joined(prefix, suffix, arena)
    }
}

pub(super) fn joined<'k>(prefix: &[u8], suffix: &[u8], arena: &'k Bump) -> &'k [u8] {
    let key = arena.alloc_slice_fill_copy(prefix.len() + suffix.len(), 0);
    let (beginning, rest) = key.split_at_mut(prefix.len());
    beginning.copy_from_slice(prefix);
    rest.copy_from_slice(suffix);
    key
}

/// Looks a key up.
pub(crate) fn find<'a>(
    pages: &'a Pages,
    root: &Root,
    key: &[u8],
) -> Result<Option<Value<'a>>, StoreError> {
    let mut node = Node::root(pages, root)?;
    while !node.layout.is_leaf() {
        let index = node.layout.child_index(node.handle.page(), key);
        node = node.child(pages, index)?;
    }
    let (index, is_found) = node.layout.lower_bound(node.handle.page(), key);
    if !is_found {
        return Ok(None);
    }
    node.value(pages, index).map(Some)
}

/// What there is at or above a key.
pub(crate) enum Search<'a> {
    Found(Nearest<'a>),
    /// None that begins so.
    Nothing,
    /// Nothing in the leaf where the key belongs: it may be in the next one.
    Behind,
}

/// Looks up the first entry at or above `key`, in the leaf where that belongs, if it begins with `beginning`.
pub(crate) fn find_nearest<'a>(
    pages: &'a Pages,
    root: &Root,
    (key, beginning): (&[u8], &[u8]),
) -> Result<Search<'a>, StoreError> {
    let mut node = Node::root(pages, root)?;
    while !node.layout.is_leaf() {
        let index = node.layout.child_index(node.handle.page(), key);
        node = node.child(pages, index)?;
    }
    let page = node.handle.page();
    let (index, _) = node.layout.lower_bound(page, key);
    if index == node.layout.count {
        return Ok(Search::Behind);
    }
    let prefix = node.layout.prefix(page);
    let suffix = |index| node.layout.suffix(page, index).unwrap_or_default();
    let begins_so = |index| match beginning.split_at_checked(prefix.len()) {
        Some((first, rest)) => first == prefix && suffix(index).starts_with(rest),
        None => prefix.starts_with(beginning),
    };
    if !begins_so(index) {
        return Ok(Search::Nothing);
    }
    Ok(Search::Found(Nearest {
        key: [prefix, suffix(index)].concat(),
        value: node.value(pages, index)?,
        follows_another: index.checked_sub(1).is_some_and(begins_so),
    }))
}
