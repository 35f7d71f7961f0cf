//! Wakers that do on our threads what executors do on theirs: poll the task at once, and let go of it
//! with all that it owns, the database too.

use std::pin::{Pin, pin};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use kimberlite::{
    Ack, AppendFuture, AppendOptions, Database, Disk as _, ExpectedVersion, QueueLimit, Stream,
    SyncPolicy, Tenant,
};
use kimberlite_testkit::SimulatedDisk;

use crate::gate::Gate;
use crate::support::{builder, contents, event};

/// Longer than anything here takes: what does not come by then hangs.
const HANGS: Duration = Duration::from_secs(30);

/// A future, and the last handles of its database.
struct Owned {
    future: Pin<Box<AppendFuture>>,
    _handles: (Database, Tenant),
}

struct Task(Mutex<Option<Owned>>);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        let mut owned = self.0.lock().unwrap().take().expect("it is woken once");
        let polled = owned
            .future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Ready(Ok(_))));
    }
}

/// Has the future wake the task that owns all of them.
fn spawn(future: AppendFuture, db: Database, tenant: Tenant) {
    let owned = Owned {
        future: Box::pin(future),
        _handles: (db, tenant),
    };
    let task = Arc::new(Task(Mutex::new(Some(owned))));
    let waker = Waker::from(Arc::clone(&task));
    let mut owned = task.0.lock().unwrap();
    let future = owned.as_mut().unwrap().future.as_mut();
    let polled = future.poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
}

/// Tells of each sync of a file of the tenant `u` whether the database could be locked by others.
fn watch_lock(disk: &SimulatedDisk, gate: &Arc<Gate>) -> Receiver<bool> {
    let (sender, receiver) = channel();
    let sender = Mutex::new(sender);
    let (gate, asked) = (Arc::clone(gate), disk.clone());
    disk.set_sync_observer(Arc::new(move |path| {
        gate.pass();
        if path.starts_with("/db/tenants/u") {
            let is_free = asked.lock("/db/LOCK".as_ref()).is_ok();
            let _ = sender.lock().unwrap().send(is_free);
        }
    }));
    receiver
}

#[test]
fn the_lock_is_held_until_the_last_sync_that_was_asked_for() {
    let disk = SimulatedDisk::new(1);
    let gate = Arc::new(Gate::default());
    let db = builder(&disk, 1).open().unwrap();
    let [first, second] = ["t", "u"].map(|name| db.tenant(name).unwrap());
    let [stream, other] = [&first, &second].map(|tenant| tenant.stream("s").unwrap());
    for stream in [&stream, &other] {
        stream.append(ExpectedVersion::Any, &[event("0")]).unwrap();
    }
    let locked = watch_lock(&disk, &gate);
    let closed = gate.close();
    let future = stream.append_async(ExpectedVersion::Any, &[event("1")]);
    gate.wait_for_held();
    // The driver is at the first log's sync: this one is behind it in line.
    let early = AppendOptions::new().ack(Ack::Buffered);
    other.append_with(early, &[event("2")]).unwrap();
    drop((stream, other, second));
    spawn(future, db, first);
    drop(closed);
    assert_eq!(locked.recv_timeout(HANGS), Ok(false), "others could write");
    // It is let go once the thread has ended.
    let db = loop {
        if let Ok(db) = builder(&disk, 2).open() {
            break db;
        }
        std::thread::yield_now();
    };
    assert_eq!(contents(&db, "t"), ["0", "1"]);
    assert_eq!(contents(&db, "u"), ["0", "2"]);
}

#[test]
fn what_looks_at_quiet_logs_may_be_the_one_that_lets_go_of_the_database() {
    let disk = SimulatedDisk::new(2);
    let policy = SyncPolicy::GroupCommit {
        max_delay: Duration::from_hours(1),
    };
    let open = |seed| {
        builder(&disk, seed)
            .background(true)
            .sync_policy(policy)
            .open()
    };
    let db = open(1).unwrap();
    let tenant = db.tenant("t").unwrap();
    let stream = tenant.stream("s").unwrap();
    // It would be durable in an hour; its watermark makes it so when the log has fallen quiet.
    let future = stream.append_async(ExpectedVersion::Any, &[event("1")]);
    drop(stream);
    spawn(future, db, tenant);
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let db = loop {
            if let Ok(db) = builder(&disk, 2).open() {
                break db;
            }
            std::thread::yield_now();
        };
        sender.send(contents(&db, "t")).unwrap();
    });
    let found = receiver.recv_timeout(HANGS);
    assert_eq!(found.expect("the lock is let go of"), ["1"]);
}

