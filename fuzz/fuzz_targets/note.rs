//! Signed checkpoints and verifier keys. The text is also signed by a key that the target knows, so
//! that what stands behind the signature is reached.

#![no_main]

use kimberlite_crypto::{SignedCheckpoint, Signer, VerifierKey};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(key) = text.parse::<VerifierKey>() {
        assert_eq!(key.to_string(), text);
    }
    let signer = Signer::from_seed([7; 32]);
    let Ok(key) = signer.verifier_key("example.org/log") else {
        return;
    };
    let Ok(checkpoint) = SignedCheckpoint::parse(text) else {
        return;
    };
    if let Ok(body) = checkpoint.verify(&key) {
        let note = body
            .sign(&signer)
            .expect("an origin that was read can be written");
        let again = SignedCheckpoint::parse(&note).and_then(|note| note.verify(&key));
        assert_eq!(again, Ok(body));
    }
});
