//! Changes that are put together before they are committed.
//!
//! Values and keys stand one behind the other in chunks, and the changes in the order in which they
//! came: they are sorted once, when they are committed, and not even then where they came in order. Only
//! who looks up what was not committed yet pays for a table of keys.

use core::hash::BuildHasher;
use std::sync::OnceLock;

use bytes::Bytes;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::error::StoreError;
use super::recent::{Chunk, Held, LONG, REMOVED, Run, RunEntry, held_in, key_in, word_of};
use super::value::Value;
use super::{Applied, INLINE_BYTES_MAX, KEY_BYTES_MAX, Snapshot, Store, VALUE_BYTES_MAX};

/// Bytes of a chunk that is full.
const CHUNK_BYTES: usize = 64 << 10;
/// The most bytes that an entry takes in one.
const ENTRY_BYTES_MAX: usize = KEY_BYTES_MAX + INLINE_BYTES_MAX;

const _: () = assert!(CHUNK_BYTES > 8 * ENTRY_BYTES_MAX);
const _: () = assert!(ENTRY_BYTES_MAX < LONG as usize);

/// Changes that are committed together, or not at all when it is dropped.
#[derive(Debug)]
pub struct WriteTransaction<'s> {
    store: &'s mut Store,
    before: Snapshot,
    changes: Changes,
    /// What is put while it is written.
    scratch: Vec<u8>,
}

impl<'s> WriteTransaction<'s> {
    pub(crate) fn new(store: &'s mut Store) -> Self {
        Self {
            before: store.snapshot(),
            store,
            changes: Changes::default(),
            scratch: Vec::new(),
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
        self.changes.push(|chunk| {
            let held = if value.len() <= INLINE_BYTES_MAX {
                chunk.bytes.extend_from_slice(value);
                short(value.len())
            } else {
                chunk.add_long(Bytes::copy_from_slice(value));
                LONG
            };
            chunk.bytes.extend_from_slice(key);
            (held, short(key.len()))
        });
        Ok(())
    }

    /// The same, where key and value are written to the end of a buffer.
    pub(crate) fn put_with(
        &mut self,
        key: impl FnOnce(&mut Vec<u8>),
        value: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), StoreError> {
        let mut scratch = core::mem::take(&mut self.scratch);
        scratch.clear();
        value(&mut scratch);
        let value_bytes = scratch.len();
        key(&mut scratch);
        let (value, key) = scratch.split_at(value_bytes);
        let put = self.put(key, value);
        self.scratch = scratch;
        put
    }

    /// Takes a key away, if it is there.
    ///
    /// # Errors
    ///
    /// [`StoreError::KeyTooLong`].
    pub fn remove(&mut self, key: &[u8]) -> Result<(), StoreError> {
        check_key(key)?;
        self.changes.push(|chunk| {
            chunk.bytes.extend_from_slice(key);
            (REMOVED, short(key.len()))
        });
        Ok(())
    }

    /// Looks a key up, as it will be when this is committed.
    ///
    /// # Errors
    ///
    /// As for [`Snapshot::find`](super::Snapshot::find).
    pub fn find(&self, key: &[u8]) -> Result<Option<Value<'_>>, StoreError> {
        match self.changes.find(key) {
            Some(held) => Ok(held.value()),
            None => self.before.find(key),
        }
    }

