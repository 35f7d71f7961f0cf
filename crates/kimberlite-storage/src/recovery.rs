//! Where the last segment ends, and what a bad end means.
//!
//! The first bad group, at position *b*, is **torn** only when both hold:
//!
//! * *b* is at or above every durable watermark known: the durable position in any valid frame
//!   before or behind it, the segment's own base, and what checkpoints vouch for;
//! * it looks torn: space reads as zeros, so a lost sector is all zeros.
//!
//! Anything else is **damage** to what was durable or once whole, and is never cut away. A log that
//! ends cleanly, but before what a checkpoint vouches for, was **rolled back**.

use std::path::{Path, PathBuf};

use kimberlite_disk::{Access, Disk, DiskError, Entry};
use kimberlite_types::Position;

use crate::damage::{Damage, DamageKind};
use crate::error::StorageError;
use crate::frame::{FRAME_HEADER_BYTES, FrameView};
use crate::scan::{BadGroup, Depth, Found, Window};
use crate::segment::{FRAMES_AT, Segment, segment_name};

/// The last segment, read to its end.
#[derive(Debug)]
pub(crate) struct TailScan {
    /// All frames of whole groups, watermarks too.
    pub(crate) frames: Vec<FrameView>,
    /// Byte after them.
    pub(crate) end_at: u64,
    /// Position after their last record.
    pub(crate) end: Position,
    /// Everything below it was synced, by the word of the frames themselves.
    pub(crate) marked: Position,
    pub(crate) verdict: TailVerdict,
}

/// What stands behind the last whole group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TailVerdict {
    /// Zeros.
    Clean,
    /// An unfinished write, up to this byte.
    Torn { written_end: u64 },
    /// Something that was durable is damaged.
    Corrupt(Damage),
    /// Nothing, where a checkpoint vouches for more.
    RolledBack,
}

/// What was cut off the end of a log when it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailDiscarded {
    /// The position at which the log ends instead.
    pub position: Position,
    /// The segment that was cut.
    pub segment: String,
    /// Position of the segment's first record, by which it is named.
    pub segment_base: Position,
    /// Byte of the segment at which the unfinished write begins.
    pub byte: u64,
    /// How many bytes it has.
    pub bytes: u64,
    /// The file that holds a copy of those bytes.
    pub kept_in: PathBuf,
}

/// An unfinished write at the end of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The position at which the log ends before it.
    pub position: Position,
    /// The segment that it is in.
    pub segment: String,
    /// Byte of the segment at which it begins.
    pub byte: u64,
    /// How many bytes it has.
    pub bytes: u64,
}

/// Reads the last segment, whose first record must have position `base`; `vouched` is the number
/// of records that checkpoints vouch for.
pub(crate) fn scan_tail(window: &Window<'_>, base: Position, vouched: Position) -> TailScan {
    let mut scan = TailScan {
        frames: Vec::new(),
        end_at: FRAMES_AT,
        end: base,
        marked: base,
        verdict: TailVerdict::Clean,
    };
    let bad = loop {
        match window.group(scan.end_at, scan.end, Depth::Payloads) {
            Found::Group(frames) => scan.take(frames),
            Found::Nothing => break nothing(window, &scan),
            Found::Bad(bad) => break Some(bad),
        }
    };
    scan.verdict = match bad {
        None if scan.end < vouched => TailVerdict::RolledBack,
        None => TailVerdict::Clean,
        Some(bad) => judge(window, &scan, bad, vouched),
    };
    scan
}

impl TailScan {
    /// A scan that found an end without reading up to it.
    pub(crate) fn ending(end: Position, end_at: u64) -> Self {
        Self {
            frames: Vec::new(),
            end_at,
            end,
            marked: end,
            verdict: TailVerdict::Clean,
        }
    }

