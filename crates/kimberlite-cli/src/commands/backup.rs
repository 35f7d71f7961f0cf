//! `kimberlite backup`.

use std::path::Path;
use std::process::ExitCode;

use kimberlite::{BackupOptions, BackupReport, Database, ErrorKind};
use serde_json::json;

use crate::args::Backup;
use crate::exit::Failure;
use crate::output::Output;

pub(crate) fn run(db: &Path, args: &Backup, output: &Output) -> Result<ExitCode, Failure> {
    let database = match Database::builder(db).create(false).open() {
        Err(error) if error.kind() == ErrorKind::Locked => {
            Output::warning("the database is in use: it is copied up to its newest checkpoints");
            Database::builder(db).read_only(true).open()?
        }
        opened => opened?,
    };
    let options = BackupOptions::new().with_root_key(args.with_root_key);
    let bar = output.progress(Some(0), "bytes");
    let report = database.backup(&args.to, &options, &mut |progress| {
        bar.set_length(progress.bytes_total);
        bar.set_position(progress.bytes_done);
    })?;
    bar.finish_and_clear();
    tell(&report, output)?;
    database.close()?;
    Ok(ExitCode::SUCCESS)
}

fn tell(report: &BackupReport, output: &Output) -> Result<(), Failure> {
    let mut text = Vec::new();
    if report.resumed {
        text.push("went on with a backup that had been interrupted".to_owned());
    }
    let mut tenants = Vec::new();
    for tenant in &report.tenants {
        let (name, size) = (&tenant.name, tenant.checkpoint.size());
        let behind = match tenant.records_behind {
            0 => String::new(),
            behind => format!(", without {behind} that came since its checkpoint"),
        };
        text.push(format!("{name}: {size} records{behind}"));
        tenants.push(json!({
            "name": name.as_str(),
            "records": size,
            "records_behind": tenant.records_behind,
            "origin": tenant.checkpoint.origin(),
            "root": tenant.checkpoint.root().to_string(),
        }));
    }
    text.push(format!(
        "{} files copied ({} bytes), {} there already",
        report.files_copied, report.bytes_copied, report.files_kept
    ));
    output.line(
        &text.join("\n"),
        &json!({
            "tenants": tenants,
            "files_copied": report.files_copied,
            "bytes_copied": report.bytes_copied,
            "files_kept": report.files_kept,
            "resumed": report.resumed,
        }),
    )
}
