//! Appends that nobody blocks for: futures, and answers before the sync.
//!
//! Syncs are held at a gate, so that what happens before one ends is not left to chance.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use kimberlite::{
    Ack, AppendFuture, AppendOptions, Database, Error, ErrorKind, ExpectedVersion, Offset,
    Position, Receipt, Stream, SyncPolicy, Tenant,
};
use kimberlite_testkit::{CrashMode, Rng, SimulatedDisk};

use crate::gate::{Gate, frames};
use crate::support::{builder, contents, event};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The least that an executor can be.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

fn poll(future: &mut AppendFuture) -> Poll<Result<Receipt, Error>> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

const LONG: Duration = Duration::from_hours(1);
const BUFFERED: AppendOptions = AppendOptions::new().ack(Ack::Buffered);

fn start(stream: &Stream, text: &str) -> AppendFuture {
    stream.append_async(ExpectedVersion::Any, &[event(text)])
}

/// A tenant with a stream that exists, under a sync policy.
fn open(disk: &SimulatedDisk, policy: SyncPolicy) -> (Database, Tenant, Stream) {
    let db = builder(disk, 1).sync_policy(policy).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    let stream = tenant.stream("s").unwrap();
    stream.append_with(BUFFERED, &[event("0")]).unwrap();
    tenant.flush().unwrap();
    (db, tenant, stream)
}

#[test]
fn a_future_is_ready_when_its_events_are_durable_on_any_executor() {
    let disk = SimulatedDisk::new(1);
    let (db, _, stream) = open(&disk, SyncPolicy::EveryBatch);
    let executors: [fn(AppendFuture) -> Result<Receipt, Error>; 2] = [block_on, pollster::block_on];
    for (n, executor) in executors.into_iter().enumerate() {
        let receipt = executor(start(&stream, &n.to_string())).unwrap();
        assert!(receipt.is_durable());
        assert_eq!(contents(&disk_after(&disk), "t").len(), n + 2);
    }
    assert_eq!(contents(&db, "t"), ["0", "0", "1"]);
}

/// The database as power loss would leave it now.
fn disk_after(disk: &SimulatedDisk) -> Database {
    builder(&disk.twin().crash(CrashMode::LoseUnsynced), 9)
        .open()
        .unwrap()
}

#[test]
fn many_futures_of_one_thread_are_written_at_once_and_share_a_sync() {
    let disk = SimulatedDisk::new(2);
    let gate = Gate::of(&disk);
    let (db, _, stream) = open(&disk, SyncPolicy::EveryBatch);
    let before = (frames(&disk), gate.passed());
    let closed = gate.close();
    let mut first = start(&stream, "first");
    gate.wait_for_held();
    let mut others = (0..64)
        .map(|n| start(&stream, &n.to_string()))
        .collect::<Vec<_>>();
    assert_eq!(frames(&disk), before.0 + 65);
    assert!(poll(&mut first).is_pending());
    assert!(others.iter_mut().all(|other| poll(other).is_pending()));
    assert_eq!(
        stream.len().unwrap(),
        1,
        "nothing is shown before it is durable"
    );
    drop(closed);
    assert_eq!(block_on(first).unwrap().first_offset().get(), 1);
    for (n, other) in (2..).zip(others) {
        assert_eq!(block_on(other).unwrap().first_offset().get(), n);
    }
    assert_eq!(gate.passed(), before.1 + 2, "two syncs for 65 appends");
    assert_eq!(contents(&db, "t").len(), 66);
}

#[test]
fn a_dropped_future_leaves_its_events_and_they_become_durable() {
    let disk = SimulatedDisk::new(3);
    let (_db, _tenant, stream) = open(&disk, SyncPolicy::EveryBatch);
    drop(start(&stream, "never polled"));
    let mut polled = start(&stream, "polled");
    let _ = poll(&mut polled);
    drop(polled);
    // Nothing else asks for a sync, and readers see them by themselves.
    while stream.len().unwrap() < 3 {
        std::thread::yield_now();
    }
    assert_eq!(
        contents(&disk_after(&disk), "t"),
        ["0", "never polled", "polled"]
    );
}

