//! Opening a log: every segment is read in order, its frames are shown to a visitor, and the last
//! one is recovered. With a snapshot, what stands before it is neither read nor shown.
//!
//! A writer opens only a log without damage: it truncates nothing but a torn tail. An observer opens
//! what can be read, changes nothing, and reports the damage.

mod base;
mod closed;
mod held;
mod not_begun;
mod opening;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kimberlite_crypto::chain_seed;
use kimberlite_disk::{Disk, DiskError, Entry, OpenMode};
use kimberlite_types::{LogId, Position, Timestamp};

use self::held::Held;
use self::opening::{LastSegment, Opening};
use crate::checkpoint::Witness;
use crate::damage::Damage;
use crate::error::StorageError;
use crate::frame::{FramePlacement, FrameSite, FrameView, StoredRecord, UnplacedFrame};
use crate::history::History;
use crate::options::{LogOptions, SegmentSpace};
use crate::prepare::{Blank, Jobs, NEXT_NAME, Preparation, TEMPORARY_ENDING};
use crate::reader::{ActiveMap, LogReader, Shared, View, walk_file};
use crate::recovery::{TailDiscarded, TailScan, TailVerdict, TornTail, discard_torn};
use crate::scan::Window;
use crate::segment::{
    ClosedFiles, ClosedSegment, FRAMES_AT, Floor, Segment, SegmentHeader, SparseIndex,
    base_of_name, next_segment_bytes, segment_path,
};
use crate::sync_stage::{Settled, SyncStage};
use crate::tail::Tail;
use crate::writer::LogWriter;

/// Sees every frame of a log in order, watermarks excepted. It keeps no slice of a frame.
pub type Visitor<'a> =
    dyn FnMut(&FrameView) -> Result<(), Box<dyn std::error::Error + Send + Sync>> + 'a;

/// What was found when a log was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// An unfinished write that was cut off the end: now, or by an earlier opening since which
    /// nothing was appended.
    pub tail_discarded: Option<TailDiscarded>,
    /// An unfinished write at the end that a writer would cut off; for observers only.
    pub tail_torn: Option<TornTail>,
    /// What is damaged; always empty for a writer, which refuses to open such a log.
    pub damage: Vec<Damage>,
    /// The log ends before this many records, for which a checkpoint vouches; for observers only.
    pub rolled_back: Option<Position>,
    /// The opening began at the snapshot of so many records, and has read none before.
    pub snapshot: Option<Position>,
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
    genesis: (UnplacedFrame, FramePlacement),
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
        options.segment_space,
    )?;
    blank
        .fill(header, &frame.bytes)?
        .name(disk.as_ref(), &log_dir, options.read_mode)?;
    Ok(())
}

/// Whether a tenant's directory holds a log.
///
/// # Errors
///
/// [`StorageError::FirstSegmentMissing`] when it holds only the rest of one.
pub fn log_exists(disk: &dyn Disk, tenant_dir: &Path) -> Result<bool, StorageError> {
    let segments = segment_files(disk, &tenant_dir.join("log"))?;
    let checkpoint = disk.exists(&tenant_dir.join("checkpoint"))?;
    match segments.first() {
        Some(&(Position::ZERO, _)) => Ok(true),
        None if !checkpoint => Ok(false),
        _ => Err(StorageError::FirstSegmentMissing),
    }
}

/// Reads the first record of a log, by which its owner knows it before anything else is done.
///
/// # Errors
///
/// [`StorageError::Corrupt`] when it cannot be read, [`StorageError::FirstSegmentMissing`] when
/// there is none.
pub fn first_record(disk: &Arc<dyn Disk>, tenant_dir: &Path) -> Result<StoredRecord, StorageError> {
    let log_dir = tenant_dir.join("log");
    if !disk.exists(&segment_path(&log_dir, Position::ZERO))? {
        return Err(StorageError::FirstSegmentMissing);
    }
    let mut ignore = |_: &FrameView| Ok(());
    let mut opening = Opening::new(disk, &log_dir, OpenMode::Read, &mut ignore);
    let segment = opening.open_segment(Position::ZERO)?;
    let (first, end) = (Floor::at(FRAMES_AT), segment.header.segment_bytes);
    let frame = walk_file(&segment, first, end, Position::ZERO)?;
    frame.record(Position::ZERO).map_err(StorageError::Corrupt)
}

