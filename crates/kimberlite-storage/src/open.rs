//! Opening a log: every segment is read in order, its frames are shown to a visitor, and the last
//! one is recovered.
//!
//! A writer opens only a log without damage: it truncates nothing but a torn tail. An observer opens
//! what can be read, changes nothing, and reports the damage.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use kimberlite_crypto::chain_seed;
use kimberlite_disk::{Disk, DiskError, OpenMode};
use kimberlite_types::{LogId, Position, Timestamp};

use crate::checkpoint::CheckpointStore;
use crate::damage::{Damage, DamageKind};
use crate::error::StorageError;
use crate::frame::{FrameBuilder, FramePlacement, FrameSite, FrameView};
use crate::history::History;
use crate::options::LogOptions;
use crate::prepare::{Blank, Jobs, Preparation, TEMPORARY_ENDING};
use crate::reader::{LogReader, Shared, View, read_bytes};
use crate::recovery::{TailDiscarded, TailScan, TailVerdict, discard_tail, scan_tail};
use crate::scan::{Depth, Found, Window};
use crate::segment::{
    ClosedSegment, FRAMES_AT, SEGMENT_HEADER_BYTES, SealFile, Segment, SegmentHeader, SparseIndex,
    base_of_name, next_segment_bytes, seal_path, segment_name, segment_path,
};
use crate::tail::Tail;
use crate::writer::LogWriter;

/// Bytes of a seal file that are read at most.
const SEAL_BYTES_MAX: u64 = 64 << 20;

/// How often an observer reads a last segment that looks damaged.
const OBSERVER_ATTEMPTS: u32 = 5;

/// Sees every frame of a log in order, watermarks excepted.
pub type Visitor<'a> =
    dyn FnMut(&FrameView) -> Result<(), Box<dyn std::error::Error + Send + Sync>> + 'a;

/// What was found when a log was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// An unfinished write that was cut off the end.
    pub tail_discarded: Option<TailDiscarded>,
    /// What is damaged; always empty for a writer, which refuses to open such a log.
    pub damage: Vec<Damage>,
    /// The log ends before this many records, for which a checkpoint vouches; for observers only.
    pub rolled_back: Option<Position>,
    /// Bytes at the end of the log that were written again because they might not be on disk.
    pub rewritten_bytes: u64,
}

/// Makes a log: its first segment appears, with its first record in it, in one step.
///
/// # Errors
///
/// [`StorageError::Disk`] when files cannot be made, and when the log exists.
pub fn create_log(
    disk: &Arc<dyn Disk>,
    tenant_dir: &Path,
    options: &LogOptions,
    log_id: LogId,
    genesis: (FrameBuilder, FramePlacement),
) -> Result<(), StorageError> {
    let log_dir = tenant_dir.join("log");
    disk.create_dir_all(&log_dir)?;
    let path = segment_path(&log_dir, Position::ZERO);
    if disk.exists(&path)? {
        return Err(DiskError::AlreadyExists { path }.into());
    }
    let mut salt = [0; 16];
    if !options.entropy.fill(&mut salt) {
        return Err(StorageError::Entropy);
    }
    let (frame, placement) = genesis;
    let group_bytes = u64::try_from(frame.stored_bytes()).expect("a frame is limited");
    let header = SegmentHeader {
        log_id,
        base_position: Position::ZERO,
        base_chain: chain_seed(&log_id),
        salt,
        segment_bytes: next_segment_bytes(None, group_bytes),
    };
    let site = FrameSite {
        seed: header.seed(),
        at: FRAMES_AT,
        log_id,
        durable_position: Position::ZERO,
        more: false,
    };
    let frame = frame.finish(&placement, site, &mut History::start(&log_id));
    let blank = Blank::make(
        disk.as_ref(),
        log_dir.join("first.tmp"),
        header.segment_bytes,
    )?;
    blank
        .fill(header, &frame.bytes)?
        .name(disk.as_ref(), &log_dir)?;
    Ok(())
}

/// Whether a tenant's directory holds a log.
///
/// # Errors
///
/// [`StorageError::FirstSegmentMissing`] when it holds only the rest of one.
pub fn log_exists(disk: &dyn Disk, tenant_dir: &Path) -> Result<bool, StorageError> {
    let bases = segment_bases(disk, &tenant_dir.join("log"))?;
    let checkpoint = disk.exists(&tenant_dir.join("checkpoint"))?;
    match bases.first() {
        Some(&Position::ZERO) => Ok(true),
        None if !checkpoint => Ok(false),
        _ => Err(StorageError::FirstSegmentMissing),
    }
}

