//! The Merkle tree of RFC 6962 over the record headers.
//!
//! `leaf = SHA-256(0x00 ‖ header)`, `node = SHA-256(0x01 ‖ left ‖ right)`. A [`Frontier`] holds the
//! roots of the whole subtrees of a growing tree, one for each bit of its size, and from them the
//! root of the tree. Stored:
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0 | version | 1 |
//! | 1..9 | size | `u64`, leaves |
//! | 9.. | roots | 32 bytes for each one bit of the size, largest subtree first |

#![deny(clippy::indexing_slicing)]

use kimberlite_types::limits::POSITION_MAX;
use kimberlite_types::{LeafHash, NodeHash, RECORD_HEADER_BYTES, RootHash};
use sha2::{Digest, Sha256};

use crate::fields::Fields;
use crate::sha256::{hash_two_blocks, hash_two_blocks_pair};

const LEAF: u8 = 0x00;
const NODE: u8 = 0x01;
const VERSION: u8 = 1;
const FIXED_BYTES: usize = 9;

/// Hashes the canonical bytes of a record header into a leaf.
#[inline]
pub fn leaf_hash(header: &[u8; RECORD_HEADER_BYTES]) -> LeafHash {
    LeafHash::new(hash_two_blocks(LEAF, header, &[]))
}

/// Hashes record headers, each as [`leaf_hash`] would, two side by side.
pub fn leaf_hashes(headers: &[[u8; RECORD_HEADER_BYTES]]) -> Vec<LeafHash> {
    let (pairs, rest) = headers.as_chunks();
    let mut leaves = Vec::with_capacity(headers.len());
    for [a, b] in pairs {
        let pair = hash_two_blocks_pair(LEAF, [(a, &[]), (b, &[])]);
        leaves.extend(pair.map(LeafHash::new));
    }
    leaves.extend(rest.iter().map(leaf_hash));
    leaves
}

/// Hashes two neighbouring subtrees into the one above them.
#[inline]
pub fn node_hash(left: &NodeHash, right: &NodeHash) -> NodeHash {
    NodeHash::new(hash_two_blocks(NODE, left.as_bytes(), right.as_bytes()))
}

/// A growing Merkle tree, by the roots of its whole subtrees.
///
/// **Invariant:** one root for each one bit of the size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// Largest subtree first.
    roots: Vec<NodeHash>,
}

/// Why bytes are not a frontier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrontierError {
    /// The version is not known.
    #[error("frontier version {found} is not known to this release")]
    Version {
        /// The version that was found.
        found: u8,
    },
    /// The length does not follow from the size.
    #[error("a frontier of this size has {expected} bytes, found {actual}")]
    Length {
        /// Bytes that a frontier of the stored size has.
        expected: usize,
        /// Bytes that were found.
        actual: usize,
    },
    /// No log has so many records.
    #[error("a frontier of {size} leaves is larger than any log")]
    Size {
        /// The size that was found.
        size: u64,
    },
}

impl Frontier {
    /// Makes the empty tree.
    pub const fn new() -> Self {
        Self {
            size: 0,
            roots: Vec::new(),
        }
    }

    /// Returns the number of leaves.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Adds the next leaf.
    pub fn push(&mut self, leaf: LeafHash) {
        debug_assert!(self.size <= POSITION_MAX, "positions end before sizes do");
        let mut node = NodeHash::new(*leaf.as_bytes());
        // Each one bit at the low end of the size is a subtree that the leaf makes whole.
        for _ in 0..self.size.trailing_ones() {
            let left = self.roots.pop().expect("one root for each one bit");
            node = node_hash(&left, &node);
        }
        self.roots.push(node);
        self.size += 1;
        debug_assert_eq!(self.roots.len(), self.size.count_ones() as usize);
    }

