//! What is known of how long payloads are kept: holds, rules, and what was purged.
//!
//! What holds between commands:
//!
//! 1. A hold was put by a record of the log, and stands on the tenant or on a stream that exists.
//! 2. Rules and purges are of the tenant or of streams that exist; nothing is purged that the log
//!    did not have before the record of the purge. A stream's purge stands beside the tenant's only
//!    where it reaches further.
//!
//! The maps are ordered, so that walking over them is as deterministic as all else.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;

use kimberlite_types::{HoldId, Position, RecordKind, StreamId, Timestamp};

use crate::digest;
use crate::invariants::{BrokenInvariant, hold};
use crate::state::State;

/// What an act of retention or erasure is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// All streams of the tenant.
    Tenant,
    /// One stream.
    Stream(StreamId),
}

impl Scope {
    /// Returns the stored field: the stream's id, all ones for the tenant.
    pub fn to_stored(self) -> u64 {
        match self {
            Self::Tenant => StreamId::to_stored(None),
            Self::Stream(stream) => StreamId::to_stored(Some(stream)),
        }
    }

    /// Reads the stored field.
    pub fn from_stored(value: u64) -> Self {
        StreamId::from_stored(value).map_or(Self::Tenant, Self::Stream)
    }

    /// Whether an event below `until` may be in both scopes: a stream has none before its own record.
    fn meets(self, other: Self, until: Position) -> bool {
        match (self, other) {
            (Self::Tenant, Self::Tenant) => true,
            (Self::Stream(one), Self::Stream(two)) => one == two,
            (Self::Tenant, Self::Stream(stream)) | (Self::Stream(stream), Self::Tenant) => {
                stream.position() < until
            }
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant => f.write_str("the tenant"),
            Self::Stream(stream) => write!(f, "stream {stream}"),
        }
    }
}

/// How old a record must be before its payload may be purged: both must hold.
///
/// A record's age is counted within the log, from its time to that of the log's last record, and in
/// records behind it. So a clock that is wrong while somebody purges makes nothing old.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Nanoseconds from its time to that of the last record.
    pub age_ns: u64,
    /// Records behind it.
    pub records: u64,
}

impl Retention {
    fn is_met_by(self, has: Self) -> bool {
        has.age_ns >= self.age_ns && has.records >= self.records
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SECOND_NS: u64 = 1_000_000_000;
        let seconds = self.age_ns / SECOND_NS;
        write!(f, "{seconds} s and {} later records", self.records)
    }
}

/// What is decided about retention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetentionAct {
    /// Puts a legal hold on a scope; its id is the position of this record. Until it is released
    /// nothing of the scope is purged.
    Hold {
        /// What it covers.
        scope: Scope,
    },
    /// Lifts a legal hold.
    Release {
        /// Which one.
        hold: HoldId,
    },
    /// Sets how long a scope is kept. A stream's own rule stands in place of the tenant's.
    Retain {
        /// Whose rule it is.
        scope: Scope,
        /// The rule; none takes an earlier one away.
        rule: Option<Retention>,
    },
    /// Orders the payloads of events below a position purged.
    Purge {
        /// Whose events.
        scope: Scope,
        /// The position before which they are purged.
        until: Position,
        /// The time of the record before it, which no record to be purged is younger than.
        newest: Timestamp,
    },
}

impl RetentionAct {
    /// Returns the kind of the record that keeps it.
    pub fn kind(&self) -> RecordKind {
        match self {
            Self::Hold { .. } => RecordKind::Hold,
            Self::Release { .. } => RecordKind::Release,
            Self::Retain { .. } => RecordKind::Retain,
            Self::Purge { .. } => RecordKind::Purge,
        }
    }
}

/// Holds in force, rules, and up to where each scope was purged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Retentions {
    pub(crate) holds: BTreeMap<HoldId, Scope>,
    pub(crate) rules: BTreeMap<Scope, Retention>,
    pub(crate) purged: BTreeMap<Scope, Position>,
    /// The mix of all entries.
    pub(crate) mix: u64,
}

impl Retentions {
    /// Returns the oldest hold on events of `scope` below `until`.
    pub(crate) fn held(&self, scope: Scope, until: Position) -> Option<(HoldId, Scope)> {
        let mut holds = self.holds.iter();
        let met = holds.find(|(_, held)| held.meets(scope, until));
        met.map(|(hold, held)| (*hold, *held))
    }

    /// Returns a rule that keeps events of `scope` below `until`, of which the youngest is as old as
    /// `has`.
    pub(crate) fn kept(
        &self,
        scope: Scope,
        until: Position,
        has: Retention,
    ) -> Option<(Scope, Retention)> {
        let own = |scope: Scope| self.rules.get(&scope).map(|rule| (scope, *rule));
        match scope {
            Scope::Stream(_) => own(scope)
                .or_else(|| own(Scope::Tenant))
                .filter(|(_, rule)| !rule.is_met_by(has)),
            // The tenant's own comes first in the map.
            Scope::Tenant => {
                let mut rules = self.rules.iter().map(|(scope, rule)| (*scope, *rule));
                rules.find(|(kept, rule)| kept.meets(scope, until) && !rule.is_met_by(has))
            }
        }
    }

