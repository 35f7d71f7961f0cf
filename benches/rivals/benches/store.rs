//! Reads of the B+tree store, plain and encrypted, beside LMDB: random keys and scans, warm, in turns.
//!
//! `cargo bench --manifest-path benches/rivals/Cargo.toml --bench store -- 1000000`

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use hdrhistogram::Histogram;
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvOpenOptions};
use kimberlite_disk::OsDisk;
use kimberlite_projection::store::{Applied, Identity, Snapshot, Store, StoreOptions};
use kimberlite_rivals::{key, median, store_key};
use kimberlite_types::{ChainHash, LogId, Position};

const ROUNDS: usize = 5;
const READS: u64 = 1_000_000;

fn main() {
    let keys = std::env::args()
        .skip(1)
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(1_000_000);
    let scratch = std::env::var_os("KIMBERLITE_BENCH_DIR").map_or_else(
        || tempfile::tempdir().unwrap(),
        |place| tempfile::tempdir_in(place).unwrap(),
    );
    let started = Instant::now();
    let store = fill_store(&scratch.path().join("store"), keys, StoreOptions::default());
    println!("store filled with {keys} in {:.2?}", started.elapsed());
    let started = Instant::now();
    let place = scratch.path().join("lmdb");
    let (env, database) = fill_lmdb(&place, keys);
    println!("LMDB filled in {:.2?}", started.elapsed());
    let snapshot = store.snapshot();
    println!("{:?}", store.verify().unwrap());
    let mut options = StoreOptions::default();
    options.key = Some(store_key());
    // All of it is kept: 72 bytes of an entry, in pages that are full.
    options.cache_bytes_max = usize::try_from(96 * keys + (1 << 20)).unwrap();
    let encrypted = fill_store(&scratch.path().join("encrypted"), keys, options);
    let encrypted = encrypted.snapshot();
    scan_store(&encrypted);
    for _ in 0..2 {
        scan_store(&snapshot);
        scan_lmdb(&env, database);
    }
    let mut figures: [Vec<f64>; 12] = Default::default();
    for round in 0..ROUNDS {
        let round = round as u64;
        let (ours, p50, p99) = read_store(&snapshot, keys, round);
        let (theirs, their_p50, their_p99) = read_lmdb(&env, database, keys, round);
        let (sealed, sealed_p50, sealed_p99) = read_store(&encrypted, keys, round);
        let scans = [scan_store(&snapshot), scan_lmdb(&env, database)];
        let sealed_scan = scan_store(&encrypted);
        for (figure, all) in [
            ours,
            theirs,
            p50,
            their_p50,
            p99,
            their_p99,
            scans[0],
            scans[1],
            sealed,
            sealed_p50,
            sealed_p99,
            sealed_scan,
        ]
        .into_iter()
        .zip(&mut figures)
        {
            all.push(figure);
        }
    }
    let [
        ours,
        theirs,
        p50,
        their_p50,
        p99,
        their_p99,
        scan,
        their_scan,
        sealed,
        sealed_p50,
        sealed_p99,
        sealed_scan,
    ] = figures.map(median);
    println!("                    store       LMDB  encrypted");
    println!("reads/s        {ours:>10.0} {theirs:>10.0} {sealed:>10.0}");
    println!("p50 ns         {p50:>10.0} {their_p50:>10.0} {sealed_p50:>10.0}");
    println!("p99 ns         {p99:>10.0} {their_p99:>10.0} {sealed_p99:>10.0}");
    println!("scanned/s      {scan:>10.0} {their_scan:>10.0} {sealed_scan:>10.0}");
}

fn value(number: u64) -> [u8; 64] {
    let mut value = [0; 64];
    value[..8].copy_from_slice(&number.to_le_bytes());
    value
}

fn sorted(keys: u64) -> Vec<([u8; 8], u64)> {
    let mut all: Vec<_> = (0..keys).map(|number| (key(number), number)).collect();
    all.sort_unstable();
    all
}

