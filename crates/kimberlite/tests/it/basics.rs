//! Appending and reading.

use kimberlite::{
    Database, Encryption, ErrorKind, Event, ExpectedVersion, Offset, SyncPolicy, limits,
};
use kimberlite_testkit::SimulatedDisk;

use crate::support::{TickingClock, builder, contents, event};

#[test]
fn events_come_back_by_stream_and_position_before_and_after_reopening() {
    for encryption in [
        Encryption::On,
        Encryption::WithoutCommitment,
        Encryption::Off,
    ] {
        let disk = SimulatedDisk::new(1);
        let open = |seed| builder(&disk, seed).encryption(encryption).open().unwrap();
        let db = open(1);
        let tenant = db.tenant("t").unwrap();
        let (a, b) = (tenant.stream("a").unwrap(), tenant.stream("b").unwrap());
        let first = a
            .append(ExpectedVersion::NoStream, &[event("a0"), event("a1")])
            .unwrap();
        b.append(ExpectedVersion::Any, &[event("b0").with_metadata("meta")])
            .unwrap();
        a.append(ExpectedVersion::Exact(first.last_offset()), &[event("a2")])
            .unwrap();
        let check = |db: &Database| {
            let tenant = db.tenant("t").unwrap();
            let a = tenant.stream("a").unwrap();
            let data = |records: Vec<_>| {
                let data = |record: Result<kimberlite::Record, _>| record.unwrap().data().clone();
                records.into_iter().map(data).collect::<Vec<_>>()
            };
            assert_eq!(data(a.read(..).collect()), ["a0", "a1", "a2"]);
            assert_eq!(data(a.read(1..).rev().collect()), ["a2", "a1"]);
            assert_eq!(data(a.read(5..).collect()), [""; 0]);
            assert_eq!(
                data(tenant.read_all(..).rev().collect()),
                ["a2", "b0", "a1", "a0"]
            );
            let record = tenant
                .read_position(first.last_position())
                .unwrap()
                .unwrap();
            assert_eq!(
                (record.data().as_ref(), record.offset()),
                (b"a1".as_slice(), Offset::new(1))
            );
            let b0 = tenant
                .stream("b")
                .unwrap()
                .read(0..)
                .next()
                .unwrap()
                .unwrap();
            assert_eq!(b0.metadata(), "meta");
            assert_eq!(b0.event_type(), "noted");
            let streams = tenant.streams().unwrap();
            let streams = streams
                .iter()
                .map(|s| (s.name.as_str(), s.events))
                .collect::<Vec<_>>();
            assert_eq!(streams, [("a", 3), ("b", 1)]);
            assert!(tenant.verify().unwrap().is_sound());
        };
        check(&db);
        drop((tenant, a, b));
        db.close().unwrap();
        let db = open(2);
        check(&db);
        drop(db);
        check(
            &builder(&disk, 3)
                .encryption(encryption)
                .read_only(true)
                .open()
                .unwrap(),
        );
    }
}

