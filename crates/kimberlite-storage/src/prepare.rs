//! Making segment files: zeros first, a name last.
//!
//! Space is taken at once, and written with zeros in the background: syncing into blocks that were
//! written saves the file system a commit of its own. That is done in pieces, one after each sync of
//! the log, so that no sync waits for long, and not while the log writes much between its syncs: then
//! the zeros cost more than the commits. A writer that needs the file before all of it is written
//! takes it as it is.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use kimberlite_disk::{Access, Disk, DiskDirectory, DiskError, DiskFile};

use crate::background::{Background, Process};
use crate::error::StorageError;
use crate::options::{LogOptions, ReadMode, SegmentSpace};
use crate::segment::{Segment, SegmentHeader, segment_path};
use crate::sync_stage::SyncStage;

const PREPARED_NAME: &str = "prepared";
pub(crate) const NEXT_NAME: &str = "next.tmp";

/// What unfinished files end in; they hold nothing that counts.
pub(crate) const TEMPORARY_ENDING: &str = ".tmp";

/// Bytes that are written with zeros when a file is made: as many as its maker may wait for.
const ZEROED_AT_ONCE_BYTES: u64 = 256 << 10;

/// Bytes that are written with zeros, and synced, at a time: a sync of the log that comes meanwhile
/// waits for no more than these.
const PIECE_BYTES: u64 = 64 << 10;

/// As [`PIECE_BYTES`], where the log does not sync.
const QUIET_PIECE_BYTES: u64 = 256 << 10;

/// Bytes between two syncs from which on zeros cost more than they save. Writing 100 KiB takes about
/// as long as the commit of the file system that they spare.
const BYTES_A_SYNC_MAX: u64 = 64 << 10;

/// A file that reads as zeros, durably, without a name that counts.
#[derive(Debug)]
pub(crate) struct Blank {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    bytes: u64,
}

