//! Snapshots: where an opening may begin to read, and what the owner of the log had made of the
//! records before that place.
//!
//! `checkpoints/<position>.snapshot` stands beside the note of the same size. What it holds is
//! signed: whoever opens the log decides by it.
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0..8 | magic | `KIMBSNP1` |
//! | 8..12 | version | `u32`, 1 |
//! | 12..16 | closed | `u32`, number of closed segments |
//! | 16..48 | log id | |
//! | 48..56 | position | `u64`, number of records that it stands for, at least 1 |
//! | 56..88 | chain | the chain after the last of them |
//! | 88..96 | time | `u64`, of the last of them |
//! | 96..104 | log bytes | `u64`, bytes of segments that were used when it was made |
//! | 104..112 | contents bytes | `u64` |
//! | 112.. | closed segments | `end u64 ‖ file bytes u64 ‖ frames end u64` each, in order |
//! | … | contents | what the owner of the log keeps |
//! | next 32 | digest | BLAKE3 of everything before it |
//! | last 64 | signature | of log id, position and digest |
//!
//! The closed segments are those whose last record stands before `position`: the first begins at 0,
//! each next one where the one before it ends.

#![deny(clippy::indexing_slicing)]

use std::path::PathBuf;

use bytes::Bytes;
use kimberlite_crypto::{Signer, SnapshotClaim, VerifierKey, internal_hash};
use kimberlite_disk::Access;
use kimberlite_types::{ChainHash, LogId, Position, Timestamp, limits};

use crate::checkpoint::CheckpointStore;
use crate::error::StorageError;
use crate::frame::Reader;
use crate::open::segment_files;
use crate::segment::{ClosedExtent, FRAMES_AT, SEGMENT_BYTES_LIMIT};

const MAGIC: [u8; 8] = *b"KIMBSNP1";
const VERSION: u32 = 1;
const FIXED_BYTES: usize = 112;
const CLOSED_BYTES: usize = 24;
const DIGEST_BYTES: usize = 32;
const END_BYTES: usize = DIGEST_BYTES + SnapshotClaim::SIGNATURE_BYTES;

/// Bytes of a snapshot that are read or written at most.
const SNAPSHOT_BYTES_MAX: u64 = 1 << 32;

/// A place in a log where an opening may begin to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogBase {
    /// Which log it is.
    pub log_id: LogId,
    /// The number of records before it.
    pub position: Position,
    /// The chain after the last of them.
    pub chain: ChainHash,
    /// The time of the last of them.
    pub time: Timestamp,
    /// The closed segments that hold nothing but such records.
    pub closed: Vec<ClosedExtent>,
}

/// A place to begin to read, with what its owner made of the records before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSnapshot {
    /// The place.
    pub base: LogBase,
    /// Bytes of segments that were used when the snapshot was made.
    pub log_bytes: u64,
    /// What the owner keeps of those records.
    pub contents: Bytes,
}

/// Why bytes are not a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The bytes end too early or go on too long.
    #[error("the snapshot has the wrong length")]
    Length,
    /// The magic bytes or the version are not known.
    #[error("the file is not a snapshot that this release knows")]
    Version,
    /// The digest does not match.
    #[error("the snapshot's digest does not match")]
    Digest,
    /// The signature is not by the key of the log.
    #[error("the snapshot is not signed by the key of its log")]
    Signature,
    /// A field has a value that no snapshot has.
    #[error("the snapshot's {field} is not valid")]
    Field {
        /// The field.
        field: &'static str,
    },
}

impl LogSnapshot {
    /// Returns the file's bytes, signed.
    pub fn encode(&self, signer: &Signer) -> Vec<u8> {
        let base = &self.base;
        let closed = u32::try_from(base.closed.len()).expect("a log has fewer than 2^32 segments");
        let contents = u64::try_from(self.contents.len());
        let contents = contents.expect("memory is smaller than 2^64 bytes");
        let bytes_max = FIXED_BYTES + base.closed.len() * CLOSED_BYTES + END_BYTES;
        let mut bytes = Vec::with_capacity(bytes_max + self.contents.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&closed.to_le_bytes());
        bytes.extend_from_slice(base.log_id.as_bytes());
        bytes.extend_from_slice(&base.position.get().to_le_bytes());
        bytes.extend_from_slice(base.chain.as_bytes());
        for word in [base.time.as_nanoseconds(), self.log_bytes, contents] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        debug_assert_eq!(bytes.len(), FIXED_BYTES);
        for extent in &base.closed {
            for word in [extent.end.get(), extent.file_bytes, extent.frames_end] {
                bytes.extend_from_slice(&word.to_le_bytes());
            }
        }
        bytes.extend_from_slice(&self.contents);
        let digest = internal_hash(&bytes);
        let claim = SnapshotClaim {
            log_id: base.log_id,
            position: base.position,
            digest,
        };
        bytes.extend_from_slice(digest.as_bytes());
        bytes.extend_from_slice(&claim.sign(signer));
        bytes
    }

