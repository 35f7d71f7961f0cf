//! Recomputing a whole log from its bytes: digests and leaves on all cores, chain and tree in order.

use std::num::NonZero;
use std::ops::Range;
use std::thread::ScopedJoinHandle;

use bytes::Bytes;
use kimberlite_crypto::internal_hash;
use kimberlite_disk::Disk;
use kimberlite_types::{ChainHash, LeafHash, Position, RootHash};

use crate::damage::{Damage, DamageKind};
use crate::error::StorageError;
use crate::frame::FrameView;
use crate::history::History;
use crate::reader::{LogReader, read_bytes};
use crate::scan::{Depth, Found, Window};
use crate::segment::{FRAMES_AT, SEGMENT_HEADER_BYTES, SealFile, Segment, SegmentHeader};

/// How far a verification has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifyProgress {
    /// Records that were recomputed.
    pub records_done: u64,
    /// Records of the log.
    pub records_total: u64,
    /// Stored payload bytes that were hashed.
    pub payload_bytes_done: u64,
}

/// What a log is by its own bytes.
#[derive(Clone, Debug)]
pub struct VerifiedLog {
    /// Records that were recomputed.
    pub records: u64,
    /// Stored payload bytes that were hashed.
    pub payload_bytes: u64,
    /// The chain hash after the last record.
    pub chain: ChainHash,
    /// The Merkle root over all records.
    pub root: RootHash,
    /// Root and chain at each of the sizes asked for, as far as the log is sound up to there.
    pub at_sizes: Vec<(Position, RootHash, ChainHash)>,
    /// What is wrong, in order.
    pub damage: Vec<Damage>,
}

/// Recomputes the log up to where `reader` sees it.
///
/// `sizes`, in order, are the numbers of records at which root and chain are wanted.
///
/// # Errors
///
/// [`StorageError::Disk`] when a file cannot be read. Damage is no error here: it is in the result.
pub fn verify(
    reader: &LogReader,
    disk: &dyn Disk,
    sizes: &[Position],
    progress: &mut dyn FnMut(VerifyProgress),
) -> Result<VerifiedLog, StorageError> {
    let (closed, active, active_end, end) = {
        let view = reader.shared.view();
        (
            view.closed.clone(),
            view.active.clone(),
            view.active_end,
            view.end,
        )
    };
    let mut run = Run::new(reader, sizes, end);
    for closed in closed {
        if run.position >= end {
            break;
        }
        let extent = closed.extent;
        let opened = match reader.shared.open(&closed) {
            Ok(opened) => opened,
            Err(StorageError::Corrupt(damage)) => {
                run.found(damage);
                run.position = extent.end.min(end);
                continue;
            }
            Err(error) => return Err(error),
        };
        let segment = &opened.segment;
        let bytes = segment.whole()?;
        run.segment(segment, &bytes, extent.end.min(end), progress);
        let seal = SealFile::read(disk, &reader.shared.files.log_dir, &segment.header);
        if extent.end <= end {
            run.check_closed(segment, &bytes, opened.frames_end, seal.as_ref());
            if let Some(damage) = segment.size_damage()? {
                run.found(damage);
            }
        }
    }
    if run.position < end {
        let bytes = read_bytes(&active, 0, active_end)?;
        run.segment(&active, &bytes, end, progress);
    }
    Ok(run.finish())
}

/// What one segment is by its own bytes.
#[derive(Clone, Debug)]
pub(crate) struct VerifiedSegment {
    /// The chain hash after the last record.
    pub(crate) chain: ChainHash,
    /// Byte after the last frame, and after the watermarks behind it where they were asked for.
    pub(crate) frames_end: u64,
    /// What is wrong, in order.
    pub(crate) damage: Vec<Damage>,
}

/// Recomputes the records of one segment before `end`, from the chain that its header names on.
/// `to_the_last` takes the watermarks behind them too, and demands that nothing else follows.
pub(crate) fn verify_alone(
    segment: &Segment,
    bytes: &Bytes,
    end: Position,
    to_the_last: bool,
) -> VerifiedSegment {
    let history = History::of_chain(segment.base(), segment.header.base_chain);
    let mut run = Run::from(history, &[], end);
    let mut frames_end = run.segment(segment, bytes, end, &mut |_| {});
    if to_the_last && run.damage.is_empty() {
        let window = Window {
            segment: &segment.header,
            start: 0,
            bytes: bytes.clone(),
        };
        while let Found::Group(frames) = window.group(frames_end, end, Depth::Shape) {
            let last = frames.last().expect("a group has a frame");
            if last.header().end_position() > end {
                break;
            }
            frames_end = last.at() + last.header().stored_bytes();
        }
        run.check_rest(segment, bytes, frames_end);
    }
    let log = run.finish();
    VerifiedSegment {
        chain: log.chain,
        frames_end,
        damage: log.damage,
    }
}

