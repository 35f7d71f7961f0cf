//! Appending to a file whose space was taken before and reads as zeros.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::direct::{BlockWriter, is_refusal};
use crate::{Disk, DiskError, DiskFile, OpenMode};

/// How what is appended to a file comes to the disk. The bytes on disk are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WriteMode {
    /// Through the page cache: a write copies into it, a sync writes it back.
    #[default]
    Buffered,
    /// Past the page cache (`O_DIRECT`): a write copies into memory of the process, a sync writes
    /// whole blocks of it to the device. Buffered, with one warning, where that is refused.
    Direct,
}

/// The one who appends to a file.
///
/// What was appended is in the file, for other handles and after the process has ended, only once
/// [`sync`](Appender::sync) has returned; under [`WriteMode::Buffered`] it is seen before. Until it
/// is dropped nobody else writes to the file, nobody maps it but what was appended to one that
/// [writes once](Appender::writes_once), and one caller appends at a time; it may be synced
/// meanwhile.
#[derive(Debug)]
pub struct Appender {
    file: Arc<dyn DiskFile>,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Buffered { end: Mutex<u64> },
    Blocks(BlockWriter),
}

impl Appender {
    /// Goes on behind byte `at` of `file`, which has the name `path` now. From there on the file
    /// reads as zeros.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened again, or the block that `at` stands in cannot be read.
    pub fn open(
        disk: &dyn Disk,
        file: Arc<dyn DiskFile>,
        path: &Path,
        at: u64,
        mode: WriteMode,
    ) -> Result<Self, DiskError> {
        let way = match mode {
            WriteMode::Buffered => Way::Buffered {
                end: Mutex::new(at),
            },
            WriteMode::Direct => match disk.open(path, OpenMode::Direct) {
                Ok(direct) => Way::Blocks(BlockWriter::new(direct, Arc::clone(&file), at)?),
                Err(error) if is_refusal(&error) => {
                    tracing::warn!(%error, "no direct writes on this file system, goes on through the page cache");
                    Way::Buffered {
                        end: Mutex::new(at),
                    }
                }
                Err(error) => return Err(error),
            },
        };
        Ok(Self { file, way })
    }

    /// How the bytes come to the disk: what was asked for, or what the file system can.
    pub fn mode(&self) -> WriteMode {
        match &self.way {
            Way::Blocks(blocks) if blocks.is_direct() => WriteMode::Direct,
            Way::Blocks(_) | Way::Buffered { .. } => WriteMode::Buffered,
        }
    }

    /// Whether no byte is written again that was appended before: such bytes may be mapped. Whole
    /// blocks are written again until they are full.
    pub fn writes_once(&self) -> bool {
        matches!(self.way, Way::Buffered { .. })
    }

    /// Appends all buffers one after the other. Durable after a sync.
    ///
    /// # Errors
    ///
    /// After a failed write nobody knows what of it is in the file; nothing more can be appended.
    pub fn append(&self, buffers: &[&[u8]]) -> Result<(), DiskError> {
        match &self.way {
            Way::Blocks(blocks) => blocks.append(buffers),
            Way::Buffered { end } => {
                let mut end = end.lock().unwrap_or_else(PoisonError::into_inner);
                self.file.write_all_at(buffers, *end)?;
                for buffer in buffers {
                    *end += bytes_of(buffer.len());
                }
                Ok(())
            }
        }
    }

    /// Makes everything durable that was appended before the call. One sync at a time.
    ///
    /// # Errors
    ///
    /// As for [`DiskFile::sync_data`].
    pub fn sync(&self) -> Result<(), DiskError> {
        match &self.way {
            Way::Blocks(blocks) => blocks.sync(),
            Way::Buffered { .. } => self.file.sync_data(),
        }
    }
}

pub(crate) fn bytes_of(length: usize) -> u64 {
    u64::try_from(length).expect("memory is smaller than 2^64 bytes")
}
