//! Appending: how it is asked for, and when it is answered.
//!
//! 1. The append takes a place in the tenant's queue.
//! 2. Its events are sealed, on the thread that calls.
//! 3. Under the commit lock they are decided and written.
//! 4. It is answered once all that it was decided on is durable, or at once where the caller asks for
//!    that or the sync policy says so.
//!
//! For a future, and for what is answered early, the database's driver leads the sync unless somebody
//! else does.

mod future;

pub use future::{AppendFuture, DurableFuture};

use std::sync::Arc;

use kimberlite_kernel::{Effect, ExpectedVersion, Rejection};
use kimberlite_storage::{Place, StorageError, SyncStage};
use kimberlite_types::{Idempotency, Position, StreamId, StreamName, limits};

use crate::engine::seal::StreamEvents;
use crate::engine::{Engine, Group, SealedEvents};
use crate::error::{Error, Problem};
use crate::event::Event;
use crate::idempotency::IdempotencyKey;
use crate::options::SyncPolicy;
use crate::stream::Receipt;
use crate::tenant::TenantInner;

/// When an append is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Ack {
    /// When its events are durable. A refusal, too, waits until what it was decided on is durable.
    ///
    /// Under [`SyncPolicy::OnFlush`] the append has everything synced up to itself.
    Durable,
    /// When its events are written in their place, before they are durable. Power loss, and under
    /// [`WriteMode::Direct`](crate::WriteMode::Direct) the end of the process, may take the newest of
    /// them, in order from the end; the order itself and what stands before are never at risk. Readers
    /// see the events once they are durable.
    ///
    /// Under [`SyncPolicy::GroupCommit`] their sync begins within `max_delay`, under
    /// [`SyncPolicy::EveryBatch`] at once, as soon as the sync before has ended; [`Receipt::last_position`] is
    /// what [`Tenant::wait_durable`](crate::Tenant::wait_durable) takes. Under
    /// [`SyncPolicy::EveryRecord`] writing syncs, so that they are durable; under
    /// [`SyncPolicy::OnFlush`] nothing is synced before a flush asks for it, and readers see them at
    /// once.
    Buffered,
}

/// What an append does when as many are under way as the queue lets in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WhenFull {
    /// It waits in line.
    #[default]
    Wait,
    /// It is refused with [`ErrorKind::Overloaded`](crate::ErrorKind::Overloaded).
    Refuse,
}

/// How events are appended.
///
/// ```
/// # use kimberlite::{Ack, AppendOptions, Database, Event, ExpectedVersion, WhenFull};
/// # let dir = tempfile::tempdir()?;
/// # let db = Database::open(dir.path())?;
/// # let tenant = db.tenant("t")?;
/// # let stream = tenant.stream("s")?;
/// let options = AppendOptions::new()
///     .expected(ExpectedVersion::NoStream)
///     .ack(Ack::Buffered)
///     .when_full(WhenFull::Refuse);
/// let receipt = stream.append_with(options, &[Event::new("measured", "37.2")])?;
/// // Ordered, and on its way to the disk.
/// tenant.wait_durable(receipt.last_position())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "options do nothing until something is appended with them"]
pub struct AppendOptions {
    expected: ExpectedVersion,
    ack: Option<Ack>,
    when_full: WhenFull,
    key: Option<IdempotencyKey>,
}

impl AppendOptions {
    /// Makes options that expect no version, wait in line, and are answered as the database's sync
    /// policy says: under [`SyncPolicy::OnFlush`] when the events are written, else when they are
    /// durable.
    pub const fn new() -> Self {
        Self {
            expected: ExpectedVersion::Any,
            ack: None,
            when_full: WhenFull::Wait,
            key: None,
        }
    }

    /// Where the stream must stand.
    pub const fn expected(mut self, expected: ExpectedVersion) -> Self {
        self.expected = expected;
        self
    }

    /// When the append is answered, whatever the sync policy says.
    pub const fn ack(mut self, ack: Ack) -> Self {
        self.ack = Some(ack);
        self
    }

