//! Puts into the B+tree store, plain and encrypted, beside LMDB, which does not sync between commits
//! either.
//!
//! `cargo bench --manifest-path benches/rivals/Cargo.toml --bench store_writes -- 1000000`

use std::path::Path;
use std::time::Instant;

use heed::types::Bytes;
use heed::{CommitOrAbort, EnvFlags, EnvOpenOptions};
use kimberlite_disk::OsDisk;
use kimberlite_projection::store::{Applied, Identity, Store, StoreOptions};
use kimberlite_rivals::{key, median, store_key};
use kimberlite_types::{ChainHash, LogId, Position};

const ROUNDS: usize = 3;
/// Bytes that are committed before they are flushed.
const PENDING_BYTES_MAX: usize = 64 << 20;

fn main() {
    let keys = std::env::args()
        .skip(1)
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(1_000_000);
    let scratch = std::env::var_os("KIMBERLITE_BENCH_DIR").map_or_else(
        || tempfile::tempdir().unwrap(),
        |place| tempfile::tempdir_in(place).unwrap(),
    );
    println!("{keys} puts/s in thousands          store       LMDB  encrypted");
    let random: Vec<_> = (0..keys).map(key).collect();
    let mut sorted = random.clone();
    sorted.sort_unstable();
    for (order, all) in [("sorted", &sorted), ("random", &random)] {
        for batch in [1000, 10_000, 100_000, all.len()] {
            let mut figures = [const { Vec::new() }; 3];
            for round in 0..ROUNDS {
                let place = scratch.path().join(format!("{order}-{batch}-{round}"));
                std::fs::create_dir(&place).unwrap();
                figures[0].push(put_store(&place, all, batch, StoreOptions::default()));
                figures[1].push(put_lmdb(&place, all, batch));
                std::fs::remove_file(place.join("store")).unwrap();
                let mut options = StoreOptions::default();
                options.key = Some(store_key());
                figures[2].push(put_store(&place, all, batch, options));
                std::fs::remove_dir_all(&place).unwrap();
            }
            let [ours, theirs, sealed] = figures.map(|all| median(all) / 1e3);
            println!("{order}, {batch:>8} a commit {ours:>16.0} {theirs:>10.0} {sealed:>10.0}");
        }
    }
}

fn value(key: [u8; 8]) -> [u8; 64] {
    let mut value = [0; 64];
    value[..8].copy_from_slice(&key);
    value
}

fn put_store(place: &Path, keys: &[[u8; 8]], batch: usize, options: StoreOptions) -> f64 {
    let mut store = Store::create(
        &OsDisk::new(),
        &place.join("store"),
        Identity::new(LogId::new([0; 32]), "bench", 1),
        options,
    )
    .unwrap();
    let started = Instant::now();
    for (index, part) in keys.chunks(batch).enumerate() {
        let mut transaction = store.write();
        for key in part {
            transaction.put(key, &value(*key)).unwrap();
        }
        let position = Position::new(index as u64);
        let chain = ChainHash::new([0; 32]);
        transaction.commit(Applied { position, chain }).unwrap();
        if store.pending_bytes() > PENDING_BYTES_MAX {
            store.flush().unwrap();
        }
    }
    store.flush().unwrap();
    let rate = keys.len() as f64 / started.elapsed().as_secs_f64();
    assert_eq!(store.verify().unwrap().entries, keys.len() as u64);
    rate
}

fn put_lmdb(place: &Path, keys: &[[u8; 8]], batch: usize) -> f64 {
    let mut options = EnvOpenOptions::new();
    options.map_size(16 << 30);
    let env = unsafe { options.flags(EnvFlags::NO_SYNC).open(place).unwrap() };
    let database = env
        .create_databases_and_commit(env.write_txn().unwrap(), |opener, transaction| {
            let database = opener.create_database::<Bytes, Bytes>(transaction, None)?;
            Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(database))
        })
        .unwrap()
        .unwrap_commit();
    let started = Instant::now();
    for part in keys.chunks(batch) {
        let mut transaction = env.write_txn().unwrap();
        for key in part {
            database
                .put(&mut transaction, &key[..], &value(*key)[..])
                .unwrap();
        }
        transaction.commit().unwrap();
    }
    env.force_sync().unwrap();
    keys.len() as f64 / started.elapsed().as_secs_f64()
}
