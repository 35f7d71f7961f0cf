//! Events as they come: those that are there, and then each one that is appended.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kimberlite_storage::LogReader;
use kimberlite_types::Position;

use crate::error::Error;
use crate::read::{Record, RecordIter};
use crate::tenant::{Tenant, TenantInner};

/// Tells those who wait that a log has grown.
#[derive(Debug, Default)]
pub(crate) struct Growth {
    /// Those who wait, or are about to.
    waiting: AtomicUsize,
    /// Whether it grows no more.
    has_ended: Mutex<bool>,
    grown: Condvar,
}

impl Growth {
    fn hold(&self) -> MutexGuard<'_, bool> {
        self.has_ended
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that the log has grown.
    pub(crate) fn tell(&self) {
        // Either this sees who waits, or he sees what has grown.
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            drop(self.hold());
            self.grown.notify_all();
        }
    }

    /// Says that the log grows no more.
    pub(crate) fn end(&self) {
        *self.hold() = true;
        self.grown.notify_all();
    }

    /// Waits until the log of `reader` is durable up to behind `next`; `false` where it has ended, or has
    /// not got there in time.
    fn wait(&self, reader: &LogReader, next: Position, timeout: Duration) -> bool {
        let is_behind = |_: &mut bool| {
            fence(Ordering::SeqCst);
            reader.durable() <= next
        };
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let waits = |has_ended: &mut bool| is_behind(has_ended) && !*has_ended;
        let held = self.hold();
        let waited = self.grown.wait_timeout_while(held, timeout, waits);
        drop(waited);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        reader.durable() > next
    }
}

impl Tenant {
    /// Gives the events from position `from` on, and then, as they become durable, those that are appended. It
    /// holds nothing for whoever is slow: he reads later what is in the log.
    ///
    /// ```
    /// use kimberlite::{Database, Event, ExpectedVersion};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let db = Database::open(dir.path())?;
    /// let clinic = db.tenant("clinic-7")?;
    /// let mut events = clinic.subscribe(0);
    /// let patient = clinic.stream("patient/42")?;
    /// patient.append(ExpectedVersion::Any, &[Event::new("admitted", "ward 3")])?;
    /// let event = events.next().expect("the log goes on")?;
    /// assert_eq!(event.data().as_ref(), b"ward 3");
    /// // To go on there another time:
    /// let from = events.next_position();
    /// # assert_eq!(from.get(), event.position().get() + 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn subscribe(&self, from: u64) -> Subscription {
        let tenant = Arc::clone(self.inner());
        Subscription {
            next: from,
            end: from,
            records: RecordIter::positions(Arc::clone(&tenant), &(from..from), from),
            tenant,
        }
    }
}

/// Gives events one after the other, and waits for those that are to come. As an iterator it ends once the
/// database was closed; an error, such as that of a purged event, stands for its event, and it goes on behind it.
pub struct Subscription {
    tenant: Arc<TenantInner>,
    /// Those that are there.
    records: RecordIter,
    /// The position behind what was given.
    next: u64,
    /// The position behind what `records` gives.
    end: u64,
}

impl Subscription {
    /// Returns the position to go on from: behind the event that was given last, and what stands behind that and is
    /// no event.
    pub fn next_position(&self) -> Position {
        Position::new(self.next)
    }

    /// Gives the next event, if it is there.
    pub fn try_next(&mut self) -> Option<Result<Record, Error>> {
        loop {
            if let Some(record) = self.records.next() {
                self.next = self.records.next_number();
                return Some(record);
            }
            self.next = self.next.max(self.end);
            let durable = self.tenant.reader.durable().get();
            if durable <= self.next {
                return None;
            }
            self.end = durable;
            let range = self.next..durable;
            self.records = RecordIter::positions(Arc::clone(&self.tenant), &range, durable);
        }
    }

    /// Gives the next event, and waits for it for as long as `timeout` says; `None` when none has come by then,
    /// or none will.
    pub fn next_within(&mut self, timeout: Duration) -> Option<Result<Record, Error>> {
        loop {
            if let Some(record) = self.try_next() {
                return Some(record);
            }
            let growth = self.tenant.shown.growth();
            if !growth.wait(&self.tenant.reader, self.next_position(), timeout) {
                return None;
            }
        }
    }
}

