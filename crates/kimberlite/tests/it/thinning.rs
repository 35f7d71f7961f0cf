//! Old checkpoints: how many keep their files, and what is still promised once the others are gone.

use std::path::{Path, PathBuf};

use kimberlite::{
    BackupOptions, BackupReport, Database, DatabaseBuilder, Error, ErrorKind, ExpectedVersion,
    RestoreOptions, Tenant,
};
use kimberlite_disk::{Access, Disk};
use kimberlite_testkit::{CrashMode, SimulatedDisk};

use crate::support::{builder, contents, event, open_at};

const BACKUP: &str = "/backup";
const DENSITY: u64 = 4;

fn thinning(disk: &SimulatedDisk, seed: u64) -> DatabaseBuilder {
    builder(disk, seed).checkpoint_density(DENSITY)
}

/// Makes checkpoints with an event before each; returns their sizes.
fn checkpoints(tenant: &Tenant, count: u64) -> Result<Vec<u64>, Error> {
    let stream = tenant.stream("s")?;
    let mut sizes = Vec::new();
    for n in 0..count {
        stream.append(ExpectedVersion::Any, &[event(&n.to_string())])?;
        sizes.push(tenant.checkpoint()?.size());
    }
    Ok(sizes)
}

/// The sizes in the names of files with this ending, in order.
fn sizes(disk: &SimulatedDisk, tenant_dir: &str, ending: &str) -> Vec<u64> {
    let dir = Path::new(tenant_dir).join("checkpoints");
    let mut files = disk.files();
    files.retain(|path| path.starts_with(&dir) && path.extension().is_some_and(|it| it == ending));
    let size = |path: &PathBuf| path.file_stem()?.to_str()?.parse().ok();
    let mut sizes = files.iter().filter_map(size).collect::<Vec<_>>();
    sizes.sort_unstable();
    sizes
}

fn notes(disk: &SimulatedDisk) -> Vec<u64> {
    sizes(disk, "/db/tenants/t", "note")
}

/// Files that may be left of so many records, in the worst case just before the next thinning.
fn bound(records: u64) -> usize {
    let doublings = u64::from((records / DENSITY).ilog2());
    usize::try_from((DENSITY + 3) * (doublings + 2) + 16).unwrap()
}

/// Of every checkpoint that was made one is kept close before it.
fn assert_covered(kept: &[u64], made: &[u64], newest: u64) {
    for size in made {
        let before = kept.partition_point(|it| it <= size).checked_sub(1);
        let gap = size - kept[before.expect("the first is always kept")];
        assert!(gap <= (newest - size) / DENSITY, "{size}: {kept:?}");
    }
}

fn note_path(size: u64) -> PathBuf {
    PathBuf::from(format!("/db/tenants/t/checkpoints/{size:020}.note"))
}

#[test]
fn many_checkpoints_leave_few_files_and_all_their_notes_in_the_log() {
    let disk = SimulatedDisk::new(1);
    let db = thinning(&disk, 1).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    let (mut made, mut signed) = (Vec::new(), Vec::new());
    for _ in 0..600 {
        made.extend(checkpoints(&tenant, 1).unwrap());
        signed.push(tenant.latest_checkpoint().unwrap().unwrap());
        let newest = *made.last().unwrap();
        assert!(notes(&disk).len() <= bound(newest), "{newest}");
    }
    drop(tenant);
    db.close().unwrap();
    let kept = notes(&disk);
    assert_covered(&kept, &made, *made.last().unwrap());
    assert_eq!(sizes(&disk, "/db/tenants/t", "state"), kept);
    let mut files = disk.files();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "seg"));
    let log = files.iter().flat_map(|path| disk.contents(path));
    let log = log.collect::<Vec<_>>();
    let (newest, older) = signed.split_last().unwrap();
    for checkpoint in older {
        let note = checkpoint.note().as_bytes();
        assert!(log.windows(note.len()).any(|bytes| bytes == note));
    }
    assert!(kept.contains(&newest.size()));
    let db = thinning(&disk, 2).open().unwrap();
    let report = db.tenant("t").unwrap().verify().unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
    assert_eq!(report.checkpoints, u64::try_from(kept.len()).unwrap());
}

