//! Writes what is in memory.
//!
//! 1. Nodes and long values go to pages that nothing points to, children before their parents. A crash
//!    leaves the older superblock, and what it points to as it was.
//! 2. So does the map of taken pages, as a long value.
//! 3. Sync: all that the new superblock will point to is durable.
//! 4. The new superblock goes over the one before the last. A crash leaves it torn, which shows, and
//!    the last one counts.
//! 5. Sync: the new superblock counts, and what was given back before may be taken.

use bytes::Bytes;
use kimberlite_crypto::InternalHasher;
use kimberlite_disk::DiskFile;

use super::error::StoreError;
use super::memory::{Child, MemoryNode};
use super::page::{BODY_BYTES, Checksum, PAGE_BYTES, Page, PageId, PageRef, RunRef, pages_of};
use super::pages::Pages;
use super::sealing::{Kind, Sealer};
use super::space::Space;

/// Pages that are written at once.
const BATCH_PAGES: usize = 256;

/// Writes pages, those that follow each other at once.
pub(crate) struct PageWriter<'a> {
    file: &'a dyn DiskFile,
    pages: &'a Pages,
    space: &'a mut Space,
    sealer: Option<&'a mut Sealer>,
    flush: u64,
    /// What was taken, to be given back if the flush fails.
    taken: Vec<(PageId, u32)>,
    batch: Vec<u8>,
    batch_first: u32,
}

impl<'a> PageWriter<'a> {
    pub(crate) fn new(
        file: &'a dyn DiskFile,
        pages: &'a Pages,
        space: &'a mut Space,
        sealer: Option<&'a mut Sealer>,
        flush: u64,
    ) -> Self {
        Self {
            file,
            pages,
            space,
            sealer,
            flush,
            taken: Vec::new(),
            batch: Vec::new(),
            batch_first: 0,
        }
    }

    /// Writes a node and what it points to in memory; returns where it is.
    pub(crate) fn write_child(&mut self, child: &Child) -> Result<PageRef, StoreError> {
        match child {
            Child::Stored(place) => Ok(*place),
            Child::Memory(node) => self.write_node(node),
        }
    }

    fn write_node(&mut self, node: &MemoryNode) -> Result<PageRef, StoreError> {
        let mut page = node.page.clone();
        for index in 0..node.layout.count {
            let Some(at) = node.layout.value_at(&page, index) else {
                continue;
            };
            if let Some(child) = node.memory_child(index) {
                fill(&mut page, at, &self.write_node(child)?.encode());
            } else if let Some(value) = node.pending_value(index) {
                fill(&mut page, at, &self.write_run(value)?.encode());
            }
        }
        let place = self.take(1)?;
        let stored = self.write_page(place, Kind::Node, &page, BODY_BYTES)?;
        Ok(PageRef {
            page: place,
            checksum: Checksum::of(stored),
        })
    }

    /// Writes a long value.
    fn write_run(&mut self, value: &Bytes) -> Result<RunRef, StoreError> {
        let bytes = u32::try_from(value.len()).expect("values are bounded when they are put");
        let first = self.take(pages_of(bytes))?;
        self.write_run_at(first, Kind::Value, value)
    }

    fn write_run_at(
        &mut self,
        first: PageId,
        kind: Kind,
        value: &[u8],
    ) -> Result<RunRef, StoreError> {
        let mut hasher = InternalHasher::new();
        for (place, part) in (first.get()..).zip(value.chunks(BODY_BYTES)) {
            let mut page = [0; PAGE_BYTES];
            fill(&mut page, 0, part);
            hasher.update(self.write_page(PageId::new(place), kind, &page, part.len())?);
        }
        Ok(RunRef {
            first,
            bytes: u32::try_from(value.len()).expect("values are bounded when they are put"),
            checksum: Checksum::beginning(&hasher.finish()),
        })
    }

    /// Writes which pages are taken, once everything else is written. `before` is where that stood.
    pub(crate) fn write_space(&mut self, before: Option<RunRef>) -> Result<RunRef, StoreError> {
        let first = loop {
            let pages = pages_of(Space::encoded_bytes(self.space.count()));
            if let Some(first) = self.space.take_run(pages, self.flush) {
                self.taken.push((first, pages));
                break first;
            }
            self.grow(pages)?;
        };
        let words = self
            .space
            .encode(before.map(|run| (run.first, run.pages())));
        self.write_run_at(first, Kind::Space, &words)
    }

    /// Writes what is left to be written.
    pub(crate) fn finish(&mut self) -> Result<(), StoreError> {
        if !self.batch.is_empty() {
            let offset = PageId::new(self.batch_first).offset();
            self.file.write_all_at(&[&self.batch], offset)?;
            self.batch.clear();
        }
        Ok(())
    }

    /// The pages that were taken.
    pub(crate) fn into_taken(self) -> Vec<(PageId, u32)> {
        self.taken
    }

    fn take(&mut self, pages: u32) -> Result<PageId, StoreError> {
        let first = if let Some(first) = self.space.take_run(pages, self.flush) {
            first
        } else {
            self.grow(pages)?;
            let taken = self.space.take_run(pages, self.flush);
            taken.expect("the file has grown by as many pages")
        };
        self.taken.push((first, pages));
        Ok(first)
    }

    fn grow(&mut self, pages: u32) -> Result<(), StoreError> {
        let count = self
            .space
            .grown_count(pages)
            .ok_or_else(|| StoreError::OutOfPages {
                path: self.pages.path(),
            })?;
        let range = PageId::new(self.space.count()).offset()..PageId::new(count).offset();
        self.file.allocate(range)?;
        self.space.grow_to(count);
        Ok(())
    }

    /// Writes a page with so many bytes of content. Returns what its checksum is of: the content, or the
    /// whole page where it is encrypted.
    fn write_page(
        &mut self,
        place: PageId,
        kind: Kind,
        page: &Page,
        bytes: usize,
    ) -> Result<&[u8], StoreError> {
        let held = self.batch.len() / PAGE_BYTES;
        let next = self.batch_first + u32::try_from(held).expect("a batch is small");
        if held == BATCH_PAGES || next != place.get() {
            self.finish()?;
            self.batch_first = place.get();
        }
        self.pages.forget(place);
        self.batch.extend_from_slice(page);
        let stored: &mut Page = self
            .batch
            .last_chunk_mut()
            .expect("a batch holds whole pages");
        let Some(sealer) = &mut self.sealer else {
            return Ok(stored.get(..bytes).unwrap_or_default());
        };
        sealer.seal(place, kind, stored);
        Ok(stored)
    }
}

fn fill(page: &mut Page, at: usize, bytes: &[u8]) {
    let place = page.get_mut(at..at + bytes.len());
    place
        .expect("a reference stands in its page")
        .copy_from_slice(bytes);
}
