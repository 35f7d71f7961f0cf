//! Snapshots of logs whose segments a purge has written anew.

use super::*;

#[test]
fn a_purge_makes_the_next_checkpoint_have_a_snapshot_of_the_new_files() {
    let disk = SimulatedDisk::new(1);
    let open = |seed| {
        let builder = builder(&disk, seed).snapshot_growth_min(100_000);
        let db = builder.open().unwrap();
        let tenant = db.tenant("t").unwrap();
        (db, tenant)
    };
    let (db, tenant) = open(1);
    for _ in 0..5 {
        append(&tenant, "s", 1, 180_000);
    }
    tenant.checkpoint().unwrap();
    append(&tenant, "s", 1, 10);
    tenant.checkpoint().unwrap();
    let outdated = snapshot_of(&disk);
    let until = Position::new(4);
    let options = crate::PurgeOptions::new(until);
    tenant.purge(&options, &mut |_| ()).unwrap();
    // The log is smaller than it was, and its snapshot is made anew all the same.
    let cut_short = disk.twin();
    db.close().unwrap();
    drop(tenant);
    assert_ne!(snapshot_of(&disk), outdated);
    let (_db, tenant) = open(2);
    assert!(begun_at(&tenant) > 0 && tenant.verify().unwrap().is_sound());
    // Where the power went before that, the log is read as a whole.
    let (_db, tenant) = {
        let builder = builder(&cut_short, 3);
        let db = builder.open().unwrap();
        let tenant = db.existing_tenant("t").unwrap();
        (db, tenant)
    };
    assert!(begun_at(&tenant) == 0 && tenant.verify().unwrap().is_sound());
}
