//! A snapshot that is held for very long.

use super::*;

const COMMITS: u64 = 1_000_000;
const FLUSH_COMMITS: u64 = 20_000;
const KEYS: u64 = 500;

#[test]
fn a_snapshot_never_changes_while_a_million_commits_pass_it_and_its_space_comes_back() {
    let mut store = Store::in_memory(identity(), StoreOptions::default()).unwrap();
    let mut rng = Rng::new(1);
    let mut model = Model::new();
    let changes: Vec<_> = (0..KEYS)
        .map(|key| (key.to_le_bytes().to_vec(), Some(vec![1; 100])))
        .collect();
    commit_both(&mut store, &mut model, 1, changes);
    store.flush().unwrap();
    let (held, expected) = (store.snapshot(), model.clone());
    let mut grown = 0;
    for nth in 1..=COMMITS {
        let key = rng.below(KEYS).to_le_bytes();
        let mut write = store.write();
        write.put(&key, &nth.to_le_bytes()).unwrap();
        write.commit(at(nth + 1)).unwrap();
        model.insert(key.to_vec(), nth.to_le_bytes().to_vec());
        if nth % FLUSH_COMMITS == 0 {
            store.flush().unwrap();
            assert_eq!(all(&held), expected, "commit {nth}");
            let pages = store.verify().unwrap().file_pages;
            // The last ones need no more than the first few did.
            if nth <= 5 * FLUSH_COMMITS {
                grown = pages;
            }
            assert!(pages <= grown + grown / 4, "commit {nth}: {pages}, {grown}");
        }
    }
    assert_eq!(all(&store.snapshot()), model);
    let before = store.verify().unwrap();
    drop(held);
    for nth in 1..4 {
        let change = (KEYS.to_le_bytes().to_vec(), Some(vec![nth]));
        commit(&mut store, COMMITS + 1 + u64::from(nth), &[change]);
        store.flush().unwrap();
    }
    let after = store.verify().unwrap();
    assert!(
        after.given_pages < before.given_pages,
        "{before:?} {after:?}"
    );
}
