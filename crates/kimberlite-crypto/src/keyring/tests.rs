use proptest::prelude::*;

use super::*;
use crate::{DataKey, RootKey};

fn keyring(generation: u64) -> Keyring {
    let entry = |id: u8, version: u32| KeyringEntry {
        key_id: KeyId::new([id; 16]),
        version: KeyVersion::new(version),
        epoch: 0x0403_0201,
        wrapped: [id ^ 0xff; WRAPPED_KEY_BYTES],
    };
    Keyring {
        log_id: LogId::new([0xaa; 32]),
        generation,
        entries: vec![entry(7, 0), entry(3, 1), entry(3, 0)],
    }
}

#[test]
fn the_stored_bytes_are_as_documented() {
    let mut expected = b"KIMBKEYS".to_vec();
    expected.extend([1, 0, 0, 0, 3, 0, 0, 0]);
    expected.extend([5, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([0xaa; 32]);
    for (id, version) in [(7_u8, 0_u8), (3, 1), (3, 0)] {
        expected.extend([id; 16]);
        expected.extend([version, 0, 0, 0, 1, 2, 3, 4]);
        expected.extend([id ^ 0xff; 40]);
    }
    let checksum = blake3::hash(&expected);
    expected.extend(checksum.as_bytes());
    assert_eq!(keyring(5).encode(), expected);
    assert_eq!(Keyring::decode(&expected), Ok(keyring(5)));
}

#[test]
fn every_bit_is_guarded() {
    let bytes = keyring(5).encode();
    for bit in 0..8 * bytes.len() {
        let mut changed = bytes.clone();
        *changed.get_mut(bit / 8).unwrap() ^= 1 << (bit % 8);
        assert!(Keyring::decode(&changed).is_err(), "bit {bit}");
    }
    for end in 0..bytes.len() {
        assert!(
            Keyring::decode(bytes.get(..end).unwrap()).is_err(),
            "{end} bytes"
        );
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(Keyring::decode(&longer).is_err());
}

#[test]
fn a_key_that_is_there_twice_is_refused() {
    let mut twice = keyring(5);
    twice.entries.extend(keyring(5).entries.into_iter().take(1));
    let duplicate = KeyringError::Duplicate {
        key_id: KeyId::new([7; 16]),
        version: KeyVersion::new(0),
    };
    assert_eq!(Keyring::decode(&twice.encode()), Err(duplicate));
}

#[test]
fn a_count_beyond_the_bytes_is_refused_before_anything_is_allocated() {
    let mut bytes = keyring(5).encode();
    bytes.get_mut(12..16).unwrap().fill(0xff);
    let error = Keyring::decode(&bytes).unwrap_err();
    assert!(
        matches!(
            error,
            KeyringError::Length {
                entries: u32::MAX,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn the_newer_whole_slot_is_taken() {
    let (older, newer) = (keyring(4).encode(), keyring(5).encode());
    let newest = |a: &[u8], b: &[u8]| Keyring::newest(Some(a), Some(b));
    assert_eq!(newest(&older, &newer), Ok(keyring(5)));
    assert_eq!(newest(&newer, &older), Ok(keyring(5)));
    assert_eq!(newest(&newer, &newer), Ok(keyring(5)));
    assert_eq!(Keyring::newest(Some(&older), None), Ok(keyring(4)));
    assert_eq!(Keyring::newest(None, Some(&newer)), Ok(keyring(5)));
    assert_eq!(Keyring::newest(None, None), Err(KeyringError::Missing));
}

#[test]
fn a_slot_that_was_torn_anywhere_gives_way_to_the_other() {
    let (older, newer) = (keyring(4).encode(), keyring(5).encode());
    for written in 0..newer.len() {
        // The older generation of the slot, half overwritten by the newer.
        let mut torn = keyring(3).encode();
        torn.get_mut(..written)
            .unwrap()
            .copy_from_slice(newer.get(..written).unwrap());
        let newest = Keyring::newest(Some(&older), Some(&torn)).unwrap();
        assert_eq!(newest, keyring(4), "{written} bytes");
    }
    let damaged = Keyring::newest(Some(&[]), Some(b"KIMBKEYS"));
    assert_eq!(damaged, Err(KeyringError::Magic));
}

#[test]
fn slots_that_contradict_each_other_are_refused() {
    let bytes = keyring(4).encode();
    let other_log = Keyring {
        log_id: LogId::new([1; 32]),
        ..keyring(5)
    };
    let other_entries = Keyring {
        entries: Vec::new(),
        ..keyring(4)
    };
    for other in [other_log, other_entries] {
        let newest = Keyring::newest(Some(&bytes), Some(&other.encode()));
        assert_eq!(newest, Err(KeyringError::Conflict));
    }
}

#[test]
fn generations_take_turns() {
    assert_eq!(Keyring::slot_for(0), Slot::A);
    assert_eq!(Keyring::slot_for(1), Slot::B);
    assert_eq!(Keyring::slot_for(u64::MAX), Slot::B);
}

#[test]
fn keys_are_found_by_id_and_version_and_open_under_the_root_key() {
    let root = RootKey::generate([1; 32]);
    let mut keyring = keyring(5);
    let key_id = KeyId::new([9; 16]);
    let version = KeyVersion::new(2);
    let kek = root.key_encryption_key(&keyring.log_id, 1);
    keyring.entries.push(KeyringEntry {
        key_id,
        version,
        epoch: 1,
        wrapped: kek.wrap(&keyring.log_id, &key_id, version, &DataKey::new([4; 32])),
    });
    let keyring = Keyring::decode(&keyring.encode()).unwrap();
    assert!(keyring.find(&key_id, KeyVersion::new(3)).is_none());
    let entry = keyring.find(&key_id, version).unwrap();
    let opened = kek.unwrap(&keyring.log_id, &key_id, version, &entry.wrapped);
    assert_eq!(opened.unwrap().as_bytes(), &[4; 32]);
    let exchanged = &keyring
        .find(&KeyId::new([7; 16]), KeyVersion::new(0))
        .unwrap()
        .wrapped;
    assert!(
        kek.unwrap(&keyring.log_id, &key_id, version, exchanged)
            .is_err()
    );
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        headed: bool,
        count in 0_u32..6,
    ) {
        let mut content = Vec::new();
        if headed {
            content.extend(MAGIC);
            content.extend(VERSION.to_le_bytes());
            content.extend(count.to_le_bytes());
        }
        content.extend(bytes);
        let checksum = internal_hash(&content);
        content.extend(checksum.as_bytes());
        if let Ok(keyring) = Keyring::decode(&content) {
            prop_assert_eq!(keyring.encode(), content);
        }
    }
}
