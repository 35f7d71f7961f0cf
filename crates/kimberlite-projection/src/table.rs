//! Tables with types: what most projections keep their entries in.
//!
//! Key of an entry in the store: `table u16, big-endian ‖ key`, as [`Key`] writes it; value as [`Stored`]
//! does.

mod key;
mod stored;

use core::fmt;
use core::marker::PhantomData;
use core::ops::{Bound, RangeBounds};

use crate::store::{Cursor, Snapshot, StoreError, WriteTransaction};

pub use self::key::Key;
pub use self::stored::{FixedBytes, Stored};

/// Bytes that most keys have room in.
const KEY_BYTES: usize = 64;

/// A table of a store, in which entries stand in the order of their keys.
///
/// ```
/// use kimberlite_projection::Table;
///
/// /// How much each account has.
/// const BALANCES: Table<String, i64> = Table::new(1);
/// /// The accounts of each owner: a secondary index.
/// const BY_OWNER: Table<(String, String), ()> = Table::new(2);
/// ```
pub struct Table<K, V> {
    id: u16,
    marker: PhantomData<fn() -> (K, V)>,
}

impl<K: Key, V: Stored> Table<K, V> {
    /// The table of this number, one of its own within a projection.
    pub const fn new(id: u16) -> Self {
        Self {
            id,
            marker: PhantomData,
        }
    }

    /// Gives a key a value, in place of one that it may have.
    ///
    /// # Errors
    ///
    /// [`StoreError::KeyTooLong`] and [`StoreError::ValueTooLong`].
    pub fn put(
        &self,
        write: &mut WriteTransaction<'_>,
        key: K::Ref<'_>,
        value: V::Ref<'_>,
    ) -> Result<(), StoreError> {
        write.put_with(
            |to| {
                to.extend_from_slice(&self.beginning());
                K::encode(key, to);
            },
            |to| V::encode(value, to),
        )
    }

    /// Takes a key away, if it is there.
    ///
    /// # Errors
    ///
    /// [`StoreError::KeyTooLong`].
    pub fn remove(
        &self,
        write: &mut WriteTransaction<'_>,
        key: K::Ref<'_>,
    ) -> Result<(), StoreError> {
        write.remove(&self.key(key))
    }

    /// Looks a key up, with what `write` has changed.
    ///
    /// # Errors
    ///
    /// As for [`Snapshot::find`], and [`StoreError::WrongType`].
    pub fn find_in(
        &self,
        write: &WriteTransaction<'_>,
        key: K::Ref<'_>,
    ) -> Result<Option<V>, StoreError> {
        let value = write.find(&self.key(key))?;
        value.map(|bytes| self.value(&bytes)).transpose()
    }

    /// Looks a key up.
    ///
    /// # Errors
    ///
    /// As for [`Snapshot::find`], and [`StoreError::WrongType`].
    pub fn find(&self, snapshot: &Snapshot, key: K::Ref<'_>) -> Result<Option<V>, StoreError> {
        let value = snapshot.find(&self.key(key))?;
        value.map(|bytes| self.value(&bytes)).transpose()
    }

    /// Looks up the first entry whose key is `from` or above and begins with `beginning`, as `from` does. Also says
    /// whether one right before it is known to begin so; where that is false there may be one all the same.
    ///
    /// # Errors
    ///
    /// As for [`find`](Self::find).
    pub fn find_nearest(
        &self,
        snapshot: &Snapshot,
        from: K::Ref<'_>,
        beginning: K::Beginning<'_>,
    ) -> Result<Option<(K, V, bool)>, StoreError> {
        let key = self.key(from);
        let mut bytes = Vec::with_capacity(KEY_BYTES);
        bytes.extend_from_slice(&self.beginning());
        K::encode_beginning(beginning, &mut bytes);
        let Some(found) = snapshot.find_nearest(&key, &bytes)? else {
            return Ok(None);
        };
        let (key, value) = self.entry(&found.key, &found.value)?;
        Ok(Some((key, value, found.follows_another)))
    }

    /// Goes through the entries whose keys are in a range, in order, from either end.
    pub fn range<'s, 'k>(
        &self,
        snapshot: &'s Snapshot,
        keys: impl RangeBounds<K::Ref<'k>>,
    ) -> Scan<'s, K, V>
    where
        K::Ref<'k>: Copy + 'k,
    {
        let bound = |bound: Bound<&K::Ref<'k>>| bound.map(|key| self.key(*key));
        // What stands right behind a key begins with it and has one zero byte more.
        let behind = |mut key: Vec<u8>| {
            key.push(0);
            key
        };
        let from = match bound(keys.start_bound()) {
            Bound::Included(key) => key,
            Bound::Excluded(key) => behind(key),
            Bound::Unbounded => self.beginning().to_vec(),
        };
        let to = match bound(keys.end_bound()) {
            Bound::Included(key) => Some(behind(key)),
            Bound::Excluded(key) => Some(key),
            Bound::Unbounded => after_prefix(self.beginning().to_vec()),
        };
        Scan::new(Self::new(self.id), snapshot, from, to)
    }

