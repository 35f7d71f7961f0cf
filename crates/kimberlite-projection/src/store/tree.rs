//! The tree: looking a key up, and changing many at once.
//!
//! A change never touches a node that others may read. It makes new ones in memory, from the leaves up
//! to a new root, and gives back the pages of those that they replace. All changes of a commit are
//! applied in one walk, in key order, so that a leaf is made anew once however many of its keys change.
//!
//! * **Invariant:** all leaves are at level 0, and a branch of level n has children of level n - 1.
//! * **Invariant:** every node but the root has an entry; a branch root has two children at least.

use std::sync::Arc;

use bumpalo::Bump;
use bytes::Bytes;

use super::error::StoreError;
use super::memory::{Child, Children, MemoryNode, NO_PAGE, Origin};
use super::node::Slot;
use super::node::build::{Cell, Fill, Part, cut, separator};
use super::node::edit::{Edit, Edits, edited};
use super::page::{BODY_BYTES, Checksum, PageId, RunRef};
use super::page_writer::Written;
use super::pages::{Handle, Pages};

mod came;
mod read;

use self::came::Came;
use self::read::joined;
pub(crate) use self::read::{Node, Search, find, find_nearest};

/// Nodes below this many bytes are joined with one beside them.
const SPARSE_BYTES: usize = BODY_BYTES / 4;
/// Stands where the reference to a long value will be once that has pages.
const NO_RUN: RunRef = RunRef {
    first: PageId::new(0),
    bytes: 0,
    checksum: Checksum::new([0; Checksum::BYTES]),
};

/// Where a tree begins.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    pub(crate) child: Child,
    pub(crate) level: u8,
}

/// One change of a commit.
#[derive(Clone, Debug)]
pub(crate) struct Change<'a> {
    pub(crate) key: &'a [u8],
    /// The new value; `None` takes the key away.
    pub(crate) value: Option<NewValue<'a>>,
}

/// A value that is put into a tree.
#[derive(Clone, Debug)]
pub(crate) enum NewValue<'a> {
    /// In its leaf.
    Inline(&'a [u8]),
    /// In pages of its own.
    Long(Bytes),
}

/// A node in the place of another, and the key that it begins at.
#[derive(Debug)]
struct Piece<'s> {
    /// Says nothing in the first piece of a node's place: there the key of that node stands.
    separator: &'s [u8],
    child: Child,
}

/// What applying changes to a node gave.
enum Outcome<'s> {
    /// Nothing in it changed.
    Same,
    /// This is in its place, and begins where it did.
    One(Arc<MemoryNode>),
    /// These are in its place; none when it is empty now.
    Pieces(Vec<Piece<'s>>),
}

/// A child that changed.
struct Touched<'s> {
    index: usize,
    outcome: Outcome<'s>,
    /// Whether it holds less than before, and could do with what one beside it has. What is small because it is new is
    /// left to grow.
    is_short: bool,
}

impl<'s> Outcome<'s> {
    /// Whether a node that had so many bytes has fewer, and one of what is in its place holds little.
    fn is_short(&self, bytes_before: usize) -> bool {
        let (mut bytes, mut is_sparse_now) = (0, false);
        let mut note = |node: &MemoryNode| {
            bytes += node.layout.bytes(&node.page);
            is_sparse_now |= is_sparse_node(node);
        };
        match self {
            Self::Same => return false,
            Self::One(node) => note(node),
            Self::Pieces(pieces) if pieces.is_empty() => return true,
            Self::Pieces(pieces) => {
                for piece in pieces {
                    if let Child::Memory(node) = &piece.child {
                        note(node);
                    }
                }
            }
        }
        is_sparse_now && bytes < bytes_before
    }

    /// What is in its place, each with the key that it begins at; `None` where a page of the file is.
    fn nodes(&self) -> Option<Vec<(&'s [u8], &Arc<MemoryNode>)>> {
        match self {
            Self::Same => Some(Vec::new()),
            Self::One(node) => Some(vec![(&[], node)]),
            Self::Pieces(pieces) => pieces
                .iter()
                .map(|piece| match &piece.child {
                    Child::Stored(_) => None,
                    Child::Memory(node) => Some((piece.separator, node)),
                })
                .collect(),
        }
    }

