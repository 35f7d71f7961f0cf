//! Making segment files: zeros first, a name last.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use kimberlite_disk::{Access, Disk, DiskError, DiskFile};

use crate::background::{Background, Process};
use crate::error::StorageError;
use crate::options::{LogOptions, SegmentSpace};
use crate::segment::{Segment, SegmentHeader, segment_path};

const PREPARED_NAME: &str = "prepared";
pub(crate) const NEXT_NAME: &str = "next.tmp";

/// What unfinished files end in; they hold nothing that counts.
pub(crate) const TEMPORARY_ENDING: &str = ".tmp";

/// A file of durable zeros without a name that counts.
#[derive(Debug)]
pub(crate) struct Blank {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    bytes: u64,
}

impl Blank {
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
        let filled = match space {
            SegmentSpace::Written => file.zero(0..bytes),
            SegmentSpace::Taken => file.allocate(0..bytes),
        };
        let filled = filled.and_then(|()| file.sync_all());
        if let Err(error) = filled {
            drop(file);
            // Whatever was written of it only takes space that somebody needs now.
            let _ = disk.remove(&path);
            return Err(error);
        }
        Ok(Self { file, path, bytes })
    }

    /// Writes the header page and `frames` behind it, durably. The file still has no name.
    pub(crate) fn fill(
        self,
        header: SegmentHeader,
        frames: &[u8],
    ) -> Result<UnnamedSegment, DiskError> {
        debug_assert_eq!(header.segment_bytes, self.bytes);
        self.file.write_all_at(&[&header.encode(), frames], 0)?;
        self.file.sync_data()?;
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

/// A segment that is whole and durable but for its name.
#[derive(Debug)]
pub(crate) struct UnnamedSegment {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    header: SegmentHeader,
}

impl UnnamedSegment {
    /// Gives the segment its name, durably. A crash before this leaves a temporary file that the
    /// next opening removes; after an error nobody knows whether the name stands.
    pub(crate) fn name(self, disk: &dyn Disk, log_dir: &Path) -> Result<Segment, DiskError> {
        let directory = disk.open_dir(log_dir)?;
        disk.rename(
            &self.path,
            &segment_path(log_dir, self.header.base_position),
        )?;
        directory.sync()?;
        Ok(Segment::new(self.header, self.file))
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
    ready: Arc<Mutex<Option<Blank>>>,
    requested: bool,
    /// Names the next file, so that no two blanks in the making share one.
    count: u64,
}

impl Preparation {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        log_dir: PathBuf,
        options: &LogOptions,
        jobs: Arc<Jobs>,
    ) -> Self {
        Self {
            disk,
            log_dir,
            background: options.background.clone(),
            space: options.segment_space,
            jobs,
            ready: Arc::default(),
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
        let (disk, ready) = (Arc::clone(&self.disk), Arc::clone(&self.ready));
        self.count += 1;
        let name = format!("{PREPARED_NAME}-{}{TEMPORARY_ENDING}", self.count);
        let path = self.log_dir.join(name);
        let (space, running) = (self.space, Jobs::begin(&self.jobs));
        self.background.run(move || {
            match Blank::make(disk.as_ref(), path, bytes, space) {
                Ok(blank) => {
                    if let Some(late) = replace_ready(&ready, Some(blank)) {
                        late.discard(disk.as_ref());
                    }
                }
                // The writer meets the same error, and reports it, when it needs the space.
                Err(error) => tracing::warn!(%error, "cannot prepare the next segment ahead"),
            }
            drop(running);
        });
    }

    /// Returns a blank of exactly `bytes`: the one made ahead when it is ready and fits.
    pub(crate) fn take(&mut self, bytes: u64) -> Result<Blank, StorageError> {
        self.requested = false;
        match replace_ready(&self.ready, None) {
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

fn replace_ready(ready: &Mutex<Option<Blank>>, blank: Option<Blank>) -> Option<Blank> {
    let mut ready = ready.lock().unwrap_or_else(PoisonError::into_inner);
    std::mem::replace(&mut *ready, blank)
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
    use kimberlite_testkit::SimulatedDisk;
    use kimberlite_types::{ChainHash, LogId, Position};

    use super::*;
    use crate::options::Entropy;
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
            unnamed.name(&disk, log_dir).unwrap();
            let bytes = disk.contents(segment_path(log_dir, header.base_position));
            assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        }
        assert_eq!(disk.files().len(), 3);
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
        );
        preparation.request(SEGMENT_BYTES_MIN);
        let blank = preparation.take(2 * SEGMENT_BYTES_MIN).unwrap();
        assert_eq!(blank.bytes(), 2 * SEGMENT_BYTES_MIN);
        assert_eq!(disk.files(), [log_dir.join(NEXT_NAME)]);
    }
}
