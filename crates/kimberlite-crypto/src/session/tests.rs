use kimberlite_types::{Position, RecordFlags};
use proptest::prelude::*;

use super::*;
use crate::{Backend, DataKey};

const LOG: LogId = LogId::new([1; 32]);
const ID: KeyId = KeyId::new([2; 16]);
const KEY_VERSION: KeyVersion = KeyVersion::new(3);
const SALT: [u8; 32] = [4; 32];

fn key() -> DataKey {
    DataKey::new([5; 32])
}

fn open_new() -> (SessionCipher, SessionParams) {
    SessionCipher::open_new(&key(), &LOG, ID, KEY_VERSION, SALT)
}

fn place() -> Place {
    Place {
        log_id: LOG,
        stream: Some(StreamId::new(Position::new(6))),
        session: SessionId::new(Position::new(7)),
        counter: 8,
    }
}

fn flags(commit: Commit) -> RecordFlags {
    match commit {
        Commit::Included => RecordFlags::COMMITTED,
        Commit::Omitted => RecordFlags::ENCRYPTED,
    }
}

fn seal(cipher: &SessionCipher, place: &Place, commit: Commit, plaintext: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0xee; commitment_bytes(commit)];
    buffer.extend(plaintext);
    cipher.seal_in_place(place, commit, &mut buffer, 0);
    assert_eq!(buffer.len(), plaintext.len() + seal_overhead(commit));
    buffer
}

const BOTH: [Commit; 2] = [Commit::Included, Commit::Omitted];

#[test]
fn sealing_touches_nothing_before_its_start() {
    let (cipher, _) = open_new();
    for commit in BOTH {
        let mut buffer = b"before".to_vec();
        buffer.resize(6 + commitment_bytes(commit), 0);
        buffer.extend(b"plaintext");
        cipher.seal_in_place(&place(), commit, &mut buffer, 6);
        let (before, sealed) = buffer.split_at(6);
        assert_eq!(before, b"before");
        assert_eq!(sealed, seal(&cipher, &place(), commit, b"plaintext"));
    }
}

#[test]
fn sealing_allocates_nothing_when_there_is_room() {
    let (cipher, _) = open_new();
    let mut buffer = Vec::with_capacity(100 + seal_overhead(Commit::Included));
    buffer.resize(100 + COMMITMENT_BYTES, 1);
    let before = buffer.as_ptr();
    cipher.seal_in_place(&place(), Commit::Included, &mut buffer, 0);
    assert_eq!(buffer.as_ptr(), before);
}

#[test]
fn a_payload_opens_in_its_own_place_only() {
    let (cipher, _) = open_new();
    let elsewhere = [
        Place {
            log_id: LogId::new([9; 32]),
            ..place()
        },
        Place {
            stream: Some(StreamId::new(Position::new(9))),
            ..place()
        },
        Place {
            stream: None,
            ..place()
        },
        Place {
            session: SessionId::new(Position::new(9)),
            ..place()
        },
        Place {
            counter: 9,
            ..place()
        },
    ];
    for commit in BOTH {
        let sealed = seal(&cipher, &place(), commit, b"plaintext");
        let open = |place: &Place| cipher.open(place, flags(commit), &sealed);
        assert_eq!(open(&place()).unwrap(), b"plaintext");
        for place in &elsewhere {
            assert_eq!(open(place), Err(OpenError::NotAuthentic), "{place:?}");
        }
    }
}

#[test]
fn every_bit_of_a_sealed_payload_is_guarded() {
    let (cipher, _) = open_new();
    for commit in BOTH {
        let sealed = seal(
            &cipher,
            &place(),
            commit,
            b"some plaintext of more than a block",
        );
        for bit in 0..8 * sealed.len() {
            let mut changed = sealed.clone();
            *changed.get_mut(bit / 8).unwrap() ^= 1 << (bit % 8);
            let opened = cipher.open(&place(), flags(commit), &changed);
            assert_eq!(opened, Err(OpenError::NotAuthentic), "bit {bit}");
        }
        for end in 0..sealed.len() {
            let opened = cipher.open(&place(), flags(commit), sealed.get(..end).unwrap());
            assert!(opened.is_err(), "{end} bytes");
        }
    }
}

#[test]
fn the_flags_are_part_of_the_meaning() {
    let (cipher, _) = open_new();
    let sealed = seal(&cipher, &place(), Commit::Included, b"plaintext");
    let open = |flags, stored: &[u8]| cipher.open(&place(), flags, stored);
    assert_eq!(open(RecordFlags::PLAIN, &sealed), Err(OpenError::NotSealed));
    assert_eq!(
        open(RecordFlags::ENCRYPTED, &sealed),
        Err(OpenError::NotAuthentic)
    );
    let sealed = seal(&cipher, &place(), Commit::Omitted, &[1; 64]);
    assert_eq!(
        open(RecordFlags::COMMITTED, &sealed),
        Err(OpenError::NotAuthentic)
    );
    assert_eq!(
        open(RecordFlags::COMMITTED, &[0; 47]),
        Err(OpenError::TooShort {
            bytes_min: 48,
            actual: 47
        })
    );
    assert_eq!(
        open(RecordFlags::ENCRYPTED, &[]),
        Err(OpenError::TooShort {
            bytes_min: 16,
            actual: 0
        })
    );
}

