//! Cutting a log off before a place that cannot be read, and keeping what is cut.
//!
//! Nothing is deleted: bytes of the segment that is cut are copied to `discarded/` first, segments
//! behind it and seals get the ending `.lost` in place. Order: 1. the copy is durable, 2. seals from
//! the cut on are set aside, 3. segments behind it, the last first, so that there is never a gap, 4.
//! zeros are written over what was copied, 5. segments that are too short or too long get their length
//! back, with a copy of what is too much first. A crash after any of these leaves a log that is damaged
//! at the same place or that ends there: the same repair goes on from it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use kimberlite_disk::{Disk, DiskError, OpenMode};
use kimberlite_types::Position;

use crate::damage::{Damage, DamageKind};
use crate::error::StorageError;
use crate::open::segment_bases;
use crate::options::ReadMode;
use crate::reader::read_bytes;
use crate::recovery::{CUT_ENDING, DISCARDED_DIR, KeptPlace, keep_tail};
use crate::scan::{Depth, Found, Window};
use crate::segment::{
    FRAMES_AT, SEAL_ENDING, SEGMENT_HEADER_BYTES, Segment, SegmentHeader, seal_path, segment_name,
    segment_path,
};

/// What files that were set aside end in.
const LOST_ENDING: &str = ".lost";

/// How much of what a segment has beyond its length is copied at a time, each to a file of its own.
const SURPLUS_BYTES: u64 = 64 << 20;

/// A file in which a recovery or a repair has kept what it took out of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAside {
    /// Where it is.
    pub path: PathBuf,
    /// Whether it may hold payloads: a seal holds none.
    pub may_hold_payloads: bool,
}

/// Lists the files in which recoveries and repairs have kept what they took out of a log.
///
/// # Errors
///
/// When a directory cannot be listed.
pub fn kept_aside(disk: &dyn Disk, tenant_dir: &Path) -> Result<Vec<KeptAside>, StorageError> {
    let log_dir = tenant_dir.join("log");
    let names = |directory: &Path| match disk.list(directory) {
        Err(DiskError::NotFound { .. }) => Ok(Vec::new()),
        entries => entries,
    };
    let lost = names(&log_dir)?.into_iter();
    let lost = lost.filter(|entry| entry.name.contains(LOST_ENDING));
    let mut kept: Vec<KeptAside> = lost
        .map(|entry| KeptAside {
            path: log_dir.join(&entry.name),
            may_hold_payloads: !entry.name.contains(SEAL_ENDING),
        })
        .collect();
    let discarded = log_dir.join(DISCARDED_DIR);
    kept.extend(names(&discarded)?.into_iter().map(|entry| KeptAside {
        path: discarded.join(entry.name),
        may_hold_payloads: true,
    }));
    Ok(kept)
}

/// Where a log would be cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogCut {
    /// The position at which it would end.
    pub position: Position,
    /// Position of the first record of the segment in which it would end.
    pub segment_base: Position,
    /// Byte of that segment.
    pub byte: u64,
    /// Bytes behind it that are not free space, up to the last that is not zero.
    pub bytes: u64,
    /// The segments behind it, which would be set aside whole.
    pub segments: Vec<Position>,
    /// How many records there were at least, as far as what is behind the cut can tell.
    pub known_end: Position,
}

impl LogCut {
    /// Finds the last place at or before `position` where a commit group ends that can be read, with
    /// all before it in its segment.
    ///
    /// # Errors
    ///
    /// [`StorageError::Corrupt`] when nothing can be kept.
    pub fn plan(
        disk: &dyn Disk,
        tenant_dir: &Path,
        position: Position,
    ) -> Result<Self, StorageError> {
        let log_dir = tenant_dir.join("log");
        let bases = segment_bases(disk, &log_dir)?;
        let mut kept = bases.iter().filter(|base| **base < position);
        let base = *kept.next_back().ok_or_else(|| {
            StorageError::Corrupt(Damage {
                segment: segment_name(Position::ZERO),
                byte: 0,
                position: Position::ZERO,
                kind: DamageKind::MissingSegment,
            })
        })?;
        let (segment, bytes) = open_segment(disk, &log_dir, base)?;
        let window = Window {
            segment: &segment.header,
            start: 0,
            bytes,
        };
        let (mut byte, mut end) = (FRAMES_AT, base);
        while let Found::Group(frames) = window.group(byte, end, Depth::Payloads) {
            let last = frames.last().expect("a group has a frame");
            if last.header().end_position() > position {
                break;
            }
            byte = last.at() + last.header().stored_bytes();
            end = last.header().end_position();
        }
        let segments = bases.into_iter().filter(|&behind| behind > base);
        let segments = segments.collect::<Vec<_>>();
        let mut known_end = segments.last().copied().unwrap_or(end).max(end);
        let mut at = byte;
        while let Some((frame_at, header)) = window.next_frame_header(at) {
            known_end = known_end.max(header.end_position());
            at = frame_at + 1;
        }
        Ok(Self {
            position: end,
            segment_base: base,
            byte,
            bytes: window.written_end(byte) - byte,
            segments,
            known_end,
        })
    }

