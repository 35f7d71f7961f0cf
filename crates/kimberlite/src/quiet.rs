//! What is done for a log that nobody asks for: a watermark when it has fallen quiet, a checkpoint
//! when enough is new.
//!
//! One thread for a database, started by its first append. It looks at the tenants that were
//! appended to at intervals. One without a new group since the last look gets its watermark, so
//! that damage to its last append can never pass for a torn write.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::ThreadId;
use std::time::Duration;

use crate::checkpoint::Due;
use crate::tenant::TenantInner;

/// How long a log is left alone: a watermark comes within twice this time after the last append.
const INTERVAL: Duration = Duration::from_millis(50);

/// Tenants that may wait to be watched; further ones are noticed at a later append.
const QUEUE_TENANTS_MAX: usize = 16_384;

#[derive(Debug, Default)]
pub(crate) struct Quiet {
    watch: Mutex<Option<SyncSender<Weak<TenantInner>>>>,
    thread: OnceLock<ThreadId>,
    looking: Arc<Mutex<Looking>>,
}

/// Held during a look, when the thread holds tenants, and with them the database's lock.
#[derive(Debug, Default)]
struct Looking {
    ended: bool,
}

/// A tenant that was appended to.
#[derive(Debug)]
pub(crate) struct Watched {
    tenant: Weak<TenantInner>,
    /// Groups of its log at the last look.
    groups: Option<u64>,
    /// Whether the log has its watermark behind them.
    marked: bool,
}

impl Quiet {
    /// Notices an append to a tenant.
    pub(crate) fn notice(&self, tenant: &Arc<TenantInner>) {
        if tenant.watched.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = watch.get_or_insert_with(|| {
            let (sender, receiver) = sync_channel(QUEUE_TENANTS_MAX);
            let looking = Arc::clone(&self.looking);
            // Without the thread a watermark is written at closing only.
            let spawned = std::thread::Builder::new()
                .name("kimberlite-quiet".to_owned())
                .spawn(move || watch_all(&receiver, &looking));
            if let Ok(spawned) = spawned {
                self.thread.get_or_init(|| spawned.thread().id());
            }
            sender
        });
        if sender.try_send(Arc::downgrade(tenant)).is_err() {
            tenant.watched.store(false, Ordering::Release);
        }
    }

    /// Ends the looks, after the present one, if `alone` then says that nobody needs them. Where it is
    /// the present look that asks, by a waker that it called, they end by themselves.
    pub(crate) fn end_if(&self, alone: impl FnOnce() -> bool) {
        if self.thread.get() == Some(&std::thread::current().id()) {
            return;
        }
        let mut looking = hold(&self.looking);
        looking.ended |= alone();
    }
}

fn hold(looking: &Mutex<Looking>) -> MutexGuard<'_, Looking> {
    looking.lock().unwrap_or_else(PoisonError::into_inner)
}

fn watch_all(appended: &Receiver<Weak<TenantInner>>, looking: &Mutex<Looking>) {
    let mut watched: Vec<Watched> = Vec::new();
    loop {
        if watched.is_empty() {
            match appended.recv() {
                Ok(tenant) => watched.push(Watched::new(tenant)),
                Err(_) => return,
            }
        }
        watched.extend(appended.try_iter().map(Watched::new));
        let held = hold(looking);
        if held.ended {
            return;
        }
        watched.retain_mut(Watched::look_or_leave);
        drop(held);
        std::thread::sleep(INTERVAL);
    }
}

impl Watched {
    pub(crate) fn new(tenant: Weak<TenantInner>) -> Self {
        Self {
            tenant,
            groups: None,
            marked: false,
        }
    }

    /// Looks at the tenant. A panic, of a clock or a disk, ends the looks at this one alone.
    fn look_or_leave(&mut self) -> bool {
        let look = std::panic::AssertUnwindSafe(|| self.look());
        std::panic::catch_unwind(look).unwrap_or(false)
    }

