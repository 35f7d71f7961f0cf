//! Full disks: whatever takes space fails with `DiskFull` and leaves everything as it was, reads go on,
//! and once there is space the same handles go on.

use std::path::Path;
use std::process::{Command, ExitStatus};

use kimberlite::{
    BackupOptions, Database, Error, ErrorKind, ExpectedVersion, RepairOptions, RestoreOptions,
};
use kimberlite_testkit::SimulatedDisk;

use crate::support::{builder, contents, event};

/// Bytes that are left free, step by step: none, a part of a small file, of a header page, of the zeros
/// of a segment, all but one of its bytes.
const FREE_BYTES: [u64; 14] = [
    0,
    1,
    60,
    100,
    150,
    250,
    400,
    700,
    1300,
    4095,
    4096,
    100 << 10,
    (256 << 10) - 1,
    (1 << 20) - 1,
];

/// Does something on a disk with ever more space, until it succeeds; returns how often it failed.
fn squeeze<T>(
    disk: &SimulatedDisk,
    what: &str,
    check: &dyn Fn(),
    act: &dyn Fn() -> Result<T, Error>,
) -> (T, u32) {
    let mut failed = 0;
    for free in FREE_BYTES {
        disk.set_space_bytes(Some(disk.used_bytes() + free));
        match act() {
            Ok(done) => {
                disk.set_space_bytes(None);
                return (done, failed);
            }
            Err(error) => {
                let kind = error.kind();
                assert_eq!(kind, ErrorKind::DiskFull, "{what}, {free} free: {error:?}");
                assert!(error.to_string().contains("space"), "{what}: {error}");
                check();
                failed += 1;
            }
        }
    }
    disk.set_space_bytes(None);
    let done = act().unwrap_or_else(|error| panic!("{what}, with space again: {error:?}"));
    (done, failed)
}

fn append(db: &Database, tenant: &str, bytes: usize) -> Result<(), Error> {
    let stream = db.tenant(tenant)?.stream("s")?;
    let event = event(&"x".repeat(bytes));
    stream.append(ExpectedVersion::Any, &[event]).map(drop)
}

#[test]
fn a_disk_that_is_full_at_any_write_fails_cleanly_and_the_same_handles_go_on() {
    let disk = SimulatedDisk::new(1);
    let nothing = || {};
    let (db, failed) = squeeze(&disk, "root key", &nothing, &|| builder(&disk, 1).open());
    let mut failures = vec![failed];
    let ((), failed) = squeeze(&disk, "tenant", &nothing, &|| db.tenant("t").map(drop));
    failures.push(failed);
    let mut events = 0;
    for (what, bytes) in [
        ("first append", 10),
        ("append", 200_000),
        ("roll", 200_000),
        ("append", 700_000),
        ("roll", 400_000),
    ] {
        let check = || assert_eq!(contents(&db, "t").len(), events, "{what}");
        let check: &dyn Fn() = if events == 0 { &nothing } else { &check };
        let ((), failed) = squeeze(&disk, what, check, &|| append(&db, "t", bytes));
        assert_eq!(failed > 0, what == "roll", "{what} failed {failed} times");
        failures.push(failed);
        events += 1;
        let tenant = db.tenant("t").unwrap();
        let check = || assert_eq!(contents(&db, "t").len(), events);
        let ((), failed) = squeeze(&disk, "watermark", &check, &|| tenant.settle());
        assert_eq!(failed, 0, "a watermark has its place");
        let (_, failed) = squeeze(&disk, "checkpoint", &check, &|| tenant.checkpoint());
        failures.push(failed);
        // What fits into the active segment is appended beside a full disk.
        disk.set_space_bytes(Some(disk.used_bytes()));
        append(&db, "t", 10).unwrap();
        disk.set_space_bytes(None);
        events += 1;
    }
    let check = || assert_eq!(contents(&db, "t").len(), events);
    let ((), failed) = squeeze(&disk, "second tenant", &check, &|| db.tenant("u").map(drop));
    failures.push(failed);
    let options = BackupOptions::new();
    let (_, failed) = squeeze(&disk, "backup", &check, &|| {
        db.backup(Path::new("/backup"), &options, &mut |_| {})
    });
    failures.push(failed);
    assert!(failures.iter().sum::<u32>() > 60, "{failures:?}");
    assert!(db.tenant("t").unwrap().verify().unwrap().is_sound());
    db.close().unwrap();
    let db = builder(&disk, 2).open().unwrap();
    assert_eq!(contents(&db, "t").len(), events);
    assert!(db.tenant("t").unwrap().verify().unwrap().is_sound());
    append(&db, "u", 10).unwrap();
}

