//! Whole blocks from aligned memory, past the page cache.
//!
//! What is appended is staged in memory. A sync writes the blocks that it reaches, the last one
//! filled up with the zeros that stand behind the end anyway, and keeps the bytes of a block that
//! is not full: the next sync writes that block again, with more in it.
//!
//! Invariants:
//!
//! * `staged` begins with a block: its first byte belongs at `staged.at`, a multiple of a block.
//! * What is on disk of a block that is written again is a prefix of what is written: torn at any
//!   byte, such a write leaves every byte of before as it was.
//! * Never two writes at once, and none beside a sync: both hold `target`. The lock on `staged` is
//!   taken under it, and not held while the disk works.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memmap2::MmapMut;

use crate::appender::bytes_of;
use crate::{DiskError, DiskFile};

/// What offset, length and memory of a direct write are multiples of. Devices ask for 512 or 4096.
pub const BLOCK_BYTES: usize = 4096;

/// Bytes of the smallest buffer: most logs are small.
const STAGED_BYTES_MIN: usize = 2 * BLOCK_BYTES;

/// Bytes of the largest buffer that is not a huge page.
const SMALL_BYTES_MAX: usize = 64 << 10;

/// Bytes that are staged at most: one huge page. A group that is larger is written in parts.
const STAGED_BYTES_MAX: usize = 2 << 20;

/// Whether the file system does not know direct writes, or not such ones.
pub(crate) fn is_refusal(error: &DiskError) -> bool {
    let refusals = [io::ErrorKind::InvalidInput, io::ErrorKind::Unsupported];
    matches!(error, DiskError::Io { source, .. } if refusals.contains(&source.kind()))
}

/// Appends to a file by whole blocks.
#[derive(Debug)]
pub(crate) struct BlockWriter {
    staged: Mutex<Staged>,
    target: Mutex<Target>,
    /// Where blocks go when direct writes are refused.
    buffered: Arc<dyn DiskFile>,
    is_direct: AtomicBool,
}

#[derive(Debug)]
struct Staged {
    buffer: AlignedBuffer,
    at: u64,
    /// Something was appended since the last write.
    is_new: bool,
}

#[derive(Debug)]
struct Target {
    file: Arc<dyn DiskFile>,
    /// The other buffer: one is filled while one is written.
    spare: AlignedBuffer,
    failed: bool,
}

impl BlockWriter {
    /// Goes on behind byte `at`, whose block is read back from `buffered`.
    pub(crate) fn new(
        direct: Arc<dyn DiskFile>,
        buffered: Arc<dyn DiskFile>,
        at: u64,
    ) -> Result<Self, DiskError> {
        let in_block = at % bytes_of(BLOCK_BYTES);
        let mut begun = vec![0; usize::try_from(in_block).expect("less than a block")];
        buffered.read_exact_at(&mut begun, at - in_block)?;
        let mut buffer = AlignedBuffer::new(STAGED_BYTES_MIN);
        let taken = buffer.push(&begun);
        assert_eq!(taken, begun.len(), "a buffer has room for a block");
        Ok(Self {
            staged: Mutex::new(Staged {
                buffer,
                at: at - in_block,
                is_new: false,
            }),
            target: Mutex::new(Target {
                file: direct,
                spare: AlignedBuffer::new(STAGED_BYTES_MIN),
                failed: false,
            }),
            buffered,
            is_direct: AtomicBool::new(true),
        })
    }

    pub(crate) fn is_direct(&self) -> bool {
        self.is_direct.load(Ordering::Relaxed)
    }

    pub(crate) fn append(&self, buffers: &[&[u8]]) -> Result<(), DiskError> {
        let mut staged = self.staged();
        for buffer in buffers {
            let mut rest = *buffer;
            while !rest.is_empty() {
                let taken = staged.buffer.push(rest);
                (_, rest) = rest.split_at(taken);
                staged.is_new |= taken > 0;
                if !rest.is_empty() {
                    drop(staged);
                    self.write_staged(&mut self.target())?;
                    staged = self.staged();
                }
            }
        }
        Ok(())
    }

    pub(crate) fn sync(&self) -> Result<(), DiskError> {
        let mut target = self.target();
        self.write_staged(&mut target)?;
        let synced = target.file.sync_data();
        target.failed |= synced.is_err();
        synced
    }

