//! Reading the tables.

mod as_of;
mod value;

use std::path::{Path, PathBuf};
use std::time::Duration;

use kimberlite::Position;
use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode, OpenFlags, params_from_iter};

use crate::error::Error;
use crate::mapping::Mapping;

pub use self::value::{Answer, Value};

const FIND: &str = "SELECT position, skipped, mapping FROM \"_kimberlite\" WHERE one = 1";
const BUSY_MAX: Duration = Duration::from_secs(5);
/// How often a file is opened that is being replaced just then.
const OPENINGS_MAX: usize = 3;

/// Reads the tables of a projection, as they are after each of its commits; see also
/// [`as_of`](Self::as_of).
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    path: PathBuf,
}

impl Reader {
    /// Opens the file of a projection for reading, also of one that another process writes.
    ///
    /// # Errors
    ///
    /// [`Error::NoFile`], and [`Error::NotAProjection`] where it is something else or damaged.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let mut openings = 1;
        loop {
            match Self::open_once(path) {
                Err(Error::NoFile { .. }) if openings < OPENINGS_MAX => openings += 1,
                opened => return opened,
            }
        }
    }

    fn open_once(path: &Path) -> Result<Self, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let failed = |error: rusqlite::Error| {
            let path = path.to_path_buf();
            if error.sqlite_error_code() == Some(ErrorCode::CannotOpen) {
                return Error::NoFile { path };
            }
            Error::NotAProjection {
                path,
                source: Box::new(error),
            }
        };
        let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        let reader = Self::over(connection, path).map_err(failed)?;
        reader.head().map_err(failed)?;
        Ok(reader)
    }

    fn over(connection: Connection, path: &Path) -> rusqlite::Result<Self> {
        connection.busy_timeout(BUSY_MAX)?;
        connection.pragma_update(None, "query_only", true)?;
        // No file but this one.
        connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
        Ok(Self {
            connection,
            path: path.to_path_buf(),
        })
    }

    /// Returns how far it is: everything before this position was taken in.
    ///
    /// # Errors
    ///
    /// [`Error::NotAProjection`] when it cannot be read.
    pub fn applied(&self) -> Result<Position, Error> {
        Ok(Position::new(self.number(|head| head.0)?))
    }

    /// Returns how many events a table should have taken that did not fit it. The table `_kimberlite_skipped` has
    /// the newest thousand of them: where they stand, for which table, and why.
    ///
    /// # Errors
    ///
    /// [`Error::NotAProjection`] when it cannot be read.
    pub fn skipped(&self) -> Result<u64, Error> {
        self.number(|head| head.1)
    }

    /// Returns the mapping that the tables were made by.
    ///
    /// # Errors
    ///
    /// [`Error::NotAProjection`] when it cannot be read, [`Error::Mapping`] when this version does not understand it.
    pub fn mapping(&self) -> Result<Mapping, Error> {
        let head = self.head().map_err(|error| self.unreadable(error))?;
        Ok(Mapping::from_json(&head.2)?)
    }

    fn head(&self) -> rusqlite::Result<(i64, i64, String)> {
        let columns = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        self.connection.query_row(FIND, [], columns)
    }

    fn number(&self, of: impl Fn(&(i64, i64, String)) -> i64) -> Result<u64, Error> {
        let head = self.head().map_err(|error| self.unreadable(error))?;
        let number = of(&head);
        u64::try_from(number)
            .map_err(|_| self.unreadable(rusqlite::Error::IntegralValueOutOfRange(0, number)))
    }

    fn unreadable(&self, error: rusqlite::Error) -> Error {
        Error::NotAProjection {
            path: self.path.clone(),
            source: Box::new(error),
        }
    }

    /// Runs a statement that reads, with the values of its parameters `?1`, `?2` and so on; returns all rows, so that
    /// a large answer is better taken by [`query_each`](Self::query_each).
    ///
    /// # Errors
    ///
    /// As [`query_each`](Self::query_each).
    pub fn query(&self, sql: &str, parameters: &[Value]) -> Result<Answer, Error> {
        let mut answer = Answer::default();
        self.query_each::<Error>(sql, parameters, |columns, row| {
            if answer.columns.is_empty() {
                answer.columns = columns.to_vec();
            }
            answer.rows.push(row);
            Ok(())
        })?;
        if answer.columns.is_empty() {
            answer.columns = self.columns(sql)?;
        }
        Ok(answer)
    }

    /// Runs a statement likewise, and gives `take` the names of the columns and one row after another, all as they
    /// were at one position.
    ///
    /// # Errors
    ///
    /// [`Error::Writes`] where it does more than read, [`Error::Statement`] where `SQLite` refuses it; and whatever
    /// `take` gives, which ends it.
    pub fn query_each<E: From<Error>>(
        &self,
        sql: &str,
        parameters: &[Value],
        mut take: impl FnMut(&[String], Vec<Value>) -> Result<(), E>,
    ) -> Result<(), E> {
        let failed = |error| E::from(Error::statement(error));
        let mut statement = self.connection.prepare(sql).map_err(failed)?;
        if !statement.readonly() {
            return Err(Error::Writes.into());
        }
        let columns = statement.column_names().map(str::to_owned);
        let columns = columns.collect::<Vec<_>>();
        let mut rows = statement
            .query(params_from_iter(parameters))
            .map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let values = (0..columns.len()).map(|nth| row.get_ref(nth).map(Value::from));
            let values = values.collect::<Result<Vec<_>, _>>().map_err(failed)?;
            take(&columns, values)?;
        }
        Ok(())
    }

    /// Returns the names of the columns that a statement gives.
    ///
    /// # Errors
    ///
    /// [`Error::Statement`] where `SQLite` refuses it.
    pub fn columns(&self, sql: &str) -> Result<Vec<String>, Error> {
        let statement = self.connection.prepare(sql).map_err(Error::statement)?;
        Ok(statement.column_names().map(str::to_owned).collect())
    }
}
