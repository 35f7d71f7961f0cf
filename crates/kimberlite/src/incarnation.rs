//! Which of the histories of a log this is.
//!
//! A log that was restored from a backup, or repaired at the price of records, goes on from a point
//! that the original may have gone past. What it signs from there on must not pass for the
//! original's: it has a new **incarnation**, a name of its own in the origin of its checkpoints. The
//! random token in it keeps two restores of one backup apart.
//!
//! The file `tenants/<tenant>/incarnation` holds the payload of the record with which the newest
//! incarnation begins, and its BLAKE3. It is written before anything of the incarnation, so a writer
//! that finds the log ending where the record belongs still owes it; and a log whose record there is
//! another is refused.
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0..2 | version | `u16`, 2 |
//! | 2..4 | cause | `u16`, 1 restored, 2 repaired |
//! | 4..12 | number | `u64`, from 2 |
//! | 12..20 | token | random |
//! | 20..28 | position | `u64`, of the record: all before it is shared with the one before |
//! | 28..36 | known end | `u64`, how many records the one before is known to have had |
//! | 36..44 | size | `u64`, of the newest checkpoint that is known of it; 0 for none |
//! | 44..76 | root | of that checkpoint |
//! | 76..108 | chain | of that checkpoint |
//! | 108..110 | ended | `u16`, number of incarnations before, at most 1,024 |
//! | 110.. | ended | for each `size u64 \| bytes u16 \| origin`, the oldest first |
//!
//! `size` of an ended one is the number of records that its checkpoints may speak of here.

#![deny(clippy::indexing_slicing)]

use std::path::{Path, PathBuf};

use kimberlite_crypto::internal_hash;
use kimberlite_disk::{Access, Disk, DiskError};
use kimberlite_kernel::Command;
use kimberlite_storage::{FRAME_HEADER_BYTES, Statement, StoredRecord};
use kimberlite_types::{ChainHash, LogId, Position, RecordKind, RootHash};

use crate::engine::{Engine, Group};
use crate::error::{Error, Problem};
use crate::payload::encode_recovery;
use crate::tenant::TenantInner;

/// The file beside the log.
pub(crate) const FILE_NAME: &str = "incarnation";

const VERSION: u16 = 2;
const ENDED_MAX: usize = 1024;
const DIGEST_BYTES: usize = 32;
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why an incarnation began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Restored,
    Repaired,
}

/// An incarnation that ended, as far as this log is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) origin: String,
    /// How many records its checkpoints may speak of.
    pub(crate) size: Position,
}

/// An incarnation after the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Incarnation {
    pub(crate) cause: Cause,
    pub(crate) number: u64,
    pub(crate) token: [u8; 8],
    pub(crate) position: Position,
    pub(crate) known_end: Position,
    /// What the newest checkpoint stated that is known of the one before.
    pub(crate) stated: Statement,
    pub(crate) ended: Vec<Ended>,
}

impl Cause {
    /// Returns the kind of the record with which an incarnation begins.
    pub(crate) fn kind(self) -> RecordKind {
        match self {
            Self::Restored => RecordKind::Restore,
            Self::Repaired => RecordKind::Recovery,
        }
    }
}

/// What a new incarnation is made of.
pub(crate) struct Beginning<'a> {
    pub(crate) cause: Cause,
    pub(crate) before: Option<&'a Incarnation>,
    /// The origin before it.
    pub(crate) origin: String,
    pub(crate) position: Position,
    pub(crate) known_end: Position,
    pub(crate) stated: Statement,
}

impl Incarnation {
    /// Begins the next incarnation; `None` when there were too many.
    pub(crate) fn begin(of: Beginning<'_>, token: [u8; 8]) -> Option<Self> {
        let mut ended = of.before.map_or(Vec::new(), |before| before.ended.clone());
        ended.push(Ended {
            origin: of.origin,
            size: of.position,
        });
        for earlier in &mut ended {
            earlier.size = earlier.size.min(of.position);
        }
        (ended.len() <= ENDED_MAX).then_some(Self {
            cause: of.cause,
            number: of.before.map_or(2, |before| before.number + 1),
            token,
            position: of.position,
            known_end: of.known_end,
            stated: of.stated,
            ended,
        })
    }

