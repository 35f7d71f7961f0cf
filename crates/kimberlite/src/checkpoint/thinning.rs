//! Which checkpoints keep their files.
//!
//! The log is cut into stretches of 1, 2, 4, … records that begin at multiples of their length, and of
//! each the first checkpoint is kept. A stretch is as long as it can be while the newest checkpoint is
//! `density` times as far away from its end. So stretches only ever join as the log grows: thinning now
//! and then keeps what thinning once would keep, and of each checkpoint that was removed at distance `d`
//! a sound one is kept that stands less than `d / density` records before it.

use std::sync::atomic::Ordering;

use kimberlite_storage::{CheckpointStore, StorageError};
use kimberlite_types::Position;

use super::{Checkpoint, Checkpoints};
use crate::error::Error;
use crate::tenant::TenantInner;

/// Checkpoints between two thinnings: not every one is to pay for listing the files.
pub(super) const THIN_EVERY: u64 = 16;

/// Checkpoints of which one thinning removes the files at most: others wait for it. What is left is for
/// the next one.
const REMOVED_MAX: usize = 4096;

/// Says which checkpoints are superfluous beside the newest one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thinning {
    pub(crate) newest: Position,
    /// Stretches in each doubling of the distance.
    pub(crate) density: u64,
}

impl Thinning {
    /// Returns the length of the stretch that `size` stands in, and its number; `None` when it is not
    /// older than the newest.
    fn stretch(self, size: Position) -> Option<(u64, u64)> {
        let (newest, size) = (self.newest.get(), size.get());
        let density = self.density.max(1);
        let distance = newest.checked_sub(size).filter(|&distance| distance > 0)?;
        let mut length = 1 << (distance / density).max(1).ilog2();
        let is_far = |length: u64| {
            let end = (size / length + 1).saturating_mul(length);
            let distance = newest.saturating_sub(end);
            distance / density >= length
        };
        while length > 1 && !is_far(length) {
            length /= 2;
        }
        Some((length, size / length))
    }

    /// Returns the first of `sizes`, which are in order, that are superfluous. One that is not sound is
    /// evidence: it stays, and stands for no other.
    pub(crate) fn superfluous(
        self,
        sizes: &[Position],
        mut is_sound: impl FnMut(Position) -> bool,
    ) -> Vec<Position> {
        debug_assert!(sizes.is_sorted());
        let mut superfluous = Vec::new();
        let mut first: Option<(Position, (u64, u64))> = None;
        for &size in sizes {
            let Some(stretch) = self.stretch(size) else {
                break;
            };
            let Some((kept, _)) = first.filter(|(_, of)| *of == stretch) else {
                first = Some((size, stretch));
                continue;
            };
            if !is_sound(size) {
                continue;
            }
            if is_sound(kept) {
                superfluous.push(size);
                if superfluous.len() == REMOVED_MAX {
                    break;
                }
            } else {
                first = Some((size, stretch));
            }
        }
        superfluous
    }
}

impl Checkpoints {
    /// Removes from the notes of a backup, which are of this log, what is superfluous beside the
    /// newest; those `named` by its manifest stay.
    pub(crate) fn thin_backup(
        &self,
        backup: &CheckpointStore,
        thinning: Thinning,
        named: impl Fn(Position) -> bool,
    ) -> Result<(), Error> {
        let is_sound = |size| {
            let note = backup.note(size).map_err(Error::from);
            note.and_then(|note| self.check_sized(note, size)).is_ok()
        };
        for size in thinning.superfluous(&backup.sizes()?, is_sound) {
            if !named(size) {
                backup.remove(size)?;
            }
        }
        Ok(())
    }
}

impl TenantInner {
    /// Removes the files of superfluous checkpoints, once in a while. `newest` is durable; whoever
    /// calls this holds the lock on it, so that no other is being stored.
    pub(super) fn thin_checkpoints(&self, newest: &Checkpoint) {
        let made = self
            .checkpoints
            .since_thinned
            .fetch_add(1, Ordering::Relaxed);
        // A snapshot that is being made needs the note of a checkpoint that was the newest once.
        let snapshots = self.snapshots.as_ref();
        if made < THIN_EVERY || snapshots.is_some_and(|snapshots| snapshots.is_making()) {
            return;
        }
        self.checkpoints.since_thinned.store(1, Ordering::Relaxed);
        if let Err(error) = self.thin_behind(newest.position()) {
            tracing::warn!(%error, "cannot remove old checkpoints");
        }
    }

