//! Checks that a projection is one: for the tests of whoever writes it.
//!
//! ```
//! use kimberlite_projection::store::{Snapshot, WriteTransaction};
//! use kimberlite_projection::testkit::{TestLog, check};
//! use kimberlite_projection::{ApplyError, Batch, Projection, Table};
//!
//! struct Counts;
//! const COUNTS: Table<String, u64> = Table::new(1);
//!
//! impl Projection for Counts {
//!     type View = Snapshot;
//!
//!     fn name(&self) -> &str {
//!         "counts"
//!     }
//!
//!     fn version(&self) -> u32 {
//!         1
//!     }
//!
//!     fn apply(&self, batch: &Batch<'_>, write: &mut WriteTransaction<'_>) -> Result<(), ApplyError> {
//!         for event in batch.events() {
//!             let count = COUNTS.find_in(write, event.stream)?.unwrap_or_default();
//!             COUNTS.put(write, event.stream, count + 1)?;
//!         }
//!         Ok(())
//!     }
//! }
//!
//! let log = TestLog::new().event("a", "t", b"1").event("b", "t", b"2").event("a", "t", b"3");
//! let view = check(&Counts, &log);
//! assert_eq!(COUNTS.find(&view, "a")?, Some(2));
//! # Ok::<(), kimberlite_projection::store::StoreError>(())
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use kimberlite_crypto::internal_hash;
use kimberlite_disk::MemoryFile;
use kimberlite_types::{ChainHash, LogId, Offset, Position, StreamId, Timestamp};

use crate::batch::{Batch, Content, Event};
use crate::projection::Projection;
use crate::store::{Applied, Identity, Snapshot, Store, StoreOptions};

/// Crashes that are tried of each way to cut a log.
const CRASHES_MAX: usize = 64;

/// The time of the first event: somewhen in 2023.
const TIME_MIN_NS: u64 = 1_700_000_000_000_000_000;

/// A log to check projections with: each event stands at the next position, behind the record of its stream
/// where it is the first of that.
#[derive(Clone, Debug, Default)]
pub struct TestLog {
    events: Vec<TestEvent>,
    streams: BTreeMap<String, (StreamId, u64)>,
    next: u64,
}

#[derive(Clone, Debug)]
struct TestEvent {
    position: Position,
    stream: String,
    stream_id: StreamId,
    offset: Offset,
    payload: Option<(String, Vec<u8>, Vec<u8>)>,
}

impl TestLog {
    /// An empty log.
    pub fn new() -> Self {
        Self {
            next: 1,
            ..Self::default()
        }
    }

    /// Adds an event without metadata.
    #[must_use]
    pub fn event(self, stream: &str, event_type: &str, data: &[u8]) -> Self {
        self.event_with(stream, event_type, (b"", data))
    }

    /// Adds an event with metadata.
    #[must_use]
    pub fn event_with(
        mut self,
        stream: &str,
        event_type: &str,
        (metadata, data): (&[u8], &[u8]),
    ) -> Self {
        let payload = (event_type.to_owned(), metadata.to_vec(), data.to_vec());
        self.push(stream, Some(payload));
        self
    }

    /// Adds an event that was purged.
    #[must_use]
    pub fn purged(mut self, stream: &str) -> Self {
        self.push(stream, None);
        self
    }

    /// Returns the position of the last event.
    pub fn last_position(&self) -> Option<Position> {
        self.events.last().map(|event| event.position)
    }

    fn push(&mut self, stream: &str, payload: Option<(String, Vec<u8>, Vec<u8>)>) {
        let next = &mut self.next;
        let (stream_id, events) = self.streams.entry(stream.to_owned()).or_insert_with(|| {
            let id = StreamId::new(Position::new(*next));
            *next += 1;
            (id, 0)
        });
        self.events.push(TestEvent {
            position: Position::new(*next),
            stream: stream.to_owned(),
            stream_id: *stream_id,
            offset: Offset::new(*events),
            payload,
        });
        *events += 1;
        *next += 1;
    }

    fn seen(&self) -> Vec<Event<'_>> {
        let events = self.events.iter();
        let events = events.map(|event| {
            let content = match &event.payload {
                Some((event_type, metadata, data)) => Content::Payload {
                    event_type,
                    metadata,
                    data,
                },
                None => Content::Purged,
            };
            Event {
                position: event.position,
                stream: &event.stream,
                stream_id: event.stream_id,
                offset: event.offset,
                time: Timestamp::from_nanoseconds(TIME_MIN_NS + event.position.get()),
                content,
            }
        });
        events.collect()
    }
}

