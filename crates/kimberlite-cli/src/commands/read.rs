//! `kimberlite read` and `kimberlite tail`.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use kimberlite::{Error, ErrorKind, Record, Tenant};
use serde_json::{Value, json};

use super::observe;
use crate::args::{Read, Tail};
use crate::exit::Failure;
use crate::output::Output;

/// How often a followed log is looked at.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(200);

pub(crate) fn run(db: &Path, args: &Read, output: &Output) -> Result<ExitCode, Failure> {
    let tenant = observe(db, &args.tenant)?;
    let range = args.from..args.to.unwrap_or(u64::MAX);
    let records = match &args.stream {
        Some(name) => tenant.stream(name)?.read(range),
        None => tenant.read_all(range),
    };
    let limit = args.limit.unwrap_or(usize::MAX);
    let records: Box<dyn Iterator<Item = _>> = if args.reverse {
        Box::new(records.rev())
    } else {
        Box::new(records)
    };
    for record in records.take(limit) {
        show(&tenant, record, output)?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn tail(db: &Path, args: &Tail, output: &Output) -> Result<ExitCode, Failure> {
    let mut tenant = observe(db, &args.tenant)?;
    let newest = tenant
        .read_all(..)
        .rev()
        .take(args.lines)
        .collect::<Vec<_>>();
    for record in newest.into_iter().rev() {
        show(&tenant, record, output)?;
    }
    if !args.follow {
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        let end = tenant.durable_position().get();
        if tenant.has_grown()? {
            tenant = observe(db, &args.tenant)?;
            for record in tenant.read_all(end..) {
                show(&tenant, record, output)?;
            }
        }
        std::thread::sleep(FOLLOW_INTERVAL);
    }
}

/// Prints an event; one that was purged is told on standard error, and what stands behind it is printed.
fn show(tenant: &Tenant, record: Result<Record, Error>, output: &Output) -> Result<(), Failure> {
    match record {
        Ok(record) => print(tenant, &record, output),
        Err(error) if error.kind() == ErrorKind::Purged => {
            Output::warning(&error.to_string());
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

fn print(tenant: &Tenant, record: &Record, output: &Output) -> Result<(), Failure> {
    let stream = match record.stream_id() {
        Some(id) => tenant.stream_name(id)?.to_string(),
        None => String::new(),
    };
    let text = String::from_utf8_lossy(record.data());
    let (position, offset) = (record.position().get(), record.offset().get());
    let line = format!(
        "{position}\t{stream}@{offset}\t{}\t{text}",
        record.event_type()
    );
    let data = serde_json::from_slice(record.data()).unwrap_or_else(|_| Value::from(text.as_ref()));
    let value = json!({
        "position": position,
        "stream": stream,
        "offset": offset,
        "time_ns": record.time().as_nanoseconds(),
        "type": record.event_type(),
        "data": data,
    });
    output.line(&line, &value)
}
