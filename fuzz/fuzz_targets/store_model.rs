//! Operations on a store, beside the same on maps: what was committed, what was flushed, what a snapshot
//! saw.

#![no_main]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use kimberlite_crypto::{Entropy, ProjectionKey};
use kimberlite_disk::Disk;
use kimberlite_projection::store::{
    Applied, Identity, KEY_BYTES_MAX, Snapshot, Store, StoreKey, StoreOptions,
};
use kimberlite_testkit::{CrashMode, SimulatedDisk};
use kimberlite_types::{ChainHash, LogId, Position};
use libfuzzer_sys::fuzz_target;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

const STORE: &str = "/p/store";

fuzz_target!(|data: &[u8]| {
    let mut disk = SimulatedDisk::new(1);
    disk.create_dir_all(Path::new("/p")).unwrap();
    let mut options = StoreOptions::default();
    let mut left = data;
    if let Some((1.., rest)) = data.split_first() {
        left = rest;
    } else {
        let entropy = Arc::new(Counted(Mutex::new(0)));
        options.key = Some(StoreKey::new(ProjectionKey::new([1; 32]), entropy));
        // Few pages, so that they come and go.
        options.cache_bytes_max = 1 << 16;
    }
    let mut store = Store::create(&disk, Path::new(STORE), identity(), options.clone()).unwrap();
    let (mut model, mut flushed) = (Model::new(), (0, Model::new()));
    let mut held: Option<(Snapshot, Model)> = None;
    let mut position = 0;
    while let Some((&[what, a, b, c], rest)) = left.split_first_chunk() {
        left = rest;
        match what % 16 {
            0 => {
                store.flush().unwrap();
                flushed = (position, model.clone());
            }
            1 => {
                // What was not flushed is lost, whatever had reached the disk.
                let mode = [
                    CrashMode::LoseUnsynced,
                    CrashMode::KeepUnsynced,
                    CrashMode::Mixed(u64::from(b)),
                ][usize::from(a) % 3];
                (held, disk) = (None, disk.crash(mode));
                drop(store);
                store = Store::open(&disk, Path::new(STORE), identity(), options.clone()).unwrap();
                (position, model) = flushed.clone();
                assert_eq!(store.applied(), applied(position));
            }
            2 => held = Some((store.snapshot(), model.clone())),
            3 => {
                if let Some((snapshot, model)) = held.take() {
                    check(&snapshot, &model);
                }
            }
            _ => {
                position += 1;
                let mut transaction = store.write();
                for n in 0..=usize::from(what >> 4) {
                    let key = key(a.wrapping_add(u8::try_from(n).unwrap()), b);
                    if c & 3 == 0 {
                        transaction.remove(&key).unwrap();
                        model.remove(&key);
                    } else {
                        let value = value(c, n);
                        transaction.put(&key, &value).unwrap();
                        model.insert(key, value);
                    }
                }
                transaction.commit(applied(position)).unwrap();
            }
        }
    }
    check(&store.snapshot(), &model);
    store.verify().unwrap();
    store.flush().unwrap();
    check(&store.snapshot(), &model);
    store.verify().unwrap();
    if let Some((snapshot, model)) = held {
        check(&snapshot, &model);
    }
});

/// Other bytes each time.
#[derive(Debug)]
struct Counted(Mutex<u64>);

impl Entropy for Counted {
    fn fill(&self, bytes: &mut [u8]) -> bool {
        let mut count = self.0.lock().unwrap();
        *count += 1;
        bytes.fill(0);
        bytes[..8].copy_from_slice(&count.to_le_bytes());
        true
    }
}

fn identity() -> Identity {
    Identity::new(LogId::new([1; 32]), "fuzz", 1)
}

fn applied(position: u64) -> Applied {
    let chain = ChainHash::new(if position == 0 { [0; 32] } else { [7; 32] });
    Applied {
        position: Position::new(position),
        chain,
    }
}

/// Short keys, long ones, and such as begin alike.
fn key(a: u8, b: u8) -> Vec<u8> {
    match b % 4 {
        0 => vec![a],
        1 => [b"stream/".as_slice(), &[a, b]].concat(),
        2 => vec![a % 3; usize::from(b) * 4 + 1],
        _ => {
            let mut key = vec![b'k'; KEY_BYTES_MAX];
            key[usize::from(b) * 4] = a;
            key
        }
    }
}

fn value(c: u8, n: usize) -> Vec<u8> {
    let bytes = match c & 3 {
        1 => usize::from(c >> 2),
        2 => 880 + usize::from(c >> 2),
        _ => 256 * usize::from(c >> 2),
    };
    vec![c ^ u8::try_from(n).unwrap(); bytes]
}

fn check(snapshot: &Snapshot, model: &Model) {
    let mut cursor = snapshot.cursor().unwrap();
    for (key, value) in model {
        let entry = cursor.next_entry().unwrap().unwrap();
        assert_eq!((entry.key, &*entry.value), (&key[..], &value[..]));
    }
    assert!(cursor.next_entry().unwrap().is_none());
    for (key, value) in model.iter().rev() {
        let entry = cursor.previous_entry().unwrap().unwrap();
        assert_eq!((entry.key, &*entry.value), (&key[..], &value[..]));
        assert_eq!(snapshot.find(key).unwrap().as_deref(), Some(&value[..]));
    }
    assert!(cursor.previous_entry().unwrap().is_none());
}