    fn thin_behind(&self, newest: Position) -> Result<(), StorageError> {
        let density = self.database.options.checkpoint_density;
        let store = self.checkpoints.store();
        let files = store.files()?;
        let thinning = Thinning { newest, density };
        let superfluous = thinning.superfluous(&files.notes, |size| self.bears_out(size));
        for size in superfluous {
            if files.snapshots.binary_search(&size).is_err() {
                store.remove(size)?;
            }
        }
        // A crash left them before they had a note.
        let states = files.states.into_iter().filter(|size| *size < newest);
        for size in states.filter(|size| files.notes.binary_search(size).is_err()) {
            store.remove_state(size)?;
        }
        Ok(())
    }

    /// Whether the note of `size` records is signed, and the log has the same chain there.
    fn bears_out(&self, size: Position) -> bool {
        let Ok(checkpoint) = self.checkpoints.read(size) else {
            return false;
        };
        let frame = self.reader.frame(size).ok().flatten();
        frame.is_some_and(|frame| {
            let header = frame.header();
            (header.base_position, header.chain_before) == (size, checkpoint.chain())
        })
    }
}

#[cfg(test)]
mod tests {
    use kimberlite_testkit::Rng;

    use super::*;

    /// Makes checkpoints of growing size and thins behind each `every`th; returns all, and the kept.
    fn thinned(rng: &mut Rng, density: u64, every: u64) -> (Vec<Position>, Vec<Position>) {
        let (mut size, mut all, mut kept) = (1, Vec::new(), Vec::new());
        for made in 0..2_000 {
            // Bursts and lulls.
            let longest = 1 << rng.below(12);
            size += 1 + rng.below(longest);
            let newest = Position::new(size);
            all.push(newest);
            kept.push(newest);
            if made % every == 0 {
                let superfluous = Thinning { newest, density }.superfluous(&kept, |_| true);
                kept.retain(|size| !superfluous.contains(size));
            }
        }
        let newest = Position::new(size);
        let superfluous = Thinning { newest, density }.superfluous(&kept, |_| true);
        kept.retain(|size| !superfluous.contains(size));
        (all, kept)
    }

    #[test]
    fn few_are_kept_and_one_close_before_each_that_was_removed() {
        for seed in 0..8 {
            for density in [1, 2, 5, 32] {
                let (all, kept) = thinned(&mut Rng::new(seed), density, 1);
                let newest = all.last().unwrap().get();
                let doublings = u64::from((newest / density).ilog2());
                let bound = (density + 3) * (doublings + 2);
                let count = u64::try_from(kept.len()).unwrap();
                assert!(count <= bound, "seed {seed}: {count} of {bound}");
                assert!(kept.contains(&all[0]) && kept.last() == all.last());
                for size in &all {
                    let before = kept[kept.partition_point(|it| it <= size) - 1];
                    let gap = size.get() - before.get();
                    let distance = newest - size.get();
                    assert!(gap <= distance / density, "seed {seed}: {size} {before}");
                }
            }
        }
    }

    #[test]
    fn it_does_not_matter_when_one_thins() {
        for seed in 0..8 {
            let kept = [1, 7, 5_000].map(|every| thinned(&mut Rng::new(seed), 4, every).1);
            assert!(kept[0] == kept[1] && kept[1] == kept[2], "seed {seed}");
        }
    }

    #[test]
    fn what_is_not_sound_stays_and_stands_for_no_other() {
        let sizes = [16, 17, 18, 19, 20].map(Position::new);
        let thinning = Thinning {
            newest: Position::new(100_000),
            density: 1,
        };
        let superfluous = |bad: &[u64]| {
            let found = thinning.superfluous(&sizes, |size| !bad.contains(&size.get()));
            found.iter().map(|size| size.get()).collect::<Vec<_>>()
        };
        assert_eq!(superfluous(&[]), [17, 18, 19, 20]);
        assert_eq!(superfluous(&[16]), [18, 19, 20]);
        assert_eq!(superfluous(&[16, 17, 19]), [20]);
        assert_eq!(superfluous(&[16, 17, 18, 19]), [0_u64; 0]);
    }

    #[test]
    fn one_thinning_does_not_do_the_work_of_many() {
        let mut sizes = (1..10_000).map(Position::new).collect::<Vec<_>>();
        let newest = Position::new(1 << 40);
        let thinning = Thinning { newest, density: 1 };
        let mut counts = Vec::new();
        for _ in 0..4 {
            let superfluous = thinning.superfluous(&sizes, |_| true);
            sizes.retain(|size| superfluous.binary_search(size).is_err());
            counts.push(superfluous.len());
        }
        assert_eq!(counts, [4096, 4096, 1806, 0]);
    }

    #[test]
    fn an_endless_density_keeps_all_and_none_counts_as_one() {
        let sizes = (1..1000).map(Position::new).collect::<Vec<_>>();
        let count = |density| {
            let newest = Position::new(u64::MAX);
            let thinning = Thinning { newest, density };
            thinning.superfluous(&sizes, |_| true).len()
        };
        assert_eq!((count(u64::MAX), count(0), count(1)), (0, 998, 998));
    }
}
