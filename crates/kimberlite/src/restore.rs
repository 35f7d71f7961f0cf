//! Restoring a backup into an empty directory.
//!
//! Order: 1. a marker says that a restore is under way, and of which backup; a database with it is
//! not opened, 2. every file of the manifest is copied and compared with it, 3. each tenant gets its
//! new incarnation and its newest note, 4. the marker goes. A crash leaves the marker, and the same
//! restore goes on from there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kimberlite_crypto::{RootKey, SignedCheckpoint, Signer, internal_hash};
use kimberlite_disk::{Access, Disk, DiskError};
use kimberlite_storage::{
    BackedUpTenant, CheckpointStore, Manifest, Statement, StorageError, copy_file, file_matches,
    sync_names,
};
use kimberlite_types::{TenantName, Timestamp};
use zeroize::Zeroizing;

use crate::backup::read_manifest;
use crate::environment::random;
use crate::error::{Error, Problem};
use crate::incarnation::{self, Beginning, Cause, Incarnation};
use crate::options::{DatabaseBuilder, Options};

/// Says that a restore is under way, or was interrupted.
pub(crate) const MARKER_NAME: &str = "restore.unfinished";

const ROOT_KEY_PATH: &str = "keys/root.key";
const SMALL_FILE_BYTES_MAX: u64 = 64 << 10;

/// How a backup is restored.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RestoreOptions {
    root_key: Option<PathBuf>,
}

/// How far a restore has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestoreProgress {
    /// Bytes that were copied.
    pub bytes_done: u64,
    /// Bytes of the backup.
    pub bytes_total: u64,
}

/// What a restore did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RestoreReport {
    /// When the backup was made.
    pub backed_up: Timestamp,
    /// The tenants, by name.
    pub tenants: Vec<RestoredTenant>,
    /// Whether the database has no root key yet: put it into `keys/root.key` to open it.
    pub lacks_root_key: bool,
    /// Whether a later backup into the same directory was interrupted: what was restored is the one
    /// before it.
    pub later_backup_unfinished: bool,
}

/// A tenant that was restored.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RestoredTenant {
    /// The tenant.
    pub name: TenantName,
    /// How many records it has.
    pub records: u64,
    /// The origin of its checkpoints before.
    pub old_origin: String,
    /// The origin of its checkpoints from now on.
    pub origin: String,
}

impl RestoreOptions {
    /// The defaults: the root key is the one in the backup, if there is one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The file of the root key, for a backup that was made without it.
    #[must_use]
    pub fn root_key(mut self, path: impl AsRef<Path>) -> Self {
        self.root_key = Some(path.as_ref().to_owned());
        self
    }
}

impl DatabaseBuilder {
    /// Restores the backup in `backup` to the directory of this database, which is empty or where
    /// the same restore was interrupted.
    ///
    /// Every file is checked while it is copied. Each log begins a new incarnation: its
    /// checkpoints have an origin of their own from now on, so that they never pass for those of
    /// the original, which may have gone on. The first opening for writing puts a restore record
    /// into the log that names the old origin, size and root.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::Unfinished`](crate::ErrorKind::Unfinished): the backup was never finished.
    /// * [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt): a file of the backup, which the message
    ///   names, is missing or damaged.
    /// * [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): the directory is not empty.
    pub fn restore(
        self,
        backup: &Path,
        options: &RestoreOptions,
        progress: &mut dyn FnMut(RestoreProgress),
    ) -> Result<RestoreReport, Error> {
        let (to, database) = self.into_parts();
        let disk = Arc::clone(&database.disk);
        let manifest = read_manifest(disk.as_ref(), backup)?;
        let marker = internal_hash(manifest.encode().as_bytes()).to_string();
        check_target(disk.as_ref(), &to, &marker)?;
        disk.create_dir_all(&to)?;
        let _lock = disk.lock(&to.join("LOCK"))?;
        disk.write_new_atomic(&to.join(MARKER_NAME), marker.as_bytes(), Access::Shared)?;
        let mut done = RestoreProgress {
            bytes_done: 0,
            bytes_total: manifest.files.iter().map(|file| file.used).sum(),
        };
        for file in &manifest.files {
            if !file_matches(disk.as_ref(), &to, file)? {
                copy_file(disk.as_ref(), backup, &to, file)?;
            }
            done.bytes_done += file.used;
            progress(done);
        }
        if let Some(path) = &options.root_key {
            copy_root_key(disk.as_ref(), path, &to)?;
        }
        let restore = Restore {
            options: &database,
            to: &to,
            manifest: &manifest,
        };
        let tenants = manifest.tenants.iter();
        let tenants = tenants.map(|tenant| restore.tenant(tenant));
        let tenants = tenants.collect::<Result<Vec<_>, Error>>()?;
        sync_names(disk.as_ref(), &to, &manifest.files)?;
        disk.remove(&to.join(MARKER_NAME))?;
        disk.sync_dir(&to)?;
        Ok(RestoreReport {
            backed_up: manifest.time,
            tenants,
            lacks_root_key: !disk.exists(&to.join(ROOT_KEY_PATH))?,
            later_backup_unfinished: disk.exists(&backup.join(crate::backup::MARKER_NAME))?,
        })
    }
}