/// Opens a log for appending.
///
/// # Errors
///
/// [`StorageError::Corrupt`] and [`StorageError::RolledBack`] when the log is not what was written;
/// nothing was changed then. [`StorageError::Replay`] when the visitor refuses a frame.
pub fn open_writer(
    disk: &Arc<dyn Disk>,
    tenant_dir: &Path,
    options: LogOptions,
    visitor: &mut Visitor<'_>,
) -> Result<(LogWriter, OpenReport), StorageError> {
    let log_dir = tenant_dir.join("log");
    remove_temporary_files(disk.as_ref(), &log_dir)?;
    let checkpoints = CheckpointStore::new(Arc::clone(disk), tenant_dir);
    let mut opening = Opening::new(disk, &log_dir, OpenMode::ReadWrite, visitor);
    let last = opening.read_segments(&checkpoints)?;
    opening.refuse_damage()?;
    let mut report = OpenReport::default();
    let scan = last.scan;
    let window = Window {
        segment: &last.segment.header,
        start: 0,
        bytes: last.bytes,
    };
    match &scan.verdict {
        TailVerdict::Clean => {}
        TailVerdict::Torn { written_end } => {
            let cut = discard_tail(disk, &log_dir, &last.segment, &scan, *written_end, &window)?;
            report.tail_discarded = Some(cut);
        }
        TailVerdict::Corrupt(damage) => return Err(StorageError::Corrupt(damage.clone())),
        TailVerdict::RolledBack => {
            return Err(StorageError::RolledBack {
                end: scan.end,
                witnessed: last.vouched,
            });
        }
    }
    let history = opening.history_at_end(&scan, &checkpoints, &last.segment)?;
    report.rewritten_bytes = rewrite_unmarked(&last.segment, &scan, &window)?;
    let last_time = opening.last_time;
    let unsealed = std::mem::take(&mut opening.unsealed);
    let closed = std::mem::take(&mut opening.closed);
    drop(opening);

    let active = Arc::new(last.segment);
    let tail = Tail::new(options.tail_bytes_max);
    let view = View {
        closed,
        active: Arc::clone(&active),
        index: last.index,
        active_end: scan.end_at,
        tail,
        end: scan.end,
        durable: scan.end,
    };
    let log_id = active.header.log_id;
    let shared = Arc::new(Shared::new(log_id, log_dir.clone(), view));
    let jobs = Arc::new(Jobs::default());
    let background = options.background.clone();
    let writer = LogWriter {
        shared,
        disk: Arc::clone(disk),
        options,
        active,
        history,
        write_at: scan.end_at,
        durable: scan.end,
        marked: scan.marked,
        last_time,
        poisoned: false,
        preparation: Preparation::new(Arc::clone(disk), log_dir, background, Arc::clone(&jobs)),
        jobs,
    };
    for (closed, history) in unsealed {
        writer.seal(closed, history);
    }
    Ok((writer, report))
}

/// Opens a log for reading, beside its writer if there is one, and changes nothing.
///
/// # Errors
///
/// [`StorageError::Disk`] when files cannot be read. Damage is in the report.
pub fn open_observer(
    disk: &Arc<dyn Disk>,
    tenant_dir: &Path,
    options: &LogOptions,
    visitor: &mut Visitor<'_>,
) -> Result<(LogReader, OpenReport), StorageError> {
    let log_dir = tenant_dir.join("log");
    let checkpoints = CheckpointStore::new(Arc::clone(disk), tenant_dir);
    let mut opening = Opening::new(disk, &log_dir, OpenMode::Read, visitor);
    let last = opening.read_segments(&checkpoints)?;
    let mut report = OpenReport {
        damage: opening.damage,
        ..OpenReport::default()
    };
    match last.scan.verdict {
        TailVerdict::Clean | TailVerdict::Torn { .. } => {}
        TailVerdict::Corrupt(damage) => report.damage.push(damage),
        TailVerdict::RolledBack => report.rolled_back = Some(last.vouched),
    }
    let active = Arc::new(last.segment);
    let log_id = active.header.log_id;
    let view = View {
        closed: opening.closed,
        active,
        index: last.index,
        active_end: last.scan.end_at,
        tail: Tail::new(options.tail_bytes_max),
        end: opening.visited,
        durable: opening.visited,
    };
    Ok((
        LogReader {
            shared: Arc::new(Shared::new(log_id, log_dir, view)),
        },
        report,
    ))
}

