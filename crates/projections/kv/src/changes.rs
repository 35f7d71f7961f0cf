//! What an event changes.

use kimberlite_projection::store::{StoreError, VALUE_BYTES_MAX, WriteTransaction};
use kimberlite_types::Position;

use crate::{BEFORE, KEY_BYTES_MAX, NEWEST, REFUSED, newest_first};

/// Takes what an event changes.
#[derive(Debug)]
pub struct Changes<'c, 'w> {
    write: &'c mut WriteTransaction<'w>,
    position: Position,
    refused: u64,
    failed: Option<StoreError>,
}

impl<'c, 'w> Changes<'c, 'w> {
    pub(crate) fn new(write: &'c mut WriteTransaction<'w>) -> Self {
        Self {
            write,
            position: Position::ZERO,
            refused: 0,
            failed: None,
        }
    }

    pub(crate) fn turn_to(&mut self, position: Position) {
        self.position = position;
    }

    /// Gives a key a value, in place of one that it may have.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let (key, value) = (key.as_ref(), value.as_ref());
        if value.len() > VALUE_BYTES_MAX - size_of::<u64>() {
            self.refused += 1;
            return;
        }
        let position = self.position;
        self.change(key, |write, _| NEWEST.put(write, key, (position, value)));
    }

    /// Takes a key away, if it is there.
    pub fn remove(&mut self, key: impl AsRef<[u8]>) {
        let key = key.as_ref();
        let position = self.position;
        self.change(key, |write, is_there| {
            if !is_there {
                return Ok(());
            }
            NEWEST.remove(write, key)?;
            BEFORE.put(write, (key, newest_first(position)), (false, &[]))
        });
    }

    /// Keeps what there was, unless this very event put it there, and makes the change.
    fn change(
        &mut self,
        key: &[u8],
        change: impl FnOnce(&mut WriteTransaction<'_>, bool) -> Result<(), StoreError>,
    ) {
        // A zero byte takes two.
        let bytes: usize = key.iter().map(|byte| 1 + usize::from(*byte == 0)).sum();
        if bytes > KEY_BYTES_MAX {
            self.refused += 1;
            return;
        }
        if self.failed.is_some() {
            return;
        }
        let position = self.position;
        let write = &mut *self.write;
        let changed = NEWEST.find_in(write, key).and_then(|newest| {
            let is_there = newest.is_some();
            if let Some((since, value)) = newest.filter(|(since, _)| *since < position) {
                BEFORE.put(write, (key, newest_first(since)), (true, &value))?;
            }
            change(write, is_there)
        });
        self.failed = changed.err();
    }

    pub(crate) fn end(self) -> Result<(), StoreError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if self.refused > 0 {
            let before = REFUSED.find_in(self.write, 0)?.unwrap_or_default();
            REFUSED.put(self.write, 0, before + self.refused)?;
        }
        Ok(())
    }
}
