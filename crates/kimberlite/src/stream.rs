//! A named sequence of events.

use std::fmt;
use std::ops::RangeBounds;
use std::sync::Arc;

use kimberlite_kernel::{Effect, ExpectedVersion};
use kimberlite_types::{Offset, Position, StreamName};

use crate::append::{AppendFuture, AppendOptions, WhenFull};
use crate::error::Error;
use crate::event::Event;
use crate::read::RecordIter;
use crate::tenant::TenantInner;

/// A handle of a stream. Clones may be used on any thread.
#[derive(Clone)]
pub struct Stream {
    tenant: Arc<TenantInner>,
    name: StreamName,
}

/// What an append gives back: where its events stand, from now on and for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    first_position: Position,
    first_offset: Offset,
    count: u32,
    is_durable: bool,
    is_duplicate: bool,
}

impl Stream {
    pub(crate) fn new(tenant: Arc<TenantInner>, name: StreamName) -> Self {
        Self { tenant, name }
    }

    pub(crate) fn tenant(&self) -> &Arc<TenantInner> {
        &self.tenant
    }

    /// Returns the name.
    pub fn name(&self) -> &StreamName {
        &self.name
    }

    /// Appends up to 65,536 events, all of them or none. They are durable when this returns, unless
    /// the database was opened with [`SyncPolicy::OnFlush`](crate::SyncPolicy::OnFlush). Where as
    /// many appends are under way as the queue lets in, it waits in line.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::WrongVersion`](crate::ErrorKind::WrongVersion): the stream does not stand
    ///   where `expected` says. Nothing was appended.
    /// * [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput),
    ///   [`ErrorKind::Rejected`](crate::ErrorKind::Rejected),
    ///   [`ErrorKind::DiskFull`](crate::ErrorKind::DiskFull),
    ///   [`ErrorKind::Io`](crate::ErrorKind::Io): nothing was appended.
    /// * [`ErrorKind::OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown): a write or sync failed;
    ///   reopen the database to see whether the events are there, or append again under the same
    ///   [idempotency key](crate::IdempotencyKey).
    pub fn append(&self, expected: ExpectedVersion, events: &[Event]) -> Result<Receipt, Error> {
        self.append_with(expected, events)
    }

    /// Appends events as `options` say; [`Stream::append`] with more to choose.
    ///
    /// # Errors
    ///
    /// As [`Stream::append`] and [`Stream::try_append`], and
    /// [`ErrorKind::KeyReused`](crate::ErrorKind::KeyReused): the idempotency key belongs to another
    /// append. Nothing was appended.
    pub fn append_with(
        &self,
        options: impl Into<AppendOptions>,
        events: &[Event],
    ) -> Result<Receipt, Error> {
        self.tenant.append(&self.name, options.into(), events)
    }

    /// Appends events unless as many appends are under way as the queue lets in. One that is let in
    /// is answered as by [`Stream::append`].
    ///
    /// # Errors
    ///
    /// As [`Stream::append`], and [`ErrorKind::Overloaded`](crate::ErrorKind::Overloaded): nothing
    /// was appended; try again when appends that are under way have been answered.
    pub fn try_append(
        &self,
        expected: ExpectedVersion,
        events: &[Event],
    ) -> Result<Receipt, Error> {
        let options = AppendOptions::from(expected).when_full(WhenFull::Refuse);
        self.append_with(options, events)
    }

