//! The store of the runs that are not in memory.
//!
//! It is made once there are enough of them, in the background, behind a checkpoint: a small tenant has none. A
//! snapshot leaves out the runs that were durable in it before.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kimberlite_disk::{Disk, DiskError};
use kimberlite_projection::store::{Identity, Store, StoreError, StoreOptions};
use kimberlite_projection::{
    FollowError, Follower, FollowerState, Followers, Named, Projection as _, Reads, RunnerHandle,
    STORE_FILE, STORE_NEW_FILE, STREAM_RUNS_NAME, StoreTarget, StoredRuns, StreamIndex, StreamRuns,
};
use kimberlite_storage::LogReader;
use kimberlite_types::Position;

use super::source::{HeaderSource, knows};

/// How long it is waited for before a snapshot is made with all runs in it.
const SETTLE_MAX: Duration = Duration::from_secs(10);

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
}

/// The store, if there is one. Holds nothing that keeps the tenant open.
pub(crate) struct RunStore {
    place: RunPlace,
    kept: Mutex<Kept>,
    /// Whoever reads the log for runs holds this.
    filling: Mutex<()>,
}

enum Kept {
    Nothing,
    Followed(Arc<Following>),
    /// A state of it, beside whom another process may write.
    Observed(StoredRuns),
    /// The tenant is closed.
    Ended,
}

struct Following {
    follower: Follower,
    reads: Reads,
}

impl RunStore {
    pub(crate) fn new(place: RunPlace) -> Self {
        Self {
            place,
            kept: Mutex::new(Kept::Nothing),
            filling: Mutex::new(()),
        }
    }

    /// Runs of a part of the index in memory: some parts are as many as there may be without a store.
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
            self.observe().map(Kept::Observed)
        } else {
            self.exists().and_then(|exists| {
                let following = exists.then(|| self.follow()).transpose()?;
                Ok(following.map_or(Kept::Nothing, Kept::Followed))
            })
        };
        match opened {
            Ok(kept) => *self.hold() = kept,
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
        match self.make() {
            Ok(Some(following)) => is_large && following.settle(position),
            Ok(None) => false,
            Err(error) => {
                tracing::warn!(%error, "the store of the index of streams cannot be made");
                false
            }
        }
    }

    /// What it has, as far as that is known.
    pub(crate) fn view(&self) -> Option<StoredRuns> {
        match &*self.hold() {
            Kept::Followed(following) => Some(StoredRuns::from(following.reads.snapshot())),
            Kept::Observed(stored) => Some(stored.clone()),
            Kept::Nothing | Kept::Ended => None,
        }
    }

    /// Everything before this position can be found in it; zero where somebody is about to change that.
    pub(crate) fn readable(&self) -> Position {
        match self.kept.try_lock().as_deref() {
            Ok(Kept::Followed(following)) => following.reads.snapshot().applied().position,
            _ => Position::ZERO,
        }
    }

    /// Lets go of a store that is not what it should be. Another one is made in its place behind a checkpoint.
    pub(crate) fn abandon(&self, error: Option<&StoreError>) {
        let mut kept = self.hold();
        if matches!(*kept, Kept::Nothing | Kept::Ended) {
            return;
        }
        tracing::warn!(
            error = error.map(|error| error as &dyn std::error::Error),
            "the store of the index of streams is not what it should be"
        );
        let abandoned = std::mem::replace(&mut *kept, Kept::Nothing);
        if !matches!(abandoned, Kept::Followed(_)) {
            return;
        }
        drop(abandoned);
        if let Err(error) = self.remove() {
            tracing::warn!(%error, "the store of the index of streams cannot be removed");
            // Nobody opens it again as it is.
            *kept = Kept::Ended;
        }
    }

    /// Ends it with the tenant.
    pub(crate) fn end(&self) {
        let kept = std::mem::replace(&mut *self.hold(), Kept::Ended);
        drop(kept);
    }

    pub(super) const fn filling(&self) -> &Mutex<()> {
        &self.filling
    }

    fn hold(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make(&self) -> Result<Option<Arc<Following>>, RunStoreError> {
        let mut kept = self.hold();
        match &*kept {
            Kept::Followed(following) => Ok(Some(Arc::clone(following))),
            Kept::Observed(_) | Kept::Ended => Ok(None),
            Kept::Nothing => {
                let following = self.follow()?;
                *kept = Kept::Followed(Arc::clone(&following));
                Ok(Some(following))
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
        let source = HeaderSource {
            reader: place.reader.clone(),
        };
        let projection = Arc::new(StreamRuns::new(source.clone()));
        let named = Named {
            name: STREAM_RUNS_NAME.to_owned(),
            version: projection.version(),
        };
        place.disk.create_dir_all(&place.directory)?;
        let target = StoreTarget::open(
            Arc::clone(&place.disk),
            &place.directory,
            (Arc::clone(&projection), self.identity()),
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
        if !knows(&place.reader, snapshot.applied()) {
            return Err(StoreError::Foreign { path }.into());
        }
        Ok(StoredRuns::from(snapshot))
    }

    fn identity(&self) -> Identity {
        let projection = StreamRuns::new(HeaderSource {
            reader: self.place.reader.clone(),
        });
        let log_id = self.place.reader.log_id();
        Identity::new(log_id, projection.name(), projection.version())
    }

    fn remove(&self) -> Result<(), DiskError> {
        let RunPlace {
            disk, directory, ..
        } = &self.place;
        for name in [STORE_FILE, STORE_NEW_FILE] {
            match disk.remove(&directory.join(name)) {
                Ok(()) | Err(DiskError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        disk.sync_dir(directory)
    }
}

impl Following {
    /// Whether everything before `position` is durable in what would be opened.
    fn settle(&self, position: Position) -> bool {
        let last = Position::new(position.get().saturating_sub(1));
        let settled =
            self.follower.wait_for(last, SETTLE_MAX).is_ok() && self.follower.flush().is_ok();
        let status = self.follower.status();
        settled
            && !matches!(
                status.state,
                FollowerState::Rebuilding | FollowerState::Parked(_)
            )
    }
}

impl fmt::Debug for RunStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = match &*self.hold() {
            Kept::Nothing => "nothing",
            Kept::Followed(_) => "followed",
            Kept::Observed(_) => "observed",
            Kept::Ended => "ended",
        };
        f.debug_struct("RunStore")
            .field("kept", &kept)
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
