//! The bounded queue: how many appends are under way, and what happens to one more.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use kimberlite::{
    Ack, AppendFuture, AppendOptions, Database, Error, ErrorKind, ExpectedVersion, QueueLimit,
    Receipt, Stream, SyncPolicy, WhenFull,
};
use kimberlite_testkit::SimulatedDisk;

use crate::gate::{Gate, frames};
use crate::support::{builder, event};

const BUFFERED: AppendOptions = AppendOptions::new().ack(Ack::Buffered);

/// A database with a stream that exists, and a queue of `appends`.
fn open(disk: &SimulatedDisk, limit: QueueLimit) -> (Database, Stream) {
    let db = builder(disk, 1).queue_limit(limit).open().unwrap();
    let stream = db.tenant("t").unwrap().stream("s").unwrap();
    stream.append(ExpectedVersion::Any, &[event("0")]).unwrap();
    (db, stream)
}

fn start(stream: &Stream, text: &str) -> AppendFuture {
    stream.append_async(ExpectedVersion::Any, &[event(text)])
}

/// Counts wakes, and lets a test wait for the first.
#[derive(Default)]
struct Woken(Mutex<bool>, Condvar);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }
}

impl Woken {
    fn poll(self: &Arc<Self>, future: &mut AppendFuture) -> Poll<Result<Receipt, Error>> {
        let waker = Waker::from(Arc::clone(self));
        pin!(future).poll(&mut Context::from_waker(&waker))
    }

    fn wait(&self) {
        let asleep = |woken: &mut bool| !*woken;
        drop(self.1.wait_while(self.0.lock().unwrap(), asleep).unwrap());
    }
}

#[test]
fn a_full_queue_refuses_or_keeps_in_line_and_nothing_is_written_meanwhile() {
    let disk = SimulatedDisk::new(1);
    let gate = Gate::of(&disk);
    let (_db, stream) = open(&disk, QueueLimit::new(2, u64::MAX));
    let closed = gate.close();
    let first = [start(&stream, "1"), start(&stream, "2")];
    gate.wait_for_held();
    let before = (frames(&disk), disk.ops());
    let refused = stream.try_append(ExpectedVersion::Any, &[event("x")]);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Overloaded);
    let refuse = AppendOptions::new().when_full(WhenFull::Refuse);
    let refused = pollster::block_on(stream.append_async(refuse, &[event("x")]));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Overloaded);
    let woken = Arc::<Woken>::default();
    let mut in_line = start(&stream, "3");
    assert!(woken.poll(&mut in_line).is_pending());
    let blocked = std::thread::scope(|scope| {
        let blocked = scope.spawn(|| stream.append(ExpectedVersion::Any, &[event("4")]));
        assert_eq!((frames(&disk), disk.ops()), before);
        drop(closed);
        woken.wait();
        let third = pollster::block_on(&mut in_line).unwrap();
        assert!(third.is_durable());
        blocked.join().unwrap()
    });
    assert!(blocked.is_ok());
    for future in first {
        assert!(pollster::block_on(future).unwrap().is_durable());
    }
    assert_eq!(stream.len().unwrap(), 5);
    stream
        .try_append(ExpectedVersion::Any, &[event("5")])
        .unwrap();
}

#[test]
fn nobody_passes_those_in_line_however_small() {
    let disk = SimulatedDisk::new(2);
    let gate = Gate::of(&disk);
    let (_db, stream) = open(&disk, QueueLimit::new(100, 10_000));
    let closed = gate.close();
    let first = start(&stream, &"x".repeat(5_000));
    gate.wait_for_held();
    let woken = Arc::<Woken>::default();
    let mut large = start(&stream, &"l".repeat(50_000));
    assert!(woken.poll(&mut large).is_pending());
    let small = stream.try_append(ExpectedVersion::Any, &[event("s")]);
    assert_eq!(small.unwrap_err().kind(), ErrorKind::Overloaded);
    // Once it has left the line the small one fits, and the large one was never written.
    drop(large);
    let small = start(&stream, "s");
    drop(closed);
    assert_eq!(pollster::block_on(first).unwrap().first_offset().get(), 1);
    assert_eq!(pollster::block_on(small).unwrap().first_offset().get(), 2);
    // One that is larger than the limit is let in alone.
    let large = start(&stream, &"l".repeat(50_000));
    assert_eq!(pollster::block_on(large).unwrap().first_offset().get(), 3);
}

