//! The tree: looking a key up, and changing many at once.
//!
//! A change never touches a page that others may read. It makes new nodes, from the leaves up to a new root, writes
//! them to pages that nothing points to, and gives back the pages of those that they replace. All changes are
//! applied in one walk, in key order, so that a leaf is made anew once however many of its keys change. A node is written
//! once the one above it is made: until then it may be joined with the one beside it.
//!
//! * **Invariant:** all leaves are at level 0, and a branch of level n has children of level n - 1.
//! * **Invariant:** every node but the root has an entry; a branch root has two children at least.

use bumpalo::Bump;

use super::error::StoreError;
use super::node::Slot;
use super::node::build::{Cell, Fill, Part};
use super::page::{BODY_BYTES, PageId, PageRef, RunRef};
use super::page_writer::PageWriter;
use super::pages::Pages;
use super::recent::Held;
use super::space::PageMap;
use super::superblock::Superblock;

mod branch;
mod came;
mod cursor;
mod leaf;
mod made;
mod read;

pub(crate) use self::cursor::TreeCursor;
use self::made::{Child, MadeNode};
pub(crate) use self::read::{Node, Search, find, find_nearest};

/// Nodes below this many bytes are joined with one beside them.
const SPARSE_BYTES: usize = BODY_BYTES / 4;

/// Where a tree begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Root {
    pub(crate) place: PageRef,
    pub(crate) level: u8,
}

impl Root {
    /// Where the tree begins that a superblock points to.
    pub(crate) fn of(superblock: &Superblock) -> Option<Self> {
        let (place, level) = superblock.root?;
        Some(Self { place, level })
    }
}

/// What becomes of a key.
pub(crate) type Change<'a> = (&'a [u8], Held<'a>);

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
    /// These are in its place; none when it is empty now.
    Pieces(Vec<Piece<'s>>),
}

/// What changes did to a tree.
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
}

impl Tally {
    /// The pages that are no longer part of it.
    pub(crate) fn pages(&self) -> impl Iterator<Item = (PageId, u32)> {
        let nodes = self.nodes.iter().map(|page| (*page, 1));
        nodes.chain(self.runs.iter().map(|run| (run.first, run.pages())))
    }
}

