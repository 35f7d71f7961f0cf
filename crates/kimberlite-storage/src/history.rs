//! Chain and tree: what every record is carried into, in order.

use kimberlite_crypto::{Frontier, chain_next, chain_seed, leaf_hash};
use kimberlite_types::{ChainHash, LogId, Position, RecordHeader};

use crate::damage::DamageKind;
use crate::frame::FrameView;

/// Chain and tree up to some record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct History {
    pub(crate) chain: ChainHash,
    pub(crate) frontier: Frontier,
}

impl History {
    /// The history of a log without records.
    pub(crate) fn start(log_id: &LogId) -> Self {
        Self {
            chain: chain_seed(log_id),
            frontier: Frontier::new(),
        }
    }

    pub(crate) fn push(&mut self, record: &RecordHeader) {
        debug_assert_eq!(
            self.frontier.size(),
            record.position.get(),
            "leaves are in order"
        );
        let leaf = leaf_hash(&record.encode());
        self.chain = chain_next(&self.chain, &leaf);
        self.frontier.push(leaf);
    }

    pub(crate) fn position(&self) -> Position {
        Position::new(self.frontier.size())
    }

    /// Carries chain and tree over a frame's records, whose predecessors it must follow.
    pub(crate) fn push_frame(
        &mut self,
        frame: &FrameView,
    ) -> Result<(), (u64, Position, DamageKind)> {
        let header = frame.header();
        if header.chain_before != self.chain {
            return Err((frame.at(), header.base_position, DamageKind::ChainBroken));
        }
        for index in 0..usize::from(header.count) {
            let record = frame
                .record_at(index)
                .map_err(|kind| (frame.at(), self.position(), kind))?;
            self.push(&record.canonical_header());
        }
        Ok(())
    }
}
