//! Backups: consistent copies of a database that writers need not wait for.
//!
//! A backup is a directory laid out like a database, with a manifest ([`Manifest`]) in place of a
//! lock. Each log is copied up to a checkpoint, which vouches for the copy. Order: 1. a marker says
//! that a backup is under way, 2. segments, seals, notes and keys are copied, each recomputed or
//! compared as it is read, and read back, 3. the manifest is put in place of the one before, 4. the
//! marker goes. A crash up to 3 leaves the backup that was there before, if there was one: segments
//! only grow, and a manifest counts their first bytes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kimberlite_disk::{Access, Disk, DiskError};
use kimberlite_storage::{
    BackedUpFile, BackedUpTenant, CheckpointStore, FileContent, MANIFEST_BYTES_MAX, Manifest,
    SegmentPart, StorageError, file_matches, sync_names, write_file,
};
use kimberlite_types::{ChainHash, LogId, Position, TenantName};
use zeroize::Zeroizing;

use crate::checkpoint::{Checkpoint, Thinning};
use crate::database::Database;
use crate::error::{Error, ErrorKind, Problem};
use crate::tenant::Tenant;

/// The manifest's file, which is written last.
pub(crate) const MANIFEST_NAME: &str = "backup.manifest";

/// Says that a backup is under way, or was interrupted.
pub(crate) const MARKER_NAME: &str = "backup.unfinished";

const LOCK_NAME: &str = "LOCK";
const SEGMENT_ENDING: &str = ".seg";

/// Bytes of a note, seal, state or key file that are copied at most.
const SMALL_FILE_BYTES_MAX: u64 = 64 << 20;

/// How a backup is made.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct BackupOptions {
    with_root_key: bool,
}

/// How far a backup has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupProgress {
    /// Bytes of segments that were copied or found to be there.
    pub bytes_done: u64,
    /// Bytes of all segments.
    pub bytes_total: u64,
}

/// What a backup did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BackupReport {
    /// The tenants, by name.
    pub tenants: Vec<TenantBackup>,
    /// Files that were written.
    pub files_copied: u64,
    /// Their bytes, without the zeros behind what counts.
    pub bytes_copied: u64,
    /// Files that were there already, by their content.
    pub files_kept: u64,
    /// Whether an earlier backup into the same directory had been interrupted.
    pub resumed: bool,
}

/// A tenant in a backup.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TenantBackup {
    /// The tenant.
    pub name: TenantName,
    /// The checkpoint that vouches for the copy: it ends with the last record that this one covers.
    pub checkpoint: Checkpoint,
    /// Records that are durable and not in the backup: those that came since, and in a read-only
    /// database all that no checkpoint covers yet.
    pub records_behind: u64,
}

impl BackupOptions {
    /// The defaults: the root key is left out.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the root key is copied too. Whoever has a backup with it can read everything in it;
    /// without it a backup is restored with a root key that was kept elsewhere.
    #[must_use]
    pub fn with_root_key(mut self, with: bool) -> Self {
        self.with_root_key = with;
        self
    }
}

