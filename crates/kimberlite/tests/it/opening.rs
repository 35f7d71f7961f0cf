//! What an opening promises beside the events: that it changes nothing before it knows the keys,
//! that it tells what it cut off, and that it says what it cannot read.

use std::path::{Path, PathBuf};

use kimberlite::{Database, ErrorKind, Event, ExpectedVersion, RecordKind};
use kimberlite_disk::{Access, Disk};
use kimberlite_testkit::{CrashMode, SimulatedDisk};

use crate::support::{builder, contents, event, kinds};

fn segment(base: u64) -> PathBuf {
    PathBuf::from(format!("/db/tenants/t/log/{base:020}.seg"))
}

/// A log whose last append was torn: its first sector came to the disk, not the rest.
fn torn() -> SimulatedDisk {
    let disk = SimulatedDisk::new(1);
    let db = builder(&disk, 1).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    let stream = tenant.stream("s").unwrap();
    stream.append(ExpectedVersion::Any, &[event("0")]).unwrap();
    let large = event(&"x".repeat(4000));
    let at = stream.append(ExpectedVersion::Any, &[large]).unwrap();
    let (byte, header) = tenant.frame(at.first_position()).unwrap().unwrap();
    drop(stream);
    let disk = disk.crash(CrashMode::LoseUnsynced);
    let lost = (byte + 1024).next_multiple_of(512)..byte + u64::from(header.length);
    let zeros = vec![0; usize::try_from(lost.end - lost.start).unwrap()];
    disk.overwrite(segment(0), lost.start, &zeros);
    disk
}

#[test]
fn keys_that_cannot_be_used_leave_a_torn_end_as_it_is() {
    let disk = torn();
    let path = Path::new("/db/keys/t/signer.pem");
    let signer = disk.contents(path);
    disk.remove(path).unwrap();
    disk.write_new_atomic(path, &signer, Access::Shared)
        .unwrap();
    let db = builder(&disk, 2).open().unwrap();
    let ops = disk.ops();
    let opened = db.tenant("t");
    assert_eq!(opened.unwrap_err().kind(), ErrorKind::KeyFile);
    assert_eq!(disk.ops(), ops, "the opening changed something");
    drop(db);
    disk.write_new_atomic(path, &signer, Access::Private)
        .unwrap();
    let db = builder(&disk, 3).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    assert!(tenant.open_report().tail_discarded.is_some());
    assert_eq!(contents(&db, "t"), ["0"]);
}

#[test]
fn a_torn_end_is_told_by_one_record_whenever_the_opening_itself_is_cut_short() {
    let whole = torn();
    let before = whole.ops();
    drop(builder(&whole, 2).open().unwrap().tenant("t").unwrap());
    let mut cut_short = 0;
    for op in before + 1..=whole.ops() {
        for seed in 0..4 {
            let disk = torn();
            disk.crash_after(op);
            let opened = builder(&disk, 3).open();
            cut_short += u32::from(opened.and_then(|db| db.tenant("t").map(drop)).is_err());
            let disk = disk.crash(CrashMode::Mixed(seed));
            let db = builder(&disk, 4).open().unwrap();
            let tenant = db.tenant("t").unwrap();
            let recoveries = kinds(&tenant)
                .into_iter()
                .filter(|kind| *kind == RecordKind::Recovery);
            assert_eq!(recoveries.count(), 1, "op {op}, seed {seed}");
            assert!(tenant.verify().unwrap().is_sound());
            drop(tenant);
            db.close().unwrap();
            let db = builder(&disk, 5).open().unwrap();
            let report = db.tenant("t").unwrap().open_report().clone();
            assert_eq!(report.tail_discarded, None, "op {op}, seed {seed}");
        }
    }
    assert!(cut_short > 20, "{cut_short} openings were cut short");
}

