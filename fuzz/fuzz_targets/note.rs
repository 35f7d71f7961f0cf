//! Signed checkpoints and verifier keys: as text, and as bodies that are signed and read again.

#![no_main]

use kimberlite_crypto::{CheckpointBody, SignedCheckpoint, Signer, VerifierKey};
use kimberlite_types::{ChainHash, RootHash, Timestamp};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Some((size, rest)) = data.split_first_chunk()
        && let Some((time, rest)) = rest.split_first_chunk()
        && let Some((root, rest)) = rest.split_first_chunk()
        && let Some((chain, rest)) = rest.split_first_chunk()
    {
        let body = CheckpointBody {
            origin: String::from_utf8_lossy(rest).into_owned(),
            size: u64::from_le_bytes(*size),
            root: RootHash::new(*root),
            chain: ChainHash::new(*chain),
            time: Timestamp::from_nanoseconds(u64::from_le_bytes(*time)),
        };
        signs_and_verifies(&body);
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(key) = text.parse::<VerifierKey>() {
        assert_eq!(key.to_string(), text);
    }
    let _ = SignedCheckpoint::parse(text);
});

/// A body with an origin that a key can have comes back from its note as it was.
fn signs_and_verifies(body: &CheckpointBody) {
    let signer = Signer::from_seed([7; 32]);
    let Ok(key) = signer.verifier_key(&body.origin) else {
        assert!(body.sign(&signer).is_err());
        return;
    };
    let note = body.sign(&signer).expect("a key may have the origin");
    let read = SignedCheckpoint::parse(&note).and_then(|note| note.verify(&key));
    assert_eq!(read.as_ref(), Ok(body));
}