/// A log on the way to being open.
struct Opening<'a, 'v> {
    disk: &'a Arc<dyn Disk>,
    log_dir: &'a Path,
    mode: OpenMode,
    visitor: &'a mut Visitor<'v>,
    closed: Vec<Arc<ClosedSegment>>,
    /// Closed segments that want a seal, with the history at their ends.
    unsealed: Vec<(Arc<ClosedSegment>, History)>,
    /// Chain and tree at the end of the closed segments, as far as they are sound.
    history: Option<History>,
    end: Position,
    last_time: Timestamp,
    damage: Vec<Damage>,
    /// Position after the last record that the visitor saw.
    visited: Position,
}

/// The last segment, read but not yet judged.
struct LastSegment {
    segment: Segment,
    bytes: Bytes,
    scan: TailScan,
    index: SparseIndex,
    vouched: Position,
}

impl<'a, 'v> Opening<'a, 'v> {
    fn new(
        disk: &'a Arc<dyn Disk>,
        log_dir: &'a Path,
        mode: OpenMode,
        visitor: &'a mut Visitor<'v>,
    ) -> Self {
        Self {
            disk,
            log_dir,
            mode,
            visitor,
            closed: Vec::new(),
            unsealed: Vec::new(),
            history: None,
            end: Position::ZERO,
            last_time: Timestamp::default(),
            damage: Vec::new(),
            visited: Position::ZERO,
        }
    }

    fn read_segments(
        &mut self,
        checkpoints: &CheckpointStore,
    ) -> Result<LastSegment, StorageError> {
        let vouched = checkpoints
            .sizes()?
            .last()
            .copied()
            .unwrap_or(Position::ZERO);
        let bases = segment_bases(self.disk.as_ref(), self.log_dir)?;
        let Some((&last, closed)) = bases.split_last() else {
            return Err(StorageError::FirstSegmentMissing);
        };
        for (&base, &next) in closed.iter().zip(bases.iter().skip(1)) {
            if let Err(error) = self.read_closed(base, next) {
                return self.end_before(error, vouched);
            }
            self.end = next;
        }
        match self.read_last(last, vouched) {
            Ok(last) => Ok(last),
            Err(error) => self.end_before(error, vouched),
        }
    }

    /// Lets an observer read up to a segment that cannot be read at all.
    fn end_before(
        &mut self,
        error: StorageError,
        vouched: Position,
    ) -> Result<LastSegment, StorageError> {
        let damage = match error {
            StorageError::Corrupt(damage) if self.mode == OpenMode::Read => damage,
            other => return Err(other),
        };
        let Some(readable) = self.closed.pop() else {
            return Err(StorageError::Corrupt(damage));
        };
        self.damage.push(damage);
        let segment = Segment::new(readable.segment.header, Arc::clone(&readable.segment.file));
        let scan = TailScan::ending(readable.end, readable.frames_end);
        let index = readable.index.clone();
        Ok(LastSegment {
            segment,
            bytes: Bytes::new(),
            scan,
            index,
            vouched,
        })
    }

    /// Opens the segment at `base`. A header page that cannot be read leaves nothing to go by.
    fn open_segment(&mut self, base: Position) -> Result<Segment, StorageError> {
        let file = self
            .disk
            .open(&segment_path(self.log_dir, base), self.mode)?;
        let corrupt = |kind| {
            let segment = segment_name(base);
            StorageError::Corrupt(Damage {
                segment,
                byte: 0,
                position: base,
                kind,
            })
        };
        let mut page = [0; SEGMENT_HEADER_BYTES];
        file.read_exact_at(&mut page, 0)?;
        let header = SegmentHeader::decode(&page)
            .map_err(|error| corrupt(DamageKind::SegmentHeader(error)))?;
        let log_id = match self.closed.first() {
            Some(first) => first.segment.header.log_id,
            None => header.log_id,
        };
        if header.base_position != base || header.log_id != log_id {
            return Err(corrupt(DamageKind::ForeignSegment));
        }
        if base != self.end {
            return Err(corrupt(DamageKind::MissingSegment));
        }
        if base == Position::ZERO {
            self.history = Some(History::start(&log_id));
        }
        if let Some(history) = &self.history
            && history.chain != header.base_chain
        {
            return Err(corrupt(DamageKind::ChainBroken));
        }
        let (expected, found) = (header.segment_bytes, file.bytes()?);
        let segment = Segment::new(header, file);
        if expected != found {
            let kind = DamageKind::SegmentBytes { expected, found };
            self.damage
                .push(segment.damage(found.min(expected), base, kind));
        }
        Ok(segment)
    }