struct Restore<'a> {
    options: &'a Options,
    to: &'a Path,
    manifest: &'a Manifest,
}

impl Restore<'_> {
    /// Gives a tenant, whose files are there, its new incarnation.
    fn tenant(&self, tenant: &BackedUpTenant) -> Result<RestoredTenant, Error> {
        let disk = &self.options.disk;
        let name = tenant.name.as_str();
        let dir = self.to.join("tenants").join(name);
        let store = CheckpointStore::new(Arc::clone(disk), &dir);
        let note = self.signed_note(tenant, &store)?;
        let label = tenant.origin.split('/').next().unwrap_or(name);
        let before = Incarnation::read(disk.as_ref(), &dir)?;
        // An interrupted restore has written the next one over the one that came with the backup.
        let path = format!("tenants/{name}/{}", incarnation::FILE_NAME);
        let before = before.filter(|_| self.manifest.file(&path).is_some());
        let of = Beginning {
            cause: Cause::Restored,
            before: before.as_ref(),
            origin: incarnation::origin(label, &tenant.log_id, before.as_ref()),
            position: tenant.size,
            known_end: tenant.size,
            stated: Statement {
                size: tenant.size,
                root: tenant.root,
                chain: tenant.chain,
            },
        };
        let old_origin = of.origin.clone();
        let token = random(self.options.entropy.as_ref())?;
        let next = Incarnation::begin(of, token).ok_or(Problem::TooManyIncarnations)?;
        next.write(disk.as_ref(), &dir)?;
        store.show(&note)?;
        Ok(RestoredTenant {
            name: tenant.name.clone(),
            records: tenant.size.get(),
            old_origin,
            origin: incarnation::origin(label, &tenant.log_id, Some(&next)),
        })
    }

    /// Returns the note that vouches for the copy: the manifest is not signed, the note is.
    fn signed_note(
        &self,
        tenant: &BackedUpTenant,
        store: &CheckpointStore,
    ) -> Result<String, Error> {
        let name = tenant.name.as_str();
        let bad = |path: String| Error::from(StorageError::BackupFile { path });
        let key = format!("keys/{name}/signer.pem");
        let note_path = format!("tenants/{name}/checkpoints/{:020}.note", tenant.size.get());
        if self.manifest.file(&key).is_none() || self.manifest.file(&note_path).is_none() {
            return Err(bad(note_path));
        }
        let pem = self
            .options
            .disk
            .read(&self.to.join(&key), SMALL_FILE_BYTES_MAX)?;
        let pem = Zeroizing::new(pem);
        let signer = std::str::from_utf8(&pem).ok();
        let signer = signer.and_then(|pem| Signer::from_pem(pem).ok());
        let signer = signer.ok_or_else(|| bad(key.clone()))?;
        let verifier = signer
            .verifier_key(&tenant.origin)
            .map_err(Problem::Origin)?;
        let note = store.note(tenant.size)?;
        let body = SignedCheckpoint::parse(&note).and_then(|signed| signed.verify(&verifier));
        let body = body.map_err(|_| bad(note_path.clone()))?;
        let stated = (body.size, body.root, body.chain);
        if stated == (tenant.size.get(), tenant.root, tenant.chain) {
            Ok(note)
        } else {
            Err(bad(note_path))
        }
    }
}

/// Refuses a directory that holds anything but the beginning of this restore.
fn check_target(disk: &dyn Disk, to: &Path, marker: &str) -> Result<(), Error> {
    let entries = match disk.list(to) {
        Ok(entries) => entries,
        Err(DiskError::NotFound { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let begun = match disk.read(&to.join(MARKER_NAME), SMALL_FILE_BYTES_MAX) {
        Ok(found) => found == marker.as_bytes(),
        Err(DiskError::NotFound { .. } | DiskError::TooLarge { .. }) => false,
        Err(error) => return Err(error.into()),
    };
    let ours = |name: &str| name == "LOCK" || name == format!("{MARKER_NAME}.tmp");
    if begun || entries.iter().all(|entry| ours(&entry.name)) {
        return Ok(());
    }
    Err(Problem::NotEmpty {
        path: to.to_owned(),
    }
    .into())
}

fn copy_root_key(disk: &dyn Disk, from: &Path, to: &Path) -> Result<(), Error> {
    let text = Zeroizing::new(disk.read(from, SMALL_FILE_BYTES_MAX)?);
    let root = std::str::from_utf8(&text).ok();
    let root = root.and_then(|text| RootKey::decode(text).ok());
    let root = root.ok_or_else(|| Problem::NotARootKey {
        path: from.to_owned(),
    })?;
    disk.create_dir_all(&to.join("keys"))?;
    let path = to.join(ROOT_KEY_PATH);
    disk.write_new_atomic(&path, root.encode().as_bytes(), Access::Private)?;
    Ok(())
}
