//! What there is of a tenant's projections on disk, whether they run or not.

use std::path::{Path, PathBuf};

use kimberlite_projection::store::{Store, StoreError, StoreSize, StoreSummary};
use kimberlite_types::TenantName;

use super::cannot_go_on;
use crate::error::{Error, Problem};
use crate::tenant::{Tenant, TenantInner};

/// What there is of a projection on disk.
#[derive(Debug)]
#[non_exhaustive]
pub struct ProjectionFiles {
    /// Its name.
    pub name: String,
    /// What it has, as of its last flush; none where it keeps that in another way than in a store.
    pub store: Option<Result<StoreSummary, StoreError>>,
    /// What is being derived anew beside it, or was when the database was closed.
    pub rebuilding: Option<Result<StoreSummary, StoreError>>,
}

impl Tenant {
    /// Lists the projections that there is something of on disk, by name. They need not run, and the database may
    /// be open in another process.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) when the directory cannot be read.
    pub fn projections(&self) -> Result<Vec<ProjectionFiles>, Error> {
        self.inner().projections()
    }

    /// Reads all of a projection's store, which must not run, and checks each page and how they fit together.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::Projection`](crate::ErrorKind::Projection): it is damaged, and is derived anew when it runs next.
    /// * [`ErrorKind::NotFound`](crate::ErrorKind::NotFound): there is none of that name.
    /// * [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): it runs.
    pub fn verify_projection(&self, name: &str) -> Result<StoreSize, Error> {
        self.inner().verify_projection(name)
    }

    /// Removes what a projection has derived, which must not run: it is derived anew when it runs next.
    ///
    /// # Errors
    ///
    /// As [`verify_projection`](Self::verify_projection).
    pub fn discard_projection(&self, name: &str) -> Result<(), Error> {
        self.inner().discard_projection(name)
    }
}

impl TenantInner {
    fn projections(&self) -> Result<Vec<ProjectionFiles>, Error> {
        let disk = self.database.options.disk.as_ref();
        let directory = self.projections_dir();
        if !disk.exists(&directory)? {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for entry in disk.list(&directory)? {
            if entry.is_dir && TenantName::new(&entry.name).is_ok() {
                let directory = directory.join(&entry.name);
                found.push(ProjectionFiles {
                    store: self.survey(&directory.join(kimberlite_projection::STORE_FILE))?,
                    rebuilding: self
                        .survey(&directory.join(kimberlite_projection::STORE_NEW_FILE))?,
                    name: entry.name,
                });
            }
        }
        Ok(found)
    }

    fn survey(&self, path: &Path) -> Result<Option<Result<StoreSummary, StoreError>>, Error> {
        let disk = self.database.options.disk.as_ref();
        Ok(disk.exists(path)?.then(|| Store::survey(disk, path)))
    }

    /// Returns the directory of a projection that does not run.
    fn standing(&self, name: &str) -> Result<PathBuf, Error> {
        self.check_writable()?;
        if self.followers.has(name) {
            let name = name.to_owned();
            return Err(Problem::ProjectionRuns { name }.into());
        }
        let directory = self.projections_dir().join(name);
        let exists =
            TenantName::new(name).is_ok() && self.database.options.disk.exists(&directory)?;
        if !exists {
            let name = name.to_owned();
            return Err(Problem::NoProjection { name }.into());
        }
        Ok(directory)
    }

    fn verify_projection(&self, name: &str) -> Result<StoreSize, Error> {
        let _alone = self.projecting();
        let path = self.standing(name)?.join(kimberlite_projection::STORE_FILE);
        let disk = self.database.options.disk.as_ref();
        let verified = Store::survey(disk, &path).and_then(|summary| {
            Store::open(disk, &path, summary.identity, self.store_options())?.verify()
        });
        verified.map_err(|error| cannot_go_on(name, error))
    }

    fn discard_projection(&self, name: &str) -> Result<(), Error> {
        let _alone = self.projecting();
        let directory = self.standing(name)?;
        let disk = self.database.options.disk.as_ref();
        for entry in disk.list(&directory)? {
            if !entry.is_dir {
                disk.remove(&directory.join(&entry.name))?;
            }
        }
        Ok(disk.sync_dir(&directory)?)
    }
}
