//! Changes to leaves.

use super::came::Came;
use super::made::{Child, MadeNode};
use super::read::Node;
use super::{Change, Editor, Outcome, Piece, count, part_of, parts_of};
use crate::store::error::StoreError;
use crate::store::node::Slot;
use crate::store::node::build::{Cell, Fill, Part, cut, separator, write};
use crate::store::node::edit::{Edit, Edits, edited};
use crate::store::page::RunRef;
use crate::store::recent::Held;

impl<'s> Editor<'_, '_, 's> {
    /// What a leaf holds for a new value.
    fn cell<'v>(&mut self, held: Held<'v>) -> Result<Option<Cell<'v>>, StoreError> {
        Ok(match held {
            Held::Removed => None,
            Held::Inline(bytes) => Some(Cell::Inline(bytes)),
            Held::Long(value) => Some(Cell::Reference(self.writer.write_value(value)?.encode())),
        })
    }

    pub(super) fn new_leaves(
        &mut self,
        changes: &[Change<'_>],
    ) -> Result<Vec<Piece<'s>>, StoreError> {
        let mut entries = Vec::with_capacity(changes.len());
        for (key, held) in changes {
            if let Some(value) = self.cell(*held)? {
                entries.push(Part { key, value });
            }
        }
        self.tally.added += count(entries.len());
        self.leaves(&entries, Fill::Packed)
    }

    pub(super) fn apply_to_leaf(
        &mut self,
        node: &Node<'_>,
        changes: &[Change<'_>],
    ) -> Result<Outcome<'s>, StoreError> {
        if let Some(outcome) = self.edit_leaf(node, changes) {
            return Ok(outcome);
        }
        let mut scratch = core::mem::take(&mut self.scratch);
        let old = parts_of(node, &scratch);
        let is_behind = match (changes.first(), old.last()) {
            (Some((key, _)), Some(last)) => last.key < *key,
            _ => false,
        };
        let mut came = Came::default();
        let mut entries = Vec::with_capacity(old.len() + changes.len());
        let mut changed = false;
        let mut old = old.into_iter().peekable();
        for (key, held) in changes {
            while let Some(entry) = old.next_if(|entry| entry.key < *key) {
                entries.push(entry);
            }
            let replaced = old.next_if(|entry| entry.key == *key);
            let new = self.cell(*held)?;
            changed |= new.is_some() || replaced.is_some();
            self.tally.removed += u64::from(replaced.is_some());
            self.tally.added += u64::from(new.is_some());
            if let Some(Part {
                value: Cell::Reference(run),
                ..
            }) = &replaced
            {
                self.tally.runs.extend(RunRef::decode(run));
            }
            if let Some(value) = new {
                if replaced.is_none() {
                    came.note(entries.len());
                }
                entries.push(Part { key, value });
            }
        }
        entries.extend(old);
        let outcome = if changed {
            let fill = if is_behind {
                Fill::Packed
            } else {
                came.fill(&entries)
            };
            Outcome::Pieces(self.leaves(&entries, fill)?)
        } else {
            Outcome::Same
        };
        drop(entries);
        scratch.reset();
        self.scratch = scratch;
        Ok(outcome)
    }

    /// Applies changes to the page of a leaf as it is. `None` where that cannot be.
    fn edit_leaf(&mut self, node: &Node<'_>, changes: &[Change<'_>]) -> Option<Outcome<'s>> {
        let (page, layout) = (node.handle.page(), &node.layout);
        // Of more there will be more than one page.
        if changes.len() > layout.count {
            return None;
        }
        let prefix = layout.prefix(page);
        let mut keys = Vec::with_capacity(changes.len());
        let mut values = Vec::with_capacity(changes.len());
        for (key, held) in changes {
            let (at, replaces) = layout.lower_bound(page, key);
            let new = match held {
                Held::Removed if !replaces => continue,
                Held::Removed => None,
                Held::Inline(value) => Some((key.strip_prefix(prefix)?, *value)),
                Held::Long(_) => return None,
            };
            let edit = |new| Edit { at, replaces, new };
            keys.push(edit(new.map(|(key, _)| key)));
            values.push(edit(new.map(|(_, value)| value)));
        }
        if keys.is_empty() {
            return Some(Outcome::Same);
        }
        let (keys, values) = (&keys[..], &values[..]);
        let edited = edited((page, layout), Edits { keys, values })?;
        for edit in keys {
            self.tally.removed += u64::from(edit.replaces);
            self.tally.added += u64::from(edit.new.is_some());
            if edit.replaces
                && let Some(Slot::Run(run)) = layout.slot(page, edit.at)
            {
                self.tally.runs.push(run);
            }
        }
        Some(Outcome::Pieces(vec![Piece {
            separator: &[],
            child: Child::Made(Box::new(MadeNode::new(edited))),
        }]))
    }

    fn leaves(&mut self, entries: &[Part<'_>], fill: Fill) -> Result<Vec<Piece<'s>>, StoreError> {
        let runs = cut(0, entries, fill);
        let mut pieces = Vec::with_capacity(runs.len());
        let mut before: Option<&[u8]> = None;
        let last = runs.len().saturating_sub(1);
        for (index, run) in runs.into_iter().enumerate() {
            let parts = part_of(entries, &run);
            let first = parts.first().map_or(&[][..], |part| part.key);
            let separator = before.map_or(&[][..], |before| separator(before, first));
            before = parts.last().map(|part| part.key);
            let mut child = Child::Made(Box::new(MadeNode::new(write(0, parts))));
            // Those between others are full, so there may be as many as come at once.
            if index > 0 && index < last {
                self.write(&mut child)?;
            }
            pieces.push(Piece {
                separator: self.separators.alloc_slice_copy(separator),
                child,
            });
        }
        Ok(pieces)
    }
}