    /// Adds many leaves, in order: what [`Frontier::push`] does with each, two nodes side by side.
    pub fn extend(&mut self, leaves: &[LeafHash]) {
        let count = u64::try_from(leaves.len()).expect("memory is smaller than 2^64 bytes");
        debug_assert!(
            self.size <= POSITION_MAX - count,
            "positions end before sizes do"
        );
        let mut level = leaves
            .iter()
            .map(|leaf| NodeHash::new(*leaf.as_bytes()))
            .collect::<Vec<_>>();
        // What stays at each level, smallest subtree first.
        let mut left_over = Vec::new();
        let mut size = self.size;
        while !level.is_empty() {
            // A one bit is a subtree of this height that waits for its right neighbour.
            if size & 1 == 1 {
                level.insert(0, self.roots.pop().expect("one root for each one bit"));
            }
            if !level.len().is_multiple_of(2) {
                left_over.extend(level.pop());
            }
            level = nodes_above(&level);
            size >>= 1;
        }
        self.roots.extend(left_over.into_iter().rev());
        self.size += count;
        debug_assert_eq!(self.roots.len(), self.size.count_ones() as usize);
    }

    /// Returns the root of the tree; of the empty tree it is SHA-256 of nothing.
    pub fn root(&self) -> RootHash {
        let mut smaller_first = self.roots.iter().rev();
        let Some(smallest) = smaller_first.next() else {
            return RootHash::new(Sha256::digest([]).into());
        };
        let root = smaller_first.fold(*smallest, |right, left| node_hash(left, &right));
        RootHash::new(*root.as_bytes())
    }

    /// Returns the stored bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED_BYTES + 32 * self.roots.len());
        bytes.push(VERSION);
        bytes.extend(self.size.to_le_bytes());
        for root in &self.roots {
            bytes.extend(root.as_bytes());
        }
        bytes
    }

    /// Reads the stored bytes.
    ///
    /// # Errors
    ///
    /// [`FrontierError`] when the bytes are of another version or length.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrontierError> {
        let length = |expected| FrontierError::Length {
            expected,
            actual: bytes.len(),
        };
        let mut fields = Fields::new(bytes);
        let [version] = fields.take().ok_or(length(FIXED_BYTES))?;
        if version != VERSION {
            return Err(FrontierError::Version { found: version });
        }
        let size = fields.take_u64().ok_or(length(FIXED_BYTES))?;
        if size > POSITION_MAX {
            return Err(FrontierError::Size { size });
        }
        let (roots, rest) = fields.rest().as_chunks();
        let expected = size.count_ones() as usize;
        if roots.len() != expected || !rest.is_empty() {
            return Err(length(FIXED_BYTES + 32 * expected));
        }
        Ok(Self {
            size,
            roots: roots.iter().copied().map(NodeHash::new).collect(),
        })
    }
}

