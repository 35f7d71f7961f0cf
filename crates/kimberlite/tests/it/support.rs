//! What the tests share: a database on a simulated disk, with seeded randomness and time.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use kimberlite::{
    Clock, Database, DatabaseBuilder, Entropy, Event, Position, RecordKind, Tenant, Timestamp,
};
use kimberlite_testkit::{Rng, SimulatedDisk};

/// Counts up by a millisecond at each reading.
#[derive(Debug)]
pub(crate) struct TickingClock(AtomicU64);

impl TickingClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(1_700_000_000_000_000_000)))
    }

    pub(crate) fn set(&self, nanoseconds: u64) {
        self.0.store(nanoseconds, Ordering::Relaxed);
    }
}

impl Clock for TickingClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanoseconds(self.0.fetch_add(1_000_000, Ordering::Relaxed))
    }
}

/// Repeatable randomness; each process of a history gets a seed of its own.
#[derive(Debug)]
pub(crate) struct SeededEntropy(Mutex<Rng>);

impl SeededEntropy {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Rng::new(seed))))
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) -> bool {
        let mut rng = self.0.lock().unwrap();
        for chunk in bytes.chunks_mut(8) {
            let random = rng.next_u64().to_le_bytes();
            chunk.copy_from_slice(&random[..chunk.len()]);
        }
        true
    }
}

pub(crate) fn builder(disk: &SimulatedDisk, seed: u64) -> DatabaseBuilder {
    open_at(disk, "/db", seed)
}

pub(crate) fn open_at(disk: &SimulatedDisk, path: &str, seed: u64) -> DatabaseBuilder {
    Database::builder(path)
        .disk(Arc::new(disk.clone()))
        .clock(TickingClock::new())
        .entropy(SeededEntropy::new(seed))
        .background(false)
}

pub(crate) fn event(text: &str) -> Event {
    Event::new("noted", text.to_owned())
}

/// The data of all events of a tenant, in order.
pub(crate) fn contents(db: &Database, tenant: &str) -> Vec<String> {
    let records = db.existing_tenant(tenant).unwrap().read_all(..);
    records
        .map(|record| String::from_utf8(record.unwrap().data().to_vec()).unwrap())
        .collect()
}

/// The kinds of a log's frames, in order.
pub(crate) fn kinds(tenant: &Tenant) -> Vec<RecordKind> {
    let mut kinds = Vec::new();
    let mut position = Position::ZERO;
    while let Some((_, header)) = tenant.frame(position).unwrap() {
        kinds.push(header.kind.unwrap());
        position = header.end_position();
    }
    kinds
}
