//! Reading all segments of a log in order.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use kimberlite_disk::{Disk, OpenMode};
use kimberlite_types::{ChainHash, LogId, Position, Timestamp};

use super::held::Held;
use super::{Visitor, segment_files};
use crate::checkpoint::{HistoryState, Statement, Witness};
use crate::damage::{Damage, DamageKind};
use crate::error::StorageError;
use crate::frame::FrameView;
use crate::history::History;
use crate::options::ReadMode;
use crate::reader::read_bytes;
use crate::recovery::{TailScan, TailVerdict, scan_tail};
use crate::scan::Window;
use crate::segment::{
    ClosedSegment, INDEX_STRIDE_BYTES, SealFile, Segment, SparseIndex, read_header, segment_damage,
    segment_name, segment_path,
};
use crate::snapshot::LogBase;

/// How often an observer reads a last segment that looks damaged.
const OBSERVER_ATTEMPTS: u32 = 5;

/// A log on the way to being open.
pub(super) struct Opening<'a, 'v> {
    pub(super) disk: &'a Arc<dyn Disk>,
    pub(super) log_dir: &'a Path,
    pub(super) mode: OpenMode,
    pub(super) read_mode: ReadMode,
    visitor: &'a mut Visitor<'v>,
    pub(super) index_stride_bytes: u64,
    /// Which log it is, once that is known.
    pub(super) log_id: Option<LogId>,
    /// The place of the snapshot that the opening begins at, until the log was read up to it.
    pub(super) base: Option<LogBase>,
    pub(super) closed: Vec<Arc<ClosedSegment>>,
    /// Closed segments that want a seal, with the history at their ends.
    pub(super) unsealed: Vec<(Arc<ClosedSegment>, History)>,
    /// Chain and tree as far as the log was read, as far as they are sound. Up to the size of
    /// `witnessed` they are what seals say, from there on they are computed.
    pub(super) history: Option<History>,
    /// What a signed checkpoint states, until the log was read up to its size.
    pub(super) witnessed: Option<History>,
    /// What the newest checkpoint states, until the history was computed up to its size.
    pub(super) stated: Option<Statement>,
    pub(super) end: Position,
    pub(super) last_time: Timestamp,
    pub(super) damage: Vec<Damage>,
    /// Position after the last record that the visitor saw.
    pub(super) visited: Position,
}

/// The last segment, read but not yet judged.
pub(super) struct LastSegment {
    pub(super) segment: Segment,
    /// Whether it has a header page. One that was not synced has none: then `segment` tells of the one
    /// that a writer gives it.
    pub(super) begun: bool,
    pub(super) bytes: Bytes,
    pub(super) scan: TailScan,
    pub(super) index: SparseIndex,
    /// Of `bytes`, where they are a mapping.
    pub(super) held: Option<Held>,
    pub(super) vouched: Position,
}

impl LastSegment {
    /// Refuses what no writer may go on from.
    pub(super) fn refuse_damage(&self) -> Result<(), StorageError> {
        match &self.scan.verdict {
            TailVerdict::Clean | TailVerdict::Torn { .. } => Ok(()),
            TailVerdict::Corrupt(damage) => Err(StorageError::Corrupt(damage.clone())),
            TailVerdict::RolledBack => Err(StorageError::RolledBack {
                end: self.scan.end,
                witnessed: self.vouched,
            }),
        }
    }
}

impl<'a, 'v> Opening<'a, 'v> {
    pub(super) fn new(
        disk: &'a Arc<dyn Disk>,
        log_dir: &'a Path,
        mode: OpenMode,
        visitor: &'a mut Visitor<'v>,
    ) -> Self {
        Self {
            disk,
            log_dir,
            mode,
            read_mode: ReadMode::default(),
            visitor,
            index_stride_bytes: INDEX_STRIDE_BYTES,
            log_id: None,
            base: None,
            closed: Vec::new(),
            unsealed: Vec::new(),
            history: None,
            witnessed: None,
            stated: None,
            end: Position::ZERO,
            last_time: Timestamp::default(),
            damage: Vec::new(),
            visited: Position::ZERO,
        }
    }

    /// Holds the log against what signed checkpoints state of it.
    pub(super) fn witness(&mut self, witness: &Witness) {
        self.witnessed = witness.history.as_ref().map(|state| state.0.clone());
        self.stated = witness.newest;
    }

    pub(super) fn read_segments(&mut self, witness: &Witness) -> Result<LastSegment, StorageError> {
        let vouched = witness.size();
        let segments = segment_files(self.disk.as_ref(), self.log_dir)?;
        let unread = match &witness.base {
            Some(base) => self.begin_at(base, &segments)?,
            None => 0,
        };
        let Some((&(last, _), closed)) = segments.split_last() else {
            return Err(StorageError::FirstSegmentMissing);
        };
        let with_next = closed.iter().zip(segments.iter().skip(1)).skip(unread);
        for (&(base, _), &(next, _)) in with_next {
            if let Err(error) = self.read_closed(base, next) {
                return self.end_before(error, vouched);
            }
            self.end = next;
        }
        let last = match self.read_last(last, vouched) {
            Ok(last) => last,
            Err(error) => self.end_before(error, vouched)?,
        };
        self.pass_base_at_end(&last)?;
        Ok(last)
    }

