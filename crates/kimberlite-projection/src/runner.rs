//! Keeps projections up with the log.
//!
//! A [`Runner`] has a few threads, for the projections of all logs of a database. Whoever makes records
//! durable says so with [`Followers::notice`], which costs him a look at a flag or, once a tick and for the first
//! record after a quiet time, a lock. While the log is busy its projections are looked at once a tick, and take in
//! what came since; so they come a tick behind. A thread is woken after a quiet time, and where all that are awake run
//! other projections.
//!
//! What a projection will need next another thread may do beside it: read the batch behind the one that is taken in,
//! and flush. Where no thread has begun by then, it does so itself; so all goes on with one thread, or none.
//!
//! * **Invariant:** a projection is in a queue at most once, and takes in batches on one thread at a time.
//! * **Invariant:** what was noticed is looked at: the flag is cleared before the end of the log is read.
//! * **Invariant:** what somebody waits for does not wait for a tick, also where it ran when he came.
//! * **Invariant:** a thread holds nothing of a log between steps, so that the last handle that goes takes
//!   the log with it. Whoever lets go of a projection has waited for what is done beside it.
//! * **Invariant:** a batch that was read ahead is taken in by the state that it was read for alone: one of the same
//!   identity, up to where it begins.

mod follower;
mod pool;
mod work;

use std::sync::{Arc, PoisonError};

use self::follower::Task;
use self::pool::Pool;
use crate::source::{BatchSize, Source};
use crate::sync::RwLock;
use crate::target::Target;

pub use self::follower::{Follower, FollowerState, FollowerStatus, Parked, WaitError};

/// How projections are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunnerOptions {
    /// Threads that run projections; with none they are run by whoever waits for them. Default: 3, of which
    /// one takes in a batch while one reads the next and one flushes.
    pub threads_max: usize,
    /// How large batches are.
    pub batch: BatchSize,
    /// Bytes that a projection may have in memory before they are flushed; as many may come while they are. Default:
    /// 128 MiB.
    pub flush_bytes: usize,
}

impl Default for RunnerOptions {
    fn default() -> Self {
        Self {
            threads_max: 3,
            batch: BatchSize::default(),
            flush_bytes: 128 << 20,
        }
    }
}

/// Runs projections on threads of its own, which are started when they are needed and end with it.
#[derive(Debug)]
pub struct Runner {
    pool: Arc<Pool>,
    options: RunnerOptions,
}

impl Runner {
    /// Makes a runner that has not begun any thread.
    pub fn new(options: RunnerOptions) -> Self {
        Self {
            pool: Arc::new(Pool::new(options.threads_max)),
            options,
        }
    }

    /// A handle, through which projections are run. It does not keep the runner from ending: what follows a log then stands
    /// still.
    pub fn handle(&self) -> RunnerHandle {
        RunnerHandle {
            pool: Arc::clone(&self.pool),
            options: self.options,
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.pool.end();
    }
}

/// Has projections run by a [`Runner`].
#[derive(Clone, Debug)]
pub struct RunnerHandle {
    pool: Arc<Pool>,
    options: RunnerOptions,
}

impl RunnerHandle {
    /// Has `target` follow the log of `source` for as long as the [`Follower`] is there.
    ///
    /// # Errors
    ///
    /// [`FollowError::NameTaken`] when a target of this name follows that log already.
    pub fn follow(
        &self,
        followers: &Arc<Followers>,
        named: Named,
        source: Arc<dyn Source>,
        target: Box<dyn Target>,
    ) -> Result<Follower, FollowError> {
        let run = (self.options, Arc::clone(&self.pool));
        let work = work::Work::new(named.clone(), Arc::clone(&source), target, run);
        let task = Arc::new(Task::new(named, work, Arc::clone(&self.pool)));
        followers.add(&task)?;
        task.hasten();
        Ok(Follower::new(task, source, Arc::clone(followers)))
    }
}

/// What a projection is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u32,
}

/// Why a target cannot follow a log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    /// There is one of this name.
    #[error("a projection named {name:?} runs already")]
    NameTaken {
        /// The name.
        name: String,
    },
}

/// Who follows a log.
#[derive(Debug, Default)]
pub struct Followers {
    tasks: RwLock<Vec<Arc<Task>>>,
}

impl Followers {
    /// Nobody yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says that there are new records to take in.
    pub fn notice(&self) {
        let tasks = self.tasks.read().unwrap_or_else(PoisonError::into_inner);
        tasks.iter().for_each(Task::notice);
    }

    /// Makes durable what each has taken in, as far as that can be done.
    pub fn flush(&self) {
        let tasks = self
            .tasks
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for task in tasks {
            // Whoever asks for its state is told.
            let _ = task.flush();
        }
    }

    /// Whether there is one of this name.
    pub fn has(&self, name: &str) -> bool {
        let tasks = self.tasks.read().unwrap_or_else(PoisonError::into_inner);
        tasks.iter().any(|it| it.named().name == name)
    }

    fn add(&self, task: &Arc<Task>) -> Result<(), FollowError> {
        let mut tasks = self.tasks.write().unwrap_or_else(PoisonError::into_inner);
        let name = &task.named().name;
        if tasks.iter().any(|it| it.named().name == *name) {
            return Err(FollowError::NameTaken { name: name.clone() });
        }
        tasks.push(Arc::clone(task));
        Ok(())
    }

    fn remove(&self, task: &Arc<Task>) {
        let mut tasks = self.tasks.write().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|it| !Arc::ptr_eq(it, task));
    }
}

#[cfg(all(test, shuttle))]
mod model;
#[cfg(test)]
mod tests;
