//! Signed checkpoints.

use kimberlite_crypto::{CheckpointBody, SignedCheckpoint, Signer, VerifierKey};
use kimberlite_types::{ChainHash, RootHash, Timestamp};

use super::{array, number, section, text};

#[test]
fn a_checkpoint_signs_to_the_known_note() {
    let known = section("note");
    let origin = text(&known["origin"]);
    let body = CheckpointBody {
        origin: origin.to_owned(),
        size: number(&known["size"]),
        root: RootHash::new(array(&known["root"])),
        chain: ChainHash::new(array(&known["chain"])),
        time: Timestamp::from_nanoseconds(number(&known["time"])),
    };
    let signer = Signer::from_seed(array(&known["seed"]));
    assert_eq!(body.sign(&signer).unwrap(), text(&known["note"]));

    let key: VerifierKey = text(&known["verifier_key"]).parse().unwrap();
    assert_eq!(key, signer.verifier_key(origin).unwrap());
    let signed = SignedCheckpoint::parse(text(&known["note"])).unwrap();
    assert_eq!(signed.verify(&key), Ok(body));
}
