//! Goes through a tree in the order of keys, both ways.

use super::Root;
use super::read::Node;
use crate::store::cursor::{Entry, Way};
use crate::store::error::StoreError;
use crate::store::pages::Pages;

/// A place between two entries of a tree, or before the first or behind the last.
#[derive(Debug)]
pub(crate) struct TreeCursor<'s> {
    pages: &'s Pages,
    root: Option<&'s Root>,
    /// From the root down to a leaf; empty when there is no entry, or nothing was looked for yet.
    path: Vec<Step<'s>>,
    key: Vec<u8>,
    /// Whether the leaf is the one that `key` was put together from.
    is_prefix_kept: bool,
}

#[derive(Debug)]
struct Step<'s> {
    node: Node<'s>,
    /// The child that the path goes through; in a leaf, how many entries are before the cursor.
    index: usize,
}

impl<'s> TreeCursor<'s> {
    pub(crate) fn new(pages: &'s Pages, root: Option<&'s Root>) -> Self {
        Self {
            pages,
            root,
            path: Vec::new(),
            key: Vec::new(),
            is_prefix_kept: false,
        }
    }

    /// Goes before the first entry whose key is `key` or above.
    pub(crate) fn seek(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.descend(|node| {
            let page = node.handle.page();
            if node.layout.is_leaf() {
                node.layout.lower_bound(page, key).0
            } else {
                node.layout.child_index(page, key)
            }
        })
    }

    /// Goes before the first entry.
    pub(crate) fn seek_first(&mut self) -> Result<(), StoreError> {
        self.descend(|_| 0)
    }

    /// Goes behind the last entry.
    pub(crate) fn seek_last(&mut self) -> Result<(), StoreError> {
        self.descend(last_index)
    }

    fn descend(&mut self, index_in: impl Fn(&Node<'s>) -> usize) -> Result<(), StoreError> {
        self.path.clear();
        self.is_prefix_kept = false;
        let Some(root) = self.root else {
            return Ok(());
        };
        let node = Node::root(self.pages, root)?;
        let index = index_in(&node);
        self.path.push(Step { node, index });
        self.down(index_in)
    }

    /// Goes on from the end of the path down to a leaf.
    fn down(&mut self, index_in: impl Fn(&Node<'s>) -> usize) -> Result<(), StoreError> {
        while let Some(step) = self.path.last()
            && !step.node.layout.is_leaf()
        {
            let node = step.node.child(self.pages, step.index)?;
            let index = index_in(&node);
            self.path.push(Step { node, index });
        }
        Ok(())
    }

    /// Passes the next entry and returns it.
    #[inline]
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry<'_, 's>>, StoreError> {
        loop {
            let Some(leaf) = self.path.last_mut() else {
                return Ok(None);
            };
            if leaf.index < leaf.node.layout.count {
                let index = leaf.index;
                leaf.index += 1;
                return self.entry(index).map(Some);
            }
            if !self.pass_to_next_leaf()? {
                return Ok(None);
            }
        }
    }

    /// Passes the entry before and returns it.
    #[inline]
    pub(crate) fn previous_entry(&mut self) -> Result<Option<Entry<'_, 's>>, StoreError> {
        loop {
            let Some(leaf) = self.path.last_mut() else {
                return Ok(None);
            };
            if let Some(index) = leaf.index.checked_sub(1) {
                leaf.index = index;
                return self.entry(index).map(Some);
            }
            if !self.pass_to_previous_leaf()? {
                return Ok(None);
            }
        }
    }

    /// The key of the entry beside it on one side.
    pub(crate) fn key(&mut self, way: Way) -> Result<Option<&[u8]>, StoreError> {
        loop {
            let Some(leaf) = self.path.last() else {
                return Ok(None);
            };
            let (index, has_leaf) = match way {
                Way::Forward if leaf.index < leaf.node.layout.count => (Some(leaf.index), true),
                Way::Forward => (None, self.pass_to_next_leaf()?),
                Way::Backward if leaf.index > 0 => (Some(leaf.index - 1), true),
                Way::Backward => (None, self.pass_to_previous_leaf()?),
            };
            if let Some(index) = index {
                self.read_key(index);
                return Ok(Some(&self.key));
            }
            if !has_leaf {
                return Ok(None);
            }
        }
    }

    /// Passes the entry whose [`key`](Self::key) was read last.
    pub(crate) fn skip(&mut self, way: Way) {
        if let Some(leaf) = self.path.last_mut() {
            match way {
                Way::Forward => leaf.index += 1,
                Way::Backward => leaf.index -= 1,
            }
        }
    }

    #[inline]
    fn entry(&mut self, index: usize) -> Result<Entry<'_, 's>, StoreError> {
        self.read_key(index);
        let step = self.path.last().expect("an entry is in a leaf");
        let value = step.node.value(self.pages, index)?;
        Ok(Entry {
            key: &self.key,
            value,
        })
    }

    /// Goes before the first entry of the next leaf; stays where it is when there is none.
    fn pass_to_next_leaf(&mut self) -> Result<bool, StoreError> {
        let has_next = |step: &Step<'_>| step.index + 1 < step.node.layout.count;
        let above = self.path.len().saturating_sub(1);
        let Some(at) = self.path.iter().take(above).rposition(has_next) else {
            return Ok(false);
        };
        self.path.truncate(at + 1);
        if let Some(step) = self.path.last_mut() {
            step.index += 1;
        }
        self.is_prefix_kept = false;
        self.down(|_| 0)?;
        Ok(true)
    }

    /// Goes behind the last entry of the leaf before; stays where it is when there is none.
    fn pass_to_previous_leaf(&mut self) -> Result<bool, StoreError> {
        let above = self.path.len().saturating_sub(1);
        let Some(at) = self
            .path
            .iter()
            .take(above)
            .rposition(|step| step.index > 0)
        else {
            return Ok(false);
        };
        self.path.truncate(at + 1);
        if let Some(step) = self.path.last_mut() {
            step.index -= 1;
        }
        self.is_prefix_kept = false;
        self.down(last_index)?;
        Ok(true)
    }

    /// Puts the key of an entry of the leaf together.
    #[inline]
    fn read_key(&mut self, index: usize) {
        let step = self.path.last().expect("an entry is in a leaf");
        let (page, layout) = (step.node.handle.page(), &step.node.layout);
        let prefix = layout.prefix(page);
        if self.is_prefix_kept {
            self.key.truncate(prefix.len());
        } else {
            self.key.clear();
            self.key.extend_from_slice(prefix);
            self.is_prefix_kept = true;
        }
        let suffix = layout.suffix(page, index).unwrap_or_default();
        self.key.extend_from_slice(suffix);
    }
}

/// Behind the last entry of a leaf, at the last child of a branch.
fn last_index(node: &Node<'_>) -> usize {
    if node.layout.is_leaf() {
        node.layout.count
    } else {
        node.layout.count - 1
    }
}