#[test]
fn an_early_answer_keeps_its_place_until_it_is_durable() {
    let disk = SimulatedDisk::new(3);
    let policy = SyncPolicy::GroupCommit {
        max_delay: Duration::from_hours(1),
    };
    let limit = QueueLimit::for_load(3, Duration::from_secs(1));
    let db = builder(&disk, 1).queue_limit(limit).sync_policy(policy);
    let db = db.open().unwrap();
    let tenant = db.tenant("t").unwrap();
    let stream = tenant.stream("s").unwrap();
    for round in 0..3 {
        for n in 0..3 {
            let text = format!("{round}-{n}");
            stream.append_with(BUFFERED, &[event(&text)]).unwrap();
        }
        let one_more = BUFFERED.when_full(WhenFull::Refuse);
        let refused = stream.append_with(one_more, &[event("x")]);
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Overloaded);
        tenant.flush().unwrap();
        assert_eq!(stream.len().unwrap(), 3 * (round + 1));
    }
}

#[test]
fn a_place_comes_back_from_whatever_happens_to_its_append() {
    let disk = SimulatedDisk::new(4);
    let panics = Arc::new(AtomicBool::new(false));
    let trigger = Arc::clone(&panics);
    disk.set_write_observer(Arc::new(move |_, _, _| {
        assert!(!trigger.load(Ordering::SeqCst), "under the commit lock");
    }));
    let (_db, stream) = open(&disk, QueueLimit::new(1, u64::MAX));
    let refused = stream.try_append(ExpectedVersion::NoStream, &[event("x")]);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::WrongVersion);
    let refused = stream.append_async(ExpectedVersion::NoStream, &[event("x")]);
    let refused = pollster::block_on(refused).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::WrongVersion);
    drop(start(&stream, "dropped"));
    stream.append(ExpectedVersion::Any, &[event("1")]).unwrap();
    panics.store(true, Ordering::SeqCst);
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        stream.append(ExpectedVersion::Any, &[event("2")])
    }));
    assert!(unwound.is_err());
    for _ in 0..2 {
        let lost = stream.try_append(ExpectedVersion::Any, &[event("3")]);
        assert_eq!(lost.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
        let lost = pollster::block_on(start(&stream, "3")).unwrap_err();
        assert_eq!(lost.kind(), ErrorKind::OutcomeUnknown);
    }
}

#[test]
fn those_in_line_are_told_when_the_log_is_poisoned_or_closed() {
    let disk = SimulatedDisk::new(5);
    let gate = Gate::of(&disk);
    let (_db, stream) = open(&disk, QueueLimit::new(1, u64::MAX));
    let closed = gate.close();
    let first = start(&stream, "1");
    gate.wait_for_held();
    let futures = (0..5).map(|n| start(&stream, &n.to_string()));
    let futures = futures.collect::<Vec<_>>();
    disk.fail_sync_at(disk.ops());
    drop(closed);
    for future in std::iter::once(first).chain(futures) {
        let told = pollster::block_on(future).unwrap_err();
        assert_eq!(told.kind(), ErrorKind::OutcomeUnknown);
    }

    let disk = SimulatedDisk::new(6);
    let gate = Gate::of(&disk);
    let (db, stream) = open(&disk, QueueLimit::new(1, u64::MAX));
    let closed = gate.close();
    let first = start(&stream, "1");
    gate.wait_for_held();
    let in_line = start(&stream, "2");
    drop(closed);
    db.close().unwrap();
    pollster::block_on(first).unwrap();
    let told = pollster::block_on(in_line).unwrap_err();
    assert_eq!(told.kind(), ErrorKind::Closed);
}
