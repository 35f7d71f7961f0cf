//! Verifying closed segments one by one, each read from its file piece by piece.

use bytes::{Bytes, BytesMut};
use kimberlite_disk::{Disk, DiskError};
use kimberlite_types::Position;
use std::sync::Arc;

use crate::damage::{Damage, DamageKind};
use crate::error::StorageError;
use crate::reader::LogReader;
use crate::segment::{ClosedSegment, SealFile};
use crate::verify::verify_alone;

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 64 << 10;

/// How far a scrub has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubProgress {
    /// The position after the last segment that was read.
    pub position: Position,
    /// Bytes that were read.
    pub bytes: u64,
}

/// A segment that is no longer appended to.
#[derive(Clone, Debug)]
pub struct ScrubSegment(Arc<ClosedSegment>);

impl ScrubSegment {
    /// Returns the position after its last record.
    pub fn end(&self) -> Position {
        self.0.extent.end
    }
}

/// Lists the closed segments that `reader` sees now, in order.
pub fn closed_segments(reader: &LogReader) -> Vec<ScrubSegment> {
    let view = reader.shared.view();
    view.closed.iter().cloned().map(ScrubSegment).collect()
}

/// Reads a segment anew and recomputes all of it; `read` is told of each piece that was read, and may
/// take its time.
///
/// # Errors
///
/// [`StorageError::Disk`] when the file cannot be read.
pub fn scrub_segment(
    reader: &LogReader,
    disk: &dyn Disk,
    segment: &ScrubSegment,
    read: &mut dyn FnMut(u64),
) -> Result<Vec<Damage>, StorageError> {
    let closed = &segment.0;
    let opened = match reader.shared.open(closed) {
        Err(StorageError::Corrupt(damage)) => return Ok(vec![damage]),
        opened => &opened?.segment,
    };
    let header = &opened.header;
    let bytes = usize::try_from(header.segment_bytes).unwrap_or(usize::MAX);
    let mut content = BytesMut::zeroed(bytes);
    let mut at = 0;
    for piece in content.chunks_mut(PIECE_BYTES) {
        match opened.file.read_exact_at(piece, at) {
            Err(DiskError::ShortRead { .. }) => {
                let found = opened.file.bytes()?;
                let expected = header.segment_bytes;
                let kind = DamageKind::SegmentBytes { expected, found };
                let damage = opened.damage(found, opened.base(), kind);
                return Ok(vec![damage]);
            }
            read => read?,
        }
        let length = u64::try_from(piece.len()).expect("a piece is small");
        at += length;
        read(length);
    }
    let content = Bytes::from(content);
    let alone = verify_alone(opened, &content, closed.extent.end, true);
    let mut damage = alone.damage;
    let seal = SealFile::read(disk, &reader.shared.files.log_dir, &opened.header);
    let sealed = |seal: &SealFile| {
        let used = usize::try_from(alone.frames_end).unwrap_or(usize::MAX);
        let used = content.get(..used).unwrap_or_default();
        seal.frames_end == alone.frames_end
            && seal.history.chain == alone.chain
            && seal.segment_digest == kimberlite_crypto::internal_hash(used)
    };
    if damage.is_empty() && !seal.as_ref().is_none_or(sealed) {
        let base = opened.base();
        damage.push(opened.damage(0, base, DamageKind::SealMismatch));
    }
    Ok(damage)
}
