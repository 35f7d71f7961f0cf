//! Runs of streams in a store, made of entries as they came: some of the shape that they should have, with hostile
//! numbers, some of any. What is looked up is compared with a search through all of them.

#![no_main]

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use kimberlite_disk::Disk;
use kimberlite_projection::store::{Applied, Identity, Store, StoreError, StoreOptions};
use kimberlite_projection::{Run, StoredRuns};
use kimberlite_testkit::SimulatedDisk;
use kimberlite_types::{ChainHash, LogId, Offset, Position, StreamId};
use libfuzzer_sys::fuzz_target;

/// The table of runs, as keys begin.
const TABLE: [u8; 2] = [0, 1];
const STREAMS: u64 = 3;

type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

fuzz_target!(|data: &[u8]| {
    let Some((&[runs_max, flushed, first, end, queries @ ..], mut data)) =
        data.split_first_chunk::<12>()
    else {
        return;
    };
    let mut entries = Entries::new();
    while let Some((&[shape, stream, offset, position], rest)) = data.split_first_chunk() {
        data = rest;
        let mut key = TABLE.to_vec();
        key.extend((u64::from(stream) % STREAMS).to_be_bytes());
        key.extend(number(offset).to_be_bytes());
        let mut value = number(position).to_le_bytes().to_vec();
        if shape & 0b11 == 0 {
            // Keys and values of any bytes and lengths, in the table or near it.
            let bytes = usize::from(shape >> 2).min(data.len());
            let (raw, rest) = data.split_at(bytes);
            data = rest;
            let (start, end) = raw.split_at(bytes.min(usize::from(offset)));
            key.truncate(usize::from(stream) % (key.len() + 1));
            key.extend(start);
            value.truncate(usize::from(position) % (value.len() + 1));
            value.extend(end);
        }
        entries.insert(key, value);
    }

    let disk = SimulatedDisk::new(1);
    disk.create_dir_all(Path::new("/p")).unwrap();
    let identity = Identity::new(LogId::new([1; 32]), "fuzz", 1);
    let options = StoreOptions::default();
    let mut store = Store::create(&disk, Path::new("/p/store"), identity, options).unwrap();
    let mut write = store.write();
    for (key, value) in &entries {
        write.put(key, value).unwrap();
    }
    let (position, chain) = (Position::new(1), ChainHash::new([0; 32]));
    write.commit(Applied { position, chain }).unwrap();
    if flushed & 1 == 1 {
        store.flush().unwrap();
    }

    let runs = StoredRuns::from(store.snapshot());
    let runs_max = usize::from(runs_max) % 8;
    let mut bounds = vec![0, number(first), number(end), u64::MAX];
    bounds.extend(queries.iter().map(|byte| number(*byte)));
    for stream in 0..STREAMS {
        for start in &bounds {
            for end in &bounds {
                look_up(&runs, &entries, stream, *start..*end, runs_max);
            }
        }
    }
});

/// Numbers near the ends of what there is.
fn number(byte: u8) -> u64 {
    let near = u64::from(byte & 0x3f);
    match byte >> 6 {
        0 => near,
        1 => near << 32,
        2 => (1 << 63) + near,
        _ => u64::MAX - near,
    }
}

fn look_up(
    runs: &StoredRuns,
    entries: &Entries,
    stream: u64,
    offsets: Range<u64>,
    runs_max: usize,
) {
    let id = StreamId::new(Position::new(stream));
    let expected = search(entries, stream, &offsets);
    let first = runs.first_runs(id, offsets.clone(), runs_max);
    check(first.map(Vec::from), &offsets, runs_max, |found| {
        expected
            .as_ref()
            .map(|all| found == &all[..all.len().min(runs_max)])
    });
    let last = runs.last_runs(id, offsets.clone(), runs_max);
    check(last.map(Vec::from), &offsets, runs_max, |found| {
        expected
            .as_ref()
            .map(|all| found == &all[all.len().saturating_sub(runs_max)..])
    });
}

/// What is found is in order and within what was asked for, and right where all entries have the shape that they should.
fn check(
    found: Result<Vec<Run>, StoreError>,
    offsets: &Range<u64>,
    runs_max: usize,
    is_right: impl Fn(&[Run]) -> Option<bool>,
) {
    match found {
        Ok(found) => {
            assert!(found.len() <= runs_max);
            let mut from = offsets.start;
            for run in &found {
                assert!(run.offset.get() >= from && run.count > 0);
                from = run.offset.get().checked_add(run.count).unwrap();
                assert!(from <= offsets.end);
            }
            assert_ne!(is_right(&found), Some(false), "{found:?}");
        }
        Err(StoreError::WrongType { table: 1 }) => assert_eq!(is_right(&[]), None),
        Err(error) => panic!("{error}"),
    }
}

/// The runs of a stream in a range, by a look at every entry; none where one between them has another shape, or has a run reach
/// behind the last position.
fn search(entries: &Entries, stream: u64, offsets: &Range<u64>) -> Option<Vec<Run>> {
    let mut beginning = TABLE.to_vec();
    beginning.extend(stream.to_be_bytes());
    let mut starts = Vec::new();
    for (key, value) in entries {
        let Some(offset) = key.strip_prefix(&beginning[..]) else {
            continue;
        };
        let offset = u64::from_be_bytes(offset.try_into().ok()?);
        starts.push((offset, u64::from_le_bytes(value[..].try_into().ok()?)));
    }
    let ends = starts.iter().skip(1).map(|(offset, _)| *offset);
    let mut runs = Vec::new();
    for ((offset, position), end) in starts.iter().zip(ends.chain([u64::MAX])) {
        let (first, end) = (offsets.start.max(*offset), offsets.end.min(end));
        if first < end {
            runs.push(Run {
                offset: Offset::new(first),
                position: Position::new(*position).checked_add(first - offset)?,
                count: end - first,
            });
        }
    }
    Some(runs)
}
