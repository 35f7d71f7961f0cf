//! What is left of a disk after power loss, after a kill, and in a copy.

use std::collections::{BTreeMap, BTreeSet};

use super::CrashMode;
use super::core::Core;
use super::node::{Change, FileNode, SECTOR_BYTES};
use super::tree::{Node, Tree, apply};
use crate::Rng;

impl Core {
    /// The disk after power loss: what was synced, and of the rest what the mode says.
    pub(super) fn after_power_loss(&self, mode: CrashMode) -> Self {
        let mut tree = self.tree.clone();
        if let Some(cut) = self.cut_write.clone()
            && let Some(file) = tree.file_mut(cut.node)
        {
            file.change(Change::Write {
                offset: cut.offset,
                bytes: cut.bytes,
            });
        }
        let mut rng = match mode {
            CrashMode::Mixed(seed) => Rng::new(Rng::new(self.seed).next_u64() ^ seed),
            CrashMode::LoseUnsynced | CrashMode::KeepUnsynced => Rng::new(0),
        };
        settle_names(&mut tree, mode, &mut rng);
        for node in tree.nodes.values_mut() {
            match node {
                Node::File(file) => file.settle(lasting(file, mode, &mut rng)),
                Node::Directory(directory) => directory.visible.clone_from(&directory.durable),
            }
        }
        tree.forget_nameless();
        self.successor(tree)
    }

    /// The disk after a kill: the page cache stays, with all that is not durable in it. Of a write
    /// under way a part has happened.
    pub(super) fn after_process_kill(&mut self) -> Self {
        let mut tree = self.tree.clone();
        if let Some(cut) = self.cut_write.clone() {
            let part = self.part_of(cut.offset, cut.bytes.len());
            if let Some(file) = tree.file_mut(cut.node).filter(|_| part > 0) {
                file.change(Change::Write {
                    offset: cut.offset,
                    bytes: cut.bytes[..part].into(),
                });
            }
        }
        self.successor(tree)
    }

    /// The same content, durable and not.
    pub(super) fn twin(&self) -> Self {
        let twin = self.successor(self.tree.clone());
        Self {
            cut_write: self.cut_write.clone(),
            ..twin
        }
    }

    /// A copy of what readers see, all of it durable.
    pub(super) fn snapshot(&self) -> Self {
        let mut tree = self.tree.clone();
        tree.pending.clear();
        for node in tree.nodes.values_mut() {
            match node {
                Node::File(file) => file.settle(file.visible().to_vec()),
                Node::Directory(directory) => directory.durable.clone_from(&directory.visible),
            }
        }
        tree.forget_nameless();
        self.successor(tree)
    }

    fn successor(&self, tree: Tree) -> Self {
        Self {
            tree,
            rng: self.rng.clone(),
            space_bytes: self.space_bytes,
            lie: self.lie,
            observer: self.observer.clone(),
            sync_observer: None,
            ..Self::new(self.seed)
        }
    }
}

/// Decides each unsynced change of names. One that was lost takes the later changes of its names
/// along: no file system lets a name skip what happened to it.
fn settle_names(tree: &mut Tree, mode: CrashMode, rng: &mut Rng) {
    let mut lost = BTreeSet::new();
    for settings in std::mem::take(&mut tree.pending) {
        let survives = match mode {
            CrashMode::LoseUnsynced => false,
            CrashMode::KeepUnsynced => true,
            CrashMode::Mixed(_) => rng.chance(1, 2),
        };
        let names: Vec<_> = settings
            .iter()
            .map(|s| (s.directory, s.name.clone()))
            .collect();
        if survives && !names.iter().any(|name| lost.contains(name)) {
            for setting in &settings {
                apply(&mut tree.directory_mut(setting.directory).durable, setting);
            }
        } else {
            lost.extend(names);
        }
    }
}

/// What becomes of one unsynced change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Lost,
    Kept,
    /// Each sector for itself.
    Torn,
}

/// What the medium holds of a file after power loss.
fn lasting(file: &FileNode, mode: CrashMode, rng: &mut Rng) -> Vec<u8> {
    let mut content = file.durable().to_vec();
    match mode {
        CrashMode::LoseUnsynced => {}
        CrashMode::KeepUnsynced => file.unsynced().iter().for_each(|c| c.apply(&mut content)),
        CrashMode::Mixed(_) => content = mixed(file, rng),
    }
    content
}

