//! A state as bytes, to start from instead of replaying the log.
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0..4 | version | `u32`, 3 |
//! | 4..8 | zero | |
//! | 8..40 | log id | |
//! | 40..48 | next position | `u64`, number of records |
//! | 48..56 | last time | `u64` |
//! | 56..64 | session | `u64`, all ones for none |
//! | 64..72 | last checkpoint | `u64`, all ones for none |
//! | 72..80 | streams | `u64`, number of entries |
//! | 80..88 | holds | `u64`, number of legal holds in force |
//! | 88..96 | rules | `u64`, number of rules of retention |
//! | 96..104 | purges | `u64`, number of scopes that were purged |
//! | 104..112 | keys | `u64`, number of appends that are known by their keys |
//! | 112..120 | generation | `u64`, of keys |
//! | 120..128 | shreds | `u64`, number of those that are not complete |
//! | 128..136 | erased | `u64`, number of scopes that were ordered shredded |
//! | 136.. | streams | `id u64 ‖ next offset u64 ‖ name hash 32`, in order of id |
//! | … | holds | `id u64 ‖ scope u64`, in order of id |
//! | … | rules | `scope u64 ‖ age u64 ‖ records u64`, in order of scope |
//! | … | purges | `scope u64 ‖ position u64`, in order of scope |
//! | … | keys | `key hash 16 ‖ request hash 16 ‖ stream u64 ‖ position u64 ‖ offset u64 ‖ time u64 ‖ session u64 ‖ count u32 ‖ first counter u32`, in order of position |
//! | … | shreds | `id u64 ‖ scope u64`, in order of id |
//! | … | erased | `scope u64 ‖ position u64`, in order of scope |
//!
//! A scope is the id of a stream, all ones for the tenant, which comes first. Version 2, of before there
//! were shreds, is read too: it ends its fields at byte 112 and its entries with the keys.
//!
//! There is no checksum: the file that holds it has one.

#![deny(clippy::indexing_slicing)]

#[cfg(test)]
mod tests;

use alloc::vec::Vec;

use hashbrown::HashMap;
use kimberlite_types::limits::{
    APPEND_EVENTS_MAX, HOLDS_MAX, POSITION_MAX, SHREDS_MAX, STREAMS_MAX,
};
use kimberlite_types::{
    HoldId, IdempotencyKeyHash, LogId, NameHash, Offset, Position, RequestHash, SessionId, ShredId,
    StreamId, Timestamp,
};

use crate::effect::COUNTER_NONE;
use crate::idempotency::Known;
use crate::state::StreamState;
use crate::{Generation, Retention, Scope, State, digest};

const VERSION: u32 = 3;
const VERSION_WITHOUT_SHREDS: u32 = 2;
const FIXED_BYTES: usize = 112;
const ERASURE_BYTES: usize = 24;
const ENTRY_BYTES: usize = 48;
const HOLD_BYTES: usize = 16;
const RULE_BYTES: usize = 24;
const PURGE_BYTES: usize = 16;
const KEY_BYTES: usize = 80;
const SHRED_BYTES: usize = 16;
const ERASED_BYTES: usize = 16;

/// Why bytes are not the snapshot of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The bytes end too early or go on too long.
    #[error("the snapshot of the state has the wrong length")]
    Length,
    /// The version is not known.
    #[error("the snapshot of the state has version {found}, which this release does not know")]
    Version {
        /// The version that was found.
        found: u32,
    },
    /// A field has a value that no state has.
    #[error("the {field} in the snapshot of the state is not valid")]
    Field {
        /// The field.
        field: &'static str,
    },
}

impl State {
    /// Returns the state as bytes; `None` for the state of a log without records.
    pub fn to_snapshot(&self) -> Option<Vec<u8>> {
        // Written out, so that a new field cannot be forgotten.
        let Self {
            log_id,
            next_position,
            last_time,
            session,
            last_checkpoint,
            names,
            streams,
            names_mix: _,
            streams_mix: _,
            retentions,
            erasures,
            generation,
            window,
        } = self;
        let log_id = (*log_id)?;
        let mut named: Vec<(StreamId, &NameHash)> =
            names.iter().map(|(name, stream)| (*stream, name)).collect();
        named.sort_unstable();
        let mut bytes = Vec::with_capacity(FIXED_BYTES + ERASURE_BYTES + named.len() * ENTRY_BYTES);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(log_id.as_bytes());
        for word in [
            next_position.get(),
            last_time.as_nanoseconds(),
            SessionId::to_stored(*session),
            last_checkpoint.map_or(u64::MAX, Position::get),
            named.len() as u64,
            retentions.holds.len() as u64,
            retentions.rules.len() as u64,
            retentions.purged.len() as u64,
            window.in_order().len() as u64,
            u64::from(generation.get()),
            erasures.pending.len() as u64,
            erasures.erased.len() as u64,
        ] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        for (stream, name) in named {
            let state = streams.get(&stream).copied().unwrap_or_default();
            bytes.extend_from_slice(&stream.position().get().to_le_bytes());
            bytes.extend_from_slice(&state.next_offset.get().to_le_bytes());
            bytes.extend_from_slice(name.as_bytes());
        }
        retentions.append_to(&mut bytes);
        for (key, first) in window.in_order() {
            bytes.extend_from_slice(key.as_bytes());
            bytes.extend_from_slice(first.request.as_bytes());
            for word in first.words() {
                bytes.extend_from_slice(&word.to_le_bytes());
            }
        }
        erasures.append_to(&mut bytes);
        Some(bytes)
    }

