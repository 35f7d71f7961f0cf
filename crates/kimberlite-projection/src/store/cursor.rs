//! Goes through a version of the store in the order of keys, both ways: through its tree and what was committed behind
//! that, of which the newest change of a key counts.

use core::cmp::Ordering;

use super::Version;
use super::error::StoreError;
use super::recent::{RunCursor, RunPlace};
use super::tree::TreeCursor;
use super::value::Value;

/// Where a cursor goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    Forward,
    Backward,
}

impl Way {
    /// Whether a key comes before another one on the way, by how it compares to that.
    fn is_sooner(self, order: Ordering) -> bool {
        match self {
            Self::Forward => order.is_lt(),
            Self::Backward => order.is_gt(),
        }
    }
}

/// A place between two entries of a snapshot, or before the first or behind the last.
#[derive(Debug)]
pub struct Cursor<'s> {
    tree: TreeCursor<'s>,
    /// The newest first.
    runs: Vec<RunCursor<'s>>,
}

/// An entry that a cursor stands beside.
#[derive(Debug)]
pub struct Entry<'c, 's> {
    /// The key.
    pub key: &'c [u8],
    /// The value.
    pub value: Value<'s>,
}

impl<'s> Cursor<'s> {
    pub(super) fn new(version: &'s Version) -> Self {
        Self {
            tree: TreeCursor::new(&version.pages, version.root.as_ref()),
            runs: version.recent.newest_first().map(RunCursor::new).collect(),
        }
    }

    /// Goes before the first entry whose key is `key` or above.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`], and errors of the disk.
    pub fn seek(&mut self, key: &[u8]) -> Result<(), StoreError> {
        for run in &mut self.runs {
            run.seek(key);
        }
        self.tree.seek(key)
    }

    /// Goes before the first entry.
    ///
    /// # Errors
    ///
    /// As for [`seek`](Self::seek).
    pub fn seek_first(&mut self) -> Result<(), StoreError> {
        for run in &mut self.runs {
            run.seek_first();
        }
        self.tree.seek_first()
    }

    /// Goes behind the last entry.
    ///
    /// # Errors
    ///
    /// As for [`seek`](Self::seek).
    pub fn seek_last(&mut self) -> Result<(), StoreError> {
        for run in &mut self.runs {
            run.seek_last();
        }
        self.tree.seek_last()
    }

    /// Passes the next entry and returns it.
    ///
    /// # Errors
    ///
    /// As for [`seek`](Self::seek).
    #[inline]
    pub fn next_entry(&mut self) -> Result<Option<Entry<'_, 's>>, StoreError> {
        if self.runs.is_empty() {
            return self.tree.next_entry();
        }
        self.pass(Way::Forward)
    }

    /// Passes the entry before and returns it.
    ///
    /// # Errors
    ///
    /// As for [`seek`](Self::seek).
    #[inline]
    pub fn previous_entry(&mut self) -> Result<Option<Entry<'_, 's>>, StoreError> {
        if self.runs.is_empty() {
            return self.tree.previous_entry();
        }
        self.pass(Way::Backward)
    }

    /// Passes the entry that comes next among those of the tree and of the runs.
    fn pass(&mut self, way: Way) -> Result<Option<Entry<'_, 's>>, StoreError> {
        loop {
            let Some(place) = self.nearest(way) else {
                return self.pass_in_tree(way);
            };
            let order = self.tree.key(way)?.map(|key| key.cmp(place.key()));
            if order.is_some_and(|order| way.is_sooner(order)) {
                return self.pass_in_tree(way);
            }
            if order.is_some_and(Ordering::is_eq) {
                self.tree.skip(way);
            }
            for run in &mut self.runs {
                if run
                    .beside(way)
                    .is_some_and(|other| other.compare(&place).is_eq())
                {
                    run.pass(way);
                }
            }
            if let Some(value) = place.held().value() {
                let key = place.key();
                return Ok(Some(Entry { key, value }));
            }
        }
    }

    fn pass_in_tree(&mut self, way: Way) -> Result<Option<Entry<'_, 's>>, StoreError> {
        match way {
            Way::Forward => self.tree.next_entry(),
            Way::Backward => self.tree.previous_entry(),
        }
    }

    /// The entry of the runs that comes next on the way, the newest one of its key.
    fn nearest(&self, way: Way) -> Option<RunPlace<'s>> {
        let beside = self.runs.iter().filter_map(|run| run.beside(way));
        beside.reduce(|nearest, place| {
            if way.is_sooner(place.compare(&nearest)) {
                place
            } else {
                nearest
            }
        })
    }
}