    /// What happens when as many appends are under way as
    /// [`DatabaseBuilder::queue_limit`](crate::DatabaseBuilder::queue_limit) lets in.
    pub const fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }

    /// Makes the append one that may be retried: when its key was used before for the same request, the
    /// events are not appended again, and the receipt is the first one, whatever the stream has since got.
    /// The same request is one to the same stream, with the same expected version, of the same events in
    /// the same order; any other is refused ([`ErrorKind::KeyReused`](crate::ErrorKind::KeyReused)).
    ///
    /// A refused append leaves its key free. A key is known, also after a crash, while there are at most
    /// [`IDEMPOTENCY_POSITIONS_MAX`](crate::limits::IDEMPOTENCY_POSITIONS_MAX) records from the
    /// beginning of its append to the end of the tenant's log and it is one of the
    /// [`IDEMPOTENCY_KEYS_MAX`](crate::limits::IDEMPOTENCY_KEYS_MAX) newest; then its retry is
    /// appended anew.
    pub const fn idempotency_key(mut self, key: IdempotencyKey) -> Self {
        self.key = Some(key);
        self
    }
}

impl Default for AppendOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl From<ExpectedVersion> for AppendOptions {
    fn from(expected: ExpectedVersion) -> Self {
        Self::new().expected(expected)
    }
}

/// What a caller wants to append.
#[derive(Clone, Copy)]
struct Request<'a> {
    name: &'a StreamName,
    expected: ExpectedVersion,
    events: &'a [Event],
    idempotency: Option<Idempotency>,
    /// A bound of what it takes in the log.
    bytes: u64,
}

impl<'a> Request<'a> {
    fn events_of(&self, stream: StreamId) -> StreamEvents<'a> {
        StreamEvents {
            stream,
            events: self.events,
            idempotency: self.idempotency,
        }
    }
}

/// What is waited for before an append is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// That it is durable.
    Durable,
    /// Nothing, and it is driven.
    Early,
    /// Nothing, and it is left to a flush.
    Written,
}

/// An append that was decided and, unless it was refused, written.
#[derive(Debug)]
struct Decided {
    outcome: Result<Effect, Rejection>,
    /// Everything that the decision rests on stands before it.
    head: Position,
}

impl Decided {
    fn answer(self, stage: &SyncStage) -> Result<Receipt, Error> {
        let is_durable = stage.durable() >= self.head;
        Ok(Receipt::new(&self.outcome?, is_durable))
    }
}

/// Events that were sealed before the commit lock is taken.
struct Ready {
    stream: StreamId,
    sealed: SealedEvents,
}

impl TenantInner {
    /// Appends events to a stream, all of them or none.
    pub(crate) fn append(
        self: &Arc<Self>,
        name: &StreamName,
        options: AppendOptions,
        events: &[Event],
    ) -> Result<Receipt, Error> {
        let bytes = check(name, events)?;
        self.check_writable()?;
        let place = match self.queue.try_enter(bytes) {
            Some(place) => place,
            None if options.when_full == WhenFull::Wait => self.queue.enter(bytes),
            None => return Err(self.overloaded()),
        };
        let request = self.request(name, options, events, bytes);
        let decided = self.decide(&request)?;
        let stage = self.stage()?;
        match self.answer_of(options.ack) {
            Answer::Durable => stage.wait(decided.head)?,
            Answer::Early => stage.drive_to(decided.head, Some(place), &self.database.driver),
            Answer::Written => {}
        }
        self.show()?;
        let receipt = decided.answer(stage)?;
        self.notice();
        Ok(receipt)
    }

    /// Appends as far as can be done without waiting for a sync or for a place.
    pub(crate) fn append_async(
        self: &Arc<Self>,
        name: &StreamName,
        options: AppendOptions,
        events: &[Event],
    ) -> AppendFuture {
        let entered = check(name, events).and_then(|bytes| {
            self.check_writable()?;
            Ok((bytes, self.queue.try_enter(bytes)))
        });
        match entered {
            Err(error) => AppendFuture::answered(Err(error)),
            Ok((_, Some(place))) => self.begin(name, options, events, place),
            Ok((bytes, None)) if options.when_full == WhenFull::Wait => {
                AppendFuture::in_line(self, (name, options, events), bytes)
            }
            Ok(_) => AppendFuture::answered(Err(self.overloaded())),
        }
    }

    /// Writes an append that has its place, and has it driven.
    fn begin(
        self: &Arc<Self>,
        name: &StreamName,
        options: AppendOptions,
        events: &[Event],
        place: Place,
    ) -> AppendFuture {
        let request = self.request(name, options, events, place.bytes());
        let begun = self.decide(&request).and_then(|decided| {
            self.notice();
            let stage = self.stage()?;
            let answer = self.answer_of(options.ack);
            if answer != Answer::Written {
                stage.drive_to(decided.head, Some(place), &self.database.driver);
            }
            // A segment that was full was synced for it.
            self.show()?;
            if answer == Answer::Durable {
                return Ok(AppendFuture::written(self, stage, decided));
            }
            Ok(AppendFuture::answered(decided.answer(stage)))
        });
        begun.unwrap_or_else(|error| AppendFuture::answered(Err(error)))
    }

