//! The store of the runs that are not in memory.
//!
//! It is made once there are enough of them, in the background, when a snapshot is made: a small tenant has none. A
//! snapshot leaves out the runs that were durable in it before.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use kimberlite_disk::{Disk, DiskError};
use kimberlite_projection::store::{Identity, Store, StoreError, StoreOptions};
use kimberlite_projection::{
    FollowError, Follower, FollowerState, Followers, Named, Reads, RunnerHandle, STORE_FILE,
    STORE_NEW_FILE, STREAM_RUNS_NAME, STREAM_RUNS_VERSION, Source as _, StoreTarget, StoredRuns,
    StreamIndex, StreamRuns, remove_stores,
};
use kimberlite_storage::LogReader;
use kimberlite_types::Position;

use super::source::{HeaderSource, knows};

/// How long it is waited for before a snapshot is made with all runs in it.
const SETTLE_MAX: Duration = Duration::from_secs(2);

/// Records that may be left for it to take in while it is waited for: more take longer.
const BEHIND_MAX: u64 = 4_000_000;

/// Where the store of a tenant is, and what runs it.
pub(crate) struct RunPlace {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) directory: PathBuf,
    pub(crate) options: StoreOptions,
    pub(crate) runner: RunnerHandle,
    pub(crate) followers: Arc<Followers>,
    pub(crate) reader: LogReader,
    pub(crate) read_only: bool,
    /// Runs in memory above which a store is made.
    pub(crate) runs_max: usize,
    /// Tells a process from one that was forked from it.
    pub(crate) process_id: fn() -> u32,
}

/// The store, if there is one. Holds nothing that keeps the tenant open.
pub(crate) struct RunStore {
    place: RunPlace,
    /// The process that opened the tenant.
    owner: u32,
    held: Mutex<Held>,
    /// Stores that were opened or made.
    opened: AtomicU64,
    /// Whoever reads the log for runs holds this.
    filling: Mutex<()>,
}

/// Which of the stores that there were it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoreNumber(u64);

enum Held {
    Nothing,
    Followed(Arc<Following>, StoreNumber),
    /// A state of it, beside whom another process may write.
    Observed(StoredRuns, StoreNumber),
    /// It is being removed.
    Leaving,
    /// The tenant is closed, or its process was forked from another one.
    Ended,
}

struct Following {
    follower: Follower,
    reads: Reads,
}

impl RunStore {
    pub(crate) fn new(place: RunPlace) -> Self {
        Self {
            owner: (place.process_id)(),
            place,
            held: Mutex::new(Held::Nothing),
            opened: AtomicU64::new(0),
            filling: Mutex::new(()),
        }
    }

    /// Runs after which a part of the index ends: four of them are as many as there may be in memory before a
    /// store is made.
    pub(crate) fn part_runs_max(&self) -> usize {
        if self.place.read_only {
            return usize::MAX;
        }
        (self.place.runs_max / 4).max(1)
    }

    /// Opens the store at the opening of the tenant, where the index needs it.
    pub(crate) fn open_for(&self, index: &StreamIndex) {
        if index.from() == Position::ZERO {
            return;
        }
        let opened = if self.place.read_only {
            // A page may be written anew just then.
            let observed = self.observe().or_else(|_| self.observe());
            observed.map(|stored| Held::Observed(stored, self.next_number()))
        } else {
            self.exists().and_then(|exists| {
                let following = exists.then(|| self.follow()).transpose()?;
                let followed = |following| Held::Followed(following, self.next_number());
                Ok(following.map_or(Held::Nothing, followed))
            })
        };
        match opened {
            Ok(held) => *self.hold() = held,
            Err(error) => {
                tracing::warn!(%error, "the store of the index of streams cannot be opened");
            }
        }
    }