    fn into_pieces(self) -> Vec<Piece<'s>> {
        match self {
            Self::Same => Vec::new(),
            Self::One(node) => vec![Piece {
                separator: &[],
                child: Child::Memory(node),
            }],
            Self::Pieces(pieces) => pieces,
        }
    }
}

/// What a commit did to a tree.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Pages of nodes that are no longer part of it.
    pub(crate) nodes: Vec<PageId>,
    /// Pages of long values that are no longer part of it.
    pub(crate) runs: Vec<RunRef>,
    /// Entries that came.
    pub(crate) added: u64,
    /// Entries that went.
    pub(crate) removed: u64,
    /// Bytes of memory that the new nodes take.
    pub(crate) memory_bytes: usize,
    /// Bytes of memory of nodes that are no longer part of it.
    pub(crate) memory_bytes_freed: usize,
    /// Nodes that are no longer part of it, and are being written.
    pub(crate) replaced: Vec<Arc<MemoryNode>>,
}

/// When changes are applied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// The commit that they make up.
    pub(crate) commit: u64,
    /// The commit that is being written meanwhile.
    pub(crate) flushing: Option<u64>,
}

/// Applies changes, in order of their keys and each key once, and returns the new root.
pub(crate) fn apply(
    (pages, moment): (&Pages, Moment),
    root: Option<&Root>,
    changes: &[Change<'_>],
    tally: &mut Tally,
) -> Result<Option<Root>, StoreError> {
    assert!(
        changes.is_sorted_by(|left, right| left.key < right.key),
        "changes come in the order of their keys"
    );
    let separators = Bump::new();
    let mut editor = Editor {
        pages,
        moment,
        tally,
        separators: &separators,
        scratch: Bump::new(),
    };
    let (mut pieces, mut level) = match root {
        None => (editor.new_leaves(changes), 0),
        Some(root) => match editor.apply(&root.child, root.level, changes)? {
            (Outcome::Same, _) => return Ok(Some(root.clone())),
            (outcome, _) => (outcome.into_pieces(), root.level),
        },
    };
    while pieces.len() > 1 {
        level = level
            .checked_add(1)
            .ok_or_else(|| pages.damaged(PageId::new(0), "is of another level"))?;
        pieces = editor.branches(level, &pieces, Fill::Packed);
    }
    let Some(piece) = pieces.pop() else {
        return Ok(None);
    };
    let mut root = Root {
        child: piece.child,
        level,
    };
    while let Some(only) = editor.only_child(&root)? {
        root = only;
    }
    Ok(Some(root))
}

/// The root as it is once nodes were written: where it points to them it points to their pages.
pub(crate) fn settled(root: &Root, written: &Written) -> Root {
    let child = match &root.child {
        Child::Stored(place) => Child::Stored(*place),
        Child::Memory(node) => match written.place_of(node) {
            Some(place) => Child::Stored(place),
            None => match node.settled(&|node| written.place_of(node)) {
                Some(settled) => Child::Memory(Arc::new(settled)),
                None => Child::Memory(Arc::clone(node)),
            },
        },
    };
    Root {
        child,
        level: root.level,
    }
}

struct Editor<'a, 's> {
    pages: &'a Pages,
    moment: Moment,
    tally: &'a mut Tally,
    /// Keys that live as long as the walk.
    separators: &'s Bump,
    /// Keys of the leaf that is being made.
    scratch: Bump,
}

/// An entry of a leaf that is being made.
#[derive(Clone, Debug)]
struct Entry<'e> {
    key: &'e [u8],
    value: EntryValue<'e>,
}

#[derive(Clone, Debug)]
enum EntryValue<'e> {
    Inline(&'e [u8]),
    Run(RunRef),
    Pending(Bytes),
}

impl<'e> From<&NewValue<'e>> for EntryValue<'e> {
    fn from(value: &NewValue<'e>) -> Self {
        match value {
            NewValue::Inline(bytes) => Self::Inline(bytes),
            NewValue::Long(bytes) => Self::Pending(bytes.clone()),
        }
    }
}

