//! `kimberlite streams`, `stats`, `inspect` and `checkpoint`.

use std::path::Path;
use std::process::ExitCode;

use kimberlite::{CacheStats, Database};
use serde_json::{Value, json};

use super::survey_tenant;
use crate::args::Tenant;
use crate::exit::Failure;
use crate::output::Output;

pub(crate) fn streams(db: &Path, args: &Tenant, output: &Output) -> Result<ExitCode, Failure> {
    for stream in survey_tenant(db, &args.tenant)?.streams()? {
        output.line(
            &format!("{}\t{}", stream.events, stream.name),
            &json!({"stream": stream.name.as_str(), "events": stream.events}),
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn stats(db: &Path, args: &Tenant, output: &Output) -> Result<ExitCode, Failure> {
    let stats = survey_tenant(db, &args.tenant)?.stats()?;
    let caches = [
        ("stream_ids", stats.stream_ids),
        ("stream_names", stats.stream_names),
        ("session_ciphers", stats.session_ciphers),
    ];
    let mut text = vec![format!(
        "{} records, {} events in {} streams, {} segments, {} bytes used of {}",
        stats.records,
        stats.events,
        stats.streams,
        stats.segments,
        stats.used_bytes,
        stats.file_bytes
    )];
    text.extend(caches.map(|(name, cache)| cache_line(name, &cache)));
    let caches = caches.map(|(name, cache)| (name.to_owned(), cache_value(&cache)));
    output.line(
        &text.join("\n"),
        &json!({
            "records": stats.records,
            "events": stats.events,
            "streams": stats.streams,
            "segments": stats.segments,
            "used_bytes": stats.used_bytes,
            "file_bytes": stats.file_bytes,
            "caches": Value::Object(caches.into_iter().collect()),
        }),
    )?;
    Ok(ExitCode::SUCCESS)
}

fn cache_line(name: &str, cache: &CacheStats) -> String {
    format!(
        "cache {name}: {} hits, {} misses, {} of {} entries",
        cache.hits, cache.misses, cache.entries, cache.entries_max
    )
}

fn cache_value(cache: &CacheStats) -> Value {
    json!({
        "hits": cache.hits,
        "misses": cache.misses,
        "entries": cache.entries,
        "entries_max": cache.entries_max,
    })
}

pub(crate) fn inspect(db: &Path, args: &Tenant, output: &Output) -> Result<ExitCode, Failure> {
    let inspection = survey_tenant(db, &args.tenant)?.inspect()?;
    let mut text = vec![
        format!("log {}", inspection.log_id),
        format!("origin {}", inspection.origin),
    ];
    let mut segments = Vec::new();
    for segment in &inspection.segments {
        let state = format!("{:?}", segment.state).to_lowercase();
        text.push(format!(
            "segment {} {state} positions {}..{} bytes {}/{}",
            segment.name, segment.base, segment.end, segment.used_bytes, segment.file_bytes
        ));
        segments.push(json!({
            "name": segment.name,
            "state": state,
            "base": segment.base.get(),
            "end": segment.end.get(),
            "used_bytes": segment.used_bytes,
            "file_bytes": segment.file_bytes,
        }));
    }
    for key in &inspection.keys {
        text.push(format!(
            "key {} version {} epoch {}",
            key.id, key.version, key.epoch
        ));
    }
    for session in &inspection.sessions {
        text.push(format!("key session {session}"));
    }
    for size in &inspection.checkpoints {
        text.push(format!("checkpoint {size}"));
    }
    let keys = inspection
        .keys
        .iter()
        .map(|key| json!({"id": key.id, "version": key.version, "epoch": key.epoch}));
    let sessions = inspection
        .sessions
        .iter()
        .map(|session| session.position().get());
    let value = json!({
        "log_id": inspection.log_id,
        "origin": inspection.origin,
        "segments": segments,
        "keys": keys.collect::<Vec<_>>(),
        "sessions": sessions.collect::<Vec<_>>(),
        "checkpoints": inspection.checkpoints,
    });
    output.line(&text.join("\n"), &value)?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn checkpoint(db: &Path, args: &Tenant, output: &Output) -> Result<ExitCode, Failure> {
    let db = Database::builder(db).create(false).open()?;
    let tenant = db.existing_tenant(&args.tenant)?;
    let checkpoint = tenant.checkpoint()?;
    let key = tenant.verifier_key();
    output.line(
        &format!("{}\nverifier key: {key}", checkpoint.note().trim_end()),
        &json!({
            "size": checkpoint.size(),
            "root": checkpoint.root().to_string(),
            "chain": checkpoint.chain().to_string(),
            "note": checkpoint.note(),
            "verifier_key": key,
        }),
    )?;
    drop(tenant);
    db.close()?;
    Ok(ExitCode::SUCCESS)
}
