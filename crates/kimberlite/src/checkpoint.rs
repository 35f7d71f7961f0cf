//! Signed checkpoints.
//!
//! A checkpoint is made in this order: 1. the record of the one before is appended, 2. the log is
//! synced, 3. the note is signed over its size, root and chain, 4. stored. So the newest checkpoint
//! is never in the log that it speaks of, and such records alone call for no new one. The commit
//! lock is held for 1 and 2 only: nobody waits for the files of a checkpoint to append.

mod thinning;

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use kimberlite_crypto::{CheckpointBody, SignedCheckpoint, Signer, VerifierKey};
use kimberlite_disk::DiskError;
use kimberlite_kernel::{Command, StateDigest};
use kimberlite_storage::{CheckpointStore, HistoryState, Statement, StorageError, Witness};
use kimberlite_types::{ChainHash, Position, RecordKind, RootHash, Timestamp};

use crate::engine::{Engine, Group};
use crate::error::{Error, ErrorKind, Problem};
use crate::snapshot::Wanted;
use crate::tenant::{Tenant, TenantInner};

pub(crate) use thinning::Thinning;

/// A signed statement about history: that the log had this root and chain when it had this size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    body: CheckpointBody,
    note: String,
}

impl Checkpoint {
    /// Returns the log that it speaks of, as its key is named.
    pub fn origin(&self) -> &str {
        &self.body.origin
    }

    /// Returns the number of records.
    pub fn size(&self) -> u64 {
        self.body.size
    }

    /// Returns the root of the Merkle tree over them (RFC 6962).
    pub fn root(&self) -> RootHash {
        self.body.root
    }

    /// Returns the hash chain after the last of them.
    pub fn chain(&self) -> ChainHash {
        self.body.chain
    }

    /// Returns when it was made.
    pub fn time(&self) -> Timestamp {
        self.body.time
    }

    fn statement(&self) -> Statement {
        Statement {
            size: self.position(),
            root: self.root(),
            chain: self.chain(),
        }
    }

    /// Returns the position after the last of its records.
    pub(crate) fn position(&self) -> Position {
        Position::new(self.size())
    }

    /// Returns the signed note (C2SP tlog-checkpoint), for others to keep and check.
    pub fn note(&self) -> &str {
        &self.note
    }
}

impl Tenant {
    /// Makes a checkpoint of everything appended so far; the newest one when nothing is new.
    ///
    /// A database with background threads makes checkpoints by itself, see
    /// [`DatabaseBuilder::checkpoint_interval`](crate::DatabaseBuilder::checkpoint_interval), and
    /// closing it makes one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown) when the log cannot be
    /// synced, [`ErrorKind::Io`](crate::ErrorKind::Io) and
    /// [`ErrorKind::DiskFull`](crate::ErrorKind::DiskFull) when the note cannot be stored.
    pub fn checkpoint(&self) -> Result<Checkpoint, Error> {
        self.inner().make_checkpoint()
    }

    /// Returns the newest checkpoint whose signature is right; a damaged one is passed over, and
    /// told by [`Tenant::verify`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) when files cannot be read.
    pub fn latest_checkpoint(&self) -> Result<Option<Checkpoint>, Error> {
        self.inner().checkpoints.newest()
    }

    /// Returns the key that checkpoints are verified with, in the form that signed-note tools take.
    pub fn verifier_key(&self) -> String {
        self.inner().checkpoints.verifier.to_string()
    }
}

/// The checkpoints of an open tenant.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    store: CheckpointStore,
    origin: String,
    verifier: VerifierKey,
    /// The keys of earlier incarnations, each with the number of records that it may speak of.
    earlier: Vec<(VerifierKey, u64)>,
    /// The newest one. Whoever makes one holds this.
    latest: Mutex<Option<Checkpoint>>,
    /// Checkpoints that were made since old ones were removed last.
    since_thinned: AtomicU64,
}

/// Whether a checkpoint should be made without being asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing is new.
    Not,
    /// Something is new, but not old or large enough.
    Later,
    Now,
}

/// What a checkpoint is to be signed over.
struct Concluded {
    state: HistoryState,
    time: Timestamp,
    /// Of the kernel's state at the same position.
    digest: StateDigest,
}

