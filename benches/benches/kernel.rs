//! The kernel: appends over few and many streams, with keys and without, replay and the digest; then
//! how long single commands take.
//!
//! `cargo bench --locked -p kimberlite-benches --bench kernel [-- apply|replay|digest|latency]`.
//!
//! `apply/append` stands beside `floor`: a bare lookup and addition in a `hashbrown` map over the
//! same streams in the same order, which is what an append cannot do without. (The processor
//! overlaps many such lookups, so over many streams the floor waits less for memory.) With a key,
//! `floor_keyed` also looks the key up, adds it to a second map and to a queue, and takes the oldest
//! of 100,000 away. Streams are visited
//! in a fixed order that jumps about, so that many streams do not fit the caches.
#![expect(clippy::print_stdout, reason = "figures are what a bench is for")]

#[path = "kernel/latencies.rs"]
mod latencies;

use std::collections::VecDeque;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use kimberlite_kernel::{
    Command, ExpectedVersion, ReplayedFrame, Sealing, Slot, State, apply_committed, replay,
};
use kimberlite_types::limits::IDEMPOTENCY_KEYS_MAX;
use kimberlite_types::{
    Idempotency, IdempotencyKeyHash, LogId, NameHash, Position, RecordKind, RequestHash, SessionId,
    StreamId, Timestamp,
};

/// Appends to one measured iteration.
const STEPS: usize = 4_096;
const TIME: Timestamp = Timestamp::from_nanoseconds(1_700_000_000_000_000_000);
const STREAMS: [u64; 3] = [1, 1_000, 100_000];

/// Returns a state with `count` streams and an open session, and the streams in a jumping order.
fn state_with(count: u64) -> (State, SessionId, Vec<StreamId>) {
    let mut state = State::new();
    let genesis = Command::Genesis {
        log_id: LogId::new([1; 32]),
        time: TIME,
    };
    apply_committed(&mut state, genesis).expect("an empty log takes genesis");
    for number in 0..count {
        let mut name = [0; 32];
        name[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        let create = Command::CreateStream {
            name: NameHash::new(name),
            seal: None,
            time: TIME,
        };
        apply_committed(&mut state, create).expect("the name is new");
    }
    let opened = apply_committed(&mut state, Command::OpenSession { time: TIME });
    let session = SessionId::new(opened.expect("a log takes a session").slot().position);
    // A prime step, so that every stream is visited before one is again.
    let streams = (0..count)
        .map(|nth| StreamId::new(Position::new(1 + nth * 7_919 % count)))
        .collect();
    (state, session, streams)
}

fn append(stream: StreamId, session: SessionId) -> Command {
    Command::Append {
        stream,
        expected: ExpectedVersion::Any,
        count: 1,
        idempotency: None,
        seal: Some(Sealing {
            session,
            first_counter: 0,
        }),
        time: TIME,
    }
}

/// Returns what a retry of append `nth` would be recognised by.
fn idempotency(nth: u64) -> Idempotency {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&nth.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    Idempotency {
        key: IdempotencyKeyHash::new(key),
        request: RequestHash::new([0; 16]),
    }
}

/// As [`append`], with a key of its own for each `nth`.
fn append_keyed(stream: StreamId, session: SessionId, nth: u64) -> Command {
    let mut command = append(stream, session);
    if let Command::Append {
        idempotency: key, ..
    } = &mut command
    {
        *key = Some(idempotency(nth));
    }
    command
}

/// Appends with keys until as many are known as ever are, and their map grows no further. Returns
/// how many those were.
fn fill_keys(state: &mut State, session: SessionId, streams: &[StreamId]) -> u64 {
    let mut nth = 0;
    for stream in streams.iter().cycle().take(6 * IDEMPOTENCY_KEYS_MAX) {
        nth += 1;
        apply_committed(state, append_keyed(*stream, session, nth)).expect("the stream exists");
    }
    assert_eq!(state.keys_count(), IDEMPOTENCY_KEYS_MAX);
    nth
}

/// What an append with a key cannot do without.
struct KeyedFloor {
    streams: hashbrown::HashMap<StreamId, u64>,
    keys: hashbrown::HashMap<IdempotencyKeyHash, [u64; 8]>,
    order: VecDeque<IdempotencyKeyHash>,
}

impl KeyedFloor {
    fn new(streams: &[StreamId]) -> Self {
        let mut floor = Self {
            streams: streams.iter().map(|stream| (*stream, 0)).collect(),
            keys: hashbrown::HashMap::new(),
            order: VecDeque::new(),
        };
        for nth in 0..6 * IDEMPOTENCY_KEYS_MAX as u64 {
            floor.append(streams[0], nth);
        }
        floor
    }

    fn append(&mut self, stream: StreamId, nth: u64) {
        let key = idempotency(nth).key;
        assert!(!self.keys.contains_key(&key), "the key is new");
        *self.streams.get_mut(&stream).expect("it is there") += 1;
        self.keys.insert(key, [nth; 8]);
        self.order.push_back(key);
        if self.order.len() > IDEMPOTENCY_KEYS_MAX {
            let oldest = self.order.pop_front();
            self.keys.remove(&oldest.expect("there are many"));
        }
    }
}

fn bench_append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("apply");
    group.throughput(Throughput::Elements(STEPS as u64));
    for count in STREAMS {
        let (mut state, session, streams) = state_with(count);
        let mut order = streams.iter().copied().cycle();
        group.bench_function(BenchmarkId::new("append", count), |bencher| {
            bencher.iter(|| {
                for stream in order.by_ref().take(STEPS) {
                    let command = black_box(append(stream, session));
                    let effect = apply_committed(&mut state, command);
                    black_box(&effect.expect("the stream exists"));
                }
            });
        });

        let mut floor: hashbrown::HashMap<StreamId, u64> =
            streams.iter().map(|stream| (*stream, 0)).collect();
        let mut order = streams.iter().copied().cycle();
        group.bench_function(BenchmarkId::new("floor", count), |bencher| {
            bencher.iter(|| {
                for stream in order.by_ref().take(STEPS) {
                    let next = floor.get_mut(&black_box(stream)).expect("it is there");
                    *next += 1;
                    black_box(next);
                }
            });
        });
    }
    group.finish();
}

