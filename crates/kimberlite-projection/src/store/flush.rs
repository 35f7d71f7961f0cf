//! Makes durable what was committed, beside commits that go on.
//!
//! A flush writes one version, which never changes:
//!
//! 1. What was committed behind the last flush is put together and applied to the tree: the nodes that this
//!    changes, and long values, go to pages that nothing points to, children before their parents. A crash leaves the
//!    older superblock, and what it points to as it was.
//! 2. So does the map of the pages that the new superblock will point to, as a long value.
//! 3. Sync: all of that is durable.
//! 4. The new superblock goes over the one before the last. A crash leaves it torn, which shows, and
//!    the last one counts.
//! 5. Sync: the new superblock counts, and the pages that nothing points to any more may be taken.
//! 6. The store ends the flush: the newest version has the tree that was written, and in memory what was committed since.
//!    A crash before that leaves what it does behind 5.
//!
//! Steps 1 to 5 are done on any thread by whoever [`run`](Flush::run)s the flush, the sixth by the owner of the store.
//!
//! * **Invariant:** one flush of a store is under way at most, and none when its writer is gone.

use std::sync::{Arc, Mutex};

use kimberlite_disk::{DiskError, DiskFile};

use super::error::StoreError;
use super::page::PageId;
use super::page_writer::PageWriter;
use super::pages::{Access as PageAccess, Pages};
use super::sealing::Sealer;
use super::space::{PageMap, Space, lock};
use super::superblock::Superblock;
use super::tree::{Change, Root, Tally};
use super::{Identity, Store, Version, tree};
use crate::errand::Errand;

/// A flush that was begun. Whoever runs it makes durable what was committed when it was begun, while the store takes
/// more; the store sees that when it [ends](Store::end_flush) it.
#[derive(Clone, Debug)]
pub struct Flush {
    errand: Arc<Errand<Ran>>,
}

impl Flush {
    /// Writes and syncs, unless that is being done or was done already.
    pub fn run(&self) {
        self.errand.run();
    }
}

/// What came of a flush.
struct Ran {
    sealer: Option<Sealer>,
    outcome: Result<Written, Failed>,
}

/// A version that was written.
struct Written {
    superblock: Superblock,
    /// What is no longer part of the tree, and what came.
    tally: Tally,
}

/// Why a flush failed.
enum Failed {
    /// Before anything could point to the pages that it took.
    Before(StoreError, Vec<(PageId, u32)>),
    /// From the first sync on, after which nobody knows what the file says.
    Unknown(StoreError),
}

/// All that it takes to write a version.
struct Writing {
    file: Arc<dyn DiskFile>,
    identity: Identity,
    version: Arc<Version>,
    space: Arc<Mutex<Space>>,
    /// The pages that the superblock before points to, but for its map.
    map: PageMap,
    sealer: Option<Sealer>,
}

impl Writing {
    fn run(mut self) -> Ran {
        let mut sealer = self.sealer.take();
        let version = Arc::clone(&self.version);
        let (file, space) = (Arc::clone(&self.file), Arc::clone(&self.space));
        let flush = version.flush + 1;
        let mut writer = PageWriter::new(&*file, &version.pages, &space, sealer.as_mut(), flush);
        let written = self.write_pages(&mut writer);
        let taken = writer.into_taken();
        let written = written.map(|(mut superblock, tally)| {
            if let Some(sealer) = &sealer {
                superblock = superblock.with_code(sealer.key());
            }
            Written { superblock, tally }
        });
        let outcome = written
            .map_err(|error| Failed::Before(error, taken))
            .and_then(|written| {
                write_superblock(&*file, &written.superblock).map_err(Failed::Unknown)?;
                Ok(written)
            });
        Ran { sealer, outcome }
    }

