//! Purging: closed segments are written anew, with digests in place of the payloads of some frames.
//!
//! Of each segment, in order:
//!
//! 1. `purge.tmp` gets a header page with a salt of its own, the frames, and no more space than they
//!    need; chain and digests are computed from what is written. It is synced.
//! 2. It gets the segment's name, which the old file loses, and the directory is synced.
//! 3. Readers find the new file, and none of its frames in memory; what they hold of the old one stays as it was, and its space is free
//!    once they let go.
//! 4. The new seal replaces the old one.
//!
//! A crash before 2 leaves the old segment, one after it the new one, each whole. A seal names the salt
//! of its segment, so that the old one is passed over from 2 on, and made anew by 4 or by the next
//! opening. Whatever is left to do is found by looking again: purging twice does nothing twice.

use std::sync::Arc;

use kimberlite_crypto::{Entropy, InternalHasher};
use kimberlite_disk::{Access, DiskError, DiskFile};
use kimberlite_types::{ChainHash, Position, RecordKind};

use crate::damage::DamageKind;
use crate::error::StorageError;
use crate::frame::{FrameHeader, FrameView};
use crate::history::History;
use crate::prepare::{Jobs, TEMPORARY_ENDING};
use crate::reader::{Shared, read_bytes};
use crate::scan::{BadGroup, Depth, Found, Window};
use crate::segment::{
    ClosedSegment, FRAMES_AT, SEGMENT_HEADER_BYTES, SealFile, Segment, SegmentHeader, SparseIndex,
    seal_path, segment_path,
};

/// Bytes that are written at a time.
const PIECE_BYTES: usize = 1 << 20;

/// Decides of an event frame whether its payloads are purged.
pub type PurgeChoice<'a> = dyn Fn(&FrameHeader) -> bool + 'a;

/// What a purge did, or would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PurgeOutcome {
    /// Closed segments that were looked at.
    pub segments_done: u64,
    /// Closed segments that are looked at.
    pub segments_total: u64,
    /// Of these, segments that were written anew.
    pub segments_rewritten: u64,
    /// Events whose payloads were purged.
    pub events: u64,
    /// Bytes of their payloads.
    pub payload_bytes: u64,
    /// Bytes by which files have become smaller.
    pub bytes_freed: u64,
    /// Events that are left because they stand in the segment that is appended to.
    pub events_left: u64,
}

/// Rewrites closed segments of a log, beside its writer and its readers.
///
/// The caller sees to it that there is one at a time.
#[derive(Debug)]
pub struct Purger {
    pub(crate) shared: Arc<Shared>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) jobs: Arc<Jobs>,
}

impl Purger {
    /// Says what [`Purger::purge`] would do now, and changes nothing.
    ///
    /// # Errors
    ///
    /// As [`Purger::purge`].
    pub fn plan(
        &self,
        until: Position,
        choice: &PurgeChoice<'_>,
    ) -> Result<PurgeOutcome, StorageError> {
        let (segments, mut outcome) = self.begin(until, choice)?;
        for closed in segments {
            self.shared.open(&closed)?;
            outcome.add(&closed, &Extent::of(&closed, choice)?)?;
        }
        Ok(outcome)
    }

    /// Counts the events before `until` that are chosen and stand in the active segment.
    ///
    /// # Errors
    ///
    /// As [`Purger::purge`].
    pub fn events_left(
        &self,
        until: Position,
        choice: &PurgeChoice<'_>,
    ) -> Result<u64, StorageError> {
        let (active, active_end) = {
            let view = self.shared.view();
            (Arc::clone(&view.active), view.active_end)
        };
        let mut events = 0;
        if active.base() < until {
            let window = Window {
                segment: &active.header,
                start: 0,
                bytes: read_bytes(&active, 0, active_end)?,
            };
            walk(&active, &window, None, &mut |frame| {
                if is_chosen(frame, choice) {
                    events += u64::from(frame.header().count);
                }
                Ok(())
            })?;
        }
        Ok(events)
    }

