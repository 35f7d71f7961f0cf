//! Digests, Merkle tree, sealing, keys and signed notes of Kimberlite.