#[test]
fn a_future_tells_a_refusal_only_when_what_it_rests_on_is_durable() {
    for fails in [false, true] {
        let disk = SimulatedDisk::new(4);
        let gate = Gate::of(&disk);
        let (_, _, stream) = open(&disk, SyncPolicy::EveryBatch);
        let closed = gate.close();
        let first = start(&stream, "first");
        gate.wait_for_held();
        let expected = ExpectedVersion::Exact(Offset::new(0));
        let mut refused = stream.append_async(expected, &[event("second")]);
        assert!(
            poll(&mut refused).is_pending(),
            "it was told what may not last"
        );
        if fails {
            disk.fail_sync_at(disk.ops());
        }
        drop(closed);
        let kind = |answer: Result<Receipt, Error>| answer.err().map(|error| error.kind());
        let kinds = [kind(block_on(first)), kind(block_on(refused))];
        let unknown = Some(ErrorKind::OutcomeUnknown);
        let wrong = Some(ErrorKind::WrongVersion);
        assert_eq!(
            kinds,
            if fails {
                [unknown, unknown]
            } else {
                [None, wrong]
            }
        );
    }
}

#[test]
fn an_early_answer_comes_before_the_sync_and_durability_follows_by_itself() {
    let disk = SimulatedDisk::new(5);
    let gate = Gate::of(&disk);
    let delay = SyncPolicy::GroupCommit {
        max_delay: Duration::from_millis(1),
    };
    let (_, tenant, stream) = open(&disk, delay);
    let closed = gate.close();
    let early = stream.append_with(BUFFERED, &[event("early")]).unwrap();
    let future = block_on(stream.append_async(BUFFERED, &[event("awaited")])).unwrap();
    assert!(!early.is_durable() && !future.is_durable());
    assert_eq!(future.first_offset().get(), 2);
    assert_eq!(stream.len().unwrap(), 1, "readers see what is durable");
    let wait = tenant.wait_durable_async(early.last_position());
    drop(closed);
    block_on(wait).unwrap();
    tenant.wait_durable(future.last_position()).unwrap();
    assert_eq!(contents(&disk_after(&disk), "t"), ["0", "early", "awaited"]);
    assert_eq!(stream.len().unwrap(), 3);
}

#[test]
fn what_an_append_made_durable_before_it_failed_is_shown() {
    let disk = SimulatedDisk::new(5);
    let (_db, tenant, stream) = open(&disk, SyncPolicy::GroupCommit { max_delay: LONG });
    let early = stream.append_with(BUFFERED, &[event("1")]).unwrap();
    assert_eq!(stream.len().unwrap(), 1);
    // The next one needs another segment, for which this one is synced, and then there is no space.
    disk.set_space_bytes(Some(disk.used_bytes()));
    let large = [event(&"x".repeat(300 << 10))];
    for awaited in [false, true] {
        let failed = if awaited {
            block_on(stream.append_async(BUFFERED, &large))
        } else {
            stream.append_with(BUFFERED, &large)
        };
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::DiskFull);
        assert!(tenant.durable_position() > early.last_position());
        assert_eq!(stream.len().unwrap(), 2);
        assert_eq!(tenant.streams().unwrap()[0].events, 2);
    }
}

#[test]
fn what_a_future_made_durable_before_it_is_ready_is_shown() {
    let disk = SimulatedDisk::new(6);
    let (_db, tenant, stream) = open(&disk, SyncPolicy::GroupCommit { max_delay: LONG });
    let early = stream.append_with(BUFFERED, &[event("1")]).unwrap();
    // It needs another segment, for which this one is synced.
    let large = [event(&"x".repeat(300 << 10))];
    let future = stream.append_async(ExpectedVersion::Any, &large);
    assert!(tenant.durable_position() > early.last_position());
    assert_eq!(stream.len().unwrap(), 2);
    drop(future);
}