#[test]
fn what_an_opening_found_in_the_page_cache_is_marked_as_durable() {
    let disk = SimulatedDisk::new(1);
    let db = builder(&disk, 1).open().unwrap();
    let stream = db.tenant("t").unwrap().stream("s").unwrap();
    let at = stream
        .append(ExpectedVersion::Any, &[event(&"x".repeat(4000))])
        .unwrap();
    drop((db, stream));
    let disk = disk.process_kill();
    let db = builder(&disk, 2).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    let (byte, _) = tenant.frame(at.first_position()).unwrap().unwrap();
    drop((db, tenant));
    // A lost sector of what was durable is damage, and not a write that was never finished.
    let disk = disk.crash(CrashMode::LoseUnsynced);
    disk.overwrite(segment(0), (byte + 1024).next_multiple_of(512), &[0; 512]);
    let opened = builder(&disk, 3).open().unwrap().tenant("t");
    assert_eq!(opened.unwrap_err().kind(), ErrorKind::Corrupt);
}

/// A log of two segments, the first of which is sealed.
fn two_segments() -> SimulatedDisk {
    let disk = SimulatedDisk::new(1);
    let db = builder(&disk, 1).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    for (stream, data) in [("a", 100), ("b", 200 << 10), ("a", 100 << 10)] {
        let stream = tenant.stream(stream).unwrap();
        let event = event(&"x".repeat(data));
        stream.append(ExpectedVersion::Any, &[event]).unwrap();
    }
    assert_eq!(tenant.inspect().unwrap().segments.len(), 2);
    drop(tenant);
    db.close().unwrap();
    disk
}

#[test]
fn a_stream_record_that_rotted_in_a_sealed_segment_never_shortens_a_stream() {
    let disk = two_segments();
    let db = builder(&disk, 2).read_only(true).open().unwrap();
    let tenant = db.existing_tenant("t").unwrap();
    let b = tenant.streams().unwrap()[1].id.position();
    let (byte, header) = tenant.frame(b).unwrap().unwrap();
    assert_eq!(header.kind, Some(RecordKind::StreamCreated));
    disk.flip(segment(0), byte + u64::from(header.length) - 1, 1);
    let db = builder(&disk, 3).read_only(true).open().unwrap();
    let tenant = db.existing_tenant("t").unwrap();
    let damage = &tenant.open_report().damage[0];
    assert_eq!(damage.position, b);
    for stream in ["a", "b", "c"] {
        let stream = tenant.stream(stream).unwrap();
        assert_eq!(stream.len().unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(stream.is_empty().unwrap_err().kind(), ErrorKind::Corrupt);
        let last = stream.read(..).last().unwrap();
        assert_eq!(last.unwrap_err().kind(), ErrorKind::Corrupt);
    }
    let report = tenant.verify().unwrap();
    assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
}

#[test]
fn a_tenant_whose_first_segment_is_gone_is_still_listed() {
    let disk = two_segments();
    disk.remove(&segment(0)).unwrap();
    let db = builder(&disk, 2).open().unwrap();
    let names = db.tenants().unwrap();
    assert_eq!(
        names.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["t"]
    );
    assert_eq!(db.tenant("t").unwrap_err().kind(), ErrorKind::RolledBack);
}

#[test]
fn a_log_is_not_begun_under_a_clock_that_nobody_has_set() {
    let disk = SimulatedDisk::new(1);
    let clock = crate::support::TickingClock::new();
    clock.set(0);
    let db = builder(&disk, 1).clock(clock.clone()).open().unwrap();
    let refused = db.tenant("t").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Rejected, "{refused}");
    clock.set(1_700_000_000_000_000_000);
    drop(db.tenant("t").unwrap());
}

#[test]
fn an_append_over_the_limit_is_refused_before_it_is_sealed() {
    let disk = SimulatedDisk::new(1);
    let db = builder(&disk, 1).open().unwrap();
    let stream = db.tenant("t").unwrap().stream("s").unwrap();
    stream.append(ExpectedVersion::Any, &[event("0")]).unwrap();
    // One buffer of 16 MiB, and 160 GiB if all of it were sealed.
    let data = bytes::Bytes::from(vec![7; 16 << 20]);
    let events = vec![Event::new("large", data); 10_000];
    let refused = stream.append(ExpectedVersion::Any, &events).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{refused}");
    assert_eq!(stream.len().unwrap(), 1);
}