/// Hashes neighbours, of which there is an even number, into the nodes above them.
fn nodes_above(level: &[NodeHash]) -> Vec<NodeHash> {
    let (fours, rest) = level.as_chunks();
    let mut above = Vec::with_capacity(level.len() / 2);
    for [a, b, c, d] in fours {
        let pairs = [(a.as_bytes(), b.as_bytes()), (c.as_bytes(), d.as_bytes())];
        above.extend(hash_two_blocks_pair(NODE, pairs).map(NodeHash::new));
    }
    if let [a, b] = rest {
        above.push(node_hash(a, b));
    }
    above
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn leaf(index: u64) -> LeafHash {
        let mut header = [0; RECORD_HEADER_BYTES];
        *header.first_chunk_mut().unwrap() = index.to_le_bytes();
        leaf_hash(&header)
    }

    fn frontier(size: u64) -> Frontier {
        let mut frontier = Frontier::new();
        (0..size).for_each(|index| frontier.push(leaf(index)));
        frontier
    }

    /// The recursive definition of RFC 6962, 2.1.
    fn root_by_definition(leaves: &[LeafHash]) -> NodeHash {
        match leaves {
            [] => NodeHash::new(Sha256::digest([]).into()),
            [leaf] => NodeHash::new(*leaf.as_bytes()),
            _ => {
                let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
                node_hash(&root_by_definition(left), &root_by_definition(right))
            }
        }
    }

    #[test]
    fn many_leaves_at_once_make_the_tree_that_they_make_one_by_one() {
        let leaves: Vec<_> = (0..80).map(leaf).collect();
        for size in 0..70 {
            for count in [0, 1, 2, 3, 4, 5, 7, 8, 9, 16, 31, 33, 64, 80] {
                let (mut many, mut single) = (frontier(size), frontier(size));
                let added = leaves.get(..count).unwrap();
                many.extend(added);
                for leaf in added {
                    single.push(*leaf);
                }
                assert_eq!(many, single, "{count} leaves behind {size}");
            }
        }
    }

    #[test]
    fn many_headers_hash_as_each_does() {
        for count in 0..6_u8 {
            let headers = (0..count).map(|n| [n; RECORD_HEADER_BYTES]);
            let headers = headers.collect::<Vec<_>>();
            let alone = headers.iter().map(leaf_hash).collect::<Vec<_>>();
            assert_eq!(leaf_hashes(&headers), alone);
        }
    }

    #[test]
    fn the_root_is_that_of_the_recursive_definition() {
        let leaves: Vec<_> = (0..300).map(leaf).collect();
        let mut frontier = Frontier::new();
        for (index, leaf) in leaves.iter().enumerate() {
            let expected = root_by_definition(leaves.get(..index).unwrap());
            assert_eq!(
                frontier.root().as_bytes(),
                expected.as_bytes(),
                "size {index}"
            );
            frontier.push(*leaf);
        }
    }

    #[test]
    fn the_stored_bytes_are_as_documented() {
        let bytes = frontier(3).encode();
        let mut expected = vec![1, 3, 0, 0, 0, 0, 0, 0, 0];
        let node = |index| NodeHash::new(*leaf(index).as_bytes());
        expected.extend(node_hash(&node(0), &node(1)).as_bytes());
        expected.extend(leaf(2).as_bytes());
        assert_eq!(bytes, expected);
        assert_eq!(Frontier::new().encode(), [1, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_stored_frontier_grows_on() {
        for size in 0..70 {
            let mut stored = Frontier::decode(&frontier(size).encode()).unwrap();
            assert_eq!(stored, frontier(size));
            stored.push(leaf(size));
            assert_eq!(stored, frontier(size + 1));
        }
    }

    #[test]
    fn other_lengths_versions_and_sizes_are_refused() {
        let good = frontier(5).encode();
        for bytes in 0..good.len() {
            assert!(
                Frontier::decode(good.get(..bytes).unwrap()).is_err(),
                "{bytes} bytes"
            );
        }
        let mut longer = good.clone();
        longer.push(0);
        assert_eq!(
            Frontier::decode(&longer),
            Err(FrontierError::Length {
                expected: 73,
                actual: 74
            })
        );
        let mut version = good;
        *version.first_mut().unwrap() = 2;
        assert_eq!(
            Frontier::decode(&version),
            Err(FrontierError::Version { found: 2 })
        );
        let mut size = vec![1];
        size.extend([0xff; 8 + 64 * 32]);
        assert_eq!(
            Frontier::decode(&size),
            Err(FrontierError::Size { size: u64::MAX })
        );
    }

    proptest! {
        #[test]
        fn what_decodes_encodes_to_the_same_bytes(
            version in 0_u8..3,
            size in prop_oneof![0_u64..20, any::<u64>()],
            roots in prop::collection::vec(any::<u8>(), 0..3 * 32 + 2),
        ) {
            let mut bytes = vec![version];
            bytes.extend(size.to_le_bytes());
            bytes.extend(roots);
            if let Ok(frontier) = Frontier::decode(&bytes) {
                prop_assert_eq!(frontier.encode(), bytes);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Frontier::decode(&bytes);
        }
    }
}
