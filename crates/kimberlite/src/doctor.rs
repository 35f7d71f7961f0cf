//! Looking at a database that somebody worries about, without changing anything.

use std::path::Path;
use std::sync::Arc;

use kimberlite_disk::{Disk, DiskError};
use kimberlite_storage::{KeptAside, SegmentState, kept_aside};
use kimberlite_types::{Position, TenantName};

use crate::database::Database;
use crate::error::{Error, ErrorKind};
use crate::options::{DatabaseBuilder, Options};
use crate::tenant::Tenant;

/// What a look at a database found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Diagnosis {
    /// What concerns all of it.
    pub database: Vec<Symptom>,
    /// The tenants by name, each with what was found; nothing when it is in order.
    pub tenants: Vec<(TenantName, Vec<Symptom>)>,
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Symptom {
    /// What it is.
    pub condition: Condition,
    /// The evidence.
    pub what: String,
    /// The segment file, where it is in one.
    pub segment: Option<String>,
    /// Byte of that file.
    pub byte: Option<u64>,
    /// The first record that is affected, where it can be told.
    pub position: Option<Position>,
}

/// A state that a database or a tenant can be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Condition {
    /// A process has it open for writing.
    InUse,
    /// Files that were being written when a process ended.
    TemporaryFiles,
    /// Ends and files that were cut off or set aside earlier are kept.
    KeptTails,
    /// A closed segment has no seal.
    MissingSeal,
    /// The log was restored or repaired, and its record is still to be written.
    RecordOwed,
    /// The last write was never finished.
    TornTail,
    /// A tenant was being made when its process ended.
    UnfinishedCreation,
    /// A checkpoint file cannot be used.
    BadCheckpoint,
    /// A key file is missing, damaged, or open to others.
    KeyFile,
    /// The keys are not those that the log was written with.
    WrongKey,
    /// A restore was interrupted.
    UnfinishedRestore,
    /// The log ends before a checkpoint that was made of it, or is gone.
    RolledBack,
    /// Bytes are not what was written.
    Corrupt,
    /// It cannot be looked at.
    Unreadable,
}

impl Condition {
    /// Returns its name, as it stands in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InUse => "in-use",
            Self::TemporaryFiles => "temporary-files",
            Self::KeptTails => "kept-tails",
            Self::MissingSeal => "missing-seal",
            Self::RecordOwed => "record-owed",
            Self::TornTail => "torn-tail",
            Self::UnfinishedCreation => "unfinished-creation",
            Self::BadCheckpoint => "bad-checkpoint",
            Self::KeyFile => "key-file",
            Self::WrongKey => "wrong-key",
            Self::UnfinishedRestore => "unfinished-restore",
            Self::RolledBack => "rolled-back",
            Self::Corrupt => "corrupt",
            Self::Unreadable => "unreadable",
        }
    }

    /// Says what it means.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::InUse => "a process has the database open for writing; readers may look at it",
            Self::TemporaryFiles => "a process ended while it wrote them; they hold nothing",
            Self::KeptTails => {
                "unfinished writes, or what a repair gave up, were set aside; the log goes on without \
                 them"
            }
            Self::MissingSeal => "the next opening reads all of the segment; nothing is lost",
            Self::RecordOwed => {
                "the log was restored or repaired and does not say so yet; nothing is lost"
            }
            Self::TornTail => {
                "the process or the power went in the middle of the last append, which was never \
                 acknowledged; nothing else is lost"
            }
            Self::UnfinishedCreation => "the tenant never came into being; it has no events",
            Self::BadCheckpoint => {
                "it is passed over: the log is held against the others, and verify tells of this one"
            }
            Self::KeyFile => "nothing can be read before the key file is right",
            Self::WrongKey => "root key, keyring or signer belong to another database or tenant",
            Self::UnfinishedRestore => "not all files of the backup are here",
            Self::RolledBack => {
                "records that a signed checkpoint vouches for are missing: an older copy was put in \
                 place, or files were lost"
            }
            Self::Corrupt => {
                "what was durable is not what was written: the disk failed or somebody changed it"
            }
            Self::Unreadable => "the system or the disk refused",
        }
    }

    /// Says what to do.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::InUse | Self::KeptTails => "nothing",
            Self::TemporaryFiles
            | Self::MissingSeal
            | Self::RecordOwed
            | Self::TornTail
            | Self::UnfinishedCreation => {
                "nothing: the next opening for writing puts it right, as `kimberlite checkpoint` does"
            }
            Self::BadCheckpoint => "put the file back from a backup, or leave it",
            Self::KeyFile => "put it back from a backup, or `chmod 600` it",
            Self::WrongKey => "put the right files into `keys/`, from the backup of this database",
            Self::UnfinishedRestore => "run the same `kimberlite restore` again",
            Self::RolledBack => {
                "put the missing files back, or `kimberlite restore` a backup; where there is none, \
                 `kimberlite repair` says what giving them up means"
            }
            Self::Corrupt => {
                "copy the directory, run `kimberlite verify`, then `kimberlite restore` a backup; \
                 where there is none, `kimberlite repair` says what giving up the rest means"
            }
            Self::Unreadable => "see the message",
        }
    }
}

