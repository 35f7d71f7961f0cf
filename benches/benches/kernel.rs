//! The kernel: appends over few and many streams, replay and the digest.
//!
//! `apply/append` stands beside `floor`: a bare lookup and addition in a `hashbrown` map over the
//! same streams in the same order, which is what an append cannot do without. (The processor
//! overlaps many such lookups, so over many streams the floor waits less for memory.) Streams are visited
//! in a fixed order that jumps about, so that many streams do not fit the caches.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kimberlite_kernel::{
    Command, ExpectedVersion, ReplayedFrame, Sealing, Slot, State, apply_committed, replay,
};
use kimberlite_types::{LogId, NameHash, Position, RecordKind, SessionId, StreamId, Timestamp};

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
            ReplayedFrame {
                kind: RecordKind::Event,
                slot,
                name: None,
                checkpoint_size: None,
                log_id: None,
                retention: None,
                keyed: None,
            }
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
    bench_rejection,
    bench_replay,
    bench_digest
);
criterion_main!(benches);
