//! One tenant: an isolated log with its own keys, signer and streams.

use std::fmt;
use std::ops::RangeBounds;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLockReadGuard};

use bytes::{Buf as _, Bytes};
use kimberlite_crypto::{Envelope, Place, SessionCipher, SessionParams};
use kimberlite_kernel::{Command, Rejection};
use kimberlite_projection::Followers;
use kimberlite_storage::{AppendQueue, Content, LogReader, OpenReport, StorageError, SyncStage};
use kimberlite_types::{
    NameHash, Position, RecordKind, SessionId, StreamId, StreamName, TenantName, Timestamp,
};
use zeroize::Zeroizing;

use crate::append::DurableFuture;
use crate::cache::Caches;
use crate::catalog::Catalog;
use crate::checkpoint::Checkpoints;
use crate::database::DatabaseShared;
use crate::engine::seal::{ActiveSession, SALT_BYTES, Sealer};
use crate::engine::{CommitLock, Engine, Group, Locked};
use crate::environment::random;
use crate::error::{Error, Problem};
use crate::incarnation::Incarnation;
use crate::keys::TenantKeys;
use crate::opened::Holder;
use crate::payload::split_stream_created;
use crate::read::{Record, RecordIter, RecordPlace};
use crate::shown::Shown;
use crate::snapshot::SnapshotMaker;
use crate::stream::Stream;

/// A tenant of a database. Clones are handles of the same tenant and may be used on any thread.
#[derive(Clone)]
pub struct Tenant {
    inner: Arc<TenantInner>,
}

