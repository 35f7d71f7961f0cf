//! Appends that carried an idempotency key, as far back as a retry is recognised.
//!
//! An append is known while there are at most [`IDEMPOTENCY_POSITIONS_MAX`] records from its beginning
//! to the end of the log, and it is one of the newest [`IDEMPOTENCY_KEYS_MAX`] that carried a key. Both are counted in the
//! log, so whoever has read the same records knows the same appends.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::hash::BuildHasher as _;

use hashbrown::{DefaultHashBuilder, HashTable};
use kimberlite_types::limits::{IDEMPOTENCY_KEYS_MAX, IDEMPOTENCY_POSITIONS_MAX};
use kimberlite_types::{
    Idempotency, IdempotencyKeyHash, Offset, Position, RequestHash, SessionId, StreamId, Timestamp,
};

use crate::invariants::{BrokenInvariant, hold};
use crate::{Rejection, Slot, State, digest};

/// How much is known at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) positions: u64,
    pub(crate) keys: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            positions: IDEMPOTENCY_POSITIONS_MAX,
            keys: IDEMPOTENCY_KEYS_MAX,
        }
    }
}

/// The appends that are known by their keys.
///
/// They stand in a queue, where the oldest is found without a search, and the table of keys has but
/// their numbers: so it stays small enough for the caches of a processor.
#[derive(Clone, Debug, Default)]
pub(crate) struct Window {
    /// The number of each append, found by its key.
    numbers: HashTable<u32>,
    hashes: DefaultHashBuilder,
    /// The appends, the oldest first.
    order: VecDeque<(IdempotencyKeyHash, Known)>,
    /// The number of the oldest. They are counted up and wrap around: far fewer than there are numbers
    /// are known at one time.
    oldest: u32,
    pub(crate) mix: u64,
    bounds: Bounds,
}

const _: () = assert!(IDEMPOTENCY_KEYS_MAX < u32::MAX as usize);

/// An append, and what it asked for: the first of those that carried its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) request: RequestHash,
    pub(crate) stream: StreamId,
    pub(crate) position: Position,
    pub(crate) offset: Offset,
    pub(crate) time: Timestamp,
    pub(crate) session: Option<SessionId>,
    pub(crate) count: u32,
    pub(crate) first_counter: u32,
}

impl Known {
    pub(crate) fn slot(&self) -> Slot {
        Slot {
            position: self.position,
            count: self.count,
            stream: Some(self.stream),
            offset: Some(self.offset),
            session: self.session,
            first_counter: self.first_counter,
            time: self.time,
        }
    }

    /// Returns all but the request in their stored form.
    pub(crate) fn words(&self) -> [u64; 6] {
        [
            self.stream.position().get(),
            self.position.get(),
            self.offset.get(),
            self.time.as_nanoseconds(),
            SessionId::to_stored(self.session),
            u64::from(self.count) | u64::from(self.first_counter) << 32,
        ]
    }
}