impl Symptom {
    fn new(condition: Condition, what: impl Into<String>) -> Self {
        Self {
            condition,
            what: what.into(),
            segment: None,
            byte: None,
            position: None,
        }
    }

    fn of_error(error: &Error) -> Self {
        let condition = match error.kind() {
            ErrorKind::KeyFile => Condition::KeyFile,
            ErrorKind::WrongKey => Condition::WrongKey,
            ErrorKind::RolledBack => Condition::RolledBack,
            ErrorKind::Corrupt => Condition::Corrupt,
            ErrorKind::Unfinished => Condition::UnfinishedRestore,
            _ => Condition::Unreadable,
        };
        let mut what = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            what = format!("{what}: {error}");
            cause = error.source();
        }
        let mut symptom = Self::new(condition, what);
        if let Some(damage) = error.damage() {
            symptom.segment = Some(damage.segment.clone());
            symptom.byte = Some(damage.byte);
            symptom.position = Some(damage.position);
        }
        symptom
    }

    fn in_segment(mut self, segment: &str, byte: u64, position: Position) -> Self {
        self.segment = Some(segment.to_owned());
        self.byte = Some(byte);
        self.position = Some(position);
        self
    }
}

impl Diagnosis {
    /// Returns the worst that was found; `None` when all is in order.
    pub fn worst(&self) -> Option<Condition> {
        let tenants = self.tenants.iter().flat_map(|(_, symptoms)| symptoms);
        let all = self.database.iter().chain(tenants);
        all.map(|symptom| symptom.condition).max()
    }
}

impl DatabaseBuilder {
    /// Looks at a database and says what state it is in, without changing anything. It looks as
    /// far as an opening does: what is wrong in payloads of sealed segments,
    /// [`Tenant::verify`](crate::Tenant::verify) tells.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) when there is no database.
    pub fn diagnose(self) -> Result<Diagnosis, Error> {
        let (path, mut options) = self.into_parts();
        options.read_only = true;
        let disk = Arc::clone(&options.disk);
        let mut diagnosis = Diagnosis::default();
        if disk.is_locked(&path.join("LOCK"))? == Some(true) {
            let holder = disk.read(&path.join("LOCK"), 64).unwrap_or_default();
            let holder = String::from_utf8_lossy(&holder).trim().to_owned();
            let what = format!("LOCK is held; it names process {holder}");
            diagnosis
                .database
                .push(Symptom::new(Condition::InUse, what));
        }
        let database = match Database::open_with(path.clone(), options.clone()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(error),
            Err(error) => {
                diagnosis.database.push(Symptom::of_error(&error));
                return Ok(diagnosis);
            }
            Ok(database) => database,
        };
        for name in names(disk.as_ref(), &path)? {
            let look = Look {
                options: &options,
                database: &database,
                dir: path.join("tenants").join(name.as_str()),
                keys: path.join("keys").join(name.as_str()),
            };
            let symptoms = look.tenant(&name)?;
            diagnosis.tenants.push((name, symptoms));
        }
        Ok(diagnosis)
    }
}

