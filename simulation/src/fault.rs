//! Faults of the disk that a process meets while it runs.

use crate::world::World;

/// What goes wrong some operations later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    FailSync,
    FailWrite,
    FailNames,
    FailRead,
    /// Nothing finds space for a while.
    Fill,
    /// Little space is left.
    Shrink,
    /// There is space again.
    Free,
}

const FAULTS: [Fault; 7] = [
    Fault::FailSync,
    Fault::FailWrite,
    Fault::FailNames,
    Fault::FailRead,
    Fault::Fill,
    Fault::Shrink,
    Fault::Free,
];

/// Plans a fault for one of the next operations.
pub(crate) fn plan(world: &mut World) {
    let fault = world.rng.choose(&FAULTS).copied().unwrap_or(Fault::Free);
    let disk = world.disk.clone();
    let at = disk.ops() + 1 + world.rng.below(12);
    match fault {
        Fault::FailSync => disk.fail_sync_at(at),
        Fault::FailWrite => disk.fail_write_at(at),
        Fault::FailNames => disk.fail_names_at(at),
        Fault::FailRead => disk.fail_read_at(disk.reads() + 1 + world.rng.below(12)),
        Fault::Fill => disk.fill_during(at..at + 1 + world.rng.below(20)),
        Fault::Shrink => {
            let left = world.rng.below(300 << 10);
            disk.set_space_bytes(Some(disk.used_bytes() + left));
        }
        Fault::Free => disk.set_space_bytes(None),
    }
    world.faulty |= fault != Fault::Free;
    world.note(format!("plan {fault:?} at {at}"));
}

/// The next process finds a disk that has space.
pub(crate) fn end(world: &mut World) {
    world.disk.set_space_bytes(None);
    world.faulty = false;
}
