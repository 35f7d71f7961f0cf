//! Wakers that do on our threads what executors do on theirs: poll the task at once, and let go of it
//! with all that it owns, the database too.

use std::pin::Pin;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use kimberlite::{
    Ack, AppendFuture, AppendOptions, Database, Disk as _, ExpectedVersion, SyncPolicy, Tenant,
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
