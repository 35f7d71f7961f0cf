//! Bytes that are not what was written: told, and never an answer.

use kimberlite_testkit::{CrashMode, Lie};

use super::*;

fn filled(fixture: &Fixture) -> Model {
    let mut rng = Rng::new(5);
    let mut store = fixture.create();
    let mut model = Model::new();
    for position in 1..=6 {
        let changes: Vec<_> = (0..40)
            .map(|_| (random_key(&mut rng), Some(random_value(&mut rng))))
            .collect();
        commit_both(&mut store, &mut model, position, changes);
        store.flush().unwrap();
    }
    model
}

/// Reads everything, one key after the other and as a scan; the first error, if there is one.
fn read(store: &Store, model: &Model) -> Result<(), StoreError> {
    let snapshot = store.snapshot();
    for (key, value) in model {
        let found = snapshot.find(key)?;
        assert_eq!(found.as_deref(), Some(&value[..]), "a wrong answer");
    }
    let mut cursor = snapshot.cursor()?;
    let mut expected = model.iter();
    while let Some(entry) = cursor.next_entry()? {
        let (key, value) = expected.next().expect("an entry that nobody made");
        assert_eq!((entry.key, &*entry.value), (&key[..], &value[..]));
    }
    assert!(expected.next().is_none(), "an entry is missing");
    Ok(())
}

#[test]
fn a_flipped_bit_is_told_or_does_not_matter() {
    check_flips(&COPIED, 1);
}

#[test]
fn a_flipped_bit_of_an_encrypted_store_is_told_or_does_not_matter() {
    check_flips(&encrypted(1), 16);
}

/// Flips a bit of every field of the superblocks, of one in `blanks` of their other bytes, and of some bytes
/// of each page.
fn check_flips(options: &StoreOptions, blanks: u64) {
    let disk = SimulatedDisk::new(1);
    disk.create_dir_all(Path::new("/p")).unwrap();
    let fixture = Fixture {
        disk: Arc::new(disk.clone()),
        path: PathBuf::from("/p/store"),
        options: options.clone(),
        _scratch: None,
    };
    let model = filled(&fixture);
    let bytes = disk.contents("/p/store").len();
    let (mut told, mut rng) = (0, Rng::new(6));
    for byte in 0..bytes {
        let one_in = match (byte / PAGE_BYTES, byte % PAGE_BYTES) {
            (0 | 1, 0..200) => 1,
            (0 | 1, _) => blanks,
            _ => 40,
        };
        if !rng.chance(1, one_in) {
            continue;
        }
        let disk = disk.twin();
        disk.flip("/p/store", byte as u64, 1 << (byte % 8));
        let opened = Store::open(&disk, Path::new("/p/store"), identity(), options.clone());
        let outcome = opened.and_then(|store| {
            if store.applied() != at(6) {
                // The newest superblock is damaged: the state before it, as a whole, or damage.
                assert_eq!(store.applied(), at(5));
                return store.verify().map(drop);
            }
            read(&store, &model)?;
            store.verify().map(drop)
        });
        match outcome {
            Ok(()) => {}
            Err(StoreError::Damaged { .. } | StoreError::NoSuperblock { .. }) => told += 1,
            Err(error) => panic!("byte {byte}: {error}"),
        }
    }
    assert!(told > 100, "{told}");
}

#[test]
fn a_write_that_is_lost_or_goes_elsewhere_is_never_an_answer() {
    for (seed, lie) in (0..200).zip([Lie::LoseWrite, Lie::ReorderAcrossSync].into_iter().cycle()) {
        let disk = SimulatedDisk::new(seed);
        disk.create_dir_all(Path::new("/p")).unwrap();
        let mut store = Store::create(&disk, Path::new("/p/store"), identity(), COPIED).unwrap();
        disk.tell_lies(lie, 6);
        let mut states = vec![(0, Model::new())];
        let mut rng = Rng::new(seed);
        for position in 1..=6 {
            let mut model = states.last().unwrap().1.clone();
            let changes: Vec<_> = (0..30)
                .map(|_| (random_key(&mut rng), Some(random_value(&mut rng))))
                .collect();
            let mut transaction = store.write();
            for (key, value) in &changes {
                transaction.put(key, value.as_ref().unwrap()).unwrap();
            }
            if transaction
                .commit(at(position))
                .and_then(|()| store.flush())
                .is_err()
            {
                break;
            }
            model.extend(
                changes
                    .into_iter()
                    .map(|(key, value)| (key, value.unwrap())),
            );
            states.push((position, model));
        }
        drop(store);
        let disk = disk.crash(CrashMode::LoseUnsynced);
        let Ok(store) = Store::open(&disk, Path::new("/p/store"), identity(), COPIED) else {
            continue;
        };
        let position = store.applied().position.get();
        let state = states.iter().find(|(state, _)| *state == position);
        // An error is told; what is read is what was committed at that position.
        let _ = read(&store, &state.expect("a position that was committed").1);
    }
}

#[test]
fn a_file_that_was_cut_short_is_damaged() {
    for fixture in [
        Fixture::simulated(),
        Fixture::real(StoreOptions::default()),
        Fixture::real(COPIED),
    ] {
        let mut store = fixture.create();
        commit(&mut store, 1, &[(b"a".to_vec(), Some(b"1".to_vec()))]);
        store.flush().unwrap();
        drop(store);
        let file = fixture.disk.open(&fixture.path, OpenMode::ReadWrite);
        file.unwrap().set_bytes(3 * 4096).unwrap();
        let opened = Store::open(
            &*fixture.disk,
            &fixture.path,
            identity(),
            fixture.options.clone(),
        );
        let error = opened.unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    }
}

#[test]
fn a_store_of_another_log_projection_or_version_is_foreign() {
    let fixture = Fixture::simulated();
    drop(fixture.create());
    for other in [
        Identity::new(LogId::new([8; 32]), "test", 1),
        Identity::new(LogId::new([7; 32]), "other", 1),
        Identity::new(LogId::new([7; 32]), "test", 2),
    ] {
        let opened = Store::open(&*fixture.disk, &fixture.path, other, COPIED);
        assert!(matches!(opened, Err(StoreError::Foreign { .. })));
    }
    fixture.open();
    let again = Store::create(&*fixture.disk, &fixture.path, identity(), COPIED);
    let Err(StoreError::Disk(DiskError::AlreadyExists { .. })) = again else {
        panic!("{again:?}");
    };
}
