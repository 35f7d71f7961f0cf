//! A frame in another segment: as it was, or with digests in place of its payloads.

use bytes::Bytes;
use kimberlite_types::{Position, RecordKind};

use super::view::digests_of;
use super::{FRAME_ALIGN, FRAME_HEADER_BYTES, FrameHeader, FrameView, PURGED_BYTES, TableEntry};
use crate::damage::{Damage, DamageKind};
use crate::segment::SegmentSeed;

/// A frame for a place in a segment that is written anew.
#[derive(Clone, Debug)]
pub(crate) struct RewrittenFrame {
    pub(crate) header: FrameHeader,
    pub(crate) head: [u8; FRAME_HEADER_BYTES],
    /// Table, key, payloads or digests, and padding.
    pub(crate) body: Bytes,
}

impl RewrittenFrame {
    /// Returns the frame as it will stand at byte `at` of the segment that begins at position
    /// `segment`.
    pub(crate) fn view(&self, segment: Position, at: u64) -> FrameView {
        let bytes = Bytes::from([self.head.as_slice(), self.body.as_ref()].concat());
        let view = FrameView::new(self.header, segment, at, &bytes);
        view.expect("a frame that was made is whole")
    }
}

impl FrameView {
    /// Returns the frame as it is, for byte `at` of a segment with this seed.
    pub(crate) fn moved(&self, seed: SegmentSeed, at: u64) -> RewrittenFrame {
        let (body, table) = (self.body(), self.table());
        let header = FrameHeader {
            table_checksum: match self.header().kind {
                Some(_) => seed.checksum(at, &table),
                // A watermark has no table.
                None => self.header().table_checksum,
            },
            ..*self.header()
        };
        RewrittenFrame {
            header,
            head: header.encode(seed, at),
            body,
        }
    }

    /// Returns the frame with the digests of its payloads in their place, for byte `at` of a segment
    /// with this seed.
    ///
    /// # Errors
    ///
    /// [`Damage`] when a payload is not what was written: its digest would then hide that.
    pub(crate) fn purged(&self, seed: SegmentSeed, at: u64) -> Result<RewrittenFrame, Damage> {
        assert_eq!(
            self.header().kind,
            Some(RecordKind::Event),
            "administrative records are never purged"
        );
        let positions = self.header().base_position.get()..self.header().end_position().get();
        let records = positions.map(|position| self.record(Position::new(position)));
        let records = records.collect::<Result<Vec<_>, _>>()?;
        let (mut table, mut digests) = (Vec::new(), Vec::new());
        let mut payload_end = 0_u32;
        for (digest, bytes) in digests_of(&records) {
            let end = payload_end.checked_add(bytes);
            payload_end = end.ok_or_else(|| self.damage(DamageKind::TableEntry))?;
            let checksum = crc32c::crc32c(digest.as_bytes());
            let entry = TableEntry {
                payload_end,
                checksum,
            };
            table.extend_from_slice(&entry.encode());
            digests.extend_from_slice(digest.as_bytes());
        }
        debug_assert_eq!(digests.len(), records.len() * PURGED_BYTES);
        // What a retry is recognised by outlives what it asks for.
        let entries = table.len();
        let key = self.table().slice(entries..);
        table.extend_from_slice(&key);
        let table_checksum = seed.checksum(at, &table);
        let mut body = table;
        body.append(&mut digests);
        let length = u32::try_from(FRAME_HEADER_BYTES + body.len());
        let header = FrameHeader {
            length: length.expect("a frame of digests is small"),
            table_checksum,
            purged: true,
            ..*self.header()
        };
        debug_assert!(body.len().is_multiple_of(FRAME_ALIGN));
        Ok(RewrittenFrame {
            header,
            head: header.encode(seed, at),
            body: Bytes::from(body),
        })
    }
}