    /// Purges the event frames of closed segments that end at or before `until` and are chosen, and
    /// tells `progress` after each segment.
    ///
    /// # Errors
    ///
    /// [`StorageError::Corrupt`] when a segment is not what was written: it and those behind it are
    /// left as they are. [`StorageError::Disk`] when the disk refuses; the same call goes on later.
    pub fn purge(
        &self,
        until: Position,
        choice: &PurgeChoice<'_>,
        progress: &mut dyn FnMut(&PurgeOutcome),
    ) -> Result<PurgeOutcome, StorageError> {
        let (segments, mut outcome) = self.begin(until, choice)?;
        // Seals in the making would be of files that are about to go; and the writer, when it goes, waits
        // for this.
        self.jobs.wait();
        let _running = Jobs::begin(&self.jobs);
        for closed in segments {
            self.shared.open(&closed)?;
            let extent = Extent::of(&closed, choice)?;
            if extent.events > 0 {
                let end_chain = self.chain_before(closed.extent.end)?;
                self.rewrite(&closed, end_chain, &extent, choice)?;
            }
            outcome.add(&closed, &extent)?;
            progress(&outcome);
        }
        Ok(outcome)
    }

    /// Lists the segments to look at; what stands in the active one is only counted.
    fn begin(
        &self,
        until: Position,
        choice: &PurgeChoice<'_>,
    ) -> Result<(Vec<Arc<ClosedSegment>>, PurgeOutcome), StorageError> {
        let mut segments = self.shared.view().closed.clone();
        segments.retain(|segment| segment.extent.base < until);
        let outcome = PurgeOutcome {
            segments_total: u64::try_from(segments.len()).expect("segments are files"),
            events_left: self.events_left(until, choice)?,
            ..PurgeOutcome::default()
        };
        Ok((segments, outcome))
    }

    /// Returns the chain that the records before `end`, where a segment begins, end with.
    fn chain_before(&self, end: Position) -> Result<ChainHash, StorageError> {
        let next = {
            let view = self.shared.view();
            if view.active.base() == end {
                return Ok(view.active.header.base_chain);
            }
            let next = view.closed.iter().find(|next| next.extent.base == end);
            Arc::clone(next.expect("a segment follows on a closed one"))
        };
        Ok(self.shared.open(&next)?.segment.header.base_chain)
    }

