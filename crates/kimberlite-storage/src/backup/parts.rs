//! The segments of a log up to a position, recomputed as they are read.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use kimberlite_crypto::{InternalHash, internal_hash};
use kimberlite_disk::{Disk, OpenMode};
use kimberlite_types::{ChainHash, LogId, Position};

use crate::damage::{Damage, DamageKind};
use crate::error::StorageError;
use crate::open::segment_bases;
use crate::options::ReadMode;
use crate::reader::read_bytes;
use crate::segment::{
    SEGMENT_HEADER_BYTES, SealFile, Segment, SegmentHeader, segment_name, segment_path,
};
use crate::verify::verify_alone;

/// The records of a segment before some position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentPart {
    base: Position,
    end: Position,
    /// Whether another segment follows before that position, so that this one is all there.
    whole: bool,
}

/// What a part holds.
#[derive(Clone, Debug)]
pub struct SegmentContent {
    /// The file's bytes up to the end of the part.
    pub bytes: Bytes,
    /// The length of the file.
    pub file_bytes: u64,
    /// The hash chain before its first record.
    pub chain_before: ChainHash,
    /// The hash chain after its last record, as computed.
    pub chain_after: ChainHash,
}

impl SegmentPart {
    /// Lists the parts that hold the first `size` records of a log.
    ///
    /// # Errors
    ///
    /// [`StorageError::FirstSegmentMissing`] when the first is missing.
    pub fn list(
        disk: &dyn Disk,
        tenant_dir: &Path,
        size: Position,
    ) -> Result<Vec<Self>, StorageError> {
        let bases = segment_bases(disk, &tenant_dir.join("log"))?;
        let bases = bases.into_iter().filter(|base| *base < size);
        let bases = bases.collect::<Vec<_>>();
        if bases.first() != Some(&Position::ZERO) {
            return Err(StorageError::FirstSegmentMissing);
        }
        let ends = bases.iter().skip(1).copied().map(|next| (next, true));
        let ends = ends.chain([(size, false)]);
        let part = |(base, (end, whole))| Self { base, end, whole };
        Ok(bases.iter().copied().zip(ends).map(part).collect())
    }

    /// Returns what of it stands before the position `size`.
    #[must_use]
    pub fn up_to(&self, size: Position) -> Self {
        Self {
            base: self.base,
            end: self.end.min(size),
            whole: self.whole && self.end <= size,
        }
    }

    /// Returns the path of the segment below the tenant's directory.
    pub fn path(&self) -> String {
        format!("log/{}", segment_name(self.base))
    }

    /// Returns the path of its seal below the tenant's directory, where the part has one.
    pub fn seal_path(&self) -> Option<String> {
        self.whole
            .then(|| format!("log/{:020}.seal", self.base.get()))
    }

    /// Returns how many bytes of the file count, their BLAKE3 and the file's length, by the word of
    /// its seal; `None` where the part is not the whole of a sealed segment.
    pub fn sealed(&self, disk: &dyn Disk, tenant_dir: &Path) -> Option<(u64, InternalHash, u64)> {
        if !self.whole {
            return None;
        }
        let log_dir = tenant_dir.join("log");
        let file = disk.open(&segment_path(&log_dir, self.base), OpenMode::Read);
        let mut page = [0; SEGMENT_HEADER_BYTES];
        file.ok()?.read_exact_at(&mut page, 0).ok()?;
        let header = SegmentHeader::decode(&page).ok()?;
        let seal = SealFile::read(disk, &log_dir, &header)?;
        (seal.history.position() == self.end).then_some((
            seal.frames_end,
            seal.segment_digest,
            header.segment_bytes,
        ))
    }

    /// Reads the part, and recomputes every digest and the chain.
    ///
    /// # Errors
    ///
    /// [`StorageError::Corrupt`] with the first damage.
    pub fn read(
        &self,
        disk: &Arc<dyn Disk>,
        tenant_dir: &Path,
        log_id: LogId,
    ) -> Result<SegmentContent, StorageError> {
        let log_dir = tenant_dir.join("log");
        let file = disk.open(&segment_path(&log_dir, self.base), OpenMode::Read)?;
        let corrupt = |kind| {
            StorageError::Corrupt(Damage {
                segment: segment_name(self.base),
                byte: 0,
                position: self.base,
                kind,
            })
        };
        let file_bytes = file.bytes()?;
        let mut page = vec![0; SEGMENT_HEADER_BYTES.min(usize::try_from(file_bytes).unwrap_or(0))];
        file.read_exact_at(&mut page, 0)?;
        let header = SegmentHeader::decode(&page)
            .map_err(|error| corrupt(DamageKind::SegmentHeader(error)))?;
        if (header.base_position, header.log_id) != (self.base, log_id) {
            return Err(corrupt(DamageKind::ForeignSegment));
        }
        if header.segment_bytes != file_bytes {
            return Err(corrupt(DamageKind::SegmentBytes {
                expected: header.segment_bytes,
                found: file_bytes,
            }));
        }
        let segment = Segment::new(header, file, ReadMode::Copied);
        let bytes = read_bytes(&segment, 0, file_bytes)?;
        let alone = verify_alone(&segment, &bytes, self.end, self.whole);
        if let Some(damage) = alone.damage.into_iter().next() {
            return Err(StorageError::Corrupt(damage));
        }
        let used = usize::try_from(alone.frames_end).unwrap_or(usize::MAX);
        Ok(SegmentContent {
            bytes: bytes.slice(..used.min(bytes.len())),
            file_bytes,
            chain_before: header.base_chain,
            chain_after: alone.chain,
        })
    }

    /// Returns the error that the hash chain does not lead from one part to the next.
    pub fn broken(&self) -> StorageError {
        StorageError::Corrupt(Damage {
            segment: segment_name(self.base),
            byte: 0,
            position: self.base,
            kind: DamageKind::ChainBroken,
        })
    }
}

impl SegmentContent {
    /// Returns the BLAKE3 of the first `used` bytes; `None` when there are fewer.
    pub fn prefix_digest(&self, used: u64) -> Option<InternalHash> {
        let used = usize::try_from(used).ok()?;
        self.bytes.get(..used).map(internal_hash)
    }
}