impl Blank {
    /// Makes a file that reads as zeros, durably, with its space taken. Of this the first part is
    /// written too, where that is asked for: as much as a caller may wait for.
    pub(crate) fn make(
        disk: &dyn Disk,
        path: PathBuf,
        bytes: u64,
        space: SegmentSpace,
    ) -> Result<Self, DiskError> {
        match disk.remove(&path) {
            Ok(()) | Err(DiskError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        let file = disk.create(&path, Access::Shared)?;
        let blank = Self { file, path, bytes };
        let filled = blank.file.allocate(0..bytes).and_then(|()| {
            if space == SegmentSpace::Written {
                blank.file.zero(0..bytes.min(ZEROED_AT_ONCE_BYTES))?;
            }
            blank.file.sync_all()
        });
        match filled {
            Ok(()) => Ok(blank),
            Err(error) => {
                // Whatever was written of it only takes space that somebody needs now.
                blank.discard(disk);
                Err(error)
            }
        }
    }

    /// Writes zeros over the rest, in pieces of as many bytes as `next_piece` says, 0 to pass, until
    /// it says none. A write that fails leaves what is taken as it is.
    fn write_zeros(&self, mut next_piece: impl FnMut() -> Option<u64>) {
        let mut at = ZEROED_AT_ONCE_BYTES;
        while at < self.bytes
            && let Some(bytes) = next_piece()
        {
            if bytes == 0 {
                continue;
            }
            let end = self.bytes.min(at + bytes);
            let written = self.file.zero(at..end).and_then(|()| self.file.sync_data());
            if let Err(error) = written {
                tracing::warn!(%error, "cannot write the next segment ahead");
                return;
            }
            at = end;
        }
    }

    /// Writes the header page and `frames` behind it. The file still has no name, and nothing of it
    /// is durable but its space.
    pub(crate) fn fill(
        self,
        header: SegmentHeader,
        frames: &[u8],
    ) -> Result<UnnamedSegment, DiskError> {
        debug_assert_eq!(header.segment_bytes, self.bytes);
        self.file.write_all_at(&[&header.encode(), frames], 0)?;
        Ok(UnnamedSegment {
            file: self.file,
            path: self.path,
            header,
        })
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives the space back.
    fn discard(self, disk: &dyn Disk) {
        // What cannot be removed now is removed at the next opening.
        let _ = disk.remove(&self.path);
    }
}

/// A segment that is whole but for its name.
#[derive(Debug)]
pub(crate) struct UnnamedSegment {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    header: SegmentHeader,
}

impl UnnamedSegment {
    /// Makes the segment durable, and then its name. A crash before this leaves a temporary file that
    /// the next opening removes; after an error nobody knows whether the name stands.
    pub(crate) fn name(
        self,
        disk: &dyn Disk,
        log_dir: &Path,
        read_mode: ReadMode,
    ) -> Result<Segment, DiskError> {
        self.sync()?;
        let (segment, directory) = self.name_unsynced(disk, log_dir, read_mode)?;
        directory.sync()?;
        Ok(segment)
    }

    /// Makes all of the segment but its name durable.
    pub(crate) fn sync(&self) -> Result<(), DiskError> {
        self.file.sync_data()
    }

    /// Gives the segment its name. Neither is durable before the file and the directory, which is
    /// returned, have been synced: power loss leaves any of the two.
    pub(crate) fn name_unsynced(
        self,
        disk: &dyn Disk,
        log_dir: &Path,
        read_mode: ReadMode,
    ) -> Result<(Segment, Box<dyn DiskDirectory>), DiskError> {
        let directory = disk.open_dir(log_dir)?;
        disk.rename(
            &self.path,
            &segment_path(log_dir, self.header.base_position),
        )?;
        Ok((Segment::new(self.header, self.file, read_mode), directory))
    }
}

/// The next segment's blank file, made ahead in the background.
#[derive(Debug)]
pub(crate) struct Preparation {
    disk: Arc<dyn Disk>,
    log_dir: PathBuf,
    background: Background,
    space: SegmentSpace,
    jobs: Arc<Jobs>,
    /// Whose syncs the zeros make way for, where they are written beside them.
    stage: Option<Arc<SyncStage>>,
    next: Arc<Next>,
    requested: bool,
    /// Names the next file, so that no two blanks in the making share one.
    count: u64,
}

/// What the background hands over.
#[derive(Debug, Default)]
struct Next {
    state: Mutex<Making>,
    made: Condvar,
    /// The writer waits for it.
    needed: AtomicBool,
}

#[derive(Debug, Default)]
enum Making {
    #[default]
    Idle,
    /// A job with this number waits for its turn.
    Queued(u64),
    Running,
    Ready(Blank),
}

impl Next {
    fn state(&self) -> MutexGuard<'_, Making> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, making: Making) {
        *self.state() = making;
        self.made.notify_all();
    }

    /// Begins what was queued under this number, unless nobody wants it any more.
    fn begin(&self, number: u64) -> bool {
        let mut state = self.state();
        let begins = matches!(*state, Making::Queued(queued) if queued == number);
        if begins {
            *state = Making::Running;
        }
        begins
    }

    /// Waits for what is being made, and takes it. What has not begun yet is not waited for: others
    /// may stand before it.
    fn take(&self) -> Option<Blank> {
        let running = |state: &mut Making| matches!(state, Making::Running);
        let made = self.made.wait_while(self.state(), running);
        let mut state = made.unwrap_or_else(PoisonError::into_inner);
        match std::mem::take(&mut *state) {
            Making::Ready(blank) => Some(blank),
            Making::Idle | Making::Queued(_) | Making::Running => None,
        }
    }
}

/// Hands nothing over, when a job ends without having made anything.
struct Handover(Arc<Next>, Option<Blank>);

impl Drop for Handover {
    fn drop(&mut self) {
        self.0
            .set(self.1.take().map_or(Making::Idle, Making::Ready));
    }
}

impl Preparation {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        log_dir: PathBuf,
        options: &LogOptions,
        jobs: Arc<Jobs>,
        stage: Option<Arc<SyncStage>>,
    ) -> Self {
        Self {
            stage,
            disk,
            log_dir,
            background: options.background.clone(),
            space: options.segment_space,
            jobs,
            next: Arc::default(),
            requested: false,
            count: 0,
        }
    }

    /// Begins to make a blank of `bytes`, once for each segment.
    pub(crate) fn request(&mut self, bytes: u64) {
        if self.requested {
            return;
        }
        self.requested = true;
        let disk = Arc::clone(&self.disk);
        self.count += 1;
        let name = format!("{PREPARED_NAME}-{}{TEMPORARY_ENDING}", self.count);
        let path = self.log_dir.join(name);
        let (space, running) = (self.space, Jobs::begin(&self.jobs));
        self.next.needed.store(false, Ordering::Relaxed);
        self.next.set(Making::Queued(self.count));
        let (next, number) = (Arc::clone(&self.next), self.count);
        let mut pace = Pace {
            stage: self.stage.clone(),
            written: None,
        };
        self.background.run(move || {
            if !next.begin(number) {
                return;
            }
            let mut handover = Handover(next, None);
            match Blank::make(disk.as_ref(), path, bytes, space) {
                Ok(blank) => {
                    if space == SegmentSpace::Written {
                        blank.write_zeros(|| pace.next_piece(&handover.0.needed));
                    }
                    handover.1 = Some(blank);
                }
                // The writer meets the same error, and reports it, when it needs the space.
                Err(error) => tracing::warn!(%error, "cannot prepare the next segment ahead"),
            }
            drop(handover);
            drop(running);
        });
    }

    /// Ends what is being made, and removes it: nobody will take it. A forked process leaves it to
    /// its parent.
    pub(crate) fn give_up(&self) {
        if !self.jobs.process.is_this() {
            return;
        }
        if let Some(blank) = self.take_made() {
            blank.discard(self.disk.as_ref());
        }
    }

    /// Takes what was made. What is being made is taken as it is after the piece that is being written:
    /// its maker waits for no sync any more, as none comes while the writer waits.
    fn take_made(&self) -> Option<Blank> {
        self.next.needed.store(true, Ordering::Relaxed);
        if let Some(stage) = &self.stage {
            stage.look_again();
        }
        self.next.take()
    }

    /// Returns a blank of exactly `bytes`: the one made ahead when there is one that fits.
    pub(crate) fn take(&mut self, bytes: u64) -> Result<Blank, StorageError> {
        self.requested = false;
        match self.take_made() {
            Some(blank) if blank.bytes() == bytes => Ok(blank),
            other => {
                if let Some(other) = other {
                    other.discard(self.disk.as_ref());
                }
                Ok(Blank::make(
                    self.disk.as_ref(),
                    self.log_dir.join(NEXT_NAME),
                    bytes,
                    self.space,
                )?)
            }
        }
    }
}

/// How fast zeros are written beside a log.
#[derive(Debug)]
struct Pace {
    /// None where nothing runs beside the log.
    stage: Option<Arc<SyncStage>>,
    /// The log's bytes before the last look.
    written: Option<u64>,
}

impl Pace {
    /// Waits for a good time for the next piece, and returns its bytes, 0 when it is none; `None` once
    /// the file is needed.
    fn next_piece(&mut self, needed: &AtomicBool) -> Option<u64> {
        let stage = self.stage.as_ref();
        let written = stage.and_then(|stage| stage.after_sync(needed));
        if needed.load(Ordering::Relaxed) {
            return None;
        }
        let Some(written) = written else {
            return Some(QUIET_PIECE_BYTES);
        };
        let since = written - self.written.replace(written).unwrap_or(0);
        Some(if since > BYTES_A_SYNC_MAX {
            0
        } else {
            PIECE_BYTES
        })
    }
}

/// Counts a log's jobs in the background, so that the log can wait for them before it goes.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    running: Mutex<usize>,
    ended: Condvar,
    process: Process,
}

