//! The checkpoints of a log on disk: signed notes, and what is needed to go on from them.
//!
//! `checkpoints/<size>.note` is the note as it was signed, `checkpoints/<size>.state` the state of
//! chain and tree at that size, and `checkpoint` the newest note again, where other tools look for
//! it. `<size>` has 20 digits. A state file is
//! `"KIMBCKS1" | version u32 | frontier bytes u32 | chain [32] | frontier | BLAKE3 [32]` over what
//! precedes it.

#![deny(clippy::indexing_slicing)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kimberlite_crypto::{Frontier, internal_hash};
use kimberlite_disk::{Access, Disk, DiskError, Entry};
use kimberlite_types::{ChainHash, Position, RootHash};

use crate::error::StorageError;
use crate::frame::Reader;
use crate::history::History;
use crate::snapshot::LogBase;

/// Bytes of a note that are read at most.
const NOTE_BYTES_MAX: u64 = 64 << 10;

const STATE_MAGIC: [u8; 8] = *b"KIMBCKS1";
const STATE_VERSION: u32 = 1;
const STATE_FIXED_BYTES: usize = 48;
const STATE_BYTES_MAX: u64 = 4096;

/// Chain and tree after some number of records: what a checkpoint is signed over.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryState(pub(crate) History);

impl HistoryState {
    /// Returns the number of records.
    pub fn size(&self) -> Position {
        self.0.position()
    }

    /// Returns the root of the Merkle tree.
    pub fn root(&self) -> RootHash {
        self.0.frontier.root()
    }

    /// Returns the chain hash.
    pub fn chain(&self) -> ChainHash {
        self.0.chain
    }

    /// Returns what a checkpoint is to state of it.
    pub fn statement(&self) -> Statement {
        Statement {
            size: self.size(),
            root: self.root(),
            chain: self.chain(),
        }
    }

    /// Returns a state's file as it is stored.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let frontier = self.0.frontier.encode();
        let mut bytes = STATE_MAGIC.to_vec();
        bytes.extend_from_slice(&STATE_VERSION.to_le_bytes());
        let frontier_bytes = u32::try_from(frontier.len()).expect("a frontier is small");
        bytes.extend_from_slice(&frontier_bytes.to_le_bytes());
        bytes.extend_from_slice(self.0.chain.as_bytes());
        bytes.extend_from_slice(&frontier);
        let digest = internal_hash(&bytes);
        bytes.extend_from_slice(digest.as_bytes());
        bytes
    }

    /// `None` when the bytes are not a state of this version.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, digest) = bytes.split_last_chunk::<32>()?;
        if body.len() < STATE_FIXED_BYTES || internal_hash(body).as_bytes() != digest {
            return None;
        }
        let mut reader = Reader { rest: body };
        if reader.take() != STATE_MAGIC || u32::from_le_bytes(reader.take()) != STATE_VERSION {
            return None;
        }
        let frontier_bytes = u32::from_le_bytes(reader.take());
        let chain = ChainHash::new(reader.take());
        if u32::try_from(reader.rest.len()) != Ok(frontier_bytes) {
            return None;
        }
        let frontier = Frontier::decode(reader.rest).ok()?;
        Some(Self(History { chain, frontier }))
    }
}

/// What the checkpoints of a log say of it when it is opened.
///
/// The caller has checked the signature of the checkpoints that it goes by: files beside the log
/// prove nothing by themselves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Witness {
    /// What the newest checkpoint states. A log that ends before its size was rolled back; a writer
    /// refuses one that differs.
    pub newest: Option<Statement>,
    /// Chain and tree at a size that a signed checkpoint states, this one or an older one. A writer
    /// computes only what stands behind; without it all of the log is computed.
    pub history: Option<HistoryState>,
    /// Where to begin to read, by a snapshot that the owner of the log signed. A writer needs
    /// `history` at this position or behind it.
    pub base: Option<LogBase>,
}

/// What a checkpoint states of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The number of records.
    pub size: Position,
    /// The root of the Merkle tree over them.
    pub root: RootHash,
    /// The chain hash after the last of them.
    pub chain: ChainHash,
}

impl Witness {
    /// Returns the number of records that checkpoints vouch for.
    pub fn size(&self) -> Position {
        self.newest.map_or(Position::ZERO, |newest| newest.size)
    }
}

/// The sizes of the checkpoints that have a file of each kind, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointFiles {
    /// Those with a note.
    pub notes: Vec<Position>,
    /// Those with a state.
    pub states: Vec<Position>,
    /// Those with a snapshot.
    pub snapshots: Vec<Position>,
}

/// The checkpoint files of one tenant.
#[derive(Clone, Debug)]
pub struct CheckpointStore {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) tenant_dir: PathBuf,
}

impl CheckpointStore {
    /// Takes the directory of a tenant.
    pub fn new(disk: Arc<dyn Disk>, tenant_dir: &Path) -> Self {
        Self {
            disk,
            tenant_dir: tenant_dir.to_owned(),
        }
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.tenant_dir.join("checkpoints")
    }

    pub(crate) fn path(&self, size: Position, ending: &str) -> PathBuf {
        self.dir().join(format!("{:020}.{ending}", size.get()))
    }

