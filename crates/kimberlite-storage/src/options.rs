//! How a log is opened.

use std::sync::Arc;
use std::time::Duration;

use kimberlite_crypto::Entropy;
use kimberlite_disk::WriteMode;

use crate::background::Background;
use crate::budget::Budget;
use crate::segment::INDEX_STRIDE_BYTES;

/// Up to where readers see the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// Up to what has been synced.
    Durable,
    /// Up to what has been written: for a writer that syncs only when asked to.
    Written,
}

/// How the space of a segment is taken before anything is written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentSpace {
    /// Written with zeros in the background, as far as there is time for it, so that each sync finds
    /// its blocks in place: about twice as fast.
    Written,
    /// Only taken: for a writer that hardly ever syncs.
    Taken,
}

/// How the bytes of segments come into memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ReadMode {
    /// Through mappings of their files: without a copy or a system call, but a file that is cut
    /// short by somebody else ends the process (SIGBUS), and so does an error of the disk.
    #[default]
    Mapped,
    /// Each is copied out of its file: for file systems that other machines write to too, and
    /// wherever a process must outlive its disk.
    Copied,
}

/// How a log is opened.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Where segment salts come from.
    pub entropy: Arc<dyn Entropy>,
    /// Up to where readers see the log.
    pub visibility: Visibility,
    /// How the space of segments is taken.
    pub segment_space: SegmentSpace,
    /// How frames come to the disk. Where readers see what is not synced yet, it is through the page
    /// cache in any case: only there can they read it.
    pub write_mode: WriteMode,
    /// How bytes are read.
    pub read_mode: ReadMode,
    /// Bytes of recent frames that are kept in memory for readers.
    pub tail_bytes_max: usize,
    /// What all logs that are opened with it share.
    pub budget: Arc<Budget>,
    /// Bytes of frames between two entries of the index that finds records in a segment: more of
    /// them take less memory, and longer to read.
    pub index_stride_bytes: u64,
    /// How long whoever begins a sync waits for others to share it.
    pub sync_delay: Duration,
    /// Where segments are prepared and sealed.
    pub background: Background,
}

impl LogOptions {
    /// Bytes of recent frames that are kept unless the caller says otherwise: 4 MiB.
    pub const TAIL_BYTES_MAX: usize = 4 << 20;

    /// Bytes of frames between two entries of the index unless the caller says otherwise: 4 KiB.
    pub const INDEX_STRIDE_BYTES: u64 = INDEX_STRIDE_BYTES;

    /// Makes the default options.
    pub fn new(entropy: Arc<dyn Entropy>, background: Background) -> Self {
        Self {
            entropy,
            visibility: Visibility::Durable,
            segment_space: SegmentSpace::Written,
            write_mode: WriteMode::default(),
            read_mode: ReadMode::default(),
            tail_bytes_max: Self::TAIL_BYTES_MAX,
            budget: Arc::default(),
            index_stride_bytes: Self::INDEX_STRIDE_BYTES,
            sync_delay: Duration::ZERO,
            background,
        }
    }

    /// Returns how frames come to the disk.
    pub(crate) fn write_mode(&self) -> WriteMode {
        match self.visibility {
            Visibility::Durable => self.write_mode,
            Visibility::Written => WriteMode::Buffered,
        }
    }
}