/// Applies changes, in order of their keys and each key once, writes what is new, and returns the new root. Every page of
/// the tree that is read for it is one of `map`, so none of them is taken to be written meanwhile.
pub(crate) fn apply(
    (pages, map, writer): (&Pages, &PageMap, &mut PageWriter<'_>),
    root: Option<&Root>,
    changes: &[Change<'_>],
    tally: &mut Tally,
) -> Result<Option<Root>, StoreError> {
    assert!(
        changes.is_sorted_by(|(left, _), (right, _)| left < right),
        "changes come in the order of their keys"
    );
    let separators = Bump::new();
    let mut editor = Editor {
        pages,
        map,
        writer,
        tally,
        separators: &separators,
        scratch: Bump::new(),
    };
    let (mut pieces, mut level) = match root {
        None => (editor.new_leaves(changes)?, 0),
        Some(root) => match editor.apply(root.place, root.level, changes)? {
            (Outcome::Same, _) => return Ok(Some(*root)),
            (Outcome::Pieces(pieces), _) => (pieces, root.level),
        },
    };
    while pieces.len() > 1 {
        level = level
            .checked_add(1)
            .ok_or_else(|| pages.damaged(PageId::new(0), "is of another level"))?;
        pieces = editor.branches(level, pieces, Fill::Packed)?;
    }
    let Some(Piece { mut child, .. }) = pieces.pop() else {
        return Ok(None);
    };
    while level > 0
        && let Some(only) = editor.only_child(&mut child, level)?
    {
        child = only;
        level -= 1;
    }
    let place = editor.write(&mut child)?;
    Ok(Some(Root { place, level }))
}

struct Editor<'a, 'w, 's> {
    pages: &'a Pages,
    map: &'a PageMap,
    writer: &'a mut PageWriter<'w>,
    tally: &'a mut Tally,
    /// Keys that live as long as the walk.
    separators: &'s Bump,
    /// Keys of the leaf that is being made.
    scratch: Bump,
}

impl<'a, 's> Editor<'a, '_, 's> {
    /// Loads a node of the tree that was there before.
    fn load(&self, place: PageRef, level: u8) -> Result<Node<'a>, StoreError> {
        // Who can write checksums can point to a page that is free, which would be written while it is read.
        if !self.map.holds(place.page) {
            return Err(self.pages.damaged(place.page, "is used and not taken"));
        }
        Node::load(self.pages, place, level)
    }

    /// What is in a node, if that can be read.
    fn node<'n>(&'n self, child: &'n Child, level: u8) -> Result<Option<Node<'n>>, StoreError> {
        match child {
            Child::Stored(place) => self.load(*place, level).map(Some),
            Child::Written(_) => Ok(None),
            Child::Made(node) => Ok(Some(node.node())),
        }
    }

    /// Applies changes to a node; also says whether what comes of it is short: holds less than before, and could do with
    /// what one beside it has. What is small because it is new is left to grow.
    fn apply(
        &mut self,
        place: PageRef,
        level: u8,
        changes: &[Change<'_>],
    ) -> Result<(Outcome<'s>, bool), StoreError> {
        let node = self.load(place, level)?;
        let outcome = if level == 0 {
            self.apply_to_leaf(&node, changes)?
        } else {
            self.apply_to_branch(&node, changes)?
        };
        let Outcome::Pieces(pieces) = &outcome else {
            return Ok((outcome, false));
        };
        self.tally.nodes.push(place.page);
        let made = pieces.iter().map(|piece| piece.child.made());
        let is_sparse = pieces.is_empty() || pieces.iter().any(|piece| piece.child.is_sparse());
        let bytes: usize = made
            .map(|made| made.map_or(BODY_BYTES, MadeNode::bytes))
            .sum();
        let is_short = is_sparse && bytes < node.layout.bytes(node.handle.page());
        Ok((outcome, is_short))
    }

    /// Writes a node that was made, unless it was written.
    fn write(&mut self, child: &mut Child) -> Result<PageRef, StoreError> {
        let place = match child {
            Child::Stored(place) | Child::Written(place) => return Ok(*place),
            Child::Made(node) => {
                if let Some(mut only) = node.only.take() {
                    let place = self.write(&mut only)?;
                    node.place(0, place);
                }
                self.writer.write_node(&node.page)?
            }
        };
        *child = Child::Written(place);
        Ok(place)
    }

    /// The child of a root of level `level` that has one alone, which can be the root in its place.
    fn only_child(&mut self, root: &mut Child, level: u8) -> Result<Option<Child>, StoreError> {
        let place = match root {
            Child::Made(node) => return Ok(node.only.take()),
            // One that was written has been made of several.
            Child::Written(_) => return Ok(None),
            Child::Stored(place) => *place,
        };
        let node = self.load(place, level)?;
        if node.layout.count > 1 {
            return Ok(None);
        }
        let child = self.child_of(&node, 0)?;
        self.tally.nodes.push(place.page);
        Ok(Some(Child::Stored(child)))
    }
}

/// What a node is made of, with keys in the arena.
fn parts_of<'e>(node: &'e Node<'_>, arena: &'e Bump) -> Vec<Part<'e>> {
    let page = node.handle.page();
    let part = |index: usize| {
        let key = if node.layout.is_leaf() {
            Some(index)
        } else {
            index.checked_sub(1)
        };
        Part {
            key: key.map_or(&[][..], |key| node.key(key, arena)),
            value: match node.layout.slot(page, index) {
                Some(Slot::Run(run)) => Cell::Reference(run.encode()),
                Some(Slot::Inline(bytes)) => Cell::Inline(bytes),
                None => Cell::Inline(&[]),
            },
        }
    };
    (0..node.layout.count).map(part).collect()
}

fn part_of<'p, T>(all: &'p [T], run: &core::ops::Range<usize>) -> &'p [T] {
    all.get(run.clone()).unwrap_or_default()
}

fn count(entries: usize) -> u64 {
    u64::try_from(entries).expect("memory has fewer than 2^64 bytes")
}