/// Opens a log for appending.
///
/// # Errors
///
/// [`StorageError::Corrupt`] and [`StorageError::RolledBack`] when the log is not what was written;
/// nothing was changed then. [`StorageError::Replay`] when the visitor refuses a frame.
/// [`StorageError::SnapshotUnfit`] when the log is not the one that the witness's base speaks of;
/// any error of an opening that begins at a base may be another one without.
pub fn open_writer(
    disk: &Arc<dyn Disk>,
    tenant_dir: &Path,
    options: LogOptions,
    witness: &Witness,
    visitor: &mut Visitor<'_>,
) -> Result<(LogWriter, OpenReport), StorageError> {
    let log_dir = tenant_dir.join("log");
    remove_temporary_files(disk.as_ref(), &log_dir)?;
    let mut opening = Opening::new(disk, &log_dir, OpenMode::ReadWrite, visitor);
    opening.index_stride_bytes = options.index_stride_bytes;
    opening.read_mode = options.read_mode;
    opening.witness(witness);
    let last = opening.read_segments(witness)?;
    opening.refuse_damage()?;
    last.refuse_damage()?;
    let history = opening.history_at_end(&last.scan, &last.segment)?;
    // Up to here nothing was changed.
    let LastSegment {
        mut segment,
        begun,
        bytes,
        mut scan,
        index,
        held,
        ..
    } = last;
    if !begun && !options.entropy.fill(&mut segment.header.salt) {
        return Err(StorageError::Entropy);
    }
    let window = Window {
        segment: &segment.header,
        start: 0,
        bytes,
    };
    let (torn, unmarked) = (
        scan.torn_bytes(&window),
        Unmarked::of(&segment, &scan, &window),
    );
    scan.frames.clear();
    drop(window);
    held.into_iter().for_each(Held::let_go);
    let files = disk.as_ref();
    let tail_discarded = discard_torn(files, &log_dir, &segment, &scan, &torn)?;
    let (rewritten, rewritten_bytes) = rewrite_unmarked(files, &log_dir, &segment, &unmarked)?;
    let report = OpenReport {
        tail_discarded,
        rewritten_bytes,
        snapshot: witness.base.as_ref().map(|base| base.position),
        ..OpenReport::default()
    };
    let unsealed = std::mem::take(&mut opening.unsealed);
    let recovered = Recovered {
        active: rewritten.unwrap_or(segment),
        closed: std::mem::take(&mut opening.closed),
        index,
        history,
        write_at: scan.end_at,
        marked: scan.marked,
        last_time: opening.last_time,
    };
    drop(opening);
    let writer = recovered.begin(disk, log_dir, options)?;
    for (closed, history) in unsealed {
        writer.seal(closed, history);
    }
    Ok((writer, report))
}

/// A log that is whole and durable up to its end, where a writer can go on.
struct Recovered {
    active: Segment,
    closed: Vec<Arc<ClosedSegment>>,
    index: SparseIndex,
    history: History,
    write_at: u64,
    marked: Position,
    last_time: Timestamp,
}

impl Recovered {
    fn begin(
        self,
        disk: &Arc<dyn Disk>,
        log_dir: PathBuf,
        options: LogOptions,
    ) -> Result<LogWriter, DiskError> {
        let (active, end) = (Arc::new(self.active), self.history.position());
        let mode = options.write_mode();
        let appender = active.appender(disk.as_ref(), &log_dir, self.write_at, mode)?;
        let appender = Arc::new(appender);
        let view = View {
            closed: self.closed,
            active: Arc::clone(&active),
            active_map: ActiveMap::beside(&appender, options.read_mode),
            index: self.index,
            active_end: self.write_at,
            tail: Tail::new(options.tail_bytes_max, &options.budget),
            end,
            durable: end,
        };
        let files = closed_files(disk, &log_dir, active.header.log_id, &options);
        let shared = Shared::new(files, Arc::clone(&options.budget), view);
        let delay = options.sync_delay;
        let stage = SyncStage::new(Arc::clone(&shared), Arc::clone(&appender), end, delay);
        let jobs = Arc::new(Jobs::default());
        let stage = Arc::new(stage);
        let beside = options.background.is_thread().then(|| Arc::clone(&stage));
        let (files, counted) = (Arc::clone(disk), Arc::clone(&jobs));
        let preparation = Preparation::new(files, log_dir, &options, counted, beside);
        Ok(LogWriter {
            shared,
            disk: Arc::clone(disk),
            options,
            active,
            appender,
            history: self.history,
            write_at: self.write_at,
            marked: self.marked,
            last_time: self.last_time,
            preparation,
            stage,
            unsynced_bytes: 0,
            jobs,
            unsealed: None,
            settled: Settled::default(),
        })
    }
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
    witness: &Witness,
    visitor: &mut Visitor<'_>,
) -> Result<(LogReader, OpenReport), StorageError> {
    let log_dir = tenant_dir.join("log");
    let mut opening = Opening::new(disk, &log_dir, OpenMode::Read, visitor);
    opening.index_stride_bytes = options.index_stride_bytes;
    opening.read_mode = options.read_mode;
    let last = opening.read_segments(witness)?;
    let mut report = OpenReport {
        damage: opening.damage,
        snapshot: witness.base.as_ref().map(|base| base.position),
        ..OpenReport::default()
    };
    match last.scan.verdict {
        TailVerdict::Clean => {}
        TailVerdict::Torn { written_end } => {
            report.tail_torn = Some(last.scan.torn(last.segment.base(), written_end));
        }
        TailVerdict::Corrupt(damage) => report.damage.push(damage),
        TailVerdict::RolledBack => report.rolled_back = Some(last.vouched),
    }
    let active = Arc::new(last.segment);
    let log_id = active.header.log_id;
    let view = View {
        closed: opening.closed,
        active,
        // Somebody else may be writing to it.
        active_map: None,
        index: last.index,
        active_end: last.scan.end_at,
        tail: Tail::new(options.tail_bytes_max, &options.budget),
        end: opening.visited,
        durable: opening.visited,
    };
    let files = closed_files(disk, &log_dir, log_id, options);
    let shared = Shared::new(files, Arc::clone(&options.budget), view);
    Ok((LogReader { shared }, report))
}

