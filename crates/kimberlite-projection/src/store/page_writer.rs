//! Writes pages to places that nothing points to.

use std::sync::Mutex;

use bytes::Bytes;
use kimberlite_crypto::InternalHasher;
use kimberlite_disk::DiskFile;

use super::error::StoreError;
use super::page::{BODY_BYTES, Checksum, PAGE_BYTES, Page, PageId, PageRef, RunRef, pages_of};
use super::pages::Pages;
use super::sealing::{Kind, Sealer};
use super::space::{PageMap, Space, lock};

/// Pages that are written at once.
const BATCH_PAGES: usize = 256;

/// Pages after which whoever waits for the processor has it: a flush takes long, and what is committed beside it should
/// not wait for that.
const YIELD_PAGES: usize = 32;

/// Writes pages, those that follow each other at once.
pub(crate) struct PageWriter<'a> {
    file: &'a dyn DiskFile,
    pages: &'a Pages,
    space: &'a Mutex<Space>,
    sealer: Option<&'a mut Sealer>,
    flush: u64,
    /// What was taken, to be given back if the flush fails.
    taken: Vec<(PageId, u32)>,
    batch: Vec<u8>,
    batch_first: u32,
    /// Pages that were written.
    written: usize,
}

impl<'a> PageWriter<'a> {
    /// Begins to write for flush `flush`.
    pub(crate) fn new(
        file: &'a dyn DiskFile,
        pages: &'a Pages,
        space: &'a Mutex<Space>,
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
            written: 0,
        }
    }

    /// Writes a node, which points to what has been written; returns where it is.
    pub(crate) fn write_node(&mut self, page: &Page) -> Result<PageRef, StoreError> {
        let place = self.take(1)?;
        let stored = self.write_page(place, Kind::Node, page, BODY_BYTES)?;
        Ok(PageRef {
            page: place,
            checksum: Checksum::of(stored),
        })
    }

    /// Writes a long value.
    pub(crate) fn write_value(&mut self, value: &Bytes) -> Result<RunRef, StoreError> {
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
            let (beginning, _) = page.split_at_mut(part.len());
            beginning.copy_from_slice(part);
            hasher.update(self.write_page(PageId::new(place), kind, &page, part.len())?);
        }
        Ok(RunRef {
            first,
            bytes: u32::try_from(value.len()).expect("values are bounded when they are put"),
            checksum: Checksum::beginning(&hasher.finish()),
        })
    }

    /// Writes which pages are taken, once everything else is written: those of `map`, and what was taken to write.
    pub(crate) fn write_space(&mut self, mut map: PageMap) -> Result<RunRef, StoreError> {
        let first = loop {
            let count = lock(self.space).count();
            let pages = pages_of(PageMap::encoded_bytes(count));
            let taken = lock(self.space).take_run(pages, self.flush);
            if let Some(first) = taken {
                self.taken.push((first, pages));
                break first;
            }
            self.grow(pages)?;
        };
        let count = lock(self.space).count();
        for (first, pages) in &self.taken {
            map.add(*first, *pages);
        }
        let words = map.encode(count);
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
        let taken = lock(self.space).take_run(pages, self.flush);
        let first = if let Some(first) = taken {
            first
        } else {
            self.grow(pages)?;
            let taken = lock(self.space).take_run(pages, self.flush);
            taken.expect("the file has grown by as many pages")
        };
        self.taken.push((first, pages));
        Ok(first)
    }

    /// Nobody else makes the file longer: one flush runs at a time.
    fn grow(&mut self, pages: u32) -> Result<(), StoreError> {
        let (from, to) = {
            let space = lock(self.space);
            (space.count(), space.grown_count(pages))
        };
        let to = to.ok_or_else(|| StoreError::OutOfPages {
            path: self.pages.path(),
        })?;
        let range = PageId::new(from).offset()..PageId::new(to).offset();
        self.file.allocate(range)?;
        lock(self.space).grow_to(to);
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
        self.written += 1;
        if self.written.is_multiple_of(YIELD_PAGES) {
            std::thread::yield_now();
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
