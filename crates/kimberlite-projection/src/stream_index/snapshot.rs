//! The stream index as bytes, to start from instead of reading the log.
//!
//! | field | |
//! |---|---|
//! | version | `u32`, 2 |
//! | applied | `u64`, number of records that were taken in |
//! | from | `u64`, position before which runs are in a store, and not here |
//! | streams | `u64`, number of streams |
//! | streams | in order of id, each: |
//! | id | varint, less the id of the stream before it, of the first one as it is |
//! | before | varint, number of events before `from` |
//! | runs | varint, number of runs from there on |
//! | runs | each `gap varint ‖ count varint` |
//!
//! `count` is the number of events of a run, `gap` the number of positions between the end of the
//! run before it and its first event; for the first one between that and `from`, or the end of the record
//! that created the stream where that is behind it. Only the first gap
//! may be 0: else the two runs were one. A varint has seven bits a byte, the lowest first, the top
//! bit set in all bytes but the last, and no more bytes than it needs.
//!
//! There is no checksum: the file that holds it has one.

#![deny(clippy::indexing_slicing)]

use std::collections::VecDeque;

use hashbrown::HashMap;
use kimberlite_types::{Position, StreamId, limits};

use super::part::{Part, Start, Stretch};
use super::{Entry, Run, StreamIndex};

const VERSION: u32 = 2;

/// Why bytes are not a stream index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The bytes end too early or go on too long.
    #[error("the snapshot of the stream index has the wrong length")]
    Length,
    /// The version is not known.
    #[error(
        "the snapshot of the stream index has version {found}, which this release does not know"
    )]
    Version {
        /// The version that was found.
        found: u32,
    },
    /// A field has a value that no index has.
    #[error("the {field} in the snapshot of the stream index is not valid")]
    Field {
        /// The field.
        field: &'static str,
    },
}

impl StreamIndex {
    /// Returns the index as bytes.
    pub fn to_snapshot(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        bytes.extend_from_slice(&self.applied.get().to_le_bytes());
        bytes.extend_from_slice(&self.from().get().to_le_bytes());
        bytes.extend_from_slice(&count(self.streams.len()).to_le_bytes());
        let mut last = 0;
        let mut runs = Vec::new();
        for entry in &self.streams {
            let id = entry.id.position().get();
            put_varint(&mut bytes, id - last);
            last = id;
            put_varint(&mut bytes, self.found_from(entry.id).get());
            merge(self.runs(entry.id, 0..entry.len), &mut runs);
            put_varint(&mut bytes, count(runs.len()));
            let mut position = self.from().get().max(id + 1);
            for run in &runs {
                put_varint(&mut bytes, run.position.get() - position);
                put_varint(&mut bytes, run.count);
                position = run.position.get() + run.count;
            }
        }
        bytes
    }

    /// Reads an index from bytes. What it returns keeps every invariant of an index.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`] when the bytes are not a snapshot of this version.
    pub fn from_snapshot(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let mut rest = bytes;
        let found = u32::from_le_bytes(take(&mut rest)?);
        if found != VERSION {
            return Err(SnapshotError::Version { found });
        }
        let applied = u64::from_le_bytes(take(&mut rest)?);
        if applied > limits::POSITION_MAX {
            return Err(SnapshotError::Field { field: "applied" });
        }
        let from = u64::from_le_bytes(take(&mut rest)?);
        if from > applied {
            return Err(SnapshotError::Field { field: "from" });
        }
        // Each stream has three bytes or more, so that no count asks for more memory than that.
        let count = bounded(u64::from_le_bytes(take(&mut rest)?), rest)?;
        let mut streams = Vec::with_capacity(count);
        let mut slots = HashMap::with_capacity(count);
        let mut part = Part::new(Position::new(from));
        let mut last = 0;
        for nth in 0..count {
            let step = take_varint(&mut rest)?;
            let id = Some(step).filter(|&step| step > 0);
            let id = id.and_then(|step| step.checked_add(last));
            let id = id.filter(|&id| id < applied);
            last = id.ok_or(SnapshotError::Field { field: "stream" })?;
            let id = StreamId::new(Position::new(last));
            let len = take_stream(&mut rest, &mut part, id, applied)?;
            slots.insert(id, nth);
            streams.push(Entry { id, len });
        }
        if !rest.is_empty() {
            return Err(SnapshotError::Length);
        }
        Ok(Self {
            applied: Position::new(applied),
            streams,
            slots,
            parts: VecDeque::from([part]),
            ..Self::default()
        })
    }
}

