//! Nodes of the tree: a page that holds keys in order, and what belongs to each.
//!
//! | at | bytes    | what                                                                        |
//! | -- | -------- | --------------------------------------------------------------------------- |
//! | 0  | 1        | kind: 1 leaf, 2 branch                                                      |
//! | 1  | 1        | level: 0 in a leaf, one more than that of its children in a branch          |
//! | 2  | 2        | entries n                                                                   |
//! | 4  | 2        | bytes p of the prefix that all keys have                                    |
//! | 6  | 2        | bytes of each key behind the prefix; 65,535 when they differ                |
//! | 8  | 2        | bytes of each value; 65,535 when they differ                                |
//! | 10 | 2        | 0                                                                           |
//! | 12 | p        | the prefix                                                                  |
//! |    | 2k or 0  | where each key ends, from the first key on; when they differ                |
//! |    | 2n or 0  | where each value ends, from the first value on; when they differ            |
//! |    |          | keys without the prefix                                                     |
//! |    |          | values                                                                      |
//!
//! A leaf has k = n keys. A branch has k = n - 1: the first child holds whatever is below the first
//! key, child i what is at or above key i - 1. The value of a branch is a [`PageRef`] of 12 bytes.
//! In a leaf whose values differ in length, the highest bit of an end says that the value is a
//! [`RunRef`] of 16 bytes to the pages that hold it. All integers are little-endian.

use core::cmp::Ordering;

use super::page::{BODY_BYTES, PAGE_BYTES, Page, PageRef, RunRef};
use super::{INLINE_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};

pub(crate) mod build;
pub(crate) mod edit;
#[cfg(test)]
mod tests;

/// Bytes before the prefix.
const HEADER_BYTES: usize = 12;
/// Stands for lengths that differ.
const DIFFER: u16 = u16::MAX;
/// Marks the end of a value that lies in pages of its own.
const ELSEWHERE: u16 = 1 << 15;
/// Bytes of a key that are compared as one integer.
const WORD_BYTES: usize = 8;

/// The shortest value that stands in pages of its own.
const RUN_BYTES_MIN: u32 = 901;
/// [`VALUE_BYTES_MAX`] in `u32`.
const VALUE_BYTES_MAX_U32: u32 = 16 << 20;

const KIND_LEAF: u8 = 1;
const KIND_BRANCH: u8 = 2;

// A word that begins anywhere in the body ends in the page.
const _: () = assert!(BODY_BYTES + WORD_BYTES <= PAGE_BYTES);
const _: () = assert!(VALUE_BYTES_MAX_U32 as usize == VALUE_BYTES_MAX);
const _: () = assert!(RUN_BYTES_MIN as usize == INLINE_BYTES_MAX + 1);

/// What a node holds for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot<'a> {
    Inline(&'a [u8]),
    Run(RunRef),
}

/// Where things are in a node. Holds numbers only, so that it can be kept beside the page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) level: u8,
    /// Entries of a leaf, children of a branch.
    pub(crate) count: usize,
    keys: usize,
    prefix_end: usize,
    /// Bytes of each key, or where the ends of keys begin.
    key_shape: Shape,
    value_shape: Shape,
    keys_at: usize,
    values_at: usize,
}

#[derive(Clone, Copy, Debug)]
enum Shape {
    Equal(usize),
    EndsAt(usize),
}

impl Layout {
    /// Reads where things are. `None` when it cannot be so; [`check`](Self::check) says whether all
    /// of the node can be.
    pub(crate) fn read(page: &Page) -> Option<Self> {
        let [kind, level] = *page.first_chunk()?;
        let count = read_u16(page, 2)?;
        let prefix_end = HEADER_BYTES.checked_add(read_u16(page, 4)?)?;
        let is_leaf = match kind {
            KIND_LEAF if level == 0 => true,
            KIND_BRANCH if level > 0 => false,
            _ => return None,
        };
        if count == 0 || prefix_end > BODY_BYTES {
            return None;
        }
        let keys = if is_leaf { count } else { count - 1 };
        let mut at = prefix_end;
        let mut shape = |offset: usize, entries: usize| {
            let bytes = read_u16(page, offset)?;
            if bytes == usize::from(DIFFER) {
                let ends = at;
                at = at.checked_add(entries.checked_mul(2)?)?;
                return Some(Shape::EndsAt(ends));
            }
            Some(Shape::Equal(bytes))
        };
        let key_shape = shape(6, keys)?;
        let value_shape = shape(8, count)?;
        let keys_at = at;
        let mut layout = Self {
            level,
            count,
            keys,
            prefix_end,
            key_shape,
            value_shape,
            keys_at,
            values_at: 0,
        };
        layout.values_at = keys_at.checked_add(key_shape.edge(page, keys)?)?;
        (layout.values_at <= BODY_BYTES).then_some(layout)
    }

