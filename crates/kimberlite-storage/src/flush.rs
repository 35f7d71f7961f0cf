//! Syncing ahead of a writer that does not sync by itself.
//!
//! When nobody asks for a sync, all of a segment would be left for the one before the next segment is
//! begun, and appending would stand still for that long. So a sync is begun in the background each
//! time that some megabytes have been written; what is left for the last one is little.
//!
//! **Invariant:** the outcome of every such sync is looked at before any later sync of the file is
//! believed: the operating system tells a failure once.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use kimberlite_disk::{DiskError, DiskFile};

use crate::background::Background;

/// Bytes that are written before a sync is begun.
const FLUSH_BYTES: u64 = 8 << 20;

/// The syncs that go on beside a writer, one at a time.
#[derive(Debug, Default)]
pub(crate) struct FlushAhead {
    state: Arc<State>,
    /// Bytes that were written since the last one was begun.
    bytes: u64,
}

#[derive(Debug, Default)]
struct State {
    flush: Mutex<Flush>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Flush {
    running: bool,
    failed: Option<DiskError>,
}

impl FlushAhead {
    /// Notes that bytes were written to `file`, and begins a sync when they are many.
    pub(crate) fn written(
        &mut self,
        bytes: u64,
        file: &Arc<dyn DiskFile>,
        background: &Background,
    ) {
        self.bytes += bytes;
        if self.bytes < FLUSH_BYTES || !background.is_thread() {
            return;
        }
        {
            let mut flush = self.state.flush();
            if flush.running {
                return;
            }
            flush.running = true;
        }
        self.bytes = 0;
        let (file, ending) = (Arc::clone(file), Ending(Arc::clone(&self.state)));
        background.run(move || {
            let synced = file.sync_data();
            ending.0.flush().failed = synced.err();
            drop(ending);
        });
    }

    /// Waits for the sync that is running, and returns how the ones since the last call went.
    pub(crate) fn outcome(&mut self) -> Result<(), DiskError> {
        self.bytes = 0;
        let mut flush = self.state.flush();
        while flush.running {
            let ended = self.state.ended.wait(flush);
            flush = ended.unwrap_or_else(PoisonError::into_inner);
        }
        flush.failed.take().map_or(Ok(()), Err)
    }
}

impl State {
    fn flush(&self) -> MutexGuard<'_, Flush> {
        self.flush.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a sync when it is dropped, also by a job that never ran.
struct Ending(Arc<State>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.flush().running = false;
        self.0.ended.notify_all();
    }
}
