//! Writes nodes: how many entries fit into a page, and their bytes.

use core::ops::Range;

use super::super::page::{BODY_BYTES, PAGE_BYTES, Page};
use super::{DIFFER, ELSEWHERE, HEADER_BYTES, KIND_BRANCH, KIND_LEAF};

/// What a node takes for one entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<'a> {
    /// The whole key. That of the first child of a branch is not written.
    pub(crate) key: &'a [u8],
    /// The bytes of the value in the node.
    pub(crate) value: Cell<'a>,
}

/// The bytes of a value in the node.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cell<'a> {
    /// Those of the value, or of a child's reference.
    Inline(&'a [u8]),
    /// Those of a reference to the pages of a long value.
    Reference([u8; super::RunRef::BYTES]),
}

impl Cell<'_> {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Inline(bytes) => bytes,
            Self::Reference(bytes) => bytes,
        }
    }

    const fn is_reference(&self) -> bool {
        matches!(self, Self::Reference(_))
    }
}

/// How full the pages become that entries are spread over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    /// One after the other, as full as can be: what follows will come behind them.
    Packed,
    /// All about the same.
    Even,
    /// Packed on either side of an entry, which begins a page, where that takes no more pages; else even.
    Before(usize),
}

/// Cuts entries into runs of which each fits into a page.
pub(crate) fn cut(level: u8, parts: &[Part<'_>], fill: Fill) -> Vec<Range<usize>> {
    let (runs, bytes) = cut_at(level, parts, BODY_BYTES);
    if fill == Fill::Packed || runs.len() < 2 {
        return runs;
    }
    if let Fill::Before(entry) = fill
        && let Some((before, from)) = parts.split_at_checked(entry)
    {
        let mut apart = cut_at(level, before, BODY_BYTES).0;
        let behind = cut_at(level, from, BODY_BYTES).0.into_iter();
        apart.extend(behind.map(|run| run.start + entry..run.end + entry));
        if apart.len() <= runs.len() {
            return apart;
        }
    }
    cut_at(level, parts, bytes.div_ceil(runs.len())).0
}

/// Cuts behind the entry with which a page reaches `enough` bytes, or before the one that does not
/// fit. Also says how many bytes all pages take.
fn cut_at(level: u8, parts: &[Part<'_>], enough: usize) -> (Vec<Range<usize>>, usize) {
    let (mut runs, mut total) = (Vec::new(), 0);
    let (mut start, mut size) = (0, Size::new(level));
    for (index, part) in parts.iter().enumerate() {
        let mut with = size;
        with.add(parts, start, index, part);
        if start < index && (with.bytes() > BODY_BYTES || size.bytes() >= enough) {
            runs.push(start..index);
            total += size.bytes();
            start = index;
            with = Size::new(level);
            with.add(parts, start, index, part);
        }
        size = with;
    }
    if start < parts.len() {
        runs.push(start..parts.len());
        total += size.bytes();
    }
    (runs, total)
}

/// How many bytes entries take in one page.
#[derive(Clone, Copy, Debug)]
struct Size {
    is_leaf: bool,
    keys: usize,
    key_bytes: usize,
    prefix_bytes: usize,
    key_length: Length,
    values: usize,
    value_bytes: usize,
    value_length: Length,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    None,
    Equal(usize),
    Differ,
}

impl Length {
    fn and(self, bytes: usize) -> Self {
        match self {
            Self::None => Self::Equal(bytes),
            Self::Equal(other) if other == bytes => self,
            Self::Equal(_) | Self::Differ => Self::Differ,
        }
    }

    /// What the node says of the length, where each entry has `shared` bytes fewer.
    fn code(self, shared: usize) -> u16 {
        match self {
            Self::None => 0,
            Self::Equal(bytes) => small(bytes - shared),
            Self::Differ => DIFFER,
        }
    }

    fn ends_bytes(self, entries: usize) -> usize {
        if self == Self::Differ { 2 * entries } else { 0 }
    }
}

impl Size {
    const fn new(level: u8) -> Self {
        Self {
            is_leaf: level == 0,
            keys: 0,
            key_bytes: 0,
            prefix_bytes: 0,
            key_length: Length::None,
            values: 0,
            value_bytes: 0,
            value_length: Length::None,
        }
    }

    /// Adds entry `index` of a page that begins with entry `start`.
    fn add(&mut self, parts: &[Part<'_>], start: usize, index: usize, part: &Part<'_>) {
        let value = part.value.as_slice().len();
        self.values += 1;
        self.value_bytes += value;
        self.value_length = if part.value.is_reference() {
            Length::Differ
        } else {
            self.value_length.and(value)
        };
        let first = if self.is_leaf { start } else { start + 1 };
        if index < first {
            return;
        }
        let first = parts.get(first).map_or(part.key, |part| part.key);
        self.prefix_bytes = if self.keys == 0 {
            part.key.len()
        } else {
            self.prefix_bytes.min(shared_bytes(first, part.key))
        };
        self.keys += 1;
        self.key_bytes += part.key.len();
        self.key_length = self.key_length.and(part.key.len());
    }

    fn bytes(&self) -> usize {
        let suffixes = self.key_bytes - self.keys * self.prefix_bytes;
        HEADER_BYTES
            + self.prefix_bytes
            + self.key_length.ends_bytes(self.keys)
            + self.value_length.ends_bytes(self.values)
            + suffixes
            + self.value_bytes
    }
}

/// Writes a node of entries that fit into a page.
pub(crate) fn write(level: u8, parts: &[Part<'_>]) -> Box<Page> {
    let mut size = Size::new(level);
    for (index, part) in parts.iter().enumerate() {
        size.add(parts, 0, index, part);
    }
    assert!(size.bytes() <= BODY_BYTES, "what was cut to fit fits");
    let keyed = parts.get(parts.len() - size.keys..).unwrap_or_default();
    let prefix = keyed
        .first()
        .and_then(|part| part.key.get(..size.prefix_bytes))
        .unwrap_or_default();

    let mut writer = Writer::new();
    writer.put(&[if level == 0 { KIND_LEAF } else { KIND_BRANCH }, level]);
    writer.put_u16(small(parts.len()));
    writer.put_u16(small(prefix.len()));
    writer.put_u16(size.key_length.code(size.prefix_bytes));
    writer.put_u16(size.value_length.code(0));
    writer.put_u16(0);
    writer.put(prefix);
    if size.key_length == Length::Differ {
        let mut end = 0;
        for part in keyed {
            end += part.key.len() - prefix.len();
            writer.put_u16(small(end));
        }
    }
    if size.value_length == Length::Differ {
        let mut end = 0;
        for part in parts {
            end += part.value.as_slice().len();
            let mark = if part.value.is_reference() {
                ELSEWHERE
            } else {
                0
            };
            writer.put_u16(small(end) | mark);
        }
    }
    for part in keyed {
        writer.put(part.key.get(prefix.len()..).unwrap_or_default());
    }
    for part in parts {
        writer.put(part.value.as_slice());
    }
    assert_eq!(writer.at, size.bytes(), "a node is as long as was reckoned");
    writer.page
}

struct Writer {
    page: Box<Page>,
    at: usize,
}

impl Writer {
    fn new() -> Self {
        Self {
            page: Box::new([0; PAGE_BYTES]),
            at: 0,
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        let end = self.at + bytes.len();
        let place = self.page.get_mut(self.at..end);
        place
            .expect("what was cut to fit fits")
            .copy_from_slice(bytes);
        self.at = end;
    }

    fn put_u16(&mut self, number: u16) {
        self.put(&number.to_le_bytes());
    }
}

/// How many bytes two keys begin with alike.
pub(crate) fn shared_bytes(left: &[u8], right: &[u8]) -> usize {
    let (words, rest) = (left.as_chunks::<8>(), right.as_chunks::<8>());
    let same = words.0.iter().zip(rest.0);
    let same = 8 * same.take_while(|(l, r)| l == r).count();
    let (left, right) = (left.iter().skip(same), right.iter().skip(same));
    same + left.zip(right).take_while(|(l, r)| l == r).count()
}

/// The shortest key that is above `left` and not above `right`, which is above `left`.
pub(crate) fn separator<'r>(left: &[u8], right: &'r [u8]) -> &'r [u8] {
    let bytes = shared_bytes(left, right) + 1;
    right.get(..bytes).unwrap_or(right)
}

fn small(number: usize) -> u16 {
    u16::try_from(number).expect("a page has fewer than 2^16 bytes")
}
