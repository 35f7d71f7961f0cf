//! The tables as they were at some position of the log.

use std::path::Path;

use kimberlite::projection::{Content, Event};
use kimberlite::{ErrorKind, Position, Record, StreamId, StreamName, Tenant};
use rusqlite::Connection;

use super::Reader;
use crate::error::Error;
use crate::mapping::Mapping;
use crate::plan::Plan;
use crate::take_in;

/// Events that are held in memory at once, or bytes of them.
const EVENTS_MAX: usize = 1024;
const BYTES_MAX: usize = 1 << 20;
const CACHE_KIB: i32 = 64 << 10;

impl Reader {
    /// Derives the tables from the records before `position`, and from no other, into a scratch database that nobody
    /// else sees: it is in memory where it is small, else in an unnamed file in the system's folder for such files. What a
    /// purge has removed since is not in it. `progress` is told how far it is.
    ///
    /// This reads that part of the log, and works on a read-only handle too, beside a writer.
    ///
    /// ```
    /// use kimberlite::{Database, Event, ExpectedVersion};
    /// use kimberlite_projection_sqlite::{ColumnType, Mapping, Reader, Rule, Table, Value};
    ///
    /// let mapping = Mapping::new([Table::new("patients")
    ///     .key(["id"])
    ///     .column("id", ColumnType::Text, "$stream")
    ///     .column("ward", ColumnType::Integer, "/ward")
    ///     .on(Rule::upsert(["admitted", "moved"]))])?;
    /// # let dir = tempfile::tempdir()?;
    /// let db = Database::open(dir.path())?;
    /// let clinic = db.tenant("clinic-7")?;
    /// let patient = clinic.stream("patient/42")?;
    /// patient.append(ExpectedVersion::Any, &[Event::new("admitted", r#"{"ward": 3}"#)])?;
    /// let moved = patient.append(ExpectedVersion::Any, &[Event::new("moved", r#"{"ward": 5}"#)])?;
    ///
    /// let before = Reader::as_of(&clinic, &mapping, moved.first_position(), &mut |_| {})?;
    /// let answer = before.query("SELECT ward FROM patients", &[])?;
    /// assert_eq!(answer.rows, [[Value::Integer(3)]]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::BehindEnd`] when the log ends before, [`Error::Database`] when it cannot be read, and
    /// [`Error::Statement`] when there is no place for the tables.
    pub fn as_of(
        tenant: &Tenant,
        mapping: &Mapping,
        position: Position,
        progress: &mut dyn FnMut(Position),
    ) -> Result<Self, Error> {
        let end = tenant.durable_position();
        if position > end {
            return Err(Error::BehindEnd { position, end });
        }
        let mut scratch = Scratch::new(mapping).map_err(Error::statement)?;
        let mut held = Held::default();
        for record in tenant.read_all(..position.get()) {
            match record {
                Ok(record) => held.push(tenant, record)?,
                Err(error) if error.kind() == ErrorKind::Purged => {}
                Err(error) => return Err(error.into()),
            }
            if held.is_full() {
                scratch.take_in(&mut held).map_err(Error::statement)?;
                progress(held.end);
            }
        }
        scratch.take_in(&mut held).map_err(Error::statement)?;
        progress(position);
        scratch.read(position).map_err(Error::statement)
    }
}

struct Scratch {
    connection: Connection,
    plan: Plan,
    skipped: i64,
}

impl Scratch {
    fn new(mapping: &Mapping) -> rusqlite::Result<Self> {
        // A database without a name is in a file that is gone when the connection is, whatever happens.
        let connection = Connection::open("")?;
        let plan = Plan::new(mapping);
        connection.set_prepared_statement_cache_capacity(3 * plan.tables.len() + 4);
        connection.pragma_update(None, "journal_mode", "OFF")?;
        connection.pragma_update(None, "synchronous", "OFF")?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        connection.execute_batch("BEGIN")?;
        take_in::create(&connection, &plan, &[])?;
        Ok(Self {
            connection,
            plan,
            skipped: 0,
        })
    }

    fn take_in(&mut self, held: &mut Held) -> rusqlite::Result<()> {
        let events = held.events();
        let (connection, skipped) = (&self.connection, &mut self.skipped);
        take_in::take_in(connection, &self.plan, &events, skipped)?;
        held.records.clear();
        held.bytes = 0;
        Ok(())
    }

    fn read(self, position: Position) -> rusqlite::Result<Reader> {
        let head = [take_in::integer(position.get())?, self.skipped];
        self.connection.execute(
            "UPDATE \"_kimberlite\" SET position = ?1, skipped = ?2",
            head,
        )?;
        self.connection.execute_batch("COMMIT")?;
        Reader::over(self.connection, Path::new("the scratch database"))
    }
}

/// Events that were read and not taken in yet.
#[derive(Default)]
struct Held {
    records: Vec<(StreamId, StreamName, Record)>,
    bytes: usize,
    end: Position,
}

impl Held {
    fn push(&mut self, tenant: &Tenant, record: Record) -> Result<(), Error> {
        let Some(stream) = record.stream_id() else {
            return Ok(());
        };
        let name = match self.records.last() {
            Some((last, name, _)) if *last == stream => name.clone(),
            _ => tenant.stream_name(stream)?,
        };
        self.bytes += record.data().len() + record.metadata().len();
        self.end = Position::new(record.position().get() + 1);
        self.records.push((stream, name, record));
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.records.len() >= EVENTS_MAX || self.bytes >= BYTES_MAX
    }

    fn events(&self) -> Vec<Event<'_>> {
        let events = self
            .records
            .iter()
            .map(|(stream_id, stream, record)| Event {
                position: record.position(),
                stream: stream.as_str(),
                stream_id: *stream_id,
                offset: record.offset(),
                time: record.time(),
                content: Content::Payload {
                    event_type: record.event_type(),
                    metadata: record.metadata(),
                    data: record.data(),
                },
            });
        events.collect()
    }
}