impl Checkpoints {
    /// Takes the checkpoint files of a log, and says what they are worth.
    pub(crate) fn open(
        store: CheckpointStore,
        origin: String,
        (verifier, earlier): (VerifierKey, Vec<(VerifierKey, u64)>),
    ) -> Result<(Self, Witness), Error> {
        let mut checkpoints = Self {
            store,
            origin,
            verifier,
            earlier,
            latest: Mutex::default(),
            // The first one looks at what is there.
            since_thinned: AtomicU64::new(thinning::THIN_EVERY),
        };
        checkpoints.refuse_unknown()?;
        let newest = checkpoints.newest()?;
        let stated = newest.as_ref().map(Checkpoint::statement);
        let history = match stated {
            Some(stated) => checkpoints.signed_state(stated.size)?,
            None => None,
        };
        checkpoints.latest = Mutex::new(newest);
        let newest = stated;
        let base = None;
        let witness = Witness {
            newest,
            history,
            base,
        };
        Ok((checkpoints, witness))
    }

    /// Returns the files.
    pub(crate) fn store(&self) -> &CheckpointStore {
        &self.store
    }

    /// Returns the key that notes and snapshots are checked with.
    pub(crate) fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// Returns the name of the log in its checkpoints.
    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    /// Returns the sizes of all checkpoints, in order.
    pub(crate) fn sizes(&self) -> Result<Vec<Position>, Error> {
        Ok(self.store.sizes()?)
    }

    /// Returns the sizes of all checkpoints that are sound, in order.
    pub(crate) fn sound_sizes(&self) -> Result<Vec<Position>, Error> {
        let mut sizes = self.sizes()?;
        sizes.retain(|&size| self.read(size).is_ok());
        Ok(sizes)
    }

    /// Reads the checkpoint of `size` records and checks its signature.
    pub(crate) fn read(&self, size: Position) -> Result<Checkpoint, Error> {
        self.check_sized(self.store.note(size)?, size)
    }

    /// Reads it as [`read`](Self::read) does; `None` when it was removed since the files were listed.
    pub(crate) fn read_if_there(&self, size: Position) -> Option<Result<Checkpoint, Error>> {
        match self.store.note(size) {
            Ok(note) => Some(self.check_sized(note, size)),
            Err(StorageError::Disk(DiskError::NotFound { .. })) => None,
            Err(error) => Some(Err(error.into())),
        }
    }

    /// Checks a note of the checkpoint of `size` records.
    fn check_sized(&self, note: String, size: Position) -> Result<Checkpoint, Error> {
        let checkpoint = self.check(note, size)?;
        if checkpoint.size() != size.get() {
            return Err(StorageError::CheckpointFile { size: size.get() }.into());
        }
        Ok(checkpoint)
    }

    fn check(&self, note: String, size: Position) -> Result<Checkpoint, Error> {
        let bad = |source| Problem::Checkpoint {
            size: size.get(),
            source,
        };
        let signed = SignedCheckpoint::parse(&note).map_err(bad)?;
        let body = match signed.clone().verify(&self.verifier) {
            Ok(body) => body,
            Err(error) => self.by_earlier(&signed).ok_or_else(|| bad(error))?,
        };
        Ok(Checkpoint { body, note })
    }

    /// Verifies a checkpoint of an earlier incarnation. One that speaks of more records than this
    /// log shares with it is about another history.
    fn by_earlier(&self, signed: &SignedCheckpoint) -> Option<CheckpointBody> {
        self.earlier.iter().find_map(|(verifier, size)| {
            let body = signed.clone().verify(verifier).ok()?;
            (body.size <= *size).then_some(body)
        })
    }

    /// Refuses to go on under an older name: the note that other tools see must not be signed, by
    /// this log's key, for an incarnation that nothing here knows of.
    fn refuse_unknown(&self) -> Result<(), Error> {
        let Some(note) = self.store.shown() else {
            return Ok(());
        };
        let origin = note.lines().next().unwrap_or_default();
        let log = |origin: &str| origin.rsplit_once('/').map(|(log, _)| log.to_owned());
        let mut known = self.earlier.iter().map(|(verifier, _)| verifier.name());
        if log(origin) != log(&self.origin) || origin == self.origin || known.any(|it| it == origin)
        {
            return Ok(());
        }
        let verifier = VerifierKey::new(origin, self.verifier.public_key());
        let signed = SignedCheckpoint::parse(&note).ok().zip(verifier.ok());
        if signed.is_some_and(|(signed, verifier)| signed.verify(&verifier).is_ok()) {
            let origin = origin.to_owned();
            return Err(Problem::UnknownIncarnation { origin }.into());
        }
        Ok(())
    }

