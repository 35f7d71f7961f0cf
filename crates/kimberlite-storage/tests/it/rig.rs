//! A log on a simulated disk beside the obvious model of it: a list of payloads.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use kimberlite_disk::{Disk, WriteMode};
use kimberlite_storage::{
    Background, CheckpointStore, Damage, Durability, Entropy, FrameBuilder, FramePlacement,
    HistoryState, LogOptions, LogReader, LogWriter, OpenReport, Statement, StorageError,
    UnplacedFrame, VerifiedLog, Witness, create_log, open_observer, open_writer, verify,
};
use kimberlite_testkit::{Rng, SimulatedDisk};
use kimberlite_types::{
    ChainHash, LogId, Offset, Position, RecordFlags, RecordKind, RootHash, StreamId, Timestamp,
};

pub(crate) const FRAMES_AT: u64 = 4096;
pub(crate) const SECTOR: u64 = 512;
const TIME: u64 = 1_700_000_000_000_000_000;

/// Payloads of the frames of one commit group.
pub(crate) type Group = Vec<Vec<Vec<u8>>>;

#[derive(Debug)]
struct SeededEntropy(Mutex<Rng>);

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) -> bool {
        self.0.lock().unwrap().fill(bytes);
        true
    }
}

pub(crate) fn options(seed: u64) -> LogOptions {
    let entropy = SeededEntropy(Mutex::new(Rng::new(seed)));
    LogOptions::new(Arc::new(entropy), Background::inline())
}

pub(crate) fn dir() -> &'static Path {
    Path::new("/db/tenants/t")
}

pub(crate) fn log_id() -> LogId {
    LogId::new([7; 32])
}

pub(crate) fn segment_name(base: u64) -> String {
    format!("{base:020}.seg")
}

pub(crate) fn segment(base: u64) -> PathBuf {
    dir().join("log").join(segment_name(base))
}

pub(crate) fn seal(base: u64) -> PathBuf {
    dir().join(format!("log/{base:020}.seal"))
}

pub(crate) fn genesis() -> Vec<u8> {
    b"genesis".to_vec()
}

/// A group of one frame with one record.
pub(crate) fn one(payload: &[u8]) -> Group {
    vec![vec![payload.to_vec()]]
}

pub(crate) fn frame(position: u64, payloads: &[Vec<u8>]) -> (UnplacedFrame, FramePlacement) {
    let bytes = payloads.iter().map(Vec::len).sum();
    let kind = if position == 0 {
        RecordKind::Genesis
    } else {
        RecordKind::Event
    };
    let mut frame = FrameBuilder::new(kind, RecordFlags::PLAIN, payloads.len(), bytes);
    for payload in payloads {
        frame.push(payload);
    }
    let placement = FramePlacement {
        base_position: Position::new(position),
        stream: (position > 0).then(|| StreamId::new(Position::ZERO)),
        base_offset: (position > 0).then(|| Offset::new(position - 1)),
        time: Timestamp::from_nanoseconds(TIME + position),
        session: None,
        first_counter: u32::MAX,
    };
    (frame.build(), placement)
}

pub(crate) fn frames(mut position: u64, group: &Group) -> Vec<(UnplacedFrame, FramePlacement)> {
    let mut frames = Vec::new();
    for payloads in group {
        frames.push(frame(position, payloads));
        position += u64::try_from(payloads.len()).unwrap();
    }
    frames
}

/// A log that is open for writing, and what is known of it.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) disk: SimulatedDisk,
    pub(crate) writer: LogWriter,
    pub(crate) report: OpenReport,
    /// Every payload that was tried to write, by position.
    pub(crate) model: Vec<Vec<u8>>,
    /// Positions at which a commit group ends.
    pub(crate) borders: Vec<u64>,
}

impl Rig {
    /// Makes a log and opens it.
    pub(crate) fn new(seed: u64) -> Self {
        let disk = SimulatedDisk::new(seed);
        create(&disk, seed).unwrap();
        let rig = Self::open(&disk, seed).unwrap();
        assert_eq!(rig.report.tail_discarded, None);
        rig
    }

    /// Opens a log, and checks that readers and verification agree with the visitor.
    pub(crate) fn open(disk: &SimulatedDisk, seed: u64) -> Result<Self, StorageError> {
        // No two lives of a log draw the same salts.
        Self::open_with(disk, options(seed ^ disk.ops() << 32))
    }

