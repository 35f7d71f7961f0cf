//! A file with tables: a prefix of the log, whatever happens to who writes it.
//!
//! * **Invariant:** the position, the chain hash before it and the tables change in one transaction.
//! * A commit is not synced. `SQLite` syncs its write-ahead log before it copies anything of it into the file, and
//!   takes of a log that was cut short whole transactions from its beginning: so what power loss leaves is what the
//!   file was after some commit.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kimberlite::projection::store::Applied;
use kimberlite::projection::{Content, Event};
use kimberlite::{ChainHash, Position};
use rusqlite::Error::IntegralValueOutOfRange;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, params};

use crate::plan::Plan;
use crate::take_in::{self, FORMAT, integer};

const FIND: &str =
    "SELECT format, identity, mapping, position, chain, skipped FROM \"_kimberlite\" WHERE one = 1";
const ADVANCE: &str = "UPDATE \"_kimberlite\" SET position = ?1, chain = ?2, skipped = ?3 \
                       WHERE one = 1 AND position = ?4";
const TOUCH: &str = "UPDATE \"_kimberlite\" SET position = position";

/// How long somebody else's transaction is waited for.
const BUSY_MAX: Duration = Duration::from_secs(5);
/// Pages of the write-ahead log after which it is copied into the file, between flushes.
const CHECKPOINT_PAGES: u32 = 8192;
const CACHE_KIB: i32 = 16 << 10;

#[derive(Debug)]
pub(crate) struct SqliteFile {
    path: PathBuf,
    connection: Connection,
    plan: Arc<Plan>,
    applied: Applied,
    skipped: i64,
    pending_bytes: usize,
    is_flushed: bool,
}

/// Why a file did not take something in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("SQLite failed")]
    Sql(#[from] rusqlite::Error),
    #[error("somebody else has written to it")]
    Moved,
}

impl FileError {
    /// Whether the file is not what was written to it, so that it has to be derived anew.
    pub(crate) fn is_damage(&self) -> bool {
        let Self::Sql(error) = self else {
            return true;
        };
        let code = match error {
            rusqlite::Error::SqliteFailure(code, _) => code,
            rusqlite::Error::SqlInputError { error, .. } => error,
            rusqlite::Error::ToSqlConversionFailure(_) => return false,
            // There is nothing, or something of another type, where something always stands.
            _ => return true,
        };
        let is_moved = code.extended_code == rusqlite::ffi::SQLITE_READONLY_DBMOVED;
        let is_short = code.extended_code == rusqlite::ffi::SQLITE_IOERR_SHORT_READ;
        // The tables are not those that were made, where a statement does not fit them.
        let is_changed = matches!(
            code.code,
            ErrorCode::Unknown | ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch
        );
        let is_corrupt = matches!(
            code.code,
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase
        );
        is_corrupt || is_changed || is_moved || is_short
    }

    /// Whether it may go well by itself later: there is no space now, or somebody else writes or keeps the file.
    pub(crate) fn passes(&self) -> bool {
        let Self::Sql(rusqlite::Error::SqliteFailure(code, _)) = self else {
            return false;
        };
        matches!(
            code.code,
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::DiskFull
        )
    }
}

/// What stands in a file of what it is derived from.
struct Head {
    is_of: bool,
    applied: Applied,
    skipped: i64,
}

impl SqliteFile {
    /// Makes the tables in an empty file.
    pub(crate) fn create(path: &Path, plan: Arc<Plan>, identity: &[u8]) -> Result<Self, FileError> {
        let mut connection = connect(path, &plan)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        take_in::create(&transaction, &plan, identity)?;
        transaction.commit()?;
        let mut file = Self {
            path: path.to_path_buf(),
            connection,
            plan,
            applied: Applied {
                position: Position::ZERO,
                chain: ChainHash::new([0; 32]),
            },
            skipped: 0,
            pending_bytes: 0,
            is_flushed: false,
        };
        file.flush()?;
        Ok(file)
    }