    /// Whether any note names this incarnation, its signature right or not.
    pub(crate) fn names_this_incarnation(&self) -> Result<bool, Error> {
        let names = |note: &str| note.lines().next() == Some(self.origin());
        let mut sizes = self.sizes()?.into_iter();
        Ok(self.store.shown().is_some_and(|note| names(&note))
            || sizes.any(|size| self.store.note(size).is_ok_and(|note| names(&note))))
    }

    /// Returns the sizes of notes that an incarnation which ended signed over records that this log
    /// does not share with it.
    pub(crate) fn left_over(&self) -> Result<Vec<Position>, Error> {
        let mut sizes = self.sizes()?;
        sizes.retain(|&size| {
            let note = self.store.note(size);
            note.is_ok_and(|note| self.is_left_over(&note))
        });
        Ok(sizes)
    }

    /// Whether such a note is the one that other tools see.
    pub(crate) fn shows_left_over(&self) -> bool {
        let shown = self.store.shown();
        shown.is_some_and(|note| self.is_left_over(&note))
    }

    fn is_left_over(&self, note: &str) -> bool {
        let Ok(signed) = SignedCheckpoint::parse(note) else {
            return false;
        };
        self.earlier.iter().any(|(verifier, size)| {
            let body = signed.clone().verify(verifier);
            body.is_ok_and(|body| body.size > *size)
        })
    }

    /// Reads the checkpoint that other tools see; `None` when there is none.
    pub(crate) fn shown(&self) -> Option<Result<Checkpoint, Error>> {
        Some(self.check(self.store.shown()?, Position::ZERO))
    }

