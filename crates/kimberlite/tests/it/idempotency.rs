//! Appends that are retried under a key: their events are there once, and every answer is the first.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use kimberlite::{
    Ack, AppendFuture, AppendOptions, Database, Encryption, Error, ErrorKind, Event,
    ExpectedVersion, IdempotencyKey, Offset, PurgeOptions, QueueLimit, Receipt, Stream, SyncPolicy,
    Tenant,
};
use kimberlite_testkit::{CrashMode, SimulatedDisk};

use crate::support::{builder, contents, event};

fn keyed(key: &str) -> AppendOptions {
    AppendOptions::new().idempotency_key(IdempotencyKey::from_bytes(key.as_bytes()))
}

fn open(disk: &SimulatedDisk, seed: u64) -> (Database, Tenant) {
    let db = builder(disk, seed).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    (db, tenant)
}

fn place(receipt: &Receipt) -> (u64, u64, u32) {
    let position = receipt.first_position().get();
    (position, receipt.first_offset().get(), receipt.count())
}

/// Appends again, and demands the first answer.
fn check_retry(stream: &Stream, options: AppendOptions, events: &[Event], first: &Receipt) {
    let again = stream.append_with(options, events).unwrap();
    assert_eq!(place(&again), place(first));
    assert!(again.is_duplicate());
}

fn poll(future: &mut AppendFuture) -> Poll<Result<Receipt, Error>> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_retry_gets_the_first_answer_whatever_the_stream_has_got_since() {
    let disk = SimulatedDisk::new(1);
    let (db, tenant) = open(&disk, 1);
    let stream = tenant.stream("s").unwrap();
    let made = keyed("made").expected(ExpectedVersion::NoStream);
    let first = stream.append_with(made, &[event("a"), event("b")]).unwrap();
    assert!(!first.is_duplicate() && first.is_durable());
    stream.append(ExpectedVersion::Any, &[event("c")]).unwrap();
    let exact = ExpectedVersion::Exact(Offset::new(2));
    let more = keyed("more").expected(exact);
    let second = stream.append_with(more, &[event("d")]).unwrap();
    check_retry(&stream, made, &[event("a"), event("b")], &first);
    check_retry(&stream, more, &[event("d")], &second);
    let awaited = pollster::block_on(stream.append_async(more, &[event("d")])).unwrap();
    assert!(awaited.is_duplicate() && awaited.is_durable());
    assert_eq!(place(&awaited), place(&second));
    assert_eq!(contents(&db, "t"), ["a", "b", "c", "d"]);
    assert!(tenant.verify().unwrap().is_sound());
}

#[test]
fn a_key_that_comes_with_any_other_request_is_refused_and_nothing_is_made() {
    let disk = SimulatedDisk::new(1);
    let (db, tenant) = open(&disk, 1);
    let stream = tenant.stream("s").unwrap();
    let event = || Event::new("noted", "a").with_metadata("m");
    stream.append_with(keyed("k"), &[event()]).unwrap();
    let ops = disk.ops();
    let exact = ExpectedVersion::Exact(Offset::ZERO);
    let others = [
        ("s", keyed("k").expected(exact), vec![event()]),
        (
            "s",
            keyed("k").expected(ExpectedVersion::NoStream),
            vec![event()],
        ),
        ("s", keyed("k"), vec![event(), event()]),
        (
            "s",
            keyed("k"),
            vec![Event::new("moved", "a").with_metadata("m")],
        ),
        (
            "s",
            keyed("k"),
            vec![Event::new("noted", "b").with_metadata("m")],
        ),
        (
            "s",
            keyed("k"),
            vec![Event::new("noted", "am").with_metadata("")],
        ),
        ("another", keyed("k"), vec![event()]),
    ];
    for (name, options, events) in others {
        let other = tenant.stream(name).unwrap();
        let refused = other.append_with(options, &events).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::KeyReused, "{refused}");
        let refused = pollster::block_on(other.append_async(options, &events)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::KeyReused, "{refused}");
    }
    assert_eq!(disk.ops(), ops, "no stream was made, and nothing written");
    assert_eq!(tenant.streams().unwrap().len(), 1);
    // Another tenant has keys of its own, and a refused append leaves its key free.
    let other = db.tenant("u").unwrap().stream("s").unwrap();
    assert!(
        !other
            .append_with(keyed("k"), &[event()])
            .unwrap()
            .is_duplicate()
    );
    let wrong = keyed("free").expected(ExpectedVersion::NoStream);
    assert!(stream.append_with(wrong, &[event()]).is_err());
    let right = stream.append_with(keyed("free"), &[event()]).unwrap();
    assert!(!right.is_duplicate());
}