    /// Goes through the entries whose keys begin so: those of a text with these characters, those of a
    /// pair with this first part.
    pub fn within<'s>(
        &self,
        snapshot: &'s Snapshot,
        beginning: K::Beginning<'_>,
    ) -> Scan<'s, K, V> {
        let mut from = self.beginning().to_vec();
        K::encode_beginning(beginning, &mut from);
        let to = after_prefix(from.clone());
        Scan::new(Self::new(self.id), snapshot, from, to)
    }

    fn beginning(&self) -> [u8; 2] {
        [self.id >> 8, self.id & 0xff].map(|byte| byte.to_le_bytes()[0])
    }

    fn key(&self, key: K::Ref<'_>) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(KEY_BYTES);
        bytes.extend_from_slice(&self.beginning());
        K::encode(key, &mut bytes);
        bytes
    }

    fn entry(&self, key: &[u8], value: &[u8]) -> Result<(K, V), StoreError> {
        let mut rest = key.get(size_of::<u16>()..).unwrap_or_default();
        let key = K::decode(&mut rest).filter(|_| rest.is_empty());
        let entry = key.zip(V::decode(value));
        entry.ok_or(StoreError::WrongType { table: self.id })
    }

    fn value(&self, bytes: &[u8]) -> Result<V, StoreError> {
        V::decode(bytes).ok_or(StoreError::WrongType { table: self.id })
    }
}

impl<K, V> fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({})", self.id)
    }
}

/// The first key behind all that begin with `prefix`; none where that is the end.
fn after_prefix(mut prefix: Vec<u8>) -> Option<Vec<u8>> {
    while let Some(last) = prefix.pop() {
        if let Some(next) = last.checked_add(1) {
            prefix.push(next);
            return Some(prefix);
        }
    }
    None
}

/// Entries of a table, from either end. An error, [`StoreError::WrongType`] or one of
/// [`Snapshot::cursor`], ends it.
#[derive(Debug)]
pub struct Scan<'s, K, V> {
    table: Table<K, V>,
    snapshot: &'s Snapshot,
    from: Vec<u8>,
    /// Before this key.
    to: Option<Vec<u8>>,
    forward: Option<Cursor<'s>>,
    backward: Option<Cursor<'s>>,
    has_ended: bool,
}

impl<'s, K: Key, V: Stored> Scan<'s, K, V> {
    fn new(table: Table<K, V>, snapshot: &'s Snapshot, from: Vec<u8>, to: Option<Vec<u8>>) -> Self {
        let has_ended = to.as_ref().is_some_and(|to| *to <= from);
        Self {
            table,
            snapshot,
            from,
            to,
            forward: None,
            backward: None,
            has_ended,
        }
    }

    fn step(&mut self) -> Result<Option<(K, V)>, StoreError> {
        let mut cursor = if let Some(cursor) = self.forward.take() {
            cursor
        } else {
            self.snapshot.cursor_at(&self.from)?
        };
        let found = match cursor.next_entry()? {
            Some(entry) if self.to.as_deref().is_none_or(|to| entry.key < to) => {
                // The other end comes no further than behind this one.
                self.from.clear();
                self.from.extend_from_slice(entry.key);
                self.from.push(0);
                Some(self.table.entry(entry.key, &entry.value)?)
            }
            _ => None,
        };
        self.forward = Some(cursor);
        Ok(found)
    }

    /// A cursor behind the last entry.
    fn last_cursor(&self) -> Result<Cursor<'s>, StoreError> {
        if let Some(to) = &self.to {
            return self.snapshot.cursor_at(to);
        }
        let mut cursor = self.snapshot.cursor()?;
        cursor.seek_last()?;
        Ok(cursor)
    }

    fn step_back(&mut self) -> Result<Option<(K, V)>, StoreError> {
        let mut cursor = if let Some(cursor) = self.backward.take() {
            cursor
        } else {
            self.last_cursor()?
        };
        let found = match cursor.previous_entry()? {
            Some(entry) if entry.key >= self.from.as_slice() => {
                self.to = Some(entry.key.to_vec());
                Some(self.table.entry(entry.key, &entry.value)?)
            }
            _ => None,
        };
        self.backward = Some(cursor);
        Ok(found)
    }

    /// Gives an entry or the first error, and then nothing.
    fn give(
        &mut self,
        step: impl FnOnce(&mut Self) -> Result<Option<(K, V)>, StoreError>,
    ) -> Option<Result<(K, V), StoreError>> {
        if self.has_ended {
            return None;
        }
        let given = step(self).transpose();
        self.has_ended = !matches!(given, Some(Ok(_)));
        given
    }
}

impl<K: Key, V: Stored> Iterator for Scan<'_, K, V> {
    type Item = Result<(K, V), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.give(Self::step)
    }
}

impl<K: Key, V: Stored> DoubleEndedIterator for Scan<'_, K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.give(Self::step_back)
    }
}

#[cfg(test)]
mod tests;
