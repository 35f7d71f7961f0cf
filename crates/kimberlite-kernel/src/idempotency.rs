//! Appends that carried an idempotency key, as far back as a retry is recognised.
//!
//! An append is known while there are at most [`IDEMPOTENCY_POSITIONS_MAX`] records from its beginning
//! to the end of the log, and it is one of the newest [`IDEMPOTENCY_KEYS_MAX`] that carried a key. Both are counted in the
//! log, so whoever has read the same records knows the same appends.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use hashbrown::HashMap;
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
#[derive(Clone, Debug, Default)]
pub(crate) struct Window {
    firsts: HashMap<IdempotencyKeyHash, Known>,
    /// Where each begins, the oldest first.
    order: VecDeque<(Position, IdempotencyKeyHash)>,
    pub(crate) mix: u64,
    bounds: Bounds,
}

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
            ..Self::default()
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty() && self.firsts.is_empty() && self.mix == 0
    }

    /// Returns where the append stands of which this is a retry; none when its key is new.
    pub(crate) fn find(&self, idempotency: &Idempotency) -> Result<Option<Slot>, Rejection> {
        match self.firsts.get(&idempotency.key) {
            None => Ok(None),
            Some(first) if first.request == idempotency.request => Ok(Some(first.slot())),
            Some(first) => Err(Rejection::KeyReused {
                first: first.position,
            }),
        }
    }

    /// Adds an append whose key is not known, and lets go of the oldest where there are too many.
    /// Returns whether the key was new.
    pub(crate) fn put(&mut self, key: IdempotencyKeyHash, first: Known) -> bool {
        let entry = digest::key_entry(&key, &first);
        if self.firsts.insert(key, first).is_some() {
            return false;
        }
        debug_assert!(
            self.order
                .back()
                .is_none_or(|(last, _)| *last < first.position),
            "appends come in the order of the log"
        );
        self.order.push_back((first.position, key));
        self.mix = self.mix.wrapping_add(entry);
        if self.order.len() > self.bounds.keys {
            self.let_go_of_oldest();
        }
        true
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
        oldest.is_some_and(|(position, _)| next.get() - position.get() > self.bounds.positions)
    }

    #[inline(never)]
    fn let_go_of_oldest(&mut self) {
        let Some((_, key)) = self.order.pop_front() else {
            return;
        };
        let first = self.firsts.remove(&key);
        let first = first.expect("what is in order is known by its key");
        self.mix = self.mix.wrapping_sub(digest::key_entry(&key, &first));
    }

    /// Returns the appends, the oldest first.
    pub(crate) fn in_order(&self) -> impl ExactSizeIterator<Item = (&IdempotencyKeyHash, &Known)> {
        self.order.iter().map(|(_, key)| {
            let first = self.firsts.get(key);
            (key, first.expect("what is in order is known by its key"))
        })
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
    let in_order = window.order.iter().collect::<Vec<_>>();
    let found = in_order.iter().all(|(position, key)| {
        let first = window.firsts.get(key);
        first.is_some_and(|first| first.position == *position)
    });
    hold(
        "keys and their order lead to each other, one to one",
        found && in_order.len() == window.firsts.len(),
    )?;
    let sorted = in_order.is_sorted_by(|(before, _), (position, _)| before < position);
    hold("keys are in the order of the log", sorted)?;
    let next = state.next_position;
    let last = in_order.last().map_or(Position::ZERO, |(last, _)| *last);
    hold(
        "appends with keys are in the log",
        in_order.is_empty() || last < next,
    )?;
    let oldest = in_order.first().map_or(next, |(oldest, _)| *oldest);
    hold(
        "no more keys are known than the limits say",
        window.allows(in_order.len(), oldest, next),
    )?;
    let exist = window
        .firsts
        .values()
        .all(|first| state.streams.contains_key(&first.stream));
    hold("appends with keys are of streams that exist", exist)?;
    // A sum, so the order of the map does not matter.
    let mix = window.firsts.iter().fold(0_u64, |sum, (key, first)| {
        sum.wrapping_add(digest::key_entry(key, first))
    });
    hold(
        "the mix of the keys is that of their entries",
        mix == window.mix,
    )
}
