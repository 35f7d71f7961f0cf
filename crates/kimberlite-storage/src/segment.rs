//! One log file: a header page, then frames, then space that reads as zeros.
//!
//! A segment is *active* while frames are appended, *closed* once the next one exists, and *sealed*
//! once its seal file (see [`crate::SealFile`]) is on disk. Files are named by their base position.
//! Sizes grow four-fold from 256 KiB to 64 MiB; a commit group that is larger gets a segment of its
//! own. A file gets its name only after its space is durable; header page and name become durable with
//! the first frames, and nothing in the segment counts before (the first segment appears whole).

mod closed;
mod header;
mod index;
mod seal;

pub use closed::ClosedExtent;
pub(crate) use closed::{ClosedFiles, ClosedSegment, OpenedSegment, read_header, segment_damage};
pub use header::{SEGMENT_HEADER_BYTES, SegmentHeader, SegmentHeaderError, SegmentSeed};
pub(crate) use index::{Floor, INDEX_STRIDE_BYTES, SparseIndex};
pub use seal::{SealError, SealFile};

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use kimberlite_disk::{Appender, Disk, DiskError, DiskFile, WriteMode};
use kimberlite_types::{LogId, Position, limits};

use crate::damage::{Damage, DamageKind};
use crate::frame::FRAME_HEADER_BYTES;
use crate::options::ReadMode;
use crate::reader::read_bytes;

/// Bytes of the first segment of a log.
pub(crate) const SEGMENT_BYTES_MIN: u64 = 256 << 10;

/// Bytes to which segments grow.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 64 << 20;

/// Bytes of the largest segment: one that was made for a group at its limit.
pub(crate) const SEGMENT_BYTES_LIMIT: u64 = bytes_for_group(limits::GROUP_BYTES_MAX as u64);

const _: () = assert!(SEGMENT_BYTES_MAX <= SEGMENT_BYTES_LIMIT);

/// How much larger the next segment is.
const SEGMENT_GROWTH: u64 = 4;

/// The first frame stands behind the header page.
pub(crate) const FRAMES_AT: u64 = SEGMENT_HEADER_BYTES as u64;

/// Returns the size of the segment after one of `previous` bytes that must hold a group of
/// `group_bytes`.
pub(crate) fn next_segment_bytes(previous: Option<u64>, group_bytes: u64) -> u64 {
    let grown = match previous {
        None => SEGMENT_BYTES_MIN,
        Some(bytes) => (bytes * SEGMENT_GROWTH).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX),
    };
    grown.max(bytes_for_group(group_bytes))
}

/// Returns the size of a segment that has room for one group, and for the watermark behind it.
const fn bytes_for_group(group_bytes: u64) -> u64 {
    (FRAMES_AT + group_bytes + FRAME_HEADER_BYTES as u64)
        .next_multiple_of(SEGMENT_HEADER_BYTES as u64)
}

/// Returns the file name of the segment that begins at `base`.
pub(crate) fn segment_name(base: Position) -> String {
    format!("{:020}.seg", base.get())
}

/// Returns the path of the segment that begins at `base`.
pub(crate) fn segment_path(log_dir: &Path, base: Position) -> PathBuf {
    log_dir.join(segment_name(base))
}

/// What the names of seals end in.
pub(crate) const SEAL_ENDING: &str = ".seal";

/// Returns the path of the seal of the segment that begins at `base`.
pub(crate) fn seal_path(log_dir: &Path, base: Position) -> PathBuf {
    log_dir.join(format!("{:020}{SEAL_ENDING}", base.get()))
}

/// Reads the base position from a file name with this ending.
pub(crate) fn base_of_name(name: &str, ending: &str) -> Option<Position> {
    let digits = name.strip_suffix(ending)?;
    let canonical = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    canonical
        .then(|| digits.parse().ok().map(Position::new))
        .flatten()
}

/// A segment that is open for reading, whatever its state.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    pub(crate) file: Arc<dyn DiskFile>,
    read_mode: ReadMode,
    map: OnceLock<Bytes>,
}

impl Segment {
    pub(crate) fn new(header: SegmentHeader, file: Arc<dyn DiskFile>, read_mode: ReadMode) -> Self {
        Self {
            header,
            file,
            read_mode,
            map: OnceLock::new(),
        }
    }