    /// Returns its payload in the log.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        let cause: u16 = match self.cause {
            Cause::Restored => 1,
            Cause::Repaired => 2,
        };
        bytes.extend(cause.to_le_bytes());
        bytes.extend(self.number.to_le_bytes());
        bytes.extend(self.token);
        bytes.extend(self.position.get().to_le_bytes());
        bytes.extend(self.known_end.get().to_le_bytes());
        bytes.extend(self.stated.size.get().to_le_bytes());
        bytes.extend(self.stated.root.as_bytes());
        bytes.extend(self.stated.chain.as_bytes());
        let count = u16::try_from(self.ended.len()).expect("at most 1,024");
        bytes.extend(count.to_le_bytes());
        for ended in &self.ended {
            bytes.extend(ended.size.get().to_le_bytes());
            let length = u16::try_from(ended.origin.len()).expect("an origin names a key");
            bytes.extend(length.to_le_bytes());
            bytes.extend(ended.origin.as_bytes());
        }
        bytes
    }

    /// `None` when the bytes are not an incarnation of this version.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        (u16::from_le_bytes(reader.take()?) == VERSION).then_some(())?;
        let cause = match u16::from_le_bytes(reader.take()?) {
            1 => Cause::Restored,
            2 => Cause::Repaired,
            _ => return None,
        };
        let number = reader.number()?;
        let token = reader.take()?;
        let position = Position::new(reader.number()?);
        let known_end = Position::new(reader.number()?);
        let stated = Statement {
            size: Position::new(reader.number()?),
            root: RootHash::new(reader.take()?),
            chain: ChainHash::new(reader.take()?),
        };
        let count = usize::from(u16::from_le_bytes(reader.take()?));
        (number >= 2 && (1..=ENDED_MAX).contains(&count)).then_some(())?;
        let mut ended = Vec::with_capacity(count);
        for _ in 0..count {
            let size = Position::new(reader.number()?);
            let length = usize::from(u16::from_le_bytes(reader.take()?));
            let (origin, rest) = reader.0.split_at_checked(length)?;
            reader.0 = rest;
            let origin = std::str::from_utf8(origin).ok()?.to_owned();
            ended.push(Ended { origin, size });
        }
        reader.0.is_empty().then_some(Self {
            cause,
            number,
            token,
            position,
            known_end,
            stated,
            ended,
        })
    }

    /// Reads the file of a tenant; `None` when its log was neither restored nor repaired.
    pub(crate) fn read(disk: &dyn Disk, tenant_dir: &Path) -> Result<Option<Self>, Error> {
        let path = tenant_dir.join(FILE_NAME);
        let bytes = match disk.read(&path, FILE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(DiskError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let whole = bytes.split_last_chunk::<DIGEST_BYTES>();
        let whole = whole.filter(|(body, digest)| internal_hash(body).as_bytes() == *digest);
        let read = whole.and_then(|(body, _)| Self::decode(body));
        let damaged = |path: PathBuf| Error::from(Problem::Incarnation { path });
        read.map(Some).ok_or_else(|| damaged(path))
    }

    /// Writes the file of a tenant, durably.
    pub(crate) fn write(&self, disk: &dyn Disk, tenant_dir: &Path) -> Result<(), Error> {
        let mut bytes = self.encode();
        let digest = internal_hash(&bytes);
        bytes.extend(digest.as_bytes());
        let path = tenant_dir.join(FILE_NAME);
        disk.write_new_atomic(&path, &bytes, Access::Shared)?;
        Ok(())
    }

    /// Whether an incarnation of this log begins at `position`.
    pub(crate) fn begins_at(&self, position: Position) -> bool {
        self.ended.iter().any(|ended| ended.size == position)
    }

    /// Whether the newest incarnation begins with `record`.
    pub(crate) fn is_recorded_by(&self, record: &StoredRecord) -> bool {
        record.frame().kind == Some(self.cause.kind()) && **record.payload() == *self.encode()
    }
}

/// Returns the origin of a log's checkpoints.
pub(crate) fn origin(label: &str, log_id: &LogId, incarnation: Option<&Incarnation>) -> String {
    let incarnation = match incarnation {
        None => "1".to_owned(),
        Some(Incarnation { number, token, .. }) => {
            let digits = token.iter().map(|byte| format!("{byte:02x}"));
            format!("{number}-{}", digits.collect::<String>())
        }
    };
    format!("{label}/{}/{incarnation}", log_id.short_hex())
}

/// Whether a record begins an incarnation.
pub(crate) fn begins(kind: RecordKind, payload: &[u8]) -> bool {
    kind == RecordKind::Restore
        || (kind == RecordKind::Recovery && payload.starts_with(&VERSION.to_le_bytes()))
}

/// Puts into the log what a writer that opens it owes: the record with which an incarnation begins,
/// and the one of an unfinished write that was cut off. They are one group, since both are owed
/// where the log ends.
pub(crate) fn record_owed(inner: &TenantInner, engine: &mut Engine) -> Result<(), Error> {
    let end = engine.log.next_position();
    let incarnation = inner.incarnation.as_ref();
    let incarnation = incarnation.filter(|incarnation| incarnation.position == end);
    let cut = inner.report.tail_discarded.as_ref();
    if incarnation.is_none() && cut.is_none() {
        return Ok(());
    }
    let payload = incarnation.map(Incarnation::encode);
    let bytes = payload.as_ref().map_or(0, Vec::len);
    let bytes = u64::try_from(bytes).expect("memory is smaller than 2^64 bytes");
    engine.log.reserve(bytes + FRAME_HEADER_BYTES as u64 * 4)?;
    let mut group = Group::default();
    if let (Some(incarnation), Some(payload)) = (incarnation, payload) {
        let time = engine.now();
        let command = match incarnation.cause {
            Cause::Repaired => Command::Recovery { time },
            Cause::Restored => Command::Other {
                count: 1,
                stream: None,
                offset: None,
                seal: None,
                time,
            },
        };
        engine.record(&mut group, incarnation.cause.kind(), command, &payload)?;
    }
    if let Some(cut) = cut {
        let command = Command::Recovery { time: engine.now() };
        let payload = encode_recovery(cut);
        engine.record(&mut group, RecordKind::Recovery, command, &payload)?;
    }
    inner.commit(engine, group)?;
    engine.log.sync()?;
    inner.show()
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incarnation() -> Incarnation {
        let stated = Statement {
            size: Position::new(9),
            root: RootHash::new([2; 32]),
            chain: ChainHash::new([3; 32]),
        };
        let begin = |before: Option<&Incarnation>, origin: &str, at| {
            let of = Beginning {
                cause: Cause::Restored,
                before,
                origin: origin.to_owned(),
                position: Position::new(at),
                known_end: Position::new(12),
                stated,
            };
            Incarnation::begin(of, [7; 8]).unwrap()
        };
        let second = begin(None, "t/01/1", 20);
        begin(Some(&second), "t/01/2-07", 9)
    }

    #[test]
    fn incarnations_are_as_documented_and_cuts_and_changes_are_refused() {
        let incarnation = incarnation();
        let bytes = incarnation.encode();
        let mut expected = vec![2, 0, 1, 0, 3, 0, 0, 0, 0, 0, 0, 0];
        expected.extend([7; 8]);
        expected.extend([9, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([9, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([2; 32]);
        expected.extend([3; 32]);
        expected.extend([2, 0, 9, 0, 0, 0, 0, 0, 0, 0, 6, 0]);
        expected.extend(b"t/01/1");
        expected.extend([9, 0, 0, 0, 0, 0, 0, 0, 9, 0]);
        expected.extend(b"t/01/2-07");
        assert_eq!(bytes, expected);
        assert_eq!(Incarnation::decode(&bytes), Some(incarnation));
        for end in 0..bytes.len() {
            let cut = bytes.get(..end).unwrap();
            assert_eq!(Incarnation::decode(cut), None, "cut at {end}");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert_eq!(Incarnation::decode(&longer), None);
    }

    #[test]
    fn a_file_that_was_changed_is_refused() {
        let disk = kimberlite_testkit::SimulatedDisk::new(1);
        let dir = Path::new("/t");
        disk.create_dir_all(dir).unwrap();
        assert!(Incarnation::read(&disk, dir).unwrap().is_none());
        incarnation().write(&disk, dir).unwrap();
        assert_eq!(Incarnation::read(&disk, dir).unwrap(), Some(incarnation()));
        let path = dir.join(FILE_NAME);
        for byte in 0..disk.contents(&path).len() {
            let changed = disk.snapshot();
            changed.flip(&path, u64::try_from(byte).unwrap(), 4);
            assert!(Incarnation::read(&changed, dir).is_err(), "byte {byte}");
        }
    }
}