    /// Writes what is staged, and leaves of it what does not fill a block.
    fn write_staged(&self, target: &mut Target) -> Result<(), DiskError> {
        if target.failed {
            let failed = io::Error::other("an earlier write or sync failed");
            return Err(DiskError::from_io(self.buffered.path(), "write", failed));
        }
        let at = {
            let mut staged = self.staged();
            if !staged.is_new {
                return Ok(());
            }
            let whole = staged.buffer.length / BLOCK_BYTES * BLOCK_BYTES;
            target.spare.clear();
            let kept = target.spare.push(&staged.buffer.filled()[whole..]);
            assert_eq!(kept, staged.buffer.length - whole, "less than a block");
            std::mem::swap(&mut staged.buffer, &mut target.spare);
            staged.is_new = false;
            let at = staged.at;
            staged.at += bytes_of(whole);
            at
        };
        let blocks = target.spare.blocks();
        let mut written = target.file.write_all_at(&[blocks], at);
        if let Err(error) = &written
            && is_refusal(error)
            && self.is_direct.swap(false, Ordering::Relaxed)
        {
            tracing::warn!(%error, "no direct writes on this file system, goes on through the page cache");
            target.file = Arc::clone(&self.buffered);
            written = target.file.write_all_at(&[blocks], at);
        }
        target.failed = written.is_err();
        written
    }

    fn staged(&self) -> MutexGuard<'_, Staged> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn target(&self) -> MutexGuard<'_, Target> {
        self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Memory that begins at a multiple of a block and grows up to a bound.
#[derive(Debug)]
struct AlignedBuffer {
    memory: Memory,
    /// Where in the memory the first multiple of a block is.
    start: usize,
    capacity: usize,
    length: usize,
}

/// A device takes memory by its pages; of a huge page it is one piece, and a write of 28 blocks
/// takes a third less time.
#[derive(Debug)]
enum Memory {
    Small(Vec<u8>),
    Huge(MmapMut),
}

impl Memory {
    fn huge() -> io::Result<Self> {
        let mapping = MmapMut::map_anon(STAGED_BYTES_MAX)?;
        // Without it, or where the system has none to give, the pages are small ones.
        #[cfg(target_os = "linux")]
        let _ = mapping.advise(memmap2::Advice::HugePage);
        Ok(Self::Huge(mapping))
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Small(bytes) => bytes,
            Self::Huge(mapping) => mapping,
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Small(bytes) => bytes,
            Self::Huge(mapping) => mapping,
        }
    }
}

impl AlignedBuffer {
    /// Takes memory for `wanted` bytes, or for as much as is staged at most.
    fn new(wanted: usize) -> Self {
        let small = |bytes: usize| {
            let capacity = bytes.next_multiple_of(BLOCK_BYTES);
            (Memory::Small(vec![0; capacity + BLOCK_BYTES]), capacity)
        };
        let (memory, capacity) = if wanted <= SMALL_BYTES_MAX {
            small(wanted.next_power_of_two().max(STAGED_BYTES_MIN))
        } else {
            match Memory::huge() {
                Ok(huge) => (huge, STAGED_BYTES_MAX),
                Err(_) => small(wanted.min(STAGED_BYTES_MAX)),
            }
        };
        let start = memory.bytes().as_ptr().align_offset(BLOCK_BYTES);
        assert!(
            start + capacity <= memory.bytes().len(),
            "a mapping begins with a page, and other memory has a block to spare"
        );
        Self {
            memory,
            start,
            capacity,
            length: 0,
        }
    }

    fn clear(&mut self) {
        self.length = 0;
    }

    fn filled(&self) -> &[u8] {
        &self.memory.bytes()[self.start..self.start + self.length]
    }

    /// Takes as much of `bytes` as there is room for, and returns how much.
    fn push(&mut self, bytes: &[u8]) -> usize {
        let wanted = self.length.saturating_add(bytes.len());
        if wanted > self.capacity && self.capacity < STAGED_BYTES_MAX {
            let mut grown = Self::new(wanted);
            let moved = grown.push(self.filled());
            assert_eq!(moved, self.length, "the grown buffer is larger");
            *self = grown;
        }
        let taken = bytes.len().min(self.capacity - self.length);
        let end = self.start + self.length;
        self.memory.bytes_mut()[end..end + taken].copy_from_slice(&bytes[..taken]);
        self.length += taken;
        taken
    }

    /// Returns whole blocks: what is filled, and zeros up to the end of its last block.
    fn blocks(&mut self) -> &[u8] {
        let end = self.start + self.length;
        let blocks_end = self.start + self.length.next_multiple_of(BLOCK_BYTES);
        let bytes = self.memory.bytes_mut();
        bytes[end..blocks_end].fill(0);
        &bytes[self.start..blocks_end]
    }
}

#[cfg(test)]
mod tests;
