//! `kimberlite get`, `scan`, `history` and `projections`.

use std::path::Path;
use std::process::ExitCode;

use kimberlite::projection::store::{StoreError, StoreSummary};
use kimberlite::{Database, ErrorKind, Position, ProjectionFiles};
use kimberlite_projection_kv::{Change, Entry, Kv, View};
use serde_json::{Value, json};

use super::observe;
use crate::args::{Get, History, Projections, ProjectionsAct, Scan};
use crate::exit::Failure;
use crate::output::Output;

/// How often progress is looked at.
const PROGRESS_INTERVAL: std::time::Duration = std::time::Duration::from_millis(100);

pub(crate) fn get(db: &Path, args: &Get, output: &Output) -> Result<ExitCode, Failure> {
    let view = newest(db, &args.tenant, output)?;
    let found = match args.at {
        Some(position) => view.get_at(&args.stream, Position::new(position))?,
        None => view.get(&args.stream)?,
    };
    let Some(entry) = found else {
        return Err(Failure::NoKey {
            key: args.stream.clone(),
        });
    };
    show(args.stream.as_bytes(), &entry, output)?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn scan(db: &Path, args: &Scan, output: &Output) -> Result<ExitCode, Failure> {
    let view = newest(db, &args.tenant, output)?;
    let limit = args.limit.unwrap_or(usize::MAX);
    match args.at {
        Some(position) => {
            for found in view
                .scan_at(&args.prefix, Position::new(position))?
                .take(limit)
            {
                let (key, entry) = found?;
                show(&key, &entry, output)?;
            }
        }
        None => {
            for found in view.scan(&args.prefix).take(limit) {
                let (key, entry) = found?;
                show(&key, &entry, output)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn history(db: &Path, args: &History, output: &Output) -> Result<ExitCode, Failure> {
    let view = newest(db, &args.tenant, output)?;
    let limit = args.limit.unwrap_or(usize::MAX);
    for change in view.history(&args.stream)?.take(limit) {
        let Change { position, value } = change?;
        let entry = Entry {
            since: position,
            value: value.unwrap_or_default(),
        };
        show(args.stream.as_bytes(), &entry, output)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show(key: &[u8], entry: &Entry, output: &Output) -> Result<(), Failure> {
    let (key, text) = (
        String::from_utf8_lossy(key),
        String::from_utf8_lossy(&entry.value),
    );
    let since = entry.since.get();
    let data = serde_json::from_slice(&entry.value).unwrap_or_else(|_| Value::from(text.as_ref()));
    let value = json!({"stream": key, "position": since, "data": data});
    output.line(&format!("{since}\t{key}\t{text}"), &value)
}

/// Derives the newest event of each stream: into a projection that is kept, or in memory where another
/// process has the database open.
fn newest(db: &Path, tenant: &str, output: &Output) -> Result<View, Failure> {
    let opened = match Database::builder(db).create(false).open() {
        Ok(opened) => opened,
        Err(error) if error.kind() == ErrorKind::Locked => {
            return newest_beside_a_writer(db, tenant, output);
        }
        Err(error) => return Err(error.into()),
    };
    let tenant = opened.existing_tenant(tenant)?;
    let last = tenant.durable_position().get() - 1;
    let projected = tenant.project(Kv::by_stream())?;
    let bar = output.progress(Some(last + 1), "records");
    loop {
        match projected.wait_for_at_most(Position::new(last), PROGRESS_INTERVAL) {
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                bar.set_position(projected.status().applied.get());
            }
            waited => break waited?,
        }
    }
    bar.finish_and_clear();
    Ok(projected.view())
}

fn newest_beside_a_writer(db: &Path, tenant: &str, output: &Output) -> Result<View, Failure> {
    let tenant = observe(db, tenant)?;
    let last = tenant.durable_position().get() - 1;
    let bar = output.progress(Some(last + 1), "records");
    let view = tenant.project_at(&Kv::by_stream(), Position::new(last), &mut |position| {
        bar.set_position(position.get());
    })?;
    bar.finish_and_clear();
    Ok(view)
}

pub(crate) fn projections(
    db: &Path,
    args: &Projections,
    output: &Output,
) -> Result<ExitCode, Failure> {
    match &args.act {
        ProjectionsAct::List(tenant) => list(db, &tenant.tenant, output),
        ProjectionsAct::Verify(named) => {
            let opened = Database::builder(db).create(false).open()?;
            let tenant = opened.existing_tenant(&named.tenant)?;
            let size = tenant.verify_projection(&named.name)?;
            let (entries, pages) = (size.entries, size.used_pages);
            output.line(
                &format!(
                    "{}: {entries} entries in {pages} pages are sound",
                    named.name
                ),
                &json!({"projection": named.name, "entries": entries, "pages": pages}),
            )?;
            Ok(ExitCode::SUCCESS)
        }
        ProjectionsAct::Rebuild(named) => {
            let opened = Database::builder(db).create(false).open()?;
            let tenant = opened.existing_tenant(&named.tenant)?;
            tenant.discard_projection(&named.name)?;
            opened.close()?;
            output.line(
                &format!("{} is derived anew when it runs next", named.name),
                &json!({"projection": named.name, "discarded": true}),
            )?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn list(db: &Path, tenant: &str, output: &Output) -> Result<ExitCode, Failure> {
    let tenant = observe(db, tenant)?;
    let end = tenant.durable_position().get();
    for files in tenant.projections()? {
        let ProjectionFiles {
            name,
            store,
            rebuilding,
            ..
        } = files;
        let (text, value) = store
            .map_or(("keeps its state itself".to_owned(), Value::Null), |it| {
                told(it, end)
            });
        let (also, beside) = match rebuilding {
            None => (String::new(), Value::Null),
            Some(summary) => {
                let (text, value) = told(summary, end);
                (format!("; derived anew: {text}"), value)
            }
        };
        output.line(
            &format!("{name}\t{text}{also}"),
            &json!({"projection": name, "end": end, "store": value, "rebuilding": beside}),
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

fn told(summary: Result<StoreSummary, StoreError>, end: u64) -> (String, Value) {
    match summary {
        Ok(summary) => {
            let applied = summary.applied.position.get();
            let version = summary.identity.version();
            let behind = end.saturating_sub(applied);
            let text = format!(
                "version {version}, {} entries, flushed up to position {applied}, {behind} records behind",
                summary.entries
            );
            let value = json!({
                "version": version,
                "entries": summary.entries,
                "applied": applied,
                "behind": behind,
                "bytes": summary.bytes,
                "encrypted": summary.is_encrypted,
            });
            (text, value)
        }
        Err(error) => (error.to_string(), json!({"error": error.to_string()})),
    }
}