    /// Makes the store where `index` needs one, and has it take in all before `position`, durably: then the index may
    /// leave that out of a snapshot. Says whether it may.
    pub(crate) fn settle(&self, index: &StreamIndex, position: Position) -> bool {
        let is_large = index.runs_here() > self.place.runs_max;
        if !is_large && index.from() == Position::ZERO {
            return false;
        }
        let (following, number) = match self.make() {
            Ok(Some(made)) => made,
            Ok(None) => return false,
            Err(error) => {
                tracing::warn!(%error, "the store of the index of streams cannot be made");
                return false;
            }
        };
        if following.is_parked() && following.follower.retry().is_err() {
            self.abandon(number, None);
            return false;
        }
        let is_settled = is_large && following.settle(position);
        if following.is_parked() {
            self.abandon(number, None);
            return false;
        }
        // Nobody has found it wrong meanwhile.
        is_settled && matches!(*self.hold(), Held::Followed(_, held) if held == number)
    }

    /// What it has, as far as that is known, and which it is.
    pub(crate) fn view(&self) -> Option<(StoredRuns, StoreNumber)> {
        match &*self.hold() {
            Held::Followed(following, number) => {
                Some((StoredRuns::from(following.reads.snapshot()), *number))
            }
            Held::Observed(stored, number) => Some((stored.clone(), *number)),
            Held::Nothing | Held::Leaving | Held::Ended => None,
        }
    }

    /// Everything before this position can be found in it; zero where somebody is about to change that.
    pub(crate) fn readable(&self) -> Position {
        let held = match self.held.try_lock() {
            Ok(held) => held,
            Err(TryLockError::Poisoned(held)) => held.into_inner(),
            Err(TryLockError::WouldBlock) => return Position::ZERO,
        };
        match &*held {
            Held::Followed(following, _) => following.reads.snapshot().applied().position,
            _ => Position::ZERO,
        }
    }

    /// Lets go of a store that is not what it should be, if it is still there. Another one is made in its place behind
    /// the next snapshot.
    pub(crate) fn abandon(&self, number: StoreNumber, error: Option<&StoreError>) {
        let mut held = self.hold();
        let is_it = match &*held {
            Held::Followed(_, it) | Held::Observed(_, it) => *it == number,
            Held::Nothing | Held::Leaving | Held::Ended => false,
        };
        if !is_it {
            return;
        }
        let abandoned = std::mem::replace(&mut *held, Held::Leaving);
        drop(held);
        let left = self.leave(abandoned, error);
        *self.hold() = left;
    }

    /// Lets go of a store; returns what is held in its place.
    fn leave(&self, abandoned: Held, error: Option<&StoreError>) -> Held {
        if !self.is_owner() {
            std::mem::forget(abandoned);
            return Held::Ended;
        }
        tracing::warn!(
            error = error.map(|error| error as &dyn std::error::Error),
            "the store of the index of streams is not what it should be"
        );
        let Held::Followed(following, _) = abandoned else {
            return Held::Nothing;
        };
        following.follower.discard();
        drop(following);
        match remove_stores(&*self.place.disk, &self.place.directory) {
            Ok(()) => Held::Nothing,
            // Nobody opens it again as it is.
            Err(error) => {
                tracing::warn!(%error, "the store of the index of streams cannot be removed");
                Held::Ended
            }
        }
    }

    /// Ends it with the tenant.
    pub(crate) fn end(&self) {
        let held = std::mem::replace(&mut *self.hold(), Held::Ended);
        if self.is_owner() {
            drop(held);
        } else {
            std::mem::forget(held);
        }
    }

    pub(super) const fn filling(&self) -> &Mutex<()> {
        &self.filling
    }

    /// Whether this is the process that opened the tenant: the files are those of that one.
    fn is_owner(&self) -> bool {
        (self.place.process_id)() == self.owner
    }

    fn next_number(&self) -> StoreNumber {
        StoreNumber(self.opened.fetch_add(1, Ordering::Relaxed))
    }

