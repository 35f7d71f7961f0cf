//! `kimberlite sql`.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use comfy_table::Table;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use kimberlite::{Database, ErrorKind, Position};
use kimberlite_projection_sqlite::{Error, Mapping, Reader, SqliteProjection, Value};
use serde_json::{Map, json};

use super::observe;
use crate::args::Sql;
use crate::exit::Failure;
use crate::output::Output;

/// How often progress is shown.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

pub(crate) fn run(db: &Path, args: &Sql, output: &Output) -> Result<ExitCode, Failure> {
    let written = args.mapping.as_deref().map(read_mapping).transpose()?;
    match args.as_of {
        Some(position) => as_of(db, args, written, Position::new(position), output)?,
        None => now(db, args, written, output)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks the tables as they were.
fn as_of(
    db: &Path,
    args: &Sql,
    written: Option<Mapping>,
    position: Position,
    output: &Output,
) -> Result<(), Failure> {
    let tenant = observe(db, &args.tenant)?;
    let mapping = match written {
        Some(mapping) => mapping,
        None => stored(db, args)?.mapping()?,
    };
    let bar = output.progress(Some(position.get()), "records");
    let mut show = |at: Position| bar.set_position(at.get());
    let reader = Reader::as_of(&tenant, &mapping, position, &mut show)?;
    bar.finish_and_clear();
    answer(&reader, args, output)
}

/// Asks the tables as they are, once they have the whole log; where another process writes it, as far as that
/// process has brought them.
fn now(path: &Path, args: &Sql, written: Option<Mapping>, output: &Output) -> Result<(), Failure> {
    let db = match Database::builder(path).create(false).open() {
        Ok(db) => db,
        Err(error) if error.kind() == ErrorKind::Locked => {
            let reader = as_it_is(path, args, written.as_ref())?;
            return answer(&reader, args, output);
        }
        Err(error) => return Err(error.into()),
    };
    let tenant = db.existing_tenant(&args.tenant)?;
    let mapping = match written {
        Some(mapping) => mapping,
        None => stored(path, args)?.mapping()?,
    };
    let projection = SqliteProjection::open(&tenant, &args.projection, &mapping)?;
    catch_up(&projection, output)?;
    answer(&projection.reader()?, args, output)?;
    drop((projection, tenant));
    db.close()?;
    Ok(())
}

fn catch_up(projection: &SqliteProjection, output: &Output) -> Result<(), Failure> {
    let end = projection.status().end;
    let bar = output.progress(Some(end.get()), "records");
    // A log begins with a record of its own.
    let last = Position::new(end.get().saturating_sub(1));
    loop {
        match projection.wait_for_at_most(last, LOOK_INTERVAL) {
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                bar.set_position(projection.status().applied.get());
            }
            waited => {
                bar.finish_and_clear();
                return Ok(waited?);
            }
        }
    }
}

fn as_it_is(db: &Path, args: &Sql, written: Option<&Mapping>) -> Result<Reader, Failure> {
    let in_use = |problem| Failure::InUse {
        name: args.projection.clone(),
        problem,
    };
    let reader = match stored(db, args) {
        Err(Failure::NoProjection { .. }) => return Err(in_use("it is not there")),
        reader => reader?,
    };
    if let Some(written) = written
        && reader.mapping()? != *written
    {
        return Err(in_use("it was made by another mapping"));
    }
    let applied = reader.applied()?;
    Output::warning(&format!(
        "another process has the database open: this is what its projection says, which has taken in \
         what stands before position {applied}"
    ));
    Ok(reader)
}

/// Opens the file of the projection as it is.
fn stored(db: &Path, args: &Sql) -> Result<Reader, Failure> {
    let tenant = observe(db, &args.tenant)?;
    let path = SqliteProjection::path_in(db, tenant.name(), &args.projection);
    Reader::open(&path).map_err(|error| match error {
        Error::NoFile { .. } => Failure::NoProjection {
            name: args.projection.clone(),
        },
        other => other.into(),
    })
}

fn read_mapping(path: &Path) -> Result<Mapping, Failure> {
    #[expect(
        clippy::disallowed_methods,
        reason = "a file of the user's, not one of the database"
    )]
    let text = std::fs::read(path);
    let text = text.map_err(|source| Failure::Input {
        path: path.to_path_buf(),
        source,
    })?;
    let text = String::from_utf8_lossy(&text);
    Mapping::from_json(&text).map_err(|source| Failure::Mapping {
        path: path.to_path_buf(),
        source,
    })
}

fn answer(reader: &Reader, args: &Sql, output: &Output) -> Result<(), Failure> {
    if output.json {
        return reader.query_each(&args.statement, &[], |columns, row| {
            let values = row.iter().map(json_of);
            let row: Map<_, _> = columns.iter().cloned().zip(values).collect();
            output.line("", &row.into())
        });
    }
    let answer = reader.query(&args.statement, &[])?;
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_header(answer.columns.iter().map(|name| visible(name)));
    for row in &answer.rows {
        table.add_row(row.iter().map(text_of));
    }
    output.line(&table.trim_fmt(), &json!(null))
}

fn json_of(value: &Value) -> serde_json::Value {
    match value {
        Value::Null => json!(null),
        Value::Integer(value) => json!(value),
        Value::Real(value) => json!(value),
        Value::Text(text) => json!(text),
        Value::Blob(bytes) => json!(hex(bytes)),
    }
}

fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Integer(value) => value.to_string(),
        Value::Real(value) => value.to_string(),
        Value::Text(text) => visible(text),
        Value::Blob(bytes) => hex(bytes),
    }
}

/// What events say must not steer a terminal.
fn visible(text: &str) -> String {
    let letters = text.chars().map(|letter| {
        if letter.is_control() {
            letter.escape_default().to_string()
        } else {
            letter.to_string()
        }
    });
    letters.collect()
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
