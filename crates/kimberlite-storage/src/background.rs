//! Work that no caller waits for: preparing the next segment, sealing the last.

use std::fmt;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

type Job = Box<dyn FnOnce() + Send>;

/// Jobs that may wait; one more runs on the thread that brings it.
const QUEUE_JOBS_MAX: usize = 64;

/// Runs jobs on one thread that is started when the first job comes, or on the caller's.
///
/// Clones share the thread. It ends, after the jobs that wait, with the last clone.
#[derive(Clone, Debug)]
pub struct Background(Option<Arc<Worker>>);

impl Background {
    /// Runs every job at once on the thread that brings it: for tests that must be repeatable.
    pub fn inline() -> Self {
        Self(None)
    }

    /// Runs jobs on a thread of its own.
    pub fn thread() -> Self {
        Self(Some(Arc::new(Worker {
            running: Mutex::new(None),
            process: Process::default(),
        })))
    }

    /// Whether jobs run beside the caller.
    pub(crate) fn is_thread(&self) -> bool {
        self.0.is_some()
    }

    /// Runs `job` some time soon; at once where there is no thread or its queue is full.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        match &self.0 {
            None => job(),
            Some(worker) => {
                if let Some(job) = worker.try_enqueue(Box::new(job)) {
                    job();
                }
            }
        }
    }
}

struct Worker {
    running: Mutex<Option<Running>>,
    process: Process,
}

/// The process in which something was made: one that was forked from it has none of its threads, and
/// would wait for them for ever.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process(u32);

impl Default for Process {
    fn default() -> Self {
        Self(std::process::id())
    }
}

impl Process {
    pub(crate) fn is_this(self) -> bool {
        self.0 == std::process::id()
    }
}

struct Running {
    jobs: SyncSender<Job>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// Gives the job back when it cannot wait here.
    fn try_enqueue(&self, job: Job) -> Option<Job> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_none() {
            *running = Running::start();
        }
        let Some(running) = running.as_ref() else {
            return Some(job);
        };
        match running.jobs.try_send(job) {
            Ok(()) => None,
            Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => Some(job),
        }
    }
}

impl Running {
    fn start() -> Option<Self> {
        let (jobs, queue) = sync_channel::<Job>(QUEUE_JOBS_MAX);
        let thread = std::thread::Builder::new()
            .name("kimberlite-background".to_owned())
            .spawn(move || {
                for job in queue {
                    job();
                }
            })
            .ok()?;
        Some(Self { jobs, thread })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let running = self
            .running
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(Running { jobs, thread }) = running {
            drop(jobs);
            // The last clone may be dropped by a job, on the very thread that would be joined.
            if self.process.is_this() && thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn every_job_has_run_when_the_last_clone_is_gone() {
        for background in [Background::inline(), Background::thread()] {
            let count = Arc::new(AtomicU32::new(0));
            for _ in 0..1000 {
                let count = Arc::clone(&count);
                background.run(move || {
                    count.fetch_add(1, Ordering::Relaxed);
                });
            }
            drop(background);
            assert_eq!(count.load(Ordering::Relaxed), 1000);
        }
    }
}