    /// Writes the tree with what was committed, and then the map of pages; returns the superblock that says so.
    fn write_pages(self, writer: &mut PageWriter<'_>) -> Result<(Superblock, Tally), StoreError> {
        let Self {
            version, mut map, ..
        } = self;
        let mut tally = Tally::default();
        let mut root = version.root;
        if !version.recent.is_empty() {
            let run = version.recent.to_run();
            let changes: Vec<Change<'_>> = run.iter().collect();
            root = tree::apply(
                (&version.pages, &map, writer),
                root.as_ref(),
                &changes,
                &mut tally,
            )?;
        }
        let entries = version.entries_with(root.as_ref(), &tally)?;
        for (first, pages) in tally.pages() {
            // Who can write checksums can point twice to a page, or to one that is free.
            if !map.remove(first, pages) {
                return Err(version.pages.damaged(first, "is used and not taken"));
            }
        }
        let space_run = writer.write_space(map)?;
        writer.finish()?;
        let superblock = Superblock {
            flush: version.flush + 1,
            identity: self.identity,
            page_count: lock(&self.space).count(),
            applied: version.applied,
            entries,
            root: root.map(|root| (root.place, root.level)),
            space: space_run,
            code: None,
        };
        Ok((superblock, tally))
    }
}

fn write_superblock(file: &dyn DiskFile, superblock: &Superblock) -> Result<(), StoreError> {
    file.sync_data()?;
    let slot = PageId::new(u32::from(superblock.flush % 2 == 1));
    let bytes = superblock.encode();
    file.write_all_at(&[&bytes[..]], slot.offset())?;
    file.sync_data()?;
    Ok(())
}

/// What a store keeps of a flush that it began and has not ended.
pub(crate) struct UnderWay {
    flush: Flush,
    /// Commits that will be durable.
    commit: u64,
    /// How many of the runs are being written, the oldest ones.
    pub(crate) runs: usize,
}

impl Store {
    /// Makes durable what was committed.
    ///
    /// # Errors
    ///
    /// [`DiskError::Full`] where there was no space for the pages: nothing has changed, and a later flush
    /// may succeed, as it may after [`StoreError::Entropy`]. After any other error the store takes nothing
    /// more; snapshots can still be read.
    pub fn flush(&mut self) -> Result<(), StoreError> {
        self.finish_flush()?;
        if self.begin_flush()?.is_some() {
            self.finish_flush()?;
        }
        Ok(())
    }

    /// Begins to make durable what was committed; none when all of it is. Whoever [runs](Flush::run) it does so, in
    /// any thread, and [`end_flush`](Self::end_flush) is called once that is done. Gives the one that is under way,
    /// if there is one.
    ///
    /// # Errors
    ///
    /// [`StoreError::Poisoned`], [`StoreError::Forked`] and [`StoreError::Entropy`].
    pub fn begin_flush(&mut self) -> Result<Option<Flush>, StoreError> {
        self.check_usable()?;
        if let Some(under_way) = &self.under_way {
            return Ok(Some(under_way.flush.clone()));
        }
        let version = self.shared.current();
        if version.commit == self.durable {
            return Ok(None);
        }
        self.check_sealer()?;
        assert_eq!(
            self.sealer.is_some(),
            self.opener.is_some(),
            "a store that is encrypted has what it seals with"
        );
        let mut read: Vec<u64> = self
            .read
            .iter()
            .filter(|(_, version)| version.strong_count() > 0)
            .map(|(flush, _)| *flush)
            .collect();
        read.dedup();
        let mut space = lock(&self.space);
        space.release(version.flush, &read);
        let mut map = space.map();
        drop(space);
        if let Some(before) = self.space_run
            && !map.remove(before.first, before.pages())
        {
            return Err(version.pages.damaged(before.first, "is used and not taken"));
        }
        let (commit, runs) = (version.commit, version.recent.len());
        let writing = Writing {
            file: Arc::clone(&self.file),
            identity: self.identity,
            version,
            space: Arc::clone(&self.space),
            map,
            sealer: self.sealer.take(),
        };
        let flush = Flush {
            errand: Arc::new(Errand::new(|| writing.run())),
        };
        self.under_way = Some(UnderWay {
            flush: flush.clone(),
            commit,
            runs,
        });
        Ok(Some(flush))
    }

