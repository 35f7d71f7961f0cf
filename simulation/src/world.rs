//! The database, its disk, and all that is known about it.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::Arc;

use kimberlite::{
    AppendFuture, Database, DatabaseBuilder, Encryption, Error, ErrorKind, Event, ExpectedVersion,
    IdempotencyKey, SyncPolicy, WriteMode,
};
use kimberlite_testkit::{Lie, NonceLedger, Rng, SimulatedDisk};

use crate::environment::{JumpingClock, SeededEntropy};
use crate::model::TenantModel;
use crate::trace::Trace;

pub(crate) const DIRECTORY: &str = "/db";
pub(crate) const BACKUP: &str = "/backup";
pub(crate) const TENANTS: [&str; 3] = ["alpha", "beta", "gamma"];

/// What a step came to; the error says which promise was broken.
pub(crate) type Checked<T = ()> = Result<T, String>;

/// A fault that a history must find, planted to prove the harness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canary {
    /// The disk lies once in so many chances.
    Lie(Lie, u64),
    /// Every process draws the same random bytes.
    RepeatedEntropy,
    /// Answers before the sync are taken for promises that last.
    EarlyAsDurable,
    /// Who retries forgets the key.
    RetryWithoutKey,
    /// A projection leaves out events.
    ForgetfulProjection,
}

/// A copy of the directory, and what must be in it.
#[derive(Debug)]
pub(crate) struct DirectoryCopy {
    pub(crate) disk: SimulatedDisk,
    pub(crate) tenants: BTreeMap<&'static str, TenantModel>,
    pub(crate) backups: Vec<Backup>,
}

/// What a backup that was made, or begun, must hold.
#[derive(Clone, Debug)]
pub(crate) struct Backup {
    pub(crate) is_done: bool,
    pub(crate) tenants: BTreeMap<&'static str, TenantModel>,
}

/// An append with a key, whatever it came to: whoever asked for it may ask again.
#[derive(Clone, Debug)]
pub(crate) struct Retry {
    pub(crate) name: &'static str,
    pub(crate) stream: &'static str,
    pub(crate) expected: ExpectedVersion,
    pub(crate) events: Vec<Event>,
    pub(crate) key: IdempotencyKey,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) disk: SimulatedDisk,
    pub(crate) clock: Arc<JumpingClock>,
    pub(crate) ledger: NonceLedger,
    pub(crate) tenants: BTreeMap<&'static str, TenantModel>,
    pub(crate) trace: Trace,
    pub(crate) copy: Option<DirectoryCopy>,
    /// The last backup that was made, and those that were begun since.
    pub(crate) backups: Vec<Backup>,
    /// A fault was planned since the process began: its operations may fail.
    pub(crate) faulty: bool,
    /// A sync of a directory has failed: power loss may take a directory that was made then, and what
    /// was put into it since.
    pub(crate) is_directory_doubtful: bool,
    /// Events are large, so that there are several segments.
    pub(crate) large: bool,
    pub(crate) write_mode: WriteMode,
    /// Makes every event another one.
    pub(crate) numbered: u64,
    /// Appends with keys, of all lives.
    pub(crate) retries: Vec<Retry>,
    pub(crate) canary: Option<Canary>,
}

/// A process with the database open.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) db: Database,
    pub(crate) policy: SyncPolicy,
    /// The tenants that were opened, and are what the model says.
    pub(crate) open: Vec<&'static str>,
    /// Nobody syncs before it is asked for: appends are answered early, or awaited.
    pub(crate) is_patient: bool,
    /// Futures that were not answered yet.
    pub(crate) pending: Vec<Pending>,
}

/// An append that is awaited.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) name: &'static str,
    pub(crate) future: AppendFuture,
    /// Its number in the model.
    pub(crate) nth: usize,
    /// The offset of its first event.
    pub(crate) offset: u64,
}