impl Database {
    /// Copies all tenants into the directory `to`, which is empty or holds an earlier backup of this
    /// database: what is there already is not copied again.
    ///
    /// Each tenant is copied up to a checkpoint that is made for it; appends go on meanwhile. A
    /// read-only database, which makes none, is copied up to its newest checkpoints. Everything is
    /// checked as it is read, and read back after it is written.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): `to` holds something else, or
    ///   the backup of another history; or there are more files than a manifest can name.
    /// * [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt): a log is damaged; damage is not copied.
    /// * [`ErrorKind::NotFound`](crate::ErrorKind::NotFound): the database is read-only, and a
    ///   tenant has no checkpoint.
    /// * [`ErrorKind::DiskFull`](crate::ErrorKind::DiskFull): what was copied is kept, and the next
    ///   backup into the same directory goes on from there.
    ///
    /// # Examples
    ///
    /// ```
    /// use kimberlite::{BackupOptions, Database, Event, ExpectedVersion};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let (path, backup) = (dir.path().join("db"), dir.path().join("backup"));
    /// let db = Database::open(&path)?;
    /// let stream = db.tenant("clinic-7")?.stream("patient/42")?;
    /// stream.append(ExpectedVersion::Any, &[Event::new("admitted", "ward 3")])?;
    /// let report = db.backup(&backup, &BackupOptions::new(), &mut |_| {})?;
    /// assert_eq!(report.tenants[0].checkpoint.size(), 4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn backup(
        &self,
        to: &Path,
        options: &BackupOptions,
        progress: &mut dyn FnMut(BackupProgress),
    ) -> Result<BackupReport, Error> {
        let disk = Arc::clone(&self.shared().options.disk);
        let names = self.tenants()?;
        look_at_target(disk.as_ref(), to)?;
        disk.create_dir_all(to)?;
        let _lock = disk.lock(&to.join(LOCK_NAME))?;
        let (prior, resumed) = look_at_target(disk.as_ref(), to)?;
        let plans = names.iter().map(|name| self.plan(name));
        let plans = plans.collect::<Result<Vec<_>, Error>>()?;
        if let Some(prior) = &prior {
            check_same_logs(to, prior, &plans)?;
        }
        disk.write_new_atomic(&to.join(MARKER_NAME), b"", Access::Shared)?;
        let mut run = Run {
            disk: Arc::clone(&disk),
            from: self.path().to_owned(),
            to: to.to_owned(),
            prior,
            files: Vec::new(),
            copied: (0, 0),
            bytes: BackupProgress {
                bytes_done: 0,
                bytes_total: plans.iter().map(|plan| plan.bytes).sum(),
            },
            progress,
        };
        let mut tenants = Vec::new();
        for plan in plans {
            run.tenant(&plan)?;
            tenants.push(plan);
        }
        if options.with_root_key {
            run.small("keys/root.key", Access::Private)?;
        }
        let manifest = run.conclude(self.shared().options.clock.now(), &tenants)?;
        let (files_copied, bytes_copied) = run.copied;
        Ok(BackupReport {
            tenants: tenants.into_iter().map(Plan::into_report).collect(),
            files_copied,
            bytes_copied,
            files_kept: u64::try_from(manifest.files.len()).unwrap_or(u64::MAX) - files_copied,
            resumed,
        })
    }

    /// Fixes up to where a tenant is copied.
    fn plan(&self, name: &TenantName) -> Result<Plan, Error> {
        let tenant = self.existing_tenant(name.as_str())?;
        let checkpoint = if self.shared().options.read_only {
            let newest = tenant.latest_checkpoint()?;
            newest.ok_or_else(|| Problem::NoCheckpoint {
                name: name.as_str().to_owned(),
            })?
        } else {
            tenant.checkpoint()?
        };
        let dir = self.shared().tenant_dir(name);
        let disk = self.shared().options.disk.as_ref();
        let parts = SegmentPart::list(disk, &dir, Position::new(checkpoint.size()))?;
        let log = disk.list(&dir.join("log"))?;
        let bytes_of = |part: &SegmentPart| {
            let name = part.path();
            let name = name.rsplit('/').next().unwrap_or_default();
            let entry = log.iter().find(|entry| entry.name == name);
            entry.map_or(0, |entry| entry.bytes)
        };
        Ok(Plan {
            bytes: parts.iter().map(bytes_of).sum(),
            tenant,
            checkpoint,
            parts,
        })
    }
}

/// What is copied of a tenant.
struct Plan {
    tenant: Tenant,
    checkpoint: Checkpoint,
    parts: Vec<SegmentPart>,
    /// Bytes of its segment files.
    bytes: u64,
}

impl Plan {
    fn name(&self) -> &TenantName {
        self.tenant.name()
    }

    fn entry(&self) -> BackedUpTenant {
        BackedUpTenant {
            name: self.name().clone(),
            log_id: self.tenant.inner().reader.log_id(),
            size: Position::new(self.checkpoint.size()),
            root: self.checkpoint.root(),
            chain: self.checkpoint.chain(),
            origin: self.checkpoint.origin().to_owned(),
        }
    }

