//! One tenant: an isolated log with its own keys, signer and streams.

use std::collections::VecDeque;
use std::fmt;
use std::ops::RangeBounds;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use kimberlite_crypto::{Envelope, Place, SessionCipher, SessionParams};
use kimberlite_kernel::{Command, ExpectedVersion, Rejection, ReplayedFrame, Slot};
use kimberlite_storage::{LogReader, OpenReport, StorageError, StoredRecord};
use kimberlite_types::{
    NameHash, Position, RecordKind, SessionId, StreamId, StreamName, TenantName, Timestamp, limits,
};

use crate::cache::Caches;
use crate::catalog::Catalog;
use crate::checkpoint::Checkpoints;
use crate::database::DatabaseShared;
use crate::engine::seal::{ActiveSession, SALT_BYTES, Sealer};
use crate::engine::{CommitLock, Engine, Group, Locked};
use crate::environment::random;
use crate::error::{Error, Problem};
use crate::event::Event;
use crate::incarnation::Incarnation;
use crate::keys::TenantKeys;
use crate::options::SyncPolicy;
use crate::payload::split_stream_created;
use crate::read::{Record, RecordIter};
use crate::stream::{Receipt, Stream};

/// A tenant of a database. Clones are handles of the same tenant and may be used on any thread.
#[derive(Clone)]
pub struct Tenant {
    inner: Arc<TenantInner>,
}

pub(crate) struct TenantInner {
    pub(crate) name: TenantName,
    pub(crate) reader: LogReader,
    pub(crate) report: OpenReport,
    pub(crate) catalog: RwLock<Catalog>,
    /// What has been written and not been shown to readers yet, in order.
    pub(crate) unseen: Mutex<VecDeque<ReplayedFrame>>,
    pub(crate) sealer: Sealer,
    pub(crate) keys: TenantKeys,
    pub(crate) checkpoints: Checkpoints,
    /// None for the first one.
    pub(crate) incarnation: Option<Incarnation>,
    /// How many records checkpoints vouched for when it was opened.
    pub(crate) witnessed: Position,
    /// When it was opened.
    pub(crate) opened: Timestamp,
    pub(crate) caches: Mutex<Caches>,
    /// None in a read-only database.
    pub(crate) engine: Option<CommitLock>,
    /// Whether somebody waits for the log to fall quiet.
    pub(crate) watched: AtomicBool,
    pub(crate) database: Arc<DatabaseShared>,
}

/// What a caller wants to append.
#[derive(Clone, Copy)]
struct Request<'a> {
    name: &'a StreamName,
    expected: ExpectedVersion,
    events: &'a [Event],
}

/// A stream of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamSummary {
    /// Its name.
    pub name: StreamName,
    /// Its id.
    pub id: StreamId,
    /// How many events it has.
    pub events: u64,
}

impl Tenant {
    pub(crate) fn new(inner: TenantInner) -> Self {
        Self {
            inner: Arc::new(inner),
        }
    }

    pub(crate) fn inner(&self) -> &Arc<TenantInner> {
        &self.inner
    }

    /// Returns the name.
    pub fn name(&self) -> &TenantName {
        &self.inner.name
    }

    /// Returns a handle of the stream called `name`, which comes into being with its first event.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) when the name is not allowed.
    pub fn stream(&self, name: &str) -> Result<Stream, Error> {
        Ok(Stream::new(Arc::clone(&self.inner), StreamName::new(name)?))
    }

    /// Lists the streams in the order in which they came into being; those of a damaged log, opened
    /// for reading only, as far as it can be read (see [`Tenant::open_report`]).
    ///
    /// # Errors
    ///
    /// As [`Tenant::stream_name`].
    pub fn streams(&self) -> Result<Vec<StreamSummary>, Error> {
        let streams = self.inner.catalog().index.streams().collect::<Vec<_>>();
        let summary = |(id, events)| {
            Ok(StreamSummary {
                name: self.stream_name(id)?,
                id,
                events,
            })
        };
        streams.into_iter().map(summary).collect()
    }

    /// Returns the name of a stream.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) and
    /// [`ErrorKind::WrongKey`](crate::ErrorKind::WrongKey) when its record does not open.
    pub fn stream_name(&self, id: StreamId) -> Result<StreamName, Error> {
        self.inner.stream_name(id)
    }

    /// Reads the event at `position`; `None` when no event stands there: the log may end before,
    /// or hold an administrative record there.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when its bytes are not what was written.
    pub fn read_position(&self, position: Position) -> Result<Option<Record>, Error> {
        match self.inner.reader.record(position)? {
            Some(stored) if stored.frame().kind == Some(RecordKind::Event) => {
                self.inner.open_record(&stored).map(Some)
            }
            Some(_) => Ok(None),
            None => self.inner.unreadable_end().map_or(Ok(None), Err),
        }
    }