    /// Reads a snapshot that was signed by the owner of `key`.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`] when the bytes are not such a snapshot of this version.
    pub fn decode(bytes: &Bytes, key: &VerifierKey) -> Result<Self, SnapshotError> {
        let (rest, signature) = bytes.split_last_chunk().ok_or(SnapshotError::Length)?;
        let (body, digest) = rest
            .split_last_chunk::<DIGEST_BYTES>()
            .ok_or(SnapshotError::Length)?;
        if body.len() < FIXED_BYTES {
            return Err(SnapshotError::Length);
        }
        let mut reader = Reader { rest: body };
        if reader.take() != MAGIC || u32::from_le_bytes(reader.take()) != VERSION {
            return Err(SnapshotError::Version);
        }
        let computed = internal_hash(body);
        if computed.as_bytes() != digest {
            return Err(SnapshotError::Digest);
        }
        let closed = u32::from_le_bytes(reader.take());
        let mut base = LogBase {
            log_id: LogId::new(reader.take()),
            position: Position::new(u64::from_le_bytes(reader.take())),
            chain: ChainHash::new(reader.take()),
            time: Timestamp::from_nanoseconds(u64::from_le_bytes(reader.take())),
            closed: Vec::new(),
        };
        let claim = SnapshotClaim {
            log_id: base.log_id,
            position: base.position,
            digest: computed,
        };
        if !claim.is_signed(key, signature) {
            return Err(SnapshotError::Signature);
        }
        if base.position == Position::ZERO || base.position.get() > limits::POSITION_MAX {
            return Err(SnapshotError::Field { field: "position" });
        }
        let log_bytes = u64::from_le_bytes(reader.take());
        let contents_bytes = u64::from_le_bytes(reader.take());
        let closed_bytes = usize::try_from(closed)
            .ok()
            .and_then(|count| count.checked_mul(CLOSED_BYTES));
        let (closed, contents) = closed_bytes
            .and_then(|bytes| reader.rest.split_at_checked(bytes))
            .ok_or(SnapshotError::Length)?;
        if u64::try_from(contents.len()) != Ok(contents_bytes) {
            return Err(SnapshotError::Length);
        }
        base.closed = decode_closed(closed, base.position)?;
        Ok(Self {
            base,
            log_bytes,
            contents: bytes.slice_ref(contents),
        })
    }
}

fn decode_closed(bytes: &[u8], position: Position) -> Result<Vec<ClosedExtent>, SnapshotError> {
    let mut base = Position::ZERO;
    let (entries, _) = bytes.as_chunks::<CLOSED_BYTES>();
    let extent = |entry: &[u8; CLOSED_BYTES]| {
        let mut reader = Reader { rest: entry };
        let extent = ClosedExtent {
            base,
            end: Position::new(u64::from_le_bytes(reader.take())),
            file_bytes: u64::from_le_bytes(reader.take()),
            frames_end: u64::from_le_bytes(reader.take()),
        };
        let follows = base < extent.end && extent.end <= position;
        let sized = extent.file_bytes <= SEGMENT_BYTES_LIMIT
            && (FRAMES_AT..=extent.file_bytes).contains(&extent.frames_end);
        base = extent.end;
        (follows && sized)
            .then_some(extent)
            .ok_or(SnapshotError::Field {
                field: "closed segments",
            })
    };
    entries.iter().map(extent).collect()
}

impl CheckpointStore {
    /// Returns the positions of all snapshots, in order.
    ///
    /// # Errors
    ///
    /// [`StorageError::Disk`] when the directory cannot be read.
    pub fn snapshots(&self) -> Result<Vec<Position>, StorageError> {
        self.sizes_of(".snapshot")
    }

    /// Reads the bytes of a snapshot. One that has more than the log's segments is none: it says what
    /// they say, in fewer bytes.
    ///
    /// # Errors
    ///
    /// [`StorageError::Disk`] when they cannot be read, or are too many.
    pub fn snapshot(&self, position: Position) -> Result<Bytes, StorageError> {
        let path = self.path(position, "snapshot");
        let segments = segment_files(self.disk.as_ref(), &self.tenant_dir.join("log"))?;
        let bytes_max = segments.iter().map(|(_, bytes)| bytes).sum::<u64>();
        let bytes = self.disk.read(&path, bytes_max.min(SNAPSHOT_BYTES_MAX))?;
        Ok(bytes.into())
    }