#[test]
fn all_notes_are_kept_where_that_is_asked_for() {
    let disk = SimulatedDisk::new(1);
    let db = builder(&disk, 1).checkpoint_density(u64::MAX).open();
    let made = checkpoints(&db.unwrap().tenant("t").unwrap(), 200).unwrap();
    assert_eq!(notes(&disk), made);
}

#[test]
fn a_crash_at_any_operation_of_a_thinning_loses_no_checkpoint_that_is_to_stay() {
    let disk = SimulatedDisk::new(1);
    let db = builder(&disk, 1).checkpoint_density(u64::MAX).open();
    let mut made = checkpoints(&db.unwrap().tenant("t").unwrap(), 60).unwrap();
    // As a crash between the files of a checkpoint leaves it.
    let alone = Path::new("/db/tenants/t/checkpoints/00000000000000000051.state");
    assert!(!made.contains(&51));
    disk.write_new_atomic(alone, b"x", Access::Shared).unwrap();
    let run = |disk: &SimulatedDisk| -> Result<Vec<u64>, Error> {
        let db = thinning(disk, 2).open()?;
        checkpoints(&db.tenant("t")?, 1)
    };
    let whole = disk.twin();
    let (from, newest) = (whole.ops(), run(&whole).unwrap()[0]);
    made.push(newest);
    let expected = notes(&whole);
    let (mut began, removed) = (0, made.len() - expected.len());
    assert!(removed > 20, "{expected:?}");
    assert_eq!(sizes(&whole, "/db/tenants/t", "state"), expected);
    for op in from + 1..=whole.ops() {
        let cut = disk.twin();
        cut.crash_after(op);
        let acknowledged = run(&cut).is_ok();
        for mode in [
            CrashMode::LoseUnsynced,
            CrashMode::KeepUnsynced,
            CrashMode::Mixed(op),
        ] {
            let cut = cut.crash(mode);
            let left = notes(&cut);
            began += u32::from(left.len() < made.len() - 1);
            assert!(!acknowledged || left.contains(&newest), "op {op}, {mode:?}");
            let db = thinning(&cut, 3).open().unwrap();
            let tenant = db.tenant("t").unwrap();
            let report = tenant.verify().unwrap();
            assert!(report.is_sound(), "op {op}: {:?}", report.findings);
            let behind = *checkpoints(&tenant, 1).unwrap().last().unwrap();
            let kept = notes(&cut);
            assert_covered(&kept, &made[..60], behind);
            assert!(kept.len() <= bound(behind), "op {op}, {mode:?}: {kept:?}");
            assert_eq!(sizes(&cut, "/db/tenants/t", "state"), kept);
        }
    }
    assert!(began > 20, "{began} crashes in the middle of it");
}

#[test]
fn no_file_is_removed_before_a_newer_checkpoint_is_durable() {
    let disk = SimulatedDisk::new(1);
    let db = builder(&disk, 1).checkpoint_density(u64::MAX).open();
    let made = checkpoints(&db.unwrap().tenant("t").unwrap(), 60).unwrap();
    let whole = disk.twin();
    let db = thinning(&whole, 2).open().unwrap();
    let (from, tenant) = (whole.ops(), db.tenant("t").unwrap());
    let newest = checkpoints(&tenant, 1).unwrap()[0];
    for op in from + 1..=whole.ops() {
        let cut = disk.twin();
        cut.crash_after(op);
        let run = || checkpoints(&thinning(&cut, 2).open()?.tenant("t")?, 1);
        let _ = run();
        let left = notes(&cut.crash(CrashMode::KeepUnsynced));
        let lost = cut.crash(CrashMode::LoseUnsynced);
        let is_durable = notes(&lost).contains(&newest);
        assert!(is_durable || left.starts_with(&made), "op {op}");
    }
}

