//! `kimberlite restore`.

use std::process::ExitCode;

use kimberlite::{Database, RestoreOptions};
use serde_json::json;

use crate::args::Restore;
use crate::exit::Failure;
use crate::output::Output;

pub(crate) fn run(args: &Restore, output: &Output) -> Result<ExitCode, Failure> {
    let mut options = RestoreOptions::new();
    if let Some(root_key) = &args.root_key {
        options = options.root_key(root_key);
    }
    let bar = output.progress(Some(0), "bytes");
    let builder = Database::builder(&args.to);
    let report = builder.restore(&args.from, &options, &mut |progress| {
        bar.set_length(progress.bytes_total);
        bar.set_position(progress.bytes_done);
    })?;
    bar.finish_and_clear();
    if report.later_backup_unfinished {
        Output::warning("a later backup was interrupted; this is the one before it");
    }
    let mut text = Vec::new();
    let mut tenants = Vec::new();
    for tenant in &report.tenants {
        let (name, records) = (&tenant.name, tenant.records);
        let (old, new) = (&tenant.old_origin, &tenant.origin);
        text.push(format!(
            "{name}: {records} records of {old}, from now on {new}"
        ));
        tenants.push(json!({
            "name": name.as_str(),
            "records": records,
            "old_origin": old,
            "origin": new,
        }));
    }
    if report.lacks_root_key {
        text.push("put the root key into keys/root.key to open it".to_owned());
    } else {
        // Each log says at once that it was restored.
        let db = Database::builder(&args.to).create(false).open()?;
        for tenant in &report.tenants {
            db.existing_tenant(tenant.name.as_str())?;
        }
        db.close()?;
    }
    let value = json!({
        "tenants": tenants,
        "lacks_root_key": report.lacks_root_key,
        "later_backup_unfinished": report.later_backup_unfinished,
    });
    output.line(&text.join("\n"), &value)?;
    Ok(ExitCode::SUCCESS)
}
