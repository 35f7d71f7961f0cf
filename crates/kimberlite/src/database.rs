//! A directory of tenants.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use kimberlite_disk::{DirectoryLock, DiskError};
use kimberlite_projection::{Runner, RunnerOptions};
use kimberlite_storage::{
    Background, LogOptions, SegmentSpace, StorageError, SyncDriver, Visibility, log_exists,
};
use kimberlite_types::TenantName;

use crate::backup;
use crate::error::{Error, Problem};
use crate::keys::KeyStore;
use crate::open;
use crate::opened::Opened;
use crate::options::{DatabaseBuilder, Options, SyncPolicy};
use crate::quiet::Quiet;
use crate::restore;
use crate::tenant::Tenant;

/// A database: a directory of tenants, open in this process alone.
///
/// Handles of tenants and streams keep the directory locked until the last of them is gone.
#[derive(Debug)]
pub struct Database {
    shared: Arc<DatabaseShared>,
    tenants: Mutex<HashMap<TenantName, Tenant>>,
}

/// What every tenant of a database needs.
#[derive(Debug)]
pub(crate) struct DatabaseShared {
    pub(crate) path: PathBuf,
    pub(crate) options: Options,
    pub(crate) log_options: LogOptions,
    pub(crate) keys: KeyStore,
    pub(crate) quiet: Option<Quiet>,
    /// Ends, and with it what was answered early, before the lock is let go.
    pub(crate) driver: SyncDriver,
    /// Makes snapshots, and ends before the directory is let go: a thread of its own, so that no
    /// segment waits for one.
    pub(crate) snapshots: Background,
    /// Runs the projections of all tenants.
    pub(crate) runner: Runner,
    pub(crate) opened: Opened,
    /// The process that holds the lock.
    pub(crate) process_id: u32,
    /// The driver's thread has it too.
    _lock: Option<Arc<dyn DirectoryLock>>,
}

