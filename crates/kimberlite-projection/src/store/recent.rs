//! What was committed and is not in the file yet.
//!
//! A commit is a run: changes in the order of their keys. Runs never change, and versions of the store share them. So that
//! whoever looks something up has few to look into, a run that comes is put together with those before it that are not
//! much larger. Entries are copied then, a few times in their lives, and the bytes of keys and values never are.
//!
//! * **Invariant:** of two runs the later one has the newer change of a key, and in one run a key has one change.

use std::sync::Arc;

mod cursor;
mod run;
#[cfg(test)]
mod tests;

pub(crate) use self::cursor::RunCursor;
pub(crate) use self::run::{
    Chunk, Held, LONG, REMOVED, Run, RunEntry, RunPlace, held_in, key_in, word_of,
};

/// A run is put together with the one before it unless that has so many times its entries.
const GROWTH: usize = 4;

/// The most entries that are put together: it takes a millisecond or two.
const TOGETHER_MAX: usize = 1 << 16;

/// The runs of a version, the oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recent {
    runs: Vec<Arc<Run>>,
}

impl Recent {
    /// The same with a run behind it. The first `kept` runs stay as they are.
    pub(crate) fn with(&self, run: Run, kept: usize) -> Self {
        let mut runs = self.runs.clone();
        let mut last = run;
        while kept < runs.len()
            && let Some(before) = runs.pop_if(|before| {
                before.len() < GROWTH * last.len() && before.len() + last.len() <= TOGETHER_MAX
            })
        {
            last = Run::merged(&before, &last);
        }
        runs.push(Arc::new(last));
        Self { runs }
    }

    /// The same without its first `count` runs.
    pub(crate) fn without_first(&self, count: usize) -> Self {
        Self {
            runs: self.runs.get(count..).unwrap_or_default().to_vec(),
        }
    }

    /// How many runs there are.
    pub(crate) const fn len(&self) -> usize {
        self.runs.len()
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Bytes of memory that they take.
    pub(crate) fn bytes(&self) -> usize {
        self.runs.iter().map(|run| run.bytes()).sum()
    }

    /// All of it as one run.
    pub(crate) fn to_run(&self) -> Arc<Run> {
        let mut runs = self.runs.clone();
        while runs.len() > 1 {
            let both = |pair: &[Arc<Run>]| match pair {
                [older, newer] => Arc::new(Run::merged(older, newer)),
                pair => pair.first().map_or_else(Arc::default, Arc::clone),
            };
            runs = runs.chunks(2).map(both).collect();
        }
        runs.pop().unwrap_or_default()
    }

    /// The runs, the newest first.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter().rev().map(|run| &**run)
    }

    /// Whether some key was taken away.
    pub(crate) fn has_removals(&self) -> bool {
        self.newest_first().any(Run::has_removals)
    }

    /// The newest change of a key.
    pub(crate) fn find(&self, key: &[u8]) -> Option<Held<'_>> {
        let word = word_of(key);
        self.newest_first().find_map(|run| run.find((word, key)))
    }
}
