//! Manifests of backups: as they come, and with the digest made right.

#![no_main]

use kimberlite_crypto::internal_hash;
use kimberlite_storage::Manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    reads_back(data);
    let mut text = data.to_vec();
    text.extend_from_slice(format!("digest {}\n", internal_hash(data)).as_bytes());
    reads_back(&text);
});

/// What is read is written as it was, and no path of it leads out of the backup.
fn reads_back(bytes: &[u8]) {
    let Ok(manifest) = Manifest::decode(bytes) else {
        return;
    };
    assert_eq!(manifest.encode().as_bytes(), bytes);
    for file in &manifest.files {
        assert!(file.path.split('/').all(|name| !name.is_empty() && !name.starts_with('.')));
        assert!(file.used <= file.bytes);
    }
}