    fn rewrite(
        &self,
        closed: &Arc<ClosedSegment>,
        end_chain: ChainHash,
        extent: &Extent,
        choice: &PurgeChoice<'_>,
    ) -> Result<(), StorageError> {
        let old = &closed.open()?.segment;
        let mut salt = [0; 16];
        if !self.entropy.fill(&mut salt) {
            return Err(StorageError::Entropy);
        }
        let header = SegmentHeader {
            salt,
            segment_bytes: extent.segment_bytes(),
            ..old.header
        };
        let (disk, log_dir) = (self.shared.files.disk.as_ref(), &self.shared.files.log_dir);
        let path = log_dir.join(format!("purge{TEMPORARY_ENDING}"));
        match disk.remove(&path) {
            Ok(()) | Err(DiskError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let file = disk.create(&path, Access::Shared)?;
        let written = Rewriting::new(header, file.as_ref(), self.shared.files.index_stride_bytes)
            .run(closed, end_chain, choice);
        let written = written.and_then(|written| {
            assert_eq!(
                written.at, extent.frames_end,
                "frames have the planned size"
            );
            file.set_bytes(header.segment_bytes)?;
            file.sync_all()?;
            Ok(written)
        });
        let written = written.inspect_err(|_| {
            // What cannot be removed now is removed at the next opening.
            let _ = disk.remove(&path);
        })?;
        let seal = self.new_seal(closed.extent.end, &old.header, &header, &written);
        let directory = disk.open_dir(log_dir)?;
        disk.rename(&path, &segment_path(log_dir, old.base()))?;
        directory.sync()?;
        self.show(closed, header, file, written);
        if let Some(seal) = seal {
            let path = seal_path(log_dir, seal.base_position);
            disk.write_new_atomic(&path, &seal.encode(), Access::Shared)?;
        }
        Ok(())
    }

    /// Returns the seal of the new file, where the old one has a sound seal: the tree is taken from
    /// there. Without one the next opening for writing makes it.
    fn new_seal(
        &self,
        end: Position,
        old: &SegmentHeader,
        header: &SegmentHeader,
        written: &Written,
    ) -> Option<SealFile> {
        let seal = SealFile::read(
            self.shared.files.disk.as_ref(),
            &self.shared.files.log_dir,
            old,
        )?;
        let found = (seal.history.position(), seal.history.chain);
        (found == (end, written.chain)).then(|| SealFile {
            salt: header.salt,
            frames_end: written.at,
            segment_digest: written.hasher.finish(),
            index: written.index.clone(),
            ..seal
        })
    }

    /// Lets readers that come now find the new file.
    fn show(
        &self,
        closed: &Arc<ClosedSegment>,
        header: SegmentHeader,
        file: Arc<dyn DiskFile>,
        written: Written,
    ) {
        let (end, segment) = (
            closed.extent.end,
            Segment::new(header, file, self.shared.files.read_mode),
        );
        let new = ClosedSegment::read(segment, end, written.at, written.index);
        let new = Arc::new(new);
        let mut view = self.shared.view_mut();
        // Others may have closed its file meanwhile.
        let base = closed.extent.base;
        let place = view.closed.iter_mut().find(|it| it.extent.base == base);
        *place.expect("a closed segment stays") = Arc::clone(&new);
        view.tail.let_go_before(end);
        drop(view);
        self.shared.count_closed(&new);
    }
}

impl PurgeOutcome {
    fn add(&mut self, closed: &ClosedSegment, extent: &Extent) -> Result<(), StorageError> {
        self.segments_done += 1;
        if extent.events > 0 {
            let old_bytes = closed.open()?.segment.header.segment_bytes;
            self.segments_rewritten += 1;
            self.events += extent.events;
            self.payload_bytes += extent.payload_bytes;
            self.bytes_freed += old_bytes.saturating_sub(extent.segment_bytes());
        }
        Ok(())
    }
}

/// What becomes of a segment.
#[derive(Clone, Copy, Debug)]
struct Extent {
    events: u64,
    payload_bytes: u64,
    /// Byte after the last frame, once it is written anew.
    frames_end: u64,
}

impl Extent {
    fn of(closed: &ClosedSegment, choice: &PurgeChoice<'_>) -> Result<Self, StorageError> {
        let mut extent = Self {
            events: 0,
            payload_bytes: 0,
            frames_end: FRAMES_AT,
        };
        walk_closed(closed, &mut |frame| {
            if is_chosen(frame, choice) {
                extent.events += u64::from(frame.header().count);
                extent.payload_bytes += frame.payload_bytes();
                extent.frames_end += frame.header().purged_bytes();
            } else {
                extent.frames_end += frame.header().stored_bytes();
            }
            Ok(())
        })?;
        Ok(extent)
    }

    fn segment_bytes(&self) -> u64 {
        self.frames_end
            .next_multiple_of(SEGMENT_HEADER_BYTES as u64)
    }
}

/// Only event frames whose payloads are there can be chosen.
fn is_chosen(frame: &FrameView, choice: &PurgeChoice<'_>) -> bool {
    let header = frame.header();
    header.kind == Some(RecordKind::Event) && !header.purged && choice(header)
}

/// A segment on the way to its new file.
struct Rewriting<'a> {
    header: SegmentHeader,
    file: &'a dyn DiskFile,
    piece: Vec<u8>,
    written: Written,
}

/// What was written.
struct Written {
    /// Byte after it.
    at: u64,
    chain: ChainHash,
    hasher: InternalHasher,
    index: SparseIndex,
}

impl<'a> Rewriting<'a> {
    fn new(header: SegmentHeader, file: &'a dyn DiskFile, index_stride_bytes: u64) -> Self {
        Self {
            header,
            file,
            piece: Vec::with_capacity(PIECE_BYTES),
            written: Written {
                at: 0,
                chain: header.base_chain,
                hasher: InternalHasher::new(),
                index: SparseIndex::new(index_stride_bytes),
            },
        }
    }

