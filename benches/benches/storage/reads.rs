//! Reading through the facade: single records at random positions, and scans in both directions.
//!
//! A million records of 256 bytes is more than the caches of a processor hold, so that each read
//! waits for memory as one of a real log does. All of it is in the page cache.

use std::hint::black_box;
use std::ops::Range;
use std::time::Instant;

use bytes::Bytes;
use kimberlite::{Database, Encryption, Event, ExpectedVersion, RecordIter, SyncPolicy, Tenant};
use kimberlite_disk::{Access, Disk, OsDisk};

use crate::latencies::{is_smoke_run, is_wanted, reads, scratch};

const RECORDS: u64 = 1_000_000;
const RECORD_BYTES: usize = 256;
const READS: u64 = 1_000_000;
/// Records and bytes of what is scanned: about 280 MB.
const SCANNED_RECORDS: u64 = 250_000;
const SCANNED_BYTES: usize = 1024;
const ROUNDS: usize = 5;

pub(crate) fn read() {
    let cases = [
        ("plain, batches of 100", Encryption::Off, 100),
        ("encrypted, batches of 100", Encryption::On, 100),
        ("encrypted, single events", Encryption::On, 1),
    ];
    for (name, encryption, batch) in cases {
        let name = format!("read_position/{name}");
        if !is_wanted(&name) {
            continue;
        }
        let log = Filled::new(encryption, batch, records(RECORDS), RECORD_BYTES);
        let positions = log.positions();
        reads(&name, READS, positions, |position| {
            let read = log.tenant.read_position(position.into()).unwrap();
            black_box(read);
        });
    }
    hot();
    let name = "read_position/floor: CRC of 256 B of a bare mapping";
    if is_wanted(name) {
        let map = mapping(records(RECORDS) * RECORD_BYTES as u64);
        reads(name, READS, 0..records(RECORDS), |nth| {
            let at = usize::try_from(nth).unwrap() * RECORD_BYTES;
            black_box(crc32c::crc32c(&map[at..at + RECORD_BYTES]));
        });
    }
}

/// Reads with and without a cache of opened events: of a few again and again, which fit into it, and
/// of all, which do not.
fn hot() {
    for (name, bytes) in [("none kept", 0), ("16 MiB kept", 16 << 20)] {
        let name = |of: &str| format!("read_position/encrypted, {of}, {name}");
        let (few, all) = (name("the same 10,000"), name("all"));
        if !is_wanted(&few) && !is_wanted(&all) {
            continue;
        }
        let records = records(RECORDS / 2);
        let log = Filled::with(Encryption::On, 100, records, RECORD_BYTES, bytes);
        let positions = log.positions();
        let read = |position: u64| {
            black_box(log.tenant.read_position(position.into()).unwrap());
        };
        let end = positions.end.min(positions.start + 10_000);
        reads(&few, READS / 2, positions.start..end, read);
        reads(&all, READS / 2, positions, read);
    }
}

pub(crate) fn scan() {
    for (name, batch) in [("batches of 100", 100), ("single events", 1)] {
        let group = format!("scan/plain, {name} of 1 KiB");
        if !is_wanted(&group) {
            continue;
        }
        let log = Filled::new(
            Encryption::Off,
            batch,
            records(SCANNED_RECORDS),
            SCANNED_BYTES,
        );
        rate(&format!("{group}/forward"), || {
            data_bytes(log.tenant.read_all(..))
        });
        rate(&format!("{group}/backward"), || {
            data_bytes(log.tenant.read_all(..).rev())
        });
        let stream = log.tenant.stream("s").unwrap();
        rate(&format!("{group}/of a stream"), || {
            data_bytes(stream.read(..))
        });
        let map = mapping(records(SCANNED_RECORDS) * SCANNED_BYTES as u64);
        rate(&format!("{group}/floor: CRC over a mapping"), || {
            for chunk in map.chunks(SCANNED_BYTES) {
                black_box(crc32c::crc32c(chunk));
            }
            map.len()
        });
    }
}

fn data_bytes<I>(records: I) -> usize
where
    I: Iterator<Item = <RecordIter as Iterator>::Item>,
{
    records.map(|record| record.unwrap().data().len()).sum()
}

fn records(wanted: u64) -> u64 {
    if is_smoke_run() { 1_000 } else { wanted }
}

/// A tenant with one stream of equal events.
struct Filled {
    tenant: Tenant,
    _db: Database,
    _dir: tempfile::TempDir,
}

impl Filled {
    fn new(encryption: Encryption, batch: u64, records: u64, bytes: usize) -> Self {
        Self::with(encryption, batch, records, bytes, 0)
    }

    fn with(
        encryption: Encryption,
        batch: u64,
        records: u64,
        bytes: usize,
        opened_bytes_max: usize,
    ) -> Self {
        let dir = tempfile::tempdir_in(scratch()).unwrap();
        let db = Database::builder(dir.path().join("db"))
            .encryption(encryption)
            .sync_policy(SyncPolicy::OnFlush)
            .opened_bytes_max(opened_bytes_max)
            .open()
            .unwrap();
        let tenant = db.tenant("t").unwrap();
        let stream = tenant.stream("s").unwrap();
        let event = Event::new("measured", vec![7; bytes]);
        let events = vec![event; usize::try_from(batch).unwrap()];
        for _ in 0..records / batch {
            stream.append(ExpectedVersion::Any, &events).unwrap();
        }
        tenant.flush().unwrap();
        Self {
            tenant,
            _db: db,
            _dir: dir,
        }
    }

    /// The positions behind the administrative records.
    fn positions(&self) -> Range<u64> {
        3..self.tenant.durable_position().get()
    }
}

/// A mapped file of so many bytes.
fn mapping(bytes: u64) -> Bytes {
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let path = dir.path().join("floor");
    let disk = OsDisk::new();
    let file = disk.create(&path, Access::Shared).unwrap();
    let content = vec![7; 1 << 20];
    let mut at = 0;
    while at < bytes {
        file.write_all_at(&[&content], at).unwrap();
        at += content.len() as u64;
    }
    file.map(bytes).unwrap()
}

/// Prints the rates of whole scans; the first, which brings pages in, is not counted.
#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn rate(name: &str, scan: impl Fn() -> usize) {
    black_box(scan());
    let rounds = if is_smoke_run() { 1 } else { ROUNDS };
    let mut rates = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let begun = Instant::now();
        let bytes = u32::try_from(scan()).unwrap();
        rates.push(f64::from(bytes) / begun.elapsed().as_secs_f64() / 1e9);
    }
    rates.sort_by(f64::total_cmp);
    println!(
        "{name}: {:.2} GB/s (rounds {:.2} to {:.2})",
        rates[rates.len() / 2],
        rates[0],
        rates[rates.len() - 1],
    );
}