/// Checks a projection over a log, and returns what it makes of it:
///
/// * derived again it gives the same answers, key by key, however the log is cut into batches;
/// * a batch that was applied and not committed leaves nothing behind, in the store or elsewhere;
/// * after a crash behind any batch, whatever was flushed by then, it goes on to the same answers.
///
/// # Panics
///
/// Where one of these does not hold, with what differs, and where the projection fails.
pub fn check<P: Projection>(projection: &P, log: &TestLog) -> Snapshot {
    let events = log.seen();
    let whole = derive(projection, log, &[events.len()]);
    let expected = answers(&whole);
    let each: Vec<usize> = (1..=events.len()).collect();
    let mut cuttings = vec![
        ("one batch", vec![events.len()]),
        ("a batch an event", each),
    ];
    for size in [2, 3, 7] {
        let cuts = (1..=events.len()).filter(|end| end % size == 0 || *end == events.len());
        cuttings.push(("batches of a few events", cuts.collect()));
    }
    for (what, cuts) in &cuttings {
        same(&expected, &derive(projection, log, cuts), what);
    }
    for cuts in cuttings.iter().map(|(_, cuts)| cuts) {
        let step = cuts.len().div_ceil(CRASHES_MAX).max(1);
        for at in (0..cuts.len()).step_by(step) {
            let crashed = derive_with_crash(projection, log, cuts, at);
            same(&expected, &crashed, "a crash and what came after it");
        }
    }
    whole
}

/// Derives a log in batches of so many events, and returns what comes of it: for logs that are too long to
/// [`check`].
///
/// # Panics
///
/// Where the projection fails.
pub fn derive_in_batches<P: Projection>(
    projection: &P,
    log: &TestLog,
    batch_events: usize,
) -> Snapshot {
    let events = log.events.len();
    let cuts = (batch_events..events).step_by(batch_events.max(1));
    derive(projection, log, &cuts.chain([events]).collect::<Vec<_>>())
}

fn identity<P: Projection>(projection: &P) -> Identity {
    Identity::new(LogId::new([7; 32]), projection.name(), projection.version())
}

fn options() -> StoreOptions {
    StoreOptions::default()
}