    /// Returns the position of the first record.
    pub(crate) fn base(&self) -> Position {
        self.header.base_position
    }

    /// Returns of which log it is, and where in it.
    pub(crate) fn place(&self) -> (LogId, Position) {
        (self.header.log_id, self.header.base_position)
    }

    pub(crate) fn read_mode(&self) -> ReadMode {
        self.read_mode
    }

    /// Returns the segment as a reader of the same file.
    pub(crate) fn reopened(&self) -> Self {
        Self::new(self.header, Arc::clone(&self.file), self.read_mode)
    }

    /// Returns the whole of a segment that is no longer written: a mapping that is made once, or a
    /// copy for the caller alone.
    pub(crate) fn whole(&self) -> Result<Bytes, DiskError> {
        match self.read_mode {
            ReadMode::Mapped => self.mapped().cloned(),
            ReadMode::Copied => read_bytes(self, 0, self.whole_bytes()?),
        }
    }

    /// Returns the whole of a segment that is no longer written, as a mapping that is made once.
    pub(crate) fn mapped(&self) -> Result<&Bytes, DiskError> {
        debug_assert!(self.read_mode == ReadMode::Mapped);
        if let Some(map) = self.map.get() {
            return Ok(map);
        }
        let map = self.file.map(self.whole_bytes()?)?;
        Ok(self.map.get_or_init(|| map))
    }

    /// Returns the mapping, if there is one already.
    pub(crate) fn map_made(&self) -> Option<&Bytes> {
        self.map.get()
    }

    /// What a file has beyond its size is told by its size, and not read.
    fn whole_bytes(&self) -> Result<u64, DiskError> {
        Ok(self.file.bytes()?.min(self.header.segment_bytes))
    }

    /// Returns what appends to the segment from byte `at` on, where free space begins.
    pub(crate) fn appender(
        &self,
        disk: &dyn Disk,
        log_dir: &Path,
        at: u64,
        mode: WriteMode,
    ) -> Result<Appender, DiskError> {
        let path = segment_path(log_dir, self.base());
        Appender::open(disk, Arc::clone(&self.file), &path, at, mode)
    }

    pub(crate) fn seed(&self) -> SegmentSeed {
        self.header.seed()
    }

    /// Returns the damage of a file that does not have the size it was made with.
    pub(crate) fn size_damage(&self) -> Result<Option<Damage>, DiskError> {
        let (expected, found) = (self.header.segment_bytes, self.file.bytes()?);
        let kind = DamageKind::SegmentBytes { expected, found };
        let damage = || self.damage(found.min(expected), self.base(), kind);
        Ok((expected != found).then(damage))
    }

    pub(crate) fn damage(&self, byte: u64, position: Position, kind: DamageKind) -> Damage {
        Damage {
            segment: segment_name(self.base()),
            byte,
            position,
            kind,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_grow_four_fold_up_to_their_largest_size() {
        let mut sizes = vec![next_segment_bytes(None, 100)];
        for _ in 0..6 {
            sizes.push(next_segment_bytes(sizes.last().copied(), 100));
        }
        let kib = sizes.iter().map(|bytes| bytes >> 10).collect::<Vec<_>>();
        assert_eq!(kib, [256, 1024, 4096, 16384, 65536, 65536, 65536]);
    }

    #[test]
    fn a_large_group_gets_a_segment_of_its_own_and_the_next_one_is_usual_again() {
        let group = 100 << 20;
        let own = next_segment_bytes(Some(SEGMENT_BYTES_MIN), group);
        assert!(own >= FRAMES_AT + group && own < FRAMES_AT + group + 8192);
        assert_eq!(next_segment_bytes(Some(own), 100), SEGMENT_BYTES_MAX);
    }

    #[test]
    fn only_canonical_names_are_segments() {
        let base = Position::new(42);
        let path = segment_path(Path::new("log"), base);
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(base_of_name(name, ".seg"), Some(base));
        for other in [
            "42.seg",
            "0000000000000000004x.seg",
            ".seg",
            "99999999999999999999.seg",
        ] {
            assert_eq!(base_of_name(other, ".seg"), None, "{other}");
        }
    }
}