    /// Whether every key and every value can be where the node says, and the keys are in order.
    pub(crate) fn check(&self, page: &Page) -> bool {
        let in_order = |shape: Shape, entries| {
            (0..entries).all(|entry| shape.edge(page, entry) <= shape.edge(page, entry + 1))
        };
        let fits = self
            .value_shape
            .edge(page, self.count)
            .is_some_and(|bytes| self.values_at + bytes <= BODY_BYTES);
        let shapes = in_order(self.key_shape, self.keys) && in_order(self.value_shape, self.count);
        let ascending = (1..self.keys).all(|index| {
            match (self.suffix(page, index - 1), self.suffix(page, index)) {
                (Some(left), Some(right)) => left < right,
                _ => false,
            }
        });
        // Longer ones could leave a branch no room for two children.
        let key_bytes_max = KEY_BYTES_MAX.saturating_sub(self.prefix(page).len());
        let short = (0..self.keys).all(|index| {
            self.suffix(page, index)
                .is_some_and(|suffix| suffix.len() <= key_bytes_max)
        });
        let is_blank = read_u16(page, 10) == Some(0) && self.prefix(page).len() <= KEY_BYTES_MAX;
        is_blank
            && short
            && fits
            && shapes
            && ascending
            && (0..self.count).all(|index| self.has_value(page, index))
    }

    fn has_value(&self, page: &Page, index: usize) -> bool {
        if self.is_leaf() {
            match self.slot(page, index) {
                Some(Slot::Run(run)) => (RUN_BYTES_MIN..=VALUE_BYTES_MAX_U32).contains(&run.bytes),
                slot => slot.is_some(),
            }
        } else {
            matches!(self.value_shape, Shape::Equal(PageRef::BYTES))
                && self.child(page, index).is_some()
        }
    }

    pub(crate) const fn is_leaf(&self) -> bool {
        self.level == 0
    }

    /// How many bytes of the body are taken.
    pub(crate) fn bytes(&self, page: &Page) -> usize {
        let values = self.value_shape.edge(page, self.count);
        self.values_at + values.unwrap_or(0)
    }

    /// How many keys the node has: one fewer than children in a branch.
    pub(crate) const fn keys(&self) -> usize {
        self.keys
    }

