//! Ways to bring a group to the disk: by themselves, into a file that was written with zeros ahead,
//! and under a log.

use std::fs::{File, OpenOptions};
use std::io::IoSlice;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};

use kimberlite_disk::{BLOCK_BYTES, WriteMode};
use kimberlite_storage::{Durability, LogOptions};
use memmap2::MmapMut;
use rustix::fs::{Advice, OFlags, fadvise};
use rustix::io::{ReadWriteFlags, pwritev2};
use tempfile::NamedTempFile;

use crate::FLOOR_FILE_BYTES;
use crate::latencies::{Case, compare as compare_cases, scratch};
use crate::log::{commit, frame_of, new_log_by};
use crate::threads::compare_backends;

/// A hundred records of 1 KiB, and one of 256 bytes, each as a frame that ends within a block.
const GROUPS: [(usize, u64, &str); 2] = [
    (112_648, 400, "a group of 112,648 B"),
    (400, 1_000, "a group of 400 B"),
];

const MODES: [(&str, WriteMode); 2] = [
    ("buffered", WriteMode::Buffered),
    ("direct", WriteMode::Direct),
];

pub(crate) fn compare() {
    for (bytes, operations, name) in GROUPS {
        let bare = |name, direct, flags| Case {
            name,
            elements: 1,
            prepare: Box::new(move || {
                let (named, file) = zeroed_file(direct);
                let mut bare = Bare::new(file, direct, bytes);
                Box::new(move |_| {
                    let _ = &named;
                    bare.write(flags);
                })
            }),
        };
        let (later, dsync) = (ReadWriteFlags::empty(), ReadWriteFlags::DSYNC);
        let cases = [
            bare("pwritev + fdatasync", false, later),
            bare("pwritev2 RWF_DSYNC", false, dsync),
            bare("O_DIRECT + fdatasync", true, later),
            bare("O_DIRECT RWF_DSYNC", true, dsync),
        ];
        compare_cases(&format!("backends/bare {name}"), operations, &cases);
    }
    for (records, payload, operations, name) in [
        (100, 1024, 1_500, "100 of 1 KiB"),
        (1, 256, 3_000, "1 of 256 B"),
    ] {
        let log = |name, mode| Case {
            name,
            elements: records as u64,
            prepare: Box::new(move || {
                let (dir, mut writer) = new_log_by(mode, LogOptions::TAIL_BYTES_MAX);
                let payload = vec![7; payload];
                Box::new(move |_| {
                    let _ = &dir;
                    let frame = frame_of(records, &payload);
                    commit(&mut writer, frame, Durability::Group);
                })
            }),
        };
        let cases = MODES.map(|(name, mode)| log(name, mode));
        compare_cases(&format!("backends/log {name}"), operations, &cases);
    }
    compare_backends(&MODES);
}

fn zeroed_file(direct: bool) -> (NamedTempFile, File) {
    let named = NamedTempFile::new_in(scratch()).unwrap();
    let zeros = vec![0; 1 << 20];
    for at in (0..FLOOR_FILE_BYTES).step_by(zeros.len()) {
        named.as_file().write_all_at(&zeros, at).unwrap();
    }
    named.as_file().sync_all().unwrap();
    let flags = if direct {
        OFlags::DIRECT
    } else {
        OFlags::empty()
    };
    // What the cache holds of the zeros is dropped, as our disk does before direct writes.
    if direct {
        fadvise(named.as_file(), 0, None, Advice::DontNeed).unwrap();
    }
    let mut options = OpenOptions::new();
    options
        .write(true)
        .custom_flags(flags.bits().try_into().unwrap());
    #[expect(
        clippy::disallowed_methods,
        reason = "a floor is measured without our disk"
    )]
    let file = options.open(named.path()).unwrap();
    (named, file)
}

/// Writes groups one behind the other, each with its sync.
struct Bare {
    file: File,
    /// Bytes of which a write is a multiple.
    unit: u64,
    /// A huge page where the system gives one, as our disk takes for such groups.
    buffer: MmapMut,
    group: Vec<u8>,
    at: u64,
}

impl Bare {
    fn new(file: File, direct: bool, bytes: usize) -> Self {
        let buffer = MmapMut::map_anon(2 << 20).unwrap();
        buffer.advise(memmap2::Advice::HugePage).unwrap();
        Self {
            file,
            unit: if direct { BLOCK_BYTES as u64 } else { 1 },
            buffer,
            group: vec![7; bytes],
            at: BLOCK_BYTES as u64,
        }
    }

    fn write(&mut self, flags: ReadWriteFlags) {
        let bytes = self.group.len() as u64;
        if self.at + bytes > FLOOR_FILE_BYTES {
            self.at = BLOCK_BYTES as u64;
        }
        let from = self.at / self.unit * self.unit;
        let in_block = usize::try_from(self.at - from).unwrap();
        self.at += bytes;
        let length = usize::try_from(self.at.next_multiple_of(self.unit) - from).unwrap();
        let blocks = &mut self.buffer[..length];
        blocks[in_block..in_block + self.group.len()].copy_from_slice(&self.group);
        let written = pwritev2(&self.file, &[IoSlice::new(blocks)], from, flags).unwrap();
        assert_eq!(written, length);
        if flags.is_empty() {
            self.file.sync_data().unwrap();
        }
    }
}