impl<'s> Editor<'_, 's> {
    /// Applies changes to a node; also says whether what comes of it is short.
    fn apply(
        &mut self,
        child: &Child,
        level: u8,
        changes: &[Change<'_>],
    ) -> Result<(Outcome<'s>, bool), StoreError> {
        let pages = self.pages;
        let node = match child {
            Child::Memory(node) => Node::in_memory(node),
            Child::Stored(place) => {
                let (handle, layout) = pages.load(*place)?;
                Node { handle, layout }
            }
        };
        let node = node.of_level(pages, level, child)?;
        let outcome = if level == 0 {
            self.apply_to_leaf(&node, changes)
        } else {
            self.apply_to_branch(&node, changes)?
        };
        if !matches!(outcome, Outcome::Same) {
            self.gone(child);
        }
        let is_short = outcome.is_short(node.layout.bytes(node.handle.page()));
        Ok((outcome, is_short))
    }

    const fn origin(&self) -> Origin<'_> {
        (self.moment.commit, self.pages.spare())
    }

    /// Notes that a node is no longer part of the tree.
    fn gone(&mut self, child: &Child) {
        match child {
            Child::Stored(place) => self.tally.nodes.push(place.page),
            // Where it was there by the commit that is being written it is part of that.
            Child::Memory(node) if self.moment.flushing.is_some_and(|it| node.commit <= it) => {
                self.tally.replaced.push(Arc::clone(node));
            }
            Child::Memory(node) => self.tally.memory_bytes_freed += node.memory_bytes(),
        }
    }

    fn new_leaves(&mut self, changes: &[Change<'_>]) -> Vec<Piece<'s>> {
        let entries: Vec<Entry<'_>> = changes
            .iter()
            .filter_map(|change| {
                let value = EntryValue::from(change.value.as_ref()?);
                Some(Entry {
                    key: change.key,
                    value,
                })
            })
            .collect();
        self.tally.added += count(entries.len());
        self.leaves(&entries, Fill::Packed)
    }

    fn apply_to_leaf(&mut self, node: &Node<'_>, changes: &[Change<'_>]) -> Outcome<'s> {
        if let Some(outcome) = self.edit_leaf(node, changes) {
            return outcome;
        }
        let mut scratch = core::mem::take(&mut self.scratch);
        let old = entries_of(node, &scratch);
        let is_behind = match (changes.first(), old.last()) {
            (Some(change), Some(last)) => last.key < change.key,
            _ => false,
        };
        let mut came = Came::default();
        let mut entries = Vec::with_capacity(old.len() + changes.len());
        let mut changed = false;
        let mut old = old.into_iter().peekable();
        for change in changes {
            while let Some(entry) = old.next_if(|entry| entry.key < change.key) {
                entries.push(entry);
            }
            let replaced = old.next_if(|entry| entry.key == change.key);
            changed |= change.value.is_some() || replaced.is_some();
            self.tally.removed += u64::from(replaced.is_some());
            self.tally.added += u64::from(change.value.is_some());
            let is_new = replaced.is_none();
            if let Some(Entry {
                value: EntryValue::Run(run),
                ..
            }) = replaced
            {
                self.tally.runs.push(run);
            }
            if let Some(value) = &change.value {
                if is_new {
                    came.note(entries.len());
                }
                entries.push(Entry {
                    key: change.key,
                    value: value.into(),
                });
            }
        }
        entries.extend(old);
        let outcome = if changed {
            let fill = if is_behind {
                Fill::Packed
            } else {
                came.fill(&entries)
            };
            Outcome::Pieces(self.leaves(&entries, fill))
        } else {
            Outcome::Same
        };
        drop(entries);
        scratch.reset();
        self.scratch = scratch;
        outcome
    }

    /// Applies changes to the page of a leaf as it is. `None` where that cannot be.
    fn edit_leaf(&mut self, node: &Node<'_>, changes: &[Change<'_>]) -> Option<Outcome<'s>> {
        let (page, layout) = (node.handle.page(), &node.layout);
        // Of more there will be more than one page.
        if changes.len() > layout.count
            || matches!(node.handle, Handle::Memory(node) if node.has_pending_values())
        {
            return None;
        }
        let prefix = layout.prefix(page);
        let mut keys = Vec::with_capacity(changes.len());
        let mut values = Vec::with_capacity(changes.len());
        for change in changes {
            let (at, replaces) = layout.lower_bound(page, change.key);
            let new = match &change.value {
                None if !replaces => continue,
                None => None,
                Some(NewValue::Inline(value)) => Some((change.key.strip_prefix(prefix)?, *value)),
                Some(NewValue::Long(_)) => return None,
            };
            let edit = |new| Edit { at, replaces, new };
            keys.push(edit(new.map(|(key, _)| key)));
            values.push(edit(new.map(|(_, value)| value)));
        }
        if keys.is_empty() {
            return Some(Outcome::Same);
        }
        let (keys, values) = (&keys[..], &values[..]);
        let blank = || self.pages.spare().take();
        let edited = edited((page, layout), Edits { keys, values }, blank)?;
        for edit in keys {
            self.tally.removed += u64::from(edit.replaces);
            self.tally.added += u64::from(edit.new.is_some());
            if edit.replaces
                && let Some(Slot::Run(run)) = layout.slot(page, edit.at)
            {
                self.tally.runs.push(run);
            }
        }
        let leaf = MemoryNode::of_page(self.origin(), edited);
        self.tally.memory_bytes += leaf.memory_bytes();
        Some(Outcome::One(Arc::new(leaf)))
    }

    fn leaves(&mut self, entries: &[Entry<'_>], fill: Fill) -> Vec<Piece<'s>> {
        let parts: Vec<Part<'_>> = entries
            .iter()
            .map(|entry| Part {
                key: entry.key,
                value: match &entry.value {
                    EntryValue::Inline(bytes) => Cell::Inline(bytes),
                    EntryValue::Run(run) => Cell::Reference(run.encode()),
                    EntryValue::Pending(_) => Cell::Reference(NO_RUN.encode()),
                },
            })
            .collect();
        let mut pieces = Vec::new();
        let mut before: Option<&[u8]> = None;
        for run in cut(0, &parts, fill) {
            let (parts, entries) = (part_of(&parts, &run), part_of(entries, &run));
            let pending = entries.iter().enumerate().filter_map(|(index, entry)| {
                let EntryValue::Pending(value) = &entry.value else {
                    return None;
                };
                Some((index, value.clone()))
            });
            let node = MemoryNode::leaf(self.origin(), parts, pending.collect());
            let first = parts.first().map_or(&[][..], |part| part.key);
            let separator = before.map_or(&[][..], |before| separator(before, first));
            before = parts.last().map(|part| part.key);
            pieces.push(self.piece(separator, node));
        }
        pieces
    }

    fn piece(&mut self, separator: &[u8], node: MemoryNode) -> Piece<'s> {
        self.tally.memory_bytes += node.memory_bytes();
        Piece {
            separator: self.separators.alloc_slice_copy(separator),
            child: Child::Memory(Arc::new(node)),
        }
    }

    fn apply_to_branch(
        &mut self,
        node: &Node<'_>,
        changes: &[Change<'_>],
    ) -> Result<Outcome<'s>, StoreError> {
        let mut touched: Vec<Touched<'s>> = Vec::new();
        let mut left = changes;
        while let Some(change) = left.first() {
            let index = node.layout.child_index(node.handle.page(), change.key);
            let key_after = (index < node.layout.keys()).then(|| node.key(index, self.separators));
            let these = key_after.map_or(left.len(), |key| count_below(left, key));
            let (these, rest) = left.split_at(these);
            let child = child_of(node, index, self.pages)?;
            let (outcome, is_short) = self.apply(&child, node.layout.level - 1, these)?;
            if !matches!(outcome, Outcome::Same) {
                touched.push(Touched {
                    index,
                    outcome,
                    is_short,
                });
            }
            left = rest;
        }
        let Some(first_touched) = touched.first() else {
            return Ok(Outcome::Same);
        };
        let fill = if first_touched.index == node.layout.keys() {
            Fill::Packed
        } else {
            Fill::Even
        };
        let is_short = touched.iter().any(|touched| touched.is_short);
        if !is_short && let Some(branch) = self.splice(node, &touched) {
            return Ok(Outcome::One(branch));
        }
        let (mut pieces, mut next) = (Vec::with_capacity(node.layout.count + 1), 0);
        for Touched { index, outcome, .. } in touched {
            self.keep(node, next..index, &mut pieces)?;
            let at = pieces.len();
            pieces.extend(outcome.into_pieces());
            if let Some(first) = pieces.get_mut(at) {
                first.separator = self.separator_of(node, index);
            }
            next = index + 1;
        }
        self.keep(node, next..node.layout.count, &mut pieces)?;
        if is_short {
            pieces = self.join_sparse(node.layout.level - 1, pieces)?;
        }
        Ok(Outcome::Pieces(self.branches(
            node.layout.level,
            &pieces,
            fill,
        )))
    }

    /// The branch with other nodes in the place of some children, as far as they fit into its page as it is. What is
    /// beside them is not looked at.
    fn splice(&mut self, node: &Node<'_>, touched: &[Touched<'s>]) -> Option<Arc<MemoryNode>> {
        let (page, layout) = (node.handle.page(), &node.layout);
        let prefix = layout.prefix(page);
        let place = NO_PAGE.encode();
        let (mut keys, mut values, mut new) = (Vec::new(), Vec::new(), Vec::new());
        for Touched { index, outcome, .. } in touched {
            for (nth, (separator, node)) in outcome.nodes()?.into_iter().enumerate() {
                let (at, replaces) = if nth == 0 {
                    (*index, true)
                } else {
                    // It comes behind the key of the child that it was a part of.
                    keys.push(Edit {
                        at: *index,
                        replaces: false,
                        new: Some(separator.strip_prefix(prefix)?),
                    });
                    (*index + 1, false)
                };
                values.push(Edit {
                    at,
                    replaces,
                    new: Some(&place[..]),
                });
                new.push((*index, Some(Arc::clone(node))));
            }
        }
        let (keys, values) = (&keys[..], &values[..]);
        let blank = || self.pages.spare().take();
        let page = edited((page, layout), Edits { keys, values }, blank)?;
        let children = match node.handle {
            Handle::Memory(node) => node.children().map(|children| children.with(new)),
            Handle::Mapped(_) | Handle::Copied(_) => Some(Children::none(layout.count).with(new)),
        };
        let branch = MemoryNode::branch_of_page(self.origin(), page, children?);
        self.tally.memory_bytes += branch.memory_bytes();
        Some(Arc::new(branch))
    }

    /// Takes children over as they are.
    fn keep(
        &self,
        node: &Node<'_>,
        children: core::ops::Range<usize>,
        pieces: &mut Vec<Piece<'s>>,
    ) -> Result<(), StoreError> {
        for index in children {
            pieces.push(Piece {
                separator: self.separator_of(node, index),
                child: child_of(node, index, self.pages)?,
            });
        }
        Ok(())
    }

    fn separator_of(&self, node: &Node<'_>, index: usize) -> &'s [u8] {
        let Some(key) = index.checked_sub(1) else {
            return &[];
        };
        let page = node.handle.page();
        let suffix = node.layout.suffix(page, key).unwrap_or_default();
        joined(node.layout.prefix(page), suffix, self.separators)
    }

    fn branches(&mut self, level: u8, pieces: &[Piece<'s>], fill: Fill) -> Vec<Piece<'s>> {
        let places: Vec<_> = pieces
            .iter()
            .map(|piece| match &piece.child {
                Child::Stored(place) => place.encode(),
                Child::Memory(_) => NO_PAGE.encode(),
            })
            .collect();
        let parts: Vec<Part<'_>> = pieces
            .iter()
            .zip(&places)
            .map(|(piece, place)| Part {
                key: piece.separator,
                value: Cell::Inline(place),
            })
            .collect();
        cut(level, &parts, fill)
            .into_iter()
            .map(|run| {
                let pieces = part_of(pieces, &run);
                let children = pieces.iter().map(|piece| match &piece.child {
                    Child::Stored(_) => None,
                    Child::Memory(node) => Some(Arc::clone(node)),
                });
                let parts = part_of(&parts, &run);
                let node = MemoryNode::branch(self.origin(), level, parts, children.collect());
                let separator = pieces.first().map_or(&[][..], |piece| piece.separator);
                self.piece(separator, node)
            })
            .collect()
    }

    /// Joins new nodes of level `level` that hold little with one beside them, where both fit into a page.
    fn join_sparse(
        &mut self,
        level: u8,
        pieces: Vec<Piece<'s>>,
    ) -> Result<Vec<Piece<'s>>, StoreError> {
        let mut joined: Vec<Piece<'s>> = Vec::with_capacity(pieces.len());
        for piece in pieces {
            if let Some(last) = joined.last()
                && (is_sparse(&last.child) || is_sparse(&piece.child))
                && let Some(both) = self.join(level, last, &piece)?
            {
                joined.pop();
                joined.push(both);
                continue;
            }
            joined.push(piece);
        }
        Ok(joined)
    }

    /// One node in place of two that stand beside each other, if they fit.
    fn join(
        &mut self,
        level: u8,
        left: &Piece<'s>,
        right: &Piece<'s>,
    ) -> Result<Option<Piece<'s>>, StoreError> {
        let pages = self.pages;
        let [left_node, right_node] = [left, right].map(|piece| Root {
            child: piece.child.clone(),
            level,
        });
        let (l, r) = (
            Node::root(pages, &left_node)?,
            Node::root(pages, &right_node)?,
        );
        let bytes = |node: &Node<'_>| node.layout.bytes(node.handle.page());
        if bytes(&l) + bytes(&r) > BODY_BYTES {
            return Ok(None);
        }
        let made = if level == 0 {
            let arena = Bump::new();
            let mut entries = entries_of(&l, &arena);
            entries.extend(entries_of(&r, &arena));
            self.leaves(&entries, Fill::Packed)
        } else {
            let mut pieces = Vec::with_capacity(l.layout.count + r.layout.count);
            self.keep(&l, 0..l.layout.count, &mut pieces)?;
            let at = pieces.len();
            self.keep(&r, 0..r.layout.count, &mut pieces)?;
            if let Some(first) = pieces.get_mut(at) {
                first.separator = right.separator;
            }
            self.branches(level, &pieces, Fill::Packed)
        };
        let Ok([piece]) = <[Piece<'s>; 1]>::try_from(made) else {
            // Keys that share less with those of the other node take more there.
            return Ok(None);
        };
        self.gone(&left.child);
        self.gone(&right.child);
        Ok(Some(Piece {
            separator: left.separator,
            ..piece
        }))
    }

    /// The child of a root that has one alone, which can be the root in its place.
    fn only_child(&mut self, root: &Root) -> Result<Option<Root>, StoreError> {
        if root.level == 0 {
            return Ok(None);
        }
        let node = Node::root(self.pages, root)?;
        if node.layout.count > 1 {
            return Ok(None);
        }
        let child = child_of(&node, 0, self.pages)?;
        self.gone(&root.child);
        Ok(Some(Root {
            child,
            level: root.level - 1,
        }))
    }
}