/// A job that is counted until this is dropped.
#[derive(Debug)]
pub(crate) struct RunningJob(Arc<Jobs>);

impl Jobs {
    pub(crate) fn begin(this: &Arc<Self>) -> RunningJob {
        *this.running.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        RunningJob(Arc::clone(this))
    }

    pub(crate) fn wait(&self) {
        if !self.process.is_this() {
            return;
        }
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        while *running > 0 {
            running = self
                .ended
                .wait(running)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for RunningJob {
    fn drop(&mut self) {
        *self
            .0
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use kimberlite_crypto::Entropy;
    use kimberlite_testkit::SimulatedDisk;
    use kimberlite_types::{ChainHash, LogId, Position};

    use super::*;
    use crate::segment::SEGMENT_BYTES_MIN;

    #[derive(Debug)]
    struct NoEntropy;

    impl Entropy for NoEntropy {
        fn fill(&self, _: &mut [u8]) -> bool {
            false
        }
    }

    fn options() -> LogOptions {
        LogOptions::new(Arc::new(NoEntropy), Background::inline())
    }

    #[test]
    fn a_blank_in_the_making_never_takes_the_file_of_another() {
        let disk = SimulatedDisk::new(1);
        let log_dir = Path::new("/log");
        disk.create_dir_all(log_dir).unwrap();
        let mut preparation = Preparation::new(
            Arc::new(disk.clone()),
            log_dir.to_owned(),
            &options(),
            Arc::default(),
            None,
        );
        let mut taken = Vec::new();
        for _ in 0..3 {
            preparation.request(SEGMENT_BYTES_MIN);
            taken.push(preparation.take(SEGMENT_BYTES_MIN).unwrap());
        }
        for (base, blank) in (0..).zip(taken) {
            let header = SegmentHeader {
                log_id: LogId::new([1; 32]),
                base_position: Position::new(base),
                base_chain: ChainHash::new([2; 32]),
                salt: [3; 16],
                segment_bytes: SEGMENT_BYTES_MIN,
            };
            let unnamed = blank.fill(header, b"frames").unwrap();
            unnamed.name(&disk, log_dir, ReadMode::Mapped).unwrap();
            let bytes = disk.contents(segment_path(log_dir, header.base_position));
            assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        }
        assert_eq!(disk.files().len(), 3);
    }

    #[test]
    fn a_blank_that_is_needed_before_all_of_it_is_written_reads_as_zeros() {
        let disk = SimulatedDisk::new(1);
        let log_dir = Path::new("/log");
        disk.create_dir_all(log_dir).unwrap();
        let path = log_dir.join("blank");
        let bytes = ZEROED_AT_ONCE_BYTES + 4 * PIECE_BYTES;
        let blank = Blank::make(&disk, path.clone(), bytes, SegmentSpace::Written).unwrap();
        let before = disk.syncs();
        let mut left = 2;
        blank.write_zeros(|| {
            left -= 1;
            (left >= 0).then_some(PIECE_BYTES)
        });
        let pieces = disk.syncs() - before;
        assert_eq!(pieces, 2, "it stops after the piece that it is at");
        let zeros = vec![0; usize::try_from(bytes).unwrap()];
        assert_eq!(disk.durable_contents(&path), zeros);
    }

    #[test]
    fn no_more_zeros_are_written_once_the_file_is_needed() {
        let mut pace = Pace {
            stage: None,
            written: None,
        };
        let needed = AtomicBool::new(false);
        assert_eq!(pace.next_piece(&needed), Some(QUIET_PIECE_BYTES));
        needed.store(true, Ordering::Relaxed);
        assert_eq!(pace.next_piece(&needed), None);
    }

    #[test]
    fn a_job_that_nobody_wants_any_more_makes_nothing() {
        let next = Next::default();
        next.set(Making::Queued(1));
        assert!(next.take().is_none(), "what is queued is not waited for");
        assert!(!next.begin(1));
        next.set(Making::Queued(2));
        assert!(!next.begin(1) && next.begin(2));
        drop(Handover(Arc::new(next), None));
    }

    #[test]
    fn a_blank_that_nobody_will_take_is_removed() {
        let disk = SimulatedDisk::new(1);
        let log_dir = Path::new("/log");
        disk.create_dir_all(log_dir).unwrap();
        let mut preparation = Preparation::new(
            Arc::new(disk.clone()),
            log_dir.to_owned(),
            &options(),
            Arc::default(),
            None,
        );
        preparation.request(SEGMENT_BYTES_MIN);
        assert_eq!(disk.files().len(), 1);
        preparation.give_up();
        assert!(disk.files().is_empty());
    }

    #[test]
    fn a_blank_of_the_wrong_size_is_given_back() {
        let disk = SimulatedDisk::new(1);
        let log_dir = Path::new("/log");
        disk.create_dir_all(log_dir).unwrap();
        let mut preparation = Preparation::new(
            Arc::new(disk.clone()),
            log_dir.to_owned(),
            &options(),
            Arc::default(),
            None,
        );
        preparation.request(SEGMENT_BYTES_MIN);
        let blank = preparation.take(2 * SEGMENT_BYTES_MIN).unwrap();
        assert_eq!(blank.bytes(), 2 * SEGMENT_BYTES_MIN);
        assert_eq!(disk.files(), [log_dir.join(NEXT_NAME)]);
    }
}