    /// Finds the newest checkpoint that is sound, among all and the one that other tools see.
    fn newest(&self) -> Result<Option<Checkpoint>, Error> {
        let shown = self.shown().and_then(Result::ok);
        let shown_size = shown.as_ref().map_or(0, Checkpoint::size);
        for size in self.sizes()?.into_iter().rev() {
            if size.get() <= shown_size {
                break;
            }
            match self.read(size) {
                Ok(checkpoint) => return Ok(Some(checkpoint)),
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    tracing::warn!(size = size.get(), "a damaged checkpoint is passed over");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(shown)
    }

    /// Finds the newest state, up to `size` records, that a signed note bears out.
    fn signed_state(&self, size: Position) -> Result<Option<HistoryState>, Error> {
        let sizes = self.sizes()?.into_iter().rev();
        let signed = |size| {
            let (checkpoint, state) = (self.read(size).ok()?, self.store.state(size)?);
            (checkpoint.statement() == state.statement()).then_some(state)
        };
        Ok(sizes.filter(|&at| at <= size).find_map(signed))
    }

    fn latest(&self) -> MutexGuard<'_, Option<Checkpoint>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Signs and stores a checkpoint.
    fn sign(&self, concluded: &Concluded, signer: &Signer) -> Result<Checkpoint, Error> {
        let Concluded { state, time, .. } = concluded;
        let body = CheckpointBody {
            origin: self.origin.clone(),
            size: state.size().get(),
            root: state.root(),
            chain: state.chain(),
            time: *time,
        };
        let bad = |source| Problem::Checkpoint {
            size: body.size,
            source,
        };
        let note = body.sign(signer).map_err(bad)?;
        self.store.store(state, &note)?;
        Ok(Checkpoint { body, note })
    }

    /// Makes good what a crash left between the files of the newest checkpoint.
    fn show(&self, latest: &Checkpoint) -> Result<(), Error> {
        if self.store.shown().as_deref() == Some(latest.note()) {
            return Ok(());
        }
        Ok(self.store.show(latest.note())?)
    }
}

impl TenantInner {
    pub(crate) fn make_checkpoint(&self) -> Result<Checkpoint, Error> {
        let mut latest = self.checkpoints.latest();
        let concluded = self.with_engine(|engine| self.conclude(engine, latest.as_ref()))?;
        let checkpoint = self.sign(&mut latest, concluded.as_ref())?;
        drop(latest);
        self.keep_snapshot();
        Ok(checkpoint)
    }

    /// Makes a snapshot of the newest checkpoint in the background, if it is worth it.
    pub(crate) fn keep_snapshot(&self) {
        if let Some(snapshots) = &self.snapshots {
            snapshots.make(&self.database.snapshots);
        }
    }

    /// Makes that of the last checkpoint, if it is worth it.
    pub(crate) fn keep_last_snapshot(&self) {
        if let Some(snapshots) = &self.snapshots {
            snapshots.make_last();
        }
    }

    /// Makes the checkpoint of a log that nobody else can write to any more.
    pub(crate) fn last_checkpoint(&self, engine: &mut Engine) -> Result<Checkpoint, Error> {
        let mut latest = self.checkpoints.latest();
        let concluded = self.conclude(engine, latest.as_ref())?;
        self.sign(&mut latest, concluded.as_ref())
    }

    /// Whether a checkpoint should be made now.
    pub(crate) fn checkpoint_due(&self) -> Due {
        // While one is being made, it is too early to tell.
        let latest = match self.checkpoints.latest.try_lock() {
            Ok(latest) => latest,
            Err(TryLockError::Poisoned(latest)) => latest.into_inner(),
            Err(TryLockError::WouldBlock) => return Due::Later,
        };
        let (size, made) = latest
            .as_ref()
            .map_or((0, self.opened), |latest| (latest.size(), latest.time()));
        let options = &self.database.options;
        if self.catalog().substantial_end.get() <= size {
            return Due::Not;
        }
        let age = options.clock.now().nanoseconds_since(made);
        let old = u128::from(age) >= options.checkpoint_interval.as_nanos();
        let records = self.reader.durable().get().saturating_sub(size);
        if old || records >= options.checkpoint_records_max {
            Due::Now
        } else {
            Due::Later
        }
    }

    /// Brings the log to a state that can be signed; `None` when nothing is new.
    fn conclude(
        &self,
        engine: &mut Engine,
        latest: Option<&Checkpoint>,
    ) -> Result<Option<Concluded>, Error> {
        engine.log.sync()?;
        self.show()?;
        if let Some(latest) = latest {
            if self.catalog().substantial_end.get() <= latest.size() {
                return Ok(None);
            }
            self.record_checkpoint(engine, latest)?;
        }
        Ok(Some(Concluded {
            state: engine.log.history(),
            time: engine.now(),
            digest: engine.state.digest(),
        }))
    }

    /// Puts a checkpoint into the log that it speaks of, once.
    fn record_checkpoint(&self, engine: &mut Engine, latest: &Checkpoint) -> Result<(), Error> {
        let size = Position::new(latest.size());
        if engine.state.last_checkpoint() >= Some(size) {
            return Ok(());
        }
        let command = Command::Checkpoint {
            size,
            time: engine.now(),
        };
        let mut group = Group::default();
        let note = latest.note().as_bytes();
        let bytes = u64::try_from(note.len()).unwrap_or(u64::MAX);
        engine.log.reserve(bytes + 256)?;
        engine.record(&mut group, RecordKind::Checkpoint, command, note)?;
        self.commit(engine, group)?;
        engine.log.sync()?;
        self.show()
    }

    fn sign(
        &self,
        latest: &mut Option<Checkpoint>,
        concluded: Option<&Concluded>,
    ) -> Result<Checkpoint, Error> {
        if let Some(concluded) = concluded {
            let checkpoint = self.checkpoints.sign(concluded, &self.keys.signer)?;
            if let Some(snapshots) = &self.snapshots {
                snapshots.want(Wanted {
                    position: checkpoint.position(),
                    chain: checkpoint.chain(),
                    digest: concluded.digest,
                });
            }
            self.thin_checkpoints(&checkpoint);
            return Ok(latest.insert(checkpoint).clone());
        }
        let latest = latest.as_ref();
        let latest = latest.expect("without a checkpoint everything is new");
        self.checkpoints.show(latest)?;
        Ok(latest.clone())
    }
}