    /// Puts together what is asked for. The hash of it is computed here, on the thread that calls.
    fn request<'a>(
        &self,
        name: &'a StreamName,
        options: AppendOptions,
        events: &'a [Event],
        bytes: u64,
    ) -> Request<'a> {
        let expected = options.expected;
        let of = |key: IdempotencyKey| {
            key.of_request(&self.sealer.request_key, (name, expected, events))
        };
        Request {
            name,
            expected,
            events,
            idempotency: options.key.map(of),
            bytes,
        }
    }

    fn answer_of(&self, ack: Option<Ack>) -> Answer {
        let is_durable = self.database.options.sync_policy.is_durable();
        match (ack, is_durable) {
            (None, true) | (Some(Ack::Durable), _) => Answer::Durable,
            (Some(Ack::Buffered), true) => Answer::Early,
            (None | Some(Ack::Buffered), false) => Answer::Written,
        }
    }

    fn overloaded(&self) -> Error {
        let limit = self.queue.limit();
        Problem::Overloaded {
            appends_max: limit.appends(),
            bytes_max: limit.bytes(),
        }
        .into()
    }

    /// Has the log looked at once it has fallen quiet.
    pub(crate) fn notice(self: &Arc<Self>) {
        if let Some(quiet) = &self.database.quiet {
            quiet.notice(self);
        }
    }

    /// Has the kernel decide about an append, and writes what it accepts.
    fn decide(&self, request: &Request<'_>) -> Result<Decided, Error> {
        let ready = self.seal(request);
        let decided = self.commit_sealed(request, ready);
        self.show_also_after(decided)
    }

    /// Seals events on the caller's thread, where stream and session are known.
    fn seal(&self, request: &Request<'_>) -> Option<Ready> {
        let session = self.session();
        if session.is_none() && self.sealer.needs_session() {
            return None;
        }
        let stream = self.stream_id(request.name)?;
        let frame_records = self.frame_records();
        let session = session.as_deref();
        let of = request.events_of(stream);
        let sealed = self.sealer.seal_events(session, of, frame_records)?;
        Some(Ready { stream, sealed })
    }

    fn commit_sealed(&self, request: &Request<'_>, ready: Option<Ready>) -> Result<Decided, Error> {
        let mut locked = self.writing()?;
        let engine = locked.engine()?;
        if let Some(decided) = decided_before(engine, request)? {
            return Ok(decided);
        }
        engine.log.reserve(request.bytes)?;
        let mut group = Group::default();
        let decided = match ready {
            Some(Ready { stream, sealed }) => {
                match engine.append(&mut group, stream, request.expected, sealed) {
                    Err(Rejection::SessionEnded { .. } | Rejection::NoSession) => {
                        self.append_under_lock(engine, &mut group, request)
                    }
                    decided => Ok(decided),
                }
            }
            None => self.append_under_lock(engine, &mut group, request),
        };
        // What the kernel applied before it rejected the rest is written all the same.
        self.commit(engine, group)?;
        let head = engine.log.next_position();
        drop(locked);
        Ok(Decided {
            outcome: decided?,
            head,
        })
    }

    fn frame_records(&self) -> usize {
        match self.database.options.sync_policy {
            SyncPolicy::EveryRecord => 1,
            SyncPolicy::EveryBatch | SyncPolicy::GroupCommit { .. } | SyncPolicy::OnFlush => {
                limits::FRAME_RECORDS_MAX
            }
        }
    }

    /// Appends where a session must be opened or a stream made first: their ids are their
    /// positions, so the events are sealed once those are fixed.
    fn append_under_lock(
        &self,
        engine: &mut Engine,
        group: &mut Group,
        request: &Request<'_>,
    ) -> Result<Result<Effect, Rejection>, Error> {
        let Request { name, expected, .. } = *request;
        let hash = self.sealer.name_hash(name);
        let known = engine.state.stream_by_name(&hash);
        if known.is_none() && !expected.allows(None) {
            return Ok(Err(Rejection::WrongVersion {
                expected,
                actual: None,
            }));
        }
        self.decide_sealed(engine, group, |engine, group, session| {
            let stream = match engine.state.stream_by_name(&hash) {
                Some(stream) => stream,
                None => match self.create_stream(engine, group, session, name)? {
                    Ok(stream) => stream,
                    Err(rejection) => return Some(Err(rejection)),
                },
            };
            let records = self.frame_records();
            let of = request.events_of(stream);
            let sealed = self.sealer.seal_events(session, of, records)?;
            Some(engine.append(group, stream, expected, sealed))
        })
    }
}