    /// Reads all events at `positions`, in either direction.
    pub fn read_all(&self, positions: impl RangeBounds<u64>) -> RecordIter {
        let end = self.inner.reader.end().get();
        RecordIter::positions(Arc::clone(&self.inner), &positions, end)
    }

    /// Returns the position before which everything is durable: the number of durable records.
    pub fn durable_position(&self) -> Position {
        self.inner.reader.durable()
    }

    /// Returns what was found when the tenant was opened.
    pub fn open_report(&self) -> &OpenReport {
        &self.inner.report
    }

    /// Syncs everything that was appended.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown) when the sync fails.
    pub fn flush(&self) -> Result<(), Error> {
        self.inner.with_engine(|engine| Ok(engine.log.sync()?))?;
        self.inner.show()
    }

    /// Notes in the log that everything in it is durable, so that later damage to its last append
    /// is known for what it is. A database with background threads does this by itself, shortly
    /// after the last append.
    ///
    /// # Errors
    ///
    /// As [`Tenant::flush`].
    pub fn settle(&self) -> Result<(), Error> {
        self.inner
            .with_engine(|engine| Ok(engine.log.write_watermark()?))?;
        self.inner.show()
    }

    /// Whether another process has written more than this read-only handle knows.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) when a file cannot be read.
    pub fn has_grown(&self) -> Result<bool, Error> {
        Ok(self
            .inner
            .reader
            .has_grown(self.inner.database.options.disk.as_ref())?)
    }

    /// Makes a checkpoint, notes that the log is whole, and ends appending.
    pub(crate) fn close(&self) -> Result<(), Error> {
        if self.inner.engine.is_none() {
            return Ok(());
        }
        let Some(mut engine) = self.inner.writing()?.close()? else {
            return Ok(());
        };
        let checkpoint = self.inner.last_checkpoint(&mut engine).map(drop);
        let watermark = engine.log.write_watermark().map_err(Error::from);
        checkpoint.and(watermark)
    }