pub(crate) struct TenantInner {
    pub(crate) name: TenantName,
    pub(crate) reader: LogReader,
    pub(crate) report: OpenReport,
    pub(crate) shown: Arc<Shown>,
    pub(crate) sealer: Sealer,
    pub(crate) keys: TenantKeys,
    pub(crate) checkpoints: Checkpoints,
    /// None for the first one.
    pub(crate) incarnation: Option<Incarnation>,
    /// None in a read-only database.
    pub(crate) snapshots: Option<Arc<SnapshotMaker>>,
    /// How many records checkpoints vouched for when it was opened.
    pub(crate) witnessed: Position,
    /// When it was opened.
    pub(crate) opened: Timestamp,
    /// Held by who purges or puts a hold.
    pub(crate) purging: Mutex<()>,
    /// Purges that have run: what was read before one is not kept after it.
    pub(crate) purges: AtomicU64,
    pub(crate) caches: Mutex<Caches>,
    /// The appends that are under way.
    pub(crate) queue: Arc<AppendQueue>,
    /// None in a read-only database, as the engine.
    pub(crate) stage: Option<Arc<SyncStage>>,
    pub(crate) engine: Option<CommitLock>,
    /// Held by who begins a projection.
    pub(crate) projecting: Mutex<()>,
    /// The projections that follow the log.
    pub(crate) followers: Arc<Followers>,
    /// Whether somebody waits for the log to fall quiet.
    pub(crate) watched: AtomicBool,
    /// Who it is to the cache of opened events.
    pub(crate) holder: Holder,
    pub(crate) database: Arc<DatabaseShared>,
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
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when its bytes are not what was written,
    /// [`ErrorKind::Purged`](crate::ErrorKind::Purged) when its payload is gone.
    pub fn read_position(&self, position: Position) -> Result<Option<Record>, Error> {
        if let Some(record) = self.inner.kept(position) {
            return Ok(Some(record));
        }
        let purges = self.inner.purges.load(Ordering::Acquire);
        match self.inner.reader.record(position)? {
            Some(stored) if stored.frame().kind == Some(RecordKind::Event) => {
                let frame = *stored.frame();
                let place = RecordPlace::new(&frame, position);
                let content = stored.into_content();
                self.inner.open_and_keep(&place, content, purges).map(Some)
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
        let end = self
            .inner
            .with_engine(|engine| Ok(engine.log.next_position()))?;
        self.inner.stage()?.hasten(end)?;
        self.inner.show()
    }

    /// Waits until the record at `position` is durable, and leads a sync where nobody else does; under
    /// [`SyncPolicy::GroupCommit`](crate::SyncPolicy::GroupCommit) that may begin `max_delay` later,
    /// which [`Tenant::flush`] does not wait for.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): nothing was written there yet.
    /// * [`ErrorKind::OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown): a write or sync failed;
    ///   reopen the database to see whether the record is there.
    pub fn wait_durable(&self, position: Position) -> Result<(), Error> {
        if let Some((stage, end)) = self.to_sync(position)? {
            stage.wait(end)?;
        }
        self.inner.show()
    }

    /// Waits as [`Tenant::wait_durable`] does, with the same errors, and blocks no thread.
    pub fn wait_durable_async(&self, position: Position) -> DurableFuture {
        match self.to_sync(position) {
            Err(error) => DurableFuture::answered(Err(error)),
            Ok(None) => DurableFuture::answered(self.inner.show()),
            Ok(Some((stage, end))) => {
                stage.drive_to(end, None, &self.inner.database.driver);
                DurableFuture::new(&self.inner, stage.wait_async(end))
            }
        }
    }

    /// Returns what makes the record at `position` durable, where it is not, and the position after.
    fn to_sync(&self, position: Position) -> Result<Option<(&Arc<SyncStage>, Position)>, Error> {
        if position < self.inner.reader.durable() {
            return Ok(None);
        }
        self.inner.check_writable()?;
        let stage = self.inner.stage()?;
        let end = stage.end();
        if position >= end {
            return Err(Problem::NotWritten { position, end }.into());
        }
        Ok(Some((stage, Position::new(position.get() + 1))))
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
        // Its segments are sealed once the writer is gone.
        drop(engine);
        self.inner.shown.growth().end();
        self.inner.followers.flush();
        self.inner.keep_last_snapshot();
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
    pub(crate) fn catalog(&self) -> RwLockReadGuard<'_, Catalog> {
        self.shown.catalog()
    }

    /// Returns the session that appends seal with, once its record is in the log.
    pub(crate) fn session(&self) -> Option<Arc<ActiveSession>> {
        self.caches().session.clone()
    }

    /// Returns the stage that makes written records durable; none in a read-only database.
    pub(crate) fn stage(&self) -> Result<&Arc<SyncStage>, Error> {
        Ok(self.stage.as_ref().ok_or(Problem::ReadOnly)?)
    }

    pub(crate) fn caches(&self) -> MutexGuard<'_, Caches> {
        self.caches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn with_engine<T>(
        &self,
        act: impl FnOnce(&mut Engine) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let done = act(self.writing()?.engine()?);
        self.show_also_after(done)
    }

    /// Shows, where something failed, what stands before it: that may have been synced for it, and
    /// nobody else would show it.
    pub(crate) fn show_also_after<T>(&self, done: Result<T, Error>) -> Result<T, Error> {
        if done.is_err() {
            let _ = self.show();
        }
        done
    }

    /// Takes the commit lock.
    pub(crate) fn writing(&self) -> Result<Locked<'_>, Error> {
        let locked = self.check_writable()?.lock();
        // Who waited for the lock may have been overtaken by what stops the writer.
        self.check_state()?;
        Ok(locked)
    }

    /// Checks, without a lock, that this process may write.
    pub(crate) fn check_writable(&self) -> Result<&CommitLock, Error> {
        let engine = self.engine.as_ref().ok_or(Problem::ReadOnly)?;
        self.check_owner()?;
        self.check_state()?;
        Ok(engine)
    }

    /// Checks that the writer's state was not found to differ from what the log says.
    fn check_state(&self) -> Result<(), Error> {
        match self.snapshots.as_ref().and_then(|it| it.differs()) {
            Some(position) => Err(Problem::StateDiffers { position }.into()),
            None => Ok(()),
        }
    }

    /// Checks that this process was not forked from the one that opened the database. It has a copy
    /// of the counters and of the end of the log: what it sealed and wrote would meet what its
    /// parent does.
    pub(crate) fn check_owner(&self) -> Result<(), Error> {
        let owner = self.database.process_id;
        if (self.database.options.process_id)() != owner {
            return Err(Problem::Forked { owner }.into());
        }
        Ok(())
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
        if let Some(id) = self.caches().stream_ids.find(name) {
            return Some(*id);
        }
        let id = self.catalog().stream(&self.sealer.name_hash(name))?;
        self.caches().stream_ids.insert(name.clone(), id);
        Some(id)
    }

    pub(crate) fn create_stream(
        &self,
        engine: &mut Engine,
        group: &mut Group,
        session: Option<&ActiveSession>,
        name: &StreamName,
    ) -> Option<Result<StreamId, Rejection>> {
        let (hash, frame, seal): (NameHash, _, _) = self.sealer.seal_stream(session, name)?;
        Some(engine.create_stream(group, hash, frame, seal))
    }

    /// Has `decide` seal and decide with the session at hand, and once more with a new one where that has
    /// not counters enough left: it says `None` then.
    pub(crate) fn decide_sealed<T>(
        &self,
        engine: &mut Engine,
        group: &mut Group,
        mut decide: impl FnMut(
            &mut Engine,
            &mut Group,
            Option<&ActiveSession>,
        ) -> Option<Result<T, Rejection>>,
    ) -> Result<Result<T, Rejection>, Error> {
        let mut session = engine.session.clone();
        for attempt in 0..2 {
            if (session.is_none() && self.sealer.needs_session()) || attempt > 0 {
                match self.open_session(engine, group)? {
                    Ok(opened) => session = Some(opened),
                    Err(rejection) => return Ok(Err(rejection)),
                }
            }
            if let Some(decided) = decide(engine, group, session.as_deref()) {
                return Ok(decided);
            }
        }
        Ok(Err(Rejection::NoSession))
    }

    /// Opens a key session with a fresh salt.
    pub(crate) fn open_session(
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
        self.shown.add(written);
        // Only now may others seal with the session: its record is in the log.
        self.caches().session.clone_from(&engine.session);
        Ok(())
    }

    /// Shows to readers, in order, what has become visible in the log.
    pub(crate) fn show(&self) -> Result<(), Error> {
        self.shown.show()
    }

    pub(crate) fn stream_name(&self, id: StreamId) -> Result<StreamName, Error> {
        if let Some(name) = self.caches().stream_names.find(&id) {
            return Ok(name.clone());
        }
        let position = id.position();
        let unreadable = || unreadable("stream-created", position);
        let stored = self.reader.record(position)?.ok_or_else(unreadable)?;
        let (_, sealed) = split_stream_created(stored.payload()).ok_or_else(unreadable)?;
        let sealed = stored.payload().slice_ref(sealed);
        let envelope = self.open_payload(&RecordPlace::new(stored.frame(), position), sealed)?;
        let name = std::str::from_utf8(&envelope.data).map_err(|_| unreadable())?;
        let name = StreamName::new(name).map_err(|_| unreadable())?;
        self.caches().stream_names.insert(id, name.clone());
        Ok(name)
    }

    /// Opens a stored event.
    pub(crate) fn open_record(
        &self,
        place: &RecordPlace<'_>,
        content: Content,
    ) -> Result<Record, Error> {
        let envelope = self.open_payload(place, payload_of(place, content)?)?;
        Ok(Record::new(place, envelope))
    }

    /// Returns the event at `position`, if it is kept.
    pub(crate) fn kept(&self, position: Position) -> Option<Record> {
        self.database.opened.find(self.holder, position)
    }

    /// Opens a stored event, and keeps it where events are kept. It was found when so many `purges` had begun: behind
    /// another one it may have come too late.
    pub(crate) fn open_and_keep(
        &self,
        place: &RecordPlace<'_>,
        content: Content,
        purges: u64,
    ) -> Result<Record, Error> {
        let opened = &self.database.opened;
        if !(place.frame.flags.is_encrypted() && opened.is_on()) {
            return self.open_record(place, content);
        }
        let stored = payload_of(place, content)?;
        // Is wiped when nobody holds it any more.
        let plaintext = Zeroizing::new(self.decrypt(place, &stored)?);
        let envelope = decode(place, Bytes::from_owner(plaintext))?;
        let record = Record::new(place, envelope);
        let is_there = || self.purges.load(Ordering::Acquire) == purges;
        opened.insert(self.holder, &record, is_there);
        Ok(record)
    }

    pub(crate) fn open_payload(
        &self,
        place: &RecordPlace<'_>,
        stored: Bytes,
    ) -> Result<Envelope, Error> {
        if place.frame.flags.is_encrypted() {
            return decode(place, self.decrypt(place, &stored)?.into());
        }
        let mut payload = stored;
        if payload.len() < SALT_BYTES {
            return Err(unreadable("event", place.position).into());
        }
        payload.advance(SALT_BYTES);
        decode(place, payload)
    }

    fn decrypt(&self, place: &RecordPlace<'_>, stored: &[u8]) -> Result<Vec<u8>, Error> {
        let RecordPlace {
            frame,
            nth,
            position,
        } = *place;
        let session = frame.session.ok_or_else(|| unreadable("event", position))?;
        let cipher = self.cipher(session)?;
        let place = Place {
            log_id: self.sealer.log_id,
            stream: frame.stream,
            session,
            counter: frame.first_counter.wrapping_add(nth),
        };
        let opened = cipher.open(&place, frame.flags, stored);
        Ok(opened.map_err(|source| Problem::Payload { position, source })?)
    }

    /// Returns the cipher of a key session, which is built once and kept.
    fn cipher(&self, session: SessionId) -> Result<Arc<SessionCipher>, Error> {
        if let Some(cipher) = self.caches().ciphers.find(&session) {
            return Ok(Arc::clone(cipher));
        }
        let position = session.position();
        let unreadable = || unreadable("key-session", position);
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
        self.caches().ciphers.insert(session, Arc::clone(&cipher));
        Ok(cipher)
    }
}

impl Drop for TenantInner {
    fn drop(&mut self) {
        // Before the directory is let go.
        self.shown.runs().end();
        self.database.opened.forget(self.holder);
    }
}

fn unreadable(kind: &'static str, position: Position) -> Problem {
    Problem::AdministrativeRecord { kind, position }
}

/// What is stored of an event, unless it was purged.
fn payload_of(place: &RecordPlace<'_>, content: Content) -> Result<Bytes, Error> {
    match content {
        Content::Payload(stored) => Ok(stored),
        Content::Purged(_) => Err(Problem::Purged {
            position: place.position,
        }
        .into()),
    }
}

fn decode(place: &RecordPlace<'_>, plaintext: Bytes) -> Result<Envelope, Error> {
    let position = place.position;
    let envelope = Envelope::decode(plaintext);
    Ok(envelope.map_err(|source| Problem::Envelope { position, source })?)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use kimberlite_testkit::SimulatedDisk;

    use super::*;
    use crate::{Database, ErrorKind, Event, ExpectedVersion};

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
        let start = || stream.append_async(ExpectedVersion::Any, &[Event::new("t", "d")]);
        let made_before = start();
        tenant.flush().unwrap();
        PROCESS.store(8, Ordering::Relaxed);
        let ops = disk.ops();
        assert_eq!(append().unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(tenant.settle().unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(tenant.checkpoint().unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(tenant.close().unwrap_err().kind(), ErrorKind::Closed);
        // Nobody drives here what was under way there.
        for future in [made_before, start()] {
            let refused = pollster::block_on(future).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Closed);
        }
        assert_eq!(disk.ops(), ops);
        assert_eq!(stream.read(..).count(), 2);
        PROCESS.store(7, Ordering::Relaxed);
        append().unwrap();
    }
}
