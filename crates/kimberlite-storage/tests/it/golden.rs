//! The bytes of a whole log, worked out independently by `golden/log.py`.
//!
//! The hex files have one line for each 16 bytes that are not all zero: offset, then the bytes.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use kimberlite_crypto::payload_digest;
use kimberlite_disk::{Access, Disk, OpenMode};
use kimberlite_storage::{
    Background, Durability, Entropy, FrameBuilder, FramePlacement, LogOptions, UnplacedFrame,
    Witness, create_log, open_writer,
};
use kimberlite_testkit::SimulatedDisk;
use kimberlite_types::{
    Idempotency, IdempotencyKeyHash, KeyedAppend, LogId, Offset, Position, RecordFlags, RecordKind,
    RequestHash, SessionId, StreamId, Timestamp,
};

use crate::rig::{dir, dyn_disk, segment, verify_all};

const FIRST: &str = include_str!("../golden/first_segment.hex");
/// The first segment, written anew with the digests of its events in place of their payloads.
const PURGED: &str = include_str!("../golden/purged_segment.hex");
const KEYED: &str = include_str!("../golden/keyed_segment.hex");
const KEYED_PURGED: &str = include_str!("../golden/keyed_purged_segment.hex");
const SECOND: &str = include_str!("../golden/second_segment.hex");

/// The same salt for every segment, and the number of the segment in its first byte.
#[derive(Debug)]
struct Counted(std::sync::atomic::AtomicU8);

impl Entropy for Counted {
    fn fill(&self, bytes: &mut [u8]) -> bool {
        bytes.fill(0xa5);
        bytes[0] = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        true
    }
}

fn placement(position: u64, sealed: bool) -> FramePlacement {
    FramePlacement {
        base_position: Position::new(position),
        stream: sealed.then(|| StreamId::new(Position::new(2))),
        base_offset: sealed.then(|| Offset::new(0x0102_0304)),
        time: Timestamp::from_nanoseconds(1_700_000_000_000_000_000 + position),
        session: sealed.then(|| SessionId::new(Position::new(1))),
        first_counter: 77,
    }
}

fn frame(kind: RecordKind, flags: RecordFlags, payloads: &[&[u8]]) -> UnplacedFrame {
    let mut frame = FrameBuilder::new(kind, flags, payloads.len(), 0);
    for payload in payloads {
        frame.push(payload);
    }
    frame.build()
}

/// Genesis; a group of two frames, one of them sealed; a watermark; one event in a second segment.
fn write_log() -> SimulatedDisk {
    let simulated = SimulatedDisk::new(1);
    let disk: Arc<dyn Disk> = dyn_disk(&simulated);
    let counted = Counted(std::sync::atomic::AtomicU8::new(0));
    let options = LogOptions::new(Arc::new(counted), Background::inline());
    let log_id = LogId::new(std::array::from_fn(|index| u8::try_from(index).unwrap()));
    let plain = RecordFlags::PLAIN;
    let genesis = frame(RecordKind::Genesis, plain, &[b"the genesis payload"]);
    let first = (genesis, placement(0, false));
    create_log(&disk, dir(), &options, log_id, first).unwrap();
    let (mut writer, _) =
        open_writer(&disk, dir(), options, &Witness::default(), &mut |_| Ok(())).unwrap();
    let sessions = frame(RecordKind::KeySession, plain, &[b"session", b"stream name"]);
    let events: [&[u8]; 3] = [b"one", b"", b"a longer payload, of 33 bytes ..."];
    let events = frame(RecordKind::Event, RecordFlags::COMMITTED, &events);
    let group = vec![
        (sessions, placement(1, false)),
        (events, placement(3, true)),
    ];
    writer.commit(group, Durability::Group).unwrap();
    writer.write_watermark().unwrap();
    writer.reserve(256 << 10).unwrap();
    let last = frame(RecordKind::Unknown(200), plain, &[b"of a later release"]);
    writer
        .commit(vec![(last, placement(6, false))], Durability::Group)
        .unwrap();
    simulated
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (row, bytes) in bytes.chunks(16).enumerate() {
        if bytes.iter().any(|&byte| byte != 0) {
            write!(text, "{:06x}:", row * 16).unwrap();
            for byte in bytes {
                write!(text, " {byte:02x}").unwrap();
            }
            text.push('\n');
        }
    }
    text
}

