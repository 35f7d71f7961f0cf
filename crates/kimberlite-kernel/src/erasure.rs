//! What is known of erasure: the shreds that were ordered, and how far each scope is erased.
//!
//! A shred orders the keys of a scope destroyed. That takes a while and may be cut short: it is pending
//! until a record says that the keys are destroyed everywhere. What holds between commands:
//!
//! 1. A pending shred was ordered by a record of the log, and is of the tenant or of a stream that
//!    exists. No two are of one scope, and none of a stream was ordered while the tenant's was pending.
//! 2. No hold in force covers what a pending shred does.
//! 3. No key session seals that was opened before the newest shred.
//! 4. A scope is erased up to the record of its newest shred. A stream stands beside the tenant only
//!    where it is erased further.
//!
//! The maps are ordered, so that walking over them is as deterministic as all else.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use kimberlite_types::{Position, RecordKind, ShredId};

use crate::digest;
use crate::invariants::{BrokenInvariant, hold};
use crate::{Scope, State};

/// What is decided about erasure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErasureAct {
    /// Orders the keys of a scope destroyed, for all that stands before this record; its id is the
    /// position of this record. The open key session ends with it, so nothing behind it is sealed with
    /// what is destroyed.
    Shred {
        /// What is erased.
        scope: Scope,
    },
    /// Says that the keys are destroyed everywhere.
    Complete {
        /// Whose.
        shred: ShredId,
    },
}

impl ErasureAct {
    /// Returns the kind of the record that keeps it.
    pub fn kind(&self) -> RecordKind {
        match self {
            Self::Shred { .. } => RecordKind::Shred,
            Self::Complete { .. } => RecordKind::ShredComplete,
        }
    }
}

/// Pending shreds, and up to where each scope is erased.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Erasures {
    pub(crate) pending: BTreeMap<ShredId, Scope>,
    pub(crate) erased: BTreeMap<Scope, Position>,
    /// The mix of all entries.
    pub(crate) mix: u64,
}

impl Erasures {
    /// Returns the oldest pending shred for which the scope need not be shredded again: its own, or the
    /// tenant's.
    pub(crate) fn pending_of(&self, scope: Scope) -> Option<(ShredId, Scope)> {
        self.find_pending(|other| other == scope || other == Scope::Tenant)
    }

    /// Returns the oldest pending shred that destroys keys of the scope.
    pub(crate) fn destroying(&self, scope: Scope) -> Option<(ShredId, Scope)> {
        self.find_pending(|other| {
            other == scope || other == Scope::Tenant || scope == Scope::Tenant
        })
    }

    fn find_pending(&self, is_meant: impl Fn(Scope) -> bool) -> Option<(ShredId, Scope)> {
        let mut pending = self.pending.iter();
        let found = pending.find(|(_, scope)| is_meant(**scope));
        found.map(|(shred, scope)| (*shred, *scope))
    }

    /// Returns the position below which the events of a scope are erased.
    pub(crate) fn erased(&self, scope: Scope) -> Position {
        let own = |scope| self.erased.get(&scope).copied().unwrap_or_default();
        own(scope).max(own(Scope::Tenant))
    }

    pub(crate) fn put_pending(&mut self, shred: ShredId, scope: Scope) {
        self.pending.insert(shred, scope);
        self.mix = self.mix.wrapping_add(digest::shred_entry(shred, scope));
    }

    pub(crate) fn complete(&mut self, shred: ShredId) -> bool {
        let Some(scope) = self.pending.remove(&shred) else {
            return false;
        };
        self.mix = self.mix.wrapping_sub(digest::shred_entry(shred, scope));
        true
    }

    /// Notes that a scope is erased up to `until`, further than before.
    pub(crate) fn set_erased(&mut self, scope: Scope, until: Position) {
        let replaced = |&other: &Scope, other_until: &mut Position| {
            other == scope || (scope == Scope::Tenant && *other_until <= until)
        };
        for (scope, until) in self.erased.extract_if(.., replaced) {
            self.mix = self.mix.wrapping_sub(digest::erased_entry(scope, until));
        }
        self.erased.insert(scope, until);
        self.mix = self.mix.wrapping_add(digest::erased_entry(scope, until));
    }

    /// Appends all entries as a snapshot has them.
    pub(crate) fn append_to(&self, bytes: &mut Vec<u8>) {
        let pending = self.pending.iter();
        let pending =
            pending.flat_map(|(shred, scope)| [shred.position().get(), scope.to_stored()]);
        let erased = self.erased.iter();
        let erased = erased.flat_map(|(scope, until)| [scope.to_stored(), until.get()]);
        for word in pending.chain(erased) {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
    }

    fn mixed(&self) -> u64 {
        let pending = self.pending.iter();
        let pending = pending.map(|(shred, scope)| digest::shred_entry(*shred, *scope));
        let erased = self.erased.iter();
        let erased = erased.map(|(scope, until)| digest::erased_entry(*scope, *until));
        pending.chain(erased).fold(0, u64::wrapping_add)
    }
}

impl State {
    /// Returns the shreds that were ordered and are not complete, the oldest first.
    pub fn pending_shreds(&self) -> impl ExactSizeIterator<Item = (ShredId, Scope)> {
        let pending = self.erasures.pending.iter();
        pending.map(|(shred, scope)| (*shred, *scope))
    }

    /// Returns the position below which the events of a scope were ordered shredded, by itself or with
    /// the tenant.
    pub fn erased(&self, scope: Scope) -> Position {
        self.erasures.erased(scope)
    }
}

pub(crate) fn check(state: &State) -> Result<(), BrokenInvariant> {
    let erasures = &state.erasures;
    let exists = |scope: &Scope| match scope {
        Scope::Tenant => true,
        Scope::Stream(stream) => state.streams.contains_key(stream),
    };
    let scopes = erasures.pending.values().chain(erasures.erased.keys());
    let all_exist = { scopes }.all(exists);
    hold("shreds are of what exists", all_exist)?;
    let ordered = erasures.pending.iter().all(|(shred, scope)| {
        let earlier = erasures.pending.range(..shred);
        let of_earlier = { earlier }.any(|(_, other)| other == scope || *other == Scope::Tenant);
        !of_earlier && shred.position() <= erasures.erased(*scope)
    });
    hold(
        "a scope is shredded once at a time, and erased as far",
        ordered,
    )?;
    let held = |scope| state.retentions.held(scope, state.next_position).is_some();
    let any_held = erasures.pending.values().any(|scope| held(*scope));
    hold("no hold covers what is being shredded", !any_held)?;
    let tenant = erasures.erased.get(&Scope::Tenant).copied();
    let mut erased = erasures.erased.iter();
    let further = erased.all(|(scope, until)| *scope == Scope::Tenant || Some(*until) > tenant);
    hold("a stream is erased further than the tenant", further)?;
    let last = erasures.erased.values().copied().max().unwrap_or_default();
    let inside = |until: &Position| Position::ZERO < *until && *until < state.next_position;
    let ordered = erasures.erased.values().all(inside);
    hold("shreds were ordered in the log", ordered)?;
    let is_newer = state
        .session
        .is_none_or(|session| session.position() > last);
    hold("no session seals that a shred ended", is_newer)?;
    hold(
        "the mix of shreds is that of their entries",
        erasures.mixed() == erasures.mix,
    )
}
