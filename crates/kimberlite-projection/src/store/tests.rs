//! A store against a map, on a disk in memory and on the real one.

mod crashes;
mod damage;
mod forged;
mod held;
mod observed;
mod sealed;
mod space;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use kimberlite_crypto::{Entropy, ProjectionKey};
use kimberlite_disk::OsDisk;
use kimberlite_testkit::{Rng, SimulatedDisk};

use super::*;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn identity() -> Identity {
    Identity::new(LogId::new([7; 32]), "test", 1)
}

fn at(position: u64) -> Applied {
    Applied {
        position: Position::new(position),
        chain: ChainHash::new([u8::try_from(position % 251).unwrap(); 32]),
    }
}

const COPIED: StoreOptions = StoreOptions {
    mapped: false,
    cache_bytes_max: 1 << 20,
    key: None,
};

/// Random bytes that are the same in every run, and never twice.
#[derive(Debug)]
struct Seeded(Mutex<Rng>);

impl Entropy for Seeded {
    fn fill(&self, bytes: &mut [u8]) -> bool {
        let mut rng = self.0.lock().unwrap();
        bytes.copy_from_slice(&rng.bytes(bytes.len()));
        true
    }
}

fn store_key(key: u8, seed: u64) -> StoreKey {
    let entropy = Seeded(Mutex::new(Rng::new(seed)));
    StoreKey::new(ProjectionKey::new([key; 32]), Arc::new(entropy))
}

fn encrypted(seed: u64) -> StoreOptions {
    StoreOptions {
        key: Some(store_key(1, seed)),
        ..COPIED
    }
}

/// A disk in memory, and a store on it.
struct Fixture {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    options: StoreOptions,
    _scratch: Option<tempfile::TempDir>,
}

impl Fixture {
    fn simulated() -> Self {
        let disk = SimulatedDisk::new(1);
        disk.create_dir_all(Path::new("/p")).unwrap();
        Self {
            disk: Arc::new(disk),
            path: PathBuf::from("/p/store"),
            options: COPIED,
            _scratch: None,
        }
    }

    fn encrypted() -> Self {
        Self {
            options: encrypted(1),
            ..Self::simulated()
        }
    }

    fn real(options: StoreOptions) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        Self {
            disk: Arc::new(OsDisk::new()),
            path: scratch.path().join("store"),
            options,
            _scratch: Some(scratch),
        }
    }

    fn create(&self) -> Store {
        Store::create(&*self.disk, &self.path, identity(), self.options.clone()).unwrap()
    }

    fn open(&self) -> Store {
        Store::open(&*self.disk, &self.path, identity(), self.options.clone()).unwrap()
    }
}

fn commit(store: &mut Store, position: u64, changes: &[(Vec<u8>, Option<Vec<u8>>)]) {
    try_commit(store, position, changes).unwrap();
}

fn try_commit(
    store: &mut Store,
    position: u64,
    changes: &[(Vec<u8>, Option<Vec<u8>>)],
) -> Result<(), StoreError> {
    let mut transaction = store.write();
    for (key, value) in changes {
        match value {
            Some(value) => transaction.put(key, value).unwrap(),
            None => transaction.remove(key).unwrap(),
        }
    }
    transaction.commit(at(position))
}

/// Commits changes, and does the same to a map.
fn commit_both(
    store: &mut Store,
    model: &mut Model,
    position: u64,
    changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
) {
    commit(store, position, &changes);
    change(model, changes);
}

fn change(model: &mut Model, changes: Vec<(Vec<u8>, Option<Vec<u8>>)>) {
    for (key, value) in changes {
        match value {
            Some(value) => model.insert(key, value),
            None => model.remove(&key),
        };
    }
}

fn all(snapshot: &Snapshot) -> Model {
    let mut cursor = snapshot.cursor().unwrap();
    let mut entries = Model::new();
    while let Some(entry) = cursor.next_entry().unwrap() {
        entries.insert(entry.key.to_vec(), entry.value.to_vec());
    }
    entries
}

fn check_equal(snapshot: &Snapshot, model: &Model, rng: &mut Rng) {
    assert_eq!(&all(snapshot), model);
    let mut backward = Vec::new();
    let mut cursor = snapshot.cursor().unwrap();
    cursor.seek_last().unwrap();
    while let Some(entry) = cursor.previous_entry().unwrap() {
        backward.push(entry.key.to_vec());
    }
    backward.reverse();
    assert!(backward.iter().eq(model.keys()));
    check_walk(snapshot, model, rng);
    for _ in 0..20 {
        let key = random_key(rng);
        let found = snapshot.find(&key).unwrap();
        assert_eq!(found.as_deref(), model.get(&key).map(Vec::as_slice));
        cursor.seek(&key).unwrap();
        let next = cursor.next_entry().unwrap().map(|entry| entry.key.to_vec());
        assert_eq!(
            next.as_ref(),
            model.range(key.clone()..).next().map(|(key, _)| key)
        );
        let beginning = &key[..rng.index(key.len() + 1)];
        let nearest = snapshot.find_nearest(&key, beginning).unwrap();
        let expected = next.filter(|next| next.starts_with(beginning));
        assert_eq!(nearest.as_ref().map(|it| &it.key), expected.as_ref());
        if let Some(nearest) = nearest {
            assert_eq!(&*nearest.value, &model[&nearest.key][..]);
            let before = model.range(..key.clone()).next_back();
            let is_before = before.is_some_and(|(before, _)| before.starts_with(beginning));
            assert!(is_before || !nearest.follows_another);
        }
        cursor.seek(&key).unwrap();
        let previous = cursor
            .previous_entry()
            .unwrap()
            .map(|entry| entry.key.to_vec());
        assert_eq!(
            previous.as_ref(),
            model.range(..key).next_back().map(|(key, _)| key)
        );
    }
}

