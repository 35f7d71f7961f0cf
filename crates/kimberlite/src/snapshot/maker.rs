//! Making snapshots behind checkpoints.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};

use kimberlite_crypto::{Signer, VerifierKey};
use kimberlite_disk::Disk;
use kimberlite_kernel::StateDigest;
use kimberlite_storage::{
    Background, CheckpointStore, FrameView, LogBase, LogReader, LogSnapshot, StorageError,
};
use kimberlite_types::{ChainHash, Position};

use super::{Derived, Kept, Start, count};
use crate::checkpoint::Checkpoints;
use crate::error::Error;
use crate::options::Options;
use crate::streams::RunStore;

/// Makes the snapshots of an open tenant. Holds nothing that keeps the tenant open.
#[derive(Debug)]
pub(crate) struct SnapshotMaker {
    disk: Arc<dyn Disk>,
    reader: LogReader,
    signer: Signer,
    verifier: VerifierKey,
    store: CheckpointStore,
    growth_min: u64,
    /// Has the runs of streams that a snapshot has not.
    runs: Arc<RunStore>,
    /// Whoever makes a snapshot holds this.
    kept: Mutex<Kept>,
    /// The newest checkpoint, until there is a snapshot of it.
    wanted: Mutex<Option<Wanted>>,
    /// Whether the snapshot that is kept fits the files of the log no longer.
    is_outdated: AtomicBool,
    /// Where what the log says was found to differ from what its writer has.
    differs: OnceLock<Position>,
}

/// The checkpoint that a snapshot is to be made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) position: Position,
    pub(crate) chain: ChainHash,
    /// Of the writer's state there.
    pub(crate) digest: StateDigest,
}

impl SnapshotMaker {
    pub(crate) fn new(
        options: &Options,
        reader: LogReader,
        signer: Signer,
        checkpoints: &Checkpoints,
        (kept, runs): (Kept, Arc<RunStore>),
    ) -> Self {
        Self {
            disk: Arc::clone(&options.disk),
            reader,
            signer,
            verifier: checkpoints.verifier().clone(),
            store: checkpoints.store().clone(),
            growth_min: options.snapshot_growth_min,
            runs,
            kept: Mutex::new(kept),
            wanted: Mutex::default(),
            is_outdated: AtomicBool::new(false),
            differs: OnceLock::new(),
        }
    }

    /// Returns at which checkpoint the writer's state was found to be another than the log says. By one
    /// of the two something was decided that the other would not have.
    pub(crate) fn differs(&self) -> Option<Position> {
        self.differs.get().copied()
    }

    /// Notices a checkpoint.
    pub(crate) fn want(&self, wanted: Wanted) {
        *hold(&self.wanted) = Some(wanted);
    }

    /// Notices that segments were written anew, which the snapshot names by their sizes.
    pub(crate) fn outdate(&self) {
        self.is_outdated.store(true, Ordering::Release);
    }

    /// Whether a snapshot is being made, of a checkpoint that need not be the newest any more.
    pub(crate) fn is_making(&self) -> bool {
        matches!(self.kept.try_lock(), Err(TryLockError::WouldBlock))
    }

    /// Makes a snapshot of the newest checkpoint in the background, if the log has grown enough.
    pub(crate) fn make(self: &Arc<Self>, background: &Background) {
        let kept = match self.kept.try_lock() {
            Ok(kept) => *kept,
            Err(TryLockError::Poisoned(kept)) => *kept.into_inner(),
            // One is being made: the next checkpoint comes.
            Err(TryLockError::WouldBlock) => return,
        };
        if hold(&self.wanted).is_some() && self.has_grown_enough(kept) {
            self.make_in(background);
        }
    }

    /// Makes that of the last checkpoint, if the log has grown enough, before the tenant goes.
    pub(crate) fn make_last(&self) {
        if let Err(error) = self.make_now() {
            tracing::warn!(%error, "cannot make a snapshot");
        }
    }

    fn make_in(self: &Arc<Self>, background: &Background) {
        let maker = Arc::clone(self);
        background.run(move || {
            if let Err(error) = maker.make_now() {
                tracing::warn!(%error, "cannot make a snapshot");
            }
        });
    }

    fn has_grown_enough(&self, kept: Kept) -> bool {
        let is_outdated = self.is_outdated.load(Ordering::Acquire);
        let known_bytes = if is_outdated { 0 } else { kept.log_bytes };
        let growth = self.reader.used_bytes().saturating_sub(known_bytes);
        self.growth_min == 0 || growth >= self.growth_min.max(kept.bytes)
    }

    fn make_now(&self) -> Result<(), Error> {
        let mut kept = hold(&self.kept);
        let Some(wanted) = *hold(&self.wanted) else {
            return Ok(());
        };
        if !self.has_grown_enough(*kept) {
            return Ok(());
        }
        // Before the sizes are read: what is written anew later outdates this one.
        let was_outdated = self.is_outdated.swap(false, Ordering::AcqRel);
        let made = self.make_of(wanted, &mut kept);
        if was_outdated && !matches!(made, Ok(true)) {
            self.outdate();
        }
        made.map(drop)
    }

    /// Makes the snapshot, unless something is not there yet or not as it should be.
    fn make_of(&self, wanted: Wanted, kept: &mut Kept) -> Result<bool, Error> {
        let position = wanted.position;
        let Some(closed) = self.reader.sealed_before(self.disk.as_ref(), position)? else {
            return Ok(false);
        };
        let log_bytes = self.reader.used_bytes();
        let mut derived = self.derive(kept.position, position)?;
        if derived.state.digest() != wanted.digest {
            self.differs.get_or_init(|| position);
            let position = position.get();
            tracing::error!(
                position,
                "what the log says differs from what its writer has: nothing more is written; \
                 reopen the database"
            );
            return Ok(false);
        }
        let base = LogBase {
            log_id: self.reader.log_id(),
            position,
            chain: wanted.chain,
            time: derived.state.last_time(),
            closed,
        };
        if self.runs.settle(&derived.catalog.index, position) {
            derived.catalog.index.release(position);
        }
        let contents = derived.encode().expect("a log has its genesis record");
        drop(derived);
        let snapshot = LogSnapshot {
            base,
            log_bytes,
            contents: contents.into(),
        };
        let bytes = snapshot.encode(&self.signer);
        self.store.store_snapshot(position, &bytes)?;
        *kept = Kept {
            position,
            log_bytes,
            bytes: count(bytes.len()),
        };
        // A checkpoint that was made meanwhile is another one's work.
        hold(&self.wanted).take_if(|newest| newest.position == position);
        Ok(true)
    }

    /// Returns what the first `position` records mean, from the snapshot of `kept` of them on.
    fn derive(&self, kept: Position, position: Position) -> Result<Derived, Error> {
        let start = (kept > Position::ZERO)
            .then(|| Start::read(&self.store, &self.verifier, kept))
            .flatten();
        let mut derived = start.map(|start| start.derived).unwrap_or_default();
        let from = derived.state.next_position();
        let mut visit = |frame: &FrameView| {
            let applied = derived.apply(frame);
            applied.map_err(|error| Box::new(error).into())
        };
        let replayed: Result<(), StorageError> = self.reader.replay(from, position, &mut visit);
        replayed?;
        Ok(derived)
    }
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
