//! `kimberlite demo`: the promises, shown on a real disk.

use std::collections::HashMap;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use kimberlite::{Database, Position, Tenant};
use serde_json::json;

use super::kill::{Moment, kill_writer, require, scratch_dir};
use super::{import, verify};
use crate::args::{Demo, Format, Import, OnError};
use crate::exit::Failure;
use crate::output::Output;

const CLINIC: &[u8] = include_bytes!("../../../../examples/data/clinic.jsonl");
const TENANT: &str = "clinic";
const KILLED_AT: Moment = Moment::after_events(50);

pub(crate) fn run(args: &Demo, output: &Output) -> Result<ExitCode, Failure> {
    let dir = scratch_dir(args.keep.as_deref())?;
    let db = dir.join("db");
    output.line(
        &format!("1. a fresh database in {}", db.display()),
        &json!({"db": db}),
    )?;
    import_clinic(&db, output)?;
    let acknowledged = kill_writer(&db, KILLED_AT)?;
    output.line(
        &format!(
            "5. killed a writer with SIGKILL after {acknowledged} acknowledged events: all of \
             them are there, and the log verifies"
        ),
        &json!({"acknowledged": acknowledged}),
    )?;
    flip_a_byte(&dir, &db, output)?;
    let database = Database::open(&db).map_err(Failure::Database)?;
    let checkpoint = database.tenant(TENANT)?.checkpoint()?;
    output.line(
        &format!(
            "7. the signed checkpoint of {} records:\n\n{}",
            checkpoint.size(),
            checkpoint.note()
        ),
        &json!({"note": checkpoint.note()}),
    )?;
    database.close()?;
    if args.keep.is_some() {
        output.line(
            &format!(
                "the files are in {}; try `kimberlite --db {} read -t clinic --limit 5`",
                dir.display(),
                db.display()
            ),
            &json!({"dir": dir}),
        )?;
    } else {
        super::kill::remove(&dir)?;
        output.line(
            "the files are removed again; keep them with `kimberlite demo --keep DIR`",
            &json!({"removed": dir}),
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a demonstration is timed by the clock"
)]
fn import_clinic(db: &Path, output: &Output) -> Result<(), Failure> {
    let database = Database::open(db)?;
    let tenant = database.tenant(TENANT)?;
    let args = Import {
        file: PathBuf::from("clinic.jsonl"),
        format: Some(Format::Jsonl),
        tenant: TENANT.to_owned(),
        stream_by: "patient".to_owned(),
        type_by: "type".to_owned(),
        batch: 100,
        on_error: OnError::Stop,
        source: None,
    };
    let bar = output.progress(
        Some(u64::try_from(CLINIC.len()).unwrap_or(u64::MAX)),
        "bytes",
    );
    let started = Instant::now();
    let done = import::import(
        &tenant,
        &args,
        &mut BufReader::new(bar.wrap_read(CLINIC)),
        &bar,
    )?;
    let seconds = started.elapsed().as_secs_f64();
    bar.finish_and_clear();
    let rate = format!(
        "{:.0}",
        f64::from(u32::try_from(done.events).unwrap_or(u32::MAX)) / seconds
    );
    output.line(
        &format!(
            "2. imported {} events, each durable when its append returned: {rate} events/s",
            done.events
        ),
        &json!({"imported": done.events, "events_per_second": rate}),
    )?;
    read_longest(&tenant, output)?;
    let report = verify::verify(&tenant, output)?;
    require(report.is_sound(), "a fresh database does not verify")?;
    output.line(
        &format!(
            "4. verified: {} records, root {}",
            report.records, report.root
        ),
        &json!({"records": report.records, "root": report.root.to_string()}),
    )?;
    drop(tenant);
    Ok(database.close()?)
}

/// Reads the patient with the most events.
fn read_longest(tenant: &Tenant, output: &Output) -> Result<(), Failure> {
    let patient = tenant
        .streams()?
        .into_iter()
        .max_by_key(|stream| stream.events);
    let patient = patient.ok_or_else(|| Failure::Demo("no stream was imported".to_owned()))?;
    let mut kinds: HashMap<String, u64> = HashMap::new();
    let mut read = 0;
    for record in tenant.stream(patient.name.as_str())?.read(..) {
        *kinds.entry(record?.event_type().to_owned()).or_default() += 1;
        read += 1;
    }
    require(
        read == patient.events,
        "a stream does not give all of its events",
    )?;
    let mut kinds = kinds.into_iter().collect::<Vec<_>>();
    kinds.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let most = kinds
        .iter()
        .take(3)
        .map(|(kind, count)| format!("{count} {kind}"));
    output.line(
        &format!(
            "3. read {}: {read} events, {} …",
            patient.name,
            most.collect::<Vec<_>>().join(", ")
        ),
        &json!({"stream": patient.name.as_str(), "events": read}),
    )
}

#[expect(
    clippy::disallowed_methods,
    reason = "the copy is damaged behind the database's back"
)]
fn flip_a_byte(dir: &Path, db: &Path, output: &Output) -> Result<(), Failure> {
    let failed = |source| Failure::System {
        what: "damage the copy",
        source,
    };
    let copy = dir.join("damaged-copy");
    copy_dir(db, &copy).map_err(failed)?;
    let (segment, byte, position) = {
        let tenant = super::observe(db, TENANT)?;
        let middle = Position::new(tenant.durable_position().get() / 2);
        let (at, header) = tenant
            .frame(middle)?
            .ok_or_else(|| Failure::Demo("the middle of the log is empty".to_owned()))?;
        let segments = tenant.inspect()?.segments;
        let segment = segments.iter().find(|segment| middle < segment.end);
        let segment = segment
            .map(|segment| segment.name.clone())
            .unwrap_or_default();
        // The last byte of the frame, which belongs to its last payload.
        (
            segment,
            at + u64::from(header.length) - 1,
            header.base_position,
        )
    };
    let path = copy.join("tenants").join(TENANT).join("log").join(&segment);
    let mut bytes = std::fs::read(&path).map_err(failed)?;
    let at = usize::try_from(byte).unwrap_or(usize::MAX);
    let victim = bytes.get_mut(at);
    *victim.ok_or_else(|| Failure::Demo("the frame is not in its segment".to_owned()))? ^= 1;
    std::fs::write(&path, bytes).map_err(failed)?;
    let report = super::observe(&copy, TENANT)?.verify()?;
    let located = report.findings.iter().find(|finding| {
        finding.segment.as_deref() == Some(segment.as_str())
            && finding.position.is_some_and(|found| found >= position)
    });
    let finding = located
        .ok_or_else(|| Failure::Demo(format!("byte {byte} of {segment} was flipped unnoticed")))?;
    output.line(
        &format!(
            "6. flipped one bit of byte {byte} of {segment} in a copy; verification says:\n   {}, \
             byte {}, position {}",
            finding.what,
            finding.byte.unwrap_or_default(),
            finding.position.unwrap_or_default()
        ),
        &json!({"flipped": byte, "segment": segment, "found": finding.what}),
    )
}

#[expect(
    clippy::disallowed_methods,
    reason = "the copy is made behind the database's back"
)]
fn copy_dir(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let (path, target) = {
            let entry = entry?;
            (entry.path(), to.join(entry.file_name()))
        };
        if path.is_dir() {
            copy_dir(&path, &target)?;
        } else {
            std::fs::copy(&path, &target).map(drop)?;
        }
    }
    Ok(())
}
