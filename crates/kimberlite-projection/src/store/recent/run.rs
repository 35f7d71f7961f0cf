//! Changes in the order of their keys.

use core::cmp::Ordering;
use std::sync::Arc;

use bytes::Bytes;

use crate::store::INLINE_BYTES_MAX;
use crate::store::value::Value;

/// Stands for the length of a value where the key was taken away.
pub(crate) const REMOVED: u16 = u16::MAX;
/// Stands for the length of a value that is kept by itself.
pub(crate) const LONG: u16 = u16::MAX - 1;
/// Bytes that stand for such a value: its number.
const NUMBER_BYTES: usize = 4;

const _: () = assert!(INLINE_BYTES_MAX < LONG as usize);

/// Bytes of keys and values, one behind the other.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    pub(crate) bytes: Vec<u8>,
    /// Values that do not stand among the bytes.
    pub(crate) long: Vec<Bytes>,
}

impl AsRef<Self> for Chunk {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// A change. What there is of the value stands in a chunk, and the key behind that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunEntry {
    /// The beginning of the key, which mostly decides how two of them compare.
    pub(crate) word: u128,
    pub(crate) chunk: u32,
    pub(crate) at: u32,
    pub(crate) key_bytes: u16,
    /// Bytes of the value, [`REMOVED`] or [`LONG`].
    pub(crate) value: u16,
}

impl RunEntry {
    /// Bytes before the key.
    fn value_bytes(&self) -> usize {
        match self.value {
            REMOVED => 0,
            LONG => NUMBER_BYTES,
            bytes => usize::from(bytes),
        }
    }
}

/// What became of a key.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Held<'r> {
    Removed,
    Inline(&'r [u8]),
    Long(&'r Bytes),
}

impl<'r> Held<'r> {
    /// The value; none where the key was taken away.
    pub(crate) fn value(self) -> Option<Value<'r>> {
        match self {
            Self::Removed => None,
            Self::Inline(bytes) => Some(Value::borrowed(bytes)),
            Self::Long(bytes) => Some(Value::owned(Bytes::clone(bytes))),
        }
    }
}

/// Changes in the order of their keys, each key once.
#[derive(Debug, Default)]
pub(crate) struct Run {
    entries: Vec<RunEntry>,
    chunks: Vec<Arc<Chunk>>,
    bytes: usize,
    /// Whether some key was taken away.
    has_removals: bool,
}

impl Run {
    /// `entries` are in order, each key once.
    pub(crate) fn new(entries: Vec<RunEntry>, chunks: Vec<Chunk>) -> Self {
        let bytes = |chunk: &Chunk| {
            let long: usize = chunk.long.iter().map(Bytes::len).sum();
            let list = size_of::<Arc<Chunk>>() + size_of::<Chunk>();
            list + chunk.bytes.capacity() + chunk.long.capacity() * size_of::<Bytes>() + long
        };
        Self {
            bytes: entries.capacity() * size_of::<RunEntry>()
                + chunks.iter().map(bytes).sum::<usize>(),
            has_removals: entries.iter().any(|entry| entry.value == REMOVED),
            entries,
            chunks: chunks.into_iter().map(Arc::new).collect(),
        }
    }

    /// What two runs say, of which `newer` counts where both do.
    pub(crate) fn merged(older: &Self, newer: &Self) -> Self {
        let chunks = [&older.chunks[..], &newer.chunks].concat();
        let moved =
            u32::try_from(older.chunks.len()).expect("a chunk takes more memory than its number");
        let of_newer = |entry: &RunEntry| RunEntry {
            chunk: entry.chunk + moved,
            ..*entry
        };
        let mut entries = Vec::with_capacity(older.len() + newer.len());
        let (mut left, mut right) = (
            older.entries.iter().peekable(),
            newer.entries.iter().peekable(),
        );
        while let (Some(l), Some(r)) = (left.peek(), right.peek()) {
            let order = l
                .word
                .cmp(&r.word)
                .then_with(|| key_in(&older.chunks, l).cmp(key_in(&newer.chunks, r)));
            match order {
                Ordering::Less => entries.extend(left.next()),
                Ordering::Greater => entries.extend(right.next().map(of_newer)),
                Ordering::Equal => {
                    left.next();
                    entries.extend(right.next().map(of_newer));
                }
            }
        }
        entries.extend(left);
        entries.extend(right.map(of_newer));
        let freed = older.entries_bytes() + newer.entries_bytes();
        Self {
            bytes: older.bytes + newer.bytes - freed + entries.capacity() * size_of::<RunEntry>(),
            has_removals: older.has_removals || newer.has_removals,
            entries,
            chunks,
        }
    }

