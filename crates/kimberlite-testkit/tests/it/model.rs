//! Goal: the simulated disk loses nothing synced and invents nothing, whatever is done to it.
//! Method: seeded writes, cuts and syncs of one file against a plain list of all contents that
//! the file ever had; after power loss the length and every sector must be as in one of those
//! since the last sync.

use std::path::Path;

use kimberlite_disk::{Access, Disk};
use kimberlite_testkit::{CrashMode, Rng, SECTOR_BYTES, SimulatedDisk};

/// The content since the last sync, oldest first; the last is what readers see.
struct History {
    states: Vec<Vec<u8>>,
}

impl History {
    fn now(&self) -> Vec<u8> {
        self.states.last().unwrap().clone()
    }

    fn check(&self, found: &[u8], seed: u64) {
        assert!(
            self.states.iter().any(|state| state.len() == found.len()),
            "seed {seed}: a length that the file never had"
        );
        for (index, sector) in found.chunks(SECTOR_BYTES).enumerate() {
            let start = index * SECTOR_BYTES;
            // What a state lacks of the sector reads as zeros.
            let as_in = |state: &Vec<u8>| {
                let mut part: Vec<u8> = state
                    .iter()
                    .skip(start)
                    .take(sector.len())
                    .copied()
                    .collect();
                part.resize(sector.len(), 0);
                part == sector
            };
            assert!(
                self.states.iter().any(as_in),
                "seed {seed}: sector {index} is invented"
            );
        }
    }
}

fn run(seed: u64) {
    let mut rng = Rng::new(seed);
    let disk = SimulatedDisk::new(seed);
    let file = disk.create(Path::new("/f"), Access::Shared).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    let mut history = History {
        states: vec![Vec::new()],
    };
    for _ in 0..rng.within(1..40) {
        let mut next = history.now();
        match rng.below(8) {
            0 => {
                file.sync_data().unwrap();
                history.states = vec![next];
                continue;
            }
            1 => {
                let length = rng.index(8 * SECTOR_BYTES);
                file.set_bytes(u64::try_from(length).unwrap()).unwrap();
                next.resize(length, 0);
            }
            _ => {
                let offset = rng.index(6 * SECTOR_BYTES);
                let count = 1 + rng.index(3 * SECTOR_BYTES);
                let bytes = rng.bytes(count);
                let (head, tail) = bytes.split_at(rng.index(count));
                file.write_all_at(&[head, tail], u64::try_from(offset).unwrap())
                    .unwrap();
                next.resize(next.len().max(offset + count), 0);
                next[offset..offset + count].copy_from_slice(&bytes);
            }
        }
        assert_eq!(disk.contents("/f"), next, "seed {seed}");
        history.states.push(next);
    }
    assert_eq!(
        disk.twin().crash(CrashMode::LoseUnsynced).contents("/f"),
        history.states[0]
    );
    assert_eq!(
        disk.twin().crash(CrashMode::KeepUnsynced).contents("/f"),
        history.now()
    );
    assert_eq!(disk.process_kill().contents("/f"), history.now());
    for crash_seed in 0..8 {
        let found = disk
            .twin()
            .crash(CrashMode::Mixed(crash_seed))
            .contents("/f");
        history.check(&found, seed);
    }
}

#[test]
fn every_sector_after_power_loss_is_as_it_was_at_some_moment_since_the_last_sync() {
    for seed in 0..2_000 {
        run(seed);
    }
}