    /// Stores a signed note and the state that it was signed over.
    ///
    /// A crash before the note has its name leaves at most a state file, which vouches for nothing.
    ///
    /// # Errors
    ///
    /// [`StorageError::Disk`] when a file cannot be written.
    pub fn store(&self, state: &HistoryState, note: &str) -> Result<(), StorageError> {
        let size = state.size();
        self.disk.create_dir_all(&self.dir())?;
        let write =
            |path: &Path, bytes: &[u8]| self.disk.write_new_atomic(path, bytes, Access::Shared);
        write(&self.path(size, "state"), &state.encode())?;
        write(&self.path(size, "note"), note.as_bytes())?;
        self.show(note)
    }

    /// Stores the newest note where other tools look for it.
    ///
    /// # Errors
    ///
    /// As [`CheckpointStore::store`].
    pub fn show(&self, note: &str) -> Result<(), StorageError> {
        let path = self.tenant_dir.join("checkpoint");
        self.disk
            .write_new_atomic(&path, note.as_bytes(), Access::Shared)?;
        Ok(())
    }

    /// Returns the note that other tools find, or whatever stands there; `None` when nothing does.
    pub fn shown(&self) -> Option<String> {
        let path = self.tenant_dir.join("checkpoint");
        let bytes = self.disk.read(&path, NOTE_BYTES_MAX).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Returns the sizes of all checkpoints, in order.
    ///
    /// # Errors
    ///
    /// [`StorageError::Disk`] when the directory cannot be read.
    pub fn sizes(&self) -> Result<Vec<Position>, StorageError> {
        self.sizes_of(".note")
    }

    /// Returns the sizes in the names with this ending, in order.
    pub(crate) fn sizes_of(&self, ending: &str) -> Result<Vec<Position>, StorageError> {
        Ok(sizes_in(&self.entries()?, ending))
    }

    /// Lists the files.
    ///
    /// # Errors
    ///
    /// [`StorageError::Disk`] when the directory cannot be read.
    pub fn files(&self) -> Result<CheckpointFiles, StorageError> {
        let entries = self.entries()?;
        Ok(CheckpointFiles {
            notes: sizes_in(&entries, ".note"),
            states: sizes_in(&entries, ".state"),
            snapshots: sizes_in(&entries, ".snapshot"),
        })
    }

    fn entries(&self) -> Result<Vec<Entry>, StorageError> {
        match self.disk.list(&self.dir()) {
            Err(DiskError::NotFound { .. }) => Ok(Vec::new()),
            entries => Ok(entries?),
        }
    }

    /// Removes the note and the state of the checkpoint of `size` records.
    ///
    /// The state goes first: a crash leaves the note alone, which is as good as both.
    ///
    /// # Errors
    ///
    /// [`StorageError::Disk`] when a file cannot be removed.
    pub fn remove(&self, size: Position) -> Result<(), StorageError> {
        self.remove_state(size)?;
        self.remove_file(&self.path(size, "note"))
    }

    /// Removes the state of the checkpoint of `size` records.
    ///
    /// # Errors
    ///
    /// As [`CheckpointStore::remove`].
    pub fn remove_state(&self, size: Position) -> Result<(), StorageError> {
        self.remove_file(&self.path(size, "state"))
    }

    fn remove_file(&self, path: &Path) -> Result<(), StorageError> {
        match self.disk.remove(path) {
            Ok(()) | Err(DiskError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the note of the checkpoint of `size` records.
    ///
    /// # Errors
    ///
    /// [`StorageError::CheckpointFile`] when it is not text or far too long, [`StorageError::Disk`] when it cannot
    /// be read.
    pub fn note(&self, size: Position) -> Result<String, StorageError> {
        let damaged = || StorageError::CheckpointFile { size: size.get() };
        let bytes = self.disk.read(&self.path(size, "note"), NOTE_BYTES_MAX);
        let bytes = bytes.map_err(|error| match error {
            DiskError::TooLarge { .. } => damaged(),
            other => other.into(),
        })?;
        String::from_utf8(bytes).map_err(|_| damaged())
    }

    /// Reads the state of the checkpoint of `size` records; `None` when it is missing or damaged:
    /// it can always be computed from the log.
    pub fn state(&self, size: Position) -> Option<HistoryState> {
        let bytes = self
            .disk
            .read(&self.path(size, "state"), STATE_BYTES_MAX)
            .ok()?;
        HistoryState::decode(&bytes).filter(|state| state.size() == size)
    }
}

fn sizes_in(entries: &[Entry], ending: &str) -> Vec<Position> {
    let names = entries.iter().map(|entry| entry.name.as_str());
    let sizes = names.filter_map(|name| crate::segment::base_of_name(name, ending));
    let mut sizes = sizes.collect::<Vec<_>>();
    sizes.sort_unstable();
    sizes
}

#[cfg(test)]
mod tests {
    use kimberlite_types::LeafHash;

    use super::*;

    #[test]
    fn states_round_trip_and_every_flipped_bit_is_noticed() {
        let mut frontier = Frontier::new();
        for n in 0..77 {
            frontier.push(LeafHash::new([n; 32]));
        }
        let state = HistoryState(History {
            chain: ChainHash::new([9; 32]),
            frontier,
        });
        let bytes = state.encode();
        assert_eq!(HistoryState::decode(&bytes), Some(state));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            *changed.get_mut(at).unwrap() ^= 1;
            assert_eq!(HistoryState::decode(&changed), None, "byte {at}");
        }
    }
}