#[test]
fn what_an_answer_means_depends_on_the_policy_as_documented() {
    let group = SyncPolicy::GroupCommit { max_delay: LONG };
    let cases = [
        (SyncPolicy::EveryRecord, Ack::Buffered, true),
        (SyncPolicy::OnFlush, Ack::Buffered, false),
        (SyncPolicy::OnFlush, Ack::Durable, true),
        (group, Ack::Buffered, false),
    ];
    for (policy, ack, is_durable) in cases {
        let disk = SimulatedDisk::new(6);
        let (_db, tenant, stream) = open(&disk, policy);
        let options = AppendOptions::new().ack(ack);
        let receipts = [
            stream.append_with(options, &[event("1")]).unwrap(),
            block_on(stream.append_async(options, &[event("2")])).unwrap(),
        ];
        assert!(
            receipts
                .iter()
                .all(|receipt| receipt.is_durable() == is_durable)
        );
        let kept = contents(&disk_after(&disk), "t").len();
        assert_eq!(kept, if is_durable { 3 } else { 1 }, "{policy:?} {ack:?}");
        // A flush asks for what nothing else asks for in time.
        tenant.flush().unwrap();
        assert_eq!(contents(&disk_after(&disk), "t").len(), 3);
        assert_eq!(stream.len().unwrap(), 3);
        let beyond = tenant.wait_durable(Position::new(100)).unwrap_err();
        assert_eq!(beyond.kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn an_early_answer_is_driven_when_its_database_is_dropped() {
    let disk = SimulatedDisk::new(7);
    let (db, tenant, stream) = open(&disk, SyncPolicy::GroupCommit { max_delay: LONG });
    stream.append_with(BUFFERED, &[event("1")]).unwrap();
    drop((stream, tenant, db));
    assert_eq!(contents(&disk_after(&disk), "t"), ["0", "1"]);
}

#[test]
fn futures_in_flight_are_told_of_a_failed_sync_and_of_one_that_panics() {
    for panics in [false, true] {
        let disk = SimulatedDisk::new(8);
        let armed = Arc::new(AtomicBool::new(false));
        let trigger = Arc::clone(&armed);
        disk.set_sync_observer(Arc::new(move |_| {
            assert!(!trigger.load(Ordering::SeqCst), "in the middle of a sync");
        }));
        let (db, tenant, stream) = open(&disk, SyncPolicy::EveryBatch);
        armed.store(panics, Ordering::SeqCst);
        if !panics {
            disk.fail_sync_at(disk.ops() + 2);
        }
        let futures = (0..8).map(|n| start(&stream, &n.to_string()));
        for future in futures.collect::<Vec<_>>() {
            let answer = block_on(future);
            assert_eq!(answer.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
        }
        armed.store(false, Ordering::SeqCst);
        let later = block_on(start(&stream, "later")).unwrap_err();
        assert_eq!(later.kind(), ErrorKind::OutcomeUnknown);
        let waited = tenant.wait_durable(Position::new(4)).unwrap_err();
        assert_eq!(waited.kind(), ErrorKind::OutcomeUnknown);
        assert_eq!(contents(&db, "t"), ["0"]);
    }
}

#[test]
fn a_waker_that_panics_keeps_nobody_else_asleep() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("a waker");
        }
    }
    let disk = SimulatedDisk::new(9);
    let gate = Gate::of(&disk);
    let (_db, _, stream) = open(&disk, SyncPolicy::EveryBatch);
    let closed = gate.close();
    let mut first = start(&stream, "1");
    let second = start(&stream, "2");
    let waker = Waker::from(Arc::new(Panics));
    assert!(
        pin!(&mut first)
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );
    drop(closed);
    block_on(second).unwrap();
    block_on(first).unwrap();
    block_on(start(&stream, "the driver goes on")).unwrap();
}

#[test]
fn the_order_of_calls_is_the_order_of_the_log() {
    let disk = SimulatedDisk::new(10);
    let (db, _, stream) = open(&disk, SyncPolicy::EveryBatch);
    let options = [AppendOptions::new(), BUFFERED];
    let futures = (0..100).map(|n| stream.append_async(options[n % 2], &[event(&n.to_string())]));
    for (n, future) in futures.collect::<Vec<_>>().into_iter().enumerate() {
        assert_eq!(block_on(future).unwrap().first_offset().get(), n as u64 + 1);
    }
    drop(stream);
    let found = contents(&db, "t");
    let expected = std::iter::once(0).chain(0..100).map(|n| n.to_string());
    // The last ones may still be on their way.
    assert!(found.len() > 99 && expected.zip(&found).all(|(n, text)| n == *text));
}

/// Appends answered early, late and by futures, until the disk dies: what was durable is there, and of
/// all that was written a prefix, in its order.
#[test]
fn a_crash_takes_early_answers_in_order_from_the_end_and_nothing_else() {
    let (mut lost, mut kept) = (0, 0);
    for seed in 0..200_u64 {
        let mut rng = Rng::new(seed);
        let disk = SimulatedDisk::new(seed);
        let max_delay = [Duration::ZERO, LONG][usize::try_from(seed % 2).unwrap()];
        let (db, tenant, stream) = open(&disk, SyncPolicy::GroupCommit { max_delay });
        let crash_after = 1 + rng.below(60);
        disk.crash_after(disk.ops() + crash_after);
        let mut written = vec!["0".to_owned()];
        let mut durable = 1;
        for n in 0..40 {
            let text = format!(
                "{n}-{}",
                "x".repeat(usize::try_from(rng.below(600)).unwrap())
            );
            let events = [event(&text)];
            let durably = max_delay.is_zero() && rng.below(4) == 0;
            let answer = match (durably, rng.below(2)) {
                (true, 0) => stream.append(ExpectedVersion::Any, &events),
                (true, _) => block_on(stream.append_async(ExpectedVersion::Any, &events)),
                (false, 0) => stream.append_with(BUFFERED, &events),
                (false, _) => block_on(stream.append_async(BUFFERED, &events)),
            };
            // An append of unknown outcome may be there, too.
            written.push(text);
            match answer {
                Ok(receipt) if receipt.is_durable() => durable = written.len(),
                Ok(_) => {}
                Err(_) => break,
            }
            if rng.below(12) == 0 && tenant.flush().is_ok() {
                durable = written.len();
            }
        }
        // Before the handles go, which would have what is left driven.
        let mode = match seed % 3 {
            0 => CrashMode::LoseUnsynced,
            1 => CrashMode::KeepUnsynced,
            _ => CrashMode::Mixed(seed),
        };
        let found = disk.crash(mode);
        drop((stream, tenant, db));
        let db = builder(&found, seed + 1).open().unwrap();
        let contents = contents(&db, "t");
        assert!(
            contents.len() >= durable,
            "seed {seed}: durable events are lost"
        );
        assert_eq!(contents, written[..contents.len()], "seed {seed}");
        assert!(
            db.tenant("t").unwrap().verify().unwrap().is_sound(),
            "seed {seed}"
        );
        lost += usize::from(contents.len() < written.len() - 1);
        kept += usize::from(contents.len() > durable);
    }
    assert!(
        lost > 20 && kept > 20,
        "{lost} lost, {kept} kept more than was promised"
    );
}

#[test]
fn futures_may_be_polled_on_another_thread_than_they_were_made_on() {
    let disk = SimulatedDisk::new(11);
    let (_db, _, stream) = open(&disk, SyncPolicy::EveryBatch);
    let done = AtomicUsize::new(0);
    let futures = Mutex::new(
        (0..32)
            .map(|n| start(&stream, &n.to_string()))
            .collect::<Vec<_>>(),
    );
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let next = futures.lock().unwrap().pop();
                    let Some(future) = next else { break };
                    block_on(future).unwrap();
                    done.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(done.into_inner(), 32);
    assert_eq!(stream.len().unwrap(), 33);
}