    /// Returns the position below which the events of a scope were purged.
    pub(crate) fn purged(&self, scope: Scope) -> Position {
        let own = |scope| self.purged.get(&scope).copied().unwrap_or_default();
        own(scope).max(own(Scope::Tenant))
    }

    pub(crate) fn put_hold(&mut self, hold: HoldId, scope: Scope) {
        self.holds.insert(hold, scope);
        self.mix = self.mix.wrapping_add(digest::hold_entry(hold, scope));
    }

    pub(crate) fn lift_hold(&mut self, hold: HoldId) -> bool {
        let Some(scope) = self.holds.remove(&hold) else {
            return false;
        };
        self.mix = self.mix.wrapping_sub(digest::hold_entry(hold, scope));
        true
    }

    pub(crate) fn set_rule(&mut self, scope: Scope, rule: Option<Retention>) {
        let before = match rule {
            Some(rule) => self.rules.insert(scope, rule),
            None => self.rules.remove(&scope),
        };
        let entry = |rule: Option<Retention>| rule.map_or(0, |it| digest::rule_entry(scope, it));
        self.mix = self.mix.wrapping_sub(entry(before));
        self.mix = self.mix.wrapping_add(entry(rule));
    }

    pub(crate) fn set_purged(&mut self, scope: Scope, until: Position) {
        let replaced = |&other: &Scope, other_until: &mut Position| {
            other == scope || (scope == Scope::Tenant && *other_until <= until)
        };
        for (scope, until) in self.purged.extract_if(.., replaced) {
            self.mix = self.mix.wrapping_sub(digest::purge_entry(scope, until));
        }
        self.purged.insert(scope, until);
        self.mix = self.mix.wrapping_add(digest::purge_entry(scope, until));
    }

    /// Appends all entries as a snapshot has them.
    pub(crate) fn append_to(&self, bytes: &mut Vec<u8>) {
        let holds = self.holds.iter();
        let holds = holds.flat_map(|(hold, scope)| [hold.position().get(), scope.to_stored()]);
        let rules = self.rules.iter();
        let rules = rules.flat_map(|(scope, rule)| [scope.to_stored(), rule.age_ns, rule.records]);
        let purged = self.purged.iter();
        let purged = purged.flat_map(|(scope, until)| [scope.to_stored(), until.get()]);
        for word in holds.chain(rules).chain(purged) {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
    }

    fn mixed(&self) -> u64 {
        let holds = self.holds.iter();
        let holds = holds.map(|(hold, scope)| digest::hold_entry(*hold, *scope));
        let rules = self.rules.iter();
        let rules = rules.map(|(scope, rule)| digest::rule_entry(*scope, *rule));
        let purged = self.purged.iter();
        let purged = purged.map(|(scope, until)| digest::purge_entry(*scope, *until));
        holds.chain(rules).chain(purged).fold(0, u64::wrapping_add)
    }
}

impl State {
    /// Returns the legal holds in force, the oldest first.
    pub fn holds(&self) -> impl ExactSizeIterator<Item = (HoldId, Scope)> {
        let holds = self.retentions.holds.iter();
        holds.map(|(hold, scope)| (*hold, *scope))
    }

    /// Returns the rule that was set for a scope itself.
    pub fn retention(&self, scope: Scope) -> Option<Retention> {
        self.retentions.rules.get(&scope).copied()
    }

    /// Returns the position below which the events of a scope were ordered purged, by itself or with
    /// the tenant.
    pub fn purged(&self, scope: Scope) -> Position {
        self.retentions.purged(scope)
    }

    /// Returns each scope that was ordered purged by itself, and the position below which; the tenant
    /// first.
    pub fn purges(&self) -> impl ExactSizeIterator<Item = (Scope, Position)> {
        let purged = self.retentions.purged.iter();
        purged.map(|(scope, until)| (*scope, *until))
    }
}

pub(crate) fn check(state: &State) -> Result<(), BrokenInvariant> {
    let retentions = &state.retentions;
    let exists = |scope: &Scope| match scope {
        Scope::Tenant => true,
        Scope::Stream(stream) => state.streams.contains_key(stream),
    };
    let inside = |position: Position| Position::ZERO < position && position < state.next_position;
    let holds = &retentions.holds;
    let put = holds.keys().all(|hold| inside(hold.position()));
    hold("holds were put in the log", put)?;
    let mut scopes = (holds.values())
        .chain(retentions.rules.keys())
        .chain(retentions.purged.keys());
    hold(
        "holds, rules and purges are of what exists",
        scopes.all(exists),
    )?;
    let tenant = retentions.purged.get(&Scope::Tenant).copied();
    let mut purged = retentions.purged.iter();
    let further = purged.all(|(scope, until)| *scope == Scope::Tenant || Some(*until) > tenant);
    hold(
        "a stream's purge reaches further than the tenant's",
        further,
    )?;
    let behind = retentions.purged.values().all(|until| inside(*until));
    hold("a purge stands behind what it purges", behind)?;
    hold(
        "the mix of holds, rules and purges is that of their entries",
        retentions.mixed() == retentions.mix,
    )
}