impl Database {
    /// Opens the database in the directory `path`, and makes it when there is none.
    ///
    /// # Errors
    ///
    /// As [`DatabaseBuilder::open`].
    ///
    /// # Examples
    ///
    /// ```
    /// use kimberlite::{Database, Event, ExpectedVersion};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path();
    /// let db = Database::open(path)?;
    /// let patient = db.tenant("clinic-7")?.stream("patient/42")?;
    /// patient.append(ExpectedVersion::NoStream, &[Event::new("admitted", "ward 3")])?;
    /// assert_eq!(patient.len()?, 1);
    /// db.close()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::builder(path).open()
    }

    /// Begins to open the database in the directory `path` with other options.
    pub fn builder(path: impl AsRef<Path>) -> DatabaseBuilder {
        DatabaseBuilder::new(path.as_ref().to_owned())
    }

    pub(crate) fn open_with(path: PathBuf, options: Options) -> Result<Self, Error> {
        let disk = Arc::clone(&options.disk);
        let tenants_dir = path.join("tenants");
        let exists = disk.exists(&tenants_dir)?;
        if disk.exists(&path.join(restore::MARKER_NAME))? {
            return Err(Problem::UnfinishedRestore { path }.into());
        }
        if !options.read_only {
            // A backup that was never finished has no manifest, but it may have all keys.
            for name in [backup::MANIFEST_NAME, backup::MARKER_NAME] {
                if disk.exists(&path.join(name))? {
                    return Err(Problem::IsBackup { path }.into());
                }
            }
        }
        let may_create = options.create && !options.read_only;
        if !exists && !may_create {
            return Err(Problem::NoDatabase { path }.into());
        }
        let lock = if options.read_only {
            None
        } else {
            disk.create_dir_all(&path)?;
            Some(Arc::from(lock(&options, &path)?))
        };
        // A root key is made before the first tenant, never beside tenants that lack theirs.
        let keys = KeyStore::open(&disk, &path.join("keys"), options.entropy.as_ref(), !exists)?;
        if !exists {
            disk.create_dir_all(&tenants_dir)?;
        }
        let background = || {
            if options.background {
                Background::thread()
            } else {
                Background::inline()
            }
        };
        let snapshots = background();
        let mut log_options = LogOptions::new(Arc::clone(&options.entropy), background());
        log_options.tail_bytes_max = options.tail_bytes_max;
        if let Some(budget) = &options.budget {
            log_options.budget = Arc::clone(budget);
        }
        log_options.write_mode = options.write_mode;
        log_options.index_stride_bytes = options.index_stride_bytes;
        log_options.read_mode = options.read_mode;
        if !options.sync_policy.is_durable() {
            log_options.visibility = Visibility::Written;
            log_options.segment_space = SegmentSpace::Taken;
        }
        if let SyncPolicy::GroupCommit { max_delay } = options.sync_policy {
            log_options.sync_delay = max_delay;
        }
        let watches = options.background && options.sync_policy.is_durable() && !options.read_only;
        let quiet = watches.then(Quiet::default);
        let shared = DatabaseShared {
            path,
            process_id: (options.process_id)(),
            opened: Opened::new(options.opened_bytes_max),
            runner: Runner::new(runner_options(&options)),
            options,
            log_options,
            keys,
            quiet,
            driver: SyncDriver::holding(lock.clone()),
            snapshots,
            _lock: lock,
        };
        Ok(Self {
            shared: Arc::new(shared),
            tenants: Mutex::default(),
        })
    }

    /// Returns the directory.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    pub(crate) fn shared(&self) -> &Arc<DatabaseShared> {
        &self.shared
    }

    /// Lists the tenants, by name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) when the directory cannot be read.
    pub fn tenants(&self) -> Result<Vec<TenantName>, Error> {
        let disk = &self.shared.options.disk;
        let mut names = Vec::new();
        for entry in disk.list(&self.shared.path.join("tenants"))? {
            let Ok(name) = TenantName::new(&entry.name) else {
                continue;
            };
            if !entry.is_dir {
                continue;
            }
            match log_exists(disk.as_ref(), &self.shared.tenant_dir(&name)) {
                // What is left of a damaged one must be seen, too.
                Ok(true) | Err(StorageError::FirstSegmentMissing) => names.push(name),
                Ok(false) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(names)
    }

    /// Opens a tenant, and makes it when there is none.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): the name is not allowed.
    /// * [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) and
    ///   [`ErrorKind::RolledBack`](crate::ErrorKind::RolledBack): its log is not what was written.
    ///   Nothing was changed; a read-only database reads what can be read.
    /// * [`ErrorKind::WrongKey`](crate::ErrorKind::WrongKey) and
    ///   [`ErrorKind::KeyFile`](crate::ErrorKind::KeyFile): its keys cannot be used.
    pub fn tenant(&self, name: &str) -> Result<Tenant, Error> {
        self.open_tenant(name, !self.shared.options.read_only)
    }

    /// Opens a tenant that exists.
    ///
    /// # Errors
    ///
    /// As [`Database::tenant`], and [`ErrorKind::NotFound`](crate::ErrorKind::NotFound).
    pub fn existing_tenant(&self, name: &str) -> Result<Tenant, Error> {
        self.open_tenant(name, false)
    }

    fn open_tenant(&self, name: &str, create: bool) -> Result<Tenant, Error> {
        let name = TenantName::new(name)?;
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tenant) = tenants.get(&name) {
            return Ok(tenant.clone());
        }
        let tenant = open::open_tenant(&self.shared, &name, create)?;
        tenants.insert(name, tenant.clone());
        Ok(tenant)
    }

    /// Lets go of an open tenant of a read-only database, so that opening it again reads what has
    /// been written since.
    pub fn forget(&self, name: &TenantName) {
        if self.shared.options.read_only {
            self.tenants
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(name);
        }
    }

    /// Makes a checkpoint of every open tenant, notes that its log is whole, and closes it for
    /// appending. Handles that are left can still read.
    ///
    /// # Errors
    ///
    /// The first error of any tenant; the others are closed all the same. An append whose outcome
    /// was unknown stays so: [`ErrorKind::OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown).
    pub fn close(mut self) -> Result<(), Error> {
        let tenants = self
            .tenants
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        let mut names = tenants.keys().cloned().collect::<Vec<_>>();
        names.sort_unstable();
        let results = names
            .iter()
            .filter_map(|name| tenants.get(name))
            .map(Tenant::close);
        results.collect::<Vec<_>>().into_iter().collect()
    }
}

impl Drop for Database {
    /// Lets the directory go at once when no other handle is left, not at the end of a look that the
    /// background takes at a tenant.
    fn drop(&mut self) {
        let tenants = self
            .tenants
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        // A forked process has not got the thread that would end its look.
        let is_owner = (self.shared.options.process_id)() == self.shared.process_id;
        if let Some(quiet) = self.shared.quiet.as_ref().filter(|_| is_owner) {
            quiet.end_if(|| tenants.values().all(|tenant| tenant.handles() == 1));
        }
    }
}

impl DatabaseShared {
    pub(crate) fn tenant_dir(&self, name: &TenantName) -> PathBuf {
        self.path.join("tenants").join(name.as_str())
    }
}

fn runner_options(options: &Options) -> RunnerOptions {
    let mut runner = RunnerOptions::default();
    if !options.background {
        runner.threads_max = 0;
    }
    runner
}

fn lock(options: &Options, path: &Path) -> Result<Box<dyn DirectoryLock>, Error> {
    options
        .disk
        .lock(&path.join("LOCK"))
        .map_err(|error| match error {
            source @ DiskError::Locked { .. } => Problem::InUse {
                path: path.to_owned(),
                source,
            }
            .into(),
            other => other.into(),
        })
}