    pub(crate) fn prefix<'a>(&self, page: &'a Page) -> &'a [u8] {
        page.get(HEADER_BYTES..self.prefix_end).unwrap_or_default()
    }

    /// Key `index` without the prefix.
    pub(crate) fn suffix<'a>(&self, page: &'a Page, index: usize) -> Option<&'a [u8]> {
        let start = self.key_shape.edge(page, index)?;
        let end = self.key_shape.edge(page, index + 1)?;
        page.get(self.keys_at + start..self.keys_at + end)
    }

    /// The value of entry `index` of a leaf.
    pub(crate) fn slot<'a>(&self, page: &'a Page, index: usize) -> Option<Slot<'a>> {
        let start = self.value_shape.edge(page, index)?;
        let end = self.value_shape.edge(page, index + 1)?;
        let bytes = page.get(self.values_at + start..self.values_at + end)?;
        if self.is_elsewhere(page, index) {
            return (bytes.len() == RunRef::BYTES)
                .then(|| RunRef::decode(bytes))?
                .map(Slot::Run);
        }
        Some(Slot::Inline(bytes))
    }

    /// Where the value of entry `index` stands in the page.
    pub(crate) fn value_at(&self, page: &Page, index: usize) -> Option<usize> {
        Some(self.values_at + self.value_shape.edge(page, index)?)
    }

    /// Child `index` of a branch.
    pub(crate) fn child(&self, page: &Page, index: usize) -> Option<PageRef> {
        let start = self.values_at + index * PageRef::BYTES;
        PageRef::decode(page.get(start..start + PageRef::BYTES)?)
    }

    /// The first entry of a leaf whose key is at or above `key`, and whether it is `key`.
    pub(crate) fn lower_bound(&self, page: &Page, key: &[u8]) -> (usize, bool) {
        match self.rest_of(page, key) {
            Ok(rest) => {
                let index = self.partition(page, rest, false);
                (
                    index,
                    index < self.keys && self.suffix(page, index) == Some(rest),
                )
            }
            Err(index) => (index, false),
        }
    }

    /// The child of a branch that holds `key`.
    pub(crate) fn child_index(&self, page: &Page, key: &[u8]) -> usize {
        match self.rest_of(page, key) {
            Ok(rest) => self.partition(page, rest, true),
            Err(index) => index,
        }
    }

    /// What `key` has behind the prefix, or the entry that it stands before when it has another.
    fn rest_of<'k>(&self, page: &Page, key: &'k [u8]) -> Result<&'k [u8], usize> {
        let prefix = self.prefix(page);
        let (beginning, rest) = key
            .split_at_checked(prefix.len())
            .unwrap_or((key, Default::default()));
        match beginning.cmp(prefix) {
            Ordering::Equal => Ok(rest),
            Ordering::Less => Err(0),
            Ordering::Greater => Err(self.keys),
        }
    }

    /// How many keys are below `rest`; with `equal_too` also those that are `rest`.
    fn partition(&self, page: &Page, rest: &[u8], equal_too: bool) -> usize {
        if let Shape::Equal(bytes) = self.key_shape
            && bytes == rest.len()
            && bytes <= WORD_BYTES
        {
            return self.partition_words(page, rest, equal_too);
        }
        let (mut low, mut high) = (0, self.keys);
        while low < high {
            let middle = low.midpoint(high);
            let suffix = self.suffix(page, middle).unwrap_or_default();
            let below = match suffix.cmp(rest) {
                Ordering::Less => true,
                Ordering::Equal => equal_too,
                Ordering::Greater => false,
            };
            if below {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The same for short keys of one length, which compare as integers.
    fn partition_words(&self, page: &Page, rest: &[u8], equal_too: bool) -> usize {
        let bytes = rest.len();
        if bytes == 0 {
            return if equal_too { self.keys } else { 0 };
        }
        let shift = 8 * (WORD_BYTES - bytes);
        let mut padded = [0; WORD_BYTES];
        let (beginning, _) = padded.split_at_mut(bytes);
        beginning.copy_from_slice(rest);
        let wanted = u64::from_le_bytes(padded).swap_bytes() >> shift;
        // No key may be above, so the bound of what counts as below is one more when equal counts.
        let is_below = |index: usize| {
            let at = self.keys_at + index * bytes;
            let word = page
                .get(at..at + WORD_BYTES)
                .and_then(|word| word.first_chunk())
                .map_or(u64::MAX, |word| u64::from_le_bytes(*word).swap_bytes());
            let key = word >> shift;
            key < wanted || (equal_too && key == wanted)
        };
        let (mut low, mut left) = (0, self.keys);
        while left > 1 {
            let half = left / 2;
            low = if is_below(low + half - 1) {
                low + half
            } else {
                low
            };
            left -= half;
        }
        low + usize::from(left == 1 && is_below(low))
    }

    fn is_elsewhere(&self, page: &Page, index: usize) -> bool {
        match self.value_shape {
            Shape::Equal(_) => false,
            Shape::EndsAt(at) => {
                read_u16(page, at + 2 * index).is_some_and(|end| end & usize::from(ELSEWHERE) != 0)
            }
        }
    }
}

impl Shape {
    /// Where entry `index` begins and the one before it ends, counted from the first one.
    #[inline]
    fn edge(self, page: &Page, index: usize) -> Option<usize> {
        match self {
            Self::Equal(bytes) => bytes.checked_mul(index),
            Self::EndsAt(_) if index == 0 => Some(0),
            Self::EndsAt(at) => {
                read_u16(page, at + 2 * (index - 1)).map(|end| end & !usize::from(ELSEWHERE))
            }
        }
    }
}

#[inline]
fn read_u16(page: &Page, at: usize) -> Option<usize> {
    let bytes = page.get(at..)?.first_chunk()?;
    Some(usize::from(u16::from_le_bytes(*bytes)))
}