    /// Reads a state from bytes. What it returns keeps every invariant of a state.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`] when the bytes are not a snapshot of this version or of version 2.
    pub fn from_snapshot(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let (fixed, erasure, mut rest) = split_fixed(bytes)?;
        let mut state = Self::fixed_fields(fixed)?;
        state.generation = match u32::try_from(word(&erasure, 0)) {
            Ok(number) => Generation::new(number),
            Err(_) => {
                return Err(SnapshotError::Field {
                    field: "generation",
                });
            }
        };
        let entries = take_entries::<ENTRY_BYTES>(&mut rest, word(fixed, 72))?;
        let holds = take_entries::<HOLD_BYTES>(&mut rest, word(fixed, 80))?;
        let rules = take_entries::<RULE_BYTES>(&mut rest, word(fixed, 88))?;
        let purges = take_entries::<PURGE_BYTES>(&mut rest, word(fixed, 96))?;
        let keys = take_entries::<KEY_BYTES>(&mut rest, word(fixed, 104))?;
        let shreds = take_entries::<SHRED_BYTES>(&mut rest, word(&erasure, 8))?;
        let erased = take_entries::<ERASED_BYTES>(&mut rest, word(&erasure, 16))?;
        if !rest.is_empty() {
            return Err(SnapshotError::Length);
        }
        if entries.len() > STREAMS_MAX {
            return Err(SnapshotError::Field { field: "streams" });
        }
        state.names = HashMap::with_capacity(entries.len());
        state.streams = HashMap::with_capacity(entries.len());
        let mut events = 0_u128;
        let mut last = Position::ZERO;
        for entry in entries {
            let id = Position::new(word(entry, 0));
            if id <= last || id >= state.next_position {
                return Err(SnapshotError::Field { field: "stream" });
            }
            last = id;
            let offset = word(entry, 8);
            if !state.take_stream(StreamId::new(id), offset, entry) {
                return Err(SnapshotError::Field { field: "name hash" });
            }
            events += u128::from(offset);
        }
        state.take_retentions(holds, rules, purges)?;
        state.take_keys(keys)?;
        state.take_erasures(shreds, erased)?;
        let others = 1 + entries.len() + holds.len() + usize::from(state.session.is_some());
        let others = others + shreds.len() + state.generation.get() as usize;
        let others = others + usize::from(state.last_checkpoint.is_some());
        if events + others as u128 > u128::from(state.next_position.get()) {
            return Err(SnapshotError::Field {
                field: "next offset",
            });
        }
        debug_assert_eq!(crate::check_invariants(&state), Ok(()));
        Ok(state)
    }

    fn fixed_fields(fixed: &[u8; FIXED_BYTES]) -> Result<Self, SnapshotError> {
        let field = |field| SnapshotError::Field { field };
        if array(fixed, 4) != [0; 4] {
            return Err(field("padding"));
        }
        let next_position = Position::new(word(fixed, 40));
        if next_position == Position::ZERO || next_position.get() > POSITION_MAX {
            return Err(field("next position"));
        }
        let session = SessionId::from_stored(word(fixed, 56));
        let inside = |position: Position| Position::ZERO < position && position < next_position;
        if session.is_some_and(|session| !inside(session.position())) {
            return Err(field("session"));
        }
        let last_checkpoint = match word(fixed, 64) {
            u64::MAX => None,
            size => Some(Position::new(size)),
        };
        if last_checkpoint.is_some_and(|size| size >= next_position) {
            return Err(field("last checkpoint"));
        }
        Ok(Self {
            log_id: Some(LogId::new(array(fixed, 8))),
            next_position,
            last_time: Timestamp::from_nanoseconds(word(fixed, 48)),
            session,
            last_checkpoint,
            ..Self::default()
        })
    }

