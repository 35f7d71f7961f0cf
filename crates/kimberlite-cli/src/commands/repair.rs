//! `kimberlite repair`.

use std::path::Path;
use std::process::ExitCode;

use kimberlite::{Database, RepairOptions};
use serde_json::json;

use crate::args::Repair;
use crate::exit::Failure;
use crate::output::Output;

/// What a repair exits with that only says what would be lost.
const DAMAGED: u8 = 2;

pub(crate) fn run(db: &Path, args: &Repair, output: &Output) -> Result<ExitCode, Failure> {
    let options = RepairOptions::new().accept_loss(args.accept_loss);
    let report = Database::builder(db).repair(&args.tenant, &options)?;
    let damaged = !report.problems.is_empty();
    let mut text = report.problems.clone();
    if damaged || report.done {
        let (verb, end, known) = (
            if report.done { "was" } else { "would be" },
            report.end,
            report.known_end,
        );
        let (segment, byte) = &report.cut_at;
        text.push(if known > end {
            format!(
                "the log {verb} ended at position {end}, in segment {segment} at byte {byte}; \
                 records {end}..{known} at least are lost, also those that can be read"
            )
        } else {
            format!("no record is known to be lost: the log ends at position {end}")
        });
        text.extend(
            report
                .segments
                .iter()
                .map(|it| format!("segment {it} {verb} set aside")),
        );
        let checkpoints = report.checkpoints.iter();
        text.extend(checkpoints.map(|it| format!("checkpoint {it} {verb} set aside")));
    } else {
        text.push("there is nothing to repair".to_owned());
    }
    match &report.origin {
        Some(origin) => text.push(format!("from now on it signs as {origin}")),
        None if damaged => {
            text.push("restore a backup where there is one; else run it with --accept-loss".into());
        }
        None => {}
    }
    let value = json!({
        "problems": report.problems,
        "end": report.end.get(),
        "known_end": report.known_end.get(),
        "segment": report.cut_at.0,
        "byte": report.cut_at.1,
        "segments": report.segments,
        "checkpoints": report.checkpoints,
        "done": report.done,
        "origin": report.origin,
    });
    output.line(&text.join("\n"), &value)?;
    Ok(if damaged && !report.done {
        ExitCode::from(DAMAGED)
    } else {
        ExitCode::SUCCESS
    })
}