/// Goes to and fro, beside the same in a map.
fn check_walk(snapshot: &Snapshot, model: &Model, rng: &mut Rng) {
    let keys: Vec<_> = model.keys().collect();
    let mut cursor = snapshot.cursor().unwrap();
    let mut index = 0;
    for _ in 0..60 {
        match rng.below(12) {
            0 => {
                let key = random_key(rng);
                cursor.seek(&key).unwrap();
                index = keys.partition_point(|it| **it < key);
            }
            1 => {
                cursor.seek_last().unwrap();
                index = keys.len();
            }
            2..7 => {
                let entry = cursor.next_entry().unwrap();
                let expected = keys.get(index).copied();
                assert_eq!(entry.as_ref().map(|it| it.key), expected.map(Vec::as_slice));
                if let (Some(entry), Some(key)) = (entry, expected) {
                    assert_eq!(*entry.value, model[key]);
                    index += 1;
                }
            }
            _ => {
                let entry = cursor.previous_entry().unwrap();
                let expected = index.checked_sub(1).map(|index| keys[index]);
                assert_eq!(entry.as_ref().map(|it| it.key), expected.map(Vec::as_slice));
                if let (Some(entry), Some(key)) = (entry, expected) {
                    assert_eq!(*entry.value, model[key]);
                    index -= 1;
                }
            }
        }
    }
}

fn random_key(rng: &mut Rng) -> Vec<u8> {
    match rng.below(4) {
        0 => rng.below(300).to_string().into_bytes(),
        1 => [b"stream/".as_slice(), rng.below(500).to_string().as_bytes()].concat(),
        2 => vec![u8::try_from(rng.below(3)).unwrap(); usize::try_from(rng.below(1025)).unwrap()],
        _ => rng.below(2000).to_le_bytes().to_vec(),
    }
}

fn random_value(rng: &mut Rng) -> Vec<u8> {
    let bytes = match rng.below(20) {
        0 => 0,
        1 => rng.below(20_000),
        2 => 895 + rng.below(10),
        _ => rng.below(100),
    };
    vec![u8::try_from(rng.below(256)).unwrap(); usize::try_from(bytes).unwrap()]
}

/// Random commits, flushes, such as go on beside commits too, reopenings and snapshots, against a map.
fn check_against_model(fixture: &Fixture, seed: u64, commits: u64) {
    let mut rng = Rng::new(seed);
    let mut store = fixture.create();
    let (mut model, mut flushed) = (Model::new(), Model::new());
    let mut begun: Option<(Flush, Model)> = None;
    let mut held: Vec<(Snapshot, Model)> = Vec::new();
    for position in 1..=commits {
        let removes = rng.below(3);
        let changes: Vec<_> = (0..rng.below(60))
            .map(|_| {
                let is_removed = rng.below(3) < removes;
                let key = random_key(&mut rng);
                (key, (!is_removed).then(|| random_value(&mut rng)))
            })
            .collect();
        commit_both(&mut store, &mut model, position, changes);
        match rng.below(18) {
            0..4 => {
                store.flush().unwrap();
                flushed.clone_from(&model);
                begun = None;
            }
            4 => held.push((store.snapshot(), model.clone())),
            5 if !held.is_empty() => {
                let index = rng.below(u64::try_from(held.len()).unwrap());
                let (snapshot, model) = held.swap_remove(usize::try_from(index).unwrap());
                check_equal(&snapshot, &model, &mut rng);
            }
            6 => {
                drop(store);
                store = fixture.open();
                model.clone_from(&flushed);
                begun = None;
                held.clear();
            }
            7..10 if begun.is_none() => {
                let flush = store.begin_flush().unwrap();
                begun = flush.map(|flush| (flush, model.clone()));
            }
            10..13 => {
                if let Some((flush, model)) = &begun {
                    flush.run();
                    flushed.clone_from(model);
                }
            }
            13 | 14 if store.end_flush().unwrap() => begun = None,
            _ => {}
        }
        check_equal(&store.snapshot(), &model, &mut rng);
        store.verify().unwrap();
    }
    store.flush().unwrap();
    store.verify().unwrap();
    drop(store);
    check_equal(&fixture.open().snapshot(), &model, &mut rng);
    for (snapshot, model) in held {
        check_equal(&snapshot, &model, &mut rng);
    }
}

#[test]
fn a_store_answers_as_a_map_does() {
    for seed in 0..12 {
        check_against_model(&Fixture::simulated(), seed, 60);
    }
    for seed in 20..26 {
        check_against_model(&Fixture::encrypted(), seed, 60);
    }
    check_against_model(&Fixture::real(encrypted(1)), 26, 60);
    for seed in 12..14 {
        check_against_model(&Fixture::real(StoreOptions::default()), seed, 60);
        check_against_model(&Fixture::real(COPIED), seed, 60);
    }
}