#[test]
fn a_session_needs_the_key_log_and_params_that_it_was_opened_with() {
    let (_, params) = open_new();
    let wrong = |key: &DataKey, log: &LogId, params: &SessionParams| {
        let error = SessionCipher::from_params(key, log, params).unwrap_err();
        assert_eq!(error, SessionError::WrongKey);
    };
    assert!(SessionCipher::from_params(&key(), &LOG, &params).is_ok());
    wrong(&DataKey::new([6; 32]), &LOG, &params);
    wrong(&key(), &LogId::new([9; 32]), &params);
    wrong(
        &key(),
        &LOG,
        &SessionParams {
            key_id: KeyId::new([9; 16]),
            ..params.clone()
        },
    );
    wrong(
        &key(),
        &LOG,
        &SessionParams {
            key_version: KeyVersion::new(9),
            ..params.clone()
        },
    );
    wrong(
        &key(),
        &LOG,
        &SessionParams {
            salt: [9; 32],
            ..params.clone()
        },
    );
    let key_commitment = KeyCommitment::new([9; 32]);
    wrong(
        &key(),
        &LOG,
        &SessionParams {
            key_commitment,
            ..params
        },
    );
}

#[test]
fn sessions_of_different_salts_share_no_nonce_and_no_ciphertext() {
    let (one, _) = open_new();
    let (two, _) = SessionCipher::open_new(&key(), &LOG, ID, KEY_VERSION, [9; 32]);
    for commit in BOTH {
        let sealed = seal(&one, &place(), commit, &[0; 64]);
        assert_ne!(sealed, seal(&two, &place(), commit, &[0; 64]));
        assert_eq!(
            two.open(&place(), flags(commit), &sealed),
            Err(OpenError::NotAuthentic)
        );
    }
}

#[test]
fn session_params_are_stored_as_documented() {
    let (_, params) = open_new();
    let mut expected = vec![1, 0, 1, 0, 3, 0, 0, 0];
    expected.extend([2; 16]);
    expected.extend(SALT);
    expected.extend(params.key_commitment.as_bytes());
    assert_eq!(params.encode(), expected);
    assert_eq!(SessionParams::decode(&expected), Ok(params));
}

#[test]
fn other_session_params_are_refused() {
    let good = open_new().1.encode();
    let with = |at: usize, byte: u8| {
        let mut changed = good.clone();
        *changed.get_mut(at).unwrap() = byte;
        SessionParams::decode(&changed)
    };
    assert_eq!(with(0, 2), Err(SessionError::Version { found: 2 }));
    assert_eq!(with(1, 1), Err(SessionError::Reserved));
    assert_eq!(with(2, 2), Err(SessionError::Suite { found: 2 }));
    for actual in 0..SESSION_PARAMS_BYTES {
        let shorter = SessionParams::decode(good.get(..actual).unwrap());
        assert_eq!(shorter, Err(SessionError::Length { actual }));
    }
    let longer = [good.as_slice(), &[0]].concat();
    assert_eq!(
        SessionParams::decode(&longer),
        Err(SessionError::Length { actual: 89 })
    );
}

#[test]
fn every_bit_of_session_params_is_guarded_by_the_key_commitment() {
    let bytes = open_new().1.encode();
    for bit in 0..8 * bytes.len() {
        let mut changed = bytes.clone();
        *changed.get_mut(bit / 8).unwrap() ^= 1 << (bit % 8);
        let opened = SessionParams::decode(&changed)
            .and_then(|params| SessionCipher::from_params(&key(), &LOG, &params));
        assert!(opened.is_err(), "bit {bit}");
    }
}

#[test]
fn secrets_are_never_shown() {
    let shown = format!("{:?}", open_new().0);
    assert!(shown.starts_with("SessionCipher { backend: "), "{shown}");
    assert!(shown.ends_with(", .. }"), "{shown}");
}

proptest! {
    #[test]
    fn both_libraries_seal_the_same_bytes_and_open_each_other_s(
        seed: [u8; 32],
        counter: u32,
        stream: Option<u32>,
        plaintext in prop::collection::vec(any::<u8>(), 0..3000),
    ) {
        let data_key = DataKey::new(seed);
        let (_, params) = SessionCipher::open_new(&data_key, &LOG, ID, KEY_VERSION, SALT);
        let portable =
            SessionCipher::with_backend(&data_key, &LOG, &params, Backend::RustCrypto).unwrap();
        let default = SessionCipher::from_params(&data_key, &LOG, &params).unwrap();
        let stream = stream.map(|stream| StreamId::new(Position::new(stream.into())));
        let place = Place { stream, counter, ..place() };
        for commit in BOTH {
            let sealed = seal(&portable, &place, commit, &plaintext);
            prop_assert_eq!(&sealed, &seal(&default, &place, commit, &plaintext));
            for cipher in [&portable, &default] {
                let opened = cipher.open(&place, flags(commit), &sealed).unwrap();
                prop_assert_eq!(&opened, &plaintext);
            }
        }
    }

    #[test]
    fn arbitrary_payloads_never_open(stored: Vec<u8>) {
        let (cipher, _) = open_new();
        for commit in BOTH {
            prop_assert!(cipher.open(&place(), flags(commit), &stored).is_err());
        }
    }

    #[test]
    fn what_decodes_encodes_to_the_same_bytes(
        mut bytes in prop::collection::vec(any::<u8>(), 80..96),
        head in prop::option::of(Just([1, 0, 1, 0])),
    ) {
        if let (Some(head), Some(first)) = (head, bytes.first_chunk_mut()) {
            *first = head;
        }
        if let Ok(params) = SessionParams::decode(&bytes) {
            prop_assert_eq!(params.encode(), bytes);
        }
    }
}