/// Applies the batches that end at `cuts`, from the event `first` on.
fn apply<P: Projection>(
    projection: &P,
    store: &mut Store,
    (events, cuts): (&[Event<'_>], &[usize]),
) {
    for &cut in cuts {
        let first = store.applied().position;
        let events = events.get(..cut).expect("cuts are within the log");
        let begin = events.partition_point(|event| event.position < first);
        let batch_events = events.get(begin..).unwrap_or_default();
        let position = events.last().map_or(1, |event| event.position.get() + 1);
        let end = Applied {
            position: Position::new(position),
            chain: ChainHash::new(*internal_hash(&position.to_le_bytes()).as_bytes()),
        };
        let batch = Batch::new(first, batch_events, end).expect("a test log is in order");
        // Applied and let go of: nothing may be left of it.
        let applied = projection.apply(&batch, &mut store.write());
        assert!(
            applied.is_ok(),
            "the projection failed: {:?}",
            applied.err()
        );
        let mut write = store.write();
        let applied = projection.apply(&batch, &mut write);
        assert!(
            applied.is_ok(),
            "the projection failed: {:?}",
            applied.err()
        );
        write.commit(end).expect("memory takes a commit");
    }
}

fn derive<P: Projection>(projection: &P, log: &TestLog, cuts: &[usize]) -> Snapshot {
    let store = Store::in_memory(identity(projection), options());
    let mut store = store.expect("there is memory for a store");
    apply(projection, &mut store, (&log.seen(), cuts));
    store.snapshot()
}

/// Flushes behind half of the batches before `crash`, goes on to that, and crashes.
fn derive_with_crash<P: Projection>(
    projection: &P,
    log: &TestLog,
    cuts: &[usize],
    crash: usize,
) -> Snapshot {
    let events = log.seen();
    let (before, _) = cuts.split_at(crash);
    let (flushed, unflushed) = before.split_at(crash / 2);
    let file = Arc::new(MemoryFile::new("memory"));
    let created = Store::create_in(Arc::clone(&file) as _, identity(projection), options());
    let mut store = created.expect("there is memory for a store");
    apply(projection, &mut store, (&events, flushed));
    store.flush().expect("memory takes a flush");
    apply(projection, &mut store, (&events, unflushed));
    drop(store);
    let file = Arc::new(MemoryFile::with_content("memory", file.content()));
    let opened = Store::open_in(file, identity(projection), options());
    let mut store = opened.expect("what was flushed is whole");
    let rest = cuts.get(flushed.len()..).unwrap_or_default();
    apply(projection, &mut store, (&events, rest));
    store.snapshot()
}

type Answers = BTreeMap<Vec<u8>, Vec<u8>>;

fn answers(snapshot: &Snapshot) -> Answers {
    let mut cursor = snapshot.cursor().expect("memory is read");
    let mut answers = Answers::new();
    while let Some(entry) = cursor.next_entry().expect("memory is read") {
        answers.insert(entry.key.to_vec(), entry.value.to_vec());
    }
    answers
}

fn same(expected: &Answers, found: &Snapshot, what: &str) {
    let found = answers(found);
    let keys = expected.keys().chain(found.keys());
    for key in keys {
        let (expected, found) = (expected.get(key), found.get(key));
        assert!(
            expected == found,
            "{what} give another answer for the key {key:02x?}: {found:02x?} instead of {expected:02x?}"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::projection::ApplyError;
    use crate::store::WriteTransaction;
    use crate::table::Table;

    const TABLE: Table<String, u64> = Table::new(1);

    /// Counts events by stream, with a fault.
    struct Faulty<F>(F, AtomicU64);

    impl<F> Projection for Faulty<F>
    where
        F: Fn(&AtomicU64, &Batch<'_>, &mut WriteTransaction<'_>) -> Result<(), ApplyError>
            + Send
            + Sync
            + 'static,
    {
        type View = Snapshot;

        fn name(&self) -> &'static str {
            "faulty"
        }

        fn version(&self) -> u32 {
            1
        }

        fn apply(
            &self,
            batch: &Batch<'_>,
            write: &mut WriteTransaction<'_>,
        ) -> Result<(), ApplyError> {
            (self.0)(&self.1, batch, write)
        }
    }

    fn passes(
        fault: impl Fn(&AtomicU64, &Batch<'_>, &mut WriteTransaction<'_>) -> Result<(), ApplyError>
        + Send
        + Sync
        + 'static,
    ) -> bool {
        let mut log = TestLog::new();
        for number in 0..20_u8 {
            log = log.event(["a", "b", "c"][usize::from(number % 3)], "t", &[number]);
        }
        let log = log.purged("a");
        let projection = Faulty(fault, AtomicU64::new(0));
        catch_unwind(AssertUnwindSafe(|| check(&projection, &log))).is_ok()
    }

    fn count(batch: &Batch<'_>, write: &mut WriteTransaction<'_>, by: u64) {
        for event in batch.events() {
            let count = TABLE.find_in(write, event.stream).unwrap();
            let count = count.unwrap_or_default() + by;
            TABLE.put(write, event.stream, count).unwrap();
        }
    }

    #[test]
    fn a_sound_projection_passes_and_faulty_ones_do_not() {
        assert!(passes(|_, batch, write| {
            count(batch, write, 1);
            Ok(())
        }));
        assert!(
            !passes(|_, batch, write| {
                let batches = TABLE.find_in(write, "batches")?.unwrap_or_default();
                TABLE.put(write, "batches", batches + 1)?;
                count(batch, write, 1);
                Ok(())
            }),
            "it depends on the cuts"
        );
        assert!(
            !passes(|seen, batch, write| {
                let seen = seen.fetch_add(1, Ordering::Relaxed);
                TABLE.put(write, "seen", seen)?;
                count(batch, write, 1);
                Ok(())
            }),
            "it keeps something elsewhere"
        );
        assert!(!passes(|_, _, _| Err("it fails".into())));
    }

    #[test]
    fn a_test_log_has_the_positions_of_a_log() {
        let log = TestLog::new().event("a", "t", b"").event("a", "t", b"");
        let log = log.event("b", "t", b"");
        let events = log.seen();
        let places = events.iter().map(|event| {
            let stream = event.stream_id.position().get();
            (event.position.get(), stream, event.offset.get())
        });
        assert_eq!(
            places.collect::<Vec<_>>(),
            [(2, 1, 0), (3, 1, 1), (5, 4, 0)]
        );
        assert_eq!(log.last_position(), Some(Position::new(5)));
    }
}