fn unhex(text: &str, bytes: usize) -> Vec<u8> {
    let mut content = vec![0; bytes];
    for line in text.lines() {
        let (offset, row) = line.split_once(':').unwrap();
        let offset = usize::from_str_radix(offset, 16).unwrap();
        for (index, byte) in row.split_whitespace().enumerate() {
            content[offset + index] = u8::from_str_radix(byte, 16).unwrap();
        }
    }
    content
}

fn disk_of(segments: [(u64, &str, usize); 2]) -> SimulatedDisk {
    let disk = SimulatedDisk::new(2);
    disk.create_dir_all(&dir().join("log")).unwrap();
    for (base, golden, bytes) in segments {
        let content = unhex(golden, bytes);
        disk.write_new_atomic(&segment(base), &content, Access::Shared)
            .unwrap();
    }
    disk
}

#[test]
fn a_log_has_the_bytes_that_are_written_down() {
    let disk = write_log();
    for (base, golden) in [(0, FIRST), (6, SECOND)] {
        let found = hex(&disk.contents(segment(base)));
        assert!(found == golden, "segment {base} is now:\n{found}");
    }
}

#[test]
fn the_bytes_that_are_written_down_are_read_as_the_log_they_were() {
    let disk = disk_of([(0, FIRST, 256 << 10), (6, SECOND, 1 << 20)]);
    let written = write_log();
    let options = || LogOptions::new(Arc::new(Counted(9.into())), Background::inline());
    let read = |disk: &SimulatedDisk| {
        let mut seen = Vec::new();
        let opened = open_writer(
            &dyn_disk(disk),
            dir(),
            options(),
            &Witness::default(),
            &mut |frame| {
                seen.push(*frame.header());
                Ok(())
            },
        );
        let (writer, _) = opened.unwrap();
        assert_eq!(verify_all(&writer.reader(), disk).damage, []);
        (seen, writer.history())
    };
    assert_eq!(read(&disk), read(&written));
    assert!(disk.open(Path::new("/nowhere"), OpenMode::Read).is_err());
}

#[test]
fn purged_frames_tell_digests_and_lengths_and_give_the_same_history() {
    let purged = disk_of([(0, PURGED, 8192), (6, SECOND, 1 << 20)]);
    let history = |disk: &SimulatedDisk| {
        let options = LogOptions::new(Arc::new(Counted(9.into())), Background::inline());
        let witness = Witness::default();
        let opened = open_writer(&dyn_disk(disk), dir(), options, &witness, &mut |_| Ok(()));
        let (writer, _) = opened.unwrap();
        let verified = verify_all(&writer.reader(), disk);
        assert_eq!(verified.damage, []);
        (writer.reader(), writer.history(), verified)
    };
    let (reader, state, verified) = history(&purged);
    let (whole, state_whole, verified_whole) = history(&write_log());
    assert_eq!(state, state_whole);
    assert_eq!(verified.root, verified_whole.root);
    assert_eq!(verified.chain, verified_whole.chain);
    assert_eq!(verified.payload_bytes + 36, verified_whole.payload_bytes);
    for position in (0..7).map(Position::new) {
        let record = reader.record(position).unwrap().unwrap();
        let was = whole.record(position).unwrap().unwrap();
        assert_eq!(was.purged(), None);
        let left = record.purged().map(|left| (left.bytes, left.digest));
        if (3..6).contains(&position.get()) {
            let payload = was.payload();
            let bytes = u32::try_from(payload.len()).unwrap();
            assert_eq!(left, Some((bytes, payload_digest(payload))));
            assert!(record.payload().is_empty());
        } else {
            assert_eq!(left, None);
            assert_eq!(record.payload(), was.payload());
        }
    }
}

