//! Sizes, and what becomes of pages: keys and values up to their limits, and files that do not grow for
//! ever.

use super::super::page::BODY_BYTES;
use super::*;

#[test]
fn keys_and_values_of_every_length_up_to_the_limit_are_kept_and_longer_ones_refused() {
    let fixture = Fixture::simulated();
    let mut store = fixture.create();
    let mut model = Model::new();
    let lengths = [
        0,
        1,
        895,
        899,
        900,
        901,
        4055,
        4056,
        4057,
        8112,
        8113,
        100_000,
        VALUE_BYTES_MAX,
    ];
    let changes: Vec<_> = lengths
        .iter()
        .flat_map(|&bytes| [(bytes, 0), (bytes, 1023)])
        .map(|(bytes, key)| {
            let mut name = bytes.to_string().into_bytes();
            name.resize(name.len().max(key) + usize::from(key == 1023), b'k');
            (name, Some(vec![7; bytes]))
        })
        .collect();
    commit_both(&mut store, &mut model, 1, changes);
    assert!(model.keys().any(|key| key.len() == KEY_BYTES_MAX));
    assert_eq!(all(&store.snapshot()), model);
    store.flush().unwrap();
    drop(store);
    let mut store = fixture.open();
    assert_eq!(all(&store.snapshot()), model);
    store.verify().unwrap();
    let mut transaction = store.write();
    let refused = transaction.put(&[0; KEY_BYTES_MAX + 1], b"");
    assert!(matches!(refused, Err(StoreError::KeyTooLong { .. })));
    let refused = transaction.put(b"", &vec![0; VALUE_BYTES_MAX + 1]);
    assert!(matches!(refused, Err(StoreError::ValueTooLong { .. })));
    transaction.put(b"", b"the empty key").unwrap();
    assert_eq!(
        transaction.find(b"").unwrap().as_deref(),
        Some(&b"the empty key"[..])
    );
    transaction.commit(at(2)).unwrap();
    assert_eq!(
        store.snapshot().find(b"").unwrap().as_deref(),
        Some(&b"the empty key"[..])
    );
}

#[test]
fn one_key_that_is_updated_a_hundred_thousand_times_takes_no_more_space() {
    let fixture = Fixture::simulated();
    let mut store = fixture.create();
    let mut size = 0;
    for position in 1..=100_000_u64 {
        let value = position.to_le_bytes().to_vec();
        commit(&mut store, position, &[(b"key".to_vec(), Some(value))]);
        if position % 500 == 0 {
            store.flush().unwrap();
            size = size.max(store.verify().unwrap().file_pages);
        }
    }
    let found = store.snapshot();
    assert_eq!(
        found.find(b"key").unwrap().as_deref(),
        Some(&100_000_u64.to_le_bytes()[..])
    );
    assert_eq!(store.verify().unwrap().entries, 1);
    assert!(size < 64, "{size} pages");
}

#[test]
fn ten_thousand_prefixes_are_apart_and_their_entries_in_order() {
    let fixture = Fixture::real(StoreOptions::default());
    let mut store = fixture.create();
    let mut model = Model::new();
    let changes: Vec<_> = (0..30_000_u32)
        .map(|n| {
            let (index, nth) = (n % 10_000, n / 10_000);
            let key = format!("{index:05}/{nth}").into_bytes();
            (key, Some(n.to_le_bytes().to_vec()))
        })
        .collect();
    commit_both(&mut store, &mut model, 1, changes);
    store.flush().unwrap();
    assert_eq!(all(&store.snapshot()), model);
    let snapshot = store.snapshot();
    let mut cursor = snapshot.cursor().unwrap();
    for index in [0, 1, 4711, 9999] {
        let prefix = format!("{index:05}/");
        cursor.seek(prefix.as_bytes()).unwrap();
        for nth in 0..3 {
            let entry = cursor.next_entry().unwrap().unwrap();
            assert_eq!(entry.key, format!("{prefix}{nth}").as_bytes());
        }
    }
}