    fn hold(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make(&self) -> Result<Option<(Arc<Following>, StoreNumber)>, RunStoreError> {
        let mut held = self.hold();
        match &*held {
            Held::Followed(following, number) => Ok(Some((Arc::clone(following), *number))),
            Held::Observed(..) | Held::Leaving | Held::Ended => Ok(None),
            Held::Nothing => {
                let (following, number) = (self.follow()?, self.next_number());
                *held = Held::Followed(Arc::clone(&following), number);
                Ok(Some((following, number)))
            }
        }
    }

    fn exists(&self) -> Result<bool, RunStoreError> {
        let RunPlace {
            disk, directory, ..
        } = &self.place;
        Ok(disk.exists(&directory.join(STORE_FILE))?
            || disk.exists(&directory.join(STORE_NEW_FILE))?)
    }

    fn follow(&self) -> Result<Arc<Following>, RunStoreError> {
        let place = &self.place;
        let source = self.source();
        let projection = Arc::new(StreamRuns::new(source.clone()));
        let named = Named {
            name: STREAM_RUNS_NAME.to_owned(),
            version: STREAM_RUNS_VERSION,
        };
        place.disk.create_dir_all(&place.directory)?;
        let target = StoreTarget::open(
            Arc::clone(&place.disk),
            &place.directory,
            (projection, self.identity()),
            place.options.clone(),
            &|applied| knows(&place.reader, applied),
        )?;
        let reads = target.reads();
        let followers = &place.followers;
        let follower = place
            .runner
            .follow(followers, named, Arc::new(source), Box::new(target))?;
        Ok(Arc::new(Following { follower, reads }))
    }

    /// A state of the store that is there; pages that are written anew meanwhile show as damage.
    fn observe(&self) -> Result<StoredRuns, RunStoreError> {
        let place = &self.place;
        let path = place.directory.join(STORE_FILE);
        let options = place.options.clone();
        let snapshot = Store::observe(&*place.disk, &path, self.identity(), options)?;
        // One that a writer has taken further than this reader looks says nothing of its history; what it leads to
        // is compared.
        let applied = snapshot.applied();
        if applied.position <= place.reader.durable() && !knows(&place.reader, applied) {
            return Err(StoreError::Foreign { path }.into());
        }
        Ok(StoredRuns::from(snapshot))
    }

    fn source(&self) -> HeaderSource {
        HeaderSource {
            reader: self.place.reader.clone(),
        }
    }

    fn identity(&self) -> Identity {
        self.source()
            .identity(STREAM_RUNS_NAME, STREAM_RUNS_VERSION)
    }

    /// Has it take in the log without a flush.
    #[cfg(test)]
    pub(super) fn take_in(&self, position: Position) {
        if let Held::Followed(following, _) = &*self.hold() {
            following.follower.wait_for(position, SETTLE_MAX).unwrap();
        }
    }
}

impl Following {
    fn is_parked(&self) -> bool {
        matches!(self.follower.status().state, FollowerState::Parked(_))
    }

    /// Whether everything before `position` is durable in what would be opened.
    fn settle(&self, position: Position) -> bool {
        let status = self.follower.status();
        let left = status.end.get().saturating_sub(status.applied.get());
        if left > BEHIND_MAX {
            return false;
        }
        let last = Position::new(position.get().saturating_sub(1));
        let is_there = self.follower.wait_for(last, SETTLE_MAX).is_ok();
        let is_flushed = is_there && self.follower.flush().is_ok();
        is_flushed && !matches!(self.follower.status().state, FollowerState::Rebuilding)
    }
}

impl fmt::Debug for RunStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = match &*self.hold() {
            Held::Nothing => "nothing",
            Held::Followed(..) => "followed",
            Held::Observed(..) => "observed",
            Held::Leaving => "leaving",
            Held::Ended => "ended",
        };
        f.debug_struct("RunStore")
            .field("held", &held)
            .finish_non_exhaustive()
    }
}

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
enum RunStoreError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Follow(#[from] FollowError),
}
