//! Changes that are put together before they are committed.
//!
//! Keys and values stand one behind the other in one buffer, and the changes in the order in which they
//! came: they are sorted once, when they are committed, and not even then where they came in order. Only
//! who looks up what was not committed yet pays for a table of keys.

use core::hash::BuildHasher;
use std::sync::OnceLock;

use bytes::Bytes;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::error::StoreError;
use super::tree::{Change, NewValue};
use super::value::Value;
use super::{Applied, INLINE_BYTES_MAX, KEY_BYTES_MAX, Snapshot, Store, VALUE_BYTES_MAX};

/// Bytes of a key that are compared as one integer.
const WORD_BYTES: usize = 8;

/// Changes that are committed together, or not at all when it is dropped.
#[derive(Debug)]
pub struct WriteTransaction<'s> {
    store: &'s mut Store,
    before: Snapshot,
    changes: Changes,
}

impl<'s> WriteTransaction<'s> {
    pub(crate) fn new(store: &'s mut Store) -> Self {
        Self {
            before: store.snapshot(),
            store,
            changes: Changes::default(),
        }
    }

    /// Gives a key a value, in place of one that it may have.
    ///
    /// # Errors
    ///
    /// [`StoreError::KeyTooLong`] and [`StoreError::ValueTooLong`].
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        check_key(key)?;
        if value.len() > VALUE_BYTES_MAX {
            return Err(StoreError::ValueTooLong {
                bytes: value.len(),
                bytes_max: VALUE_BYTES_MAX,
            });
        }
        let value = if value.len() <= INLINE_BYTES_MAX {
            let at = self.changes.write(value);
            Held::Inline(at)
        } else {
            Held::Long(Box::new(Bytes::copy_from_slice(value)))
        };
        let key = self.changes.write(key);
        self.changes.push(key, value);
        Ok(())
    }

    /// The same, where key and value are written to the end of a buffer.
    pub(crate) fn put_with(
        &mut self,
        key: impl FnOnce(&mut Vec<u8>),
        value: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), StoreError> {
        let buffer = &mut self.changes.buffer;
        let at = buffer.len();
        value(buffer);
        let value_end = buffer.len();
        key(buffer);
        let (value_bytes, key_bytes) = (value_end - at, buffer.len() - value_end);
        if value_bytes > INLINE_BYTES_MAX || key_bytes > KEY_BYTES_MAX {
            let written = buffer.split_off(at);
            let (value, key) = written.split_at(value_bytes);
            return self.put(key, value);
        }
        let key = span(value_end, key_bytes);
        self.changes.push(key, Held::Inline(span(at, value_bytes)));
        Ok(())
    }

    /// Takes a key away, if it is there.
    ///
    /// # Errors
    ///
    /// [`StoreError::KeyTooLong`].
    pub fn remove(&mut self, key: &[u8]) -> Result<(), StoreError> {
        check_key(key)?;
        let key = self.changes.write(key);
        self.changes.push(key, Held::Removed);
        Ok(())
    }

    /// Looks a key up, as it will be when this is committed.
    ///
    /// # Errors
    ///
    /// As for [`Snapshot::find`](super::Snapshot::find).
    pub fn find(&self, key: &[u8]) -> Result<Option<Value<'_>>, StoreError> {
        match self.changes.find(key) {
            Some(Held::Removed) => Ok(None),
            Some(Held::Inline(span)) => Ok(Some(Value::borrowed(self.changes.bytes(*span)))),
            Some(Held::Long(value)) => Ok(Some(Value::owned(Bytes::clone(value)))),
            None => self.before.find(key),
        }
    }

    /// Commits: the next snapshot has all of it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Backward`], [`StoreError::Damaged`] and errors of the disk; no snapshot has changed
    /// then.
    pub fn commit(mut self, applied: Applied) -> Result<(), StoreError> {
        self.changes.sort();
        let changes: Vec<Change<'_>> = self.changes.in_order().collect();
        self.store.commit(&changes, applied)
    }
}

fn check_key(key: &[u8]) -> Result<(), StoreError> {
    if key.len() > KEY_BYTES_MAX {
        return Err(StoreError::KeyTooLong {
            bytes: key.len(),
            bytes_max: KEY_BYTES_MAX,
        });
    }
    Ok(())
}

#[derive(Debug)]
struct Changes {
    buffer: Vec<u8>,
    entries: Vec<Entry>,
    /// Whether the keys of `entries` ascend, each once.
    is_ascending: bool,
    /// Where the newest change of each key is, from the first look-up on.
    table: OnceLock<HashTable<usize>>,
    hasher: DefaultHashBuilder,
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            buffer: Vec::new(),
            entries: Vec::new(),
            is_ascending: true,
            table: OnceLock::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }
}

#[derive(Debug)]
struct Entry {
    /// The beginning of the key, which mostly decides how two of them compare.
    word: u64,
    key: Span,
    value: Held,
}

#[derive(Debug)]
enum Held {
    Removed,
    Inline(Span),
    Long(Box<Bytes>),
}

/// Where bytes stand in the buffer.
#[derive(Clone, Copy, Debug)]
struct Span {
    at: usize,
    bytes: u16,
}

impl Changes {
    fn write(&mut self, bytes: &[u8]) -> Span {
        let at = self.buffer.len();
        self.buffer.extend_from_slice(bytes);
        span(at, bytes.len())
    }

