//! Pages that were read lately, where a file is not mapped or its pages are encrypted.
//!
//! Pages are numbered, so the one that is looked for is found by an array, not by its hash. One that is
//! asked for is marked and stays where it is. A hand goes round over the pages, takes the marks off, and the
//! first page without one has to go: a hit moves nothing, and no reader keeps another one waiting.

use core::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use zeroize::Zeroize;

use super::page::{PAGE_BYTES, Page, PageId};

const SHARDS: usize = 16;
/// Stands for no slot.
const NONE: u32 = u32::MAX;

/// A page in memory. One that was decrypted is overwritten when nobody holds it any more.
#[derive(Clone)]
pub(crate) struct HeldPage {
    page: Page,
    is_secret: bool,
}

impl HeldPage {
    pub(crate) const fn new(is_secret: bool) -> Self {
        Self {
            page: [0; PAGE_BYTES],
            is_secret,
        }
    }

    pub(crate) const fn page_mut(&mut self) -> &mut Page {
        &mut self.page
    }
}

impl Deref for HeldPage {
    type Target = Page;

    #[inline]
    fn deref(&self) -> &Page {
        &self.page
    }
}

impl Drop for HeldPage {
    fn drop(&mut self) {
        if self.is_secret {
            self.page.zeroize();
        }
    }
}

impl core::fmt::Debug for HeldPage {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("HeldPage").finish_non_exhaustive()
    }
}

/// Pages that were read lately, a bounded number of them.
pub(crate) struct PageCache {
    shards: [RwLock<Shard>; SHARDS],
    shard_pages_max: usize,
}

impl PageCache {
    pub(crate) fn new(pages_max: usize) -> Self {
        Self {
            shards: core::array::from_fn(|_| RwLock::default()),
            shard_pages_max: pages_max.div_ceil(SHARDS).max(1),
        }
    }

    fn shard(&self, page: PageId) -> &RwLock<Shard> {
        let shard = self.shards.get(page.index() % SHARDS);
        shard.expect("a remainder is below its divisor")
    }

    #[inline]
    pub(crate) fn find(&self, page: PageId) -> Option<Arc<HeldPage>> {
        let shard = self.shard(page).read();
        let shard = shard.unwrap_or_else(PoisonError::into_inner);
        let slot = shard.slot_of(page)?;
        if !slot.is_asked_for.load(Ordering::Relaxed) {
            slot.is_asked_for.store(true, Ordering::Relaxed);
        }
        slot.held.clone()
    }

    /// Keeps a page, and lets go of another one where there are too many.
    pub(crate) fn insert(&self, place: PageId, page: Arc<HeldPage>) {
        let shard = self.shard(place).write();
        let mut shard = shard.unwrap_or_else(PoisonError::into_inner);
        let before = shard.insert(place, page, self.shard_pages_max);
        drop(shard);
        drop(before);
    }

    pub(crate) fn remove(&self, page: PageId) {
        let shard = self.shard(page).write();
        let mut shard = shard.unwrap_or_else(PoisonError::into_inner);
        let before = shard.remove(page);
        drop(shard);
        drop(before);
    }
}

impl core::fmt::Debug for PageCache {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("PageCache")
            .field("shard_pages_max", &self.shard_pages_max)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Shard {
    /// The slot of each page of the shard, up to the last one that was kept.
    index: Vec<u32>,
    slots: Vec<Slot>,
    /// Slots without a page.
    free: Vec<u32>,
    hand: usize,
}

struct Slot {
    page: PageId,
    held: Option<Arc<HeldPage>>,
    is_asked_for: AtomicBool,
}

impl Shard {
    fn number_of(&self, page: PageId) -> Option<u32> {
        let number = self.index.get(page.index() / SHARDS).copied();
        number.filter(|number| *number != NONE)
    }

    fn slot_of(&self, page: PageId) -> Option<&Slot> {
        self.slots.get(PageId::new(self.number_of(page)?).index())
    }

