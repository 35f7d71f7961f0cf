//! What was ordered purged, and is not held.

use std::collections::BTreeMap;

use kimberlite_kernel::{RetentionAct, Scope, State};
use kimberlite_storage::FrameHeader;
use kimberlite_types::{HoldId, Position};

/// What was ordered purged, and the holds that keep some of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ordered {
    purges: BTreeMap<Scope, Position>,
    holds: BTreeMap<HoldId, Scope>,
}

impl Ordered {
    pub(crate) fn of(state: &State) -> Self {
        Self {
            purges: state.purges().collect(),
            holds: state.holds().collect(),
        }
    }

    /// Takes in what the record at `position` decides.
    pub(crate) fn apply(&mut self, position: Position, act: &RetentionAct) {
        match *act {
            RetentionAct::Hold { scope } => {
                self.holds.insert(HoldId::new(position), scope);
            }
            RetentionAct::Release { hold } => {
                self.holds.remove(&hold);
            }
            RetentionAct::Purge { scope, until, .. } => self.purge(scope, until),
            RetentionAct::Retain { .. } => {}
        }
    }

    /// As the kernel does: what reaches further than another one stands in its place.
    pub(crate) fn purge(&mut self, scope: Scope, until: Position) {
        if scope == Scope::Tenant {
            self.purges.retain(|_, other| *other > until);
        }
        self.purges.insert(scope, until);
    }

    pub(crate) fn holds(&self) -> &BTreeMap<HoldId, Scope> {
        &self.holds
    }

    /// The position behind all of it.
    pub(crate) fn until(&self) -> Position {
        self.purges.values().copied().max().unwrap_or_default()
    }

    /// Whether the events of a frame are to be purged, or were.
    pub(crate) fn includes(&self, header: &FrameHeader) -> bool {
        let Some(stream) = header.stream.map(Scope::Stream) else {
            return false;
        };
        let of = |scope| self.purges.get(&scope).copied().unwrap_or_default();
        let until = of(Scope::Tenant).max(of(stream));
        let is_held = |held: &Scope| *held == Scope::Tenant || *held == stream;
        header.end_position() <= until && !self.holds.values().any(is_held)
    }

    /// All of it as words: what is equal here includes the same frames. Empty where nothing was purged.
    pub(crate) fn words(&self) -> Vec<u64> {
        if self.purges.is_empty() {
            return Vec::new();
        }
        let purges = self.purges.iter();
        let purges = purges.flat_map(|(scope, until)| [scope.to_stored(), until.get()]);
        let mut held: Vec<u64> = self.holds.values().map(|scope| scope.to_stored()).collect();
        held.sort_unstable();
        held.dedup();
        purges.chain(held).collect()
    }
}
