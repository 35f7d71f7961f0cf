//! The digest of a state: a fast comparison, kept up to date with each change.
//!
//! Each map is represented by the wrapping sum of the mixes of its entries. A sum does not depend
//! on order, and an entry is replaced by subtracting its old mix and adding its new one, so that a
//! change costs the same however large the map is. [`State::digest`](crate::State::digest) mixes
//! the sums with the single fields. What is known of retention shares one sum, and so does what is known of erasure.
//!
//! The mix is that of `SplitMix64`, one round a word. It is a bijection for each word, so that two
//! entries which differ in one word never mix alike. It has no key: the digest is for finding
//! faults, not for facing an adversary, and is never stored in the log.

use core::fmt;

use kimberlite_types::{
    HoldId, IdempotencyKeyHash, LogId, NameHash, Position, SessionId, ShredId, StreamId,
};

use crate::idempotency::Known;
use crate::retention::{Retention, Scope};
use crate::state::{State, StreamState};

/// A 64-bit digest of a [`State`], for comparing two of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StateDigest(u64);

impl StateDigest {
    /// Returns the number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for StateDigest {
    /// Sixteen lower-case hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

const SEED_NAME: u64 = 0x6e61_6d65;
const SEED_STREAM: u64 = 0x7374_7265;
const SEED_STATE: u64 = 0x7374_6174;
const SEED_HOLD: u64 = 0x686f_6c64;
const SEED_RULE: u64 = 0x7275_6c65;
const SEED_PURGE: u64 = 0x7075_7267;
const SEED_SHRED: u64 = 0x7368_7265;
const SEED_ERASED: u64 = 0x6572_6173;
const SEED_KEY: u64 = 0x6b65_7973;

/// Returns the part of one entry in the mix of all names.
pub(crate) fn name_entry(name: &NameHash, stream: StreamId) -> u64 {
    let mix = words(SEED_NAME, name.as_bytes());
    round(mix, stream.position().get())
}

/// Returns the part of one entry in the mix of all streams.
pub(crate) fn stream_entry(stream: StreamId, state: StreamState) -> u64 {
    let mix = round(SEED_STREAM, stream.position().get());
    round(mix, state.next_offset.get())
}

/// Returns the part of one hold in the mix of what is known of retention.
pub(crate) fn hold_entry(hold: HoldId, scope: Scope) -> u64 {
    let mix = round(SEED_HOLD, hold.position().get());
    round(mix, scope.to_stored())
}

/// Returns the part of one rule likewise.
pub(crate) fn rule_entry(scope: Scope, rule: Retention) -> u64 {
    let mix = round(SEED_RULE, scope.to_stored());
    round(round(mix, rule.age_ns), rule.records)
}

/// Returns the part of how far a scope was purged likewise.
pub(crate) fn purge_entry(scope: Scope, until: Position) -> u64 {
    let mix = round(SEED_PURGE, scope.to_stored());
    round(mix, until.get())
}

/// Returns the part of one pending shred in the mix of what is known of erasure.
pub(crate) fn shred_entry(shred: ShredId, scope: Scope) -> u64 {
    let mix = round(SEED_SHRED, shred.position().get());
    round(mix, scope.to_stored())
}

/// Returns the part of how far a scope is erased likewise.
pub(crate) fn erased_entry(scope: Scope, until: Position) -> u64 {
    let mix = round(SEED_ERASED, scope.to_stored());
    round(mix, until.get())
}

/// Returns the part of one append with a key in the mix of all of them.
pub(crate) fn key_entry(key: &IdempotencyKeyHash, first: &Known) -> u64 {
    let mix = words(words(SEED_KEY, key.as_bytes()), first.request.as_bytes());
    first.words().into_iter().fold(mix, round)
}

/// Returns the digest of a state whose sums are up to date.
pub(crate) fn state(state: &State) -> StateDigest {
    // Written out, so that a new field cannot be forgotten.
    let State {
        log_id,
        next_position,
        last_time,
        session,
        last_checkpoint,
        names: _,
        streams: _,
        names_mix,
        streams_mix,
        retentions,
        erasures,
        generation,
        window,
    } = state;
    let mut mix = match log_id {
        Some(log_id) => round(words(SEED_STATE, LogId::as_bytes(log_id)), 1),
        None => round(SEED_STATE, 0),
    };
    for word in [
        next_position.get(),
        last_time.as_nanoseconds(),
        SessionId::to_stored(*session),
        last_checkpoint.map_or(u64::MAX, Position::get),
        *names_mix,
        *streams_mix,
        retentions.mix,
        erasures.mix,
        u64::from(generation.get()),
        window.mix,
    ] {
        mix = round(mix, word);
    }
    StateDigest(mix)
}

fn words(seed: u64, bytes: &[u8]) -> u64 {
    bytes
        .as_chunks()
        .0
        .iter()
        .fold(seed, |mix, word| round(mix, u64::from_le_bytes(*word)))
}

fn round(mix: u64, word: u64) -> u64 {
    let mut z = (mix ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
