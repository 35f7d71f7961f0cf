//! Changes a leaf or a branch without taking it apart: what stays is copied in whole runs.
//!
//! A leaf keeps the prefix and the shape of its keys and values. Where these would be others, or the page
//! would be too full, nothing is made, and the node is put together anew from all of its entries.

use super::super::page::{BODY_BYTES, PAGE_BYTES, Page};
use super::{ELSEWHERE, Layout, Shape, read_u16};

#[cfg(test)]
mod tests;

/// A change to the keys of a node, or to its values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Edit<'a> {
    /// The key or value, or the one before which another one comes.
    pub(crate) at: usize,
    /// Whether it goes.
    pub(crate) replaces: bool,
    /// What comes: a key without the prefix, or a value.
    pub(crate) new: Option<&'a [u8]>,
}

impl Edit<'_> {
    /// The first one behind it that stays.
    const fn end(&self) -> usize {
        if self.replaces { self.at + 1 } else { self.at }
    }
}

/// Which part of an entry.
#[derive(Clone, Copy)]
enum Part {
    Key,
    Value,
}

/// The changes to a node, in order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Edits<'a> {
    /// Those to its keys.
    pub(crate) keys: &'a [Edit<'a>],
    /// Those to its values.
    pub(crate) values: &'a [Edit<'a>],
}

/// The node as it is with `edits`.
pub(crate) fn edited((page, layout): (&Page, &Layout), edits: Edits<'_>) -> Option<Box<Page>> {
    let editor = Editor {
        page,
        layout,
        edits,
    };
    let (keys, count) = (editor.count(Part::Key)?, editor.count(Part::Value)?);
    let ends = |shape, entries| match shape {
        Shape::Equal(_) => 0,
        Shape::EndsAt(_) => 2 * entries,
    };
    let bytes = layout.prefix_end
        + ends(layout.key_shape, keys)
        + ends(layout.value_shape, count)
        + editor.bytes(Part::Key)?
        + editor.bytes(Part::Value)?;
    if count == 0 || bytes > BODY_BYTES {
        return None;
    }
    let mut out = Out {
        page: Box::new([0; PAGE_BYTES]),
        at: 0,
    };
    out.put(page.get(..layout.prefix_end)?)?;
    let count = u16::try_from(count).ok()?.to_le_bytes();
    out.page.get_mut(2..4)?.copy_from_slice(&count);
    editor.put_ends(Part::Key, &mut out)?;
    editor.put_ends(Part::Value, &mut out)?;
    editor.put_bytes(Part::Key, &mut out)?;
    editor.put_bytes(Part::Value, &mut out)?;
    assert_eq!(out.at, bytes, "a node is as long as was reckoned");
    Some(out.page)
}

struct Editor<'a> {
    page: &'a Page,
    layout: &'a Layout,
    edits: Edits<'a>,
}

impl<'a> Editor<'a> {
    const fn edits(&self, part: Part) -> &'a [Edit<'a>] {
        match part {
            Part::Key => self.edits.keys,
            Part::Value => self.edits.values,
        }
    }

    /// How many there were.
    const fn before(&self, part: Part) -> usize {
        match part {
            Part::Key => self.layout.keys,
            Part::Value => self.layout.count,
        }
    }

    /// How many there will be.
    fn count(&self, part: Part) -> Option<usize> {
        let edits = self.edits(part);
        let gone = edits.iter().filter(|edit| edit.replaces).count();
        let new = edits.iter().filter(|edit| edit.new.is_some()).count();
        (self.before(part) + new).checked_sub(gone)
    }

    const fn shape(&self, part: Part) -> Shape {
        match part {
            Part::Key => self.layout.key_shape,
            Part::Value => self.layout.value_shape,
        }
    }

    fn edge(&self, part: Part, index: usize) -> Option<usize> {
        self.shape(part).edge(self.page, index)
    }

    /// Bytes of all keys or values; `None` when one does not have the length that all have.
    fn bytes(&self, part: Part) -> Option<usize> {
        let shape = self.shape(part);
        let mut bytes = self.edge(part, self.before(part))?;
        for edit in self.edits(part) {
            if edit.replaces {
                let (start, end) = (self.edge(part, edit.at)?, self.edge(part, edit.at + 1)?);
                bytes = bytes.checked_sub(end.checked_sub(start)?)?;
            }
            if let Some(new) = edit.new {
                if matches!(shape, Shape::Equal(bytes) if bytes != new.len()) {
                    return None;
                }
                bytes += new.len();
            }
        }
        Some(bytes)
    }

    /// Calls `keep` with the runs of entries that stay, and `add` with each edit between them.
    fn go<T>(
        &self,
        part: Part,
        out: &mut T,
        keep: impl Fn(&mut T, usize, usize) -> Option<()>,
        add: impl Fn(&mut T, &Edit<'_>) -> Option<()>,
    ) -> Option<()> {
        let mut next = 0;
        for edit in self.edits(part) {
            keep(out, next, edit.at)?;
            add(out, edit)?;
            next = edit.end();
        }
        keep(out, next, self.before(part))
    }

    fn put_ends(&self, part: Part, out: &mut Out) -> Option<()> {
        let Shape::EndsAt(at) = self.shape(part) else {
            return Some(());
        };
        let mut state = (out, 0_usize);
        self.go(
            part,
            &mut state,
            |(out, end), from, to| {
                let before = self.edge(part, from)?;
                for index in from..to {
                    let old = read_u16(self.page, at + 2 * index)?;
                    let mark = old & usize::from(ELSEWHERE);
                    let bytes = (old ^ mark).checked_sub(before)?;
                    out.put_u16((*end + bytes) | mark)?;
                }
                *end += self.edge(part, to)?.checked_sub(before)?;
                Some(())
            },
            |(out, end), edit| {
                let Some(new) = edit.new else {
                    return Some(());
                };
                *end += new.len();
                out.put_u16(*end)
            },
        )
    }

    fn put_bytes(&self, part: Part, out: &mut Out) -> Option<()> {
        let start = match part {
            Part::Key => self.layout.keys_at,
            Part::Value => self.layout.values_at,
        };
        self.go(
            part,
            out,
            |out, from, to| {
                let (from, to) = (self.edge(part, from)?, self.edge(part, to)?);
                out.put(self.page.get(start + from..start + to)?)
            },
            |out, edit| out.put(edit.new.unwrap_or_default()),
        )
    }
}

struct Out {
    page: Box<Page>,
    at: usize,
}

impl Out {
    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.at + bytes.len();
        self.page.get_mut(self.at..end)?.copy_from_slice(bytes);
        self.at = end;
        Some(())
    }

    fn put_u16(&mut self, number: usize) -> Option<()> {
        self.put(&u16::try_from(number).ok()?.to_le_bytes())
    }
}
