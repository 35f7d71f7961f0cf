//! Reading the newest values, and those before them.

use std::iter::Peekable;

use kimberlite_projection::store::{Snapshot, StoreError};
use kimberlite_projection::{self as projection};
use kimberlite_types::Position;

use crate::{BEFORE, NEWEST, REFUSED, newest_first};

/// The state that some prefix of the log gives. It stays as it is.
#[derive(Clone, Debug)]
pub struct View {
    snapshot: Snapshot,
}

/// A value, and since when a key has it.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// The position of the event that gave it.
    pub since: Position,
    /// The value.
    pub value: Vec<u8>,
}

/// What an event did to a key.
#[derive(Clone, PartialEq, Eq)]
pub struct Change {
    /// The position of the event.
    pub position: Position,
    /// The value that it gave; none where it took the key away.
    pub value: Option<Vec<u8>>,
}

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KvError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The record was not taken in yet.
    #[error(
        "the view ends before position {applied} and is asked what was at {position}: wait for that"
    )]
    NotThereYet {
        /// Everything before it was taken in.
        applied: Position,
        /// What was asked for.
        position: Position,
    },
}

impl From<Snapshot> for View {
    fn from(snapshot: Snapshot) -> Self {
        Self { snapshot }
    }
}

impl View {
    /// Returns the position behind the last record that was taken in.
    pub fn applied(&self) -> Position {
        self.snapshot.applied().position
    }

    /// Looks a key up.
    ///
    /// # Errors
    ///
    /// [`KvError::Store`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Entry>, KvError> {
        let found = NEWEST.find(&self.snapshot, key.as_ref())?;
        Ok(found.map(Entry::from))
    }

    /// Looks up what a key had when the record at `position` was the newest.
    ///
    /// # Errors
    ///
    /// [`KvError::Store`], and [`KvError::NotThereYet`] when that was not taken in yet.
    pub fn get_at(
        &self,
        key: impl AsRef<[u8]>,
        position: Position,
    ) -> Result<Option<Entry>, KvError> {
        self.check(position)?;
        let key = key.as_ref();
        let before = self.before(key, position)?;
        if let Some((entry, true)) = before {
            return Ok(entry);
        }
        match self.get(key)? {
            Some(newest) if newest.since <= position => Ok(Some(newest)),
            _ => Ok(before.and_then(|(entry, _)| entry)),
        }
    }

    /// Goes through the keys that begin with `prefix`, in their order, from either end.
    pub fn scan(&self, prefix: impl AsRef<[u8]>) -> Scan<'_> {
        Scan(NEWEST.within(&self.snapshot, prefix.as_ref()))
    }

    /// Goes through the keys that began with `prefix` when the record at `position` was the newest, in
    /// their order, with what they had.
    ///
    /// # Errors
    ///
    /// [`KvError::NotThereYet`] when that was not taken in yet.
    pub fn scan_at(
        &self,
        prefix: impl AsRef<[u8]>,
        position: Position,
    ) -> Result<ScanAt<'_>, KvError> {
        self.check(position)?;
        let prefix = prefix.as_ref().to_vec();
        Ok(ScanAt {
            newest: NEWEST.within(&self.snapshot, &prefix).peekable(),
            view: self,
            next: prefix.clone(),
            prefix,
            position,
            has_ended: false,
        })
    }

    /// Goes through what was ever done to a key, the newest first.
    ///
    /// # Errors
    ///
    /// [`KvError::Store`].
    pub fn history(&self, key: impl AsRef<[u8]>) -> Result<History<'_>, KvError> {
        let key = key.as_ref();
        Ok(History {
            newest: self.get(key)?,
            before: BEFORE.within(&self.snapshot, key),
            last: None,
        })
    }

    /// How many changes were refused, because the key or the value was too long.
    ///
    /// # Errors
    ///
    /// [`KvError::Store`].
    pub fn refused(&self) -> Result<u64, KvError> {
        Ok(REFUSED.find(&self.snapshot, 0)?.unwrap_or_default())
    }

    fn check(&self, position: Position) -> Result<(), KvError> {
        let applied = self.applied();
        if position >= applied {
            return Err(KvError::NotThereYet { applied, position });
        }
        Ok(())
    }

    /// Looks up what a key had among what is not the newest any more, and whether something came behind that, but not
    /// behind `position`, is known not to be the newest either.
    fn before(
        &self,
        key: &[u8],
        position: Position,
    ) -> Result<Option<(Option<Entry>, bool)>, KvError> {
        let from = (key, newest_first(position));
        let found = BEFORE.find_nearest(&self.snapshot, from, key)?;
        Ok(found.map(|((_, since), (is_set, value), follows_another)| {
            let entry = is_set.then(|| Entry {
                since: newest_first_back(since),
                value,
            });
            (entry, follows_another)
        }))
    }
}

