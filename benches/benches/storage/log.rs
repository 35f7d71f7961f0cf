//! The log by itself: payloads are opaque bytes, there are no keys and no commands.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use kimberlite_crypto::payload_digest;
use kimberlite_disk::{Disk, OpenMode, OsDisk, WriteMode};
use kimberlite_storage::{
    Background, Durability, Entropy, FrameBuilder, FramePlacement, LogOptions, LogReader,
    LogWriter, UnplacedFrame, Witness, create_log, open_writer, verify,
};
use kimberlite_types::{LogId, Offset, Position, RecordFlags, RecordKind, StreamId, Timestamp};
use tempfile::TempDir;

use crate::latencies::{Case, compare, is_wanted, reads, scratch};

const RECORDS: usize = 100;
const PAYLOAD_BYTES: usize = 1024;
/// Records of the log that is read and verified: about 140 MB, three closed segments and a bit.
const LOG_RECORDS: u64 = 130_000;
/// Appends of a round.
const APPENDS: u64 = 3_000;
const READS: u64 = 200_000;

#[derive(Debug)]
struct Salts;

impl Entropy for Salts {
    fn fill(&self, bytes: &mut [u8]) -> bool {
        bytes.fill(5);
        true
    }
}

fn new_log(tail_bytes_max: usize) -> (TempDir, LogWriter) {
    new_log_by(WriteMode::default(), tail_bytes_max)
}

pub(crate) fn new_log_by(mode: WriteMode, tail_bytes_max: usize) -> (TempDir, LogWriter) {
    let dir = tempfile::tempdir_in(scratch()).expect("a directory");
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::new());
    let mut options = LogOptions::new(Arc::new(Salts), Background::thread());
    options.tail_bytes_max = tail_bytes_max;
    options.write_mode = mode;
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
    frame_of(RECORDS, payload)
}

pub(crate) fn frame_of(records: usize, payload: &[u8]) -> UnplacedFrame {
    let bytes = records * payload.len();
    let mut frame = FrameBuilder::new(RecordKind::Event, RecordFlags::PLAIN, records, bytes);
    for _ in 0..records {
        frame.push(payload);
    }
    frame.build()
}

pub(crate) fn commit(writer: &mut LogWriter, frame: UnplacedFrame, durability: Durability) {
    let group = vec![(frame, placement(writer.next_position()))];
    writer.commit(group, durability).expect("space for a group");
}

pub(crate) fn append() {
    let payload = [7; PAYLOAD_BYTES];
    let case = |name, durability| Case {
        name,
        elements: RECORDS as u64,
        prepare: Box::new(move || {
            let (dir, mut writer) = new_log(LogOptions::TAIL_BYTES_MAX);
            Box::new(move |_| {
                let _ = &dir;
                commit(&mut writer, frame(&payload), durability);
            })
        }),
    };
    let cases = [
        case("unsynced", Durability::Later),
        case("synced", Durability::Group),
    ];
    compare("log_append_100_of_1_kib", APPENDS, &cases);
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

fn read_one(reader: &LogReader, position: u64) {
    let record = reader.record(Position::new(position)).expect("sound bytes");
    black_box(record.expect("a visible record"));
}

pub(crate) fn read() {
    if !is_wanted("log_read") {
        return;
    }
    let (dir, writer) = filled(LogOptions::TAIL_BYTES_MAX);
    let reader = writer.reader();
    let segments = reader.segments(&OsDisk::new()).expect("a directory");
    let (active, closed) = segments.split_last().expect("a log has a segment");
    let mapped = closed.first().expect("a closed segment").base.get()..active.base.get();
    let tail = LOG_RECORDS - 3_000..LOG_RECORDS;
    reads("log_read/tail", READS, tail, |at| read_one(&reader, at));
    reads("log_read/mapped segments", READS, mapped, |at| {
        read_one(&reader, at);
    });
    map_floor(&dir, &closed.last().expect("a closed segment").name);
    drop(reader);
    let (_dir, writer) = filled(0);
    let reader = writer.reader();
    let active = active.base.get()..LOG_RECORDS;
    reads("log_read/active file", READS, active, |at| {
        read_one(&reader, at);
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
    let floor = "log_read/floor: a copy out of a mapping";
    reads(floor, READS, 0..places, |place| {
        let at = usize::try_from(place).unwrap_or_default() * PAYLOAD_BYTES;
        black_box(Bytes::copy_from_slice(&map[at..at + PAYLOAD_BYTES]));
    });
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