/// How many of the changes, in order, are to keys below `key`: mostly a few of many, so they are searched from there on.
fn count_below(changes: &[Change<'_>], key: &[u8]) -> usize {
    let is_below = |change: &Change<'_>| change.key < key;
    let mut bound = 1;
    while changes.get(bound).is_some_and(is_below) {
        bound *= 2;
    }
    let beginning = changes.get(..=bound).unwrap_or(changes);
    beginning.partition_point(is_below)
}

/// Whether a node was made just now and could do with more entries.
fn is_sparse(child: &Child) -> bool {
    match child {
        Child::Stored(_) => false,
        Child::Memory(node) => is_sparse_node(node),
    }
}

fn is_sparse_node(node: &MemoryNode) -> bool {
    node.layout.bytes(&node.page) < SPARSE_BYTES
}

fn child_of(node: &Node<'_>, index: usize, pages: &Pages) -> Result<Child, StoreError> {
    let child = match node.handle {
        Handle::Memory(node) => node.child(index),
        Handle::Mapped(_) | Handle::Copied(_) => {
            let place = node.layout.child(node.handle.page(), index);
            place.map(Child::Stored)
        }
    };
    child.ok_or_else(|| pages.damaged(PageId::new(0), "has no such child"))
}

fn entries_of<'e>(node: &'e Node<'_>, arena: &'e Bump) -> Vec<Entry<'e>> {
    let page = node.handle.page();
    let entry = |index| {
        let pending = match node.handle {
            Handle::Memory(node) => node.pending_value(index),
            Handle::Mapped(_) | Handle::Copied(_) => None,
        };
        let value = match (pending, node.layout.slot(page, index)) {
            (Some(value), _) => EntryValue::Pending(value.clone()),
            (None, Some(Slot::Run(run))) => EntryValue::Run(run),
            (None, Some(Slot::Inline(bytes))) => EntryValue::Inline(bytes),
            (None, None) => EntryValue::Inline(&[]),
        };
        Entry {
            key: node.key(index, arena),
            value,
        }
    };
    (0..node.layout.count).map(entry).collect()
}

fn part_of<'p, T>(all: &'p [T], run: &core::ops::Range<usize>) -> &'p [T] {
    all.get(run.clone()).unwrap_or_default()
}

fn count(entries: usize) -> u64 {
    u64::try_from(entries).expect("memory has fewer than 2^64 bytes")
}