    fn run(
        mut self,
        closed: &ClosedSegment,
        end_chain: ChainHash,
        choice: &PurgeChoice<'_>,
    ) -> Result<Written, StorageError> {
        let base = self.header.base_position;
        let page = self.header.encode();
        self.put(&page)?;
        let mut history = History::of_chain(base, self.header.base_chain);
        walk_closed(closed, &mut |frame| {
            let at = self.written.at;
            let rewritten = if is_chosen(frame, choice) {
                frame.purged(self.header.seed(), at)
            } else {
                Ok(frame.moved(self.header.seed(), at))
            };
            let rewritten = rewritten.map_err(StorageError::Corrupt)?;
            if frame.header().count > 0 {
                self.written
                    .index
                    .note(base, frame.header().base_position, at);
            }
            // From what is written, so that a digest which is not that of the payload shows.
            let view = rewritten.view(base, at);
            history.push_frame(&view).map_err(StorageError::Corrupt)?;
            self.put(&rewritten.head)?;
            self.put(&rewritten.body)
        })?;
        let end = closed.extent.end;
        if (history.position(), history.chain) != (end, end_chain) {
            let opened = closed.open()?;
            let (byte, kind) = (opened.frames_end, DamageKind::ChainBroken);
            let damage = opened.segment.damage(byte, end, kind);
            return Err(StorageError::Corrupt(damage));
        }
        self.flush()?;
        self.written.chain = history.chain;
        Ok(self.written)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.piece.extend_from_slice(bytes);
        self.written.at += u64::try_from(bytes.len()).expect("memory is smaller than 2^64 bytes");
        if self.piece.len() < PIECE_BYTES {
            return Ok(());
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        let bytes = u64::try_from(self.piece.len()).expect("memory is smaller than 2^64 bytes");
        self.file
            .write_all_at(&[&self.piece], self.written.at - bytes)?;
        self.written.hasher.update(&self.piece);
        self.piece.clear();
        Ok(())
    }
}

/// Shows each frame of a closed segment, watermarks too.
fn walk_closed(
    closed: &ClosedSegment,
    see: &mut dyn FnMut(&FrameView) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let opened = closed.open()?;
    let window = Window {
        segment: &opened.segment.header,
        start: 0,
        bytes: opened.segment.whole()?,
    };
    walk(&opened.segment, &window, Some(closed.extent.end), see)
}

/// Shows each frame that stands in `window`; the last record must stand before `end`.
fn walk(
    segment: &Segment,
    window: &Window<'_>,
    end: Option<Position>,
    see: &mut dyn FnMut(&FrameView) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let corrupt =
        |bad: BadGroup| StorageError::Corrupt(segment.damage(bad.byte, bad.position, bad.kind));
    let (mut at, mut position) = (FRAMES_AT, segment.base());
    loop {
        let frames = match window.group(at, position, Depth::Shape) {
            Found::Group(frames) => frames,
            Found::Bad(bad) => return Err(corrupt(bad)),
            Found::Nothing => break,
        };
        for frame in &frames {
            see(frame)?;
            at = frame.at() + frame.header().stored_bytes();
            position = frame.header().end_position();
        }
    }
    match end {
        Some(expected) if expected != position => {
            let kind = DamageKind::MissingFrames { expected };
            Err(StorageError::Corrupt(segment.damage(at, position, kind)))
        }
        _ => Ok(()),
    }
}
