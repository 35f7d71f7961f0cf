//! Reading commit groups one after another from the bytes of a segment.

use std::ops::Range;

use bytes::Bytes;
use kimberlite_types::{Position, RecordKind};

use crate::damage::DamageKind;
use crate::frame::{
    FRAME_ALIGN, FRAME_HEADER_BYTES, FRAME_MAGIC, FrameError, FrameHeader, FrameView,
};
use crate::segment::SegmentHeader;

/// What disks write or lose as one.
pub(crate) const SECTOR_BYTES: u64 = 512;

/// How closely frames are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Headers and tables.
    Shape,
    /// Payload checksums too.
    Payloads,
}

/// A part of a segment in memory.
#[derive(Clone, Debug)]
pub(crate) struct Window<'a> {
    pub(crate) segment: &'a SegmentHeader,
    /// Byte of the segment at which `bytes` begins.
    pub(crate) start: u64,
    pub(crate) bytes: Bytes,
}

/// What stands at a place where a commit group may begin.
#[derive(Debug)]
pub(crate) enum Found {
    /// A whole group, or a watermark.
    Group(Vec<FrameView>),
    /// Zeros where a frame header would be, or the end of the segment.
    Nothing,
    /// Something that is not a whole group.
    Bad(BadGroup),
}

/// A group that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadGroup {
    /// Byte at which the bad piece begins.
    pub(crate) byte: u64,
    /// The first record that is affected.
    pub(crate) position: Position,
    /// What is wrong with it.
    pub(crate) kind: DamageKind,
    /// Byte at which the bad frame begins.
    pub(crate) frame_at: u64,
    /// The bytes of which some are wrong.
    pub(crate) piece: Range<u64>,
}

