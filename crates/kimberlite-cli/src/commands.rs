//! The commands, a file each or a file for a family.

pub(crate) mod append;
pub(crate) mod demo;
pub(crate) mod import;
pub(crate) mod read;
pub(crate) mod survey;
pub(crate) mod verify;

use std::path::Path;

use kimberlite::{Database, Tenant};

use crate::exit::Failure;

/// Opens a tenant for reading, beside a writer if there is one.
fn observe(db: &Path, tenant: &str) -> Result<Tenant, Failure> {
    let db = Database::builder(db).read_only(true).open()?;
    Ok(db.existing_tenant(tenant)?)
}