    /// Whether the log once was, by a checkpoint of its own, what an earlier backup holds.
    fn goes_on_from(&self, tenant: &BackedUpTenant) -> Result<bool, Error> {
        let now = self.entry();
        if now.log_id != tenant.log_id || now.size < tenant.size {
            return Ok(false);
        }
        if now.size == tenant.size {
            return Ok(now.chain == tenant.chain);
        }
        let inner = self.tenant.inner();
        match inner.checkpoints.read_if_there(tenant.size) {
            Some(Ok(then)) => return Ok(then.chain() == tenant.chain),
            // The disk says nothing of what the log once was.
            Some(Err(error)) if error.kind() == ErrorKind::Io => return Err(error),
            Some(Err(_)) | None => {}
        }
        // An old note may have been removed; the log still says what it signed.
        let disk = &inner.database.options.disk;
        let dir = inner.database.tenant_dir(self.name());
        let parts = SegmentPart::list(disk.as_ref(), &dir, tenant.size)?;
        let Some(last) = parts.last() else {
            return Ok(false);
        };
        Ok(chain_after(last, disk, &dir, inner.reader.log_id())? == Some(tenant.chain))
    }

    /// Whether all segments of an earlier backup are still there.
    fn covers(&self, prior: &Manifest) -> bool {
        let below = format!("tenants/{}/", self.name());
        let mut paths = prior.files.iter().filter_map(|file| {
            let path = file.path.strip_prefix(&below)?;
            (path.starts_with("log/") && path.ends_with(SEGMENT_ENDING)).then_some(path)
        });
        paths.all(|path| self.parts.iter().any(|part| part.path() == path))
    }

    fn into_report(self) -> TenantBackup {
        let durable = self.tenant.durable_position().get();
        TenantBackup {
            name: self.name().clone(),
            records_behind: durable.saturating_sub(self.checkpoint.size()),
            checkpoint: self.checkpoint,
        }
    }
}

/// A backup that is under way.
struct Run<'a> {
    disk: Arc<dyn Disk>,
    from: PathBuf,
    to: PathBuf,
    prior: Option<Manifest>,
    files: Vec<BackedUpFile>,
    /// Files and bytes that were written.
    copied: (u64, u64),
    bytes: BackupProgress,
    progress: &'a mut dyn FnMut(BackupProgress),
}

