//! The hash chain: one value that fixes everything up to and including a record.
//!
//! `chain = SHA-256(0x02 ‖ chain before ‖ leaf)`; before the first record it is
//! `SHA-256("kimberlite/v1/genesis\n" ‖ log id)`. It is a function of the leaves of the Merkle tree,
//! so that the two cannot disagree.

use kimberlite_types::{ChainHash, LeafHash, LogId};
use sha2::{Digest, Sha256};

use crate::sha256::hash_two_blocks;

const GENESIS: &[u8] = b"kimberlite/v1/genesis\n";
const LINK: u8 = 0x02;

/// Returns the chain before the first record of a log.
pub fn chain_seed(log_id: &LogId) -> ChainHash {
    let digest = Sha256::new()
        .chain_update(GENESIS)
        .chain_update(log_id.as_bytes())
        .finalize();
    ChainHash::new(digest.into())
}

/// Returns the chain after a record.
#[inline]
pub fn chain_next(before: &ChainHash, leaf: &LeafHash) -> ChainHash {
    ChainHash::new(hash_two_blocks(LINK, before.as_bytes(), leaf.as_bytes()))
}