struct Run<'a> {
    history: History,
    /// Whether everything so far is what was written.
    sound: bool,
    position: Position,
    end: Position,
    payload_bytes: u64,
    wanted: &'a [Position],
    at_sizes: Vec<(Position, RootHash, ChainHash)>,
    damage: Vec<Damage>,
}

/// The leaves of one frame, or where it is damaged.
type Leaves = Result<Vec<LeafHash>, Damage>;

impl<'a> Run<'a> {
    fn new(reader: &LogReader, sizes: &'a [Position], end: Position) -> Self {
        Self::from(History::start(&reader.log_id()), sizes, end)
    }

    fn from(history: History, sizes: &'a [Position], end: Position) -> Self {
        debug_assert!(sizes.is_sorted());
        let mut run = Self {
            position: history.position(),
            history,
            sound: true,
            end,
            payload_bytes: 0,
            wanted: sizes,
            at_sizes: Vec::new(),
            damage: Vec::new(),
        };
        run.note_size();
        run
    }

    /// Returns the byte after the last frame that was read.
    fn segment(
        &mut self,
        segment: &Segment,
        bytes: &Bytes,
        end: Position,
        progress: &mut dyn FnMut(VerifyProgress),
    ) -> u64 {
        if self.sound && segment.header.base_chain != self.history.chain {
            self.found(segment.damage(0, segment.base(), DamageKind::ChainBroken));
        }
        // The header was read when the log was opened; its bytes may have rotted since.
        if bytes.get(..SEGMENT_HEADER_BYTES) != Some(segment.header.encode().as_slice()) {
            let error = SegmentHeader::decode(bytes).err();
            let kind = error.map_or(DamageKind::ForeignSegment, DamageKind::SegmentHeader);
            self.found(segment.damage(0, segment.base(), kind));
        }
        let frames = self.frames(segment, bytes, end);
        for (frame, leaves) in frames.iter().zip(leaves_of(&frames)) {
            self.fold(segment, frame, leaves);
        }
        self.position = end;
        progress(VerifyProgress {
            records_done: self.position.get(),
            records_total: self.end.get(),
            payload_bytes_done: self.payload_bytes,
        });
        frames
            .last()
            .map_or(FRAMES_AT, |last| last.at() + last.header().stored_bytes())
    }

    /// Collects the frames of a segment up to `end`; behind a damaged place it goes on with the next
    /// frame that can be read.
    fn frames(&mut self, segment: &Segment, bytes: &Bytes, end: Position) -> Vec<FrameView> {
        let window = Window {
            segment: &segment.header,
            start: 0,
            bytes: bytes.clone(),
        };
        let mut frames = Vec::new();
        let (mut at, mut position) = (FRAMES_AT, segment.base());
        while position < end {
            let (damage, resume_from) = match window.group(at, position, Depth::Shape) {
                Found::Group(group) => {
                    let last = group.last().expect("a group has a frame");
                    at = last.at() + last.header().stored_bytes();
                    position = last.header().end_position();
                    frames.extend(group);
                    continue;
                }
                Found::Nothing => {
                    let kind = DamageKind::MissingFrames { expected: end };
                    (segment.damage(at, position, kind), at)
                }
                Found::Bad(bad) => (segment.damage(bad.byte, bad.position, bad.kind), bad.byte),
            };
            self.found(damage);
            match window.next_frame_header(resume_from + 1) {
                Some((next_at, header)) if header.base_position > position => {
                    at = next_at;
                    position = header.base_position;
                }
                _ => break,
            }
        }
        frames
    }

    fn fold(&mut self, segment: &Segment, frame: &FrameView, leaves: Leaves) {
        let header = frame.header();
        let follows = header.base_position == self.history.position();
        if header.chain_before != self.history.chain {
            // Behind damage that was told already the chain cannot match.
            if self.sound || follows {
                let kind = DamageKind::ChainBroken;
                self.found(segment.damage(frame.at(), header.base_position, kind));
            }
            self.history.chain = header.chain_before;
        }
        match leaves {
            Ok(leaves) => {
                self.payload_bytes += frame.payload_bytes();
                self.extend(&leaves);
            }
            Err(damage) => self.found(damage),
        }
    }

