//! Changes to branches: other children in the place of some, and such as hold little joined.

use bumpalo::Bump;

use super::made::{Child, MadeNode, NO_PAGE};
use super::read::{Node, joined};
use super::{Change, Editor, Outcome, Piece, part_of, parts_of};
use crate::store::error::StoreError;
use crate::store::node::build::{Cell, Fill, Part, cut, write};
use crate::store::node::edit::{Edit, Edits, edited};
use crate::store::page::{BODY_BYTES, Page, PageId, PageRef};

/// A child that changed.
struct Touched<'s> {
    index: usize,
    pieces: Vec<Piece<'s>>,
}

/// A child that came, and where.
struct NewChild<'s> {
    /// The child that it is in the place of, or behind.
    index: usize,
    /// The key that it begins at, unless that is the one of the child in whose place it is.
    separator: Option<&'s [u8]>,
    place: [u8; PageRef::BYTES],
}

impl<'s> Editor<'_, '_, 's> {
    pub(super) fn apply_to_branch(
        &mut self,
        node: &Node<'_>,
        changes: &[Change<'_>],
    ) -> Result<Outcome<'s>, StoreError> {
        let level = node.layout.level - 1;
        let (mut touched, mut is_short) = (Vec::new(), false);
        let mut left = changes;
        while let Some((key, _)) = left.first() {
            let index = node.layout.child_index(node.handle.page(), key);
            let key_after = (index < node.layout.keys()).then(|| node.key(index, self.separators));
            let these = key_after.map_or(left.len(), |key| count_below(left, key));
            let (these, rest) = left.split_at(these);
            let (outcome, is_this_short) = self.apply(self.child_of(node, index)?, level, these)?;
            if let Outcome::Pieces(pieces) = outcome {
                touched.push(Touched { index, pieces });
                is_short |= is_this_short;
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
        if !is_short && let Some(branch) = self.splice(node, &mut touched)? {
            return Ok(Outcome::Pieces(vec![branch]));
        }
        let (mut pieces, mut next) = (Vec::with_capacity(node.layout.count + 1), 0);
        for Touched { index, pieces: new } in touched {
            self.keep(node, next..index, &mut pieces)?;
            let at = pieces.len();
            pieces.extend(new);
            if let Some(first) = pieces.get_mut(at) {
                first.separator = self.separator_of(node, index);
            }
            next = index + 1;
        }
        self.keep(node, next..node.layout.count, &mut pieces)?;
        if is_short {
            pieces = self.join_sparse(level, pieces)?;
        }
        let branches = self.branches(node.layout.level, pieces, fill)?;
        Ok(Outcome::Pieces(branches))
    }

    /// The branch with other nodes in the place of some children, as far as they fit into its page as it is. What is
    /// beside them is not looked at.
    fn splice(
        &mut self,
        node: &Node<'_>,
        touched: &mut [Touched<'s>],
    ) -> Result<Option<Piece<'s>>, StoreError> {
        // Of one child there may be one again, which may become the root.
        if node.layout.count < 2 {
            return Ok(None);
        }
        let mut came = Vec::with_capacity(touched.len());
        for Touched { index, pieces } in touched {
            for (nth, piece) in pieces.iter_mut().enumerate() {
                came.push(NewChild {
                    index: *index,
                    separator: (nth > 0).then_some(piece.separator),
                    place: self.write(&mut piece.child)?.encode(),
                });
            }
        }
        Ok(spliced(node, &came).map(|page| Piece {
            separator: &[],
            child: Child::Made(Box::new(MadeNode::new(page))),
        }))
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
                child: Child::Stored(self.child_of(node, index)?),
            });
        }
        Ok(())
    }

    pub(super) fn child_of(&self, node: &Node<'_>, index: usize) -> Result<PageRef, StoreError> {
        let place = node.layout.child(node.handle.page(), index);
        place.ok_or_else(|| self.pages.damaged(PageId::new(0), "has no such child"))
    }

    fn separator_of(&self, node: &Node<'_>, index: usize) -> &'s [u8] {
        let Some(key) = index.checked_sub(1) else {
            return &[];
        };
        let page = node.handle.page();
        let suffix = node.layout.suffix(page, key).unwrap_or_default();
        joined(node.layout.prefix(page), suffix, self.separators)
    }

    /// Makes the branches of level `level` that have `pieces` for children, which are written.
    pub(super) fn branches(
        &mut self,
        level: u8,
        mut pieces: Vec<Piece<'s>>,
        fill: Fill,
    ) -> Result<Vec<Piece<'s>>, StoreError> {
        // Of a tree that shrinks the one child may become the root.
        if let [piece] = &mut pieces[..] {
            let child = core::mem::replace(&mut piece.child, Child::Written(NO_PAGE));
            let place = NO_PAGE.encode();
            let part = Part {
                key: piece.separator,
                value: Cell::Inline(&place),
            };
            let mut node = MadeNode::new(write(level, &[part]));
            node.only = Some(child);
            piece.child = Child::Made(Box::new(node));
            return Ok(pieces);
        }
        let mut places = Vec::with_capacity(pieces.len());
        for piece in &mut pieces {
            places.push(self.write(&mut piece.child)?.encode());
        }
        let parts: Vec<Part<'_>> = pieces
            .iter()
            .zip(&places)
            .map(|(piece, place)| Part {
                key: piece.separator,
                value: Cell::Inline(place),
            })
            .collect();
        let branch = |run| {
            let parts = part_of(&parts, &run);
            Piece {
                separator: pieces
                    .get(run.start)
                    .map_or(&[][..], |piece| piece.separator),
                child: Child::Made(Box::new(MadeNode::new(write(level, parts)))),
            }
        };
        Ok(cut(level, &parts, fill).into_iter().map(branch).collect())
    }

    /// Joins new nodes of level `level` that hold little with one beside them, where both fit into a page.
    fn join_sparse(
        &mut self,
        level: u8,
        pieces: Vec<Piece<'s>>,
    ) -> Result<Vec<Piece<'s>>, StoreError> {
        let mut joined: Vec<Piece<'s>> = Vec::with_capacity(pieces.len());
        for mut piece in pieces {
            if let Some(last) = joined.last_mut()
                && (last.child.is_sparse() || piece.child.is_sparse())
                && let Some(both) = self.join(level, last, &mut piece)?
            {
                *last = both;
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
        left: &mut Piece<'s>,
        right: &mut Piece<'s>,
    ) -> Result<Option<Piece<'s>>, StoreError> {
        for piece in [&mut *left, &mut *right] {
            if let Child::Made(node) = &mut piece.child
                && let Some(mut only) = node.only.take()
            {
                let place = self.write(&mut only)?;
                node.place(0, place);
            }
        }
        let nodes = (
            self.node(&left.child, level)?,
            self.node(&right.child, level)?,
        );
        let (Some(l), Some(r)) = nodes else {
            return Ok(None);
        };
        let bytes = |node: &Node<'_>| node.layout.bytes(node.handle.page());
        if bytes(&l) + bytes(&r) > BODY_BYTES {
            return Ok(None);
        }
        let arena = Bump::new();
        let mut parts = parts_of(&l, &arena);
        let at = parts.len();
        parts.extend(parts_of(&r, &arena));
        if let Some(first) = parts.get_mut(at)
            && level > 0
        {
            first.key = right.separator;
        }
        if cut(level, &parts, Fill::Packed).len() > 1 {
            // Keys that share less with those of the other node take more there.
            return Ok(None);
        }
        let node = MadeNode::new(write(level, &parts));
        for piece in [&*left, right] {
            if let Child::Stored(place) = piece.child {
                self.tally.nodes.push(place.page);
            }
        }
        Ok(Some(Piece {
            separator: left.separator,
            child: Child::Made(Box::new(node)),
        }))
    }
}

/// The page of a branch with children that came.
fn spliced(node: &Node<'_>, came: &[NewChild<'_>]) -> Option<Box<Page>> {
    let (page, layout) = (node.handle.page(), &node.layout);
    let prefix = layout.prefix(page);
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    for NewChild {
        index,
        separator,
        place,
    } in came
    {
        if let Some(separator) = separator {
            // It comes behind the key of the child that it was a part of.
            keys.push(Edit {
                at: *index,
                replaces: false,
                new: Some(separator.strip_prefix(prefix)?),
            });
        }
        values.push(Edit {
            at: index + usize::from(separator.is_some()),
            replaces: separator.is_none(),
            new: Some(place),
        });
    }
    let (keys, values) = (&keys[..], &values[..]);
    edited((page, layout), Edits { keys, values })
}

/// How many of the changes, in order, are to keys below `key`: mostly a few of many, so they are searched from there on.
fn count_below(changes: &[Change<'_>], key: &[u8]) -> usize {
    let is_below = |change: &Change<'_>| change.0 < key;
    let mut bound = 1;
    while changes.get(bound).is_some_and(is_below) {
        bound *= 2;
    }
    let beginning = changes.get(..=bound).unwrap_or(changes);
    beginning.partition_point(is_below)
}