fn closed_files(
    disk: &Arc<dyn Disk>,
    log_dir: &Path,
    log_id: LogId,
    options: &LogOptions,
) -> Arc<ClosedFiles> {
    Arc::new(ClosedFiles {
        disk: Arc::clone(disk),
        log_dir: log_dir.to_path_buf(),
        log_id,
        index_stride_bytes: options.index_stride_bytes,
        read_mode: options.read_mode,
    })
}

/// Frames of the last segment that the disk may lack.
struct Unmarked {
    /// Byte at which they begin.
    from: u64,
    bytes: Vec<u8>,
    /// Whether even the segment's header page and its name may be known to the page cache alone: they
    /// become durable with its first frames.
    name: bool,
}

impl Unmarked {
    fn of(segment: &Segment, scan: &TailScan, window: &Window<'_>) -> Self {
        let from = scan.unmarked_at();
        let bytes = usize::try_from(scan.end_at - from).unwrap_or(usize::MAX);
        let bytes = window.from(from).get(..bytes);
        Self {
            from,
            bytes: bytes.expect("the scan saw these bytes").to_vec(),
            name: scan.marked == segment.base(),
        }
    }
}

/// Writes everything above the durable watermark again and syncs it: after an unclean close the
/// page cache may show frames that the disk does not have, and a plain sync would skip them.
///
/// Where even the segment's name may be known to the page cache alone, all of it is written again,
/// and returned.
fn rewrite_unmarked(
    disk: &dyn Disk,
    log_dir: &Path,
    segment: &Segment,
    unmarked: &Unmarked,
) -> Result<(Option<Segment>, u64), StorageError> {
    let Unmarked { from, bytes, name } = unmarked;
    let count = u64::try_from(bytes.len()).expect("memory is smaller than 2^64 bytes");
    if *name {
        assert_eq!(*from, FRAMES_AT, "nothing in the segment is marked");
        let path = log_dir.join(NEXT_NAME);
        let space = SegmentSpace::Written;
        let blank = Blank::make(disk, path, segment.header.segment_bytes, space)?;
        let unnamed = blank.fill(segment.header, bytes)?;
        let named = unnamed.name(disk, log_dir, segment.read_mode())?;
        return Ok((Some(named), count));
    }
    if count > 0 {
        segment.file.write_all_at(&[bytes], *from)?;
        segment.file.sync_data()?;
    }
    Ok((None, count))
}

/// Lists the segments in order: their base positions, and the bytes of their files.
pub(crate) fn segment_files(
    disk: &dyn Disk,
    log_dir: &Path,
) -> Result<Vec<(Position, u64)>, StorageError> {
    let entries = match disk.list(log_dir) {
        Ok(entries) => entries,
        Err(DiskError::NotFound { .. }) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let segment = |entry: &Entry| Some((base_of_name(&entry.name, ".seg")?, entry.bytes));
    let mut segments = entries.iter().filter_map(segment).collect::<Vec<_>>();
    segments.sort_unstable();
    Ok(segments)
}

/// Lists the base positions of the segments in order.
pub(crate) fn segment_bases(
    disk: &dyn Disk,
    log_dir: &Path,
) -> Result<Vec<Position>, StorageError> {
    let files = segment_files(disk, log_dir)?;
    Ok(files.into_iter().map(|(base, _)| base).collect())
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