fn fill_store(path: &Path, keys: u64, options: StoreOptions) -> Store {
    let mut store = Store::create(
        &OsDisk::new(),
        path,
        Identity::new(LogId::new([0; 32]), "bench", 1),
        options,
    )
    .unwrap();
    for (batch, part) in sorted(keys).chunks(100_000).enumerate() {
        let mut transaction = store.write();
        for (key, number) in part {
            transaction.put(key, &value(*number)).unwrap();
        }
        let position = Position::new(batch as u64);
        let chain = ChainHash::new([0; 32]);
        transaction.commit(Applied { position, chain }).unwrap();
        if store.pending_bytes() > 64 << 20 {
            store.flush().unwrap();
        }
    }
    store.flush().unwrap();
    store
}

fn fill_lmdb(path: &Path, keys: u64) -> (Env, Database<'static, Bytes, Bytes>) {
    std::fs::create_dir(path).unwrap();
    let env = unsafe { EnvOpenOptions::new().map_size(16 << 30).open(path).unwrap() };
    let database = env
        .create_databases_and_commit(env.write_txn().unwrap(), |opener, transaction| {
            let database = opener.create_database(transaction, None)?;
            Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(database))
        })
        .unwrap()
        .unwrap_commit();
    let mut transaction = env.write_txn().unwrap();
    for (key, number) in sorted(keys) {
        database
            .put_with_flags(
                &mut transaction,
                heed::PutFlags::APPEND,
                &key[..],
                &value(number)[..],
            )
            .unwrap();
    }
    transaction.commit().unwrap();
    (env, database)
}

fn read_store(snapshot: &Snapshot, keys: u64, round: u64) -> (f64, f64, f64) {
    measure(keys, round, |key| {
        let value = snapshot.find(key).unwrap().unwrap();
        black_box(value[0]);
    })
}

fn read_lmdb(
    env: &Env,
    database: Database<Bytes, Bytes>,
    keys: u64,
    round: u64,
) -> (f64, f64, f64) {
    let transaction = env.read_txn().unwrap();
    measure(keys, round, |key| {
        let value = database.get(&transaction, key).unwrap().unwrap();
        black_box(value[0]);
    })
}

fn measure(keys: u64, round: u64, mut read: impl FnMut(&[u8])) -> (f64, f64, f64) {
    let pick = |n: u64| {
        let x = u64::from_be_bytes(key(n ^ (round << 40) ^ (1 << 60)));
        key(x % keys)
    };
    let started = Instant::now();
    for n in 0..READS {
        read(&pick(n));
    }
    let rate = READS as f64 / started.elapsed().as_secs_f64();
    // One that grows as it needs does not grow for what is saturated: it takes that for next to nothing.
    let mut latency = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).unwrap();
    for n in READS..2 * READS {
        let key = pick(n);
        let started = Instant::now();
        read(&key);
        latency.saturating_record(started.elapsed().as_nanos() as u64);
    }
    let at = |quantile| latency.value_at_quantile(quantile) as f64;
    (rate, at(0.5), at(0.99))
}

fn scan_store(snapshot: &Snapshot) -> f64 {
    let started = Instant::now();
    let mut cursor = snapshot.cursor().unwrap();
    let mut count = 0u64;
    while let Some(entry) = cursor.next_entry().unwrap() {
        black_box((entry.key[0], entry.value[0]));
        count += 1;
    }
    count as f64 / started.elapsed().as_secs_f64()
}

fn scan_lmdb(env: &Env, database: Database<Bytes, Bytes>) -> f64 {
    let transaction = env.read_txn().unwrap();
    let started = Instant::now();
    let mut count = 0u64;
    for entry in database.iter(&transaction).unwrap() {
        let (key, value) = entry.unwrap();
        black_box((key[0], value[0]));
        count += 1;
    }
    count as f64 / started.elapsed().as_secs_f64()
}