    /// Opens a file; none when it is derived from something else, or by another mapping.
    pub(crate) fn open(
        path: &Path,
        plan: Arc<Plan>,
        identity: &[u8],
    ) -> Result<Option<Self>, FileError> {
        let connection = connect(path, &plan)?;
        let head = head(&connection, &plan, identity)?;
        Ok(head.is_of.then_some(Self {
            path: path.to_path_buf(),
            connection,
            plan,
            applied: head.applied,
            skipped: head.skipped,
            pending_bytes: 0,
            is_flushed: true,
        }))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn applied(&self) -> Applied {
        self.applied
    }

    pub(crate) fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Takes in the events between `first`, where the file is, and `end`; all of it or nothing.
    pub(crate) fn apply(
        &mut self,
        first: Position,
        events: &[Event<'_>],
        end: Applied,
    ) -> Result<(), FileError> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut skipped = self.skipped;
        take_in::take_in(&transaction, &self.plan, events, &mut skipped)?;
        let (from, to) = (integer(first.get())?, integer(end.position.get())?);
        let advanced = transaction.prepare_cached(ADVANCE)?.execute(params![
            to,
            &end.chain.as_bytes()[..],
            skipped,
            from
        ])?;
        // Also where a commit that failed before was one after all: nothing is taken in twice.
        if advanced != 1 {
            return Err(FileError::Moved);
        }
        transaction.commit()?;
        self.applied = end;
        self.skipped = skipped;
        self.pending_bytes += events.iter().map(bytes_of).sum::<usize>();
        self.is_flushed = false;
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn wait_not(&self) {
        self.connection.busy_timeout(Duration::ZERO).unwrap();
    }

    /// Lets the file grow to so many pages, as a disk does that is full then.
    #[cfg(test)]
    pub(crate) fn bound_pages(&self, pages: u32) {
        let sql = format!("PRAGMA max_page_count = {pages}");
        self.connection.query_row(&sql, [], |_| Ok(())).unwrap();
    }

    /// Makes durable what was taken in, and copies it into the file as far as readers let it.
    pub(crate) fn flush(&mut self) -> Result<(), FileError> {
        if self.is_flushed {
            return Ok(());
        }
        // A synced commit brings all those before it to the disk, also when a reader keeps the checkpoint from
        // doing anything.
        self.connection.pragma_update(None, "synchronous", "FULL")?;
        let touched = self.connection.execute(TOUCH, []);
        self.connection
            .pragma_update(None, "synchronous", "NORMAL")?;
        touched?;
        // Nobody is waited for: what a reader holds back the next one takes along.
        self.connection.busy_timeout(Duration::ZERO)?;
        let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
        let checkpointed = self.connection.query_row(sql, [], |_| Ok(()));
        self.connection.busy_timeout(BUSY_MAX)?;
        checkpointed?;
        self.pending_bytes = 0;
        self.is_flushed = true;
        Ok(())
    }
}

fn bytes_of(event: &Event<'_>) -> usize {
    match event.content {
        Content::Payload { metadata, data, .. } => metadata.len() + data.len(),
        _ => 0,
    }
}

fn connect(path: &Path, plan: &Plan) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_MAX)?;
    connection.set_prepared_statement_cache_capacity(3 * plan.tables.len() + 4);
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "secure_delete", true)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    Ok(connection)
}

fn head(connection: &Connection, plan: &Plan, identity: &[u8]) -> rusqlite::Result<Head> {
    connection.query_row(FIND, [], |row| {
        let (format, stored): (u32, Vec<u8>) = (row.get(0)?, row.get(1)?);
        let (mapping, position): (String, i64) = (row.get(2)?, row.get(3)?);
        let position = u64::try_from(position).map_err(|_| IntegralValueOutOfRange(3, position))?;
        let chain: Vec<u8> = row.get(4)?;
        // It is empty before the first batch.
        let chain = <[u8; 32]>::try_from(chain).ok();
        let is_whole = chain.is_some() || position == 0;
        Ok(Head {
            is_of: format == FORMAT && stored == identity && mapping == plan.mapping && is_whole,
            applied: Applied {
                position: Position::new(position),
                chain: ChainHash::new(chain.unwrap_or_default()),
            },
            skipped: row.get(5)?,
        })
    })
}