#[test]
fn without_a_sync_of_its_own_an_append_beside_a_full_disk_fails_cleanly_too() {
    let disk = SimulatedDisk::new(1);
    let policy = kimberlite::SyncPolicy::OnFlush;
    let db = builder(&disk, 1).sync_policy(policy).open().unwrap();
    for events in 1..=3 {
        let ((), failed) = squeeze(&disk, "append", &|| {}, &|| append(&db, "t", 200_000));
        assert!(failed > 0 || events == 3, "{events}");
        assert_eq!(contents(&db, "t").len(), events);
    }
    db.tenant("t").unwrap().flush().unwrap();
    assert!(db.tenant("t").unwrap().verify().unwrap().is_sound());
}

fn run(program: &str, arguments: &[&str]) -> Option<ExitStatus> {
    let output = Command::new(program).args(arguments).output().ok()?;
    Some(output.status).filter(ExitStatus::success)
}

/// A file system of 8 MiB, which is left when this goes.
struct Mount(tempfile::TempDir);

impl Mount {
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        run("mount", &["-t", "tmpfs", "-o", "size=8m", "tmpfs", path])?;
        Some(Self(dir))
    }

    fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = run("umount", &[self.path()]);
    }
}

#[test]
fn a_real_disk_that_fills_up_fails_appends_until_it_has_space_again() {
    use std::io::Write as _;

    let Some(mount) = Mount::new() else {
        let skipped = "skipped: no file system can be mounted here";
        writeln!(std::io::stderr(), "{skipped}").unwrap();
        return;
    };
    let db = Database::open(mount.0.path().join("db")).unwrap();
    let mut events = 0;
    let full = loop {
        match append(&db, "t", 100_000) {
            Ok(()) => events += 1,
            Err(error) => break error,
        }
        assert!(events < 100, "8 MiB are never full");
    };
    assert_eq!(full.kind(), ErrorKind::DiskFull, "{full:?}");
    assert!(events > 20, "{events}");
    assert_eq!(contents(&db, "t").len(), events);
    assert_eq!(
        append(&db, "t", 100_000).unwrap_err().kind(),
        ErrorKind::DiskFull
    );
    append(&db, "t", 10).unwrap();
    run("mount", &["-o", "remount,size=64m", mount.path()]).unwrap();
    append(&db, "t", 100_000).unwrap();
    assert_eq!(contents(&db, "t").len(), events + 2);
    assert!(db.tenant("t").unwrap().verify().unwrap().is_sound());
    db.close().unwrap();
}

/// Whether the first segment of a database takes all the space that its length says.
fn space_is_taken(database: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;

    let segment = database.join("tenants/t/log/00000000000000000000.seg");
    let metadata = segment.metadata().unwrap();
    assert!(metadata.len() >= 256 << 10);
    metadata.blocks() * 512 >= metadata.len()
}

#[test]
fn restored_and_repaired_segments_have_their_space_so_that_appends_find_it() {
    let dir = tempfile::tempdir().unwrap();
    let [path, backup, restored] = ["db", "backup", "restored"].map(|name| dir.path().join(name));
    let db = Database::open(&path).unwrap();
    append(&db, "t", 10).unwrap();
    let options = BackupOptions::new().with_root_key(true);
    db.backup(&backup, &options, &mut |_| {}).unwrap();
    db.close().unwrap();
    assert!(space_is_taken(&path));
    Database::builder(&restored)
        .restore(&backup, &RestoreOptions::new(), &mut |_| {})
        .unwrap();
    assert!(space_is_taken(&restored), "restored");
    let segment = path.join("tenants/t/log/00000000000000000000.seg");
    let file = kimberlite_disk::OsDisk::new();
    let file = kimberlite_disk::Disk::open(&file, &segment, kimberlite_disk::OpenMode::ReadWrite);
    file.unwrap().set_bytes(128 << 10).unwrap();
    let options = RepairOptions::new().accept_loss(true);
    let report = Database::builder(&path).repair("t", &options).unwrap();
    assert!(report.done);
    assert!(space_is_taken(&path), "repaired");
}