    /// Commits: the next snapshot has all of it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Backward`], [`StoreError::Poisoned`] and [`StoreError::Forked`]; no snapshot has changed then.
    pub fn commit(self, applied: Applied) -> Result<(), StoreError> {
        self.store.commit(self.changes.into_run(), applied)
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

#[derive(Debug, Default)]
struct Changes {
    /// The last one is open.
    chunks: Vec<Chunk>,
    entries: Vec<RunEntry>,
    /// Whether some key came that is not above the one before.
    is_out_of_order: bool,
    /// Where the newest change of each key is, from the first look-up on.
    table: OnceLock<HashTable<usize>>,
    hasher: DefaultHashBuilder,
}

impl Chunk {
    /// Keeps a long value, and writes what stands for it.
    fn add_long(&mut self, value: Bytes) {
        let number = u32::try_from(self.long.len()).expect("a chunk has few entries");
        self.long.push(value);
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }
}

impl Changes {
    /// The chunk that takes the next entry.
    fn open(&mut self) -> &mut Chunk {
        let is_full = |chunk: &Chunk| chunk.bytes.len() > CHUNK_BYTES - ENTRY_BYTES_MAX;
        // The first one grows with what comes, as most are small.
        match self.chunks.last() {
            None => self.chunks.push(Chunk::default()),
            Some(last) if is_full(last) => self.chunks.push(Chunk {
                bytes: Vec::with_capacity(CHUNK_BYTES),
                long: Vec::new(),
            }),
            Some(_) => {}
        }
        self.chunks.last_mut().expect("one was added")
    }

    /// Adds a change. `write` writes what there is of the value, and the key behind it, and says how they are noted.
    fn push(&mut self, write: impl FnOnce(&mut Chunk) -> (u16, u16)) {
        let chunk = self.open();
        let at = chunk.bytes.len();
        let (value, key_bytes) = write(chunk);
        self.note(at, value, key_bytes);
    }

    /// Notes the change that was written last, from `at` on.
    fn note(&mut self, at: usize, value: u16, key_bytes: u16) {
        let mut entry = RunEntry {
            word: 0,
            chunk: u32::try_from(self.chunks.len() - 1)
                .expect("a chunk takes more memory than its number"),
            at: u32::try_from(at).expect("a chunk is small"),
            key_bytes,
            value,
        };
        let key = key_in(&self.chunks, &entry);
        entry.word = word_of(key);
        if let Some(last) = self.entries.last() {
            let is_above = || key_in(&self.chunks, last) < key;
            self.is_out_of_order |=
                !(last.word < entry.word || (last.word == entry.word && is_above()));
        }
        let index = self.entries.len();
        self.entries.push(entry);
        if let Some(mut table) = self.table.take() {
            self.enter(&mut table, index);
            self.table = OnceLock::from(table);
        }
    }

    /// Notes in the table that change `index` is the newest one of its key.
    fn enter(&self, table: &mut HashTable<usize>, index: usize) {
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
        entry.map_or(&[], |entry| key_in(&self.chunks, entry))
    }

    /// The newest change of a key.
    fn find(&self, key: &[u8]) -> Option<Held<'_>> {
        let table = self.table.get_or_init(|| {
            let mut table = HashTable::with_capacity(self.entries.len());
            for index in 0..self.entries.len() {
                self.enter(&mut table, index);
            }
            table
        });
        let hash = self.hasher.hash_one(key);
        let index = table.find(hash, |index| self.key(*index) == key)?;
        let entry = self.entries.get(*index)?;
        Some(held_in(&self.chunks, entry))
    }

    /// The changes in the order of their keys, the newest one of each.
    fn into_run(mut self) -> Run {
        if self.is_out_of_order {
            let key = |entry: &RunEntry| key_in(&self.chunks, entry);
            // The newest first.
            self.entries.reverse();
            self.entries.sort_by(|left, right| {
                let by_key = || key(left).cmp(key(right));
                left.word.cmp(&right.word).then_with(by_key)
            });
            self.entries
                .dedup_by(|later, first| later.word == first.word && key(later) == key(first));
        }
        Run::new(self.entries, self.chunks)
    }
}

/// A length of a key or of a short value.
fn short(bytes: usize) -> u16 {
    u16::try_from(bytes).expect("keys and short values are bounded")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kimberlite_testkit::Rng;

    use super::*;

    fn bytes_of(held: Held<'_>) -> Option<Vec<u8>> {
        held.value().map(|value| value.to_vec())
    }

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
                changes.push(|chunk| {
                    let held = value.as_ref().map_or(REMOVED, |value| short(value.len()));
                    chunk
                        .bytes
                        .extend_from_slice(value.as_deref().unwrap_or_default());
                    chunk.bytes.extend_from_slice(&key);
                    (held, short(key.len()))
                });
                model.insert(key.clone(), value);
                if is_looked_up {
                    let found = bytes_of(changes.find(&key).unwrap());
                    assert_eq!(found, model[&key], "seed {seed}");
                    assert!(changes.find(b"another").is_none());
                }
            }
            let run = changes.into_run();
            let sorted: Vec<_> = run
                .iter()
                .map(|(key, held)| (key.to_vec(), bytes_of(held)))
                .collect();
            assert!(sorted.into_iter().eq(model), "seed {seed}");
        }
    }
}