/// Commits updates of keys drawn from a thousand, so many times, and flushes each beside the next.
fn update(store: &mut Store, rng: &mut Rng, positions: std::ops::Range<u64>) {
    for position in positions {
        let changes: Vec<_> = (0..20)
            .map(|_| {
                let key = rng.below(1000).to_string().into_bytes();
                (key, Some(rng.bytes(100)))
            })
            .collect();
        commit(store, position, &changes);
        if position % 2 == 0 {
            store.finish_flush().unwrap();
            store.begin_flush().unwrap();
        }
    }
    store.flush().unwrap();
}

#[test]
fn a_snapshot_never_changes_and_the_file_does_not_grow_for_as_long_as_it_is_held() {
    let fixture = Fixture::real(StoreOptions::default());
    let mut store = fixture.create();
    let mut rng = Rng::new(1);
    update(&mut store, &mut rng, 1..200);
    let settled = store.verify().unwrap();
    let held = store.snapshot();
    let expected = all(&held);
    update(&mut store, &mut rng, 200..400);
    let at_first = store.verify().unwrap().file_pages;
    update(&mut store, &mut rng, 400..1500);
    let later = store.verify().unwrap();
    // The snapshot keeps its own pages, and none of those that came and went since.
    assert!(
        at_first <= 3 * settled.file_pages,
        "{at_first}, {settled:?}"
    );
    assert!(
        later.file_pages <= at_first + at_first / 4,
        "{later:?}, {at_first}"
    );
    assert!(later.given_pages >= settled.used_pages / 2, "{later:?}");
    assert_eq!(all(&held), expected);
    drop(held);
    update(&mut store, &mut rng, 1500..1503);
    let freed = store.verify().unwrap();
    let given_back = later.given_pages - freed.given_pages;
    assert!(given_back >= settled.used_pages / 2, "{freed:?}, {later:?}");
}

#[test]
fn what_is_removed_gives_its_pages_back() {
    let fixture = Fixture::simulated();
    let mut store = fixture.create();
    for round in 0..4_u64 {
        let changes: Vec<_> = (0..2000_u64)
            .map(|n| (n.to_string().into_bytes(), Some(vec![3; 300])))
            .collect();
        commit(&mut store, 10 * round + 1, &changes);
        store.flush().unwrap();
        let full = store.verify().unwrap();
        for (part, keys) in changes.chunks(500).enumerate() {
            let gone: Vec<_> = keys.iter().map(|(key, _)| (key.clone(), None)).collect();
            commit(&mut store, 10 * round + 2 + part as u64, &gone);
            store.flush().unwrap();
            let size = store.verify().unwrap();
            assert!(size.used_pages <= full.used_pages, "{size:?}");
        }
        let empty = store.verify().unwrap();
        assert_eq!((empty.entries, empty.used_pages), (0, 0));
        assert!(full.file_pages < 600, "{full:?}");
    }
}

#[test]
fn a_deep_tree_shrinks_with_what_is_left_of_it() {
    // Long keys of which three begin alike: most leaves end between two of these, so branches have few children.
    let key = |n: usize| {
        let mut key = vec![u8::try_from(n / 3).unwrap(); 999];
        key[998] = u8::try_from(n % 3).unwrap();
        key
    };
    for seed in 0..20 {
        let fixture = Fixture::simulated();
        let (mut store, mut rng) = (fixture.create(), Rng::new(seed));
        let mut model = Model::new();
        for position in 1..=8_u64 {
            // All of them, or what is left is a few beside each other, some of which change.
            let (from, some) = (rng.index(600), 1 + rng.index(40));
            let is_full = position % 4 == 1;
            let changes = (0..600).filter_map(|n| {
                if !is_full && !(from..from + some).contains(&n) {
                    return Some((key(n), None));
                }
                (is_full || rng.chance(1, 3)).then(|| (key(n), Some(rng.bytes(5))))
            });
            let changes = changes.collect();
            commit_both(&mut store, &mut model, position, changes);
            store.flush().unwrap();
            store.verify().unwrap();
            assert_eq!(all(&store.snapshot()), model, "seed {seed}");
        }
    }
}

