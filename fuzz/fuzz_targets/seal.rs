//! The seal of a closed segment, which holds its index: as it came, and with a right magic, version
//! and digest.

#![no_main]

use kimberlite_crypto::internal_hash;
use kimberlite_storage::SealFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = SealFile::decode(data);

    let mut bytes = b"KIMBSEL1\x01\0\0\0".to_vec();
    bytes.extend(data);
    let digest = internal_hash(&bytes);
    bytes.extend(digest.as_bytes());
    if let Ok(seal) = SealFile::decode(&bytes) {
        assert_eq!(seal.encode(), bytes);
    }
});