/// Appends of one event and of more than a frame takes, each with a key.
fn fill(tenant: &Tenant) -> Vec<(&'static str, AppendOptions, Vec<Event>, Receipt)> {
    let mut appended = Vec::new();
    for (name, key, count) in [("a", "1", 1), ("b", "2", 3_000), ("a", "3", 2)] {
        let stream = tenant.stream(name).unwrap();
        let events = vec![event(key); count];
        let receipt = stream.append_with(keyed(key), &events).unwrap();
        appended.push((name, keyed(key), events, receipt));
    }
    appended
}

#[test]
fn keys_outlive_reopening_from_the_log_and_from_a_snapshot_and_a_purge() {
    for encryption in [Encryption::On, Encryption::Off] {
        let disk = SimulatedDisk::new(1);
        let open = |seed| {
            let builder = builder(&disk, seed).snapshot_growth_min(0);
            let db = builder.encryption(encryption).open().unwrap();
            let tenant = db.tenant("t").unwrap();
            (db, tenant)
        };
        let check = |tenant: &Tenant, appended: &[(&str, AppendOptions, Vec<Event>, Receipt)]| {
            let end = tenant.durable_position();
            for (name, options, events, first) in appended {
                let stream = tenant.stream(name).unwrap();
                check_retry(&stream, *options, events, first);
            }
            assert_eq!(tenant.durable_position(), end);
        };
        let (db, tenant) = open(1);
        let appended = fill(&tenant);
        check(&tenant, &appended);
        drop((tenant, db));
        let (db, tenant) = open(2);
        assert_eq!(tenant.open_report().snapshot, None);
        check(&tenant, &appended);
        drop(tenant);
        db.close().unwrap();
        let (db, tenant) = open(3);
        assert!(tenant.open_report().snapshot.is_some());
        check(&tenant, &appended);
        // The events go, and so do the snapshots that were made before.
        let until = tenant.durable_position();
        let purged = tenant
            .purge(&PurgeOptions::new(until), &mut |_| ())
            .unwrap();
        assert_eq!(purged.outcome.events, 3_003);
        drop((tenant, db));
        for path in disk.files() {
            if path.extension().is_some_and(|it| it == "snapshot") {
                kimberlite::Disk::remove(&disk, &path).unwrap();
            }
        }
        let (_db, tenant) = open(4);
        assert_eq!(tenant.open_report().snapshot, None);
        check(&tenant, &appended);
        assert!(tenant.verify().unwrap().is_sound());
    }
}

#[test]
fn a_retry_waits_until_the_first_append_is_durable() {
    let disk = SimulatedDisk::new(1);
    let max_delay = Duration::from_hours(1);
    let policy = SyncPolicy::GroupCommit { max_delay };
    let db = builder(&disk, 1).sync_policy(policy).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    let stream = tenant.stream("s").unwrap();
    let early = |key| keyed(key).ack(Ack::Buffered);
    let first = stream.append_with(early("k"), &[event("a")]).unwrap();
    assert!(!first.is_durable());
    let again = stream.append_with(early("k"), &[event("a")]).unwrap();
    assert!(again.is_duplicate() && !again.is_durable());
    let mut waits = stream.append_async(keyed("k"), &[event("a")]);
    assert!(poll(&mut waits).is_pending(), "it may still be lost");
    let mut refused = stream.append_async(keyed("k"), &[event("b")]);
    assert!(poll(&mut refused).is_pending(), "so may what refuses this");
    tenant.flush().unwrap();
    let Poll::Ready(answer) = poll(&mut waits) else {
        panic!("it is durable now")
    };
    let answer = answer.unwrap();
    assert!(answer.is_duplicate() && answer.is_durable());
    assert_eq!(place(&answer), place(&first));
    let Poll::Ready(Err(error)) = poll(&mut refused) else {
        panic!("it is refused")
    };
    assert_eq!(error.kind(), ErrorKind::KeyReused);
}

#[test]
fn a_future_in_line_keeps_its_key() {
    let disk = SimulatedDisk::new(1);
    let max_delay = Duration::from_hours(1);
    let db = builder(&disk, 1)
        .sync_policy(SyncPolicy::GroupCommit { max_delay })
        .queue_limit(QueueLimit::new(1, 1 << 20))
        .open()
        .unwrap();
    let tenant = db.tenant("t").unwrap();
    let stream = tenant.stream("s").unwrap();
    let early = keyed("k").ack(Ack::Buffered);
    let first = stream.append_with(early, &[event("a")]).unwrap();
    let mut in_line = stream.append_async(keyed("k"), &[event("a")]);
    assert!(poll(&mut in_line).is_pending());
    tenant.flush().unwrap();
    let answer = pollster::block_on(in_line).unwrap();
    assert_eq!(place(&answer), place(&first));
    assert_eq!(contents(&db, "t"), ["a"]);
}

