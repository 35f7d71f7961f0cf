//! The log by itself: payloads are opaque bytes, there are no keys and no commands.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use hdrhistogram::Histogram;
use kimberlite_crypto::payload_digest;
use kimberlite_disk::{Disk, OpenMode, OsDisk};
use kimberlite_storage::{
    Background, Durability, Entropy, FrameBuilder, FramePlacement, LogOptions, LogReader,
    LogWriter, UnplacedFrame, Witness, create_log, open_writer, verify,
};
use kimberlite_types::{LogId, Offset, Position, RecordFlags, RecordKind, StreamId, Timestamp};
use tempfile::TempDir;

const RECORDS: usize = 100;
const PAYLOAD_BYTES: usize = 1024;
/// Records of the log that is read and verified: about 140 MB, three closed segments and a bit.
const LOG_RECORDS: u64 = 130_000;
const READS: usize = 200_000;

#[derive(Debug)]
struct Salts;

impl Entropy for Salts {
    fn fill(&self, bytes: &mut [u8]) -> bool {
        bytes.fill(5);
        true
    }
}

fn new_log(tail_bytes_max: usize) -> (TempDir, LogWriter) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::new());
    let mut options = LogOptions::new(Arc::new(Salts), Background::thread());
    options.tail_bytes_max = tail_bytes_max;
    let mut genesis = FrameBuilder::new(RecordKind::Genesis, RecordFlags::PLAIN, 1, 7);
    genesis.push(b"genesis");
    let genesis = (genesis.build(), placement(Position::ZERO));
    let log_id = LogId::new([3; 32]);
    create_log(&disk, dir.path(), &options, log_id, genesis).expect("a new log");
    let opened = open_writer(&disk, dir.path(), options, &Witness::default(), &mut |_| {
        Ok(())
    });
    (dir, opened.expect("a sound log").0)
}

fn placement(base_position: Position) -> FramePlacement {
    FramePlacement {
        base_position,
        stream: Some(StreamId::new(Position::ZERO)),
        base_offset: Some(Offset::new(base_position.get())),
        time: Timestamp::from_nanoseconds(1_700_000_000_000_000_000),
        session: None,
        first_counter: 0,
    }
}

fn frame(payload: &[u8]) -> UnplacedFrame {
    let bytes = RECORDS * payload.len();
    let mut frame = FrameBuilder::new(RecordKind::Event, RecordFlags::PLAIN, RECORDS, bytes);
    for _ in 0..RECORDS {
        frame.push(payload);
    }
    frame.build()
}

fn commit(writer: &mut LogWriter, frame: UnplacedFrame, durability: Durability) {
    let group = vec![(frame, placement(writer.next_position()))];
    writer.commit(group, durability).expect("space for a group");
}

/// A file that was written with zeros ahead, as segments are.
fn zeroed(dir: &Path, bytes: usize) -> File {
    let file = tempfile::tempfile_in(dir).expect("a file");
    file.write_all_at(&vec![0; bytes], 0).expect("space");
    file.sync_all().expect("a sync");
    file
}

pub(crate) fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("log_append_100_of_1_kib");
    group.throughput(Throughput::Elements(RECORDS as u64));
    // Every sample writes: more would fill the disk, not the statistics.
    group.warm_up_time(Duration::from_millis(500));
    group.measurement_time(Duration::from_secs(2));
    let payload = [7; PAYLOAD_BYTES];
    let cases = [
        ("unsynced", Durability::Later),
        ("synced", Durability::Group),
    ];
    for (name, durability) in cases {
        let (_dir, mut writer) = new_log(LogOptions::TAIL_BYTES_MAX);
        group.bench_function(format!("frame and commit, {name}"), |bencher| {
            bencher.iter(|| commit(&mut writer, frame(&payload), durability));
        });
        let (_dir, mut writer) = new_log(LogOptions::TAIL_BYTES_MAX);
        group.bench_function(format!("commit, {name}"), |bencher| {
            bencher.iter_batched(
                || frame(&payload),
                |frame| commit(&mut writer, frame, durability),
                BatchSize::SmallInput,
            );
        });
    }
    append_floors(&mut group, &payload);
    group.finish();
}