/// Each sector as it was after some number of the unsynced changes; see the head of `simulated`.
fn mixed(file: &FileNode, rng: &mut Rng) -> Vec<u8> {
    let changes = file.unsynced();
    let fates: Vec<Fate> = changes
        .iter()
        .map(|_| match rng.below(3) {
            0 => Fate::Lost,
            1 => Fate::Kept,
            _ => Fate::Torn,
        })
        .collect();
    let lengths = lengths(file);
    let length_version = surviving_length(&lengths, &fates, rng);
    let versions = surviving_sectors(file, &fates, &lengths[..=length_version], rng);

    let mut state = file.durable().to_vec();
    let mut result = state.clone();
    result.resize(lengths.iter().copied().max().unwrap_or(0), 0);
    for (index, change) in changes.iter().enumerate() {
        change.apply(&mut state);
        for sector in touched(change, lengths[index]) {
            if versions.get(&sector) == Some(&(index + 1)) {
                copy_sector(&state, &mut result, sector);
            }
        }
    }
    result.truncate(lengths[length_version]);
    result
}

/// The length before the first change and after each.
fn lengths(file: &FileNode) -> Vec<usize> {
    let mut length = file.durable().len();
    let mut lengths = vec![length];
    for change in file.unsynced() {
        length = match change {
            Change::Write { offset, bytes } => length.max(offset + bytes.len()),
            Change::Length(length) => *length,
        };
        lengths.push(length);
    }
    lengths
}

/// How many changes the surviving length has seen.
fn surviving_length(lengths: &[usize], fates: &[Fate], rng: &mut Rng) -> usize {
    let mut survivor = 0;
    for (index, fate) in fates.iter().enumerate() {
        let changed = lengths[index] != lengths[index + 1];
        let survives = match fate {
            Fate::Lost => false,
            Fate::Kept => true,
            Fate::Torn => rng.chance(1, 2),
        };
        if changed && survives {
            survivor = index + 1;
        }
    }
    survivor
}

/// For each sector that survives in a newer state, how many changes that state has seen.
///
/// `lengths` are those that survived. A cut that survived has emptied the sectors behind it, and
/// behind one that did not nothing later can have been written: space is given up and taken anew
/// together with the length.
fn surviving_sectors(
    file: &FileNode,
    fates: &[Fate],
    lengths: &[usize],
    rng: &mut Rng,
) -> BTreeMap<usize, usize> {
    let mut versions = BTreeMap::new();
    let mut closed_from = usize::MAX;
    let mut length = file.durable().len();
    for (index, (change, fate)) in file.unsynced().iter().zip(fates).enumerate() {
        match change {
            Change::Write { offset, bytes } => {
                for sector in touched(change, length) {
                    let survives = match fate {
                        Fate::Lost => false,
                        Fate::Kept => true,
                        Fate::Torn => rng.chance(1, 2),
                    };
                    if survives && sector < closed_from {
                        versions.insert(sector, index + 1);
                    }
                }
                length = length.max(offset + bytes.len());
            }
            Change::Length(new) => {
                if *new < length && index + 1 < lengths.len() {
                    versions.extend(touched(change, length).map(|sector| (sector, index + 1)));
                } else if *new < length {
                    closed_from = closed_from.min(new / SECTOR_BYTES);
                }
                length = *new;
            }
        }
    }
    versions
}

/// The sectors whose content a change may alter, in a file that had this length before.
fn touched(change: &Change, length: usize) -> std::ops::Range<usize> {
    match change {
        Change::Write { offset, bytes } => {
            offset / SECTOR_BYTES..(offset + bytes.len()).div_ceil(SECTOR_BYTES)
        }
        Change::Length(new) => new / SECTOR_BYTES..length.div_ceil(SECTOR_BYTES),
    }
}

fn copy_sector(state: &[u8], result: &mut [u8], sector: usize) {
    let start = sector * SECTOR_BYTES;
    let end = (start + SECTOR_BYTES).min(result.len());
    let known = state.get(start..end.min(state.len())).unwrap_or_default();
    let (written, beyond) = result[start..end].split_at_mut(known.len());
    written.copy_from_slice(known);
    beyond.fill(0);
}