    fn slot_mut(&mut self, number: u32) -> &mut Slot {
        let slot = self.slots.get_mut(PageId::new(number).index());
        slot.expect("the index holds slots only")
    }

    fn point(&mut self, page: PageId, number: u32) {
        let at = page.index() / SHARDS;
        if at >= self.index.len() {
            self.index.resize(at + 1, NONE);
        }
        if let Some(place) = self.index.get_mut(at) {
            *place = number;
        }
    }

    fn insert(
        &mut self,
        page: PageId,
        held: Arc<HeldPage>,
        pages_max: usize,
    ) -> Option<Arc<HeldPage>> {
        if let Some(number) = self.number_of(page) {
            return self.slot_mut(number).held.replace(held);
        }
        let new = Slot {
            page,
            held: Some(held),
            is_asked_for: AtomicBool::new(false),
        };
        if self.free.is_empty() && self.slots.len() < pages_max {
            let number = u32::try_from(self.slots.len()).expect("pages have fewer numbers");
            self.slots.push(new);
            self.point(page, number);
            return None;
        }
        let number = self.free.pop().unwrap_or_else(|| self.evictable());
        let before = core::mem::replace(self.slot_mut(number), new);
        if before.held.is_some() {
            self.point(before.page, NONE);
        }
        self.point(page, number);
        before.held
    }

    /// The next slot without a mark. Every slot holds a page then.
    fn evictable(&mut self) -> u32 {
        loop {
            let number = self.hand;
            self.hand = (self.hand + 1) % self.slots.len();
            let slot = self.slots.get_mut(number).expect("the hand stays inside");
            if !core::mem::take(slot.is_asked_for.get_mut()) {
                return u32::try_from(number).expect("pages have fewer numbers");
            }
        }
    }

    fn remove(&mut self, page: PageId) -> Option<Arc<HeldPage>> {
        let number = self.number_of(page)?;
        self.point(page, NONE);
        self.free.push(number);
        self.slot_mut(number).held.take()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kimberlite_testkit::Rng;

    use super::*;

    fn page(byte: u8) -> Arc<HeldPage> {
        let mut page = HeldPage::new(true);
        page.page_mut().fill(byte);
        Arc::new(page)
    }

    #[test]
    fn what_is_kept_is_the_newest_and_no_more_than_fits() {
        let cache = PageCache::new(64);
        let (mut rng, mut model, mut hits) = (Rng::new(1), BTreeMap::new(), 0);
        for _ in 0..20_000 {
            let id = PageId::new(u32::try_from(rng.below(300)).unwrap());
            match rng.below(8) {
                0 => {
                    cache.remove(id);
                    model.remove(&id);
                }
                1..4 => {
                    let byte = rng.bytes(1)[0];
                    cache.insert(id, page(byte));
                    model.insert(id, byte);
                }
                _ => {
                    if let Some(found) = cache.find(id) {
                        assert_eq!(Some(&found[7]), model.get(&id));
                        hits += 1;
                    }
                }
            }
        }
        assert!(hits > 1000, "{hits}");
        for shard in &cache.shards {
            let shard = shard.read().unwrap();
            assert!(shard.slots.len() <= 4, "{}", shard.slots.len());
            let kept = shard.slots.iter().filter(|slot| slot.held.is_some());
            let pointed = shard.index.iter().filter(|number| **number != NONE);
            assert_eq!(kept.count(), pointed.count());
        }
    }

    #[test]
    fn a_page_that_is_asked_for_outlives_those_that_are_not() {
        let cache = PageCache::new(4 * SHARDS);
        let wanted = PageId::new(0);
        cache.insert(wanted, page(1));
        for n in 1..100 {
            assert!(cache.find(wanted).is_some(), "{n}");
            // All of them go to the shard of the first one.
            cache.insert(PageId::new(n * u32::try_from(SHARDS).unwrap()), page(2));
        }
    }
}
