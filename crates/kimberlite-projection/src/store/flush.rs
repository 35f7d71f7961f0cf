//! Makes durable what was committed, beside commits that go on.
//!
//! A flush writes one version, which never changes:
//!
//! 1. Nodes and long values go to pages that nothing points to, children before their parents. A crash
//!    leaves the older superblock, and what it points to as it was.
//! 2. So does the map of the pages that the version points to, as a long value. What commits behind the version
//!    have given back meanwhile is among these, and stays.
//! 3. Sync: all that the new superblock will point to is durable.
//! 4. The new superblock goes over the one before the last. A crash leaves it torn, which shows, and
//!    the last one counts.
//! 5. Sync: the new superblock counts, and what was given back before the version may be taken.
//! 6. The store ends the flush: what the newest version has of the nodes that were written, it has in the file from
//!    then on. What commits have replaced meanwhile was written for nobody but the superblock, and its pages
//!    are given back, as by those commits. A crash before that leaves what it does behind 5.
//!
//! Steps 1 to 5 are done on any thread by whoever [`run`](Flush::run)s the flush, the sixth by the owner of the store.
//!
//! * **Invariant:** one flush of a store is under way at most, and none when its writer is gone.

use std::sync::{Arc, Mutex, PoisonError};

use kimberlite_disk::{DiskError, DiskFile};

use super::error::StoreError;
use super::memory::MemoryNode;
use super::page::{PageId, PageRef, RunRef};
use super::page_writer::{PageWriter, Written};
use super::pages::{Access as PageAccess, Pages};
use super::sealing::Sealer;
use super::space::{Age, PageMap, Space};
use super::superblock::Superblock;
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
    written: Written,
    outcome: Result<Superblock, Failed>,
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
    map: PageMap,
    sealer: Option<Sealer>,
}

impl Writing {
    fn run(self) -> Ran {
        let Self {
            file,
            identity,
            version,
            space,
            map,
            mut sealer,
        } = self;
        let pages = (&*space, map);
        let flush = version.age.flush + 1;
        let mut writer = PageWriter::new(&*file, &version.pages, pages, sealer.as_mut(), flush);
        let pointers = write_pages(&mut writer, &version);
        let (written, taken) = writer.into_written();
        let superblock = pointers.map(|(root, space_run)| {
            let superblock = Superblock {
                flush,
                identity,
                page_count: space.lock().unwrap_or_else(PoisonError::into_inner).count(),
                applied: version.applied,
                entries: version.entries,
                root,
                space: space_run,
                code: None,
            };
            match &sealer {
                Some(sealer) => superblock.with_code(sealer.key()),
                None => superblock,
            }
        });
        let outcome = superblock
            .map_err(|error| Failed::Before(error, taken))
            .and_then(|superblock| {
                write_superblock(&*file, &superblock).map_err(Failed::Unknown)?;
                Ok(superblock)
            });
        Ran {
            sealer,
            written,
            outcome,
        }
    }
}

/// Where the root is, with its level, and the map of pages.
type Pointers = (Option<(PageRef, u8)>, RunRef);

/// Writes the nodes of a version and then the map of pages.
fn write_pages(writer: &mut PageWriter<'_>, version: &Version) -> Result<Pointers, StoreError> {
    let root = match &version.root {
        Some(root) => Some((writer.write_child(&root.child)?, root.level)),
        None => None,
    };
    let space = writer.write_space()?;
    writer.finish()?;
    Ok((root, space))
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
    pub(crate) version: Arc<Version>,
    /// Nodes of that version that a commit has replaced since, with that commit.
    replaced: Vec<(Arc<MemoryNode>, u64)>,
    /// Bytes of memory that the version alone holds, or holds too.
    pub(crate) bytes: usize,
}

impl UnderWay {
    /// Notes what a commit has replaced.
    pub(crate) fn note(&mut self, nodes: Vec<Arc<MemoryNode>>, commit: u64) {
        let nodes = nodes.into_iter().map(|node| (node, commit));
        self.replaced.extend(nodes);
    }
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
        if version.age.commit == self.durable {
            return Ok(None);
        }
        self.check_sealer()?;
        let read: Vec<Age> = self
            .read
            .iter()
            .filter(|(_, version)| version.strong_count() > 0)
            .map(|(age, _)| *age)
            .collect();
        let before = self.space_run.map(|run| (run.first, run.pages()));
        let mut space = self.space();
        space.release(self.durable, &read);
        let map = space.map(before);
        drop(space);
        let writing = Writing {
            file: Arc::clone(&self.file),
            identity: self.identity,
            version: Arc::clone(&version),
            space: Arc::clone(&self.space),
            map,
            sealer: self.sealer.take(),
        };
        let flush = Flush {
            errand: Arc::new(Errand::new(|| writing.run())),
        };
        self.under_way = Some(UnderWay {
            flush: flush.clone(),
            version,
            replaced: Vec::new(),
            bytes: core::mem::take(&mut self.pending_bytes),
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
                    Ok(superblock) => self.flushed(&under_way, &ran.written, &superblock),
                    Err(Failed::Unknown(error)) => Err(error),
                    Err(Failed::Before(error, taken)) => {
                        self.space().untake(&taken);
                        self.pending_bytes += under_way.bytes;
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

    fn flushed(
        &mut self,
        under_way: &UnderWay,
        written: &Written,
        superblock: &Superblock,
    ) -> Result<(), StoreError> {
        self.durable = under_way.version.age.commit;
        let newest = self.shared.current();
        self.give_written(under_way, written, superblock)?;
        let pages = if superblock.page_count == newest.pages.count() {
            Arc::clone(&newest.pages)
        } else {
            let file = Arc::clone(&self.file);
            let access = PageAccess {
                cache: &self.cache,
                mapped: self.mapped,
                opener: self.opener.as_ref(),
                damage: &self.damage,
                spare: newest.pages.spare(),
            };
            let mut pages = Pages::new(file, superblock.page_count, access)?;
            pages.know_from(&newest.pages);
            Arc::new(pages)
        };
        self.publish(Version {
            root: newest
                .root
                .as_ref()
                .map(|root| tree::settled(root, written)),
            entries: newest.entries,
            applied: newest.applied,
            age: Age {
                commit: newest.age.commit,
                flush: superblock.flush,
            },
            pages,
        });
        Ok(())
    }

    /// Gives back what the last superblock alone pointed to, and what this one does.
    fn give_written(
        &mut self,
        under_way: &UnderWay,
        written: &Written,
        superblock: &Superblock,
    ) -> Result<(), StoreError> {
        let before = self.space_run.replace(superblock.space);
        let mut space = self.space();
        let mut wrong = None;
        if let Some(before) = before
            && !space.give_unread(before.first, before.pages(), self.durable)
        {
            wrong = Some(before.first);
        }
        for (node, commit) in &under_way.replaced {
            let node_page = written.place_of(node).map(|place| (place.page, 1));
            let runs = written.runs_of(node).iter();
            let runs = runs.map(|run| (run.first, run.pages()));
            for (first, pages) in node_page.into_iter().chain(runs) {
                // No version that anybody reads points to it: they have the node itself.
                if !space.give_unread(first, pages, *commit) {
                    wrong = Some(first);
                }
            }
        }
        drop(space);
        match wrong {
            None => Ok(()),
            Some(page) => {
                let what = "is used for other things too";
                Err(under_way.version.pages.damaged(page, what))
            }
        }
    }
}

/// A flush writes to the file, which somebody else may open once the writer is gone.
impl Drop for Store {
    fn drop(&mut self) {
        self.stop_flush();
    }
}
