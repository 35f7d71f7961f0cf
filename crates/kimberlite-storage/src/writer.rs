//! Appending to a log: the one place that writes to its segments.
//!
//! Invariants, while the writer is not poisoned:
//!
//! * `history.position()` is the position of the next record, `write_at` its frame's byte;
//! * everything from `write_at` to the end of the active segment is zero on disk;
//! * `marked` is durable;
//! * nothing in the active segment is durable before its header page and its name are;
//! * the segments before the active one are whole and synced.
//!
//! Writing and syncing are two stages: the writer is held, by its caller's lock, while a group is
//! written, and the [`SyncStage`] makes it durable without it. A failed write or sync leaves it unknown what is on disk. The writer is then poisoned for good:
//! only reopening, which reads and rewrites the tail, can tell.

use std::sync::Arc;

use kimberlite_crypto::internal_hash;
use kimberlite_disk::{Access, Appender, Disk, DiskError};
use kimberlite_types::{Position, Timestamp, limits};

use crate::checkpoint::HistoryState;
use crate::error::StorageError;
use crate::frame::{
    FinishedFrame, FrameHeader, FramePlacement, FrameSite, FrameView, UnplacedFrame,
};
use crate::history::History;
use crate::options::{LogOptions, Visibility};
use crate::prepare::{Jobs, Preparation};
use crate::purge::Purger;
use crate::reader::{ActiveMap, LogReader, Shared};
use crate::segment::{
    ClosedSegment, FRAMES_AT, OpenedSegment, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SealFile,
    Segment, SegmentHeader, SparseIndex, next_segment_bytes, seal_path,
};
use crate::sync_stage::{Settled, SyncStage};

/// Bytes that are written, where nobody waits for them, before a sync is begun.
const SYNC_AHEAD_BYTES: u64 = 8 << 20;

/// The next segment is prepared from this part of the active one on: a log that stops before is
/// not made to take its space.
const PREPARED_FROM_PART: u64 = 4;

/// When a commit group is synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Not now: a later sync covers it.
    Later,
    /// Once, after all its frames are written.
    Group,
    /// After each of its frames.
    EachFrame,
}

/// The writing end of a log. There is one at a time.
#[derive(Debug)]
pub struct LogWriter {
    pub(crate) shared: Arc<Shared>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) options: LogOptions,
    pub(crate) active: Arc<Segment>,
    /// Writes to the active segment.
    pub(crate) appender: Arc<Appender>,
    pub(crate) history: History,
    pub(crate) write_at: u64,
    /// The highest durable position that a frame on disk tells.
    pub(crate) marked: Position,
    pub(crate) last_time: Timestamp,
    pub(crate) preparation: Preparation,
    pub(crate) stage: Arc<SyncStage>,
    /// Bytes that were written since a sync was last begun ahead.
    pub(crate) unsynced_bytes: u64,
    pub(crate) jobs: Arc<Jobs>,
    /// The segment before the active one, with the history at its end, until the active one's name is
    /// durable: a seal tells that the next segment exists.
    pub(crate) unsealed: Option<(Arc<ClosedSegment>, History)>,
    /// Whom syncs and failures of this writer settled: its caller holds a lock.
    pub(crate) settled: Settled,
}

