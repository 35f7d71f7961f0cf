//! A file in memory, for what is derived and thrown away again.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;

use crate::disk::DiskFile;
use crate::error::DiskError;

/// A file that is nowhere but in memory. What is synced is as durable as the rest: gone with it.
pub struct MemoryFile {
    path: PathBuf,
    content: RwLock<Vec<u8>>,
}

impl MemoryFile {
    /// Makes an empty one, which errors call by this name.
    pub fn new(name: impl Into<PathBuf>) -> Self {
        Self::with_content(name, Vec::new())
    }

    /// Makes one with this content.
    pub fn with_content(name: impl Into<PathBuf>, content: Vec<u8>) -> Self {
        Self {
            path: name.into(),
            content: RwLock::new(content),
        }
    }

    /// Returns a copy of what it holds.
    pub fn content(&self) -> Vec<u8> {
        self.read(Vec::clone)
    }

    fn read<T>(&self, look: impl FnOnce(&Vec<u8>) -> T) -> T {
        look(&self.content.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Grows it to `end`, and gives `change` the bytes from `offset` up to there.
    fn write(
        &self,
        (offset, end): (u64, u64),
        change: impl FnOnce(&mut [u8]),
    ) -> Result<(), DiskError> {
        let full = || DiskError::Full {
            path: self.path.clone(),
        };
        let wide = |bytes: u64| usize::try_from(bytes).map_err(|_| full());
        let (offset, end) = (wide(offset)?, wide(end)?);
        let mut content = self.content.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(more) = end.checked_sub(content.len()) {
            content.try_reserve(more).map_err(|_| full())?;
            content.resize(end, 0);
        }
        change(content.get_mut(offset..end).unwrap_or_default());
        Ok(())
    }

    fn short(&self, offset: u64, bytes: u64) -> DiskError {
        DiskError::ShortRead {
            path: self.path.clone(),
            offset,
            bytes,
        }
    }
}

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).expect("memory is smaller than 2^64 bytes")
}

impl DiskFile for MemoryFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), DiskError> {
        let bytes = count(buffer.len());
        let start = usize::try_from(offset).map_err(|_| self.short(offset, bytes))?;
        self.read(|content| {
            let end = start.checked_add(buffer.len());
            let range = end.and_then(|end| content.get(start..end));
            buffer.copy_from_slice(range.ok_or_else(|| self.short(offset, bytes))?);
            Ok(())
        })
    }

    fn write_all_at(&self, buffers: &[&[u8]], offset: u64) -> Result<(), DiskError> {
        let bytes = buffers.iter().map(|buffer| buffer.len()).sum();
        let end = offset.saturating_add(count(bytes));
        self.write((offset, end), |mut space| {
            for buffer in buffers {
                let (place, rest) = std::mem::take(&mut space).split_at_mut(buffer.len());
                place.copy_from_slice(buffer);
                space = rest;
            }
        })
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        Ok(())
    }

    fn sync_all(&self) -> Result<(), DiskError> {
        Ok(())
    }

    fn bytes(&self) -> Result<u64, DiskError> {
        Ok(self.read(|content| count(content.len())))
    }

    fn set_bytes(&self, bytes: u64) -> Result<(), DiskError> {
        self.write((bytes, bytes), |_| {})?;
        let mut content = self.content.write().unwrap_or_else(PoisonError::into_inner);
        content.truncate(usize::try_from(bytes).unwrap_or(usize::MAX));
        Ok(())
    }

    fn map(&self, bytes: u64) -> Result<Bytes, DiskError> {
        let mut copy = vec![0; usize::try_from(bytes).map_err(|_| self.short(0, bytes))?];
        self.read_exact_at(&mut copy, 0)?;
        Ok(copy.into())
    }

    fn is_private(&self) -> Result<bool, DiskError> {
        Ok(true)
    }
}

/// What it holds may be secret: its length is shown.
impl fmt::Debug for MemoryFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.read(Vec::len);
        f.debug_struct("MemoryFile")
            .field("path", &self.path)
            .field("bytes", &bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_what_was_written_and_ends_where_it_ends() {
        let file = MemoryFile::new("scratch");
        file.write_all_at(&[b"ab", b"", b"cd"], 3).unwrap();
        assert_eq!(file.content(), b"\0\0\0abcd");
        file.write_all_at(&[b"X"], 1).unwrap();
        let mut read = [0; 3];
        file.read_exact_at(&mut read, 1).unwrap();
        assert_eq!(&read, b"X\0a");
        assert!(matches!(
            file.read_exact_at(&mut read, 5),
            Err(DiskError::ShortRead { .. })
        ));
        assert!(file.read_exact_at(&mut read, u64::MAX).is_err());
        file.set_bytes(2).unwrap();
        assert_eq!(file.content(), b"\0X");
        file.set_bytes(4).unwrap();
        assert_eq!(&*file.map(4).unwrap(), b"\0X\0\0");
        assert!(file.map(5).is_err());
        assert!(!format!("{file:?}").contains('X'));
    }

    #[test]
    fn what_no_memory_holds_is_refused() {
        let file = MemoryFile::new("scratch");
        let refused = file.set_bytes(u64::MAX / 2);
        assert!(
            matches!(refused, Err(DiskError::Full { .. })),
            "{refused:?}"
        );
        assert_eq!(file.bytes().unwrap(), 0);
    }
}