    /// Takes in what came of the flush that is under way, if it was run; `true` when none is under way any more.
    ///
    /// # Errors
    ///
    /// As [`flush`](Self::flush).
    pub fn end_flush(&mut self) -> Result<bool, StoreError> {
        let Some(under_way) = &self.under_way else {
            return Ok(true);
        };
        if under_way.flush.errand.has_run() {
            self.finish_flush()?;
        }
        Ok(self.under_way.is_none())
    }

    /// Ends the flush that is under way, running it if nobody does.
    ///
    /// # Errors
    ///
    /// As [`flush`](Self::flush).
    pub fn finish_flush(&mut self) -> Result<(), StoreError> {
        let Some(under_way) = self.under_way.take() else {
            return Ok(());
        };
        // One of another process, or one that panicked, is lost, with what it had of the store.
        let ended = match under_way.flush.errand.finish() {
            None => Err(StoreError::Poisoned { path: self.path() }),
            Some(ran) => {
                self.sealer = ran.sealer;
                match ran.outcome {
                    Ok(written) => self.flushed(&under_way, &written),
                    Err(Failed::Unknown(error)) => Err(error),
                    Err(Failed::Before(error, taken)) => {
                        lock(&self.space).untake(&taken);
                        self.is_poisoned |=
                            !matches!(error, StoreError::Disk(DiskError::Full { .. }));
                        return Err(error);
                    }
                }
            }
        };
        self.is_poisoned |= ended.is_err();
        ended
    }

    /// Sees to it that no flush of this store is under way.
    pub(crate) fn stop_flush(&mut self) {
        if let Some(under_way) = self.under_way.take() {
            under_way.flush.errand.stop();
            self.is_poisoned = true;
        }
    }

    fn check_sealer(&mut self) -> Result<(), StoreError> {
        let path = self.path();
        let Some(sealer) = &mut self.sealer else {
            return Ok(());
        };
        if !sealer.is_of_this_process() {
            return Err(StoreError::Forked { path });
        }
        if !sealer.begin_flush() {
            return Err(StoreError::Entropy { path });
        }
        Ok(())
    }

    fn flushed(&mut self, under_way: &UnderWay, written: &Written) -> Result<(), StoreError> {
        let Written { superblock, tally } = written;
        self.durable = under_way.commit;
        let newest = self.shared.current();
        self.give_back(superblock, tally);
        let pages = if superblock.page_count == newest.pages.count() {
            Arc::clone(&newest.pages)
        } else {
            let file = Arc::clone(&self.file);
            let access = PageAccess {
                cache: &self.cache,
                mapped: self.mapped,
                opener: self.opener.as_ref(),
                damage: &self.damage,
            };
            let mut pages = Pages::new(file, superblock.page_count, access)?;
            pages.know_from(&newest.pages);
            Arc::new(pages)
        };
        self.publish(Version {
            root: Root::of(superblock),
            entries: superblock.entries,
            recent: newest.recent.without_first(under_way.runs),
            applied: newest.applied,
            commit: newest.commit,
            flush: superblock.flush,
            pages,
        });
        Ok(())
    }

    /// Gives back what the superblock before pointed to and this one does not.
    fn give_back(&mut self, superblock: &Superblock, tally: &Tally) {
        let flush = superblock.flush;
        let before = self.space_run.replace(superblock.space);
        let mut space = lock(&self.space);
        let is_given = before
            .is_none_or(|before| space.give_unread(before.first, before.pages(), flush))
            && tally
                .pages()
                .all(|(first, pages)| space.give(first, pages, flush));
        drop(space);
        assert!(is_given, "what is given back was in the map of pages");
    }
}

/// A flush writes to the file, which somebody else may open once the writer is gone.
impl Drop for Store {
    fn drop(&mut self) {
        self.stop_flush();
    }
}
