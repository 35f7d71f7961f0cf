//! Tables against maps of the same types.

use std::collections::BTreeMap;
use std::path::Path;

use kimberlite_disk::Disk as _;
use kimberlite_testkit::SimulatedDisk;
use kimberlite_types::{ChainHash, LogId, Position};
use proptest::prelude::*;

use super::*;
use crate::store::{Applied, Identity, Store, StoreOptions};

const NUMBERS: Table<i64, String> = Table::new(1);
const PAIRS: Table<(String, u64), (bool, Vec<u8>)> = Table::new(0x0102);
const LAST: Table<Vec<u8>, ()> = Table::new(u16::MAX);

fn store() -> Store {
    let disk = SimulatedDisk::new(1);
    disk.create_dir_all(Path::new("/p")).unwrap();
    let identity = Identity::new(LogId::new([7; 32]), "test", 1);
    let options = StoreOptions::default();
    Store::create(&disk, Path::new("/p/store"), identity, options).unwrap()
}

fn commit(store: &mut Store, change: impl FnOnce(&mut WriteTransaction<'_>)) {
    let mut write = store.write();
    change(&mut write);
    let applied = Applied {
        position: Position::new(1),
        chain: ChainHash::new([0; 32]),
    };
    write.commit(applied).unwrap();
}

fn text() -> impl Strategy<Value = String> {
    proptest::collection::vec(
        prop_oneof![Just('\0'), Just('a'), Just('\u{1}'), Just('é')],
        0..4,
    )
    .prop_map(|characters| characters.into_iter().collect())
}

fn bytes_of<K: Key>(key: K::Ref<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    K::encode(key, &mut bytes);
    bytes
}

proptest! {
    #[test]
    fn the_bytes_of_keys_stand_in_the_order_of_the_keys(
        (a, b) in ((text(), any::<i64>(), text()), (text(), any::<i64>(), text())),
    ) {
        type Three = (String, i64, String);
        let bytes = |key: &Three| bytes_of::<Three>((&key.0, key.1, &key.2));
        prop_assert_eq!(bytes(&a).cmp(&bytes(&b)), a.cmp(&b));
        let encoded = bytes(&a);
        let mut rest = encoded.as_slice();
        prop_assert_eq!(Three::decode(&mut rest), Some(a));
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn no_bytes_make_a_key_panic(bytes in proptest::collection::vec(prop_oneof![Just(0), Just(1), Just(255), any::<u8>()], 0..12)) {
        let mut rest = bytes.as_slice();
        if let Some(key) = <(String, u16, Vec<u8>)>::decode(&mut rest) {
            let again = bytes_of::<(String, u16, Vec<u8>)>((&key.0, key.1, &key.2));
            prop_assert_eq!(&again[..], &bytes[..bytes.len() - rest.len()]);
        }
    }

    #[test]
    fn a_scan_gives_what_a_map_gives_from_both_ends(
        entries in proptest::collection::btree_map((text(), 0..9_u64), 0..9_u8, 0..40),
        (from, to) in ((text(), 0..9_u64), (text(), 0..9_u64)),
        ends in proptest::collection::vec(any::<bool>(), 50),
        beginning in text(),
    ) {
        let mut store = store();
        commit(&mut store, |write| {
            NUMBERS.put(write, 5, "another table").unwrap();
            LAST.put(write, b"another table", ()).unwrap();
            for ((text, number), value) in &entries {
                PAIRS.put(write, (text, *number), (true, &[*value])).unwrap();
            }
        });
        let snapshot = store.snapshot();
        let given = |((text, number), (is_set, value)): ((String, u64), (bool, Vec<u8>))| {
            assert!(is_set);
            ((text, number), value[0])
        };
        let all: BTreeMap<_, _> = PAIRS.range(&snapshot, ..).map(|it| given(it.unwrap())).collect();
        prop_assert_eq!(&all, &entries);
        let within: Vec<_> = PAIRS.within(&snapshot, &beginning).map(|it| given(it.unwrap())).collect();
        let model: Vec<_> = entries.clone().into_iter().filter(|((text, _), _)| *text == beginning).collect();
        prop_assert_eq!(within, model);
        if from <= to {
            let mut scan = PAIRS.range(&snapshot, (from.0.as_str(), from.1)..=(to.0.as_str(), to.1));
            let mut model = entries.range(from..=to);
            for is_back in ends {
                let (found, expected) = if is_back { (scan.next_back(), model.next_back()) } else { (scan.next(), model.next()) };
                let expected = expected.map(|(key, value)| (key.clone(), *value));
                prop_assert_eq!(found.map(|it| given(it.unwrap())), expected);
            }
        } else {
            prop_assert_eq!(PAIRS.range(&snapshot, (from.0.as_str(), from.1)..(to.0.as_str(), to.1)).count(), 0);
        }
    }
}

#[test]
fn a_table_has_its_entries_and_a_transaction_sees_what_it_changed() {
    let mut store = store();
    commit(&mut store, |write| {
        NUMBERS.put(write, -1, "one").unwrap();
        NUMBERS.put(write, 0, "none").unwrap();
        assert_eq!(NUMBERS.find_in(write, -1).unwrap().as_deref(), Some("one"));
        NUMBERS.remove(write, 0).unwrap();
        assert_eq!(NUMBERS.find_in(write, 0).unwrap(), None);
    });
    let snapshot = store.snapshot();
    assert_eq!(NUMBERS.find(&snapshot, -1).unwrap().as_deref(), Some("one"));
    assert_eq!(NUMBERS.find(&snapshot, 0).unwrap(), None);
    let texts: Vec<String> = Table::<String, ()>::new(9)
        .within(&snapshot, "")
        .map(|it| it.unwrap().0)
        .collect();
    assert!(texts.is_empty());
}

#[test]
fn the_texts_that_begin_so_are_found() {
    const TEXTS: Table<String, u64> = Table::new(3);
    let mut store = store();
    commit(&mut store, |write| {
        for (number, text) in ["a", "patient/1", "patient/2", "patient0", "q"]
            .into_iter()
            .enumerate()
        {
            TEXTS.put(write, text, number as u64).unwrap();
        }
    });
    let snapshot = store.snapshot();
    let found: Vec<_> = TEXTS
        .within(&snapshot, "patient/")
        .map(|it| it.unwrap().1)
        .collect();
    assert_eq!(found, [1, 2]);
}

#[test]
fn an_entry_of_another_type_is_an_error_and_ends_the_scan() {
    const WRONG: Table<String, u64> = Table::new(1);
    let mut store = store();
    commit(&mut store, |write| {
        NUMBERS.put(write, 7, "seven").unwrap();
        NUMBERS.put(write, 8, "eight").unwrap();
    });
    let snapshot = store.snapshot();
    let mut scan = WRONG.range(&snapshot, ..);
    assert!(matches!(
        scan.next(),
        Some(Err(StoreError::WrongType { table: 1 }))
    ));
    assert!(scan.next().is_none());
}