impl Window {
    #[cfg(test)]
    pub(crate) fn with_bounds(bounds: Bounds) -> Self {
        Self {
            bounds,
            // So that the numbers soon wrap around.
            oldest: u32::MAX - 1,
            ..Self::default()
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty() && self.numbers.is_empty() && self.mix == 0
    }

    /// Returns where the append stands of which this is a retry; none when its key is new.
    pub(crate) fn find(&self, idempotency: &Idempotency) -> Result<Option<Slot>, Rejection> {
        match self.first(&idempotency.key) {
            None => Ok(None),
            Some(first) if first.request == idempotency.request => Ok(Some(first.slot())),
            Some(first) => Err(Rejection::KeyReused {
                first: first.position,
            }),
        }
    }

    /// Adds an append, unless its key is known, and lets go of the oldest where there are too many.
    /// Returns whether the key was new.
    pub(crate) fn put(&mut self, key: IdempotencyKeyHash, first: Known) -> bool {
        let is_new = self.first(&key).is_none();
        if is_new {
            self.put_new(key, first);
        }
        is_new
    }

    /// As [`put`](Self::put), of a key that was looked for before.
    pub(crate) fn put_new(&mut self, key: IdempotencyKeyHash, first: Known) {
        debug_assert!(self.first(&key).is_none(), "a key is known once");
        let last = self.order.back();
        debug_assert!(
            last.is_none_or(|(_, last)| last.position < first.position),
            "appends come in the order of the log"
        );
        let known = u32::try_from(self.order.len()).expect("the limits say so");
        let number = self.oldest.wrapping_add(known);
        self.order.push_back((key, first));
        let Self {
            numbers,
            hashes,
            order,
            oldest,
            ..
        } = self;
        let hash_of = |number: &u32| {
            let nth = number.wrapping_sub(*oldest) as usize;
            let (key, _) = order.get(nth).expect("a number is that of a known append");
            hashes.hash_one(key)
        };
        numbers.insert_unique(hashes.hash_one(key), number, hash_of);
        self.mix = self.mix.wrapping_add(digest::key_entry(&key, &first));
        if self.order.len() > self.bounds.keys {
            self.let_go_of_oldest();
        }
    }

    fn first(&self, key: &IdempotencyKeyHash) -> Option<&Known> {
        let is_of_key = |number: &u32| self.at(*number).is_some_and(|(other, _)| other == key);
        let number = self.numbers.find(self.hashes.hash_one(key), is_of_key)?;
        self.at(*number).map(|(_, first)| first)
    }

    fn at(&self, number: u32) -> Option<&(IdempotencyKeyHash, Known)> {
        self.order.get(number.wrapping_sub(self.oldest) as usize)
    }

    /// Lets go of what lies too far behind the position that follows.
    #[inline]
    pub(crate) fn let_go_behind(&mut self, next: Position) {
        while self.is_oldest_behind(next) {
            self.let_go_of_oldest();
        }
    }

    #[inline]
    fn is_oldest_behind(&self, next: Position) -> bool {
        let oldest = self.order.front();
        oldest.is_some_and(|(_, it)| next.get() - it.position.get() > self.bounds.positions)
    }

    #[inline(never)]
    fn let_go_of_oldest(&mut self) {
        let Some((key, first)) = self.order.pop_front() else {
            return;
        };
        let oldest = self.oldest;
        let found = self
            .numbers
            .find_entry(self.hashes.hash_one(key), |it| *it == oldest);
        found.expect("every append is found by its key").remove();
        self.oldest = oldest.wrapping_add(1);
        self.mix = self.mix.wrapping_sub(digest::key_entry(&key, &first));
    }

    /// Returns the appends, the oldest first.
    pub(crate) fn in_order(&self) -> impl ExactSizeIterator<Item = &(IdempotencyKeyHash, Known)> {
        self.order.iter()
    }

    /// Whether so many appends, of which the oldest begins at `oldest`, may be known at `next`.
    pub(crate) fn allows(&self, keys: usize, oldest: Position, next: Position) -> bool {
        keys <= self.bounds.keys && next.get() - oldest.get() <= self.bounds.positions
    }
}

impl State {
    /// Returns where the events of an append stand that is a retry; none when its key is new. So
    /// [`apply_committed`](crate::apply_committed) decides about it before anything else.
    ///
    /// # Errors
    ///
    /// [`Rejection::KeyReused`].
    pub fn first_answer(&self, idempotency: &Idempotency) -> Result<Option<Slot>, Rejection> {
        self.window.find(idempotency)
    }

    /// Returns how many appends are known by their keys.
    pub fn keys_count(&self) -> usize {
        self.window.order.len()
    }
}

pub(crate) fn check(state: &State) -> Result<(), BrokenInvariant> {
    let window = &state.window;
    let found = (window.order.iter()).zip(0..).all(|((key, _), nth)| {
        let number = window.oldest.wrapping_add(nth);
        let hash = window.hashes.hash_one(key);
        window.numbers.find(hash, |it| *it == number).is_some()
    });
    hold(
        "keys and their order lead to each other, one to one",
        found && window.order.len() == window.numbers.len(),
    )?;
    let keys = window.order.iter().map(|(key, _)| *key);
    let mut keys = keys.collect::<Vec<_>>();
    keys.sort_unstable();
    hold("no key is known twice", keys.is_sorted_by(|a, b| a < b))?;
    let positions = window.order.iter().map(|(_, first)| first.position);
    let positions = positions.collect::<Vec<_>>();
    hold(
        "keys are in the order of the log",
        positions.is_sorted_by(|before, position| before < position),
    )?;
    let next = state.next_position;
    hold(
        "appends with keys are in the log",
        positions.last().is_none_or(|last| *last < next),
    )?;
    let oldest = positions.first().copied().unwrap_or(next);
    hold(
        "no more keys are known than the limits say",
        window.allows(positions.len(), oldest, next),
    )?;
    let mut firsts = window.order.iter().map(|(_, first)| first);
    let exist = firsts.all(|first| state.streams.contains_key(&first.stream));
    hold("appends with keys are of streams that exist", exist)?;
    let mix = window.order.iter().fold(0_u64, |sum, (key, first)| {
        sum.wrapping_add(digest::key_entry(key, first))
    });
    hold(
        "the mix of the keys is that of their entries",
        mix == window.mix,
    )
}