    /// Returns the end that was found torn in the segment at `base`.
    pub(crate) fn torn(&self, base: Position, written_end: u64) -> TornTail {
        TornTail {
            position: self.end,
            segment: segment_name(base),
            byte: self.end_at,
            bytes: written_end - self.end_at,
        }
    }

    fn take(&mut self, frames: Vec<FrameView>) {
        for frame in frames {
            let header = frame.header();
            debug_assert_eq!(header.base_position, self.end);
            self.marked = self.marked.max(header.durable_position);
            self.end = header.end_position();
            self.end_at = frame.at() + header.stored_bytes();
            self.frames.push(frame);
        }
    }

    /// Returns a copy of the bytes of a torn tail; nothing where there is none.
    pub(crate) fn torn_bytes(&self, window: &Window<'_>) -> Vec<u8> {
        let TailVerdict::Torn { written_end } = self.verdict else {
            return Vec::new();
        };
        let bytes = usize::try_from(written_end - self.end_at).unwrap_or(usize::MAX);
        let torn = window.from(self.end_at);
        torn.get(..bytes).unwrap_or(torn).to_vec()
    }

    /// Returns the byte from which on the disk may lack what the page cache shows.
    pub(crate) fn unmarked_at(&self) -> u64 {
        let marked = |frame: &FrameView| {
            let header = frame.header();
            header.count > 0 && header.end_position() <= self.marked
        };
        match self.frames.iter().rev().find(|frame| marked(frame)) {
            Some(frame) => frame.at() + frame.header().stored_bytes(),
            None => FRAMES_AT,
        }
    }
}

/// Zeros where a frame may begin are the end of the log, unless something stands behind them.
fn nothing(window: &Window<'_>, scan: &TailScan) -> Option<BadGroup> {
    (window.written_end(scan.end_at) > scan.end_at).then(|| BadGroup {
        byte: scan.end_at,
        position: scan.end,
        kind: DamageKind::TrailingBytes,
        frame_at: scan.end_at,
        piece: scan.end_at..scan.end_at + FRAME_HEADER_BYTES as u64,
    })
}

fn judge(window: &Window<'_>, scan: &TailScan, bad: BadGroup, vouched: Position) -> TailVerdict {
    let mut watermark = scan.marked.max(vouched);
    let mut at = bad.byte + 1;
    while let Some((frame_at, header)) = window.next_frame_header(at) {
        watermark = watermark.max(header.durable_position);
        at = frame_at + 1;
    }
    let above_watermark = scan.end >= watermark;
    if above_watermark && window.looks_torn(&bad) {
        return TailVerdict::Torn {
            written_end: window.written_end(scan.end_at),
        };
    }
    TailVerdict::Corrupt(Damage {
        segment: segment_name(window.segment.base_position),
        byte: bad.byte,
        position: bad.position,
        kind: bad.kind,
    })
}

/// The directory, beside the segments, of the tails that were cut off.
pub(crate) const DISCARDED_DIR: &str = "discarded";

/// Returns a name for a tail that no earlier one has: what is kept is never replaced.
fn free_tail_path(
    disk: &dyn Disk,
    kept_dir: &Path,
    segment: &Segment,
    place: KeptPlace,
) -> Result<PathBuf, StorageError> {
    let KeptPlace { end, byte, ending } = place;
    let (end, base) = (end.get(), segment.base().get());
    let name = format!("{end:020}-{base:020}-{byte}");
    let mut path = kept_dir.join(format!("{name}{ending}"));
    let mut count = 1;
    while disk.exists(&path)? {
        path = kept_dir.join(format!("{name}-{count}{ending}"));
        count += 1;
    }
    Ok(path)
}

/// What copies of torn ends end in.
const TAIL_ENDING: &str = ".tail";

/// What copies of bytes that a repair cut off end in: no torn end, and told of by another record.
pub(crate) const CUT_ENDING: &str = ".cut";

