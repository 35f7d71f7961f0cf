//! The text of a key file.

#![no_main]

use kimberlite_crypto::{RootKey, Signer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(key) = RootKey::decode(text) {
        assert_eq!(key.encode().trim(), text.trim());
    }
    let _ = Signer::from_pem(text);
});