impl Window<'_> {
    /// Returns the byte after the window.
    pub(crate) fn end(&self) -> u64 {
        self.start + u64::try_from(self.bytes.len()).expect("memory is smaller than 2^64 bytes")
    }

    /// Returns the bytes of the segment from `at` on.
    pub(crate) fn from(&self, at: u64) -> &[u8] {
        self.get(at..self.end())
    }

    fn get(&self, range: Range<u64>) -> &[u8] {
        let local = |at: u64| {
            usize::try_from(at.saturating_sub(self.start))
                .unwrap_or(usize::MAX)
                .min(self.bytes.len())
        };
        self.bytes
            .get(local(range.start)..local(range.end))
            .unwrap_or_default()
    }

    /// Reads the group that begins `at`, whose first record must have the position `expected`.
    pub(crate) fn group(&self, at: u64, expected: Position, depth: Depth) -> Found {
        let mut frames = Vec::new();
        let (mut at, mut position) = (at, expected);
        loop {
            let header_bytes = self.get(at..at + FRAME_HEADER_BYTES as u64);
            if header_bytes.iter().all(|&byte| byte == 0) {
                if frames.is_empty() {
                    return Found::Nothing;
                }
                return Found::Bad(self.bad_header(at, position, DamageKind::IncompleteGroup));
            }
            let frame = match self.frame(at, position, depth) {
                Ok(frame) => frame,
                Err(bad) => return Found::Bad(bad),
            };
            let (more, end) = (frame.header().more, frame.header().end_position());
            at += frame.header().stored_bytes();
            position = end;
            frames.push(frame);
            if !more {
                return match cut_append(&frames) {
                    None => Found::Group(frames),
                    Some(frame) => {
                        let position = frame.header().base_position;
                        let kind = DamageKind::KeyedAppend;
                        Found::Bad(self.bad_header(frame.at(), position, kind))
                    }
                };
            }
        }
    }

    /// Reads the frame that begins `at`.
    pub(crate) fn frame(
        &self,
        at: u64,
        expected: Position,
        depth: Depth,
    ) -> Result<FrameView, BadGroup> {
        let bad = |kind| self.bad_header(at, expected, kind);
        let header = FrameHeader::decode(self.from(at), self.segment.seed(), at)
            .map_err(|error| bad(DamageKind::FrameHeader(error)))?;
        if header.log_prefix != self.segment.log_id.prefix() {
            return Err(bad(DamageKind::FrameHeader(FrameError::Field {
                field: "log id",
            })));
        }
        if header.base_position != expected {
            return Err(bad(DamageKind::PositionGap {
                expected,
                found: header.base_position,
            }));
        }
        let local = usize::try_from(at - self.start).expect("the header was read from here");
        let frame = FrameView::new(
            header,
            self.segment.base_position,
            at,
            &self.bytes.slice(local..),
        )
        .ok_or_else(|| bad(DamageKind::CutFrame))?;
        frame.check_shape(self.segment.seed()).map_err(|kind| {
            let piece = match kind {
                DamageKind::TableChecksum => {
                    at + FRAME_HEADER_BYTES as u64..at + header.payloads_at() as u64
                }
                _ => at..at + header.stored_bytes(),
            };
            BadGroup {
                byte: at,
                position: expected,
                kind,
                frame_at: at,
                piece,
            }
        })?;
        if depth == Depth::Payloads {
            for index in 0..usize::from(header.count) {
                check_payload(&frame, index)?;
            }
        }
        Ok(frame)
    }

    fn bad_header(&self, at: u64, position: Position, kind: DamageKind) -> BadGroup {
        let piece = at..(at + FRAME_HEADER_BYTES as u64).min(self.end()).max(at);
        BadGroup {
            byte: at,
            position,
            kind,
            frame_at: at,
            piece,
        }
    }

    /// Returns the first frame of this segment that begins at or after `at`, whatever its position.
    ///
    /// Its checksum is seeded with the segment and the place, so a payload that contains a frame is
    /// not taken for one.
    pub(crate) fn next_frame_header(&self, at: u64) -> Option<(u64, FrameHeader)> {
        let mut at = at.next_multiple_of(FRAME_ALIGN as u64);
        while at + FRAME_HEADER_BYTES as u64 <= self.end() {
            let bytes = self.from(at);
            if bytes.starts_with(&FRAME_MAGIC)
                && let Ok(header) = FrameHeader::decode(bytes, self.segment.seed(), at)
            {
                return Some((at, header));
            }
            at += FRAME_ALIGN as u64;
        }
        None
    }

    /// Returns the byte after the last one that is not zero, at least `at`.
    pub(crate) fn written_end(&self, at: u64) -> u64 {
        const ZEROS: [u8; 4096] = [0; 4096];
        let mut rest = self.from(at);
        while rest.ends_with(&ZEROS) {
            rest = rest.get(..rest.len() - ZEROS.len()).unwrap_or_default();
        }
        let used = rest
            .iter()
            .rposition(|&byte| byte != 0)
            .map_or(0, |last| last + 1);
        at + u64::try_from(used).expect("memory is smaller than 2^64 bytes")
    }

    /// Whether a group can be the work of a torn write.
    ///
    /// Space reads as zeros, so a sector that was lost shows as zeros, from the bad frame's first
    /// byte or the sector's on: what stands before the frame may have been synced on its own.
    pub(crate) fn looks_torn(&self, bad: &BadGroup) -> bool {
        let mut sector = bad.piece.start - bad.piece.start % SECTOR_BYTES;
        while sector < bad.piece.end {
            let lost = self.get(sector.max(bad.frame_at)..sector + SECTOR_BYTES);
            if lost.iter().all(|&byte| byte == 0) {
                return true;
            }
            sector += SECTOR_BYTES;
        }
        false
    }
}

/// Returns the first frame of an append with a key that does not go on in the frames behind it as it
/// says: in events of the same stream, without a key.
fn cut_append(frames: &[FrameView]) -> Option<&FrameView> {
    let keyed = frames.iter().enumerate();
    let mut keyed = keyed.filter_map(|(index, frame)| Some((index, frame, frame.keyed()?)));
    let cut = keyed.find(|(index, first, append)| {
        let stream = first.header().stream;
        let mut events = u32::from(first.header().count);
        for frame in frames.get(index + 1..).unwrap_or_default() {
            let header = frame.header();
            let goes_on =
                header.kind == Some(RecordKind::Event) && header.stream == stream && !header.keyed;
            if events >= append.count || !goes_on {
                break;
            }
            events += u32::from(header.count);
        }
        events != append.count
    });
    cut.map(|(_, first, _)| first)
}

fn check_payload(frame: &FrameView, index: usize) -> Result<(), BadGroup> {
    frame.content_at(index).map(drop).map_err(|kind| {
        let nth = u64::try_from(index).expect("an index fits in 64 bits");
        let position = Position::new(frame.header().base_position.get() + nth);
        let whole = frame.at()..frame.at() + frame.header().stored_bytes();
        let piece = frame.piece_at(index).unwrap_or(whole);
        BadGroup {
            byte: piece.start,
            position,
            kind,
            frame_at: frame.at(),
            piece,
        }
    })
}
