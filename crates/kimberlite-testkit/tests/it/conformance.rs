use std::path::Path;

use kimberlite_disk::OsDisk;
use kimberlite_testkit::{CrashMode, SimulatedDisk, check_disk};

#[test]
fn the_operating_system_disk_keeps_the_contract() {
    let scratch = tempfile::tempdir().unwrap();
    check_disk(&OsDisk::new(), &scratch.path().join("root"));
}

#[test]
fn the_simulated_disk_keeps_the_contract() {
    check_disk(&SimulatedDisk::new(1), Path::new("/root"));
    check_disk(&SimulatedDisk::new(1), Path::new("relative/root"));
}

#[test]
fn a_disk_found_after_a_crash_keeps_the_contract() {
    let disk = SimulatedDisk::new(1);
    check_disk(&disk, Path::new("/before"));
    for mode in [
        CrashMode::LoseUnsynced,
        CrashMode::KeepUnsynced,
        CrashMode::Mixed(3),
    ] {
        check_disk(&disk.crash(mode), Path::new("/after"));
    }
    check_disk(&disk.process_kill(), Path::new("/after"));
    check_disk(&disk.snapshot(), Path::new("/after"));
}