fn bench_keyed(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("apply");
    group.throughput(Throughput::Elements(STEPS as u64));
    let count = STREAMS[2];
    let (mut state, session, streams) = state_with(count);
    let mut nth = fill_keys(&mut state, session, &streams);
    let mut order = streams.iter().copied().cycle();
    group.bench_function(BenchmarkId::new("append_keyed", count), |bencher| {
        bencher.iter(|| {
            for stream in order.by_ref().take(STEPS) {
                nth += 1;
                let command = black_box(append_keyed(stream, session, nth));
                let effect = apply_committed(&mut state, command);
                black_box(&effect.expect("the stream exists"));
            }
        });
    });
    group.bench_function(BenchmarkId::new("retry", count), |bencher| {
        bencher.iter(|| {
            for stream in order.by_ref().take(STEPS) {
                let known = nth - (stream.position().get() % 50_000);
                let command = black_box(append_keyed(stream, session, known));
                let effect = apply_committed(&mut state, command);
                black_box(&effect.expect("the key is known"));
            }
        });
    });
    let mut floor = KeyedFloor::new(&streams);
    nth += 1_000_000;
    let mut order = streams.iter().copied().cycle();
    group.bench_function(BenchmarkId::new("floor_keyed", count), |bencher| {
        bencher.iter(|| {
            for stream in order.by_ref().take(STEPS) {
                nth += 1;
                floor.append(black_box(stream), nth);
            }
        });
    });
    group.finish();
}

fn bench_rejection(criterion: &mut Criterion) {
    let (mut state, session, streams) = state_with(1_000);
    let mut group = criterion.benchmark_group("apply");
    group.throughput(Throughput::Elements(1));
    group.bench_function("wrong_version", |bencher| {
        let refused = Command::Append {
            stream: streams[0],
            expected: ExpectedVersion::Exact(kimberlite_types::Offset::new(7)),
            count: 1,
            idempotency: None,
            seal: Some(Sealing {
                session,
                first_counter: 0,
            }),
            time: TIME,
        };
        bencher.iter(|| apply_committed(&mut state, black_box(refused)));
    });
    group.finish();
}

fn bench_replay(criterion: &mut Criterion) {
    let (start, session, streams) = state_with(1_000);
    let mut state = start.clone();
    let frames: Vec<ReplayedFrame> = streams
        .iter()
        .cycle()
        .take(STEPS)
        .map(|stream| {
            let effect = apply_committed(&mut state, append(*stream, session));
            let slot: Slot = *effect.expect("the stream exists").slot();
            ReplayedFrame::new(RecordKind::Event, slot)
        })
        .collect();
    let mut group = criterion.benchmark_group("replay");
    group.throughput(Throughput::Elements(STEPS as u64));
    group.bench_function("frames", |bencher| {
        bencher.iter_batched_ref(
            || start.clone(),
            |state| {
                for frame in &frames {
                    replay(state, black_box(frame)).expect("the log fits");
                }
            },
            criterion::BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn bench_digest(criterion: &mut Criterion) {
    let (state, ..) = state_with(100_000);
    criterion.bench_function("digest", |bencher| {
        bencher.iter(|| black_box(&state).digest());
    });
}

criterion_group!(
    benches,
    bench_append,
    bench_keyed,
    bench_rejection,
    bench_replay,
    bench_digest
);

fn main() {
    latencies::print();
    benches();
    Criterion::default().configure_from_args().final_summary();
}