/// What a note says that the log does not bear out is evidence, and so is one that rotted.
#[test]
fn a_note_that_is_damaged_or_contradicts_the_log_is_never_removed() {
    let [disk, other] = ["one history", "other tales"].map(|data| {
        let disk = SimulatedDisk::new(1);
        let db = builder(&disk, 1).checkpoint_density(u64::MAX).open();
        let tenant = db.unwrap().tenant("t").unwrap();
        let stream = tenant.stream("s").unwrap();
        stream.append(ExpectedVersion::Any, &[event(data)]).unwrap();
        let made = checkpoints(&tenant, 60).unwrap();
        assert!(made.contains(&25) && made.contains(&27));
        disk
    });
    let foreign = other.contents(note_path(25));
    assert_ne!(foreign, disk.contents(note_path(25)));
    disk.write_new_atomic(&note_path(25), &foreign, Access::Shared)
        .unwrap();
    disk.flip(note_path(27), 30, 1);
    let db = thinning(&disk, 2).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    let found = || tenant.verify().unwrap().findings.len();
    assert_eq!(found(), 2);
    checkpoints(&tenant, 100).unwrap();
    let kept = notes(&disk);
    assert!(kept.contains(&25) && kept.contains(&27), "{kept:?}");
    assert!(kept.len() <= bound(*kept.last().unwrap()) + 2, "{kept:?}");
    assert_eq!(found(), 2);
}

fn back_up(db: &Database) -> Result<BackupReport, Error> {
    let options = BackupOptions::new().with_root_key(true);
    db.backup(Path::new(BACKUP), &options, &mut |_| {})
}

#[test]
fn a_backup_goes_on_from_one_whose_note_was_removed_and_keeps_few_notes_itself() {
    let disk = SimulatedDisk::new(1);
    let db = thinning(&disk, 1).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    let mut removed = 0;
    for _ in 0..20 {
        checkpoints(&tenant, 24).unwrap();
        let backed_up = back_up(&db).unwrap().tenants[0].checkpoint.size();
        checkpoints(&tenant, 80).unwrap();
        removed += u32::from(!notes(&disk).contains(&backed_up));
        let newest = back_up(&db).unwrap().tenants[0].checkpoint.size();
        let kept = sizes(&disk, "/backup/tenants/t", "note");
        assert!(kept.contains(&newest));
        assert!(kept.len() <= 2 * bound(newest), "{newest}: {}", kept.len());
    }
    assert!(removed > 5, "{removed}");
    let restored = open_at(&disk, "/restored", 2)
        .restore(Path::new(BACKUP), &RestoreOptions::new(), &mut |_| {})
        .unwrap();
    assert!(!restored.lacks_root_key);
    let db = open_at(&disk, "/restored", 3).open().unwrap();
    assert_eq!(contents(&db, "t").len(), 20 * 104);
    let report = db.tenant("t").unwrap().verify().unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
}

#[test]
fn the_backup_of_another_history_is_not_replaced_where_its_note_was_removed() {
    let disk = SimulatedDisk::new(1);
    let db = thinning(&disk, 1).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    checkpoints(&tenant, 40).unwrap();
    drop(tenant);
    drop(db);
    let old = disk.twin();
    let db = thinning(&disk, 2).open().unwrap();
    checkpoints(&db.tenant("t").unwrap(), 13).unwrap();
    let backed_up = back_up(&db).unwrap().tenants[0].checkpoint.size();
    let copy = disk.files();
    for path in copy.iter().filter(|path| path.starts_with(BACKUP)) {
        old.create_dir_all(path.parent().unwrap()).unwrap();
        old.write_new_atomic(path, &disk.contents(path), Access::Private)
            .unwrap();
    }
    let db = thinning(&old, 3).open().unwrap();
    checkpoints(&db.tenant("t").unwrap(), 400).unwrap();
    assert!(!notes(&old).contains(&backed_up));
    let refused = back_up(&db).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{refused}");
}

#[test]
fn a_note_that_the_database_has_lost_stays_in_the_backup() {
    let disk = SimulatedDisk::new(1);
    let db = thinning(&disk, 1).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    let made = checkpoints(&tenant, 100).unwrap();
    back_up(&db).unwrap();
    let lost = *made.last().unwrap();
    disk.flip(note_path(lost), 30, 1);
    checkpoints(&tenant, 1).unwrap();
    back_up(&db).unwrap();
    assert!(sizes(&disk, "/backup/tenants/t", "note").contains(&lost));
}
