//! The file of a snapshot: as it came, and with a right magic, version, digest and signature.

#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use kimberlite_crypto::{Signer, SnapshotClaim, VerifierKey, internal_hash};
use kimberlite_storage::LogSnapshot;
use kimberlite_types::{LogId, Position};
use libfuzzer_sys::fuzz_target;

static SIGNER: LazyLock<Signer> = LazyLock::new(|| Signer::from_seed([1; 32]));
static KEY: LazyLock<VerifierKey> = LazyLock::new(|| SIGNER.verifier_key("t").expect("a name"));

fuzz_target!(|data: &[u8]| {
    let _ = LogSnapshot::decode(&Bytes::copy_from_slice(data), &KEY);

    let mut bytes = b"KIMBSNP1\x01\0\0\0".to_vec();
    bytes.extend(data);
    let Some((log_id, rest)) = bytes[12..].get(4..).and_then(|rest| rest.split_first_chunk()) else {
        return;
    };
    let Some(position) = rest.first_chunk() else {
        return;
    };
    let claim = SnapshotClaim {
        log_id: LogId::new(*log_id),
        position: Position::new(u64::from_le_bytes(*position)),
        digest: internal_hash(&bytes),
    };
    bytes.extend(claim.digest.as_bytes());
    bytes.extend(claim.sign(&SIGNER));
    if let Ok(snapshot) = LogSnapshot::decode(&bytes.clone().into(), &KEY) {
        assert_eq!(snapshot.encode(&SIGNER), bytes);
    }
});