    /// Adds what is known of retention, once all streams are there.
    fn take_retentions(
        &mut self,
        holds: &[[u8; HOLD_BYTES]],
        rules: &[[u8; RULE_BYTES]],
        purges: &[[u8; PURGE_BYTES]],
    ) -> Result<(), SnapshotError> {
        let field = |field| SnapshotError::Field { field };
        if holds.len() > HOLDS_MAX {
            return Err(field("holds"));
        }
        let next = self.next_position;
        let inside = |position: Position| Position::ZERO < position && position < next;
        for entry in holds {
            let (hold, scope) = (HoldId::new(Position::new(word(entry, 0))), word(entry, 8));
            let scope = self.scope(scope).ok_or(field("hold"))?;
            let last = self.retentions.holds.last_key_value();
            if !inside(hold.position()) || last.is_some_and(|(last, _)| *last >= hold) {
                return Err(field("hold"));
            }
            self.retentions.put_hold(hold, scope);
        }
        for entry in rules {
            let scope = self.scope(word(entry, 0)).ok_or(field("rule"))?;
            let last = self.retentions.rules.last_key_value();
            if last.is_some_and(|(last, _)| *last >= scope) {
                return Err(field("rule"));
            }
            let (age_ns, records) = (word(entry, 8), word(entry, 16));
            let rule = Retention { age_ns, records };
            self.retentions.set_rule(scope, Some(rule));
        }
        for entry in purges {
            let (scope, until) = (word(entry, 0), Position::new(word(entry, 8)));
            let scope = self.scope(scope).ok_or(field("purge"))?;
            let last = self.retentions.purged.last_key_value();
            let in_order = last.is_none_or(|(last, _)| *last < scope);
            // A stream's purge stands there only where it reaches further than the tenant's.
            let further = until > self.retentions.purged(Scope::Tenant);
            if !inside(until) || !in_order || !further {
                return Err(field("purge"));
            }
            self.retentions.set_purged(scope, until);
        }
        Ok(())
    }

