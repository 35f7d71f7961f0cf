//! Projections: how fast they catch up, how far they are behind, how they are read.
//!
//! `cargo bench --locked -p kimberlite-benches --bench projections [-- catch_up|lag|reads]`; the directory is
//! the target directory's, or the one that `KIMBERLITE_BENCH_DIR` names.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench that fails has nothing to measure, and its figures are what it is for"
)]

use std::collections::VecDeque;
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use kimberlite::projection::FollowerState;
use kimberlite::{Database, Encryption, Event, ExpectedVersion, Position, SyncPolicy, Tenant};
use kimberlite_projection_kv::Kv;

const BATCH: usize = 100;
const EVENT_BYTES: usize = 256;
const ROUNDS: usize = 3;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_smoke = arguments.iter().any(|argument| argument == "--test");
    let filters: Vec<&String> = arguments
        .iter()
        .filter(|it| !it.starts_with("--"))
        .collect();
    let is_wanted =
        |name: &str| filters.is_empty() || filters.iter().any(|it| name.contains(it.as_str()));
    let events = if is_smoke { 2_000 } else { 1_000_000 };
    if is_wanted("catch_up") {
        for encryption in [Encryption::On, Encryption::Off] {
            catch_up(encryption, events);
        }
    }
    if is_wanted("lag") {
        lag(Duration::from_millis(if is_smoke { 50 } else { 10_000 }));
    }
    if is_wanted("reads") {
        reads(if is_smoke { 1_000 } else { 100_000 });
    }
}

fn database(encryption: Encryption, sync_policy: SyncPolicy) -> (tempfile::TempDir, Database) {
    let chosen = std::env::var_os("KIMBERLITE_BENCH_DIR");
    let scratch = chosen.map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    let dir = tempfile::tempdir_in(scratch).unwrap();
    let builder = Database::builder(dir.path().join("db"));
    let db = builder
        .encryption(encryption)
        .sync_policy(sync_policy)
        .open()
        .unwrap();
    (dir, db)
}

/// The event whose key is `key`.
fn event(key: u64) -> Event {
    let mut data = vec![b'x'; EVENT_BYTES];
    data[..8].copy_from_slice(&key_bytes(key));
    Event::new("noted", data)
}

/// Bytes that stand in the order of the keys.
fn key_bytes(key: u64) -> [u8; 8] {
    key.swap_bytes().to_le_bytes()
}

