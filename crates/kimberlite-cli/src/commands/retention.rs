//! `kimberlite hold`, `release`, `holds`, `retain`, `purge`.

use std::path::Path;
use std::process::ExitCode;

use kimberlite::{Database, HoldId, Position, PurgeOptions, Retention};
use serde_json::json;

use super::observe;
use crate::args::{Hold, Purge, Release, Retain};
use crate::exit::Failure;
use crate::output::Output;

const DAY_NS: u64 = 24 * 3600 * 1_000_000_000;

pub(crate) fn hold(db: &Path, args: &Hold, output: &Output) -> Result<ExitCode, Failure> {
    let db = Database::open(db)?;
    let tenant = db.existing_tenant(&args.tenant)?;
    let hold = match &args.stream {
        Some(name) => tenant.stream(name)?.hold(&args.reason)?,
        None => tenant.hold(&args.reason)?,
    };
    db.close()?;
    let id = hold.position().get();
    output.line(&format!("legal hold {id}"), &json!({"hold": id}))?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn release(db: &Path, args: &Release, output: &Output) -> Result<ExitCode, Failure> {
    let db = Database::open(db)?;
    let tenant = db.existing_tenant(&args.tenant)?;
    let hold = HoldId::new(Position::new(args.hold));
    tenant.release(hold, &args.reason)?;
    db.close()?;
    let id = args.hold;
    output.line(
        &format!("legal hold {id} is released"),
        &json!({"released": id}),
    )?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn holds(db: &Path, tenant: &str, output: &Output) -> Result<ExitCode, Failure> {
    let tenant = observe(db, tenant)?;
    for hold in tenant.holds()? {
        let id = hold.id.position().get();
        let stream = hold.stream.map(|stream| tenant.stream_name(stream));
        let stream = stream.transpose()?.map(|name| name.to_string());
        let covers = stream.as_deref().unwrap_or("all streams");
        let line = format!("{id}\t{covers}\t{}\t{}", hold.time, hold.reason);
        let value = json!({
            "hold": id,
            "stream": stream,
            "time_ns": hold.time.as_nanoseconds(),
            "reason": hold.reason,
        });
        output.line(&line, &value)?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn retain(db: &Path, args: &Retain, output: &Output) -> Result<ExitCode, Failure> {
    let (days, records) = (args.days.unwrap_or(0), args.records.unwrap_or(0));
    let rule = (!args.none).then(|| Retention {
        age_ns: days * DAY_NS,
        records,
    });
    let db = Database::open(db)?;
    let tenant = db.existing_tenant(&args.tenant)?;
    match &args.stream {
        Some(name) => tenant.stream(name)?.retain(rule)?,
        None => tenant.retain(rule)?,
    }
    db.close()?;
    let text = match rule {
        Some(_) => format!("events are kept for {days} days and {records} later records"),
        None => "there is no rule any more".to_owned(),
    };
    let value = json!({
        "stream": args.stream,
        "days": rule.map(|_| days),
        "records": rule.map(|_| records),
    });
    output.line(&text, &value)?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn purge(db: &Path, args: &Purge, output: &Output) -> Result<ExitCode, Failure> {
    let db = Database::open(db)?;
    let tenant = db.existing_tenant(&args.tenant)?;
    let mut options = PurgeOptions::new(Position::new(args.until)).dry_run(!args.yes);
    if let Some(name) = &args.stream {
        options = options.stream(name);
    }
    let bar = output.progress(None, "segments");
    let report = tenant.purge(&options, &mut |done| {
        bar.set_length(done.segments_total);
        bar.set_position(done.segments_done);
    })?;
    bar.finish_and_clear();
    db.close()?;
    let done = report.outcome;
    let mut text = vec![if args.yes {
        format!(
            "{} events purged before position {}, {} bytes of files freed",
            done.events, report.until, done.bytes_freed
        )
    } else {
        format!(
            "{} events before position {} would be purged, {} bytes of files freed at least",
            done.events + done.events_left,
            report.until,
            done.bytes_freed
        )
    }];
    if !args.yes {
        text.push("what is purged cannot be brought back: run it with --yes to do it".to_owned());
    }
    let kept = report.kept_aside.iter();
    let kept: Vec<String> = kept.map(|path| path.display().to_string()).collect();
    let value = json!({
        "done": args.yes,
        "until": report.until.get(),
        "record": report.record.map(Position::get),
        "events": done.events + done.events_left,
        "payload_bytes": done.payload_bytes,
        "segments": done.segments_rewritten,
        "bytes_freed": done.bytes_freed,
        "kept_aside": kept,
    });
    output.line(&text.join("\n"), &value)?;
    if !kept.is_empty() {
        Output::warning(&format!(
            "what was once cut off the log is kept and may hold payloads of purged events; remove it \
             when nobody needs it: {}",
            kept.join(", ")
        ));
    }
    Ok(ExitCode::SUCCESS)
}
