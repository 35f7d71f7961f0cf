//! The wrapped data keys of a log: as they came, and with a right magic, version, count and checksum.

#![no_main]

use kimberlite_crypto::{Keyring, internal_hash};
use libfuzzer_sys::fuzz_target;

const FIELDS_BYTES: usize = 40;
const ENTRY_BYTES: usize = 64;

fuzz_target!(|data: &[u8]| {
    let _ = Keyring::decode(data);
    let (a, b) = data.split_at(data.len() / 2);
    let _ = Keyring::newest(Some(a), Some(b));

    let Some(entries) = data.get(FIELDS_BYTES..) else {
        return;
    };
    let entries = entries.len() / ENTRY_BYTES;
    let mut bytes = b"KIMBKEYS\x01\0\0\0".to_vec();
    bytes.extend(u32::try_from(entries).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend(&data[..FIELDS_BYTES + entries * ENTRY_BYTES]);
    let checksum = internal_hash(&bytes);
    bytes.extend(checksum.as_bytes());
    if let Ok(keyring) = Keyring::decode(&bytes) {
        assert_eq!(keyring.encode(), bytes);
        assert_eq!(Keyring::newest(Some(data), Some(&bytes)), Ok(keyring));
    }
});