    /// Opens a log likewise, to append in another way.
    pub(crate) fn open_by(
        disk: &SimulatedDisk,
        seed: u64,
        write_mode: WriteMode,
    ) -> Result<Self, StorageError> {
        let mut options = options(seed ^ disk.ops() << 32);
        options.write_mode = write_mode;
        Self::open_with(disk, options)
    }

    pub(crate) fn open_with(
        disk: &SimulatedDisk,
        options: LogOptions,
    ) -> Result<Self, StorageError> {
        let (mut model, mut borders) = (Vec::new(), vec![0]);
        let witness = witness(disk);
        let (writer, report) =
            open_writer(&dyn_disk(disk), dir(), options, &witness, &mut |frame| {
                let base = frame.header().base_position.get();
                assert_eq!(base, u64::try_from(model.len()).unwrap());
                for position in base..frame.header().end_position().get() {
                    model.push(frame.record(Position::new(position))?.payload().to_vec());
                }
                if !frame.header().more {
                    borders.push(frame.header().end_position().get());
                }
                Ok(())
            })?;
        let end = Position::new(u64::try_from(model.len()).unwrap());
        assert_eq!(writer.next_position(), end);
        assert_eq!((writer.durable(), writer.reader().end()), (end, end));
        assert_eq!(report.damage, []);
        Ok(Self {
            disk: disk.clone(),
            writer,
            report,
            model,
            borders,
        })
    }

    /// Closes the log and opens it again.
    pub(crate) fn reopen(self) -> Self {
        let Self {
            disk,
            writer,
            model,
            ..
        } = self;
        let history = writer.history();
        drop(writer);
        let rig = Self::open(&disk, 99).unwrap();
        assert_eq!(rig.model, model);
        assert_eq!(rig.writer.history(), history);
        rig
    }

    pub(crate) fn end(&self) -> u64 {
        u64::try_from(self.model.len()).unwrap()
    }

    pub(crate) fn commit(
        &mut self,
        group: &Group,
        durability: Durability,
    ) -> Result<(), StorageError> {
        let position = self.writer.next_position().get();
        self.model.truncate(usize::try_from(position).unwrap());
        self.model.extend(group.iter().flatten().cloned());
        self.borders.push(self.end());
        self.writer.commit(frames(position, group), durability)
    }

    /// Appends a durable group.
    pub(crate) fn append(&mut self, group: &Group) {
        self.commit(group, Durability::Group).unwrap();
    }

    /// Begins a new segment without writing anything large: the present one, of `segment_bytes`,
    /// cannot hold so many more.
    pub(crate) fn roll(&mut self, segment_bytes: u64) {
        self.writer.reserve(segment_bytes - FRAMES_AT).unwrap();
    }

    pub(crate) fn checkpoint(&mut self) -> Result<(), StorageError> {
        self.writer.sync()?;
        let store = CheckpointStore::new(dyn_disk(&self.disk), dir());
        let history = self.writer.history();
        store.store(&history, &note(&history))
    }

    /// Computes chain and tree over the first `size` records, in another log that is cut there.
    pub(crate) fn history_at(&self, size: u64) -> HistoryState {
        let mut copy = Self::new(1);
        for place in layout(&self.disk) {
            if place.position > 0 && place.position + place.count <= size {
                let records = place.position..place.position + place.count;
                let payloads = records.map(|n| self.model[usize::try_from(n).unwrap()].clone());
                copy.append(&vec![payloads.collect()]);
            }
        }
        assert_eq!(copy.end(), size);
        copy.writer.history()
    }

    pub(crate) fn verify(&self) -> VerifiedLog {
        verify_all(&self.writer.reader(), &self.disk)
    }

    /// Reads every record back and recomputes the log.
    pub(crate) fn check(&self) {
        let reader = self.writer.reader();
        check_records(&reader, &self.model);
        let verified = self.verify();
        assert_eq!(verified.damage, []);
        assert_eq!(verified.records, reader.end().get());
        if self.writer.durable() == self.writer.next_position() {
            let history = self.writer.history();
            assert_eq!(verified.chain, history.chain());
            assert_eq!(verified.root, history.root());
        }
    }
}

/// Stands for a signed note: it says root and chain.
fn note(history: &HistoryState) -> String {
    format!("{}\n{}\n", history.root(), history.chain())
}

/// Reads a note.
fn statement(note: &str, size: Position) -> Option<Statement> {
    let mut lines = note.lines().map(|line| {
        let (pairs, _) = line.as_bytes().as_chunks::<2>();
        let byte =
            |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        <[u8; 32]>::try_from(pairs.iter().map(byte).collect::<Vec<_>>()).ok()
    });
    let (root, chain) = (lines.next()??, lines.next()??);
    Some(Statement {
        size,
        root: RootHash::new(root),
        chain: ChainHash::new(chain),
    })
}

