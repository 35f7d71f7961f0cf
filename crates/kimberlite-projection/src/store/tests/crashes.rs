//! Power loss, failed syncs and a full disk: a store that is opened is some state that was committed, as
//! a whole, or says that it must be rebuilt.

use kimberlite_testkit::CrashMode;

use super::*;

/// How flushes and commits come.
#[derive(Clone, Copy, Debug)]
enum Order {
    InTurn,
    /// A flush runs while more is committed: behind its beginning, and again before it is ended.
    Beside,
}

/// Makes a store and commits and flushes in it; returns the state of each flush that succeeded.
fn run(disk: &SimulatedDisk, options: &StoreOptions, order: Order) -> Vec<(u64, Model)> {
    let mut rng = Rng::new(77);
    let mut flushed = Vec::new();
    let path = Path::new("/p/store");
    let Ok(mut store) = Store::create(disk, path, identity(), options.clone()) else {
        return flushed;
    };
    let mut model = Model::new();
    flushed.push((0, model.clone()));
    let mut begun: Option<(Flush, u64, Model)> = None;
    for position in 1..=12 {
        let changes: Vec<_> = (0..25)
            .map(|_| {
                let key = random_key(&mut rng);
                let value = (rng.below(4) > 0).then(|| random_value(&mut rng));
                (key, value)
            })
            .collect();
        if try_commit(&mut store, position, &changes).is_err() {
            return flushed;
        }
        change(&mut model, changes);
        if position % 2 == 1 {
            if let Some((flush, ..)) = &begun {
                flush.run();
            }
            continue;
        }
        if store.finish_flush().is_err() {
            return flushed;
        }
        flushed.extend(begun.take().map(|(_, position, model)| (position, model)));
        let Ok(flush) = store.begin_flush() else {
            return flushed;
        };
        begun = flush.map(|flush| (flush, position, model.clone()));
        if position == 12 || matches!(order, Order::InTurn) {
            if store.finish_flush().is_err() {
                return flushed;
            }
            flushed.extend(begun.take().map(|(_, position, model)| (position, model)));
        }
    }
    flushed
}

fn empty_disk(seed: u64) -> SimulatedDisk {
    let disk = SimulatedDisk::new(seed);
    disk.create_dir_all(Path::new("/p")).unwrap();
    disk
}

#[test]
fn a_crash_at_any_operation_leaves_a_state_that_was_flushed() {
    check_crashes(&COPIED, Order::InTurn);
    check_crashes(&COPIED, Order::Beside);
}

#[test]
fn a_crash_at_any_operation_leaves_an_encrypted_state_that_was_flushed() {
    check_crashes(&encrypted(1), Order::InTurn);
    check_crashes(&encrypted(1), Order::Beside);
}

fn check_crashes(options: &StoreOptions, order: Order) {
    let whole = empty_disk(1);
    let before = whole.ops();
    let all = run(&whole, options, order);
    assert_eq!(all.len(), 7);
    let mut opened = 0;
    for op in before + 1..=whole.ops() {
        let disk = empty_disk(1);
        disk.crash_after(op);
        let flushed = run(&disk, options, order);
        for mode in [
            CrashMode::LoseUnsynced,
            CrashMode::KeepUnsynced,
            CrashMode::Mixed(op),
            CrashMode::Mixed(op + 1000),
        ] {
            let disk = disk.crash(mode);
            let what = format!("{order:?}, op {op}, {mode:?}");
            let path = Path::new("/p/store");
            let store = match Store::open(&disk, path, identity(), options.clone()) {
                Ok(store) => store,
                Err(error) => {
                    assert!(flushed.is_empty(), "{what}: {error}");
                    continue;
                }
            };
            store
                .verify()
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            let position = store.applied().position.get();
            // What was flushed is there, or what was on its way.
            let least = flushed.last().map_or(0, |(position, _)| *position);
            assert!(
                (least..=least + 2).contains(&position),
                "{what}: {position}"
            );
            let state = all.iter().find(|(flushed, _)| *flushed == position);
            assert_eq!(super::all(&store.snapshot()), state.unwrap().1, "{what}");
            assert_eq!(store.applied(), at(position));
            opened += 1;
        }
    }
    assert!(opened > 100, "{opened}");
}

#[test]
fn a_store_goes_on_after_any_crash() {
    for order in [Order::InTurn, Order::Beside] {
        check_that_it_goes_on(order);
    }
}

fn check_that_it_goes_on(order: Order) {
    let whole = empty_disk(2);
    let before = whole.ops();
    run(&whole, &COPIED, order);
    for op in (before + 1..=whole.ops()).step_by(3) {
        let disk = empty_disk(2);
        disk.crash_after(op);
        run(&disk, &COPIED, order);
        let disk = disk.crash(CrashMode::Mixed(op));
        let opened = Store::open(&disk, Path::new("/p/store"), identity(), COPIED);
        let Ok(mut store) = opened else { continue };
        let mut model = all(&store.snapshot());
        for position in 100..104 {
            let key = position.to_string().into_bytes();
            commit(&mut store, position, &[(key.clone(), Some(vec![9; 3000]))]);
            model.insert(key, vec![9; 3000]);
            store.flush().unwrap();
            store.verify().unwrap();
        }
        drop(store);
        let store = Store::open(&disk, Path::new("/p/store"), identity(), COPIED).unwrap();
        assert_eq!(all(&store.snapshot()), model, "op {op}");
    }
}