    /// Carries the history over leaves, and stops at each size that is asked for.
    fn extend(&mut self, mut leaves: &[LeafHash]) {
        while !leaves.is_empty() {
            let position = self.history.position().get();
            // Behind damage nothing is noted, and sizes are left behind.
            let wanted = self.wanted.first().map(|size| size.get());
            let count = wanted.and_then(|size| size.checked_sub(position));
            let count = count.and_then(|count| usize::try_from(count).ok());
            let count = count.filter(|&count| count > 0).unwrap_or(usize::MAX);
            let count = count.min(leaves.len());
            let (some, rest) = leaves.split_at(count);
            self.history.extend(some);
            self.note_size();
            leaves = rest;
        }
    }

    fn note_size(&mut self) {
        while let Some((&size, rest)) = self.wanted.split_first() {
            if size > self.history.position() || !self.sound {
                break;
            }
            if size == self.history.position() {
                self.at_sizes
                    .push((size, self.history.frontier.root(), self.history.chain));
            }
            self.wanted = rest;
        }
    }

    fn check_closed(
        &mut self,
        segment: &Segment,
        bytes: &Bytes,
        frames_end: u64,
        seal: Option<&SealFile>,
    ) {
        let damaged = self
            .damage
            .iter()
            .any(|damage| damage.position >= segment.base());
        if damaged {
            return;
        }
        let frames = self.check_rest(segment, bytes, frames_end);
        let matches = |seal: &SealFile| {
            seal.frames_end == frames_end
                && seal.segment_digest == internal_hash(frames)
                && (!self.sound || seal.history == self.history)
        };
        if !seal.is_none_or(matches) {
            self.found(segment.damage(0, segment.base(), DamageKind::SealMismatch));
        }
    }

    /// Demands zeros behind the frames, and returns the bytes up to there.
    fn check_rest<'b>(&mut self, segment: &Segment, bytes: &'b Bytes, frames_end: u64) -> &'b [u8] {
        let used = usize::try_from(frames_end)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        let (frames, rest) = bytes.split_at(used);
        if let Some(at) = rest.iter().position(|&byte| byte != 0) {
            let byte = frames_end + u64::try_from(at).expect("memory is smaller than 2^64 bytes");
            self.found(segment.damage(byte, self.position, DamageKind::TrailingBytes));
        }
        frames
    }

    fn found(&mut self, damage: Damage) {
        self.sound = false;
        self.damage.push(damage);
    }

    fn finish(mut self) -> VerifiedLog {
        self.damage.sort_by_key(|damage| damage.position);
        VerifiedLog {
            records: self.history.position().get(),
            payload_bytes: self.payload_bytes,
            chain: self.history.chain,
            root: self.history.frontier.root(),
            at_sizes: self.at_sizes,
            damage: self.damage,
        }
    }
}

/// Computes the leaves of all frames, on as many threads as there are cores.
fn leaves_of(frames: &[FrameView]) -> Vec<Leaves> {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let parts = split_evenly(frames, cores);
    std::thread::scope(|scope| {
        let threads = parts
            .into_iter()
            .map(|part| {
                let part = frames.get(part).unwrap_or_default();
                scope.spawn(move || part.iter().map(FrameView::leaves).collect::<Vec<_>>())
            })
            .collect::<Vec<_>>();
        let joined = threads.into_iter().map(ScopedJoinHandle::join);
        joined
            .flat_map(|leaves| leaves.expect("hashing does not panic"))
            .collect()
    })
}

/// Splits frames into up to `parts` runs of about the same number of bytes.
fn split_evenly(frames: &[FrameView], parts: usize) -> Vec<Range<usize>> {
    let total = frames
        .iter()
        .map(|frame| u64::from(frame.header().length))
        .sum::<u64>();
    let share = total / u64::try_from(parts).unwrap_or(1).max(1) + 1;
    let mut ranges = Vec::with_capacity(parts);
    let (mut start, mut bytes) = (0, 0);
    for (index, frame) in frames.iter().enumerate() {
        bytes += u64::from(frame.header().length);
        if bytes >= share {
            ranges.push(start..index + 1);
            start = index + 1;
            bytes = 0;
        }
    }
    if start < frames.len() {
        ranges.push(start..frames.len());
    }
    ranges
}