#[test]
fn an_unexpected_version_appends_nothing() {
    let disk = SimulatedDisk::new(1);
    let db = builder(&disk, 1).open().unwrap();
    let stream = db.tenant("t").unwrap().stream("s").unwrap();
    let refuse = |expected| {
        let error = stream.append(expected, &[event("x")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WrongVersion);
    };
    refuse(ExpectedVersion::Exact(Offset::ZERO));
    assert!(db.tenant("t").unwrap().streams().unwrap().is_empty());
    stream
        .append(ExpectedVersion::NoStream, &[event("0")])
        .unwrap();
    refuse(ExpectedVersion::NoStream);
    refuse(ExpectedVersion::Exact(Offset::new(1)));
    stream
        .append(ExpectedVersion::Exact(Offset::ZERO), &[event("1")])
        .unwrap();
    drop(stream);
    assert_eq!(contents(&db, "t"), ["0", "1"]);
}

#[test]
fn sizes_at_their_limits_are_stored_and_over_them_refused() {
    let disk = SimulatedDisk::new(1);
    let db = builder(&disk, 1).open().unwrap();
    let stream = db.tenant("t").unwrap().stream("s").unwrap();
    let sizes = [0, 1, 4095, 4096, 300 << 10, 5 << 20, limits::DATA_BYTES_MAX];
    for bytes in sizes {
        stream
            .append(ExpectedVersion::Any, &[Event::new("x", vec![7; bytes])])
            .unwrap();
    }
    let too_large = Event::new("x", vec![7; limits::DATA_BYTES_MAX + 1]);
    let type_too_long = Event::new("t".repeat(256), "");
    for event in [too_large, type_too_long, Event::new("", "")] {
        let error = stream.append(ExpectedVersion::Any, &[event]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    assert_eq!(
        stream.append(ExpectedVersion::Any, &[]).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    drop((stream, db));
    let db = builder(&disk, 2).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    let read = tenant
        .stream("s")
        .unwrap()
        .read(..)
        .map(|r| r.unwrap().data().len());
    assert_eq!(read.collect::<Vec<_>>(), sizes);
    assert!(tenant.inspect().unwrap().segments.len() > 2);
    assert!(tenant.verify().unwrap().is_sound());
}

#[test]
fn a_large_append_of_many_frames_is_one_append() {
    for policy in [
        SyncPolicy::EveryBatch,
        SyncPolicy::EveryRecord,
        SyncPolicy::OnFlush,
    ] {
        let disk = SimulatedDisk::new(1);
        let db = builder(&disk, 1).sync_policy(policy).open().unwrap();
        let stream = db.tenant("t").unwrap().stream("s").unwrap();
        let events = (0..3000).map(|n| event(&n.to_string())).collect::<Vec<_>>();
        let receipt = stream.append(ExpectedVersion::Any, &events).unwrap();
        assert_eq!((receipt.count(), receipt.last_offset().get()), (3000, 2999));
        let expected = (0..3000).map(|n| n.to_string()).collect::<Vec<_>>();
        assert_eq!(contents(&db, "t"), expected);
        drop(stream);
        db.close().unwrap();
        assert_eq!(contents(&builder(&disk, 2).open().unwrap(), "t"), expected);
    }
}

#[test]
fn nothing_secret_stands_readable_on_disk() {
    let disk = SimulatedDisk::new(1);
    let db = builder(&disk, 1).open().unwrap();
    let canary = |what: &str| format!("canary-{what}-4711");
    let stream = db.tenant("t").unwrap().stream(&canary("name")).unwrap();
    let event = Event::new(canary("type"), canary("data")).with_metadata(canary("metadata"));
    stream.append(ExpectedVersion::Any, &[event]).unwrap();
    drop(stream);
    db.close().unwrap();
    for path in disk.files() {
        let bytes = disk.contents(&path);
        let found = bytes.windows(7).any(|window| window == b"canary-");
        assert!(!found, "{} holds a secret", path.display());
    }
    let db = builder(&disk, 2)
        .encryption(Encryption::Off)
        .open()
        .unwrap();
    let stream = db.tenant("t").unwrap().stream("plain").unwrap();
    stream
        .append(ExpectedVersion::Any, &[crate::support::event("canary-")])
        .unwrap();
    let found = |path: &std::path::PathBuf| {
        disk.contents(path)
            .windows(7)
            .any(|window| window == b"canary-")
    };
    assert!(
        disk.files().iter().any(found),
        "the search would find what is not encrypted"
    );
}

#[test]
fn time_never_goes_back_and_a_jump_is_refused() {
    let disk = SimulatedDisk::new(1);
    let clock = TickingClock::new();
    let db = builder(&disk, 1).clock(clock.clone()).open().unwrap();
    let stream = db.tenant("t").unwrap().stream("s").unwrap();
    stream.append(ExpectedVersion::Any, &[event("0")]).unwrap();
    clock.set(5);
    stream.append(ExpectedVersion::Any, &[event("1")]).unwrap();
    clock.set(u64::MAX / 2);
    let error = stream
        .append(ExpectedVersion::Any, &[event("2")])
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    let times = stream
        .read(..)
        .map(|r| r.unwrap().time())
        .collect::<Vec<_>>();
    assert!(times.is_sorted() && times.len() == 2);
}

#[test]
fn checkpoints_are_signed_kept_and_not_made_for_nothing() {
    let disk = SimulatedDisk::new(1);
    let db = builder(&disk, 1).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    let stream = tenant.stream("s").unwrap();
    let mut sizes = Vec::new();
    for n in 0..3 {
        stream
            .append(ExpectedVersion::Any, &[event(&n.to_string())])
            .unwrap();
        let made = tenant.checkpoint().unwrap();
        assert_eq!(tenant.checkpoint().unwrap(), made);
        assert_eq!(tenant.latest_checkpoint().unwrap(), Some(made.clone()));
        sizes.push(made.size());
    }
    drop((tenant, stream));
    db.close().unwrap();
    let db = builder(&disk, 2).open().unwrap();
    let report = db.tenant("t").unwrap().verify().unwrap();
    assert!(report.is_sound() && report.checkpoints == 3);
    assert_eq!(
        db.tenant("t").unwrap().inspect().unwrap().checkpoints,
        sizes
    );
}

#[test]
fn a_database_is_open_once_and_a_closed_one_appends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::open(dir.path()).unwrap();
    assert_eq!(
        Database::open(dir.path()).unwrap_err().kind(),
        ErrorKind::Locked
    );
    let stream = db.tenant("t").unwrap().stream("s").unwrap();
    stream.append(ExpectedVersion::Any, &[event("0")]).unwrap();
    db.close().unwrap();
    let error = stream
        .append(ExpectedVersion::Any, &[event("1")])
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert_eq!(stream.read(..).count(), 1);
    drop(stream);
    let db = Database::builder(dir.path())
        .read_only(true)
        .open()
        .unwrap();
    let stream = db.tenant("t").unwrap().stream("s").unwrap();
    let error = stream
        .append(ExpectedVersion::Any, &[event("1")])
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnly);
    let missing = Database::builder(dir.path().join("no"))
        .create(false)
        .open();
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(db.tenant("other").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn several_threads_append_to_one_tenant() {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::open(dir.path()).unwrap();
    let tenant = db.tenant("t").unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let tenant = tenant.clone();
            scope.spawn(move || {
                let stream = tenant.stream(&format!("s{thread}")).unwrap();
                for n in 0..50 {
                    stream
                        .append(ExpectedVersion::Any, &[event(&n.to_string())])
                        .unwrap();
                }
            });
        }
    });
    for thread in 0..4 {
        let stream = tenant.stream(&format!("s{thread}")).unwrap();
        let read = stream
            .read(..)
            .map(|r| r.unwrap().data().clone())
            .collect::<Vec<_>>();
        assert_eq!(read, (0..50).map(|n| n.to_string()).collect::<Vec<_>>());
    }
    assert!(tenant.verify().unwrap().is_sound());
}

#[test]
fn a_damaged_log_never_reads_as_a_shorter_one() {
    let disk = SimulatedDisk::new(1);
    let db = builder(&disk, 1).open().unwrap();
    let stream = db.tenant("t").unwrap().stream("s").unwrap();
    let mut at = Vec::new();
    for text in ["0", "1", "2"] {
        let receipt = stream.append(ExpectedVersion::Any, &[event(text)]).unwrap();
        at.push(receipt.first_position());
    }
    let (byte, _) = db.tenant("t").unwrap().frame(at[1]).unwrap().unwrap();
    drop(stream);
    db.close().unwrap();
    disk.flip(
        std::path::Path::new("/db/tenants/t/log/00000000000000000000.seg"),
        byte,
        1,
    );
    let db = builder(&disk, 2).read_only(true).open().unwrap();
    let tenant = db.existing_tenant("t").unwrap();
    let stream = tenant.stream("s").unwrap();
    let corrupt = |item: Option<Result<kimberlite::Record, kimberlite::Error>>| {
        assert_eq!(item.unwrap().unwrap_err().kind(), ErrorKind::Corrupt);
    };
    for mut records in [tenant.read_all(..), stream.read(..)] {
        assert_eq!(records.next().unwrap().unwrap().data(), "0");
        corrupt(records.next());
        assert!(records.next().is_none());
    }
    for mut records in [tenant.read_all(..), stream.read(..)] {
        corrupt(records.next_back());
        assert_eq!(records.next_back().unwrap().unwrap().data(), "0");
        assert!(records.next_back().is_none());
    }
    // A stream whose record may be behind the damage is not known to be empty.
    corrupt(tenant.stream("other").unwrap().read(..).next());
    assert_eq!(stream.read(..1).count(), 1);
    for position in &at[1..] {
        let read = tenant.read_position(*position);
        assert_eq!(read.unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
