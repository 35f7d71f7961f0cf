//! Writes pages, and keeps what it wrote where.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hashbrown::HashMap;
use kimberlite_crypto::InternalHasher;
use kimberlite_disk::DiskFile;

use super::error::StoreError;
use super::memory::{Child, MemoryNode};
use super::page::{BODY_BYTES, Checksum, PAGE_BYTES, Page, PageId, PageRef, RunRef, pages_of};
use super::pages::Pages;
use super::sealing::{Kind, Sealer};
use super::space::{PageMap, Space};

/// Pages that are written at once.
const BATCH_PAGES: usize = 256;

/// Where a flush put the nodes of a version. They are told apart by their addresses, which stay theirs for as long
/// as the version is held.
#[derive(Debug, Default)]
pub(crate) struct Written {
    nodes: HashMap<usize, PageRef>,
    /// The long values of those leaves that had some in memory.
    runs: HashMap<usize, Vec<RunRef>>,
}

impl Written {
    /// The page of a node, if it was written.
    pub(crate) fn place_of(&self, node: &Arc<MemoryNode>) -> Option<PageRef> {
        self.nodes.get(&address(node)).copied()
    }

    /// The pages of the long values that were written with a leaf.
    pub(crate) fn runs_of(&self, node: &Arc<MemoryNode>) -> &[RunRef] {
        self.runs.get(&address(node)).map_or(&[], Vec::as_slice)
    }
}

fn address(node: &Arc<MemoryNode>) -> usize {
    Arc::as_ptr(node).addr()
}

/// Writes pages, those that follow each other at once.
pub(crate) struct PageWriter<'a> {
    file: &'a dyn DiskFile,
    pages: &'a Pages,
    space: &'a Mutex<Space>,
    /// The pages that what is written points to.
    map: PageMap,
    sealer: Option<&'a mut Sealer>,
    flush: u64,
    written: Written,
    /// What was taken, to be given back if the flush fails.
    taken: Vec<(PageId, u32)>,
    batch: Vec<u8>,
    batch_first: u32,
}

impl<'a> PageWriter<'a> {
    /// Begins to write for flush `flush`. `map` has the pages that what is written points to already.
    pub(crate) fn new(
        file: &'a dyn DiskFile,
        pages: &'a Pages,
        (space, map): (&'a Mutex<Space>, PageMap),
        sealer: Option<&'a mut Sealer>,
        flush: u64,
    ) -> Self {
        Self {
            file,
            pages,
            space,
            map,
            sealer,
            flush,
            written: Written::default(),
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

    fn write_node(&mut self, node: &Arc<MemoryNode>) -> Result<PageRef, StoreError> {
        let place = if node.has_links() {
            let page = self.linked(node)?;
            self.write_node_page(&page)
        } else {
            self.write_node_page(&node.page)
        }?;
        self.written.nodes.insert(address(node), place);
        Ok(place)
    }

    fn write_node_page(&mut self, page: &Page) -> Result<PageRef, StoreError> {
        let place = self.take(1)?;
        let stored = self.write_page(place, Kind::Node, page, BODY_BYTES)?;
        Ok(PageRef {
            page: place,
            checksum: Checksum::of(stored),
        })
    }

    /// Writes what a node points to in memory; returns its page with where that is.
    fn linked(&mut self, node: &Arc<MemoryNode>) -> Result<Box<Page>, StoreError> {
        let mut page = Box::new(*node.page);
        for index in 0..node.layout.count {
            let Some(at) = node.layout.value_at(&page, index) else {
                continue;
            };
            if let Some(child) = node.memory_child(index) {
                fill(&mut page, at, &self.write_node(child)?.encode());
            } else if let Some(value) = node.pending_value(index) {
                let run = self.write_run(value)?;
                self.written
                    .runs
                    .entry(address(node))
                    .or_default()
                    .push(run);
                fill(&mut page, at, &run.encode());
            }
        }
        Ok(page)
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

    /// Writes which pages are taken, once everything else is written.
    pub(crate) fn write_space(&mut self) -> Result<RunRef, StoreError> {
        let first = loop {
            let count = self.space().count();
            let pages = pages_of(PageMap::encoded_bytes(count));
            let taken = self.space().take_run(pages, self.flush);
            if let Some(first) = taken {
                self.note_taken(first, pages);
                break first;
            }
            self.grow(pages)?;
        };
        let count = self.space().count();
        let words = self.map.encode(count);
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

    /// What was written where, and the pages that were taken for it.
    pub(crate) fn into_written(self) -> (Written, Vec<(PageId, u32)>) {
        (self.written, self.taken)
    }

    fn space(&self) -> MutexGuard<'a, Space> {
        self.space.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&mut self, pages: u32) -> Result<PageId, StoreError> {
        let taken = self.space().take_run(pages, self.flush);
        let first = if let Some(first) = taken {
            first
        } else {
            self.grow(pages)?;
            let taken = self.space().take_run(pages, self.flush);
            taken.expect("the file has grown by as many pages")
        };
        self.note_taken(first, pages);
        Ok(first)
    }

    fn note_taken(&mut self, first: PageId, pages: u32) {
        self.taken.push((first, pages));
        self.map.add(first, pages);
    }

    /// Nobody else makes the file longer: one flush runs at a time.
    fn grow(&mut self, pages: u32) -> Result<(), StoreError> {
        let (from, to) = {
            let space = self.space();
            (space.count(), space.grown_count(pages))
        };
        let to = to.ok_or_else(|| StoreError::OutOfPages {
            path: self.pages.path(),
        })?;
        let range = PageId::new(from).offset()..PageId::new(to).offset();
        self.file.allocate(range)?;
        self.space().grow_to(to);
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
