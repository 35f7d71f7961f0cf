//! Syncs that a test holds for as long as it likes.

use std::sync::{Arc, Condvar, Mutex};

use kimberlite_testkit::SimulatedDisk;

/// A gate before every sync of a file.
#[derive(Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    closed: bool,
    /// Syncs that stand before the gate.
    held: usize,
    /// Syncs that may pass although it is closed.
    passes: usize,
    /// Syncs that have passed.
    passed: usize,
}

impl Gate {
    pub(crate) fn of(disk: &SimulatedDisk) -> Arc<Self> {
        let gate = Arc::new(Self::default());
        let at = Arc::clone(&gate);
        disk.set_sync_observer(Arc::new(move |_| at.pass()));
        gate
    }

    pub(crate) fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.held += 1;
        self.changed.notify_all();
        let closed = |state: &mut State| state.closed && state.passes == 0;
        state = self.changed.wait_while(state, closed).unwrap();
        state.passes = state.passes.saturating_sub(1);
        state.held -= 1;
        state.passed += 1;
        self.changed.notify_all();
    }

    /// Closes the gate until what is returned is dropped, by a failing test too: threads that hang
    /// would tell nothing.
    pub(crate) fn close(&self) -> Closed<'_> {
        self.state.lock().unwrap().closed = true;
        Closed(self)
    }

    /// Lets one sync pass.
    pub(crate) fn let_one_pass(&self) {
        self.state.lock().unwrap().passes += 1;
        self.changed.notify_all();
    }

    /// Waits until a sync stands before the gate.
    pub(crate) fn wait_for_held(&self) {
        let none = |state: &mut State| state.held == 0;
        drop(self.changed.wait_while(self.state.lock().unwrap(), none));
    }

    pub(crate) fn passed(&self) -> usize {
        self.state.lock().unwrap().passed
    }
}

/// A gate while it is closed.
pub(crate) struct Closed<'a>(&'a Gate);

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.state.lock().unwrap().closed = false;
        self.0.changed.notify_all();
    }
}

/// Waits until the log has as many frames.
pub(crate) fn wait_for_writes(disk: &SimulatedDisk, count: usize) {
    while frames(disk) < count {
        std::thread::yield_now();
    }
}

/// Counts the frames that were written, durable or not.
pub(crate) fn frames(disk: &SimulatedDisk) -> usize {
    let bytes = disk.contents("/db/tenants/t/log/00000000000000000000.seg");
    let chunks = bytes[4096..].chunks_exact(8);
    chunks.filter(|chunk| chunk.starts_with(b"KFRM")).count()
}
