//! Chain and tree: what every record is carried into, in order.

use kimberlite_crypto::{Frontier, chain_next, chain_seed};
use kimberlite_types::{ChainHash, LeafHash, LogId, Position};

use crate::damage::{Damage, DamageKind};
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

    /// A history at `position` whose chain is known and whose tree is not: its root says nothing.
    pub(crate) fn of_chain(position: Position, chain: ChainHash) -> Self {
        let size = position.get();
        let roots = usize::try_from(size.count_ones()).expect("64 bits at most");
        let mut bytes = vec![1];
        bytes.extend_from_slice(&size.to_le_bytes());
        bytes.resize(bytes.len() + 32 * roots, 0);
        let frontier = Frontier::decode(&bytes).expect("a root for each one bit of the size");
        Self { chain, frontier }
    }

    /// Carries chain and tree over the next leaves.
    pub(crate) fn extend(&mut self, leaves: &[LeafHash]) {
        let chain = leaves.iter();
        self.chain = chain.fold(self.chain, |chain, leaf| chain_next(&chain, leaf));
        self.frontier.extend(leaves);
    }

    pub(crate) fn position(&self) -> Position {
        Position::new(self.frontier.size())
    }

    /// Carries chain and tree over a frame's records, whose predecessors it must follow.
    pub(crate) fn push_frame(&mut self, frame: &FrameView) -> Result<(), Damage> {
        debug_assert!(frame.header().base_position == self.position());
        if frame.header().chain_before != self.chain {
            return Err(frame.damage(DamageKind::ChainBroken));
        }
        self.extend(&frame.leaves()?);
        Ok(())
    }
}
