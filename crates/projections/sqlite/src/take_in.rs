//! Taking events into the tables, and what is kept beside them.

use kimberlite::projection::Event;
use rusqlite::{CachedStatement, Connection, ToSql, params, params_from_iter};

use crate::mapping::Action;
use crate::plan::{Plan, TablePlan};
use crate::row::{Cell, Misfit, Row};

/// How many of the events that did not fit are kept by name.
const SKIPPED_MAX: i64 = 1000;

/// What is kept beside the tables: what they are derived from, and how far.
const CREATE: &str = "\
CREATE TABLE \"_kimberlite\" (one INTEGER PRIMARY KEY CHECK (one = 1), format INTEGER NOT NULL, \
identity BLOB NOT NULL, mapping TEXT NOT NULL, position INTEGER NOT NULL, chain BLOB NOT NULL, \
skipped INTEGER NOT NULL);\
CREATE TABLE \"_kimberlite_skipped\" (number INTEGER PRIMARY KEY, position INTEGER NOT NULL, \
\"table\" TEXT NOT NULL, why TEXT NOT NULL);";
const BEGIN: &str = "INSERT INTO \"_kimberlite\" VALUES (1, ?1, ?2, ?3, 0, x'', 0)";
const SKIP: &str = "INSERT INTO \"_kimberlite_skipped\" VALUES (?1, ?2, ?3, ?4)";
const FORGET: &str = "DELETE FROM \"_kimberlite_skipped\" WHERE number <= ?1";

/// The layout of what is kept beside the tables.
pub(crate) const FORMAT: u32 = 1;

/// Makes the tables, empty.
pub(crate) fn create(
    connection: &Connection,
    plan: &Plan,
    identity: &[u8],
) -> rusqlite::Result<()> {
    connection.execute_batch(CREATE)?;
    connection.execute(BEGIN, params![FORMAT, identity, plan.mapping])?;
    connection.execute_batch(&plan.create)
}

/// Takes in events; `skipped` counts those that a table should have taken and did not. Whoever calls it is in a
/// transaction.
pub(crate) fn take_in(
    connection: &Connection,
    plan: &Plan,
    events: &[Event<'_>],
    skipped: &mut i64,
) -> rusqlite::Result<()> {
    let tables = plan.tables.iter().map(|table| TableWriter {
        connection,
        table,
        upsert: None,
        insert: None,
        delete: None,
    });
    let mut tables = tables.collect::<Vec<_>>();
    for event in events {
        let Some(row) = Row::new(event) else {
            continue;
        };
        for table in &mut tables {
            if let Err(misfit) = table.take_in(&row)? {
                *skipped = skipped.saturating_add(1);
                skip(connection, *skipped, event, &table.table.name, misfit)?;
            }
        }
    }
    Ok(())
}

fn skip(
    connection: &Connection,
    number: i64,
    event: &Event<'_>,
    table: &str,
    misfit: Misfit<'_>,
) -> rusqlite::Result<()> {
    let position = integer(event.position.get())?;
    let mut insert = connection.prepare_cached(SKIP)?;
    insert.execute(params![number, position, table, misfit.to_string()])?;
    if number > SKIPPED_MAX {
        let mut forget = connection.prepare_cached(FORGET)?;
        forget.execute([number - SKIPPED_MAX])?;
    }
    Ok(())
}

/// Returns a number of 64 bits as `SQLite` has them.
pub(crate) fn integer(value: u64) -> rusqlite::Result<i64> {
    i64::try_from(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

/// The statements that change a table, made when they are first needed.
struct TableWriter<'c> {
    connection: &'c Connection,
    table: &'c TablePlan,
    upsert: Option<CachedStatement<'c>>,
    insert: Option<CachedStatement<'c>>,
    delete: Option<CachedStatement<'c>>,
}

impl<'c> TableWriter<'c> {
    fn take_in(&mut self, row: &Row<'_>) -> rusqlite::Result<Result<(), Misfit<'c>>> {
        let table = self.table;
        let Some(action) = table.action(row.stream(), row.event_type()) else {
            return Ok(Ok(()));
        };
        let is_asked = |is_key: bool| is_key || action != Action::Delete;
        let columns = table.columns.iter().filter(|it| is_asked(it.is_key));
        let cells = columns.map(|column| row.cell(column));
        let cells = match cells.collect::<Result<Vec<_>, _>>() {
            Ok(cells) => cells,
            Err(misfit) => return Ok(Err(misfit)),
        };
        let changed = self.run(action, &cells)?;
        if action == Action::Insert && changed == 0 {
            return Ok(Err(Misfit::RowIsThere));
        }
        Ok(Ok(()))
    }

    fn run(&mut self, action: Action, cells: &[Cell<'_>]) -> rusqlite::Result<usize> {
        let table = self.table;
        let (statement, sql) = match action {
            Action::Upsert => (&mut self.upsert, &table.upsert),
            Action::Insert => (&mut self.insert, &table.insert),
            Action::Delete => (&mut self.delete, &table.delete),
        };
        let statement = match statement {
            Some(statement) => statement,
            None => statement.insert(self.connection.prepare_cached(sql)?),
        };
        let others = table.columns.iter().zip(cells).filter(|(it, _)| !it.is_key);
        let flags = others.map(|(_, cell)| cell.is_there());
        let flags = flags
            .filter(|_| action == Action::Upsert)
            .collect::<Vec<_>>();
        let cells = cells.iter().map(|cell| cell as &dyn ToSql);
        let flags = flags.iter().map(|flag| flag as &dyn ToSql);
        statement.execute(params_from_iter(cells.chain(flags)))
    }
}

#[cfg(test)]
mod tests;
