//! Where in a segment a position stands: a sparse index, refined by walking frame headers.

use kimberlite_types::Position;

use super::FRAMES_AT;
use crate::error::StorageError;

/// Bytes of frames between two entries, unless the caller says otherwise: a look-up walks at most
/// about this far.
///
/// With frames of 100 records an entry stands for each of them, with frames of one small event for
/// about ten.
pub(crate) const INDEX_STRIDE_BYTES: u64 = 4096;

/// Some of a segment's frames by position, in order.
///
/// Invariants: positions and bytes both strictly increase; the first entry is the first frame.
#[derive(Clone, Debug)]
pub(crate) struct SparseIndex {
    entries: Vec<IndexEntry>,
    /// Bytes of frames between two entries.
    stride_bytes: u64,
}

impl PartialEq for SparseIndex {
    /// An index is what it says: how dense the next entries would be is nothing of it.
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

/// The first record of a frame counted from the segment's base, and where the frame begins in units
/// of eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub(crate) position: u32,
    pub(crate) eighth: u32,
}

impl SparseIndex {
    /// Makes one without entries, with one to come for each `stride_bytes` of frames.
    pub(crate) fn new(stride_bytes: u64) -> Self {
        Self {
            entries: Vec::new(),
            stride_bytes,
        }
    }

    /// Returns the index of a segment that is complete, in no more memory than it needs.
    pub(crate) fn closed(mut self) -> Self {
        self.entries.shrink_to_fit();
        self
    }

    /// Returns the bytes of memory that the entries take.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<IndexEntry>()
    }

    pub(crate) fn from_entries(entries: Vec<IndexEntry>) -> Option<Self> {
        let increasing =
            entries.is_sorted_by(|a, b| a.position < b.position && a.eighth < b.eighth);
        let from_the_start = entries
            .first()
            .is_none_or(|first| first.position == 0 && u64::from(first.eighth) * 8 == FRAMES_AT);
        (increasing && from_the_start).then_some(Self {
            entries,
            stride_bytes: INDEX_STRIDE_BYTES,
        })
    }

    pub(crate) fn entries(&self) -> &[IndexEntry] {
        &self.entries
    }

    /// Notes a frame that holds records, unless one stands close before it.
    pub(crate) fn note(&mut self, base: Position, frame: Position, at: u64) {
        debug_assert!(frame >= base && at >= FRAMES_AT && at.is_multiple_of(8));
        if let Some(last) = self.entries.last() {
            debug_assert!(at > u64::from(last.eighth) * 8, "frames are noted in order");
            if at < u64::from(last.eighth) * 8 + self.stride_bytes {
                return;
            }
        }
        let position = u32::try_from(frame.get() - base.get());
        let eighth = u32::try_from(at / 8);
        if let (Ok(position), Ok(eighth)) = (position, eighth) {
            self.entries.push(IndexEntry { position, eighth });
        }
    }

    /// Returns where to look for the frame that holds `position`.
    pub(crate) fn floor(&self, base: Position, position: Position) -> Floor {
        let wanted = position.get().saturating_sub(base.get());
        let after = self
            .entries
            .partition_point(|entry| u64::from(entry.position) <= wanted);
        let before = after
            .checked_sub(1)
            .and_then(|index| self.entries.get(index));
        let Some(before) = before else {
            return Floor::at(FRAMES_AT);
        };
        let from = u64::from(before.eighth) * 8;
        let likely = self.entries.get(after).map_or(from, |next| {
            let records = u64::from(next.position - before.position);
            let bytes = u64::from(next.eighth - before.eighth) * 8;
            let records_before = wanted - u64::from(before.position);
            // A seal may say anything.
            from.saturating_add(bytes.saturating_mul(records_before) / records)
        });
        Floor {
            likely,
            ..Floor::at(from)
        }
    }
}

/// Where the index says that a record is to be looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Floor {
    /// The byte of a frame at or before the one that holds it.
    pub(crate) from: u64,
    /// The byte at which it stands if all records take the same space; good for nothing but to have
    /// it on its way from memory.
    pub(crate) likely: u64,
    /// Whether that is the word of a seal, which may be wrong where the segment is not.
    pub(crate) by_seal: bool,
}

impl Floor {
    /// The record is in the frame at this byte or behind it.
    pub(crate) fn at(from: u64) -> Self {
        Self {
            from,
            likely: from,
            by_seal: false,
        }
    }

    /// Finds something from the floor on, and what a seal does not lead to from the first frame on.
    pub(crate) fn find<T>(
        self,
        find_from: impl Fn(u64) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        match find_from(self.from) {
            Err(StorageError::Corrupt(damage)) if self.by_seal && self.from > FRAMES_AT => {
                find_from(FRAMES_AT).map_err(|_| StorageError::Corrupt(damage))
            }
            found => found,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_the_last_noted_frame_at_or_before_a_position() {
        let base = Position::new(1000);
        let mut index = SparseIndex::new(INDEX_STRIDE_BYTES);
        let mut frames = Vec::new();
        let mut at = FRAMES_AT;
        for n in 0..200_u64 {
            let position = Position::new(1000 + n * 3);
            index.note(base, position, at);
            frames.push((position, at));
            at += 8 * (20 + n % 90);
        }
        assert!(index.entries().len() > 10 && index.entries().len() < 60);
        for &(position, at) in &frames {
            let Floor {
                from: floor,
                likely,
                by_seal: _,
            } = index.floor(base, position);
            assert!(likely >= floor && likely < floor + 2 * INDEX_STRIDE_BYTES);
            assert!(floor <= at && at - floor < INDEX_STRIDE_BYTES);
            assert!(frames.iter().any(|&(_, frame_at)| frame_at == floor));
        }
        assert_eq!(
            SparseIndex::from_entries(index.entries().to_vec()),
            Some(index)
        );
    }

    #[test]
    fn entries_out_of_order_are_refused() {
        let entry = |position, eighth| IndexEntry { position, eighth };
        assert!(SparseIndex::from_entries(vec![entry(0, 512), entry(5, 600)]).is_some());
        assert!(SparseIndex::from_entries(vec![entry(0, 512), entry(0, 600)]).is_none());
        assert!(SparseIndex::from_entries(vec![entry(0, 512), entry(5, 512)]).is_none());
        assert!(SparseIndex::from_entries(vec![entry(1, 512)]).is_none());
    }
}