/// Takes the runs of a stream into a part; returns how many events the stream has.
fn take_stream(
    rest: &mut &[u8],
    part: &mut Part,
    stream: StreamId,
    applied: u64,
) -> Result<u64, SnapshotError> {
    let (from, created) = (part.first.get(), stream.position().get() + 1);
    let before = take_varint(rest)?;
    if before > from.saturating_sub(created) {
        return Err(SnapshotError::Field { field: "before" });
    }
    let runs = take_varint(rest)?;
    let runs = bounded(runs, rest)?;
    let mut starts = Vec::with_capacity(runs);
    let mut len = before;
    let mut end = from.max(created);
    for nth in 0..runs {
        let (gap, count) = (take_varint(rest)?, take_varint(rest)?);
        if (gap == 0 && nth > 0) || count == 0 {
            return Err(SnapshotError::Field { field: "run" });
        }
        let position = end.checked_add(gap);
        let after = position.and_then(|position| position.checked_add(count));
        let (Some(position), Some(after)) = (position, after.filter(|&after| after <= applied))
        else {
            return Err(SnapshotError::Field { field: "run" });
        };
        starts.push(Start {
            offset: len,
            position,
        });
        len += count;
        end = after;
    }
    if runs > 0 {
        part.runs += runs;
        part.streams.insert(stream, Stretch { starts, end: len });
    }
    Ok(len)
}

/// Puts together what goes on from one part to the next.
fn merge(runs: impl Iterator<Item = Run>, merged: &mut Vec<Run>) {
    merged.clear();
    for run in runs {
        match merged.last_mut() {
            Some(last) if last.position.checked_add(last.count) == Some(run.position) => {
                last.count += run.count;
            }
            _ => merged.push(run),
        }
    }
}

fn count(count: usize) -> u64 {
    u64::try_from(count).expect("memory is smaller than 2^64 bytes")
}

/// Returns a count of things that have two bytes or more each.
fn bounded(count: u64, rest: &[u8]) -> Result<usize, SnapshotError> {
    let count = usize::try_from(count).ok();
    let count = count.filter(|&count| count <= rest.len() / 2);
    count.ok_or(SnapshotError::Length)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], SnapshotError> {
    let (field, after) = rest.split_first_chunk().ok_or(SnapshotError::Length)?;
    *rest = after;
    Ok(*field)
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    loop {
        let [low, ..] = (value & 0x7f).to_le_bytes();
        value >>= 7;
        if value == 0 {
            return bytes.push(low);
        }
        bytes.push(low | 0x80);
    }
}

fn take_varint(rest: &mut &[u8]) -> Result<u64, SnapshotError> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let [byte] = take(rest)?;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits || (byte == 0 && shift > 0) {
            return Err(SnapshotError::Field { field: "number" });
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(SnapshotError::Field { field: "number" })
}

#[cfg(test)]
mod tests {
    use kimberlite_types::{Offset, RecordKind, Timestamp};

    use super::*;
    use crate::{FrameRun, FrameSummary};