    /// Stores a snapshot, and once it is durable removes all others. One that would be too large to
    /// be read again is not stored.
    ///
    /// A crash leaves the old ones, both, or an unfinished file beside the old ones, which the next
    /// snapshot removes.
    ///
    /// # Errors
    ///
    /// [`StorageError::Disk`] when a file cannot be written.
    pub fn store_snapshot(&self, position: Position, bytes: &[u8]) -> Result<(), StorageError> {
        if u64::try_from(bytes.len()).is_ok_and(|bytes| bytes > SNAPSHOT_BYTES_MAX) {
            return Ok(());
        }
        self.disk.create_dir_all(&self.dir())?;
        let path = self.path(position, "snapshot");
        self.disk.write_new_atomic(&path, bytes, Access::Shared)?;
        let others = self.disk.list(&self.dir())?;
        let is_other = |path_of: &PathBuf| {
            let name = path_of.as_os_str().as_encoded_bytes();
            *path_of != path && (name.ends_with(b".snapshot") || name.ends_with(b".snapshot.tmp"))
        };
        let others = others.iter().map(|entry| self.dir().join(&entry.name));
        for other in others.filter(is_other) {
            self.disk.remove(&other)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer() -> Signer {
        Signer::from_seed([9; 32])
    }

    fn key() -> VerifierKey {
        signer().verifier_key("t").unwrap()
    }

    fn snapshot() -> LogSnapshot {
        let extent = |base, end, frames_end| ClosedExtent {
            base: Position::new(base),
            end: Position::new(end),
            file_bytes: 256 << 10,
            frames_end,
        };
        LogSnapshot {
            base: LogBase {
                log_id: LogId::new([1; 32]),
                position: Position::new(0x0102),
                chain: ChainHash::new([2; 32]),
                time: Timestamp::from_nanoseconds(3),
                closed: vec![extent(0, 100, 5000), extent(100, 200, 6000)],
            },
            log_bytes: 7,
            contents: Bytes::from_static(b"contents"),
        }
    }

    /// Makes a file of changed bytes right again, but for what they say.
    fn resign(mut body: Vec<u8>) -> Bytes {
        body.truncate(body.len() - END_BYTES);
        let digest = internal_hash(&body);
        let claim = SnapshotClaim {
            log_id: LogId::new(*body.get(16..).unwrap().first_chunk().unwrap()),
            position: Position::new(u64::from_le_bytes(
                *body.get(48..).unwrap().first_chunk().unwrap(),
            )),
            digest,
        };
        body.extend_from_slice(digest.as_bytes());
        body.extend_from_slice(&claim.sign(&signer()));
        body.into()
    }

    #[test]
    fn snapshots_round_trip() {
        let bytes = snapshot().encode(&signer()).into();
        assert_eq!(LogSnapshot::decode(&bytes, &key()), Ok(snapshot()));
    }

    #[test]
    fn the_bytes_are_those_of_the_format() {
        let mut expected = b"KIMBSNP1\x01\0\0\0\x02\0\0\0".to_vec();
        expected.extend([1; 32]);
        expected.extend([2, 1, 0, 0, 0, 0, 0, 0]);
        expected.extend([2; 32]);
        for word in [3_u64, 7, 8, 100, 256 << 10, 5000, 200, 256 << 10, 6000] {
            expected.extend(word.to_le_bytes());
        }
        expected.extend(b"contents");
        let mut bytes = snapshot().encode(&signer());
        assert_eq!(resign(bytes.clone()), bytes);
        bytes.truncate(expected.len());
        assert_eq!(bytes, expected);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = snapshot().encode(&signer());
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            *changed.get_mut(at).unwrap() ^= 0x10;
            let read = LogSnapshot::decode(&changed.into(), &key());
            assert!(read.is_err(), "byte {at}");
            let cut = Bytes::copy_from_slice(bytes.get(..at).unwrap());
            assert!(LogSnapshot::decode(&cut, &key()).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_right_digest_without_a_right_signature_is_not_enough() {
        let forged = snapshot().encode(&Signer::from_seed([8; 32])).into();
        let read = LogSnapshot::decode(&forged, &key());
        assert_eq!(read, Err(SnapshotError::Signature));
    }

    #[test]
    fn what_no_snapshot_holds_is_refused_though_it_is_signed() {
        let closed = SnapshotError::Field {
            field: "closed segments",
        };
        let cases: [(usize, u64, SnapshotError); 8] = [
            (8, 2, SnapshotError::Version),
            (48, 0, SnapshotError::Field { field: "position" }),
            (48, u64::MAX, SnapshotError::Field { field: "position" }),
            (48, 199, closed),
            (104, 9, SnapshotError::Length),
            (112, 0, closed),
            (120, u64::MAX, closed),
            (128, 4095, closed),
        ];
        for (at, value, error) in cases {
            let mut changed = snapshot().encode(&signer());
            let place = changed.get_mut(at..at + 8).unwrap();
            place.copy_from_slice(&value.to_le_bytes());
            let read = LogSnapshot::decode(&resign(changed), &key());
            assert_eq!(read, Err(error), "byte {at}");
        }
        let mut many = snapshot().encode(&signer());
        many.get_mut(12..16).unwrap().fill(0xff);
        let read = LogSnapshot::decode(&resign(many), &key());
        assert_eq!(read, Err(SnapshotError::Length));
    }
}