#[test]
fn a_retry_of_an_append_whose_sync_failed_is_answered_by_the_next_writer_alone() {
    for ack in [Ack::Durable, Ack::Buffered] {
        let disk = SimulatedDisk::new(1);
        let (db, tenant) = open(&disk, 1);
        let stream = tenant.stream("s").unwrap();
        stream.append(ExpectedVersion::Any, &[event("0")]).unwrap();
        disk.fail_sync_at(disk.ops() + 2);
        let append = |stream: &Stream| stream.append_with(keyed("k").ack(ack), &[event("a")]);
        let unknown = stream.append_with(keyed("k"), &[event("a")]).unwrap_err();
        assert_eq!(unknown.kind(), ErrorKind::OutcomeUnknown, "{unknown}");
        let unknown = append(&stream).unwrap_err();
        assert_eq!(unknown.kind(), ErrorKind::OutcomeUnknown, "{unknown}");
        drop((stream, tenant, db));
        for mode in [CrashMode::LoseUnsynced, CrashMode::KeepUnsynced] {
            let after = disk.crash(mode);
            let (db, tenant) = open(&after, 2);
            append(&tenant.stream("s").unwrap()).unwrap();
            tenant.flush().unwrap();
            assert_eq!(contents(&db, "t"), ["0", "a"], "{mode:?}");
        }
    }
}

#[test]
fn after_a_crash_at_any_operation_a_retry_leaves_one_copy() {
    let policies = [SyncPolicy::EveryRecord, SyncPolicy::EveryBatch];
    for policy in policies {
        let run = |disk: &SimulatedDisk| {
            let db = builder(disk, 1).sync_policy(policy).open()?;
            let stream = db.tenant("t")?.stream("s")?;
            stream.append_with(keyed("k"), &[event("a"), event("b"), event("c")])
        };
        let whole = SimulatedDisk::new(1);
        run(&whole).unwrap();
        for op in 1..=whole.ops() {
            let disk = SimulatedDisk::new(1);
            disk.crash_after(op);
            let before = run(&disk);
            let modes = [CrashMode::LoseUnsynced, CrashMode::KeepUnsynced];
            for mode in modes.into_iter().chain((0..2).map(CrashMode::Mixed)) {
                let after = disk.crash(mode);
                let again = run(&after).unwrap();
                let what = format!("{policy:?}, op {op}, {mode:?}");
                let (db, _) = open(&after, 3);
                assert_eq!(contents(&db, "t"), ["a", "b", "c"], "{what}");
                if let Ok(first) = &before {
                    assert!(again.is_duplicate(), "{what}");
                    assert_eq!(place(&again), place(first), "{what}");
                }
            }
        }
    }
}

#[test]
fn a_full_disk_does_not_refuse_a_retry() {
    let disk = SimulatedDisk::new(1);
    let (_db, tenant) = open(&disk, 1);
    let stream = tenant.stream("s").unwrap();
    let large = vec![event(&"x".repeat(100_000)); 2];
    let first = stream.append_with(keyed("k"), &large).unwrap();
    disk.set_space_bytes(Some(disk.used_bytes()));
    let full = stream.append(ExpectedVersion::Any, &large).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::DiskFull);
    check_retry(&stream, keyed("k"), &large, &first);
}

#[test]
fn a_key_is_not_to_be_found_in_any_file() {
    let disk = SimulatedDisk::new(1);
    let (_db, tenant) = open(&disk, 1);
    let key = *b"a key of 16 byte";
    let options = AppendOptions::new().idempotency_key(IdempotencyKey::new(key));
    let stream = tenant.stream("s").unwrap();
    let first = stream.append_with(options, &[event("a")]).unwrap();
    check_retry(&stream, options, &[event("a")], &first);
    let other = AppendOptions::new().idempotency_key(IdempotencyKey::new([7; 16]));
    assert!(
        !stream
            .append_with(other, &[event("a")])
            .unwrap()
            .is_duplicate()
    );
    tenant.checkpoint().unwrap();
    for path in disk.files() {
        let bytes = disk.contents(&path);
        assert!(!bytes.windows(16).any(|window| window == key), "{path:?}");
    }
    assert_eq!(
        format!("{:?}", IdempotencyKey::new(key)),
        "IdempotencyKey { .. }"
    );
}