    /// Looks at the tenant; `false` when it needs no more looks.
    pub(crate) fn look(&mut self) -> bool {
        let Some(tenant) = self.tenant.upgrade() else {
            return false;
        };
        if !self.mark(&tenant) {
            return false;
        }
        let checkpoint_made = match tenant.checkpoint_due() {
            Due::Later => return true,
            Due::Now => tenant.make_checkpoint().map(drop),
            Due::Not => Ok(()),
        };
        if let Err(error) = checkpoint_made {
            // It is tried again after the next append, which tells its caller what is wrong. The
            // watermark has its space.
            tracing::warn!(%error, "cannot make a checkpoint");
            let _ = tenant.with_engine(|engine| Ok(engine.log.write_watermark()?));
            self.marked = true;
        }
        !(self.marked && self.leave(&tenant))
    }

    /// Writes the watermark when nothing was appended since the last look; `false` when nothing can
    /// be appended any more.
    fn mark(&mut self, tenant: &TenantInner) -> bool {
        let Ok(mut locked) = tenant.writing() else {
            return false;
        };
        let Ok(engine) = locked.engine() else {
            return false;
        };
        if self.groups != Some(engine.groups) {
            self.groups = Some(engine.groups);
            self.marked = false;
        } else if !self.marked {
            // A failure poisons the log, and the next append tells its caller.
            let _ = engine.log.write_watermark();
            self.marked = true;
        }
        let _ = tenant.show();
        !engine.log.is_poisoned()
    }