impl World {
    pub(crate) fn new(seed: u64, canary: Option<Canary>) -> Self {
        let mut rng = Rng::new(seed);
        let disk = SimulatedDisk::new(rng.next_u64());
        let ledger = NonceLedger::new();
        // Direct writes are of whole blocks, in which the ledger does not find the frames.
        let write_mode = if canary.is_none() && rng.chance(1, 4) {
            WriteMode::Direct
        } else {
            ledger.watch(&disk);
            WriteMode::Buffered
        };
        if let Some(Canary::Lie(lie, one_in)) = canary {
            disk.tell_lies(lie, one_in);
        }
        let large = rng.chance(1, 12);
        Self {
            rng,
            disk,
            clock: JumpingClock::new(),
            ledger,
            tenants: BTreeMap::new(),
            trace: Trace::default(),
            copy: None,
            backups: Vec::new(),
            faulty: false,
            is_directory_doubtful: false,
            large,
            write_mode,
            numbered: 0,
            retries: Vec::new(),
            canary,
        }
    }

    pub(crate) fn note(&mut self, line: impl Into<String>) {
        self.trace.note(line.into());
    }

    /// Options of the next process on `disk`.
    pub(crate) fn builder(&mut self, disk: &SimulatedDisk) -> DatabaseBuilder {
        self.builder_at(disk, DIRECTORY)
    }

    /// Options of a process with another directory.
    pub(crate) fn builder_at(&mut self, disk: &SimulatedDisk, path: &str) -> DatabaseBuilder {
        let seed = match self.canary {
            Some(Canary::RepeatedEntropy) => 7,
            _ => self.rng.next_u64(),
        };
        let encryptions = [
            Encryption::On,
            Encryption::On,
            Encryption::WithoutCommitment,
            Encryption::Off,
        ];
        let encryption = self.rng.choose(&encryptions).copied().unwrap_or_default();
        let tail = self.rng.choose(&[0, 4 << 10, 4 << 20]).copied();
        let mut kept = Rng::new(!seed);
        let growth = kept.choose(&[0, 0, 20_000, 4 << 20]).copied();
        let runs = kept.choose(&[0, 2, 8, 1 << 16]).copied();
        Database::builder(path)
            .disk(Arc::new(disk.clone()))
            .clock(Arc::clone(&self.clock) as Arc<dyn kimberlite::Clock>)
            .entropy(SeededEntropy::new(seed))
            .background(false)
            .write_mode(self.write_mode)
            .encryption(encryption)
            .tail_bytes_max(tail.unwrap_or(0))
            .snapshot_growth_min(growth.unwrap_or(0))
            .stream_runs_max(runs.unwrap_or(0))
    }

    pub(crate) fn model(&mut self, tenant: &'static str) -> &mut TenantModel {
        self.tenants.entry(tenant).or_default()
    }

    /// Takes what a call came to. An error is a broken promise unless a fault explains it.
    pub(crate) fn expect<T>(&mut self, what: &str, came: Result<T, Error>) -> Checked<Option<T>> {
        match came {
            Ok(value) => Ok(Some(value)),
            Err(error) if self.explains(&error) => {
                self.trace.counts.errors += 1;
                let told = told(&error);
                self.is_directory_doubtful |= self.disk.failed_directory_syncs() > 0;
                self.note(format!("{what}: {told}"));
                Ok(None)
            }
            Err(error) => Err(format!("{what} failed: {}", told(&error))),
        }
    }

    fn explains(&self, error: &Error) -> bool {
        let of_disk = [
            ErrorKind::Io,
            ErrorKind::OutcomeUnknown,
            ErrorKind::DiskFull,
            // It stands still where its store cannot be written.
            ErrorKind::Projection,
        ];
        (self.faulty || self.disk.is_dead()) && of_disk.contains(&error.kind())
    }
}

/// An error with its causes.
pub(crate) fn told(error: &Error) -> String {
    let mut text = format!("{:?}, {error}", error.kind());
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
