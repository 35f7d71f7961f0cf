//! A last segment that power loss left with its name, but without its header page.
//!
//! Both become durable with the sync of the first frames, in any order. So a last segment is **not
//! begun** when its header page is lost, which shows as zeros, and nothing tells that it was ever
//! synced: neither it nor the segment before it has a seal, no frame in it says that anything before it
//! in this segment is durable, and no checkpoint vouches for its records. The log ends before it then,
//! and what may stand in it is a torn end. Any other header page that cannot be read is damage.

use kimberlite_disk::DiskError;
use kimberlite_types::{ChainHash, Position};

use super::opening::{LastSegment, Opening};
use crate::error::StorageError;
use crate::frame::FrameStep;
use crate::reader::read_bytes;
use crate::recovery::{TailScan, TailVerdict};
use crate::scan::Window;
use crate::segment::{
    FRAMES_AT, SEGMENT_BYTES_LIMIT, SEGMENT_BYTES_MIN, SEGMENT_HEADER_BYTES, Segment,
    SegmentHeader, SparseIndex, seal_path, segment_path,
};

impl Opening<'_, '_> {
    /// Reads the segment at `base` if it is the last one and was not begun.
    pub(super) fn read_not_begun(
        &self,
        base: Position,
        vouched: Position,
    ) -> Result<Option<LastSegment>, StorageError> {
        // The first segment gets its name when it is durable. Behind damage nothing is known.
        let (Some(log_id), true) = (self.log_id, base > Position::ZERO) else {
            return Ok(None);
        };
        let path = segment_path(self.log_dir, base);
        let file = self.disk.open(&path, self.mode)?;
        let mut page = [0; SEGMENT_HEADER_BYTES];
        match file.read_exact_at(&mut page, 0) {
            Err(DiskError::ShortRead { .. }) => return Ok(None),
            read => read?,
        }
        let segment_bytes = file.bytes()?;
        let is_blank = page.iter().all(|&byte| byte == 0)
            && (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_LIMIT).contains(&segment_bytes);
        if !is_blank || vouched > base || self.is_sealed(base)? {
            return Ok(None);
        }
        let chain = self.history.as_ref().map(|history| history.chain);
        let header = SegmentHeader {
            log_id,
            base_position: base,
            // An observer may know no chain, and asks for none.
            base_chain: chain.unwrap_or_else(|| ChainHash::new([0; 32])),
            salt: [0; 16],
            segment_bytes,
        };
        let segment = Segment::new(header, file, self.read_mode);
        let bytes = read_bytes(&segment, 0, segment_bytes)?;
        let window = Window {
            segment: &segment.header,
            start: 0,
            bytes: bytes.clone(),
        };
        if was_synced(&window) {
            return Ok(None);
        }
        let mut scan = TailScan::ending(base, FRAMES_AT);
        let written_end = window.written_end(FRAMES_AT);
        if written_end > FRAMES_AT {
            scan.verdict = TailVerdict::Torn { written_end };
        }
        Ok(Some(LastSegment {
            segment,
            begun: false,
            bytes,
            scan,
            index: SparseIndex::new(self.index_stride_bytes),
            held: None,
            vouched,
        }))
    }

    /// Whether the last segment, at `base`, or the one before it has a seal, which is made once the
    /// next segment is durable.
    fn is_sealed(&self, base: Position) -> Result<bool, StorageError> {
        let before = self.closed.last().map(|closed| closed.extent.base);
        for base in before.into_iter().chain([base]) {
            if self.disk.exists(&seal_path(self.log_dir, base))? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether a frame says that one before it in the segment was durable when it was written.
///
/// Without the salt no checksum can be looked at, so that frames are followed by what they say of
/// their lengths, and no payload is taken for one.
fn was_synced(window: &Window<'_>) -> bool {
    let mut at = FRAMES_AT;
    while let Some(step) = FrameStep::peek(window.from(at)) {
        if step.durable > window.segment.base_position.get() {
            return true;
        }
        at += step.stored_bytes();
    }
    false
}
