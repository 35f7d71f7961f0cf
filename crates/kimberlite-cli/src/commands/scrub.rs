//! `kimberlite scrub`.

use std::path::Path;
use std::process::ExitCode;

use kimberlite::{Position, ScrubOptions};
use serde_json::json;

use super::observe;
use crate::args::Scrub;
use crate::exit::Failure;
use crate::output::Output;

/// What a scrub exits with when something is wrong.
const DAMAGED: u8 = 2;

pub(crate) fn run(db: &Path, args: &Scrub, output: &Output) -> Result<ExitCode, Failure> {
    let tenant = observe(db, &args.tenant)?;
    let mut options = ScrubOptions::new().from(Position::new(args.from));
    if let Some(rate) = args.rate {
        options = options.bytes_per_second(rate);
    }
    let bar = output.progress(Some(tenant.durable_position().get()), "records");
    let report = tenant.scrub(&options, &mut |progress| {
        bar.set_position(progress.position.get());
    })?;
    bar.finish_and_clear();
    let (mut text, mut findings) = (Vec::new(), Vec::new());
    for finding in &report.findings {
        let segment = finding.segment.as_deref().unwrap_or_default();
        let (byte, position) = (finding.byte, finding.position.map(Position::get));
        text.push(format!(
            "damaged: {}, segment {segment}, byte {}, position {}",
            finding.what,
            byte.unwrap_or_default(),
            position.unwrap_or_default()
        ));
        let what = &finding.what;
        findings
            .push(json!({"what": what, "segment": segment, "byte": byte, "position": position}));
    }
    text.push(format!(
        "{} segments read, {} bytes",
        report.segments, report.bytes
    ));
    let sound = findings.is_empty();
    output.line(
        &text.join("\n"),
        &json!({
            "sound": sound,
            "segments": report.segments,
            "bytes": report.bytes,
            "findings": findings,
        }),
    )?;
    Ok(ExitCode::from(if sound { 0 } else { DAMAGED }))
}