    /// Adds the appends that are known by their keys, once all streams are there.
    fn take_keys(&mut self, keys: &[[u8; KEY_BYTES]]) -> Result<(), SnapshotError> {
        let error = SnapshotError::Field { field: "key" };
        let mut end = Position::new(1);
        for (nth, entry) in keys.iter().enumerate() {
            let first = read_first(entry).ok_or(error)?;
            let events = u64::from(first.count);
            let behind = first.position.checked_add(events).ok_or(error)?;
            let stream = self.stream(first.stream).ok_or(error)?;
            let behind_offset = first.offset.checked_add(events).ok_or(error)?;
            let fits = first.position >= end
                && behind <= self.next_position
                && behind_offset <= stream.next_offset()
                && first.stream.position() < first.position
                && first
                    .session
                    .is_none_or(|it| it.position() < first.position)
                && first.time <= self.last_time;
            let may_be_known = self
                .window
                .allows(keys.len(), first.position, self.next_position);
            if !fits || (nth == 0 && !may_be_known) {
                return Err(error);
            }
            end = behind;
            let key = IdempotencyKeyHash::new(array(entry, 0));
            if !self.window.put(key, first) {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Adds what is known of erasure, once all streams and holds are there.
    fn take_erasures(
        &mut self,
        shreds: &[[u8; SHRED_BYTES]],
        erased: &[[u8; ERASED_BYTES]],
    ) -> Result<(), SnapshotError> {
        let field = |field| SnapshotError::Field { field };
        let mut newest = Position::ZERO;
        for entry in erased {
            let (scope, until) = (word(entry, 0), Position::new(word(entry, 8)));
            let scope = self.scope(scope).ok_or(field("erased scope"))?;
            let last = self.erasures.erased.last_key_value();
            let in_order = last.is_none_or(|(last, _)| *last < scope);
            let further = until > self.erasures.erased(Scope::Tenant);
            if !in_order || !further || until >= self.next_position {
                return Err(field("erased scope"));
            }
            newest = newest.max(until);
            self.erasures.set_erased(scope, until);
        }
        if self.session.is_some_and(|it| it.position() <= newest) {
            return Err(field("session"));
        }
        if shreds.len() > SHREDS_MAX {
            return Err(field("shreds"));
        }
        for entry in shreds {
            let (shred, scope) = (ShredId::new(Position::new(word(entry, 0))), word(entry, 8));
            let scope = self.scope(scope).ok_or(field("shred"))?;
            let erasures = &self.erasures;
            let last = erasures.pending.last_key_value();
            let fits = last.is_none_or(|(last, _)| *last < shred)
                && shred.position() > Position::ZERO
                && shred.position() <= erasures.erased(scope)
                && erasures.pending_of(scope).is_none()
                && self.retentions.held(scope, self.next_position).is_none();
            if !fits {
                return Err(field("shred"));
            }
            self.erasures.put_pending(shred, scope);
        }
        Ok(())
    }

    /// Reads a scope; none where no such stream exists.
    fn scope(&self, stored: u64) -> Option<Scope> {
        match Scope::from_stored(stored) {
            Scope::Tenant => Some(Scope::Tenant),
            Scope::Stream(stream) => {
                let exists = self.streams.contains_key(&stream);
                exists.then_some(Scope::Stream(stream))
            }
        }
    }

    /// Adds a stream with its name; `false` when another stream has the name.
    fn take_stream(&mut self, stream: StreamId, offset: u64, entry: &[u8; ENTRY_BYTES]) -> bool {
        let name = NameHash::new(array(entry, 16));
        let next_offset = Offset::new(offset);
        let stream_state = StreamState { next_offset };
        self.streams.insert(stream, stream_state);
        let streams_entry = digest::stream_entry(stream, stream_state);
        self.streams_mix = self.streams_mix.wrapping_add(streams_entry);
        let names_entry = digest::name_entry(&name, stream);
        self.names_mix = self.names_mix.wrapping_add(names_entry);
        self.names.insert(name, stream).is_none()
    }

    /// Returns all streams that a snapshot names, with the keyed hashes of their names, in the order in which they were
    /// created. They are those of a state only if [`from_snapshot`](Self::from_snapshot) reads one.
    pub fn snapshot_names(bytes: &[u8]) -> impl ExactSizeIterator<Item = (NameHash, StreamId)> {
        let named = || {
            let (fixed, _, mut rest) = split_fixed(bytes).ok()?;
            take_entries::<ENTRY_BYTES>(&mut rest, word(fixed, 72)).ok()
        };
        let stream = |entry: &[u8; ENTRY_BYTES]| StreamId::new(Position::new(word(entry, 0)));
        let entries = named().unwrap_or_default().iter();
        entries.map(move |entry| (NameHash::new(array(entry, 16)), stream(entry)))
    }
}

/// Reads an append that is known by its key; none where it is not in its stored form.
fn read_first(entry: &[u8; KEY_BYTES]) -> Option<Known> {
    let counts = word(entry, 72).to_le_bytes();
    let first = Known {
        request: RequestHash::new(array(entry, 16)),
        stream: StreamId::from_stored(word(entry, 32))?,
        position: Position::new(word(entry, 40)),
        offset: Offset::new(word(entry, 48)),
        time: Timestamp::from_nanoseconds(word(entry, 56)),
        session: SessionId::from_stored(word(entry, 64)),
        count: u32::from_le_bytes(array(&counts, 0)),
        first_counter: u32::from_le_bytes(array(&counts, 4)),
    };
    let has_events = (1..=APPEND_EVENTS_MAX as u64).contains(&u64::from(first.count));
    let is_counted = first.session.is_some() || first.first_counter == COUNTER_NONE;
    (has_events && is_counted).then_some(first)
}

/// The fixed fields, those of erasure among them, and what is behind.
type Parts<'a> = (&'a [u8; FIXED_BYTES], [u8; ERASURE_BYTES], &'a [u8]);

/// Splits off the fixed fields; those of erasure are zeros where the version has none.
fn split_fixed(bytes: &[u8]) -> Result<Parts<'_>, SnapshotError> {
    let (fixed, rest) = bytes.split_first_chunk().ok_or(SnapshotError::Length)?;
    match u32::from_le_bytes(array(fixed, 0)) {
        VERSION => {
            let (erasure, rest) = rest.split_first_chunk().ok_or(SnapshotError::Length)?;
            Ok((fixed, *erasure, rest))
        }
        VERSION_WITHOUT_SHREDS => Ok((fixed, [0; ERASURE_BYTES], rest)),
        found => Err(SnapshotError::Version { found }),
    }
}

/// Splits `count` entries of `N` bytes off the front.
fn take_entries<'a, const N: usize>(
    rest: &mut &'a [u8],
    count: u64,
) -> Result<&'a [[u8; N]], SnapshotError> {
    let count = usize::try_from(count).map_err(|_| SnapshotError::Length)?;
    let bytes = count.checked_mul(N).ok_or(SnapshotError::Length)?;
    let (entries, behind) = rest.split_at_checked(bytes).ok_or(SnapshotError::Length)?;
    *rest = behind;
    Ok(entries.as_chunks().0)
}

/// The bytes from `at` on; the caller knows that they are there.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let field = bytes.get(at..).and_then(<[u8]>::first_chunk);
    *field.expect("the field lies in a part of fixed length")
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}