/// Returns what was decided when the idempotency key of an append is known. Nothing is written then, so
/// that neither a session nor a stream is made for a retry, and a full disk does not refuse it.
fn decided_before(engine: &Engine, request: &Request<'_>) -> Result<Option<Decided>, Error> {
    let Some(idempotency) = &request.idempotency else {
        return Ok(None);
    };
    let outcome = match engine.state.first_answer(idempotency) {
        Ok(None) => return Ok(None),
        Ok(Some(slot)) => Ok(Effect::Duplicate(slot)),
        Err(rejection) => Err(rejection),
    };
    // The kernel knows the key of an append whose write failed, too.
    if engine.log.is_poisoned() {
        return Err(StorageError::Poisoned.into());
    }
    let head = engine.log.next_position();
    Ok(Some(Decided { outcome, head }))
}

/// Checks what can be checked without the log. Returns a bound of the bytes that the append takes.
fn check(name: &StreamName, events: &[Event]) -> Result<u64, Error> {
    let count_max = limits::APPEND_EVENTS_MAX;
    if events.is_empty() || events.len() > count_max {
        return Err(Problem::EventCount {
            count: events.len(),
            count_max,
        }
        .into());
    }
    events.iter().try_for_each(Event::check)?;
    let bytes = group_bytes(events, name);
    let bytes_max = limits::GROUP_BYTES_MAX as u64;
    if bytes > bytes_max {
        return Err(StorageError::GroupTooLarge { bytes, bytes_max }.into());
    }
    Ok(bytes)
}

/// Returns a bound of the bytes that an append takes with everything that may precede it.
fn group_bytes(events: &[Event], name: &StreamName) -> u64 {
    const RECORD_OVERHEAD_BYTES: usize = 256;
    let payload = |event: &Event| event.envelope().encoded_len() + RECORD_OVERHEAD_BYTES;
    let bytes = events.iter().map(payload).sum::<usize>() + name.as_str().len();
    u64::try_from(bytes + 4 * RECORD_OVERHEAD_BYTES).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use kimberlite_testkit::SimulatedDisk;

    use super::*;
    use crate::Database;

    #[test]
    fn events_that_were_sealed_for_a_session_that_has_ended_are_sealed_again() {
        let disk = SimulatedDisk::new(1);
        let builder = || {
            let builder = Database::builder("/db").disk(Arc::new(disk.clone()));
            builder.background(false)
        };
        let db = builder().open().unwrap();
        let tenant = db.tenant("t").unwrap();
        let stream = tenant.stream("s").unwrap();
        let append = |text: &str| {
            let events = [Event::new("noted", text.to_owned())];
            stream.append(ExpectedVersion::Any, &events).unwrap()
        };
        append("first");
        let inner = tenant.inner();
        let ended = inner.session().unwrap();
        let name = StreamName::new("s").unwrap();
        let events = [Event::new("noted", "sealed twice")];
        let request = Request {
            name: &name,
            expected: ExpectedVersion::Any,
            events: &events,
            idempotency: None,
            bytes: check(&name, &events).unwrap(),
        };
        let ready = inner.seal(&request);
        assert!(ready.is_some());
        // Between sealing and ordering another thread opens the next session.
        let opened = inner.with_engine(|engine| {
            let mut group = Group::default();
            inner.open_session(engine, &mut group)??;
            inner.commit(engine, group)
        });
        opened.unwrap();
        let decided = inner.commit_sealed(&request, ready).unwrap();
        decided.outcome.unwrap();
        assert_ne!(inner.session().unwrap().id, ended.id);
        append("last");
        drop((tenant, stream, db));
        let db = builder().open().unwrap();
        let tenant = db.tenant("t").unwrap();
        let data = |record: Result<crate::Record, Error>| record.unwrap().data().clone();
        let found = tenant.read_all(..).map(data).collect::<Vec<_>>();
        assert_eq!(found, ["first", "sealed twice", "last"]);
        assert!(tenant.verify().unwrap().is_sound());
    }
}
