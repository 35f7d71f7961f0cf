//! Reads that copy instead of mapping, and reads of events that were opened before.

use kimberlite::{
    CacheStats, Database, Encryption, Event, ExpectedVersion, ReadMode, SyncPolicy, Tenant,
};
use kimberlite_testkit::{Rng, SimulatedDisk};

use crate::support::{builder, event};

/// Appends batches of all sizes to three streams, over several segments, and returns all data by
/// position.
fn fill(tenant: &Tenant) -> Vec<(u64, Vec<u8>)> {
    let mut rng = Rng::new(5);
    let mut expected = Vec::new();
    for round in 0..60 {
        let stream = tenant.stream(&format!("s{}", round % 3)).unwrap();
        let count = if round % 4 == 0 { 40 } else { 1 };
        let data = (0..count).map(|_| rng.bytes(700)).collect::<Vec<_>>();
        let events = data.iter().map(|data| Event::new("measured", data.clone()));
        let events = events.collect::<Vec<_>>();
        let receipt = stream.append(ExpectedVersion::Any, &events).unwrap();
        expected.extend((receipt.first_position().get()..).zip(data));
    }
    expected
}

fn check(tenant: &Tenant, expected: &[(u64, Vec<u8>)]) {
    for (position, data) in expected {
        let record = tenant.read_position((*position).into()).unwrap().unwrap();
        assert_eq!(
            (record.position().get(), record.data()),
            (*position, &data.clone().into())
        );
    }
    let listed = |records: Vec<Result<kimberlite::Record, _>>| {
        let pair = |record: Result<kimberlite::Record, kimberlite::Error>| {
            let record = record.unwrap();
            (record.position().get(), record.data().to_vec())
        };
        records.into_iter().map(pair).collect::<Vec<_>>()
    };
    assert_eq!(listed(tenant.read_all(..).collect()), expected);
    let mut backward = listed(tenant.read_all(..).rev().collect());
    backward.reverse();
    assert_eq!(backward, expected);
    let streams = (0..3).map(|n| tenant.stream(&format!("s{n}")).unwrap());
    let mut by_stream = streams
        .flat_map(|stream| {
            let forward = listed(stream.read(..).collect());
            let mut backward = listed(stream.read(..).rev().collect());
            backward.reverse();
            assert_eq!(forward, backward);
            forward
        })
        .collect::<Vec<_>>();
    by_stream.sort();
    assert_eq!(by_stream, expected);
}

#[test]
fn every_way_of_reading_gives_the_same_events() {
    for encryption in [Encryption::On, Encryption::Off] {
        for (read_mode, opened_bytes_max) in [
            (ReadMode::Mapped, 0),
            (ReadMode::Copied, 0),
            (ReadMode::Mapped, 100_000),
            (ReadMode::Copied, 10_000_000),
        ] {
            let disk = SimulatedDisk::new(1);
            let open = |seed| -> Database {
                builder(&disk, seed)
                    .encryption(encryption)
                    .read_mode(read_mode)
                    .opened_bytes_max(opened_bytes_max)
                    .tail_bytes_max(20_000)
                    .open()
                    .unwrap()
            };
            let db = open(1);
            let tenant = db.tenant("t").unwrap();
            let expected = fill(&tenant);
            for _ in 0..3 {
                check(&tenant, &expected);
            }
            let other = db.tenant("other").unwrap();
            let position = expected[0].0;
            assert!(other.read_position(position.into()).unwrap().is_none());
            drop((tenant, other, db));
            let db = open(2);
            check(&db.tenant("t").unwrap(), &expected);
        }
    }
}

#[test]
fn caches_count_what_they_were_asked_for_and_what_they_had() {
    let disk = SimulatedDisk::new(1);
    let tenant = builder(&disk, 1).open().unwrap().tenant("t").unwrap();
    let (a, b) = (tenant.stream("a").unwrap(), tenant.stream("b").unwrap());
    let counts = |cache: CacheStats| (cache.hits, cache.misses, cache.entries);
    let stats = || tenant.stats().unwrap();
    assert_eq!(counts(stats().stream_ids), (0, 0, 0));
    // A stream is kept once its second append has found it; the very first append asks nobody, since
    // no session is open to seal with.
    for stream in [&a, &b] {
        for data in ["0", "1", "2"] {
            stream.append(ExpectedVersion::Any, &[event(data)]).unwrap();
        }
    }
    assert_eq!(counts(stats().stream_ids), (2, 3, 2));
    for nth in 1..4 {
        assert_eq!(tenant.streams().unwrap().len(), 2);
        assert_eq!(counts(stats().stream_names), (2 * nth - 2, 2, 2));
    }
    let session_ciphers = stats().session_ciphers;
    let asked = session_ciphers.hits + session_ciphers.misses;
    assert_eq!(a.read(..).count(), 3);
    let after = stats().session_ciphers;
    assert_eq!(after.hits + after.misses, asked + 3);
    assert_eq!((after.misses, after.entries, after.entries_max), (1, 1, 64));
}

#[test]
fn a_cache_holds_no_more_streams_than_its_bound() {
    const STREAMS: u64 = 4_096 + 3;
    let disk = SimulatedDisk::new(1);
    let builder = builder(&disk, 1).sync_policy(SyncPolicy::OnFlush);
    let tenant = builder.open().unwrap().tenant("t").unwrap();
    let stream = |nth: u64| tenant.stream(&format!("s{nth}")).unwrap();
    for nth in 0..STREAMS {
        stream(nth)
            .append(ExpectedVersion::Any, &[event("0")])
            .unwrap();
    }
    tenant.flush().unwrap();
    for nth in 0..STREAMS {
        assert_eq!(stream(nth).read(..).count(), 1);
    }
    let stats = tenant.stats().unwrap().stream_ids;
    assert_eq!((stats.entries, stats.entries_max), (4_096, 4_096));
    let before = (stats.hits, stats.misses);
    // The newest is there, the oldest has made room.
    assert_eq!(stream(STREAMS - 1).read(..).count(), 1);
    assert_eq!(stream(0).read(..).count(), 1);
    let stats = tenant.stats().unwrap().stream_ids;
    assert_eq!((stats.hits, stats.misses), (before.0 + 1, before.1 + 1));
}