    /// Two streams at 1 and 2, three runs and one run of their events.
    fn index() -> StreamIndex {
        let mut index = StreamIndex::new();
        let mut add = |kind, count, of: Option<(u64, u64)>| {
            let position = index.applied();
            let frames = [FrameSummary {
                kind,
                position,
                count,
                stream: of.map(|(id, _)| StreamId::new(Position::new(id))),
                offset: of.map(|(_, offset)| Offset::new(offset)),
                time: Timestamp::default(),
            }];
            index
                .apply(&FrameRun::new(position, &frames).unwrap())
                .unwrap();
        };
        add(RecordKind::Genesis, 1, None);
        add(RecordKind::StreamCreated, 1, None);
        add(RecordKind::StreamCreated, 1, None);
        add(RecordKind::Event, 300, Some((2, 0)));
        add(RecordKind::Event, 5, Some((1, 0)));
        add(RecordKind::Checkpoint, 1, None);
        add(RecordKind::Event, 2, Some((1, 5)));
        add(RecordKind::Event, 2, Some((1, 7)));
        add(RecordKind::KeySession, 1, None);
        add(RecordKind::Event, 1, Some((1, 9)));
        index
    }

    #[test]
    fn an_index_that_was_read_is_the_one_that_was_written() {
        let written = index();
        let bytes = written.to_snapshot();
        let read = StreamIndex::from_snapshot(&bytes).unwrap();
        assert_eq!(read.to_snapshot(), bytes);
        assert_eq!(read.applied(), written.applied());
        assert!(read.streams().eq(written.streams()));
        for (stream, events) in written.streams() {
            for offset in (0..=events).map(Offset::new) {
                let of = |index: &StreamIndex| index.position_of(stream, offset);
                assert_eq!(of(&read), of(&written));
            }
        }
        assert_eq!(
            StreamIndex::from_snapshot(&StreamIndex::new().to_snapshot())
                .unwrap()
                .applied(),
            Position::ZERO
        );
    }

    #[test]
    fn the_bytes_are_those_of_the_format() {
        let mut expected = vec![2, 0, 0, 0];
        expected.extend(315_u64.to_le_bytes());
        expected.extend(0_u64.to_le_bytes());
        expected.extend(2_u64.to_le_bytes());
        // 301 positions between the record of the first stream and its first event.
        expected.extend([1, 0, 3, 0xad, 0x02, 5, 1, 4, 1, 1]);
        expected.extend([1, 0, 1, 0, 0xac, 0x02]);
        assert_eq!(index().to_snapshot(), expected);
    }

    #[test]
    fn what_no_index_holds_is_refused() {
        let bytes = index().to_snapshot();
        let field = |field| SnapshotError::Field { field };
        let cases: [(usize, &[u8], SnapshotError); 12] = [
            (0, &[1], SnapshotError::Version { found: 1 }),
            (4, &[0xff; 8], field("applied")),
            (4, &[0x3a, 0x01], field("run")),
            (12, &[0x3c, 0x01], field("from")),
            (20, &[9], SnapshotError::Length),
            (20, &[1], SnapshotError::Length),
            (28, &[0], field("stream")),
            (29, &[1], field("before")),
            (30, &[0xff, 0xff, 0x7f], SnapshotError::Length),
            (33, &[0], field("run")),
            (34, &[0], field("run")),
            (31, &[0x80, 0x00], field("number")),
        ];
        for (at, change, error) in cases {
            let mut changed = bytes.clone();
            let place = changed.get_mut(at..at + change.len()).unwrap();
            place.copy_from_slice(change);
            let read = StreamIndex::from_snapshot(&changed);
            assert_eq!(read.unwrap_err(), error, "byte {at}");
        }
        for cut in 0..bytes.len() {
            assert!(StreamIndex::from_snapshot(bytes.get(..cut).unwrap()).is_err());
        }
    }

    #[test]
    fn numbers_have_one_form() {
        for value in [0, 1, 127, 128, 300, 1 << 35, u64::MAX - 1, u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            assert_eq!(take_varint(&mut bytes.as_slice()), Ok(value));
        }
        let mut too_large = [0xff; 10];
        too_large[9] = 2;
        for bytes in [&too_large[..], &[0x80, 0x00], &[0xff; 11]] {
            assert!(take_varint(&mut &*bytes).is_err(), "{bytes:?}");
        }
    }
}