    /// Appends events, and gives a future that is ready when [`Stream::append_with`] would return.
    ///
    /// The events are sealed and written by this call, on this thread, and become durable whether
    /// the future is awaited or not: many appends can be under way from one thread. Only when the
    /// queue is full does the future take them, to write them when it is polled and has a place.
    /// Events that were written later stand later, so that calls one after the other keep their
    /// order as long as the queue has room; where order matters, await one append before the next or say
    /// what it expects.
    ///
    /// Syncs are led by a thread of the database, or by whoever blocks for one; no poll waits for
    /// its own. Writing does wait for other syncs where the commit lock is held over them: at the end
    /// of a segment, for a checkpoint or a watermark, and under
    /// [`SyncPolicy::EveryRecord`](crate::SyncPolicy::EveryRecord).
    ///
    /// ```
    /// # use kimberlite::{Database, Event, ExpectedVersion};
    /// # let dir = tempfile::tempdir()?;
    /// # let db = Database::open(dir.path())?;
    /// # let stream = db.tenant("t")?.stream("s")?;
    /// let first = stream.append_async(ExpectedVersion::Any, &[Event::new("a", "1")]);
    /// let second = stream.append_async(ExpectedVersion::Any, &[Event::new("b", "2")]);
    /// // Both are written, and share a sync.
    /// let receipts = pollster::block_on(async { Ok::<_, kimberlite::Error>((first.await?, second.await?)) })?;
    /// assert!(receipts.0.is_durable() && receipts.1.first_offset().get() == 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// The future gives the errors of [`Stream::append_with`].
    pub fn append_async(
        &self,
        options: impl Into<AppendOptions>,
        events: &[Event],
    ) -> AppendFuture {
        self.tenant.append_async(&self.name, options.into(), events)
    }

    /// Reads the events at `offsets`, in either direction; a stream without events gives none.
    ///
    /// ```
    /// # use kimberlite::{Database, Event, ExpectedVersion};
    /// # let dir = tempfile::tempdir()?;
    /// # let db = Database::open(dir.path())?;
    /// # let stream = db.tenant("t")?.stream("s")?;
    /// # stream.append(ExpectedVersion::Any, &[Event::new("a", "1"), Event::new("b", "2")])?;
    /// let newest = stream.read(..).next_back().expect("there are two events")?;
    /// assert_eq!(newest.event_type(), "b");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read(&self, offsets: impl RangeBounds<u64>) -> RecordIter {
        let id = self.tenant.stream_id(&self.name);
        let len = id.map_or(0, |id| self.tenant.catalog().index.len(id));
        RecordIter::offsets(Arc::clone(&self.tenant), id, &offsets, len)
    }

    /// Returns the number of events.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) and
    /// [`ErrorKind::RolledBack`](crate::ErrorKind::RolledBack) when the database is open for reading
    /// only and the log cannot be read to its end: some may stand behind.
    pub fn len(&self) -> Result<u64, Error> {
        if let Some(error) = self.tenant.unreadable_end() {
            return Err(error);
        }
        let id = self.tenant.stream_id(&self.name);
        Ok(id.map_or(0, |id| self.tenant.catalog().index.len(id)))
    }

    /// Whether the stream has no events.
    ///
    /// # Errors
    ///
    /// As [`Stream::len`].
    pub fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.len()? == 0)
    }
}

impl fmt::Debug for Stream {
    // The name may be that of a person.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("tenant", &self.tenant.name)
            .finish_non_exhaustive()
    }
}

impl Receipt {
    pub(crate) fn new(effect: &Effect, is_durable: bool) -> Self {
        let slot = effect.slot();
        Self {
            first_position: slot.position,
            first_offset: slot.offset.expect("events have offsets"),
            count: slot.count,
            is_durable,
            is_duplicate: matches!(effect, Effect::Duplicate(_)),
        }
    }

    /// Whether the events were there already: the append was a retry, by its idempotency key, and this is
    /// the answer that was given first, or was to be given.
    pub fn is_duplicate(&self) -> bool {
        self.is_duplicate
    }

    /// Whether the events were durable when this was given. They may not have been under
    /// [`SyncPolicy::OnFlush`](crate::SyncPolicy::OnFlush) and for [`Ack::Buffered`](crate::Ack::Buffered);
    /// [`Tenant::wait_durable`](crate::Tenant::wait_durable) waits until they are.
    pub fn is_durable(&self) -> bool {
        self.is_durable
    }

    /// Returns the position of the first event.
    pub fn first_position(&self) -> Position {
        self.first_position
    }

    /// Returns the position of the last event.
    pub fn last_position(&self) -> Position {
        Position::new(self.first_position.get() + u64::from(self.count) - 1)
    }

    /// Returns the offset of the first event in its stream.
    pub fn first_offset(&self) -> Offset {
        self.first_offset
    }

    /// Returns the offset of the last event in its stream: what the next append may expect.
    pub fn last_offset(&self) -> Offset {
        Offset::new(self.first_offset.get() + u64::from(self.count) - 1)
    }

    /// Returns the number of events.
    pub fn count(&self) -> u32 {
        self.count
    }
}