    fn bytes(&self, span: Span) -> &[u8] {
        bytes_of(&self.buffer, span)
    }

    fn push(&mut self, key: Span, value: Held) {
        let word = word_of(self.bytes(key));
        if let Some(last) = self.entries.last() {
            self.is_ascending &=
                last.word < word || (last.word == word && self.bytes(last.key) < self.bytes(key));
        }
        let entry = Entry { word, key, value };
        let index = self.entries.len();
        self.entries.push(entry);
        if let Some(mut table) = self.table.take() {
            self.note(&mut table, index);
            self.table = OnceLock::from(table);
        }
    }

    /// Notes in the table that change `index` is the newest one of its key.
    fn note(&self, table: &mut HashTable<usize>, index: usize) {
        let key = self.key(index);
        let is_same = |other: &usize| self.key(*other) == key;
        let hash = |other: &usize| self.hasher.hash_one(self.key(*other));
        table
            .entry(self.hasher.hash_one(key), is_same, hash)
            .and_modify(|newest| *newest = index)
            .or_insert(index);
    }

    fn key(&self, index: usize) -> &[u8] {
        let entry = self.entries.get(index);
        entry.map_or(&[], |entry| self.bytes(entry.key))
    }

    /// The newest change of a key.
    fn find(&self, key: &[u8]) -> Option<&Held> {
        let table = self.table.get_or_init(|| {
            let mut table = HashTable::with_capacity(self.entries.len());
            for index in 0..self.entries.len() {
                self.note(&mut table, index);
            }
            table
        });
        let hash = self.hasher.hash_one(key);
        let index = table.find(hash, |index| self.key(*index) == key)?;
        self.entries.get(*index).map(|entry| &entry.value)
    }

    /// Brings the changes into the order of their keys, and keeps the newest one of each.
    fn sort(&mut self) {
        self.table.take();
        if self.is_ascending {
            return;
        }
        let buffer = &self.buffer;
        let key = |entry: &Entry| bytes_of(buffer, entry.key);
        // The newest first.
        self.entries.reverse();
        self.entries.sort_by(|left, right| {
            let by_key = || key(left).cmp(key(right));
            left.word.cmp(&right.word).then_with(by_key)
        });
        self.entries
            .dedup_by(|later, first| later.word == first.word && key(later) == key(first));
        self.is_ascending = true;
    }

    fn in_order(&self) -> impl Iterator<Item = Change<'_>> {
        self.entries.iter().map(|entry| Change {
            key: self.bytes(entry.key),
            value: match &entry.value {
                Held::Removed => None,
                Held::Inline(span) => Some(NewValue::Inline(self.bytes(*span))),
                Held::Long(value) => Some(NewValue::Long(Bytes::clone(value))),
            },
        })
    }
}

fn span(at: usize, bytes: usize) -> Span {
    Span {
        at,
        bytes: u16::try_from(bytes).expect("keys and short values are bounded"),
    }
}

fn bytes_of(buffer: &[u8], span: Span) -> &[u8] {
    let end = span.at + usize::from(span.bytes);
    buffer.get(span.at..end).unwrap_or_default()
}

/// The first bytes of a key, with zeros behind a shorter one: keys that differ in it are ordered by it.
fn word_of(key: &[u8]) -> u64 {
    if let Some(word) = key.first_chunk() {
        return u64::from_le_bytes(*word).swap_bytes();
    }
    let mut padded = [0; WORD_BYTES];
    let (beginning, _) = padded.split_at_mut(key.len());
    beginning.copy_from_slice(key);
    u64::from_le_bytes(padded).swap_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kimberlite_testkit::Rng;

    use super::*;

    #[test]
    fn the_newest_change_of_each_key_counts_and_they_come_in_order() {
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            let (mut changes, mut model) = (Changes::default(), BTreeMap::new());
            let is_looked_up = rng.chance(1, 2);
            for _ in 0..rng.below(300) {
                // Keys of which one is the beginning of another, and such as differ behind eight bytes.
                let mut key = vec![0; rng.index(11)];
                if let Some(last) = key.last_mut() {
                    *last = rng.bytes(1)[0] % 3;
                }
                let value = rng.chance(3, 4).then(|| rng.bytes(3));
                let held = match &value {
                    Some(value) => Held::Inline(changes.write(value)),
                    None => Held::Removed,
                };
                let span = changes.write(&key);
                changes.push(span, held);
                model.insert(key.clone(), value);
                if is_looked_up {
                    let found = match changes.find(&key) {
                        Some(Held::Inline(span)) => Some(changes.bytes(*span).to_vec()),
                        _ => None,
                    };
                    assert_eq!(found, model[&key], "seed {seed}");
                    assert!(changes.find(b"another").is_none());
                }
            }
            changes.sort();
            let sorted: Vec<_> = changes
                .in_order()
                .map(|change| {
                    let value = change.value.map(|value| match value {
                        NewValue::Inline(bytes) => bytes.to_vec(),
                        NewValue::Long(bytes) => bytes.to_vec(),
                    });
                    (change.key.to_vec(), value)
                })
                .collect();
            assert!(sorted.into_iter().eq(model), "seed {seed}");
        }
    }
}
