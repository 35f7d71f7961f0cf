//! A projection that follows a tenant's log into a file.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kimberlite::{Followed, Tenant, TenantName};

use crate::error::Error;
use crate::generations::{Generations, LINK};
use crate::mapping::Mapping;
use crate::plan::Plan;
use crate::reader::{Answer, Reader, Value};
use crate::target::SqliteTarget;

/// The version of what is made of the same log by the same mapping.
const VERSION: u32 = 1;

/// A projection that follows a tenant's log into a `SQLite` file, for as long as this is there.
///
/// [`Followed`] says where it is, and waits for it.
#[derive(Debug)]
pub struct SqliteProjection {
    followed: Followed,
    path: PathBuf,
}

impl SqliteProjection {
    /// Has the projection `name` of a tenant follow its log in the background. The file is made when there is none,
    /// and made anew when the mapping is another one than it was made by.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] as of [`Tenant::project_into`].
    pub fn open(tenant: &Tenant, name: &str, mapping: &Mapping) -> Result<Self, Error> {
        let plan = Arc::new(Plan::new(mapping));
        let mut path = None;
        let followed = tenant.project_into((name, VERSION), |place| {
            path = Some(Generations::new(place.directory).link());
            let is_prefix = |applied| place.knows(applied);
            SqliteTarget::open(place.directory, place.identity, plan, &is_prefix)
        })?;
        Ok(Self {
            followed,
            path: path.expect("its target was opened"),
        })
    }

    /// Returns where the file of the projection `name` of a tenant is, or would be, in the database in `directory`.
    pub fn path_in(directory: &Path, tenant: &TenantName, name: &str) -> PathBuf {
        let tenant = directory.join("tenants").join(tenant.as_str());
        tenant.join("projections").join(name).join(LINK)
    }

    /// Returns where the file is that any tool may read, also while it is written: a link, which is renamed when the
    /// projection was rebuilt. Whoever has it open then keeps the old file until he opens it again.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the file for reading.
    ///
    /// # Errors
    ///
    /// As [`Reader::open`].
    pub fn reader(&self) -> Result<Reader, Error> {
        Reader::open(&self.path)
    }

    /// Asks the file something, in a connection of its own; see [`Reader::query`].
    ///
    /// # Errors
    ///
    /// As [`Reader::open`] and [`Reader::query`].
    pub fn query(&self, sql: &str, parameters: &[Value]) -> Result<Answer, Error> {
        self.reader()?.query(sql, parameters)
    }
}

impl Deref for SqliteProjection {
    type Target = Followed;

    fn deref(&self) -> &Followed {
        &self.followed
    }
}