/// Returns the tenants of which there is a directory, of the log or of the keys.
fn names(disk: &dyn Disk, path: &Path) -> Result<Vec<TenantName>, Error> {
    let mut names = Vec::new();
    for dir in ["tenants", "keys"] {
        let entries = list(disk, &path.join(dir))?;
        let directories = entries.iter().filter(|entry| entry.is_dir);
        names.extend(directories.filter_map(|entry| TenantName::new(&entry.name).ok()));
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

fn list(disk: &dyn Disk, path: &Path) -> Result<Vec<kimberlite_disk::Entry>, Error> {
    match disk.list(path) {
        Err(DiskError::NotFound { .. }) => Ok(Vec::new()),
        entries => Ok(entries?),
    }
}

/// A look at one tenant.
struct Look<'a> {
    options: &'a Options,
    database: &'a Database,
    dir: std::path::PathBuf,
    keys: std::path::PathBuf,
}

impl Look<'_> {
    fn tenant(&self, name: &TenantName) -> Result<Vec<Symptom>, Error> {
        let mut symptoms = self.files()?;
        match self.database.existing_tenant(name.as_str()) {
            Ok(tenant) => self.log(&tenant, &mut symptoms)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let what = "there are keys, and no log yet";
                symptoms.push(Symptom::new(Condition::UnfinishedCreation, what));
            }
            Err(error) => symptoms.push(Symptom::of_error(&error)),
        }
        symptoms.sort_by_key(|symptom| std::cmp::Reverse(symptom.condition));
        Ok(symptoms)
    }

    fn files(&self) -> Result<Vec<Symptom>, Error> {
        let disk = self.options.disk.as_ref();
        let log_dir = self.dir.join("log");
        let name = |kept: KeptAside| {
            let name = kept.path.file_name().unwrap_or_default();
            name.to_string_lossy().into_owned()
        };
        let kept = kept_aside(disk, &self.dir)?;
        let mut kept: Vec<String> = kept.into_iter().map(name).collect();
        let mut temporary = Vec::new();
        for dir in [
            &self.dir,
            &log_dir,
            &self.dir.join("checkpoints"),
            &self.keys,
        ] {
            for entry in list(disk, dir)?.into_iter().filter(|entry| !entry.is_dir) {
                let ending = Path::new(&entry.name).extension();
                if ending.is_some_and(|ending| ending == "tmp") {
                    temporary.push(entry.name);
                } else if entry.name.contains(".lost") && *dir != log_dir {
                    kept.push(entry.name);
                }
            }
        }
        let symptom = |condition, names: Vec<String>| {
            (!names.is_empty()).then(|| Symptom::new(condition, names.join(", ")))
        };
        let found = [
            symptom(Condition::TemporaryFiles, temporary),
            symptom(Condition::KeptTails, kept),
        ];
        Ok(found.into_iter().flatten().collect())
    }

    fn log(&self, tenant: &Tenant, symptoms: &mut Vec<Symptom>) -> Result<(), Error> {
        let report = tenant.open_report();
        for damage in &report.damage {
            let symptom = Symptom::new(Condition::Corrupt, damage.kind.to_string());
            symptoms.push(symptom.in_segment(&damage.segment, damage.byte, damage.position));
        }
        let end = tenant.inner().reader.end();
        if let Some(size) = report.rolled_back {
            let what = format!("the log has {end} records, a checkpoint vouches for {size}");
            let mut symptom = Symptom::new(Condition::RolledBack, what);
            symptom.position = Some(end);
            symptoms.push(symptom);
        }
        if let Some(torn) = &report.tail_torn {
            let what = format!("{} bytes of an unfinished write", torn.bytes);
            let symptom = Symptom::new(Condition::TornTail, what);
            symptoms.push(symptom.in_segment(&torn.segment, torn.byte, torn.position));
        }
        if report.damage.is_empty() && report.rolled_back.is_none() {
            let incarnation = tenant.inner().incarnation.as_ref();
            if incarnation.is_some_and(|it| it.position == end) {
                let what = format!("its record belongs at position {end}");
                symptoms.push(Symptom::new(Condition::RecordOwed, what));
            }
        }
        for segment in tenant.inner().reader.segments(self.options.disk.as_ref())? {
            if segment.state == SegmentState::Closed {
                let mut symptom = Symptom::new(Condition::MissingSeal, "there is no seal");
                symptom.segment = Some(segment.name);
                symptoms.push(symptom);
            }
        }
        for (size, checkpoint) in tenant.inner().all_checkpoints()? {
            if let Err(error) = checkpoint {
                let mut symptom = Symptom::of_error(&error);
                symptom.condition = Condition::BadCheckpoint;
                symptom.position = Some(size);
                symptoms.push(symptom);
            }
        }
        Ok(())
    }
}
