//! The payload of a key-session record.

#![no_main]

use kimberlite_crypto::SessionParams;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(params) = SessionParams::decode(data) {
        assert_eq!(params.encode(), data);
    }
});
