//! What readers of a tenant see, apart from its keys: it keeps neither the database nor its lock.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use kimberlite_kernel::ReplayedFrame;
use kimberlite_projection::{Followers, StreamIndex};
use kimberlite_storage::LogReader;

use crate::catalog::Catalog;
use crate::error::Error;
use crate::streams::RunStore;
use crate::subscribe::Growth;

#[derive(Debug)]
pub(crate) struct Shown {
    reader: LogReader,
    catalog: RwLock<Catalog>,
    /// Has the runs of streams that the catalog has not.
    runs: Arc<RunStore>,
    /// Are told what became durable.
    followers: Arc<Followers>,
    growth: Growth,
    /// What has been written and not been shown yet, in order.
    unseen: Mutex<VecDeque<ReplayedFrame>>,
}

impl Shown {
    pub(crate) fn new(
        reader: LogReader,
        mut catalog: Catalog,
        runs: Arc<RunStore>,
        followers: Arc<Followers>,
    ) -> Self {
        catalog.index.split_after(runs.part_runs_max());
        runs.open_for(&catalog.index);
        Self {
            reader,
            catalog: RwLock::new(catalog),
            runs,
            followers,
            growth: Growth::default(),
            unseen: Mutex::default(),
        }
    }

    pub(crate) fn catalog(&self) -> RwLockReadGuard<'_, Catalog> {
        self.catalog.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) const fn runs(&self) -> &Arc<RunStore> {
        &self.runs
    }

    /// Takes in runs from the log that the catalog has let go of.
    pub(crate) fn fill_runs(&self, mut read: StreamIndex) {
        self.catalog_mut().index.fill_from(&mut read);
    }

    fn catalog_mut(&self) -> RwLockWriteGuard<'_, Catalog> {
        self.catalog.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what was written, under the commit lock.
    pub(crate) fn add(&self, written: Vec<ReplayedFrame>) {
        self.unseen().extend(written);
    }

    /// Shows, in order, what has become visible in the log.
    pub(crate) fn show(&self) -> Result<(), Error> {
        let shown = self.show_visible();
        self.followers.notice();
        self.growth.tell();
        shown
    }

    pub(crate) fn growth(&self) -> &Growth {
        &self.growth
    }

    fn show_visible(&self) -> Result<(), Error> {
        let mut unseen = self.unseen();
        let end = self.reader.end();
        let visible = unseen.partition_point(|frame| frame.slot.end() <= end);
        if visible == 0 {
            return Ok(());
        }
        let mut catalog = self.catalog_mut();
        let visible = unseen.drain(..visible).collect::<Vec<_>>();
        let applied = visible.iter().try_for_each(|frame| catalog.apply(frame));
        let released = if catalog.index.is_split() {
            catalog.index.release(self.runs.readable())
        } else {
            Vec::new()
        };
        // Freed without the locks.
        drop((catalog, unseen));
        drop(released);
        applied
    }

    fn unseen(&self) -> MutexGuard<'_, VecDeque<ReplayedFrame>> {
        self.unseen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