#[test]
fn after_a_failed_sync_nothing_more_is_written_and_reads_go_on() {
    let disk = empty_disk(3);
    let mut store = Store::create(&disk, Path::new("/p/store"), identity(), COPIED).unwrap();
    commit(&mut store, 1, &[(b"a".to_vec(), Some(b"1".to_vec()))]);
    disk.fail_sync_at(disk.ops() + 1);
    let refused = (0..20).find_map(|_| store.flush().err());
    assert!(matches!(refused, Some(StoreError::Disk(_))), "{refused:?}");
    assert!(matches!(store.flush(), Err(StoreError::Poisoned { .. })));
    let found = store.snapshot();
    assert_eq!(found.find(b"a").unwrap().as_deref(), Some(&b"1"[..]));
    let mut transaction = store.write();
    transaction.put(b"b", b"2").unwrap();
    let refused = transaction.commit(at(2));
    assert!(matches!(refused, Err(StoreError::Poisoned { .. })));
}

#[test]
fn after_a_failed_sync_beside_commits_nothing_more_is_written_and_reads_go_on() {
    // The first sync of a flush, or the last: where it is the operations of one that succeeds say.
    let mut succeeded = 0..0;
    for fails_at in [None, Some(0), Some(1)] {
        let disk = empty_disk(6);
        let mut store = Store::create(&disk, Path::new("/p/store"), identity(), COPIED).unwrap();
        commit(&mut store, 1, &[(b"a".to_vec(), Some(b"1".to_vec()))]);
        let flush = store.begin_flush().unwrap().unwrap();
        commit(&mut store, 2, &[(b"a".to_vec(), Some(b"2".to_vec()))]);
        let Some(nth) = fails_at else {
            let before = disk.ops();
            flush.run();
            succeeded = before..disk.ops();
            assert!(store.end_flush().unwrap());
            continue;
        };
        disk.fail_sync_at([succeeded.start + 1, succeeded.end][nth]);
        flush.run();
        // It is not known yet that it failed.
        commit(&mut store, 3, &[(b"b".to_vec(), Some(b"3".to_vec()))]);
        let refused = store.end_flush();
        assert!(matches!(refused, Err(StoreError::Disk(_))), "{refused:?}");
        assert!(store.is_poisoned());
        assert!(matches!(store.flush(), Err(StoreError::Poisoned { .. })));
        let refused = store.begin_flush();
        assert!(matches!(refused, Err(StoreError::Poisoned { .. })));
        let mut transaction = store.write();
        transaction.put(b"b", b"2").unwrap();
        let refused = transaction.commit(at(4));
        assert!(matches!(refused, Err(StoreError::Poisoned { .. })));
        let found = store.snapshot();
        assert_eq!(found.find(b"a").unwrap().as_deref(), Some(&b"2"[..]));
    }
}

#[test]
fn after_a_failed_write_nothing_more_is_written() {
    let disk = empty_disk(5);
    let mut store = Store::create(&disk, Path::new("/p/store"), identity(), COPIED).unwrap();
    commit(&mut store, 1, &[(b"a".to_vec(), Some(b"1".to_vec()))]);
    disk.fail_write_at(disk.ops() + 1);
    let refused = store.flush();
    assert!(matches!(refused, Err(StoreError::Disk(_))), "{refused:?}");
    assert!(matches!(store.flush(), Err(StoreError::Poisoned { .. })));
}

#[test]
fn a_full_disk_refuses_a_flush_and_a_later_one_succeeds() {
    let disk = empty_disk(4);
    let mut store = Store::create(&disk, Path::new("/p/store"), identity(), COPIED).unwrap();
    let mut model = Model::new();
    let mut refused = 0;
    for position in 1..40 {
        let key = position.to_string().into_bytes();
        commit(&mut store, position, &[(key.clone(), Some(vec![1; 5000]))]);
        model.insert(key, vec![1; 5000]);
        disk.set_space_bytes(Some(disk.used_bytes() + position * 400));
        if let Err(error) = store.flush() {
            assert!(
                matches!(error, StoreError::Disk(DiskError::Full { .. })),
                "{error}"
            );
            refused += 1;
            store.verify().unwrap();
            disk.set_space_bytes(None);
            store.flush().unwrap();
        }
        assert_eq!(all(&store.snapshot()), model);
        store.verify().unwrap();
    }
    assert!(refused > 3, "{refused}");
    drop(store);
    let store = Store::open(&disk, Path::new("/p/store"), identity(), COPIED).unwrap();
    assert_eq!(all(&store.snapshot()), model);
}

#[test]
fn a_flush_whose_store_is_gone_writes_nothing() {
    let disk = empty_disk(7);
    let path = Path::new("/p/store");
    let mut store = Store::create(&disk, path, identity(), COPIED).unwrap();
    commit(&mut store, 1, &[(b"a".to_vec(), Some(b"1".to_vec()))]);
    let flush = store.begin_flush().unwrap().unwrap();
    drop(store);
    let mut again = Store::open(&disk, path, identity(), COPIED).unwrap();
    commit(&mut again, 2, &[(b"a".to_vec(), Some(b"2".to_vec()))]);
    again.flush().unwrap();
    let ops = disk.ops();
    flush.run();
    assert_eq!(disk.ops(), ops);
    drop(again);
    let store = Store::open(&disk, path, identity(), COPIED).unwrap();
    assert_eq!(store.applied(), at(2));
}
