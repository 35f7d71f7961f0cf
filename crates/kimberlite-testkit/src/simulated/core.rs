//! The state of a simulated disk: its tree, the counters and the faults that are planned.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::Path;

use kimberlite_disk::DiskError;

use super::node::{Change, FILE_BYTES_MAX, FileNode, SECTOR_BYTES};
use super::tree::NodeId;
use super::{Lie, SyncObserver, Tree, WriteObserver};
use crate::Rng;

/// The error number of a failed device.
const EIO: i32 = 5;
/// The error number of a full one.
const ENOSPC: i32 = 28;

/// What kind of operation asks to go ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Write,
    Sync,
    Names,
}

/// What becomes of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Succeeds,
    /// With this error number.
    Fails(i32),
    /// The disk dies in the middle of it.
    Crashes,
}

/// A write in which the disk died.
#[derive(Clone, Debug)]
pub(super) struct CutWrite {
    pub(super) node: NodeId,
    pub(super) offset: usize,
    pub(super) bytes: Vec<u8>,
}

/// Where the bytes of a write land that the disk misplaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Landing {
    Nowhere,
    /// At another offset of the same file.
    Here(usize),
    /// In another file, on the medium.
    In(NodeId, usize),
}

pub(super) struct Core {
    pub(super) seed: u64,
    pub(super) rng: Rng,
    pub(super) tree: Tree,
    pub(super) locked: BTreeSet<NodeId>,
    pub(super) ops: u64,
    pub(super) syncs: u64,
    pub(super) failed_directory_syncs: u64,
    pub(super) reads: u64,
    pub(super) dead: bool,
    pub(super) cut_write: Option<CutWrite>,
    pub(super) crash_at: Option<u64>,
    pub(super) fail_sync_at: Option<u64>,
    pub(super) fail_write_at: Option<u64>,
    pub(super) fail_names_at: Option<u64>,
    pub(super) fail_read_at: Option<u64>,
    /// Operations for which there is no space.
    pub(super) full_during: Range<u64>,
    /// From which operation on, and where the bytes land.
    pub(super) misplace_write_at: Option<(u64, Landing)>,
    /// What the disk lies about, once in how many chances.
    pub(super) lie: Option<(Lie, u64)>,
    pub(super) space_bytes: Option<u64>,
    pub(super) refuses_direct: bool,
    pub(super) direct_opens: u64,
    pub(super) observer: Option<WriteObserver>,
    pub(super) sync_observer: Option<SyncObserver>,
}