/// The newest event of each key, which is its first 8 bytes.
fn by_key() -> Kv<
    impl Fn(&kimberlite_projection::Event<'_>, &mut kimberlite_projection_kv::Changes<'_, '_>)
    + Send
    + Sync,
> {
    Kv::new("by-key", 1, |event, changes| {
        if let Some((_, data)) = event.payload() {
            changes.put(&data[..8], data);
        }
    })
}

/// Appends `count` events, durable at the end, whose keys are `key_of` their number.
fn fill(tenant: &Tenant, count: u64, key_of: impl Fn(u64) -> u64) -> Position {
    let mut numbers = (0..count).peekable();
    let mut stream = 0;
    while numbers.peek().is_some() {
        let events: Vec<_> = numbers
            .by_ref()
            .take(BATCH)
            .map(|it| event(key_of(it)))
            .collect();
        let stream_name = format!("stream-{}", stream % 1_000);
        stream += 1;
        let stream = tenant.stream(&stream_name).unwrap();
        stream.append(ExpectedVersion::Any, &events).unwrap();
    }
    tenant.flush().unwrap();
    Position::new(tenant.durable_position().get() - 1)
}

/// Distinct numbers in an order like that of chance.
fn shuffled(number: u64) -> u64 {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn rate(count: u64, spent: Duration) -> f64 {
    f64::from(u32::try_from(count).unwrap()) / spent.as_secs_f64() / 1e3
}

/// What the keys are like, and the key of an event by its number.
type Case = (&'static str, fn(u64) -> u64);

/// Projects a log that is there, beside reading it.
fn catch_up(encryption: Encryption, count: u64) {
    let (_dir, db) = database(encryption, SyncPolicy::OnFlush);
    let cases: [Case; 3] = [
        ("keys in order", |number| number),
        ("keys by chance", shuffled),
        ("10,000 keys that change", |number| {
            shuffled(number % 10_000)
        }),
    ];
    for (name, key_of) in cases {
        let tenant = db.tenant(&name.replace([' ', ','], "-")).unwrap();
        let last = fill(&tenant, count, key_of);
        let (mut read, mut projected) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            assert_eq!(tenant.read_all(..).count(), usize::try_from(count).unwrap());
            read.push(rate(count, begun.elapsed()));
            let projection = tenant.project(by_key()).unwrap();
            projection.rebuild().unwrap();
            let begun = Instant::now();
            // What was there is read until the new state has taken its place.
            while !matches!(projection.status().state, FollowerState::Following) {
                std::thread::sleep(Duration::from_millis(1));
            }
            projection.wait_for(last).unwrap();
            projected.push(rate(count, begun.elapsed()));
        }
        let [read, projected] = [read, projected].map(median);
        println!(
            "catch_up/{encryption:?}, {name}: {projected:.0}K events/s into kv (reading them: {read:.0}K/s)"
        );
    }
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// Appends for a while, 100 events each millisecond at most, with and without a projection, and looks how long after
/// its answer an append has been taken in.
fn lag(time: Duration) {
    let without = appended(time, None);
    let mut histogram = Histogram::<u64>::new(3).unwrap();
    let with = appended(time, Some(&mut histogram));
    let at = |quantile: f64| Duration::from_nanos(histogram.value_at_quantile(quantile));
    println!(
        "lag: p50 {:?}, p99 {:?}, p99.9 {:?}, most {:?} behind the answer",
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );
    println!("lag: {with:.0}K durable events/s beside a projection, {without:.0}K/s without");
}

/// Returns thousands of events a second.
fn appended(time: Duration, histogram: Option<&mut Histogram<u64>>) -> f64 {
    let (_dir, db) = database(Encryption::On, SyncPolicy::EveryBatch);
    let tenant = db.tenant("t").unwrap();
    let stream = tenant.stream("s").unwrap();
    let projected = histogram
        .is_some()
        .then(|| tenant.project(by_key()).unwrap());
    let answered = Mutex::new(VecDeque::new());
    let has_ended = AtomicBool::new(false);
    let mut count = 0;
    std::thread::scope(|scope| {
        if let (Some(projected), Some(histogram)) = (&projected, histogram) {
            let (answered, has_ended) = (&answered, &has_ended);
            scope.spawn(move || {
                loop {
                    let ended = has_ended.load(Ordering::Acquire);
                    let applied = projected.status().applied;
                    let now = Instant::now();
                    let mut answered = answered.lock().unwrap();
                    while let Some((position, at)) = answered.front().copied()
                        && position < applied
                    {
                        let behind = now.saturating_duration_since(at).as_nanos();
                        histogram
                            .record(u64::try_from(behind).unwrap().max(1))
                            .unwrap();
                        answered.pop_front();
                    }
                    if ended && answered.is_empty() {
                        return;
                    }
                    drop(answered);
                    std::thread::sleep(Duration::from_micros(100));
                }
            });
        }
        let begun = Instant::now();
        while begun.elapsed() < time {
            let due = Duration::from_millis(count / 100);
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
            let keys = (count..count + 100).map(|number| shuffled(number % 10_000));
            let events: Vec<_> = keys.map(event).collect();
            let receipt = stream.append(ExpectedVersion::Any, &events).unwrap();
            if projected.is_some() {
                let answered_at = (receipt.last_position(), Instant::now());
                answered.lock().unwrap().push_back(answered_at);
            }
            count += 100;
        }
        let rate = rate(count, begun.elapsed());
        has_ended.store(true, Ordering::Release);
        rate
    })
}

/// Looks keys up, now and as of some time, that have changed once, and 100 times.
fn reads(keys: u64) {
    for changes in [1, 100] {
        let (_dir, db) = database(Encryption::Off, SyncPolicy::OnFlush);
        let tenant = db.tenant("t").unwrap();
        let keys = keys / changes;
        let last = fill(&tenant, keys * changes, |number| shuffled(number % keys));
        let projected = tenant.project(by_key()).unwrap();
        projected.wait_for(last).unwrap();
        projected.flush().unwrap();
        let view = projected.view();
        let end = last.get();
        let mut now = Vec::new();
        let mut then = Vec::new();
        for round in 0..=ROUNDS {
            let begun = Instant::now();
            for number in 0..keys {
                black_box(view.get(key_bytes(shuffled(number))).unwrap());
            }
            let got = begun.elapsed();
            let begun = Instant::now();
            for number in 0..keys {
                let position = Position::new(shuffled(number) % end);
                black_box(view.get_at(key_bytes(shuffled(number)), position).unwrap());
            }
            // The first round brings the pages.
            if round > 0 {
                now.push(nanoseconds(got, keys));
                then.push(nanoseconds(begun.elapsed(), keys));
            }
        }
        let [now, then] = [now, then].map(median);
        println!(
            "reads/{keys} keys that changed {changes} times: get {now:.0} ns, get_at {then:.0} ns"
        );
    }
}

fn nanoseconds(spent: Duration, count: u64) -> f64 {
    spent.as_secs_f64() * 1e9 / f64::from(u32::try_from(count).unwrap())
}
