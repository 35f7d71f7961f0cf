//! The Merkle tree's right edge, as it is stored.

#![no_main]

use kimberlite_crypto::Frontier;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(frontier) = Frontier::decode(data) {
        assert_eq!(frontier.encode(), data);
        let _ = frontier.root();
    }
});