fn append_floors(group: &mut BenchmarkGroup<'_, WallTime>, payload: &[u8]) {
    group.bench_function("floor: digests", |bencher| {
        bencher.iter(|| {
            for _ in 0..RECORDS {
                black_box(payload_digest(black_box(payload)));
            }
        });
    });
    for (name, sync) in [("write", false), ("write and sync", true)] {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let bytes = vec![7; frame(payload).stored_bytes()];
        let file_bytes = 64 << 20;
        let file = zeroed(dir.path(), file_bytes);
        let mut offsets = (0..=file_bytes - bytes.len()).step_by(bytes.len()).cycle();
        group.bench_function(format!("floor: {name}"), |bencher| {
            bencher.iter(|| {
                let at = offsets.next().unwrap_or_default();
                file.write_all_at(&bytes, at as u64).expect("space");
                if sync {
                    file.sync_data().expect("a sync");
                }
            });
        });
    }
}

fn filled(tail_bytes_max: usize) -> (TempDir, LogWriter) {
    let (dir, mut writer) = new_log(tail_bytes_max);
    let payload = [7; PAYLOAD_BYTES];
    while writer.next_position().get() < LOG_RECORDS {
        commit(&mut writer, frame(&payload), Durability::Later);
    }
    writer.sync().expect("a sync");
    (dir, writer)
}

/// Prints percentiles of single reads at jumping positions, warm.
#[expect(clippy::print_stdout, reason = "the figures are what a bench is for")]
#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
pub(crate) fn percentiles(name: &str, range: std::ops::Range<u64>, read: impl Fn(u64)) {
    let mut latencies = Histogram::<u64>::new(3).expect("three digits");
    let span = range.end - range.start;
    for warm in [true, false] {
        for nth in 0..READS as u64 {
            // A prime step: neither neighbours nor the same few.
            let position = range.start + nth * 7_919 % span;
            let start = Instant::now();
            read(position);
            let nanoseconds = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
            if !warm {
                latencies.saturating_record(nanoseconds);
            }
        }
    }
    let at = |quantile| latencies.value_at_quantile(quantile);
    println!(
        "{name}: p50 {} ns, p99 {} ns, p99.9 {} ns",
        at(0.5),
        at(0.99),
        at(0.999)
    );
}

fn read_one(reader: &LogReader, position: u64) {
    let record = reader.record(Position::new(position)).expect("sound bytes");
    black_box(record.expect("a visible record"));
}

pub(crate) fn read(_: &mut Criterion) {
    let (dir, writer) = filled(LogOptions::TAIL_BYTES_MAX);
    let reader = writer.reader();
    let segments = reader.segments(&OsDisk::new()).expect("a directory");
    let (active, closed) = segments.split_last().expect("a log has a segment");
    let mapped = closed.first().expect("a closed segment").base.get()..active.base.get();
    percentiles(
        "log_read/tail",
        LOG_RECORDS - 3_000..LOG_RECORDS,
        |position| {
            read_one(&reader, position);
        },
    );
    percentiles("log_read/mapped segments", mapped, |position| {
        read_one(&reader, position);
    });
    map_floor(&dir, &closed.last().expect("a closed segment").name);
    drop(reader);
    let (_dir, writer) = filled(0);
    let reader = writer.reader();
    let active = active.base.get()..LOG_RECORDS;
    percentiles("log_read/active file", active, |position| {
        read_one(&reader, position);
    });
}

/// A copy of as many bytes out of a mapping of the same file.
fn map_floor(dir: &TempDir, segment: &str) {
    let path = dir.path().join("log").join(segment);
    let file = OsDisk::new()
        .open(&path, OpenMode::Read)
        .expect("a segment");
    let map = file.map(file.bytes().expect("a size")).expect("a mapping");
    let places = (map.len() / PAYLOAD_BYTES) as u64;
    percentiles(
        "log_read/floor: a copy out of a mapping",
        0..places,
        |place| {
            let at = usize::try_from(place).unwrap_or_default() * PAYLOAD_BYTES;
            black_box(Bytes::copy_from_slice(&map[at..at + PAYLOAD_BYTES]));
        },
    );
}

pub(crate) fn verify_log(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("log_verify");
    group.sample_size(10);
    group.measurement_time(Duration::from_secs(4));
    let (_dir, writer) = filled(LogOptions::TAIL_BYTES_MAX);
    let reader = writer.reader();
    let payload_bytes = LOG_RECORDS * PAYLOAD_BYTES as u64;
    group.throughput(Throughput::Bytes(payload_bytes));
    group.bench_function("130k records of 1 KiB", |bencher| {
        bencher.iter(|| {
            let verified = verify(&reader, &OsDisk::new(), &[], &mut |_| ());
            assert_eq!(verified.expect("a readable log").damage, []);
        });
    });
    let payload = [7; PAYLOAD_BYTES];
    group.bench_function("floor: digests on one core", |bencher| {
        bencher.iter(|| {
            for _ in 0..LOG_RECORDS {
                black_box(payload_digest(black_box(&payload)));
            }
        });
    });
    group.finish();
}