/// Where bytes stood of which a copy is kept.
#[derive(Clone, Copy)]
pub(crate) struct KeptPlace {
    /// Where the log ends without them.
    pub(crate) end: Position,
    /// Byte of the segment.
    pub(crate) byte: u64,
    pub(crate) ending: &'static str,
}

/// Keeps a copy of what is about to be cut off a segment.
pub(crate) fn keep_tail(
    disk: &dyn Disk,
    log_dir: &Path,
    segment: &Segment,
    place: KeptPlace,
    tail: &[u8],
) -> Result<(), StorageError> {
    let kept_dir = log_dir.join(DISCARDED_DIR);
    let kept_in = free_tail_path(disk, &kept_dir, segment, place)?;
    disk.create_dir_all(&kept_dir)?;
    Ok(disk.write_new_atomic(&kept_in, tail, Access::Private)?)
}

/// Finds the tail that was cut off where the log still ends: nothing was appended since, so that
/// nothing in the log tells of it yet.
fn discarded_at(
    disk: &dyn Disk,
    log_dir: &Path,
    end: Position,
) -> Result<Option<TailDiscarded>, StorageError> {
    let kept_dir = log_dir.join(DISCARDED_DIR);
    let entries = match disk.list(&kept_dir) {
        Err(DiskError::NotFound { .. }) => return Ok(None),
        entries => entries?,
    };
    let of_here = |entry: &Entry| -> Option<(Position, u64)> {
        let mut parts = entry.name.strip_suffix(TAIL_ENDING)?.split('-');
        let mut number = || parts.next()?.parse().ok();
        let (position, base, byte) = (number()?, number()?, number()?);
        (position == end.get()).then_some((Position::new(base), byte))
    };
    // The first of several has the most of it: the others were cut while it was being zeroed.
    Ok(entries.iter().rev().find_map(|entry| {
        let (segment_base, byte) = of_here(entry)?;
        Some(TailDiscarded {
            position: end,
            segment: segment_name(segment_base),
            segment_base,
            byte,
            bytes: entry.bytes,
            kept_in: kept_dir.join(&entry.name),
        })
    }))
}

/// Makes a torn tail, if that is the verdict, whose bytes are `torn`, into free space again: 1. a
/// copy of its bytes is durable in a file of its own, 2. zeros are written over it, 3. synced. A
/// crash after 1 or in 2 leaves a tail that is torn or gone, never one that is taken for records.
///
/// Returns what was cut off, also by an earlier opening that did not get far enough to record it. There
/// the zeros are written once more: when their sync failed, the page cache shows them where the disk may
/// have what was cut off.
pub(crate) fn discard_torn(
    disk: &dyn Disk,
    log_dir: &Path,
    segment: &Segment,
    scan: &TailScan,
    torn: &[u8],
) -> Result<Option<TailDiscarded>, StorageError> {
    let mut zeros_end = scan.end_at;
    if let TailVerdict::Torn { written_end } = scan.verdict {
        let place = KeptPlace {
            end: scan.end,
            byte: scan.end_at,
            ending: TAIL_ENDING,
        };
        keep_tail(disk, log_dir, segment, place, torn)?;
        zeros_end = written_end;
    }
    let tail = discarded_at(disk, log_dir, scan.end)?;
    if let Some(tail) = &tail
        && tail.segment_base == segment.base()
    {
        let end = tail.byte.saturating_add(tail.bytes);
        zeros_end = zeros_end.max(end.min(segment.header.segment_bytes));
    }
    if scan.end_at < zeros_end {
        segment.file.zero(scan.end_at..zeros_end)?;
        segment.file.sync_data()?;
    }
    if let TailVerdict::Torn { written_end } = scan.verdict {
        tracing::warn!(
            segment = segment_name(segment.base()),
            byte = scan.end_at,
            bytes = written_end - scan.end_at,
            position = scan.end.get(),
            "discarded an unfinished write at the end of the log"
        );
    }
    Ok(tail)
}