impl LogWriter {
    /// Returns a reader of the same log.
    pub fn reader(&self) -> LogReader {
        LogReader {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Returns the position that the next record will have.
    pub fn next_position(&self) -> Position {
        self.history.position()
    }

    /// Returns the position before which everything has been synced.
    pub fn durable(&self) -> Position {
        self.stage.durable()
    }

    /// Returns what makes written groups durable, for callers who wait without the writer.
    pub fn stage(&self) -> Arc<SyncStage> {
        Arc::clone(&self.stage)
    }

    /// Takes out those whom the writer settled, to be told, by dropping it, once no lock is held. With
    /// the writer those are told who were not taken.
    pub fn take_settled(&mut self) -> Settled {
        std::mem::take(&mut self.settled)
    }

    /// Whether an earlier failure has made the outcome of a write unknown.
    pub fn is_poisoned(&self) -> bool {
        self.stage.is_poisoned()
    }

    /// Returns chain and tree after the last record that was written.
    pub fn history(&self) -> HistoryState {
        HistoryState(self.history.clone())
    }

    /// Makes sure that a commit group of `bytes` has its place, and begins a new segment when it
    /// does not fit into the active one.
    ///
    /// # Errors
    ///
    /// [`StorageError::GroupTooLarge`], and [`StorageError::Disk`] when there is no space: the log is
    /// as it was, and the caller may try again. [`StorageError::OutcomeUnknown`] when earlier frames
    /// could not be synced.
    pub fn reserve(&mut self, bytes: u64) -> Result<(), StorageError> {
        if self.stage.is_poisoned() {
            return Err(StorageError::Poisoned);
        }
        let bytes_max = limits::GROUP_BYTES_MAX as u64;
        if bytes > bytes_max {
            return Err(StorageError::GroupTooLarge { bytes, bytes_max });
        }
        self.seal_closed();
        // A watermark must find its place behind any group.
        let watermark_bytes = crate::frame::FRAME_HEADER_BYTES as u64;
        if self.write_at + bytes + watermark_bytes > self.active.header.segment_bytes {
            let old_bytes = self.active.header.segment_bytes;
            self.roll(next_segment_bytes(Some(old_bytes), bytes))?;
        }
        Ok(())
    }

    /// Closes the active segment, so that what stands in it can be purged, and begins one that is no
    /// larger, but has 256 KiB, durably. Does nothing where no record stands in it.
    ///
    /// # Errors
    ///
    /// As [`LogWriter::reserve`].
    pub fn close_segment(&mut self) -> Result<(), StorageError> {
        if self.stage.is_poisoned() {
            return Err(StorageError::Poisoned);
        }
        if self.active.base() < self.history.position() {
            let bytes = self.active.header.segment_bytes;
            self.roll(bytes.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX))?;
        }
        self.sync()
    }

    /// Returns what purges closed segments, for callers who do so without the writer.
    pub fn purger(&self) -> Purger {
        Purger {
            shared: Arc::clone(&self.shared),
            entropy: Arc::clone(&self.options.entropy),
            jobs: Arc::clone(&self.jobs),
        }
    }

    /// Writes a commit group: all of its frames, or none of them after a crash.
    ///
    /// The placements must follow on each other and on the log. Readers see the records when the
    /// group is durable, or at once where the log is opened so.
    ///
    /// # Errors
    ///
    /// As [`LogWriter::reserve`]; [`StorageError::OutcomeUnknown`] when the write or the sync failed.
    pub fn commit(
        &mut self,
        group: Vec<(UnplacedFrame, FramePlacement)>,
        durability: Durability,
    ) -> Result<(), StorageError> {
        assert!(!group.is_empty(), "a commit group has a frame");
        let mut bytes = 0;
        for (frame, _) in &group {
            let frame_bytes = stored_bytes(frame);
            let bytes_max = limits::FRAME_BYTES_MAX as u64;
            if frame_bytes > bytes_max {
                let bytes = frame_bytes;
                return Err(StorageError::GroupTooLarge { bytes, bytes_max });
            }
            bytes += frame_bytes;
        }
        self.check_placements(&group);
        self.reserve(bytes)?;
        let frames = self.finish(group);
        match durability {
            Durability::Later | Durability::Group => self.write(&frames)?,
            Durability::EachFrame => self.write_each(&frames)?,
        }
        self.publish_written(frames);
        self.stage.written(self.history.position(), bytes);
        if durability == Durability::Later {
            self.sync_ahead(bytes);
            Ok(())
        } else {
            self.sync()
        }
    }

    /// Begins a sync in the background when much was written that nobody waits for: else all of it
    /// would be left for the one before the next segment, and appending would stand still for that
    /// long. A failure there is told by the next sync.
    fn sync_ahead(&mut self, bytes: u64) {
        self.unsynced_bytes += bytes;
        let waits = self.options.visibility == Visibility::Durable;
        if waits || self.unsynced_bytes < SYNC_AHEAD_BYTES || !self.options.background.is_thread() {
            return;
        }
        self.unsynced_bytes = 0;
        let (stage, end) = (Arc::clone(&self.stage), self.history.position());
        self.options.background.run(move || {
            // The stage keeps the outcome.
            let _ = stage.wait(end);
        });
    }

    /// Asserts what [`LogWriter::commit`] asks of its caller, before anything is changed.
    fn check_placements(&self, group: &[(UnplacedFrame, FramePlacement)]) {
        let (mut position, mut time) = (self.history.position(), self.last_time);
        for (frame, placement) in group {
            assert_eq!(
                placement.base_position, position,
                "frames follow on the log"
            );
            assert!(placement.time >= time, "time never goes back within a log");
            time = placement.time;
            position = position
                .checked_add(u64::from(frame.count()))
                .expect("no log comes near the last position");
        }
    }

    fn finish(&mut self, group: Vec<(UnplacedFrame, FramePlacement)>) -> Vec<FinishedFrame> {
        let (mut at, durable) = (self.write_at, self.stage.durable());
        let last = group.len() - 1;
        let mut frames = Vec::with_capacity(group.len());
        for (index, (frame, placement)) in group.into_iter().enumerate() {
            self.last_time = placement.time;
            let site = FrameSite {
                seed: self.active.seed(),
                at,
                log_id: self.shared.files.log_id,
                durable_position: durable,
                more: index < last,
            };
            let frame = frame.finish(&placement, site, &mut self.history);
            at += frame.header.stored_bytes();
            frames.push(frame);
        }
        frames
    }

    /// Writes and syncs frames one by one; the last one is left for the sync of the group.
    fn write_each(&mut self, frames: &[FinishedFrame]) -> Result<(), StorageError> {
        for (index, frame) in frames.iter().enumerate() {
            if index > 0 {
                self.stage.sync(&mut self.settled)?;
            }
            self.write(std::slice::from_ref(frame))?;
        }
        Ok(())
    }

    /// Writes frames at the end of the log.
    fn write(&mut self, frames: &[FinishedFrame]) -> Result<(), StorageError> {
        let buffers = frames
            .iter()
            .map(|frame| frame.bytes.as_ref())
            .collect::<Vec<_>>();
        let written = self.appender.append(&buffers);
        written.map_err(|error| self.poison(error))?;
        self.write_at += frames
            .iter()
            .map(|frame| frame.header.stored_bytes())
            .sum::<u64>();
        assert!(
            self.write_at <= self.active.header.segment_bytes,
            "space was reserved"
        );
        Ok(())
    }

    fn publish_written(&mut self, frames: Vec<FinishedFrame>) {
        let base = self.active.base();
        let mut view = self.shared.view_mut();
        let mut at = view.active_end;
        for frame in frames {
            self.marked = self.marked.max(frame.header.durable_position);
            view.index.note(base, frame.header.base_position, at);
            let stored = frame.header.stored_bytes();
            let frame = FrameView::new(frame.header, base, at, &frame.bytes);
            view.tail.push(frame.expect("a finished frame is whole"));
            at += stored;
        }
        view.active_end = at;
        debug_assert_eq!(at, self.write_at);
        if self.options.visibility == Visibility::Written {
            view.end = self.history.position();
        }
        drop(view);
        let early = self.active.header.segment_bytes / PREPARED_FROM_PART;
        if self.write_at > early && self.active.base() > Position::ZERO {
            self.preparation.request(next_segment_bytes(
                Some(self.active.header.segment_bytes),
                0,
            ));
        }
    }

    /// Syncs everything that was written, and shows it to readers; also the name of a segment in which
    /// nothing stands yet.
    ///
    /// # Errors
    ///
    /// [`StorageError::OutcomeUnknown`] when the sync failed: nobody knows what is durable, and a
    /// second sync would not tell.
    pub fn sync(&mut self) -> Result<(), StorageError> {
        self.unsynced_bytes = 0;
        let end = self.history.position();
        self.stage.hasten_under_lock(end, &mut self.settled)?;
        if !self.stage.is_named() {
            self.stage.sync(&mut self.settled)?;
        }
        self.seal_closed();
        Ok(())
    }

    /// Writes down, when the log falls quiet, that everything in it is durable, so that later
    /// damage to its last group is known for what it is.
    ///
    /// # Errors
    ///
    /// As [`LogWriter::sync`].
    pub fn write_watermark(&mut self) -> Result<(), StorageError> {
        self.sync()?;
        // The records may all be durable, and a watermark behind them be what failed.
        if self.stage.is_poisoned() {
            return Err(StorageError::Poisoned);
        }
        let bytes = crate::frame::FRAME_HEADER_BYTES as u64;
        let end = self.history.position();
        if self.marked == end {
            return Ok(());
        }
        if self.write_at + bytes > self.active.header.segment_bytes {
            // No group leaves so little: the segment was made by another release.
            return Ok(());
        }
        let header = FrameHeader::watermark(
            end,
            self.last_time,
            self.history.chain,
            self.shared.files.log_id.prefix(),
        );
        let encoded = header.encode(self.active.seed(), self.write_at);
        let written = self.appender.append(&[&encoded]);
        written.map_err(|error| self.poison(error))?;
        self.write_at += header.stored_bytes();
        self.stage.sync(&mut self.settled)?;
        self.marked = end;
        let mut view = self.shared.view_mut();
        view.active_end = self.write_at;
        if self.options.budget.is_scarce() {
            // The log is quiet, and others want the memory.
            view.tail.let_go_before(end);
        }
        Ok(())
    }

    /// Begins a new segment of `segment_bytes`.
    ///
    /// 1. The old segment is synced.
    /// 2. The new file, which reads as zeros, gets its header page,
    /// 3. and its name.
    /// 4. The writer turns to it, and the sync of its first frames makes all three durable.
    ///
    /// A crash before that sync leaves the old segment as the last one, or a new one whose header page
    /// or frames are zeros. An error in 3 leaves open which, so that poisons. A segment without frames
    /// that is too small is replaced by the new one, which has the same name. As its name is durable, and
    /// the seal before it may say so, the new file is synced before 3: a crash leaves one of the two.
    fn roll(&mut self, segment_bytes: u64) -> Result<(), StorageError> {
        self.sync()?;
        let mut salt = [0; 16];
        if !self.options.entropy.fill(&mut salt) {
            return Err(StorageError::Entropy);
        }
        let header = SegmentHeader {
            log_id: self.shared.files.log_id,
            base_position: self.history.position(),
            base_chain: self.history.chain,
            salt,
            segment_bytes,
        };
        let unnamed = self
            .preparation
            .take(header.segment_bytes)?
            .fill(header, &[])?;
        if self.active.base() == header.base_position {
            unnamed.sync()?;
        }
        let read_mode = self.options.read_mode;
        let log_dir = &self.shared.files.log_dir;
        let named = unnamed.name_unsynced(self.disk.as_ref(), log_dir, read_mode);
        let (segment, directory) = named.map_err(|error| self.poison(error))?;
        let segment = Arc::new(segment);
        // What the file system refused once is not tried again.
        let mode = self.appender.mode();
        let appender = segment.appender(
            self.disk.as_ref(),
            &self.shared.files.log_dir,
            FRAMES_AT,
            mode,
        );
        self.appender = Arc::new(appender.map_err(|error| self.poison(error))?);
        self.stage.turn_to(Arc::clone(&self.appender), directory)?;
        let old = std::mem::replace(&mut self.active, Arc::clone(&segment));
        let frames_end = std::mem::replace(&mut self.write_at, FRAMES_AT);
        self.marked = self.history.position();
        let closed = {
            let mut view = self.shared.view_mut();
            view.active = Arc::clone(&segment);
            view.active_map = ActiveMap::beside(&self.appender, self.options.read_mode);
            view.active_end = FRAMES_AT;
            if old.base() == segment.base() {
                return Ok(());
            }
            let next = SparseIndex::new(self.options.index_stride_bytes);
            let index = std::mem::replace(&mut view.index, next);
            let end = self.history.position();
            let closed = Arc::new(ClosedSegment::read(old.reopened(), end, frames_end, index));
            view.closed.push(Arc::clone(&closed));
            closed
        };
        self.shared.count_closed(&closed);
        self.unsealed = Some((closed, self.history.clone()));
        Ok(())
    }

    /// Has the closed segment sealed that waits for the next one's name.
    fn seal_closed(&mut self) {
        if self.unsealed.is_some()
            && self.stage.is_named()
            && let Some((closed, history)) = self.unsealed.take()
        {
            self.seal(closed, history);
        }
    }

    /// Makes the seal of a closed segment in the background. `history` stands at its end.
    pub(crate) fn seal(&self, closed: Arc<ClosedSegment>, history: History) {
        let (disk, log_dir) = (Arc::clone(&self.disk), self.shared.files.log_dir.clone());
        let running = Jobs::begin(&self.jobs);
        self.options.background.run(move || {
            let base = closed.extent.base;
            let sealed = seal_segment(&closed, history).and_then(|seal| {
                let path = seal_path(&log_dir, base);
                Ok(disk.write_new_atomic(&path, &seal.encode(), Access::Shared)?)
            });
            // Without its seal a segment is read as a whole, and sealed, at the next opening.
            if let Err(error) = sealed {
                tracing::warn!(%error, position = base.get(), "cannot seal a segment");
            }
            drop(running);
        });
    }

    fn poison(&mut self, error: DiskError) -> StorageError {
        self.settled.join(self.stage.poison());
        tracing::error!(%error, "a write failed, the log takes no more of them until it is reopened");
        StorageError::OutcomeUnknown(error)
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        // The next opening removes unfinished files: none may be in the making then.
        self.preparation.give_up();
        self.jobs.wait();
    }
}

fn stored_bytes(frame: &UnplacedFrame) -> u64 {
    u64::try_from(frame.stored_bytes()).expect("memory is smaller than 2^64 bytes")
}

fn seal_segment(closed: &ClosedSegment, history: History) -> Result<SealFile, StorageError> {
    debug_assert_eq!(history.position(), closed.extent.end);
    let OpenedSegment { segment, index, .. } = closed.open()?;
    let map = segment.whole()?;
    let frames_end = closed.extent.frames_end;
    let used = usize::try_from(frames_end)
        .unwrap_or(usize::MAX)
        .min(map.len());
    Ok(SealFile {
        log_id: segment.header.log_id,
        base_position: segment.base(),
        salt: segment.header.salt,
        frames_end,
        history,
        segment_digest: internal_hash(map.get(..used).unwrap_or_default()),
        index: index.clone(),
    })
}