    fn read_closed(&mut self, base: Position, next: Position) -> Result<(), StorageError> {
        let segment = self.open_segment(base)?;
        let seal = self.read_seal(&segment, next);
        let bytes = segment.mapped()?.clone();
        let window = Window {
            segment: &segment.header,
            start: 0,
            bytes,
        };
        let depth = if seal.is_some() {
            Depth::Shape
        } else {
            Depth::Payloads
        };
        let mut index = SparseIndex::default();
        let (mut at, mut position) = (FRAMES_AT, base);
        while position < next {
            let problem = match window.group(at, position, depth) {
                Found::Group(frames) => {
                    for frame in &frames {
                        self.visit(frame)?;
                        if frame.header().count > 0 {
                            index.note(base, frame.header().base_position, frame.at());
                        }
                        at = frame.at() + frame.header().stored_bytes();
                        position = frame.header().end_position();
                    }
                    if seal.is_none() {
                        self.hash(&segment, &frames)?;
                    }
                    continue;
                }
                Found::Nothing => {
                    segment.damage(at, position, DamageKind::MissingFrames { expected: next })
                }
                Found::Bad(bad) => segment.damage(bad.byte, bad.position, bad.kind),
            };
            self.damage.push(problem);
            self.history = None;
            break;
        }
        let closed = Arc::new(ClosedSegment {
            segment,
            end: next,
            frames_end: at,
            index,
        });
        match seal {
            Some(seal) => self.history = self.history.take().map(|_| seal.history),
            None => {
                let history = self.history.clone();
                self.unsealed
                    .extend(history.map(|history| (Arc::clone(&closed), history)));
            }
        }
        self.closed.push(closed);
        Ok(())
    }

    /// Returns the segment's seal when it is there, sound, and of this segment.
    fn read_seal(&self, segment: &Segment, next: Position) -> Option<SealFile> {
        let path = seal_path(self.log_dir, segment.base());
        let seal = SealFile::decode(&self.disk.read(&path, SEAL_BYTES_MAX).ok()?).ok()?;
        let ours = seal.log_id == segment.header.log_id
            && seal.base_position == segment.base()
            && seal.history.position() == next;
        ours.then_some(seal)
    }

    fn read_last(
        &mut self,
        base: Position,
        vouched: Position,
    ) -> Result<LastSegment, StorageError> {
        let segment = self.open_segment(base)?;
        let (bytes, scan) = self.scan_last(&segment, vouched)?;
        let mut index = SparseIndex::default();
        for frame in &scan.frames {
            self.visit(frame)?;
            if frame.header().count > 0 {
                index.note(base, frame.header().base_position, frame.at());
            }
        }
        self.end = scan.end;
        Ok(LastSegment {
            segment,
            bytes,
            scan,
            index,
            vouched,
        })
    }

    /// Reads the last segment. Beside a writer an observer may see a write half done: what looks
    /// damaged must do so again and again.
    fn scan_last(
        &self,
        segment: &Segment,
        vouched: Position,
    ) -> Result<(Bytes, TailScan), StorageError> {
        let mut attempts = if self.mode == OpenMode::Read {
            OBSERVER_ATTEMPTS
        } else {
            1
        };
        loop {
            let bytes = read_bytes(segment, 0, segment.file.bytes()?)?;
            let window = Window {
                segment: &segment.header,
                start: 0,
                bytes: bytes.clone(),
            };
            let scan = scan_tail(&window, segment.base(), vouched);
            attempts -= 1;
            if attempts == 0 || !matches!(scan.verdict, TailVerdict::Corrupt(_)) {
                return Ok((bytes, scan));
            }
        }
    }

