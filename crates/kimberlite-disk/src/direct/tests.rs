use std::path::Path;

use super::*;
use crate::{Access, Appender, Disk, OpenMode, OsDisk, WriteMode};

fn zeros(path: &Path, bytes: u64) -> Arc<dyn DiskFile> {
    let file = OsDisk::new().create(path, Access::Shared).unwrap();
    file.zero(0..bytes).unwrap();
    file.sync_all().unwrap();
    file
}

fn content(path: &Path) -> Vec<u8> {
    OsDisk::new().read(path, u64::MAX).unwrap()
}

/// Stands in for a direct file, and refuses as many writes as it is told to.
#[derive(Debug)]
struct Refusing {
    file: Arc<dyn DiskFile>,
    error: i32,
    writes: Mutex<Vec<(u64, usize)>>,
    refused_from: usize,
}

impl DiskFile for Refusing {
    fn path(&self) -> &Path {
        self.file.path()
    }
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), DiskError> {
        self.file.read_exact_at(buffer, offset)
    }
    fn write_all_at(&self, buffers: &[&[u8]], offset: u64) -> Result<(), DiskError> {
        let mut writes = self.writes.lock().unwrap();
        assert!(buffers[0].as_ptr().addr().is_multiple_of(BLOCK_BYTES));
        writes.push((offset, buffers.concat().len()));
        if writes.len() > self.refused_from {
            let refused = io::Error::from_raw_os_error(self.error);
            return Err(DiskError::from_io(self.path(), "write", refused));
        }
        self.file.write_all_at(buffers, offset)
    }
    fn sync_data(&self) -> Result<(), DiskError> {
        self.file.sync_data()
    }
    fn sync_all(&self) -> Result<(), DiskError> {
        self.file.sync_all()
    }
    fn bytes(&self) -> Result<u64, DiskError> {
        self.file.bytes()
    }
    fn set_bytes(&self, bytes: u64) -> Result<(), DiskError> {
        self.file.set_bytes(bytes)
    }
    fn map(&self, bytes: u64) -> Result<bytes::Bytes, DiskError> {
        self.file.map(bytes)
    }
    fn is_private(&self) -> Result<bool, DiskError> {
        self.file.is_private()
    }
}

fn refusing(file: &Arc<dyn DiskFile>, error: i32, refused_from: usize) -> Arc<Refusing> {
    Arc::new(Refusing {
        file: Arc::clone(file),
        error,
        writes: Mutex::default(),
        refused_from,
    })
}

const EINVAL: i32 = 22;
const EIO: i32 = 5;

#[test]
fn a_block_that_is_not_full_is_written_again_with_more_in_it() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("file");
    let file = zeros(&path, 1 << 20);
    file.write_all_at(&[b"before"], 4096).unwrap();
    let direct = refusing(&file, EINVAL, usize::MAX);
    let blocks = BlockWriter::new(direct.clone(), file, 4102).unwrap();
    blocks.append(&[b"one", b"", b"two"]).unwrap();
    assert_eq!(content(&path)[4102], 0, "only a sync writes");
    blocks.sync().unwrap();
    blocks.append(&[&[7; 4096]]).unwrap();
    blocks.sync().unwrap();
    blocks.sync().unwrap();
    blocks.append(&[b"end"]).unwrap();
    blocks.sync().unwrap();
    assert_eq!(
        *direct.writes.lock().unwrap(),
        [(4096, 4096), (4096, 8192), (8192, 4096)]
    );
    let mut expected = b"beforeonetwo".to_vec();
    expected.extend([7; 4096]);
    expected.extend(b"end");
    let found = content(&path);
    assert_eq!(found[4096..4096 + expected.len()], expected);
    let around = [&found[..4096], &found[4096 + expected.len()..]].concat();
    assert!(around.iter().all(|&byte| byte == 0));
}

#[test]
fn nothing_of_a_reused_buffer_comes_behind_what_is_shorter() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("file");
    let file = zeros(&path, 1 << 20);
    let blocks = BlockWriter::new(refusing(&file, EINVAL, usize::MAX), file, 0).unwrap();
    for group in [&[1; 8000][..], &[2; 200], &[3; 300], &[4; 10]] {
        blocks.append(&[group]).unwrap();
        blocks.sync().unwrap();
    }
    assert!(content(&path)[8510..].iter().all(|&byte| byte == 0));
}

#[test]
fn a_group_larger_than_the_buffer_is_written_in_parts() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("file");
    let file = zeros(&path, 4 << 20);
    let direct = refusing(&file, EINVAL, usize::MAX);
    let blocks = BlockWriter::new(direct.clone(), file, 0).unwrap();
    let group: Vec<u8> = (0..251_u8).cycle().take(3 * STAGED_BYTES_MAX + 5).collect();
    blocks.append(&[&group[..100], &group[100..]]).unwrap();
    blocks.sync().unwrap();
    assert_eq!(content(&path)[..group.len()], group);
    let writes = direct.writes.lock().unwrap();
    assert!(writes.len() >= 4, "{writes:?}");
    assert!(writes.iter().all(|&(_, bytes)| bytes <= STAGED_BYTES_MAX));
}

#[test]
fn a_file_system_that_refuses_a_direct_write_gets_the_same_bytes_through_the_cache() {
    for refused_from in [0, 2] {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("file");
        let file = zeros(&path, 1 << 20);
        let direct = refusing(&file, EINVAL, refused_from);
        let blocks = BlockWriter::new(direct.clone(), file, 0).unwrap();
        for group in [[1; 3000], [2; 3000], [3; 3000], [4; 3000]] {
            blocks.append(&[&group]).unwrap();
            blocks.sync().unwrap();
        }
        assert!(!blocks.is_direct());
        assert_eq!(
            direct.writes.lock().unwrap().len(),
            refused_from + 1,
            "what is refused once is not tried again"
        );
        let expected = [[1; 3000], [2; 3000], [3; 3000], [4; 3000]].concat();
        assert_eq!(content(&path)[..12_000], expected);
    }
}

#[test]
fn after_a_failed_write_nothing_more_is_written() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("file");
    let file = zeros(&path, 1 << 20);
    let direct = refusing(&file, EIO, 1);
    let blocks = BlockWriter::new(direct.clone(), file, 0).unwrap();
    for expected in [true, false, false] {
        blocks.append(&[b"group"]).unwrap();
        assert_eq!(blocks.sync().is_ok(), expected);
    }
    assert!(blocks.is_direct(), "an error of the device is no refusal");
    assert_eq!(direct.writes.lock().unwrap().len(), 2);
    assert_eq!(content(&path)[..10], *b"group\0\0\0\0\0");
}

#[test]
fn the_operating_system_takes_what_is_staged_for_it() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("file");
    let file = zeros(&path, 1 << 20);
    let disk = OsDisk::new();
    let appender = Appender::open(&disk, file, &path, 0, WriteMode::Direct).unwrap();
    let mut expected = Vec::new();
    for length in [1, 500, 4096, 9000, 3, 100_000] {
        let group: Vec<u8> = (1..251_u8).cycle().take(length).collect();
        appender.append(&[&group]).unwrap();
        appender.sync().unwrap();
        expected.extend(group);
        let cached = disk.open(&path, OpenMode::Read).unwrap();
        let mut read = vec![0; expected.len()];
        cached.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(read, expected, "the page cache shows what is on disk");
    }
}
