//! Goes through a run.

use super::run::{Run, RunPlace, word_of};
use crate::store::cursor::Way;

/// A place between two entries of a run.
#[derive(Clone, Debug)]
pub(crate) struct RunCursor<'s> {
    run: &'s Run,
    /// How many entries are before it.
    index: usize,
}

impl<'s> RunCursor<'s> {
    pub(crate) const fn new(run: &'s Run) -> Self {
        Self { run, index: 0 }
    }

    /// Goes before the first entry whose key is `key` or above.
    pub(crate) fn seek(&mut self, key: &[u8]) {
        self.index = self.run.lower_bound((word_of(key), key));
    }

    pub(crate) const fn seek_first(&mut self) {
        self.index = 0;
    }

    pub(crate) const fn seek_last(&mut self) {
        self.index = self.run.len();
    }

    /// The entry beside it on one side.
    pub(crate) fn beside(&self, way: Way) -> Option<RunPlace<'s>> {
        match way {
            Way::Forward => self.run.place(self.index),
            Way::Backward => self.run.place(self.index.checked_sub(1)?),
        }
    }

    /// Passes the entry beside it on one side.
    pub(crate) const fn pass(&mut self, way: Way) {
        match way {
            Way::Forward => self.index += 1,
            Way::Backward => self.index -= 1,
        }
    }
}
