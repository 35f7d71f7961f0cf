//! `kimberlite verify`.

use std::path::Path;
use std::process::ExitCode;

use kimberlite::{Tenant as TenantHandle, VerifyReport};
use serde_json::json;

use super::observe;
use crate::args::Tenant;
use crate::exit::Failure;
use crate::output::Output;

/// What verification exits with when something is wrong.
const DAMAGED: u8 = 2;

pub(crate) fn run(db: &Path, args: &Tenant, output: &Output) -> Result<ExitCode, Failure> {
    let tenant = observe(db, &args.tenant)?;
    let report = verify(&tenant, output)?;
    tell(&report, output)?;
    Ok(if report.is_sound() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(DAMAGED)
    })
}

/// Verifies a tenant, showing how far it is.
pub(crate) fn verify(tenant: &TenantHandle, output: &Output) -> Result<VerifyReport, Failure> {
    let bar = output.progress(Some(tenant.durable_position().get()), "records");
    let report = tenant.verify_with(&mut |progress| bar.set_position(progress.records_done))?;
    bar.finish_and_clear();
    Ok(report)
}

/// Writes what a verification found.
pub(crate) fn tell(report: &VerifyReport, output: &Output) -> Result<(), Failure> {
    let mut text = Vec::new();
    let mut findings = Vec::new();
    for finding in &report.findings {
        let segment = finding.segment.as_deref();
        let position = finding.position.map(kimberlite::Position::get);
        text.push(format!(
            "damaged: {}{}{}{}",
            finding.what,
            segment
                .map(|name| format!(", segment {name}"))
                .unwrap_or_default(),
            finding
                .byte
                .map(|byte| format!(", byte {byte}"))
                .unwrap_or_default(),
            position
                .map(|position| format!(", position {position}"))
                .unwrap_or_default(),
        ));
        findings.push(json!({
            "what": finding.what,
            "segment": segment,
            "byte": finding.byte,
            "position": position,
        }));
    }
    text.push(format!(
        "{}: {} records, {} payload bytes, {} checkpoints\nroot {}\nchain {}",
        if report.is_sound() {
            "sound"
        } else {
            "NOT SOUND"
        },
        report.records,
        report.payload_bytes,
        report.checkpoints,
        report.root,
        report.chain,
    ));
    let value = json!({
        "sound": report.is_sound(),
        "records": report.records,
        "payload_bytes": report.payload_bytes,
        "checkpoints": report.checkpoints,
        "root": report.root.to_string(),
        "chain": report.chain.to_string(),
        "findings": findings,
    });
    output.line(&text.join("\n"), &value)
}