    fn entries_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<RunEntry>()
    }

    pub(crate) const fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of memory that it takes, also of values that it no longer has.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether some key was taken away.
    pub(crate) const fn has_removals(&self) -> bool {
        self.has_removals
    }

    /// How many keys are below `key`, which begins with `word`.
    pub(crate) fn lower_bound(&self, (word, key): (u128, &[u8])) -> usize {
        self.entries.partition_point(|entry| {
            entry.word < word || (entry.word == word && self.key_of(entry) < key)
        })
    }

    /// The change of a key.
    pub(crate) fn find(&self, (word, key): (u128, &[u8])) -> Option<Held<'_>> {
        let index = self.lower_bound((word, key));
        let entry = self.entries.get(index)?;
        (entry.word == word && self.key_of(entry) == key).then(|| held_in(&self.chunks, entry))
    }

    pub(crate) fn place(&self, index: usize) -> Option<RunPlace<'_>> {
        let entry = self.entries.get(index)?;
        Some(RunPlace { run: self, entry })
    }

    /// Changes in order.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], Held<'_>)> {
        let entries = self.entries.iter();
        entries.map(|entry| (self.key_of(entry), held_in(&self.chunks, entry)))
    }

    fn key_of(&self, entry: &RunEntry) -> &[u8] {
        key_in(&self.chunks, entry)
    }
}

/// An entry of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunPlace<'r> {
    run: &'r Run,
    entry: &'r RunEntry,
}

impl<'r> RunPlace<'r> {
    pub(crate) fn key(&self) -> &'r [u8] {
        self.run.key_of(self.entry)
    }

    pub(crate) fn held(&self) -> Held<'r> {
        held_in(&self.run.chunks, self.entry)
    }

    /// How its key compares to that of another one.
    pub(crate) fn compare(&self, other: &RunPlace<'_>) -> Ordering {
        let by_key = || self.key().cmp(other.key());
        self.entry.word.cmp(&other.entry.word).then_with(by_key)
    }
}

fn chunk_of<'c, C: AsRef<Chunk>>(chunks: &'c [C], entry: &RunEntry) -> Option<&'c Chunk> {
    let index = usize::try_from(entry.chunk).ok()?;
    chunks.get(index).map(AsRef::as_ref)
}

fn bytes_in<'c, C: AsRef<Chunk>>(
    chunks: &'c [C],
    entry: &RunEntry,
    skipped: usize,
    bytes: usize,
) -> &'c [u8] {
    let slice = chunk_of(chunks, entry).and_then(|chunk| {
        let at = usize::try_from(entry.at).ok()? + skipped;
        chunk.bytes.get(at..at + bytes)
    });
    slice.expect("an entry stands in its chunk")
}

/// The key of an entry whose bytes are in one of `chunks`.
pub(crate) fn key_in<'c, C: AsRef<Chunk>>(chunks: &'c [C], entry: &RunEntry) -> &'c [u8] {
    bytes_in(
        chunks,
        entry,
        entry.value_bytes(),
        usize::from(entry.key_bytes),
    )
}

/// What an entry says of its key.
pub(crate) fn held_in<'c, C: AsRef<Chunk>>(chunks: &'c [C], entry: &RunEntry) -> Held<'c> {
    let value = bytes_in(chunks, entry, 0, entry.value_bytes());
    match entry.value {
        REMOVED => Held::Removed,
        LONG => {
            let number = value
                .first_chunk()
                .map(|number| u32::from_le_bytes(*number));
            let long = chunk_of(chunks, entry)
                .zip(number)
                .and_then(|(chunk, number)| chunk.long.get(usize::try_from(number).ok()?));
            Held::Long(long.expect("a long value has a number"))
        }
        _ => Held::Inline(value),
    }
}

/// The first bytes of a key, with zeros behind a shorter one: keys that differ in it are ordered by it.
#[expect(
    clippy::big_endian_bytes,
    reason = "bytes stand in the order of the numbers"
)]
pub(crate) fn word_of(key: &[u8]) -> u128 {
    if let Some(word) = key.first_chunk() {
        return u128::from_be_bytes(*word);
    }
    let mut padded = [0; size_of::<u128>()];
    let (beginning, _) = padded.split_at_mut(key.len());
    beginning.copy_from_slice(key);
    u128::from_be_bytes(padded)
}