#[test]
fn readers_in_other_threads_see_whole_states() {
    for options in [StoreOptions::default(), COPIED] {
        let fixture = Fixture::real(options);
        let mut store = fixture.create();
        let reader = store.reader();
        let is_done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                        let snapshot = reader.snapshot();
                        let position = snapshot.applied().position.get();
                        let entries = all(&snapshot);
                        assert!(
                            entries
                                .values()
                                .all(|value| *value == position.to_le_bytes())
                        );
                        assert_eq!(entries.len(), if position == 0 { 0 } else { 300 });
                    }
                });
            }
            for position in 1..=300_u64 {
                let changes: Vec<_> = (0..300_u64)
                    .map(|n| {
                        (
                            n.to_string().into_bytes(),
                            Some(position.to_le_bytes().to_vec()),
                        )
                    })
                    .collect();
                commit(&mut store, position, &changes);
                if position % 3 == 0 && store.end_flush().unwrap() {
                    let flush = store.begin_flush().unwrap().unwrap();
                    scope.spawn(move || flush.run());
                }
            }
            is_done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        store.flush().unwrap();
        store.verify().unwrap();
    }
}

#[test]
fn a_load_in_order_fills_pages_and_takes_no_more_memory_than_is_flushed() {
    let fixture = Fixture::simulated();
    let mut store = fixture.create();
    let (entries, pending_max) = (100_000_u64, 1 << 20);
    for (position, first) in (1..).zip((0..entries).step_by(1000)) {
        let mut transaction = store.write();
        for n in first..first + 1000 {
            transaction
                .put(format!("{n:08}").as_bytes(), &[5; 64])
                .unwrap();
        }
        transaction.commit(at(position)).unwrap();
        // A commit adds its own entries, twice as much as they take at most.
        assert!(store.pending_bytes() < pending_max + 2 * 72 * 1000);
        if store.pending_bytes() > pending_max {
            store.flush().unwrap();
            assert_eq!(store.pending_bytes(), 0);
        }
    }
    store.flush().unwrap();
    let size = store.verify().unwrap();
    // What the entries take, and a twentieth more.
    let least = entries * 72 / u64::try_from(BODY_BYTES).unwrap();
    assert!(size.used_pages < least + least / 20, "{size:?}, {least}");
}

#[test]
fn histories_that_grow_among_others_leave_full_pages_behind() {
    // The newest first, as of what is looked up by time, and the newest last.
    let turns = [u64::MAX, 0].into_iter();
    for (turn, every) in turns.flat_map(|turn| [1, 5, 50].map(|every| (turn, every))) {
        let fixture = Fixture::simulated();
        let mut store = fixture.create();
        let (things, changes) = (40_u64, 200_u64);
        for change in 0..changes {
            let changes: Vec<_> = (0..things)
                .map(|thing| {
                    let since = format!("{:020}", (change * things + thing) ^ turn);
                    let key = format!("thing-{:08}/{since}", thing * 7919 % 10_007);
                    (key.into_bytes(), Some(vec![1; 250]))
                })
                .collect();
            commit(&mut store, change + 1, &changes);
            if change % every == 0 {
                store.flush().unwrap();
            }
        }
        store.flush().unwrap();
        let size = store.verify().unwrap();
        // What the entries take without what their keys share, and a quarter more.
        let least = things * changes * (250 + 8) / u64::try_from(BODY_BYTES).unwrap();
        assert!(
            size.used_pages < least + least / 4,
            "{every}: {size:?}, {least}"
        );
    }
}

#[test]
fn a_value_takes_its_memory_once_however_it_is_put() {
    for bytes in [5_000, 1_000_000] {
        let fixture = Fixture::simulated();
        let mut store = fixture.create();
        let mut transaction = store.write();
        transaction
            .put_with(
                |to| to.extend_from_slice(b"key"),
                |to| to.resize(to.len() + bytes, 1),
            )
            .unwrap();
        transaction.commit(at(1)).unwrap();
        let pending = store.pending_bytes();
        assert!((bytes..bytes + 1_000).contains(&pending), "{pending}");
        let found = store.snapshot();
        assert_eq!(found.find(b"key").unwrap().unwrap().len(), bytes);
    }
}