    /// Shows a frame to the visitor, unless something before it was damaged.
    fn visit(&mut self, frame: &FrameView) -> Result<(), StorageError> {
        self.last_time = self.last_time.max(frame.header().time);
        if frame.header().count == 0 || !self.damage.is_empty() {
            return Ok(());
        }
        self.visited = frame.header().end_position();
        (self.visitor)(frame).map_err(|source| StorageError::Replay {
            position: frame.header().base_position,
            source,
        })
    }

    fn refuse_damage(&self) -> Result<(), StorageError> {
        match self.damage.first() {
            Some(damage) => Err(StorageError::Corrupt(damage.clone())),
            None => Ok(()),
        }
    }

    /// Carries the history over frames of `segment`; an observer needs none.
    fn hash(&mut self, segment: &Segment, frames: &[FrameView]) -> Result<(), StorageError> {
        let Some(history) = self
            .history
            .as_mut()
            .filter(|_| self.mode == OpenMode::ReadWrite)
        else {
            return Ok(());
        };
        frames.iter().try_for_each(|frame| {
            history.push_frame(frame).map_err(|(byte, position, kind)| {
                StorageError::Corrupt(segment.damage(byte, position, kind))
            })
        })
    }

    /// Returns the history at the end of the log, hashing no more than what stands behind the newest
    /// checkpoint or seal.
    fn history_at_end(
        &mut self,
        scan: &TailScan,
        checkpoints: &CheckpointStore,
        segment: &Segment,
    ) -> Result<History, StorageError> {
        let sizes = checkpoints.sizes()?;
        let within = |size: &&Position| **size > segment.base() && **size <= scan.end;
        let newest = sizes.iter().rev().find(within);
        let state = newest.and_then(|&size| checkpoints.state(size));
        let state = state.filter(|state| fits(&state.0, scan));
        let mut skipped = Position::ZERO;
        if let Some(state) = state {
            skipped = state.size();
            self.history = Some(state.0);
        }
        let rest = scan.frames.partition_point(|frame| {
            frame.header().end_position() <= skipped && frame.header().base_position < skipped
        });
        self.hash(segment, scan.frames.get(rest..).unwrap_or_default())?;
        let history = self
            .history
            .take()
            .expect("a log without damage has a history");
        assert_eq!(history.position(), scan.end, "every record was hashed");
        Ok(history)
    }
}

/// Whether a state is that of the log at a border between two of its frames, or at its end.
fn fits(state: &History, scan: &TailScan) -> bool {
    let size = state.position();
    let at_border = scan
        .frames
        .iter()
        .rev()
        .find(|frame| frame.header().base_position == size);
    match at_border {
        Some(frame) => frame.header().chain_before == state.chain,
        None => scan.end == size,
    }
}

/// Writes everything above the durable watermark again and syncs it: after an unclean close the
/// page cache may show frames that the disk does not have, and a plain sync would skip them.
fn rewrite_unmarked(
    segment: &Segment,
    scan: &TailScan,
    window: &Window<'_>,
) -> Result<u64, StorageError> {
    let from = scan.unmarked_at();
    let bytes = scan.end_at - from;
    if bytes == 0 {
        return Ok(0);
    }
    let unmarked = window.from(from);
    let unmarked = unmarked.get(..usize::try_from(bytes).unwrap_or(usize::MAX));
    segment
        .file
        .write_all_at(&[unmarked.expect("the scan saw these bytes")], from)?;
    segment.file.sync_data()?;
    Ok(bytes)
}

fn segment_bases(disk: &dyn Disk, log_dir: &Path) -> Result<Vec<Position>, StorageError> {
    let entries = match disk.list(log_dir) {
        Ok(entries) => entries,
        Err(DiskError::NotFound { .. }) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut bases = entries
        .iter()
        .filter_map(|entry| base_of_name(&entry.name, ".seg"))
        .collect::<Vec<_>>();
    bases.sort_unstable();
    Ok(bases)
}

fn remove_temporary_files(disk: &dyn Disk, log_dir: &Path) -> Result<(), StorageError> {
    let entries = disk.list(log_dir)?;
    let temporary = entries
        .iter()
        .filter(|entry| entry.name.ends_with(TEMPORARY_ENDING));
    let paths = temporary
        .map(|entry| log_dir.join(&entry.name))
        .collect::<Vec<PathBuf>>();
    for path in &paths {
        disk.remove(path)?;
    }
    if paths.is_empty() {
        Ok(())
    } else {
        Ok(disk.sync_dir(log_dir)?)
    }
}
