//! Power loss, failed syncs and a full disk: a store that is opened is some state that was committed, as
//! a whole, or says that it must be rebuilt.

use kimberlite_testkit::CrashMode;

use super::*;

/// Makes a store and commits and flushes in it; returns the state after each flush that returned.
fn run(disk: &SimulatedDisk, options: &StoreOptions) -> Vec<(u64, Model)> {
    let mut rng = Rng::new(77);
    let mut flushed = Vec::new();
    let path = Path::new("/p/store");
    let Ok(mut store) = Store::create(disk, path, identity(), options.clone()) else {
        return flushed;
    };
    let mut model = Model::new();
    flushed.push((0, model.clone()));
    for position in 1..=12 {
        let changes: Vec<_> = (0..25)
            .map(|_| {
                let key = random_key(&mut rng);
                let value = (rng.below(4) > 0).then(|| random_value(&mut rng));
                (key, value)
            })
            .collect();
        commit_both(&mut store, &mut model, position, changes);
        if position % 2 == 0 {
            if store.flush().is_err() {
                return flushed;
            }
            flushed.push((position, model.clone()));
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
    check_crashes(&COPIED);
}

#[test]
fn a_crash_at_any_operation_leaves_an_encrypted_state_that_was_flushed() {
    check_crashes(&encrypted(1));
}

fn check_crashes(options: &StoreOptions) {
    let whole = empty_disk(1);
    let before = whole.ops();
    let all = run(&whole, options);
    let mut opened = 0;
    for op in before + 1..=whole.ops() {
        let disk = empty_disk(1);
        disk.crash_after(op);
        let flushed = run(&disk, options);
        for mode in [
            CrashMode::LoseUnsynced,
            CrashMode::KeepUnsynced,
            CrashMode::Mixed(op),
            CrashMode::Mixed(op + 1000),
        ] {
            let disk = disk.crash(mode);
            let what = format!("op {op}, {mode:?}");
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
    let whole = empty_disk(2);
    let before = whole.ops();
    run(&whole, &COPIED);
    for op in (before + 1..=whole.ops()).step_by(3) {
        let disk = empty_disk(2);
        disk.crash_after(op);
        run(&disk, &COPIED);
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