    /// Cuts the log. To be called with the lock of its database held, and again after a crash.
    ///
    /// # Errors
    ///
    /// [`StorageError::Disk`] when the disk refuses; the cut can be made again.
    pub fn make(&self, disk: &dyn Disk, tenant_dir: &Path) -> Result<(), StorageError> {
        let log_dir = tenant_dir.join("log");
        let (segment, bytes) = open_segment(disk, &log_dir, self.segment_base)?;
        let start = usize::try_from(self.byte).unwrap_or(usize::MAX);
        let tail = bytes.get(start..).unwrap_or_default();
        let tail = tail.get(..usize::try_from(self.bytes).unwrap_or(usize::MAX));
        let tail = tail.unwrap_or_default();
        if !tail.is_empty() {
            keep_tail(disk, &log_dir, &segment, self.kept_from(self.byte), tail)?;
        }
        for base in self.segments.iter().rev() {
            set_aside(disk, &seal_path(&log_dir, *base))?;
        }
        set_aside(disk, &seal_path(&log_dir, self.segment_base))?;
        for base in self.segments.iter().rev() {
            set_aside(disk, &segment_path(&log_dir, *base))?;
        }
        if !tail.is_empty() {
            segment.file.zero(self.byte..self.byte + self.bytes)?;
            segment.file.sync_data()?;
        }
        self.mend_lengths(disk, &log_dir)
    }

    /// Gives segments the length that they were made with: what one lacks is free space, what it has
    /// beyond is no part of the log.
    fn mend_lengths(&self, disk: &dyn Disk, log_dir: &Path) -> Result<(), StorageError> {
        for base in segment_bases(disk, log_dir)? {
            let (segment, found) = open_segment_header(disk, log_dir, base)?;
            let expected = segment.header.segment_bytes;
            if found == expected {
                continue;
            }
            let mut at = expected;
            while at < found {
                let bytes = (found - at).min(SURPLUS_BYTES);
                let surplus = read_bytes(&segment, at, bytes)?;
                if surplus.iter().any(|&byte| byte != 0) {
                    keep_tail(disk, log_dir, &segment, self.kept_from(at), &surplus)?;
                }
                at += bytes;
            }
            if found < expected {
                segment.file.allocate(found..expected)?;
            } else {
                segment.file.set_bytes(expected)?;
            }
            segment.file.sync_all()?;
        }
        Ok(())
    }

    fn kept_from(&self, byte: u64) -> KeptPlace {
        KeptPlace {
            end: self.position,
            byte,
            ending: CUT_ENDING,
        }
    }
}

/// Gives a file of a tenant, if it is there, a name under which it is kept and no longer counts.
///
/// # Errors
///
/// [`StorageError::Disk`] when the disk refuses.
pub fn set_aside(disk: &dyn Disk, path: &Path) -> Result<(), StorageError> {
    if !disk.exists(path)? {
        return Ok(());
    }
    let named = |ending: &str| {
        let mut name = path.as_os_str().to_os_string();
        name.push(ending);
        PathBuf::from(name)
    };
    let mut kept = named(LOST_ENDING);
    let mut count = 1;
    while disk.exists(&kept)? {
        kept = named(&format!("{LOST_ENDING}-{count}"));
        count += 1;
    }
    disk.rename(path, &kept)?;
    if let Some(directory) = path.parent() {
        disk.sync_dir(directory)?;
    }
    Ok(())
}

fn open_segment_header(
    disk: &dyn Disk,
    log_dir: &Path,
    base: Position,
) -> Result<(Segment, u64), StorageError> {
    let path = segment_path(log_dir, base);
    let file = disk.open(&path, OpenMode::ReadWrite)?;
    let mut page = [0; SEGMENT_HEADER_BYTES];
    let corrupt = |kind| {
        StorageError::Corrupt(Damage {
            segment: segment_name(base),
            byte: 0,
            position: base,
            kind,
        })
    };
    match file.read_exact_at(&mut page, 0) {
        Err(DiskError::ShortRead { .. }) => {
            let short = crate::segment::SegmentHeaderError::Short;
            return Err(corrupt(DamageKind::SegmentHeader(short)));
        }
        read => read?,
    }
    let header = SegmentHeader::decode(&page);
    let header = header.map_err(|error| corrupt(DamageKind::SegmentHeader(error)))?;
    let bytes = file.bytes()?;
    Ok((
        Segment::new(header, Arc::clone(&file), ReadMode::Copied),
        bytes,
    ))
}

fn open_segment(
    disk: &dyn Disk,
    log_dir: &Path,
    base: Position,
) -> Result<(Segment, Bytes), StorageError> {
    let (segment, file_bytes) = open_segment_header(disk, log_dir, base)?;
    let bytes = read_bytes(&segment, 0, file_bytes.min(segment.header.segment_bytes))?;
    Ok((segment, bytes))
}