impl Run<'_> {
    fn tenant(&mut self, plan: &Plan) -> Result<(), Error> {
        let below = format!("tenants/{}", plan.name());
        let mut chain = None;
        for part in &plan.parts {
            let file_bytes = self.segment(plan, &below, part, &mut chain)?;
            if let Some(seal) = part.seal_path() {
                self.small(&format!("{below}/{seal}"), Access::Shared)?;
            }
            self.bytes.bytes_done += file_bytes;
            (self.progress)(self.bytes);
        }
        if chain != Some(plan.checkpoint.chain()) {
            return Err(Problem::CopyDiffers {
                name: plan.name().as_str().to_owned(),
                size: plan.checkpoint.size(),
            }
            .into());
        }
        for size in plan.tenant.inner().checkpoints.sound_sizes()? {
            if size.get() <= plan.checkpoint.size() {
                let note = format!("{below}/checkpoints/{:020}.note", size.get());
                self.small(&note, Access::Shared)?;
            }
        }
        // Where only the copy that other tools see is sound, the note is that one.
        let note = format!("{below}/checkpoints/{:020}.note", plan.checkpoint.size());
        if !self.files.iter().any(|file| file.path == note) {
            let content = plan.checkpoint.note().as_bytes();
            self.write(&FileContent {
                path: &note,
                content,
                bytes: u64::try_from(content.len()).unwrap_or(u64::MAX),
                access: Access::Shared,
            })?;
        }
        let state = format!("{below}/checkpoints/{:020}.state", plan.checkpoint.size());
        self.small(&state, Access::Shared)?;
        let incarnation = crate::incarnation::FILE_NAME;
        self.small(&format!("{below}/{incarnation}"), Access::Shared)?;
        // Behind the log, so that its keys are among them.
        for key in ["keyring.a", "keyring.b", "signer.pem"] {
            self.small(&format!("keys/{}/{key}", plan.name()), Access::Private)?;
        }
        Ok(())
    }

    /// Copies a part of a log, unless it is there; `chain` is that of the part before, where it was
    /// computed. Returns the length of the file.
    fn segment(
        &mut self,
        plan: &Plan,
        below: &str,
        part: &SegmentPart,
        chain: &mut Option<ChainHash>,
    ) -> Result<u64, Error> {
        let path = format!("{below}/{}", part.path());
        let tenant_dir = self.from.join(below);
        let prior = self.prior.as_ref().and_then(|prior| prior.file(&path));
        let prior = prior.cloned();
        if let Some((used, digest, bytes)) = part.sealed(self.disk.as_ref(), &tenant_dir) {
            let entry = BackedUpFile {
                path: path.clone(),
                bytes,
                used,
                digest,
                access: Access::Shared,
            };
            let same = prior.as_ref().is_none_or(|prior| *prior == entry);
            if same && file_matches(self.disk.as_ref(), &self.to, &entry)? {
                self.keep(entry);
                *chain = None;
                return Ok(bytes);
            }
        }
        let log_id = plan.tenant.inner().reader.log_id();
        let content = part.read(&self.disk, &tenant_dir, log_id)?;
        if chain.is_some_and(|chain| chain != content.chain_before) {
            return Err(part.broken().into());
        }
        *chain = Some(content.chain_after);
        if let Some(prior) = prior
            && content.prefix_digest(prior.used) != Some(prior.digest)
            && !self.was_purged(plan, below, part)?
        {
            return Err(self.other_history(plan.name()));
        }
        self.write(&FileContent {
            path: &path,
            content: &content.bytes,
            bytes: content.file_bytes,
            access: Access::Shared,
        })?;
        Ok(content.file_bytes)
    }

    /// Whether the segment in the backup is another file of the same records: a purge has written it
    /// anew since.
    fn was_purged(&self, plan: &Plan, below: &str, part: &SegmentPart) -> Result<bool, Error> {
        let prior = self.prior.iter().flat_map(|prior| &prior.tenants);
        let mut prior = prior.filter(|tenant| tenant.name == *plan.name());
        let Some(size) = prior.next().map(|tenant| tenant.size) else {
            return Ok(false);
        };
        let log_id = plan.tenant.inner().reader.log_id();
        let common = part.up_to(size);
        let chain = |root: &Path| chain_after(&common, &self.disk, &root.join(below), log_id);
        let copied = chain(&self.to)?;
        Ok(copied.is_some() && copied == chain(&self.from)?)
    }

    /// Copies a small file, if there is one.
    fn small(&mut self, path: &str, access: Access) -> Result<(), Error> {
        let content = match self.disk.read(&self.from.join(path), SMALL_FILE_BYTES_MAX) {
            Ok(content) => Zeroizing::new(content),
            Err(DiskError::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        self.write(&FileContent {
            path,
            content: &content,
            bytes: u64::try_from(content.len()).unwrap_or(u64::MAX),
            access,
        })
    }

    /// Writes a file, unless its content is there.
    fn write(&mut self, file: &FileContent<'_>) -> Result<(), Error> {
        let entry = file.entry();
        if file_matches(self.disk.as_ref(), &self.to, &entry)? {
            self.keep(entry);
            return Ok(());
        }
        let entry = write_file(self.disk.as_ref(), &self.to, file)?;
        self.copied.0 += 1;
        self.copied.1 += entry.used;
        self.files.push(entry);
        Ok(())
    }

    fn keep(&mut self, entry: BackedUpFile) {
        self.files.push(entry);
    }

    fn other_history(&self, name: &TenantName) -> Error {
        other_history(&self.to, name)
    }

    /// Writes the manifest, and removes what belongs to the backup before alone.
    fn conclude(
        &mut self,
        time: kimberlite_types::Timestamp,
        plans: &[Plan],
    ) -> Result<Manifest, Error> {
        let mut files = std::mem::take(&mut self.files);
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let manifest = Manifest {
            time,
            tenants: plans.iter().map(Plan::entry).collect(),
            files,
        };
        let disk = self.disk.as_ref();
        sync_names(disk, &self.to, &manifest.files)?;
        put_manifest(disk, &self.to, &manifest, MANIFEST_BYTES_MAX)?;
        disk.remove(&self.to.join(MARKER_NAME))?;
        disk.sync_dir(&self.to)?;
        let prior = self.prior.take().map(|prior| prior.files);
        for old in prior.unwrap_or_default() {
            if manifest.file(&old.path).is_none() && is_state(&old.path) {
                disk.remove(&self.to.join(&old.path))?;
            }
        }
        for plan in plans {
            self.thin(plan, &manifest)?;
        }
        Ok(manifest)
    }

    /// Removes notes that are superfluous by the rule of the database. Others that the manifest does
    /// not name stay: those in the database may be lost or damaged.
    fn thin(&self, plan: &Plan, manifest: &Manifest) -> Result<(), Error> {
        let inner = plan.tenant.inner();
        let below = format!("tenants/{}", plan.name());
        let store = CheckpointStore::new(Arc::clone(&self.disk), &self.to.join(&below));
        let thinning = Thinning {
            newest: plan.checkpoint.position(),
            density: inner.database.options.checkpoint_density,
        };
        let note = |size: Position| format!("{below}/checkpoints/{:020}.note", size.get());
        let is_named = |size| manifest.file(&note(size)).is_some();
        inner.checkpoints.thin_backup(&store, thinning, is_named)
    }
}

/// Returns the manifest of the backup that is in `to`, and whether one was interrupted there.
fn look_at_target(disk: &dyn Disk, to: &Path) -> Result<(Option<Manifest>, bool), Error> {
    let entries = match disk.list(to) {
        Ok(entries) => entries,
        Err(DiskError::NotFound { .. }) => return Ok((None, false)),
        Err(error) => return Err(error.into()),
    };
    let has = |name| entries.iter().any(|entry| entry.name == name);
    let interrupted = has(MARKER_NAME);
    if has(MANIFEST_NAME) {
        return Ok((Some(read_manifest(disk, to)?), interrupted));
    }
    let ours = |name: &str| name == LOCK_NAME || name.starts_with(MARKER_NAME);
    if interrupted || entries.iter().all(|entry| ours(&entry.name)) {
        return Ok((None, interrupted));
    }
    Err(Problem::NotABackup {
        path: to.to_owned(),
    }
    .into())
}

/// Puts a manifest in place of the one before, unless nothing could read it.
fn put_manifest(
    disk: &dyn Disk,
    to: &Path,
    manifest: &Manifest,
    bytes_max: u64,
) -> Result<(), Error> {
    let text = manifest.encode();
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > bytes_max {
        let files = manifest.files.len();
        return Err(Problem::TooManyFiles { files, bytes_max }.into());
    }
    disk.write_new_atomic(&to.join(MANIFEST_NAME), text.as_bytes(), Access::Shared)?;
    Ok(())
}

/// Reads the manifest of a backup.
pub(crate) fn read_manifest(disk: &dyn Disk, backup: &Path) -> Result<Manifest, Error> {
    let path = backup.join(MANIFEST_NAME);
    let bytes = match disk.read(&path, MANIFEST_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(DiskError::NotFound { .. }) => {
            let path = backup.to_owned();
            return Err(Problem::UnfinishedBackup { path }.into());
        }
        Err(error) => return Err(error.into()),
    };
    Manifest::decode(&bytes).map_err(|source| Problem::Manifest { path, source }.into())
}

/// Refuses to put one history in the place of another. A log that was repaired is another one, even
/// once it is longer than it was: records that the backup holds are lost in it.
fn check_same_logs(to: &Path, prior: &Manifest, plans: &[Plan]) -> Result<(), Error> {
    for tenant in &prior.tenants {
        let plan = plans.iter().find(|plan| *plan.name() == tenant.name);
        let goes_on = match plan {
            Some(plan) => plan.goes_on_from(tenant)? && plan.covers(prior),
            None => false,
        };
        if !goes_on {
            return Err(other_history(to, &tenant.name));
        }
    }
    Ok(())
}

/// Computes the chain after a part of a log; `None` where the part rotted, or is gone.
fn chain_after(
    part: &SegmentPart,
    disk: &Arc<dyn Disk>,
    tenant_dir: &Path,
    log_id: LogId,
) -> Result<Option<ChainHash>, Error> {
    match part.read(disk, tenant_dir, log_id) {
        Ok(content) => Ok(Some(content.chain_after)),
        Err(StorageError::Corrupt(_) | StorageError::Disk(DiskError::NotFound { .. })) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether a path is that of a state, which serves nobody once there is a newer one.
fn is_state(path: &str) -> bool {
    let ending = Path::new(path).extension();
    ending.is_some_and(|ending| ending == "state")
}

fn other_history(path: &Path, name: &TenantName) -> Error {
    Problem::OtherHistory {
        path: path.to_owned(),
        name: name.as_str().to_owned(),
    }
    .into()
}

#[cfg(test)]
mod tests {
    use kimberlite_testkit::SimulatedDisk;

    use super::*;

    fn database() -> (SimulatedDisk, Database) {
        let disk = SimulatedDisk::new(1);
        let db = Database::builder("/db").disk(Arc::new(disk.clone()));
        (disk, db.background(false).open().unwrap())
    }

    #[test]
    fn a_manifest_that_nothing_could_read_never_replaces_one() {
        let disk = SimulatedDisk::new(1);
        let to = Path::new("/backup");
        disk.create_dir_all(to).unwrap();
        let manifest = |time| Manifest {
            time: kimberlite_types::Timestamp::from_nanoseconds(time),
            tenants: Vec::new(),
            files: Vec::new(),
        };
        let bytes = u64::try_from(manifest(1).encode().len()).unwrap();
        put_manifest(&disk, to, &manifest(1), bytes).unwrap();
        let refused = put_manifest(&disk, to, &manifest(2), bytes - 1).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{refused}");
        assert_eq!(read_manifest(&disk, to).unwrap(), manifest(1));
    }

    #[test]
    fn a_backup_with_a_segment_that_the_log_has_not_is_never_replaced() {
        let (disk, db) = database();
        drop(db.tenant("t").unwrap());
        let to = Path::new("/backup");
        let back_up = || db.backup(to, &BackupOptions::new(), &mut |_| {});
        back_up().unwrap();
        // All notes of the log agree with it; but a segment is in the backup alone.
        let mut manifest = read_manifest(&disk, to).unwrap();
        let mut segment = manifest
            .files
            .iter()
            .find(|file| file.path.ends_with(SEGMENT_ENDING));
        let mut segment = segment.take().unwrap().clone();
        segment.path = segment.path.replace("0.seg", "7.seg");
        manifest.files.push(segment);
        put_manifest(&disk, to, &manifest, MANIFEST_BYTES_MAX).unwrap();
        let refused = back_up().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{refused}");
        assert_eq!(read_manifest(&disk, to).unwrap(), manifest);
    }

    #[test]
    fn a_note_that_the_disk_does_not_give_is_no_other_history() {
        let (disk, db) = database();
        let stream = db.tenant("t").unwrap().stream("s").unwrap();
        let event = [crate::Event::new("t", "1")];
        let to = Path::new("/backup");
        let back_up = || db.backup(to, &BackupOptions::new(), &mut |_| {});
        back_up().unwrap();
        let mut refused = 0;
        for read in 1..60 {
            stream.append(crate::ExpectedVersion::Any, &event).unwrap();
            disk.fail_read_at(disk.reads() + read);
            if let Err(error) = back_up() {
                assert_eq!(error.kind(), ErrorKind::Io, "read {read}: {error}");
                refused += 1;
            }
        }
        assert!(refused > 5, "{refused}");
    }
}