/// Appends again, on the thread that calls it, and has the next one polled.
struct Again(Stream, Mutex<Option<AppendFuture>>, Sender<String>);

impl Wake for Again {
    fn wake(self: Arc<Self>) {
        let early = AppendOptions::new().ack(Ack::Buffered);
        let appended = self.0.append_with(early, &[event("again")]);
        let mut in_line = self.1.lock().unwrap().take().expect("it is woken once");
        let polled = pin!(&mut in_line).poll(&mut Context::from_waker(Waker::noop()));
        // Without anybody who waits for it the answer would be lost.
        let _ = self
            .2
            .send(format!("{:?} {}", appended.is_ok(), polled.is_ready()));
    }
}

#[test]
fn a_waker_may_append_again_whatever_its_sync_was_made_for() {
    let acts: [fn(&Tenant); 4] = [
        |tenant| tenant.flush().unwrap(),
        |tenant| tenant.settle().unwrap(),
        |tenant| drop(tenant.checkpoint().unwrap()),
        |tenant| {
            // It does not fit into the first segment.
            let early = AppendOptions::new().ack(Ack::Buffered);
            let stream = tenant.stream("s").unwrap();
            let large = event(&"x".repeat(300 << 10));
            stream.append_with(early, &[large]).unwrap();
        },
    ];
    for (nth, act) in acts.into_iter().enumerate() {
        let disk = SimulatedDisk::new(3);
        let policy = SyncPolicy::GroupCommit {
            max_delay: Duration::from_hours(1),
        };
        let db = builder(&disk, 1).sync_policy(policy).open().unwrap();
        let tenant = db.tenant("t").unwrap();
        let stream = tenant.stream("s").unwrap();
        let mut future = stream.append_async(ExpectedVersion::Any, &[event("1")]);
        let second = stream.append_async(ExpectedVersion::Any, &[event("2")]);
        let (sender, receiver) = channel();
        let again = Again(stream, Mutex::new(Some(second)), sender);
        let waker = Waker::from(Arc::new(again));
        let polled = pin!(&mut future).poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        let acting = std::thread::spawn(move || act(&tenant));
        let answer = receiver.recv_timeout(HANGS);
        assert_eq!(answer.as_deref(), Ok("true true"), "act {nth}");
        acting.join().unwrap();
    }
}

#[test]
fn a_waker_in_line_may_be_polled_by_whoever_gives_its_place_back() {
    struct Poll(Mutex<Option<AppendFuture>>, Sender<()>);
    impl Wake for Poll {
        fn wake(self: Arc<Self>) {
            let mut future = self.0.lock().unwrap().take().expect("it is woken once");
            let _ = pin!(&mut future).poll(&mut Context::from_waker(Waker::noop()));
            let _ = self.1.send(());
        }
    }
    let disk = SimulatedDisk::new(4);
    let policy = SyncPolicy::GroupCommit {
        max_delay: Duration::from_hours(1),
    };
    let db = builder(&disk, 1).sync_policy(policy);
    let db = db.queue_limit(QueueLimit::new(1, 1 << 20)).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    let stream = tenant.stream("s").unwrap();
    drop(stream.append_async(ExpectedVersion::Any, &[event("1")]));
    let in_line = stream.append_async(ExpectedVersion::Any, &[event("2")]);
    let (sender, receiver) = channel();
    let task = Arc::new(Poll(Mutex::new(Some(in_line)), sender));
    let waker = Waker::from(Arc::clone(&task));
    let polled =
        pin!(task.0.lock().unwrap().as_mut().unwrap()).poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    let settling = tenant.clone();
    let settling = std::thread::spawn(move || settling.settle().unwrap());
    assert_eq!(receiver.recv_timeout(HANGS), Ok(()));
    settling.join().unwrap();
    tenant.flush().unwrap();
    assert_eq!(contents(&db, "t"), ["1", "2"]);
}
