//! A store of made-up pages: as they came, and with the checksums that their parents and the superblock
//! ask for; encrypted too, by somebody who has the key. Nothing that is done to it panics.

#![no_main]

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use kimberlite_crypto::{
    Entropy, PageCipher, PagePlace, ProjectionKey, StoreIdentity, internal_hash,
};
use kimberlite_disk::{Access, Disk};
use kimberlite_projection::store::{Applied, Identity, Store, StoreError, StoreKey, StoreOptions};
use kimberlite_projection::{Run, StoredRuns};
use kimberlite_testkit::SimulatedDisk;
use kimberlite_types::{ChainHash, LogId, Position, StreamId};
use libfuzzer_sys::fuzz_target;

const STORE: &str = "/p/store";
const PAGE_BYTES: usize = 4096;
const BODY_BYTES: usize = 4056;
/// Pages of which there is a file: two superblocks, what is taken, five nodes, one free page.
const PAGES: usize = 9;
const FIRST_NODE: usize = 3;
const NODES: usize = 5;
/// Runs of a stream that are looked for.
const RUNS_MAX: usize = 16;

fuzz_target!(|data: &[u8]| {
    let Some((&[level, entries, taken, forged], nodes)) = data.split_first_chunk() else {
        return;
    };
    let is_encrypted = forged & 4 != 0;
    let mut file = vec![0; PAGES * PAGE_BYTES];
    let bytes = nodes.len().div_ceil(NODES).clamp(1, BODY_BYTES);
    for (index, body) in nodes.chunks(bytes).take(NODES).enumerate() {
        let page = FIRST_NODE + index;
        file[page * PAGE_BYTES..][..body.len()].copy_from_slice(body);
        if forged & 1 == 0 {
            point_to_children(&mut file, page, is_encrypted);
        }
        if is_encrypted {
            seal(&mut file, page, 1);
        }
    }
    // The node that was made last is the root.
    let root = FIRST_NODE + NODES - 1;
    let mut words = [0; 8];
    words[0] = taken | 0b100;
    file[2 * PAGE_BYTES..][..8].copy_from_slice(&words);
    if is_encrypted {
        seal(&mut file, 2, 3);
    }

    let mut superblock = b"KBTREE01".to_vec();
    superblock.extend(1_u64.to_le_bytes());
    superblock.extend([1; 32]);
    superblock.extend(internal_hash(b"fuzz").as_bytes());
    superblock.extend(1_u32.to_le_bytes());
    superblock.extend(u32::try_from(PAGES).unwrap().to_le_bytes());
    superblock.extend([0; 40]);
    superblock.extend(u64::from(entries).to_le_bytes());
    superblock.extend(u32::try_from(root).unwrap().to_le_bytes());
    superblock.extend(checksum(stored(&file, root, is_encrypted)));
    superblock.extend([level, u8::from(is_encrypted), 0, 0]);
    superblock.extend(2_u32.to_le_bytes());
    superblock.extend(8_u32.to_le_bytes());
    let map = if is_encrypted {
        stored(&file, 2, true)
    } else {
        &words
    };
    superblock.extend(checksum(map));
    if forged & 2 != 0 {
        // The beginning of the superblock as it came, behind the magic.
        let bytes = nodes.len().min(superblock.len() - 8);
        superblock[8..8 + bytes].copy_from_slice(&nodes[..bytes]);
    }
    if is_encrypted {
        superblock.extend(key().superblock_code(&superblock));
    }
    superblock.resize(PAGE_BYTES - 32, 0);
    let hash = internal_hash(&superblock);
    superblock.extend(hash.as_bytes());
    file[PAGE_BYTES..][..PAGE_BYTES].copy_from_slice(&superblock);

    let disk = SimulatedDisk::new(1);
    disk.create_dir_all(Path::new("/p")).unwrap();
    let handle = disk.create(Path::new(STORE), Access::Private).unwrap();
    handle.write_all_at(&[&file], 0).unwrap();
    let _ = use_store(&disk, is_encrypted);
});

fn checksum(content: &[u8]) -> [u8; 8] {
    *internal_hash(content).as_bytes().first_chunk().unwrap()
}

/// What the checksum of a page is of.
fn stored(file: &[u8], page: usize, is_encrypted: bool) -> &[u8] {
    let bytes = if is_encrypted { PAGE_BYTES } else { BODY_BYTES };
    &file[page * PAGE_BYTES..][..bytes]
}

#[derive(Debug)]
struct Ones;

impl Entropy for Ones {
    fn fill(&self, bytes: &mut [u8]) -> bool {
        bytes.fill(1);
        true
    }
}

fn key() -> ProjectionKey {
    ProjectionKey::new([5; 32])
}