impl Iterator for Subscription {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_within(Duration::MAX)
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("next_position", &self.next_position())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use kimberlite_testkit::SimulatedDisk;

    use super::*;
    use crate::{Ack, AppendOptions, Database, Event, ExpectedVersion, SyncPolicy};

    fn open(disk: &SimulatedDisk, sync_policy: SyncPolicy) -> (Database, Tenant) {
        let db = Database::builder("/db").disk(Arc::new(disk.clone()));
        let db = db
            .background(false)
            .sync_policy(sync_policy)
            .open()
            .unwrap();
        let tenant = db.tenant("t").unwrap();
        (db, tenant)
    }

    fn append(tenant: &Tenant, data: &str) {
        let stream = tenant.stream("s").unwrap();
        let event = Event::new("t", data.to_owned());
        stream.append(ExpectedVersion::Any, &[event]).unwrap();
    }

    fn data(record: Option<Result<Record, Error>>) -> Option<String> {
        record.map(|record| String::from_utf8(record.unwrap().data().to_vec()).unwrap())
    }

    #[test]
    fn every_event_comes_once_and_in_order_to_whoever_waits() {
        let disk = SimulatedDisk::new(1);
        let (db, tenant) = open(&disk, SyncPolicy::EveryBatch);
        append(&tenant, "0");
        std::thread::scope(|scope| {
            let readers = [(); 3].map(|()| {
                let events = tenant.subscribe(0);
                scope.spawn(move || {
                    events
                        .map(|event| data(Some(event)).unwrap())
                        .collect::<Vec<_>>()
                })
            });
            for number in 1..200 {
                append(&tenant, &number.to_string());
                if number % 50 == 0 {
                    std::thread::yield_now();
                }
            }
            db.close().unwrap();
            let expected: Vec<_> = (0..200).map(|number: u32| number.to_string()).collect();
            for reader in readers {
                assert_eq!(reader.join().unwrap(), expected);
            }
        });
    }

    #[test]
    fn it_goes_on_where_it_is_told_to() {
        let disk = SimulatedDisk::new(1);
        let (_db, tenant) = open(&disk, SyncPolicy::EveryBatch);
        let mut events = tenant.subscribe(0);
        assert_eq!(data(events.try_next()), None);
        for number in 0..5 {
            append(&tenant, &number.to_string());
        }
        assert_eq!(data(events.try_next()).as_deref(), Some("0"));
        assert_eq!(data(events.try_next()).as_deref(), Some("1"));
        let mut again = tenant.subscribe(events.next_position().get());
        assert_eq!(data(again.try_next()).as_deref(), Some("2"));
        assert_eq!(data(events.try_next()).as_deref(), Some("2"));
        assert_eq!(data(events.by_ref().take(2).last()).as_deref(), Some("4"));
        assert_eq!(data(events.next_within(Duration::ZERO)), None);
        append(&tenant, "5");
        assert_eq!(
            data(events.next_within(Duration::ZERO)).as_deref(),
            Some("5")
        );
        let mut far = tenant.subscribe(1_000);
        assert_eq!(data(far.next_within(Duration::ZERO)), None);
    }

    #[test]
    fn what_a_crash_could_take_does_not_come() {
        let disk = SimulatedDisk::new(1);
        let (_db, tenant) = open(&disk, SyncPolicy::OnFlush);
        let mut events = tenant.subscribe(0);
        append(&tenant, "0");
        assert_eq!(data(events.try_next()), None);
        tenant.flush().unwrap();
        assert_eq!(data(events.try_next()).as_deref(), Some("0"));
        let stream = tenant.stream("s").unwrap();
        let options = AppendOptions::new().ack(Ack::Durable);
        stream
            .append_with(options, &[Event::new("t", "1")])
            .unwrap();
        assert_eq!(data(events.try_next()).as_deref(), Some("1"));
    }
}
