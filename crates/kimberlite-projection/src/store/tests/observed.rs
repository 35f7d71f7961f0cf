//! A state of a store that somebody else writes to.
//!
//! Goal: who observes is told what was flushed, or that a page is not what it was, and never something else.
//! Method: a real file, which would be mapped, is written anew under a reader that has read it before.

use super::*;

#[test]
fn an_observer_sees_what_was_flushed_or_damage_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let disk = OsDisk::new();
    let mut store = Store::create(&disk, &path, identity(), StoreOptions::default()).unwrap();
    let key = |n: u32| n.to_le_bytes().to_vec();
    let mut write_all = |round: u32| {
        let mut write = store.write();
        for n in 0..2_000 {
            write
                .put(&key(n), &[&round.to_le_bytes()[..], &[7; 60]].concat())
                .unwrap();
        }
        write.commit(at(u64::from(round))).unwrap();
        store.flush().unwrap();
    };
    write_all(1);
    let few_pages = StoreOptions {
        cache_bytes_max: 8 * PAGE_BYTES,
        ..StoreOptions::default()
    };
    let observed = Store::observe(&disk, &path, identity(), few_pages).unwrap();
    assert_eq!(observed.applied(), at(1));
    let (mut seen, mut damaged) = (0, 0);
    for round in 2..6 {
        for n in 0..2_000 {
            match observed.find(&key(n)) {
                Ok(value) => {
                    assert_eq!(value.unwrap()[..4], 1_u32.to_le_bytes(), "round {round}");
                    seen += 1;
                }
                Err(StoreError::Damaged { .. }) => damaged += 1,
                Err(error) => panic!("{error}"),
            }
        }
        write_all(round);
    }
    assert!(
        seen >= 2_000 && damaged > 0,
        "{seen} seen, {damaged} damaged"
    );
    let newest = Store::observe(&disk, &path, identity(), StoreOptions::default()).unwrap();
    assert_eq!(newest.applied(), at(5));
}