#[test]
fn a_purge_writes_the_bytes_that_are_written_down() {
    let disk = write_log();
    let options = LogOptions::new(Arc::new(Counted(2.into())), Background::inline());
    let witness = Witness::default();
    let opened = open_writer(&dyn_disk(&disk), dir(), options, &witness, &mut |_| Ok(()));
    let (writer, _) = opened.unwrap();
    let purger = writer.purger();
    let until = Position::new(6);
    let outcome = purger.purge(until, &|_| true, &mut |_| ()).unwrap();
    assert_eq!((outcome.events, outcome.payload_bytes), (3, 36));
    assert_eq!(outcome.bytes_freed, (256 << 10) - 8192);
    let found = hex(&disk.contents(segment(0)));
    assert!(found == PURGED, "the segment is now:\n{found}");
    assert_eq!(disk.contents(segment(0)).len(), 8192);
}

fn key() -> KeyedAppend {
    KeyedAppend {
        idempotency: Idempotency {
            key: IdempotencyKeyHash::new(std::array::from_fn(|at| u8::try_from(at).unwrap())),
            request: RequestHash::new(std::array::from_fn(|at| u8::try_from(at + 16).unwrap())),
        },
        count: 3,
    }
}

/// Genesis, and an append of two frames with an idempotency key; a watermark.
fn write_keyed_log() -> SimulatedDisk {
    let simulated = SimulatedDisk::new(1);
    let disk = dyn_disk(&simulated);
    let options = LogOptions::new(Arc::new(Counted(0.into())), Background::inline());
    let log_id = LogId::new(std::array::from_fn(|index| u8::try_from(index).unwrap()));
    let genesis = frame(
        RecordKind::Genesis,
        RecordFlags::PLAIN,
        &[b"the genesis payload"],
    );
    create_log(
        &disk,
        dir(),
        &options,
        log_id,
        (genesis, placement(0, false)),
    )
    .unwrap();
    let witness = Witness::default();
    let (mut writer, _) = open_writer(&disk, dir(), options, &witness, &mut |_| Ok(())).unwrap();
    let mut first =
        FrameBuilder::new(RecordKind::Event, RecordFlags::COMMITTED, 2, 0).keyed(&key());
    first.push(b"one");
    first.push(b"two");
    let second = frame(RecordKind::Event, RecordFlags::COMMITTED, &[b"three"]);
    let group = vec![
        (first.build(), placement(1, true)),
        (second, placement(3, true)),
    ];
    writer.commit(group, Durability::Group).unwrap();
    writer.write_watermark().unwrap();
    simulated
}

#[test]
fn an_append_with_a_key_has_the_bytes_that_are_written_down_also_when_it_is_purged() {
    let disk = write_keyed_log();
    let found = hex(&disk.contents(segment(0)));
    assert!(found == KEYED, "the segment is now:\n{found}");
    let options = LogOptions::new(Arc::new(Counted(1.into())), Background::inline());
    let witness = Witness::default();
    let opened = open_writer(&dyn_disk(&disk), dir(), options, &witness, &mut |_| Ok(()));
    let (mut writer, _) = opened.unwrap();
    writer.close_segment().unwrap();
    let purger = writer.purger();
    let until = Position::new(4);
    let outcome = purger.purge(until, &|_| true, &mut |_| ()).unwrap();
    assert_eq!((outcome.events, outcome.payload_bytes), (3, 11));
    let found = hex(&disk.contents(segment(0)));
    assert!(found == KEYED_PURGED, "the segment is now:\n{found}");
    drop((purger, writer));
    let options = LogOptions::new(Arc::new(Counted(9.into())), Background::inline());
    let mut keys = Vec::new();
    let mut visit = |frame: &kimberlite_storage::FrameView| {
        keys.push(frame.keyed());
        Ok(())
    };
    let opened = open_writer(&dyn_disk(&disk), dir(), options, &witness, &mut visit);
    let (writer, _) = opened.unwrap();
    assert_eq!(verify_all(&writer.reader(), &disk).damage, []);
    assert_eq!(keys, [None, Some(key()), None]);
}