    /// How many handles there are.
    pub(crate) fn handles(&self) -> usize {
        Arc::strong_count(&self.inner)
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenant")
            .field("name", &self.inner.name)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for TenantInner {
    // Neither keys nor what is cached of the log is anybody's to print.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantInner")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl TenantInner {
    pub(crate) fn catalog(&self) -> std::sync::RwLockReadGuard<'_, Catalog> {
        self.catalog.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn caches(&self) -> MutexGuard<'_, Caches> {
        self.caches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn with_engine<T>(
        &self,
        act: impl FnOnce(&mut Engine) -> Result<T, Error>,
    ) -> Result<T, Error> {
        act(self.writing()?.engine()?)
    }

    /// Takes the commit lock.
    pub(crate) fn writing(&self) -> Result<Locked<'_>, Error> {
        let engine = self.engine.as_ref().ok_or(Problem::ReadOnly)?;
        // A forked process has a copy of the counters and of the end of the log: what it sealed and
        // wrote would meet what its parent does.
        let owner = self.database.process_id;
        if (self.database.options.process_id)() != owner {
            return Err(Problem::Forked { owner }.into());
        }
        Ok(engine.lock())
    }

    /// Returns why a reader does not see the end of the log, where that is so.
    pub(crate) fn unreadable_end(&self) -> Option<Error> {
        let report = &self.report;
        let damage = report.damage.first().cloned().map(StorageError::Corrupt);
        let rolled_back = report
            .rolled_back
            .map(|witnessed| StorageError::RolledBack {
                end: self.reader.end(),
                witnessed,
            });
        damage.or(rolled_back).map(Error::from)
    }

    /// Returns the id of a stream that readers can see.
    pub(crate) fn stream_id(&self, name: &StreamName) -> Option<StreamId> {
        if let Some(id) = self.caches().stream_ids.get(name) {
            return Some(*id);
        }
        let id = self.catalog().stream(&self.sealer.name_hash(name))?;
        self.caches().stream_ids.put(name.clone(), id);
        Some(id)
    }

    /// Appends events to a stream, all of them or none.
    pub(crate) fn append(
        &self,
        name: &StreamName,
        expected: ExpectedVersion,
        events: &[Event],
    ) -> Result<Receipt, Error> {
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
        let frame_records = self.frame_records();
        // Where stream and session are known the events are sealed before the lock is taken.
        let stream = self.stream_id(name);
        let session = self.caches().session.clone();
        let ready = stream.filter(|_| session.is_some() || !self.sealer.needs_session());
        let sealed = ready.and_then(|stream| {
            self.sealer
                .seal_events(session.as_deref(), stream, events, frame_records)
        });
        let mut locked = self.writing()?;
        let engine = locked.engine()?;
        let stage = engine.log.stage();
        engine.log.reserve(bytes)?;
        let mut group = Group::default();
        let request = Request {
            name,
            expected,
            events,
        };
        let decided = match (stream, sealed) {
            (Some(stream), Some(sealed)) => {
                match engine.append(&mut group, stream, expected, sealed) {
                    Err(Rejection::SessionEnded { .. } | Rejection::NoSession) => {
                        self.append_under_lock(engine, &mut group, &request)
                    }
                    decided => Ok(decided),
                }
            }
            _ => self.append_under_lock(engine, &mut group, &request),
        };
        // What the kernel applied before it rejected the rest is written all the same.
        self.commit(engine, group)?;
        let decided_on = engine.log.next_position();
        drop(locked);
        if self.database.options.sync_policy.is_durable() {
            stage.wait(decided_on)?;
        }
        self.show()?;
        Ok(Receipt::new(&decided??))
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
    ) -> Result<Result<Slot, Rejection>, Error> {
        let Request {
            name,
            expected,
            events,
        } = *request;
        let hash = self.sealer.name_hash(name);
        let known = engine.state.stream_by_name(&hash);
        if known.is_none() && !expected.allows(None) {
            return Ok(Err(Rejection::WrongVersion {
                expected,
                actual: None,
            }));
        }
        let mut session = engine.session.clone();
        for attempt in 0..2 {
            if (session.is_none() && self.sealer.needs_session()) || attempt > 0 {
                match self.open_session(engine, group)? {
                    Ok(opened) => session = Some(opened),
                    Err(rejection) => return Ok(Err(rejection)),
                }
            }
            let stream = match engine.state.stream_by_name(&hash) {
                Some(stream) => stream,
                None => match self.create_stream(engine, group, session.as_deref(), name) {
                    None => continue,
                    Some(Ok(stream)) => stream,
                    Some(Err(rejection)) => return Ok(Err(rejection)),
                },
            };
            let records = self.frame_records();
            if let Some(sealed) =
                self.sealer
                    .seal_events(session.as_deref(), stream, events, records)
            {
                return Ok(engine.append(group, stream, expected, sealed));
            }
        }
        Ok(Err(Rejection::NoSession))
    }

    fn create_stream(
        &self,
        engine: &mut Engine,
        group: &mut Group,
        session: Option<&ActiveSession>,
        name: &StreamName,
    ) -> Option<Result<StreamId, Rejection>> {
        let (hash, frame, seal): (NameHash, _, _) = self.sealer.seal_stream(session, name)?;
        Some(engine.create_stream(group, hash, frame, seal))
    }

    /// Opens a key session with a fresh salt.
    fn open_session(
        &self,
        engine: &mut Engine,
        group: &mut Group,
    ) -> Result<Result<Arc<ActiveSession>, Rejection>, Error> {
        let (key_id, version, data_key) = self.keys.newest();
        let salt = random(self.database.options.entropy.as_ref())?;
        let log_id = self.sealer.log_id;
        let (cipher, params) = SessionCipher::open_new(data_key, &log_id, *key_id, *version, salt);
        let command = Command::OpenSession { time: engine.now() };
        let kind = RecordKind::KeySession;
        let slot = match engine.record(group, kind, command, &params.encode()) {
            Ok(slot) => slot,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let session = Arc::new(ActiveSession::new(SessionId::new(slot.position), cipher));
        engine.session = Some(Arc::clone(&session));
        Ok(Ok(session))
    }

    /// Writes a group, which [`show`](Self::show) shows to readers once it is durable.
    pub(crate) fn commit(&self, engine: &mut Engine, group: Group) -> Result<(), Error> {
        let written = engine.write(group)?;
        self.unseen().extend(written);
        // Only now may others seal with the session: its record is in the log.
        self.caches().session.clone_from(&engine.session);
        Ok(())
    }

    /// Shows to readers, in order, what has become visible in the log.
    pub(crate) fn show(&self) -> Result<(), Error> {
        let mut unseen = self.unseen();
        let end = self.reader.end();
        let visible = unseen.partition_point(|frame| frame.slot.end() <= end);
        if visible == 0 {
            return Ok(());
        }
        let mut catalog = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
        let visible = unseen.drain(..visible).collect::<Vec<_>>();
        visible.iter().try_for_each(|frame| catalog.apply(frame))
    }

    fn unseen(&self) -> MutexGuard<'_, VecDeque<ReplayedFrame>> {
        self.unseen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stream_name(&self, id: StreamId) -> Result<StreamName, Error> {
        if let Some(name) = self.caches().stream_names.get(&id) {
            return Ok(name.clone());
        }
        let position = id.position();
        let unreadable = || Problem::AdministrativeRecord {
            kind: "stream-created",
            position,
        };
        let stored = self.reader.record(position)?.ok_or_else(unreadable)?;
        let (_, sealed) = split_stream_created(stored.payload()).ok_or_else(unreadable)?;
        let sealed = stored.payload().slice_ref(sealed);
        let envelope = self.open_payload(&stored, &sealed)?;
        let name = std::str::from_utf8(&envelope.data).map_err(|_| unreadable())?;
        let name = StreamName::new(name).map_err(|_| unreadable())?;
        self.caches().stream_names.put(id, name.clone());
        Ok(name)
    }

    /// Opens a stored event.
    pub(crate) fn open_record(&self, stored: &StoredRecord) -> Result<Record, Error> {
        let envelope = self.open_payload(stored, stored.payload())?;
        Ok(Record::new(stored, envelope))
    }

    fn open_payload(
        &self,
        stored: &StoredRecord,
        payload: &bytes::Bytes,
    ) -> Result<Envelope, Error> {
        let (frame, position) = (stored.frame(), stored.position());
        let plaintext = if frame.flags.is_encrypted() {
            let unreadable = || Problem::AdministrativeRecord {
                kind: "event",
                position,
            };
            let session = frame.session.ok_or_else(unreadable)?;
            let cipher = self.cipher(session)?;
            let nth = u32::try_from(stored.index()).expect("a frame has at most 1024 records");
            let place = Place {
                log_id: self.sealer.log_id,
                stream: frame.stream,
                session,
                counter: frame.first_counter.wrapping_add(nth),
            };
            let opened = cipher.open(&place, frame.flags, payload);
            opened
                .map_err(|source| Problem::Payload { position, source })?
                .into()
        } else {
            let unreadable = || Problem::AdministrativeRecord {
                kind: "event",
                position,
            };
            payload.get(SALT_BYTES..).ok_or_else(unreadable)?;
            payload.slice(SALT_BYTES..)
        };
        let envelope = Envelope::decode(plaintext);
        Ok(envelope.map_err(|source| Problem::Envelope { position, source })?)
    }

    /// Returns the cipher of a key session, which is built once and kept.
    fn cipher(&self, session: SessionId) -> Result<Arc<SessionCipher>, Error> {
        if let Some(cipher) = self.caches().ciphers.get(&session) {
            return Ok(Arc::clone(cipher));
        }
        let position = session.position();
        let unreadable = || Problem::AdministrativeRecord {
            kind: "key-session",
            position,
        };
        let stored = self.reader.record(position)?.ok_or_else(unreadable)?;
        if stored.frame().kind != Some(RecordKind::KeySession) {
            return Err(unreadable().into());
        }
        let wrong = |source| Problem::Session {
            session: position,
            source,
        };
        let params = SessionParams::decode(stored.payload()).map_err(wrong)?;
        let data_key = self.keys.find(&params.key_id, params.key_version);
        let data_key = data_key.ok_or(Problem::KeyUnknown { session: position })?;
        let cipher = SessionCipher::from_params(data_key, &self.sealer.log_id, &params);
        let cipher = Arc::new(cipher.map_err(wrong)?);
        self.caches().ciphers.put(session, Arc::clone(&cipher));
        Ok(cipher)
    }
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
    use std::sync::atomic::{AtomicU32, Ordering};

    use kimberlite_testkit::SimulatedDisk;

    use super::*;
    use crate::{Database, ErrorKind};

    #[test]
    fn a_forked_process_writes_nothing() {
        static PROCESS: AtomicU32 = AtomicU32::new(7);
        let disk = SimulatedDisk::new(1);
        let db = Database::builder("/db")
            .disk(Arc::new(disk.clone()))
            .background(false)
            .process_id(|| PROCESS.load(Ordering::Relaxed))
            .open()
            .unwrap();
        let tenant = db.tenant("t").unwrap();
        let stream = tenant.stream("s").unwrap();
        let append = || stream.append(ExpectedVersion::Any, &[Event::new("t", "d")]);
        append().unwrap();
        PROCESS.store(8, Ordering::Relaxed);
        let ops = disk.ops();
        assert_eq!(append().unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(tenant.settle().unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(tenant.checkpoint().unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(tenant.close().unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(disk.ops(), ops);
        assert_eq!(stream.read(..).count(), 1);
        PROCESS.store(7, Ordering::Relaxed);
        append().unwrap();
    }
}