    /// Lets an observer read up to a segment that cannot be read at all.
    fn end_before(
        &mut self,
        error: StorageError,
        vouched: Position,
    ) -> Result<LastSegment, StorageError> {
        let damage = match error {
            StorageError::Corrupt(damage) if self.mode == OpenMode::Read => damage,
            other => return Err(other),
        };
        if self.base.is_some() {
            return Err(StorageError::SnapshotUnfit);
        }
        let Some(readable) = self.closed.pop() else {
            return Err(StorageError::Corrupt(damage));
        };
        self.damage.push(damage);
        let opened = readable.open()?;
        let segment = opened.segment.reopened();
        let scan = TailScan::ending(readable.extent.end, opened.frames_end);
        let index = opened.index.clone();
        Ok(LastSegment {
            segment,
            begun: true,
            bytes: Bytes::new(),
            scan,
            index,
            held: None,
            vouched,
        })
    }

    /// Opens the segment at `base`. A header page that cannot be read leaves nothing to go by.
    pub(super) fn open_segment(&mut self, base: Position) -> Result<Segment, StorageError> {
        let file = self
            .disk
            .open(&segment_path(self.log_dir, base), self.mode)?;
        let corrupt = |kind| StorageError::Corrupt(segment_damage(base, kind));
        let header = read_header(file.as_ref(), base)?;
        let log_id = *self.log_id.get_or_insert(header.log_id);
        if header.base_position != base || header.log_id != log_id {
            return Err(corrupt(DamageKind::ForeignSegment));
        }
        if base != self.end {
            return Err(corrupt(DamageKind::MissingSegment));
        }
        if base == Position::ZERO {
            self.history = Some(History::start(&log_id));
        }
        if let Some(history) = &self.history
            && history.chain != header.base_chain
        {
            return Err(corrupt(DamageKind::ChainBroken));
        }
        Ok(Segment::new(header, file, self.read_mode))
    }

    /// Notes a file of the wrong size, once what is there of it was read.
    pub(super) fn check_size(&mut self, segment: &Segment) -> Result<(), StorageError> {
        self.damage.extend(segment.size_damage()?);
        Ok(())
    }

    /// Returns the segment's seal when it is there, sound, and of this segment.
    pub(super) fn read_seal(&self, segment: &Segment) -> Option<SealFile> {
        SealFile::read(self.disk.as_ref(), self.log_dir, &segment.header)
    }

    fn read_last(
        &mut self,
        base: Position,
        vouched: Position,
    ) -> Result<LastSegment, StorageError> {
        if let Some(last) = self.read_not_begun(base, vouched)? {
            return Ok(last);
        }
        let segment = self.open_segment(base)?;
        let (bytes, scan, held) = self.scan_last(&segment, vouched)?;
        let mut index = SparseIndex::new(self.index_stride_bytes);
        for frame in &scan.frames {
            self.visit(frame)?;
            if frame.header().count > 0 {
                index.note(base, frame.header().base_position, frame.at());
            }
        }
        self.end = scan.end;
        self.check_size(&segment)?;
        self.check_unsealed(&segment)?;
        Ok(LastSegment {
            segment,
            begun: true,
            bytes,
            scan,
            index,
            held,
            vouched,
        })
    }

    /// Notes that the last segment has a seal: one is made only once the next segment's name is
    /// durable, so that one is missing.
    fn check_unsealed(&mut self, segment: &Segment) -> Result<(), StorageError> {
        let Some(seal) = self.read_seal(segment) else {
            return Ok(());
        };
        let position = seal.history.position();
        // Beside an observer a writer may have begun it since the directory was listed.
        if !self.disk.exists(&segment_path(self.log_dir, position))? {
            self.damage.push(Damage {
                segment: segment_name(position),
                byte: 0,
                position,
                kind: DamageKind::MissingSegment,
            });
        }
        Ok(())
    }

    /// Reads the last segment. Beside a writer an observer may see a write half done: what looks
    /// damaged must do so again and again.
    fn scan_last(
        &self,
        segment: &Segment,
        vouched: Position,
    ) -> Result<(Bytes, TailScan, Option<Held>), StorageError> {
        let mut attempts = if self.mode == OpenMode::Read {
            OBSERVER_ATTEMPTS
        } else {
            1
        };
        loop {
            let file_bytes = segment.file.bytes()?.min(segment.header.segment_bytes);
            let (bytes, held) = match (self.mode, self.read_mode) {
                (OpenMode::ReadWrite, ReadMode::Mapped) => {
                    let (bytes, held) = Held::map(segment.file.as_ref(), file_bytes)?;
                    (bytes, Some(held))
                }
                _ => (read_bytes(segment, 0, file_bytes)?, None),
            };
            let window = Window {
                segment: &segment.header,
                start: 0,
                bytes: bytes.clone(),
            };
            let scan = scan_tail(&window, segment.base(), vouched);
            attempts -= 1;
            if attempts == 0 || !matches!(scan.verdict, TailVerdict::Corrupt(_)) {
                return Ok((bytes, scan, held));
            }
        }
    }

