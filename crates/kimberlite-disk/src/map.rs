//! Read-only mappings of files. The one module of Kimberlite's disk that needs `unsafe`.
#![expect(
    unsafe_code,
    reason = "a file mapping is unsafe to make; everything else is safe code"
)]

use std::fs::File;
use std::io;

use bytes::Bytes;
use memmap2::{MmapOptions, MmapRaw};

/// Maps the first `bytes` bytes of a file, of which there must be that many.
///
/// The mapping lives as long as the last slice of the result; the file may be closed, renamed and
/// removed before that.
pub(crate) fn map_read_only(file: &File, bytes: u64) -> io::Result<Bytes> {
    if bytes == 0 {
        // The operating system refuses empty mappings.
        return Ok(Bytes::new());
    }
    let length = usize::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut options = MmapOptions::new();
    options.len(length);
    // SAFETY: the bytes are handed out as a shared slice, so for as long as the mapping lives they
    // must not change and the file must not get shorter. The contract of `DiskFile::map` demands
    // that of the caller: only bytes are mapped that are written for good (all of a closed segment;
    // of the one that is appended to, what was appended by an appender that writes once), and
    // this process has no code path that writes other bytes there or cuts them off; a rewrite
    // makes a new file and renames it over the name, which leaves the mapped inode alone. Other
    // processes of ours are kept away by the directory lock. A stranger with write permission
    // could still break this; no read of ours relies on two looks at a mapped byte agreeing
    // (verified reads copy first and check the copy), and a cut file raises SIGBUS, which ends
    // the process and reads nothing wrong.
    let mapping = unsafe { options.map(file)? };
    assert_eq!(
        mapping.len(),
        length,
        "the mapping is as long as was asked for"
    );
    Ok(Bytes::from_owner(mapping))
}

/// A read-only view of a file whose bytes may change where nobody looks.
///
/// Whoever asks for bytes of it answers for it that they do not change while they are borrowed, as in a
/// file of pages that are written only while nothing points to them.
#[derive(Debug)]
pub struct FileView {
    mapping: MmapRaw,
}

impl FileView {
    /// Maps the first `bytes` bytes of a file, of which there must be that many, and which does not get
    /// shorter.
    pub(crate) fn new(file: &File, bytes: u64) -> io::Result<Self> {
        let length = usize::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mapping = MmapOptions::new().len(length).map_raw_read_only(file)?;
        Ok(Self { mapping })
    }

    /// `bytes` bytes from `offset` on; `None` when the view ends before.
    #[inline]
    pub fn bytes(&self, offset: u64, bytes: usize) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(bytes)?;
        if end > self.mapping.len() {
            return None;
        }
        // SAFETY: the place is within the mapping, which has more than `start` bytes.
        let place = unsafe { self.mapping.as_ptr().add(start) };
        // SAFETY: the mapping has `bytes` bytes from there on, is readable, and lives as long as what is
        // returned. That they do not change meanwhile is what the caller answers for: this process writes
        // to pages only that no reader can reach, other processes are kept away by the directory lock,
        // and the file never gets shorter.
        Some(unsafe { std::slice::from_raw_parts(place, bytes) })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};

    use super::*;

    /// A file of `length` bytes that repeat after a prime, so that no page looks like another.
    fn file_of(length: usize) -> File {
        let mut file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..251_u8).cycle().take(length).collect();
        file.write_all(&content).unwrap();
        file
    }

    #[test]
    fn a_mapping_equals_what_reading_gives_at_every_length() {
        let mut file = file_of(3 * 4096 + 17);
        let mut read = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut read).unwrap();
        for bytes in [
            0,
            1,
            511,
            4095,
            4096,
            4097,
            8192,
            3 * 4096 + 16,
            3 * 4096 + 17,
        ] {
            let mapped = map_read_only(&file, u64::try_from(bytes).unwrap()).unwrap();
            assert_eq!(mapped, read[..bytes], "{bytes} bytes");
        }
    }

    #[test]
    fn a_view_shows_what_is_written_later_and_nothing_behind_its_end() {
        let mut file = file_of(3 * 4096);
        let view = FileView::new(&file, 2 * 4096).unwrap();
        assert_eq!(view.bytes(4096, 3), Some(&[(4096 % 251) as u8, 81, 82][..]));
        file.seek(std::io::SeekFrom::Start(4096)).unwrap();
        file.write_all(b"new").unwrap();
        assert_eq!(view.bytes(4096, 3), Some(&b"new"[..]));
        assert_eq!(view.bytes(2 * 4096 - 2, 2).map(<[u8]>::len), Some(2));
        for (offset, bytes) in [
            (2 * 4096 - 2, 3),
            (2 * 4096, 1),
            (u64::MAX, 1),
            (1, usize::MAX),
        ] {
            assert_eq!(view.bytes(offset, bytes), None, "{bytes} at {offset}");
        }
        assert_eq!(view.bytes(2 * 4096, 0), Some(&[][..]));
    }

    #[test]
    fn a_slice_outlives_the_file_handle_and_the_whole_mapping() {
        let file = file_of(10_000);
        let slice = map_read_only(&file, 10_000).unwrap().slice(5_000..5_010);
        drop(file);
        let expected: Vec<u8> = (0..251_u8).cycle().skip(5_000).take(10).collect();
        assert_eq!(slice, expected);
    }

    #[test]
    fn a_mapping_can_be_read_by_many_threads() {
        let mapped = map_read_only(&file_of(1 << 20), 1 << 20).unwrap();
        let sum = |bytes: &[u8]| bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>();
        let expected = sum(&mapped);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let mapped = mapped.clone();
                scope.spawn(move || assert_eq!(sum(&mapped), expected));
            }
        });
    }
}