/// Encrypts a page of which the body is there.
fn seal(file: &mut [u8], page: usize, kind: u8) {
    let store = StoreIdentity {
        log_id: LogId::new([1; 32]),
        name_hash: *internal_hash(b"fuzz").as_bytes(),
        version: 1,
    };
    let (body, trailer) = file[page * PAGE_BYTES..][..PAGE_BYTES].split_at_mut(BODY_BYTES);
    let (page, counter) = (u32::try_from(page).unwrap(), u64::try_from(page).unwrap());
    let place = PagePlace { page, kind };
    let tag = PageCipher::new(&key(), &store, &[0; 16]).seal(place, counter, body);
    trailer[16..24].copy_from_slice(&counter.to_le_bytes());
    trailer[24..].copy_from_slice(&tag);
}

/// Makes the children of a branch some of the pages before it, with their checksums.
fn point_to_children(file: &mut [u8], page: usize, is_encrypted: bool) {
    let (before, node) = file.split_at_mut(page * PAGE_BYTES);
    let u16_at = |at: usize| usize::from(u16::from_le_bytes([node[at], node[at + 1]]));
    let (count, prefix, key_bytes) = (u16_at(2), u16_at(4), u16_at(6));
    if page == FIRST_NODE || node[0] != 2 || u16_at(8) != 12 || count == 0 {
        return;
    }
    let keys = 12 + prefix;
    let values = if key_bytes == 0xffff {
        let last = if count > 1 { keys + 2 * (count - 2) } else { 0 };
        if last + 2 > BODY_BYTES {
            return;
        }
        let end = if count > 1 { u16_at(last) & 0x7fff } else { 0 };
        keys + 2 * (count - 1) + end
    } else {
        keys + key_bytes * (count - 1)
    };
    for index in 0..count {
        let at = values + 12 * index;
        let Some(reference) = node.get_mut(at..at + 12).filter(|_| at + 12 <= BODY_BYTES) else {
            return;
        };
        let child = FIRST_NODE + usize::from(reference[0]) % (page - FIRST_NODE);
        let body = stored(before, child, is_encrypted);
        reference[..4].copy_from_slice(&u32::try_from(child).unwrap().to_le_bytes());
        reference[4..].copy_from_slice(&checksum(body));
    }
}

fn use_store(disk: &SimulatedDisk, is_encrypted: bool) -> Result<(), StoreError> {
    let identity = Identity::new(LogId::new([1; 32]), "fuzz", 1);
    let mut options = StoreOptions::default();
    if is_encrypted {
        options.key = Some(StoreKey::new(key(), Arc::new(Ones)));
    }
    let mut store = Store::open(disk, Path::new(STORE), identity, options)?;
    let _ = store.verify();
    {
        let snapshot = store.snapshot();
        for key in [&b""[..], b"a", b"stream/1", &[0xff; 8], &[0; 1024]] {
            let _ = snapshot.find(key);
        }
        let mut cursor = snapshot.cursor()?;
        let mut keys = 0;
        // Pages that point to each other can hold more entries than anybody waits for.
        while cursor.next_entry()?.is_some() && keys < 1000 {
            keys += 1;
        }
        let runs = StoredRuns::from(snapshot.clone());
        for offsets in [0..u64::MAX, 1..3] {
            for stream in [0, 1, u64::MAX] {
                let stream = StreamId::new(Position::new(stream));
                let found = [
                    runs.first_runs(stream, offsets.clone(), RUNS_MAX),
                    runs.last_runs(stream, offsets.clone(), RUNS_MAX),
                ];
                for found in found.into_iter().flatten() {
                    check_runs(&found.into(), &offsets);
                }
            }
        }
        cursor.seek_last()?;
        while cursor.previous_entry()?.is_some() && keys < 2000 {
            keys += 1;
        }
    }
    for position in 1..4 {
        let mut transaction = store.write();
        for key in [&b"a"[..], b"m", &[0xff; 1024]] {
            transaction.put(key, &[3; 900])?;
        }
        transaction.remove(b"")?;
        transaction.remove(&[0; 8])?;
        let chain = ChainHash::new([0; 32]);
        let position = Position::new(position);
        let _ = transaction.commit(Applied { position, chain });
        let _ = store.flush();
    }
    store.verify().map(drop)
}

/// Runs of a stream are in order and within what was asked for, whatever order the keys of pages have.
fn check_runs(found: &Vec<Run>, offsets: &Range<u64>) {
    assert!(found.len() <= RUNS_MAX);
    let mut from = offsets.start;
    for run in found {
        assert!(run.offset.get() >= from && run.count > 0);
        from = run.offset.get().checked_add(run.count).unwrap();
        assert!(from <= offsets.end);
    }
}
