//! The commands, a file each or a file for a family.

pub(crate) mod append;
pub(crate) mod backup;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod import;
pub(crate) mod kill;
pub(crate) mod projection;
pub(crate) mod read;
pub(crate) mod repair;
pub(crate) mod restore;
pub(crate) mod retention;
pub(crate) mod scrub;
pub(crate) mod sql;
pub(crate) mod survey;
pub(crate) mod verify;

use std::path::Path;

use kimberlite::{Database, Tenant};

use crate::exit::Failure;
use crate::output::Output;

/// Opens a tenant for reading, beside a writer if there is one.
fn observe(db: &Path, tenant: &str) -> Result<Tenant, Failure> {
    let db = Database::builder(db).read_only(true).open()?;
    Ok(db.existing_tenant(tenant)?)
}

/// Opens a tenant for a look at it as a whole, and says so when that is not all of it.
fn survey_tenant(db: &Path, tenant: &str) -> Result<Tenant, Failure> {
    let tenant = observe(db, tenant)?;
    let report = tenant.open_report();
    let damage = report.damage.first().map(ToString::to_string);
    let rolled_back = report
        .rolled_back
        .map(|size| format!("the log was rolled back: a checkpoint vouches for {size} records"));
    if let Some(problem) = damage.or(rolled_back) {
        Output::warning(&format!("{problem}; this is what can be read"));
    }
    Ok(tenant)
}