/// What the checkpoints say, as far as their notes bear their states out.
pub(crate) fn witness(disk: &SimulatedDisk) -> Witness {
    let store = CheckpointStore::new(dyn_disk(disk), dir());
    let sizes = store.sizes().unwrap();
    let signed = |&size: &Position| {
        let history = store.state(size)?;
        (store.note(size).ok()? == note(&history)).then_some(history)
    };
    Witness {
        newest: sizes
            .last()
            .and_then(|&size| statement(&store.note(size).ok()?, size)),
        history: sizes.iter().rev().find_map(signed),
        base: None,
    }
}

pub(crate) fn dyn_disk(disk: &SimulatedDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

pub(crate) fn create(disk: &SimulatedDisk, seed: u64) -> Result<(), StorageError> {
    let genesis = frame(0, &[genesis()]);
    create_log(&dyn_disk(disk), dir(), &options(seed), log_id(), genesis)
}

pub(crate) fn check_records(reader: &LogReader, model: &[Vec<u8>]) {
    let end = reader.end().get();
    for (position, payload) in (0..end).zip(model) {
        let record = reader.record(Position::new(position)).unwrap().unwrap();
        assert_eq!(record.payload(), payload, "position {position}");
        assert_eq!(record.position().get(), position);
    }
    assert!(reader.record(Position::new(end)).unwrap().is_none());
}

pub(crate) fn verify_all(reader: &LogReader, disk: &SimulatedDisk) -> VerifiedLog {
    verify(reader, disk, &[], &mut |_| ()).unwrap()
}

/// Opens a log whose bytes are damaged, and says how a writer finds it, which must change nothing.
pub(crate) fn refused(disk: &SimulatedDisk) -> StorageError {
    let ops = disk.ops();
    let error = Rig::open(disk, 5).map(drop).unwrap_err();
    assert_eq!(disk.ops(), ops, "a refused log was changed");
    error
}

pub(crate) fn corrupt(disk: &SimulatedDisk) -> Damage {
    match refused(disk) {
        StorageError::Corrupt(damage) => damage,
        other => panic!("{other:?}"),
    }
}

/// Opens a log for reading and checks that all it shows is what was written.
pub(crate) fn observe(disk: &SimulatedDisk, model: &[Vec<u8>]) -> (LogReader, OpenReport) {
    let ops = disk.ops();
    let witness = witness(disk);
    let opened = open_observer(&dyn_disk(disk), dir(), &options(6), &witness, &mut |_| {
        Ok(())
    });
    let (reader, report) = opened.unwrap();
    assert_eq!(disk.ops(), ops, "an observer changed something");
    for position in 0..reader.end().get() {
        match reader.record(Position::new(position)) {
            Ok(record) => {
                let index = usize::try_from(position).unwrap();
                assert_eq!(record.unwrap().payload(), &model[index]);
            }
            Err(StorageError::Corrupt(damage)) => assert_eq!(damage.position.get(), position),
            Err(error) => panic!("{error:?}"),
        }
    }
    (reader, report)
}

/// Where each frame stands: segment, first byte, byte after, first position, position after.
pub(crate) fn layout(disk: &SimulatedDisk) -> Vec<FramePlace> {
    let mut places = Vec::new();
    for path in disk.files() {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let Some(base) = name.strip_suffix(".seg") else {
            continue;
        };
        let bytes = disk.contents(&path);
        let mut at = usize::try_from(FRAMES_AT).unwrap();
        let mut position = base.parse::<u64>().unwrap();
        while bytes.get(at..at + 4) == Some(b"KFRM".as_slice()) {
            let length = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap());
            let count = u16::from_le_bytes(bytes[at + 18..at + 20].try_into().unwrap());
            let end = at + usize::try_from(length).unwrap().next_multiple_of(8);
            places.push(FramePlace {
                segment: base.parse().unwrap(),
                at: u64::try_from(at).unwrap(),
                end: u64::try_from(end).unwrap(),
                position,
                count: u64::from(count),
            });
            at = end;
            position += u64::from(count);
        }
    }
    places
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct FramePlace {
    pub(crate) segment: u64,
    pub(crate) at: u64,
    pub(crate) end: u64,
    pub(crate) position: u64,
    pub(crate) count: u64,
}