fn newest_first_back(stored: u64) -> Position {
    Position::new(u64::MAX - stored)
}

impl From<(Position, Vec<u8>)> for Entry {
    fn from((since, value): (Position, Vec<u8>)) -> Self {
        Self { since, value }
    }
}

type Newest<'v> = projection::Scan<'v, Vec<u8>, (Position, Vec<u8>)>;

/// Keys with what they have.
#[derive(Debug)]
pub struct Scan<'v>(Newest<'v>);

type Scanned = Result<(Vec<u8>, (Position, Vec<u8>)), StoreError>;

fn entry_of(scanned: Scanned) -> Result<(Vec<u8>, Entry), KvError> {
    let (key, entry) = scanned?;
    Ok((key, entry.into()))
}

impl Iterator for Scan<'_> {
    type Item = Result<(Vec<u8>, Entry), KvError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(entry_of)
    }
}

impl DoubleEndedIterator for Scan<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.0.next_back().map(entry_of)
    }
}

/// Keys with what they had.
#[derive(Debug)]
pub struct ScanAt<'v> {
    view: &'v View,
    newest: Peekable<Newest<'v>>,
    prefix: Vec<u8>,
    /// Keys before it have been given.
    next: Vec<u8>,
    position: Position,
    has_ended: bool,
}

impl ScanAt<'_> {
    /// Finds the next key that has, or had, anything.
    fn next_key(&mut self) -> Result<Option<Vec<u8>>, KvError> {
        if let Some(error) = self.newest.next_if(Result::is_err) {
            error?;
        }
        let mut before = BEFORE.range(&self.view.snapshot, (self.next.as_slice(), 0)..);
        let before = before.next().transpose()?.map(|((key, _), _)| key);
        let before = before.filter(|key| key.starts_with(&self.prefix));
        let newest = self.newest.peek().and_then(|newest| newest.as_ref().ok());
        let newest = newest.map(|(key, _)| key.clone());
        Ok(newest.into_iter().chain(before).min())
    }

    /// Passes a key, and says what it had.
    fn pass(&mut self, key: &[u8]) -> Result<Option<Entry>, KvError> {
        let is_it = |next: &Scanned| matches!(next, Ok((other, _)) if other == key);
        let newest = self.newest.next_if(is_it).transpose()?;
        self.next.clear();
        self.next.extend_from_slice(key);
        self.next.push(0);
        match newest.map(|(_, entry)| Entry::from(entry)) {
            Some(newest) if newest.since <= self.position => Ok(Some(newest)),
            _ => Ok(self
                .view
                .before(key, self.position)?
                .and_then(|(entry, _)| entry)),
        }
    }

    fn step(&mut self) -> Result<Option<(Vec<u8>, Entry)>, KvError> {
        while let Some(key) = self.next_key()? {
            if let Some(entry) = self.pass(&key)? {
                return Ok(Some((key, entry)));
            }
        }
        Ok(None)
    }
}

impl Iterator for ScanAt<'_> {
    type Item = Result<(Vec<u8>, Entry), KvError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_ended {
            return None;
        }
        let given = self.step().transpose();
        self.has_ended = !matches!(given, Some(Ok(_)));
        given
    }
}

/// What was done to a key, the newest first.
#[derive(Debug)]
pub struct History<'v> {
    newest: Option<Entry>,
    before: projection::Scan<'v, (Vec<u8>, u64), (bool, Vec<u8>)>,
    /// The position of what was given last.
    last: Option<Position>,
}

impl Iterator for History<'_> {
    type Item = Result<Change, KvError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(newest) = self.newest.take() {
            self.last = Some(newest.since);
            return Some(Ok(Change {
                position: newest.since,
                value: Some(newest.value),
            }));
        }
        loop {
            let ((_, since), (is_set, value)) = match self.before.next()? {
                Ok(found) => found,
                Err(error) => return Some(Err(error.into())),
            };
            let position = newest_first_back(since);
            // One event took the key away and gave it a value: only what is left of that counts.
            if self.last == Some(position) {
                continue;
            }
            self.last = Some(position);
            return Some(Ok(Change {
                position,
                value: is_set.then_some(value),
            }));
        }
    }
}

macro_rules! secret {
    ($($type:ident, $position:ident);*) => {$(
        /// What a key has may be secret.
        impl core::fmt::Debug for $type {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.debug_struct(stringify!($type))
                    .field(stringify!($position), &self.$position)
                    .finish_non_exhaustive()
            }
        }
    )*};
}

secret!(Entry, since; Change, position);