#[test]
fn nothing_that_is_printed_for_developers_holds_content_or_secrets() {
    let disk = SimulatedDisk::new(1);
    let open = |seed| {
        let builder = builder(&disk, seed);
        builder.encryption(kimberlite::Encryption::Off).open()
    };
    let db = open(1).unwrap();
    let tenant = db.tenant("t").unwrap();
    let stream = tenant.stream("canary-name").unwrap();
    let event = Event::new("canary-type", "canary-data").with_metadata("canary-metadata");
    let receipt = stream
        .append(ExpectedVersion::Any, std::slice::from_ref(&event))
        .unwrap();
    let record = tenant.read_position(receipt.first_position()).unwrap();
    let printed = format!(
        "{db:?} {tenant:?} {stream:?} {event:?} {record:?} {:?} {:?}",
        stream.read(..),
        tenant.read_all(..),
    );
    // Bytes are printed as text or as numbers.
    for secret in ["canary", "99, 97, 110, 97, 114, 121", "salt_key"] {
        assert!(!printed.contains(secret), "{printed}");
    }
}

fn poisoned(disk: &SimulatedDisk) -> Database {
    let db = builder(disk, 1).open().unwrap();
    let stream = db.tenant("t").unwrap().stream("s").unwrap();
    stream.append(ExpectedVersion::Any, &[event("0")]).unwrap();
    disk.fail_sync_at(disk.ops());
    let failed = stream.append(ExpectedVersion::Any, &[event("1")]);
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    db
}

#[test]
fn closing_after_a_failed_sync_says_that_its_outcome_is_unknown() {
    let db = poisoned(&SimulatedDisk::new(1));
    assert_eq!(db.close().unwrap_err().kind(), ErrorKind::OutcomeUnknown);
}

#[test]
fn after_a_failed_write_everything_that_would_sync_says_that_its_outcome_is_unknown() {
    let disk = SimulatedDisk::new(1);
    let db = builder(&disk, 1).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    let stream = tenant.stream("s").unwrap();
    stream.append(ExpectedVersion::Any, &[event("0")]).unwrap();
    disk.fail_write_at(disk.ops());
    let unknown = [
        stream.append(ExpectedVersion::Any, &[event("1")]).map(drop),
        stream.append(ExpectedVersion::Any, &[event("2")]).map(drop),
        tenant.flush(),
        tenant.settle(),
        tenant.checkpoint().map(drop),
    ];
    for result in unknown {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    }
    assert_eq!(contents(&db, "t"), ["0"]);
    drop((tenant, stream));
    assert_eq!(db.close().unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    assert_eq!(contents(&builder(&disk, 2).open().unwrap(), "t"), ["0"]);
}

#[test]
fn a_panic_in_the_middle_of_an_append_ends_appending_with_an_unknown_outcome() {
    #[derive(Debug)]
    struct Bomb(std::sync::atomic::AtomicBool);
    impl kimberlite::Clock for Bomb {
        fn now(&self) -> kimberlite::Timestamp {
            assert!(!self.0.load(std::sync::atomic::Ordering::Relaxed), "boom");
            kimberlite::Timestamp::from_nanoseconds(1_700_000_000_000_000_000)
        }
    }
    let bomb = std::sync::Arc::new(Bomb(false.into()));
    let disk = SimulatedDisk::new(1);
    let db = builder(&disk, 1).clock(bomb.clone()).open().unwrap();
    let stream = db.tenant("t").unwrap().stream("s").unwrap();
    stream.append(ExpectedVersion::Any, &[event("0")]).unwrap();
    bomb.0.store(true, std::sync::atomic::Ordering::Relaxed);
    let append = || stream.append(ExpectedVersion::Any, &[event("1")]);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(append));
    assert!(panicked.is_err());
    bomb.0.store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(append().unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    assert_eq!(contents(&db, "t"), ["0"]);
    drop(stream);
    assert_eq!(db.close().unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    assert_eq!(contents(&builder(&disk, 2).open().unwrap(), "t"), ["0"]);
}
