//! How a database is opened.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kimberlite_disk::{Disk, OsDisk, WriteMode};
use kimberlite_storage::{Budget, Entropy, LogOptions, QueueLimit, ReadMode};

use crate::database::Database;
use crate::environment::{Clock, SystemClock, SystemEntropy};
use crate::error::Error;

/// Whether events are encrypted.
///
/// What is in the log already stays as it is, and is read either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Encryption {
    /// AES-256-GCM, with a commitment to the plaintext by which one record can be disclosed and
    /// checked without a key. 48 bytes an event.
    #[default]
    On,
    /// AES-256-GCM without the commitment: faster, 16 bytes an event.
    WithoutCommitment,
    /// None. Stream names, types and data stand readable on disk.
    Off,
}

/// When events are synced to the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SyncPolicy {
    /// Each record before the next one is written.
    EveryRecord,
    /// Once for each append, before it returns.
    #[default]
    EveryBatch,
    /// Once for all appends that come within `max_delay`: whoever begins a sync first waits so long
    /// for others. More appends in a second where many threads append, at the price of that delay;
    /// without it, too, threads that append at the same time share syncs.
    GroupCommit {
        /// How long an append may wait before its sync begins.
        max_delay: Duration,
    },
    /// When [`Tenant::flush`](crate::Tenant::flush) or a checkpoint asks for it; in between the
    /// operating system decides, and a power failure may take what it has not written yet.
    OnFlush,
}

impl SyncPolicy {
    /// Whether an append that has returned survives power loss, where it asked for nothing else.
    pub const fn is_durable(self) -> bool {
        !matches!(self, Self::OnFlush)
    }
}

/// Bytes of opened events that are kept, unless the caller says otherwise.
const OPENED_BYTES_MAX: usize = 0;

/// Records after which a checkpoint is made, unless the caller says otherwise.
const CHECKPOINT_RECORDS_MAX: u64 = 100_000;

/// Time after which a checkpoint of what is new is made, unless the caller says otherwise.
const CHECKPOINT_INTERVAL: Duration = Duration::from_mins(1);

/// How dense old checkpoints are kept, unless the caller says otherwise.
const CHECKPOINT_DENSITY: u64 = 128;

/// Bytes by which a log grows before a snapshot of it is made, unless the caller says otherwise.
const SNAPSHOT_GROWTH_MIN: u64 = 4 << 20;

/// Runs of events that the index of streams may have in memory before it is given a store, unless the caller
/// says otherwise.
const STREAM_RUNS_MAX: usize = 1 << 16;

/// What a database is opened with.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) encryption: Encryption,
    pub(crate) sync_policy: SyncPolicy,
    pub(crate) write_mode: WriteMode,
    pub(crate) create: bool,
    pub(crate) read_only: bool,
    pub(crate) background: bool,
    pub(crate) tail_bytes_max: usize,
    pub(crate) budget: Option<Arc<Budget>>,
    pub(crate) queue_limit: QueueLimit,
    pub(crate) index_stride_bytes: u64,
    pub(crate) snapshot_growth_min: u64,
    pub(crate) stream_runs_max: usize,
    pub(crate) read_mode: ReadMode,
    pub(crate) opened_bytes_max: usize,
    pub(crate) checkpoint_records_max: u64,
    pub(crate) checkpoint_interval: Duration,
    pub(crate) checkpoint_density: u64,
    /// Tells a process from one that was forked from it.
    pub(crate) process_id: fn() -> u32,
}

/// Opens a database with other options than the defaults.
///
/// ```
/// use kimberlite::{Database, Encryption, SyncPolicy};
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path();
/// let db = Database::builder(path)
///     .encryption(Encryption::WithoutCommitment)
///     .sync_policy(SyncPolicy::EveryBatch)
///     .open()?;
/// # drop(db);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct DatabaseBuilder {
    path: PathBuf,
    options: Options,
}

