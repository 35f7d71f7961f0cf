//! What is to be told when a sync has ended, without a thread that blocks for it.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use kimberlite_types::Position;

use super::SyncStage;
use crate::append_queue::Place;
use crate::block_on::wake_all;
use crate::error::StorageError;

/// Those who wait until a position is durable and do not block for it.
#[derive(Debug, Default)]
pub(super) struct Awaited {
    /// By what they wait for, and a number of their own.
    tasks: BTreeMap<(Position, u64), Waker>,
    next_number: u64,
    /// In order of what they are kept for.
    places: VecDeque<(Position, Place)>,
    /// Everything before it is to become durable.
    pub(super) wanted: Position,
    /// Whether the driver has been asked, and has not done what is wanted yet.
    pub(super) driven: bool,
    /// Somebody's time is up: no leader waits for others for the delay.
    pub(super) due: bool,
}

/// Those whose outcome is settled. Dropping it tells them, which is to be done without a lock: wakers
/// are an executor's code, and may append again.
#[derive(Debug, Default)]
#[must_use = "they are told when it is dropped"]
pub struct Settled {
    tasks: BTreeMap<(Position, u64), Waker>,
    places: Vec<(Position, Place)>,
}

impl Awaited {
    /// Counts the tasks.
    pub(super) fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Keeps a place until everything before `end` is durable.
    pub(super) fn keep(&mut self, end: Position, place: Place) {
        let at = self.places.partition_point(|(kept, _)| *kept <= end);
        self.places.insert(at, (end, place));
    }

    /// Takes out those who wait for nothing beyond `durable`; all of them when nothing more will be.
    pub(super) fn settle(&mut self, durable: Position, is_over: bool) -> Settled {
        if is_over {
            return Settled {
                tasks: std::mem::take(&mut self.tasks),
                places: std::mem::take(&mut self.places).into(),
            };
        }
        if self.tasks.is_empty() && self.places.is_empty() {
            return Settled::default();
        }
        let later = self.tasks.split_off(&(durable, u64::MAX));
        let settled = self.places.partition_point(|(end, _)| *end <= durable);
        Settled {
            tasks: std::mem::replace(&mut self.tasks, later),
            places: self.places.drain(..settled).collect(),
        }
    }
}

impl Settled {
    /// Adds others, to be told with these.
    pub(crate) fn join(&mut self, mut others: Self) {
        self.tasks.append(&mut others.tasks);
        self.places.append(&mut others.places);
    }
}

impl Drop for Settled {
    fn drop(&mut self) {
        self.places.clear();
        wake_all(std::mem::take(&mut self.tasks).into_values());
    }
}

/// Waits until everything before a position is durable, and leads no sync for it.
///
/// Whoever makes one has it driven as well, see [`SyncStage::drive_to`]. It may be dropped at any
/// time: nothing is undone by that, and nothing is left behind.
#[derive(Debug)]
#[must_use = "a future does nothing unless it is polled"]
pub struct DurableWait {
    stage: Arc<SyncStage>,
    end: Position,
    /// The number among the tasks, once it has been polled.
    number: Option<u64>,
}

impl DurableWait {
    pub(super) fn new(stage: Arc<SyncStage>, end: Position) -> Self {
        let number = None;
        Self { stage, end, number }
    }
}

impl Future for DurableWait {
    type Output = Result<(), StorageError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // What belongs to an executor is cloned and dropped without the lock: it may come back here.
        let waker = context.waker().clone();
        let stage = Arc::clone(&self.stage);
        let mut state = stage.state();
        if let Some(outcome) = state.outcome(self.end) {
            let number = self.number.take();
            let before = number.and_then(|number| state.awaited.tasks.remove(&(self.end, number)));
            drop(state);
            drop(before);
            return Poll::Ready(outcome);
        }
        let next = state.awaited.next_number;
        let number = *self.number.get_or_insert(next);
        if number == next {
            state.awaited.next_number += 1;
            stage.came(&state);
        }
        let before = state.awaited.tasks.insert((self.end, number), waker);
        drop(state);
        drop(before);
        Poll::Pending
    }
}

impl Drop for DurableWait {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let mut state = self.stage.state();
            let before = state.awaited.tasks.remove(&(self.end, number));
            drop(state);
            drop(before);
        }
    }
}