    /// Lets the tenant be noticed again; `false` when something was appended meanwhile.
    fn leave(&self, tenant: &TenantInner) -> bool {
        // Under the commit lock, so that no append goes unnoticed.
        let Ok(mut locked) = tenant.writing() else {
            return true;
        };
        let unchanged = locked
            .engine()
            .is_ok_and(|engine| self.groups == Some(engine.groups));
        if unchanged {
            tenant.watched.store(false, Ordering::Release);
        }
        unchanged
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::AtomicBool;

    use kimberlite_disk::Disk as _;
    use kimberlite_testkit::SimulatedDisk;
    use kimberlite_types::Timestamp;

    use super::*;
    use crate::{Clock, Database, Event, ExpectedVersion, Tenant};

    #[derive(Debug, Default)]
    struct Hand(Mutex<u64>, AtomicBool);

    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            assert!(!self.1.load(Ordering::Relaxed), "no time");
            Timestamp::from_nanoseconds(1_700_000_000_000_000_000 + *self.0.lock().unwrap())
        }
    }

    struct Rig {
        disk: SimulatedDisk,
        hand: Arc<Hand>,
        tenant: Tenant,
    }

    impl Rig {
        fn new() -> Self {
            let disk = SimulatedDisk::new(1);
            let hand = Arc::new(Hand::default());
            let db = Database::builder("/db")
                .disk(Arc::new(disk.clone()))
                .clock(hand.clone())
                .background(false)
                .checkpoint_records_max(10)
                .checkpoint_interval(Duration::from_secs(1))
                .open()
                .unwrap();
            let tenant = db.tenant("t").unwrap();
            Self { disk, hand, tenant }
        }

        fn append(&self, count: usize) {
            let events = vec![Event::new("t", "d"); count];
            let stream = self.tenant.stream("s").unwrap();
            stream.append(ExpectedVersion::Any, &events).unwrap();
        }

        fn watched(&self) -> Watched {
            Watched::new(Arc::downgrade(self.tenant.inner()))
        }

        fn checkpoints(&self) -> usize {
            self.tenant.inner().checkpoints.sizes().unwrap().len()
        }
    }

    #[test]
    fn a_log_gets_its_watermark_at_the_first_look_without_a_new_append() {
        let rig = Rig::new();
        let mut watched = rig.watched();
        for _ in 0..3 {
            rig.append(1);
            let before = rig.disk.ops();
            assert!(watched.look());
            assert_eq!(rig.disk.ops(), before);
        }
        assert!(watched.look());
        let marked = rig.disk.ops();
        assert!(watched.look());
        assert_eq!(rig.disk.ops(), marked, "one watermark is enough");
        rig.append(1);
        let appended = rig.disk.ops();
        assert!(watched.look() && watched.look());
        assert!(rig.disk.ops() > appended);
    }

    #[test]
    fn a_checkpoint_is_made_when_enough_is_new_or_what_is_new_is_old() {
        let rig = Rig::new();
        let mut watched = rig.watched();
        rig.append(1);
        assert!(watched.look() && watched.look());
        assert_eq!(rig.checkpoints(), 0);
        rig.append(10);
        assert!(watched.look());
        assert_eq!(rig.checkpoints(), 1);
        // The log is quiet again, and nothing is new: there is nothing more to look for.
        assert!(!watched.look());
        assert_eq!(rig.checkpoints(), 1);
        let mut watched = rig.watched();
        rig.append(1);
        assert!(watched.look() && watched.look());
        assert_eq!(rig.checkpoints(), 1);
        *rig.hand.0.lock().unwrap() = 1_000_000_000;
        assert!(watched.look());
        assert_eq!(rig.checkpoints(), 2);
        // The record of the checkpoint before needs a watermark of its own, and no checkpoint.
        assert!(watched.look());
        assert!(!watched.look());
        assert_eq!(rig.checkpoints(), 2);
        assert!(rig.tenant.verify().unwrap().is_sound());
    }

    #[test]
    fn a_full_disk_does_not_make_the_looks_go_on_for_ever() {
        let rig = Rig::new();
        rig.append(20);
        let mut watched = rig.watched();
        rig.disk.set_space_bytes(Some(rig.disk.used_bytes()));
        let looks = std::iter::from_fn(|| watched.look().then_some(()));
        assert!(looks.take(10).count() < 10);
        // The watermark had its space.
        let log = "/db/tenants/t/log/00000000000000000000.seg";
        assert_eq!(rig.disk.durable_contents(log), rig.disk.contents(log));
        let marked = rig.disk.ops();
        rig.tenant.settle().unwrap();
        assert_eq!(rig.disk.ops(), marked, "there is one already");
        rig.disk.set_space_bytes(None);
        assert!(
            !rig.disk
                .exists(Path::new("/db/tenants/t/checkpoint"))
                .unwrap()
        );
        rig.append(1);
        assert!(rig.watched().look());
        assert_eq!(rig.checkpoints(), 1);
    }

    #[test]
    fn a_panic_in_a_look_ends_the_looks_at_its_tenant_alone() {
        let rig = Rig::new();
        rig.append(1);
        let mut watched = rig.watched();
        assert!(watched.look_or_leave());
        rig.hand.1.store(true, Ordering::Relaxed);
        assert!(!watched.look_or_leave());
        rig.hand.1.store(false, Ordering::Relaxed);
        assert!(rig.watched().look_or_leave());
    }

    #[test]
    fn no_look_is_taken_once_nobody_needs_it() {
        let quiet = Quiet::default();
        quiet.end_if(|| false);
        assert!(!hold(&quiet.looking).ended);
        quiet.end_if(|| true);
        let (sender, receiver) = sync_channel(1);
        sender.send(Weak::new()).unwrap();
        watch_all(&receiver, &quiet.looking);
    }

    #[test]
    fn a_hold_gets_its_watermark_when_the_log_falls_quiet() {
        let disk = SimulatedDisk::new(1);
        let db = Database::builder("/db").disk(Arc::new(disk.clone()));
        let tenant = db.open().unwrap().tenant("t").unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let sender = Mutex::new(sender);
        disk.set_write_observer(Arc::new(move |_, _, _| {
            let name = std::thread::current().name().map(str::to_owned);
            if name.as_deref() == Some("kimberlite-quiet") {
                let _ = sender.lock().unwrap().send(());
            }
        }));
        tenant.hold("case 17").unwrap();
        // It comes within a moment, or never.
        let written = receiver.recv_timeout(Duration::from_secs(30));
        assert!(written.is_ok(), "nobody looks at the log");
    }
}