    /// Shows a frame to the visitor, unless something before it was damaged. A wrong length alone hides
    /// no record.
    pub(super) fn visit(&mut self, frame: &FrameView) -> Result<(), StorageError> {
        self.last_time = self.last_time.max(frame.header().time);
        if self.is_before_base(frame)? {
            return Ok(());
        }
        let hides = |damage: &Damage| !matches!(damage.kind, DamageKind::SegmentBytes { .. });
        if frame.header().count == 0 || self.damage.iter().any(hides) {
            return Ok(());
        }
        self.visited = frame.header().end_position();
        (self.visitor)(frame).map_err(|source| StorageError::Replay {
            position: frame.header().base_position,
            source,
        })
    }

    pub(super) fn refuse_damage(&self) -> Result<(), StorageError> {
        match self.damage.first() {
            Some(damage) => Err(StorageError::Corrupt(damage.clone())),
            None => Ok(()),
        }
    }

    /// Carries the history over frames of `segment`; an observer needs none.
    ///
    /// At the size of the checkpoint the log must be what was signed, and the history goes on from
    /// that; frames before it may be skipped where nobody asks for the history in between.
    pub(super) fn hash(
        &mut self,
        segment: &Segment,
        frames: &[FrameView],
        before: BeforeCheckpoint,
    ) -> Result<(), StorageError> {
        if self.mode == OpenMode::Read {
            return Ok(());
        }
        for frame in frames {
            let (base, end) = (frame.header().base_position, frame.header().end_position());
            let corrupt =
                |byte, position, kind| StorageError::Corrupt(segment.damage(byte, position, kind));
            if let Some(size) = self.witnessed.as_ref().map(History::position) {
                if base == size {
                    self.history = self.witnessed.take();
                    if self.history.as_ref().map(|history| history.chain)
                        != Some(frame.header().chain_before)
                    {
                        let kind = DamageKind::CheckpointMismatch;
                        return Err(corrupt(frame.at(), base, kind));
                    }
                } else if base < size && size < end {
                    return Err(corrupt(frame.at(), base, DamageKind::CheckpointMismatch));
                } else if before == BeforeCheckpoint::Skip {
                    continue;
                }
            }
            self.check_statement(segment, frame.at())?;
            if let Some(history) = &mut self.history {
                history.push_frame(frame).map_err(StorageError::Corrupt)?;
            }
            self.check_statement(segment, frame.at() + frame.header().stored_bytes())?;
        }
        Ok(())
    }

    /// Compares the history, which goes up to byte `at` of `segment`, with the newest checkpoint once
    /// it has come to its size.
    fn check_statement(&mut self, segment: &Segment, at: u64) -> Result<(), StorageError> {
        let (Some(history), Some(stated)) = (&self.history, self.stated) else {
            return Ok(());
        };
        // What seals say before the checkpoint that the history was taken from is not computed.
        if self.witnessed.is_some() || history.position() < stated.size {
            return Ok(());
        }
        self.stated = None;
        if HistoryState(history.clone()).statement() == stated {
            return Ok(());
        }
        let kind = DamageKind::CheckpointMismatch;
        Err(StorageError::Corrupt(segment.damage(at, stated.size, kind)))
    }

    /// Returns the history at the end of the log, hashing no more than what stands behind the
    /// checkpoint.
    pub(super) fn history_at_end(
        &mut self,
        scan: &TailScan,
        segment: &Segment,
    ) -> Result<History, StorageError> {
        self.hash(segment, &scan.frames, BeforeCheckpoint::Skip)?;
        if let Some(witnessed) = self.witnessed.take() {
            // No frame begins at its size: only the chain over the last one can tell.
            let chain = chain_at_end(scan, segment);
            if (scan.end, chain) != (witnessed.position(), Some(witnessed.chain)) {
                let (byte, position) = (scan.end_at, scan.end);
                let kind = DamageKind::CheckpointMismatch;
                return Err(StorageError::Corrupt(segment.damage(byte, position, kind)));
            }
            self.history = Some(witnessed);
        }
        self.check_statement(segment, scan.end_at)?;
        let history = self
            .history
            .take()
            .expect("a log without damage has a history");
        assert_eq!(history.position(), scan.end, "every record was hashed");
        Ok(history)
    }
}

/// What happens to frames before the size of the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BeforeCheckpoint {
    /// They are passed over.
    Skip,
    /// They are hashed too, to make a seal.
    Hash,
}

/// Returns the chain at the end of the last segment, by the word of its last frame.
pub(super) fn chain_at_end(scan: &TailScan, segment: &Segment) -> Option<ChainHash> {
    let last = scan.frames.iter().rfind(|frame| frame.header().count > 0);
    last.map_or(Some(segment.header.base_chain), |frame| {
        frame.chain_after().ok()
    })
}