impl Core {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            rng: Rng::new(seed),
            tree: Tree::new(),
            locked: BTreeSet::new(),
            ops: 0,
            syncs: 0,
            failed_directory_syncs: 0,
            reads: 0,
            dead: false,
            cut_write: None,
            crash_at: None,
            fail_sync_at: None,
            fail_write_at: None,
            fail_names_at: None,
            fail_read_at: None,
            full_during: 0..0,
            misplace_write_at: None,
            lie: None,
            space_bytes: None,
            refuses_direct: false,
            direct_opens: 0,
            observer: None,
            sync_observer: None,
        }
    }

    pub(super) fn alive(&self, path: &Path, operation: &'static str) -> Result<(), DiskError> {
        if self.dead {
            Err(crashed(path, operation))
        } else {
            Ok(())
        }
    }

    /// Creates, renames or removes. A change in which the disk dies has been made, unsynced.
    pub(super) fn change_tree<T>(
        &mut self,
        path: &Path,
        operation: &'static str,
        change: impl FnOnce(&mut Tree) -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        self.alive(path, operation)?;
        let turn = self.begin(Operation::Names);
        if let Turn::Fails(errno) = turn {
            return Err(failed(path, operation, errno));
        }
        let changed = change(&mut self.tree);
        if turn == Turn::Crashes {
            Err(crashed(path, operation))
        } else {
            changed
        }
    }

    pub(super) fn write(
        &mut self,
        node: NodeId,
        path: &Path,
        offset: u64,
        bytes: Vec<u8>,
    ) -> Result<(), DiskError> {
        self.alive(path, "write")?;
        let start = usize::try_from(offset).unwrap_or(FILE_BYTES_MAX);
        let room = FILE_BYTES_MAX
            .checked_sub(start)
            .filter(|&room| bytes.len() <= room);
        if room.is_none() {
            return Err(DiskError::from_io(
                path,
                "write",
                io::ErrorKind::FileTooLarge.into(),
            ));
        }
        if let Some(observer) = &self.observer {
            observer(path, offset, &bytes);
        }
        match self.begin(Operation::Write) {
            Turn::Succeeds => {}
            Turn::Fails(errno) => {
                let part = self.part_of(start, bytes.len());
                self.write_part(node, start, &bytes[..part]);
                return Err(failed(path, "write", errno));
            }
            Turn::Crashes => {
                self.cut_write = Some(CutWrite {
                    node,
                    offset: start,
                    bytes,
                });
                return Err(crashed(path, "write"));
            }
        }
        let end_max = self.length(node).saturating_add(self.free_bytes());
        let part = end_max.saturating_sub(start).min(bytes.len());
        if part == bytes.len()
            && let Some(landing) = self.misplaced()
        {
            self.misplace(node, start, bytes, landing);
            return Ok(());
        }
        self.write_part(node, start, &bytes[..part]);
        if part == bytes.len() {
            Ok(())
        } else {
            Err(DiskError::Full {
                path: path.to_path_buf(),
            })
        }
    }

    pub(super) fn set_bytes(
        &mut self,
        node: NodeId,
        path: &Path,
        bytes: u64,
    ) -> Result<(), DiskError> {
        let operation = "set the length of";
        self.alive(path, operation)?;
        let length = usize::try_from(bytes)
            .ok()
            .filter(|&length| length <= FILE_BYTES_MAX)
            .ok_or_else(|| {
                DiskError::from_io(path, operation, io::ErrorKind::FileTooLarge.into())
            })?;
        let turn = self.begin(Operation::Write);
        if let Turn::Fails(errno) = turn {
            return Err(failed(path, operation, errno));
        }
        if length > self.length(node).saturating_add(self.free_bytes()) {
            return Err(DiskError::Full {
                path: path.to_path_buf(),
            });
        }
        self.file_mut(node).change(Change::Length(length));
        if turn == Turn::Crashes {
            Err(crashed(path, operation))
        } else {
            Ok(())
        }
    }

    pub(super) fn sync_file(&mut self, node: NodeId, path: &Path) -> Result<(), DiskError> {
        self.alive(path, "sync")?;
        let turn = self.begin(Operation::Sync);
        let lies = [Lie::SkipSync, Lie::ReorderAcrossSync].map(|lie| self.lies(lie));
        let file = self.file_mut(node);
        match turn {
            Turn::Succeeds if lies[0] => {}
            Turn::Succeeds if lies[1] => file.sync_all_but_newest(),
            Turn::Succeeds => file.sync(),
            Turn::Fails(errno) => {
                file.give_up_unsynced();
                return Err(failed(path, "sync", errno));
            }
            Turn::Crashes => return Err(crashed(path, "sync")),
        }
        self.syncs += 1;
        Ok(())
    }

    pub(super) fn sync_directory(&mut self, node: NodeId, path: &Path) -> Result<(), DiskError> {
        self.alive(path, "sync directory")?;
        match self.begin(Operation::Sync) {
            Turn::Succeeds if self.lies(Lie::SkipDirectorySync) => {}
            Turn::Succeeds => self.tree.sync_directory(node),
            Turn::Fails(errno) => {
                self.tree.give_up_directory(node);
                self.failed_directory_syncs += 1;
                return Err(failed(path, "sync directory", errno));
            }
            Turn::Crashes => return Err(crashed(path, "sync directory")),
        }
        self.syncs += 1;
        Ok(())
    }

    /// Counts an operation and says what becomes of it.
    fn begin(&mut self, operation: Operation) -> Turn {
        assert!(!self.dead, "a dead disk begins nothing");
        self.ops += 1;
        let ops = self.ops;
        if self.crash_at.is_some_and(|at| at <= ops) {
            self.dead = true;
            return Turn::Crashes;
        }
        if self.full_during.contains(&ops) {
            return Turn::Fails(ENOSPC);
        }
        let planned = match operation {
            Operation::Write => &mut self.fail_write_at,
            Operation::Sync => &mut self.fail_sync_at,
            Operation::Names => &mut self.fail_names_at,
        };
        if planned.take_if(|at| *at <= ops).is_some() {
            Turn::Fails(EIO)
        } else {
            Turn::Succeeds
        }
    }

    /// Counts a read of a file's bytes, and says whether it succeeds.
    pub(super) fn begin_read(
        &mut self,
        path: &Path,
        operation: &'static str,
    ) -> Result<(), DiskError> {
        self.alive(path, operation)?;
        self.reads += 1;
        let reads = self.reads;
        match self.fail_read_at.take_if(|at| *at <= reads) {
            Some(_) => Err(failed(path, operation, EIO)),
            None => Ok(()),
        }
    }

    /// Turns a bit of what was read, where the disk lies about that.
    pub(super) fn falsify(&mut self, read: &mut [u8]) {
        if !read.is_empty() && self.lies(Lie::FlipOnRead) {
            let byte = self.rng.index(read.len());
            read[byte] ^= 1 << self.rng.index(8);
        }
    }

    /// Whether the disk lies this time.
    fn lies(&mut self, about: Lie) -> bool {
        match self.lie {
            Some((lie, one_in)) if lie == about => self.rng.chance(1, one_in),
            _ => false,
        }
    }

    /// Whether the write that was begun goes elsewhere, and where.
    fn misplaced(&mut self) -> Option<Landing> {
        let ops = self.ops;
        let planned = self.misplace_write_at.take_if(|(at, _)| *at <= ops);
        let lied = self.lies(Lie::LoseWrite).then_some(Landing::Nowhere);
        planned.map(|(_, landing)| landing).or(lied)
    }

    fn misplace(&mut self, node: NodeId, offset: usize, bytes: Vec<u8>, landing: Landing) {
        self.file_mut(node).pretend(offset, bytes.clone());
        match landing {
            Landing::Nowhere => {}
            Landing::Here(offset) => self.file_mut(node).land(offset, bytes),
            Landing::In(other, offset) => {
                if let Some(file) = self.tree.file_mut(other) {
                    file.spoil(offset, &bytes);
                }
            }
        }
    }

    /// How many bytes, from its start, there are of a write that did not end: up to the end of a sector,
    /// since the system copies whole pages.
    pub(super) fn part_of(&mut self, offset: usize, length: usize) -> usize {
        let end = offset + length;
        let ends = (offset..end).filter(|at| at.is_multiple_of(SECTOR_BYTES));
        let ends = ends.chain([offset, end]).collect::<Vec<_>>();
        self.rng.choose(&ends).map_or(0, |at| at - offset)
    }

    /// Writes what there is of a write, which does not even grow the file when there is nothing.
    fn write_part(&mut self, node: NodeId, offset: usize, part: &[u8]) {
        if !part.is_empty() {
            self.file_mut(node).change(Change::Write {
                offset,
                bytes: part.to_vec(),
            });
        }
    }

    fn file_mut(&mut self, node: NodeId) -> &mut FileNode {
        self.tree.file_mut(node).expect("an open file has a node")
    }

    fn length(&self, node: NodeId) -> usize {
        self.tree
            .file(node)
            .expect("an open file has a node")
            .visible()
            .len()
    }

    fn free_bytes(&self) -> usize {
        self.space_bytes.map_or(usize::MAX, |space_bytes| {
            let free_bytes = space_bytes.saturating_sub(self.tree.used_bytes());
            usize::try_from(free_bytes).unwrap_or(usize::MAX)
        })
    }
}

fn crashed(path: &Path, operation: &'static str) -> DiskError {
    DiskError::from_io(
        path,
        operation,
        io::Error::other("the simulated disk has crashed"),
    )
}

fn failed(path: &Path, operation: &'static str, errno: i32) -> DiskError {
    DiskError::from_io(path, operation, io::Error::from_raw_os_error(errno))
}
