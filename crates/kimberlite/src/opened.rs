//! Events that were decrypted, kept for those who read them again.
//!
//! One for all tenants of a database, so that its bound holds however many are open. It is split, so
//! that readers on many threads seldom meet. The plaintext of what it holds is wiped when the last
//! holder lets go of it, be that the cache or a reader.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kimberlite_types::Position;

use crate::read::Record;
use crate::sieve::Sieve;

const PARTS: u64 = 8;

/// What an entry takes beside the bytes of its event, roughly.
const ENTRY_BYTES: usize = 256;

/// Tells the tenants of a database apart, for as long as each is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Holder(u64);

type Part = Sieve<(Holder, Position), Record>;

#[derive(Debug)]
pub(crate) struct Opened {
    parts: Vec<Mutex<Part>>,
    holders: AtomicU64,
}

impl Opened {
    /// Makes a cache of so many bytes; with none it keeps nothing, and costs nothing.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let part_bytes = bytes_max / usize::try_from(PARTS).expect("a small number");
        let parts = if bytes_max == 0 { 0 } else { PARTS };
        Self {
            parts: (0..parts)
                .map(|_| Mutex::new(Sieve::new(part_bytes)))
                .collect(),
            holders: AtomicU64::new(0),
        }
    }

    /// Returns whether anything is kept at all.
    pub(crate) fn is_on(&self) -> bool {
        !self.parts.is_empty()
    }

    pub(crate) fn holder(&self) -> Holder {
        Holder(self.holders.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn find(&self, holder: Holder, position: Position) -> Option<Record> {
        let mut part = self.part(position)?;
        part.find(&(holder, position)).cloned()
    }

    /// Keeps an event, if `is_there` still says so once nothing can come between.
    pub(crate) fn insert(&self, holder: Holder, record: &Record, is_there: impl Fn() -> bool) {
        let position = record.position();
        let Some(mut part) = self.part(position) else {
            return;
        };
        if !is_there() {
            return;
        }
        let bytes = ENTRY_BYTES + record.data().len() + record.metadata().len();
        part.insert((holder, position), record.clone(), bytes);
    }

    /// Lets go of all that a tenant had opened.
    pub(crate) fn forget(&self, holder: Holder) {
        for part in &self.parts {
            hold(part).retain(|(other, _)| *other != holder);
        }
    }

    fn part(&self, position: Position) -> Option<MutexGuard<'_, Part>> {
        let part = usize::try_from(position.get() % PARTS).expect("a small number");
        self.parts.get(part).map(hold)
    }
}

