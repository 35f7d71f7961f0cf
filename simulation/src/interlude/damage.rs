//! Bits that rot.

use std::path::PathBuf;

use kimberlite_testkit::SimulatedDisk;

use super::{Opening, check_spoiled, spoil_copy};
use crate::world::{Checked, World};

/// Flips bits in any files of a copy, then opens it both ways.
pub(super) fn check_copy(world: &mut World) -> Checked {
    let copy = spoil_copy(&world.disk);
    for _ in 0..=world.rng.below(3) {
        flip(world, &copy);
    }
    let again = spoil_copy(&copy);
    check_spoiled(world, &copy, Opening::Observer, false)?;
    check_spoiled(world, &again, Opening::Writer, false)
}

fn flip(world: &mut World, copy: &SimulatedDisk) {
    let files: Vec<(PathBuf, Vec<u8>)> = copy
        .files()
        .into_iter()
        .map(|path| (path.clone(), copy.contents(&path)))
        .filter(|(_, content)| !content.is_empty())
        .collect();
    let Some((path, content)) = world.rng.choose(&files).cloned() else {
        return;
    };
    let used = content.iter().rposition(|&byte| byte != 0);
    // Mostly where something was written, and sometimes in free space.
    let bytes = match used {
        Some(last) if world.rng.chance(7, 8) => last + 1,
        _ => content.len(),
    };
    let (byte, mask) = (world.rng.index(bytes), 1 << world.rng.below(8));
    copy.flip(&path, byte as u64, mask);
    world.note(format!("flip {mask} in byte {byte} of {}", path.display()));
}