impl DatabaseBuilder {
    pub(crate) fn new(path: PathBuf) -> Self {
        let options = Options {
            disk: Arc::new(OsDisk::new()),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
            encryption: Encryption::default(),
            sync_policy: SyncPolicy::default(),
            write_mode: WriteMode::default(),
            create: true,
            read_only: false,
            background: true,
            tail_bytes_max: LogOptions::TAIL_BYTES_MAX,
            budget: None,
            read_mode: ReadMode::default(),
            opened_bytes_max: OPENED_BYTES_MAX,
            queue_limit: QueueLimit::default(),
            index_stride_bytes: LogOptions::INDEX_STRIDE_BYTES,
            snapshot_growth_min: SNAPSHOT_GROWTH_MIN,
            stream_runs_max: STREAM_RUNS_MAX,
            checkpoint_records_max: CHECKPOINT_RECORDS_MAX,
            checkpoint_interval: CHECKPOINT_INTERVAL,
            checkpoint_density: CHECKPOINT_DENSITY,
            process_id: std::process::id,
        };
        Self { path, options }
    }

    /// Whether a database is made when there is none; it is unless said otherwise.
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.options.create = create;
        self
    }

    /// Whether the database is opened for reading only: nothing on disk is changed, no lock is
    /// taken, and a damaged log is read as far as it goes.
    ///
    /// Beside a writer in another process the newest append may be seen up to one sync before it
    /// is durable.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.options.read_only = read_only;
        self
    }

    /// Whether, and how, what is appended from now on is encrypted.
    #[must_use]
    pub fn encryption(mut self, encryption: Encryption) -> Self {
        self.options.encryption = encryption;
        self
    }

    /// When what is appended from now on is synced.
    #[must_use]
    pub fn sync_policy(mut self, sync_policy: SyncPolicy) -> Self {
        self.options.sync_policy = sync_policy;
        self
    }

    /// How what is appended from now on comes to the disk; the files are the same. Under
    /// [`SyncPolicy::OnFlush`] it goes through the page cache whatever is said here.
    #[must_use]
    pub fn write_mode(mut self, write_mode: WriteMode) -> Self {
        self.options.write_mode = write_mode;
        self
    }

    /// Bytes of recent events that each tenant keeps in memory for its readers; 4 MiB unless said
    /// otherwise.
    #[must_use]
    pub fn tail_bytes_max(mut self, bytes: usize) -> Self {
        self.options.tail_bytes_max = bytes;
        self
    }

    /// What all tenants hold together: open closed segments, and bytes of recent events. Give databases
    /// that are open in one process the same budget.
    ///
    /// Unless said otherwise a database has one of its own: half of the file handles that the process may
    /// have (`ulimit -n`) and at most 16,384 segments, 256 MiB of recent events. Active segments are not
    /// counted: each open tenant has one, or two handles of it under [`WriteMode::Direct`].
    #[must_use]
    pub fn budget(mut self, budget: Arc<Budget>) -> Self {
        self.options.budget = Some(budget);
        self
    }

    /// How many appends of each tenant may be under way: not answered yet, or answered early
    /// ([`Ack::Buffered`](crate::Ack::Buffered)) and not durable yet; 4,000 of 64 MiB together unless
    /// said otherwise. So it also bounds how many of the latter power loss can take.
    ///
    /// When it is reached an append waits in line, or is refused where it says so
    /// ([`Stream::try_append`](crate::Stream::try_append)). Places go to those in line in the order
    /// in which they came, and nobody passes them. A future that has been given its place must be
    /// polled to use it: a thread that blocks while it keeps such futures unpolled can wait for
    /// itself.
    #[must_use]
    pub fn queue_limit(mut self, limit: QueueLimit) -> Self {
        self.options.queue_limit = limit;
        self
    }

    /// Bytes of frames between two entries of the index that finds records in a segment; 4 KiB
    /// unless said otherwise. An entry takes 8 bytes of memory, at most one a batch, and a read walks
    /// over the frames between two of them.
    #[must_use]
    pub fn index_stride_bytes(mut self, bytes: u64) -> Self {
        self.options.index_stride_bytes = bytes;
        self
    }

    /// Bytes by which a tenant's log must have grown before a checkpoint makes another snapshot of
    /// it; 4 MiB unless said otherwise, and never less than the last snapshot has. 0 makes one with
    /// every checkpoint.
    ///
    /// Opening a tenant reads what stands behind its newest snapshot.
    #[must_use]
    pub fn snapshot_growth_min(mut self, bytes: u64) -> Self {
        self.options.snapshot_growth_min = bytes;
        self
    }

    /// Runs of events of one stream, next to each other in the log, that a tenant's index of streams may have in memory
    /// before a snapshot moves them into a store; 65,536 unless said otherwise, of 16 bytes each, or up to 140 where each is of
    /// another stream. About as many stay in memory beside a store that keeps up.
    #[must_use]
    pub fn stream_runs_max(mut self, runs: usize) -> Self {
        self.options.stream_runs_max = runs;
        self
    }

    /// How the bytes of segments come into memory: through mappings of their files, unless said
    /// otherwise.
    #[must_use]
    pub fn read_mode(mut self, read_mode: ReadMode) -> Self {
        self.options.read_mode = read_mode;
        self
    }

    /// Bytes of decrypted events that the database keeps for [`Tenant::read_position`] and for streams that are read
    /// ([`Stream::read`]), of all its tenants together; none unless said otherwise.
    ///
    /// It pays where the same events are read again and again, and costs where they are not. What
    /// is kept is wiped when the last holder lets go of it. Events that are not encrypted are never
    /// kept: they are not copied in the first place.
    ///
    /// [`Tenant::read_position`]: crate::Tenant::read_position
    /// [`Stream::read`]: crate::Stream::read
    #[must_use]
    pub fn opened_bytes_max(mut self, bytes: usize) -> Self {
        self.options.opened_bytes_max = bytes;
        self
    }

    /// Makes a checkpoint of a tenant by itself once it has this many new records; 100,000 unless
    /// said otherwise. It is noticed at the next look at the tenant, 50 ms apart.
    ///
    /// Opening a tenant computes again what stands behind its newest checkpoint.
    #[must_use]
    pub fn checkpoint_records_max(mut self, records: u64) -> Self {
        self.options.checkpoint_records_max = records;
        self
    }

    /// Makes a checkpoint of a tenant by itself when something is new and the last one is as old as
    /// this; a minute unless said otherwise.
    ///
    /// Only a database with background threads does so, and none under [`SyncPolicy::OnFlush`].
    #[must_use]
    pub fn checkpoint_interval(mut self, interval: Duration) -> Self {
        self.options.checkpoint_interval = interval;
        self
    }

    /// How dense old checkpoints are kept as files, 128 unless said otherwise. `d` records behind the
    /// newest checkpoint one is kept of each `d / density` records, rounded down to a power of two; so
    /// of checkpoints at equal distances the newest `density` and more are all kept, and as many again
    /// of each doubling behind them. `u64::MAX` keeps all, 0 counts as 1.
    ///
    /// Old ones are removed behind each 16th that is made, and behind the first after an opening. The
    /// note of a checkpoint also stands in the log, as a record, and stays there.
    #[must_use]
    pub fn checkpoint_density(mut self, density: u64) -> Self {
        self.options.checkpoint_density = density;
        self
    }

    /// Whether threads of the database prepare and seal segments, note when a log has fallen quiet,
    /// and make checkpoints; without them callers do the first, and nobody the others.
    ///
    /// The thread that leads the syncs of futures and of early answers is started by the first of
    /// them in either case.
    #[must_use]
    pub fn background(mut self, background: bool) -> Self {
        self.options.background = background;
        self
    }

    /// The disk that the database lives on.
    #[must_use]
    pub fn disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.options.disk = disk;
        self
    }

    /// Where the times of records come from.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.options.clock = clock;
        self
    }

    /// Where keys and salts come from. Whoever knows these bytes can read the database.
    #[must_use]
    pub fn entropy(mut self, entropy: Arc<dyn Entropy>) -> Self {
        self.options.entropy = entropy;
        self
    }

    /// How the process is told from one that was forked from it.
    #[cfg(test)]
    pub(crate) fn process_id(mut self, process_id: fn() -> u32) -> Self {
        self.options.process_id = process_id;
        self
    }

    pub(crate) fn into_parts(self) -> (PathBuf, Options) {
        (self.path, self.options)
    }

    /// Opens the database.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::NotFound`](crate::ErrorKind::NotFound): there is none, and none may be made.
    /// * [`ErrorKind::Locked`](crate::ErrorKind::Locked): it is open in another process or handle.
    /// * [`ErrorKind::KeyFile`](crate::ErrorKind::KeyFile): the root key is missing or unfit.
    pub fn open(self) -> Result<Database, Error> {
        Database::open_with(self.path, self.options)
    }
}