// Nothing of ours panics while a part is held.
fn hold(part: &Mutex<Part>) -> MutexGuard<'_, Part> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kimberlite_testkit::SimulatedDisk;

    use super::*;
    use crate::{Database, Encryption, Event, ExpectedVersion, ReadMode};

    /// Opens a database that copies what it reads, without a tail, and appends two events.
    fn database(disk: &SimulatedDisk, encryption: Encryption) -> (Database, Position) {
        let db = Database::builder("/db")
            .disk(Arc::new(disk.clone()))
            .background(false)
            .encryption(encryption)
            .read_mode(ReadMode::Copied)
            .tail_bytes_max(0)
            .opened_bytes_max(100_000)
            .open()
            .unwrap();
        let stream = db.tenant("t").unwrap().stream("s").unwrap();
        let events = [Event::new("t", "kept"), Event::new("t", "other")];
        let receipt = stream.append(ExpectedVersion::Any, &events).unwrap();
        (db, receipt.first_position())
    }

    #[test]
    fn what_is_kept_is_read_without_the_disk_and_goes_with_its_tenant() {
        let disk = SimulatedDisk::new(1);
        let (db, position) = database(&disk, Encryption::On);
        let tenant = db.tenant("t").unwrap();
        let shared = Arc::clone(&tenant.inner().database);
        let holder = tenant.inner().holder;
        assert!(shared.opened.find(holder, position).is_none());
        tenant.read_position(position).unwrap().unwrap();
        disk.crash_after(disk.ops());
        let _ = tenant
            .stream("s")
            .unwrap()
            .append(ExpectedVersion::Any, &[Event::new("t", "never written")]);
        let next = Position::new(position.get() + 1);
        assert!(tenant.read_position(next).is_err(), "the disk is gone");
        let kept = tenant.read_position(position).unwrap().unwrap();
        assert_eq!(kept.data(), "kept");
        assert!(shared.opened.find(holder, position).is_some());
        drop((tenant, db));
        assert!(shared.opened.find(holder, position).is_none());
        assert_eq!(kept.data(), "kept");
    }

    #[test]
    fn what_is_purged_is_kept_no_longer_nor_what_was_read_before() {
        let disk = SimulatedDisk::new(1);
        let (db, position) = database(&disk, Encryption::On);
        let tenant = db.tenant("t").unwrap();
        let inner = tenant.inner();
        let record = tenant.read_position(position).unwrap().unwrap();
        assert!(inner.database.opened.find(inner.holder, position).is_some());
        let until = tenant.durable_position();
        tenant
            .purge(&crate::PurgeOptions::new(until), &mut |_| ())
            .unwrap();
        assert!(inner.database.opened.find(inner.holder, position).is_none());
        let error = tenant.read_position(position).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Purged);
        // A reader that had the payload in its hands comes too late.
        let opened = &inner.database.opened;
        opened.insert(inner.holder, &record, || {
            inner.purges.load(Ordering::Acquire) == 0
        });
        assert!(opened.find(inner.holder, position).is_none());
    }

    #[test]
    fn a_stream_that_was_read_is_read_again_without_the_disk_and_the_log_is_not_kept() {
        let disk = SimulatedDisk::new(1);
        let (db, position) = database(&disk, Encryption::On);
        let tenant = db.tenant("t").unwrap();
        let stream = tenant.stream("s").unwrap();
        let inner = tenant.inner();
        assert_eq!(tenant.read_all(..).count(), 2);
        assert!(inner.database.opened.find(inner.holder, position).is_none());
        let all = |events: &mut dyn Iterator<Item = _>| {
            let events = events.map(|record: Result<Record, crate::Error>| record.unwrap());
            let events = events.map(|record| (record.offset().get(), record.data().to_vec()));
            events.collect::<Vec<_>>()
        };
        let first = all(&mut stream.read(..));
        assert_eq!(first.len(), 2);
        let reads = disk.reads();
        assert_eq!(all(&mut stream.read(..)), first);
        let mut backward = all(&mut stream.read(..).rev());
        backward.reverse();
        assert_eq!(backward, first);
        assert_eq!(disk.reads(), reads);
        assert!(tenant.read_all(..).next().is_some());
        assert!(disk.reads() > reads);
    }

    #[test]
    fn a_stream_that_began_to_be_read_before_a_purge_keeps_nothing_of_it() {
        let disk = SimulatedDisk::new(1);
        let (db, position) = database(&disk, Encryption::On);
        let tenant = db.tenant("t").unwrap();
        let inner = tenant.inner();
        let mut events = tenant.stream("s").unwrap().read(..);
        events.next().unwrap().unwrap();
        assert!(inner.database.opened.find(inner.holder, position).is_some());
        let options = crate::PurgeOptions::new(tenant.durable_position());
        tenant.purge(&options, &mut |_| ()).unwrap();
        // It may have the segment of before in its hands.
        let _ = events.next();
        let next = Position::new(position.get() + 1);
        for position in [position, next] {
            assert!(inner.database.opened.find(inner.holder, position).is_none());
        }
        let error = tenant.stream("s").unwrap().read(..).next().unwrap();
        assert_eq!(error.unwrap_err().kind(), crate::ErrorKind::Purged);
    }

    #[test]
    fn events_that_are_not_encrypted_are_not_kept() {
        let disk = SimulatedDisk::new(1);
        let (db, position) = database(&disk, Encryption::Off);
        let tenant = db.tenant("t").unwrap();
        tenant.read_position(position).unwrap().unwrap();
        let inner = tenant.inner();
        assert!(inner.database.opened.find(inner.holder, position).is_none());
    }
}
