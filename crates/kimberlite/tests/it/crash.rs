//! Whole databases that crash.
//!
//! Goal: whatever the moment of a crash and whatever the disk kept of unsynced writes, reopening
//! gives a prefix of what was appended that contains all that was acknowledged, and no (key, nonce)
//! pair is used for two plaintexts. Method: a workload is run on a simulated disk that fails from
//! the n-th operation on, for every n; the disk is then looked at as power loss or a killed process
//! would leave it. Every byte that was ever written to a segment is observed, so that what was
//! sealed and thrown away counts too.

use kimberlite::{Database, Error, ErrorKind, ExpectedVersion, SyncPolicy};
use kimberlite_testkit::{CrashMode, NonceLedger, Rng, SimulatedDisk};

use crate::support::{builder, contents, event};

/// Appends until something fails; returns what was acknowledged and how many were attempted.
fn run(db: &Database, seed: u64, acknowledged: &mut Vec<String>) -> Result<(), Error> {
    let mut rng = Rng::new(seed);
    let tenant = db.tenant("t")?;
    for n in 0..12_u64 {
        let stream = tenant.stream(&format!("s{}", rng.below(3)))?;
        let count = 1 + rng.below(3);
        let bytes = usize::try_from(rng.below(700)).unwrap();
        let texts = (0..count)
            .map(|i| format!("{seed}-{n}-{i}-{}", "x".repeat(bytes)))
            .collect::<Vec<_>>();
        let events = texts.iter().map(|text| event(text)).collect::<Vec<_>>();
        stream.append(ExpectedVersion::Any, &events)?;
        acknowledged.extend(texts);
        match rng.below(6) {
            0 => tenant.settle()?,
            1 => drop(tenant.checkpoint()?),
            _ => {}
        }
    }
    Ok(())
}

fn check_prefix(disk: &SimulatedDisk, acknowledged: &[String], what: &str) -> Vec<String> {
    let db = builder(disk, 77).open().unwrap();
    let tenant = db
        .tenant("t")
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = contents(&db, "t");
    assert!(
        found.len() >= acknowledged.len(),
        "{what}: acknowledged events are lost"
    );
    assert_eq!(&found[..acknowledged.len()], acknowledged, "{what}");
    let report = tenant.verify().unwrap();
    assert!(report.is_sound(), "{what}: {:?}", report.findings);
    found
}

#[test]
fn a_crash_at_any_operation_keeps_every_acknowledged_event() {
    let whole = SimulatedDisk::new(1);
    run(&builder(&whole, 1).open().unwrap(), 3, &mut Vec::new()).unwrap();
    for op in 1..=whole.ops() {
        let disk = SimulatedDisk::new(1);
        disk.crash_after(op);
        let mut acknowledged = Vec::new();
        let _ = builder(&disk, 1)
            .open()
            .and_then(|db| run(&db, 3, &mut acknowledged));
        let modes = [CrashMode::LoseUnsynced, CrashMode::KeepUnsynced];
        for mode in modes.into_iter().chain((0..3).map(CrashMode::Mixed)) {
            let what = format!("op {op}, {mode:?}");
            let after = disk.crash(mode);
            let mut found = check_prefix(&after, &acknowledged, &what);
            // The log goes on, and survives the next crash.
            let db = builder(&after, 5).open().unwrap();
            run(&db, 4, &mut found).unwrap();
            drop(db);
            check_prefix(&after.crash(CrashMode::LoseUnsynced), &found, &what);
        }
        check_prefix(
            &disk.process_kill(),
            &acknowledged,
            &format!("op {op}, killed"),
        );
    }
}

/// Appends more than the first segment holds, of 256 KiB, and something behind that. Counts the
/// operations before the segment is full into `full_at`.
fn run_over_roll(
    disk: &SimulatedDisk,
    policy: SyncPolicy,
    acknowledged: &mut Vec<String>,
    full_at: &mut u64,
) -> Result<(), Error> {
    let db = builder(disk, 1).sync_policy(policy).open()?;
    let tenant = db.tenant("t")?;
    let stream = tenant.stream("s")?;
    let texts = [200_000, 150_000, 20].map(|bytes| format!("{bytes}-{}", "x".repeat(bytes)));
    for (nth, text) in texts.iter().enumerate() {
        stream.append(ExpectedVersion::Any, &[event(text)])?;
        if policy == SyncPolicy::OnFlush {
            tenant.flush()?;
        }
        acknowledged.extend_from_slice(&texts[nth..=nth]);
        if nth == 0 {
            *full_at = disk.ops();
        }
    }
    Ok(())
}

/// How many segments have a name, and whether the last of them has its header page.
fn segments(disk: &SimulatedDisk) -> (usize, bool) {
    let files = disk.files();
    let mut names = files
        .iter()
        .filter(|path| path.extension() == Some("seg".as_ref()));
    let count = names.clone().count();
    let last = disk.contents(names.next_back().unwrap());
    (count, last[..4096] != [0; 4096])
}

#[test]
fn a_crash_at_any_operation_of_a_roll_keeps_every_acknowledged_event() {
    let mut counts = std::collections::BTreeMap::<_, u32>::new();
    for policy in [SyncPolicy::EveryBatch, SyncPolicy::OnFlush] {
        let (whole, mut full_at) = (SimulatedDisk::new(1), 0);
        run_over_roll(&whole, policy, &mut Vec::new(), &mut full_at).unwrap();
        assert_eq!(segments(&whole), (2, true));
        for op in full_at + 1..=whole.ops() {
            let disk = SimulatedDisk::new(1);
            disk.crash_after(op);
            let mut acknowledged = Vec::new();
            let _ = run_over_roll(&disk, policy, &mut acknowledged, &mut 0);
            let check = |found: &SimulatedDisk, what: &str| {
                let what = format!("{policy:?}, op {op}, {what}");
                let shown = check_prefix(found, &acknowledged, &what);
                check_prefix(&found.crash(CrashMode::LoseUnsynced), &shown, &what);
            };
            let modes = [CrashMode::LoseUnsynced, CrashMode::KeepUnsynced];
            let mixed = (0..6).map(|seed| CrashMode::Mixed(op << 8 | seed));
            for mode in modes.into_iter().chain(mixed) {
                let found = disk.crash(mode);
                *counts.entry(segments(&found)).or_default() += 1;
                check(&found, &format!("{mode:?}"));
            }
            check(&disk.process_kill(), "killed");
        }
    }
    // Its name lost, its header page lost, both kept.
    let met = [(1, true), (2, false), (2, true)];
    let met = met.map(|found| counts.get(&found).copied().unwrap_or_default());
    assert!(met.iter().all(|&count| count > 3), "{counts:?}");
}

#[test]
fn a_failed_sync_is_an_unknown_outcome_and_reopening_shows_only_what_stays() {
    let whole = SimulatedDisk::new(1);
    run(&builder(&whole, 1).open().unwrap(), 3, &mut Vec::new()).unwrap();
    // A directory whose making failed to sync is made good by hand: begin behind the making.
    let made = SimulatedDisk::new(1);
    drop(builder(&made, 1).open().unwrap().tenant("t").unwrap());
    let mut failed = 0;
    for op in made.ops() + 1..=whole.ops() {
        let disk = SimulatedDisk::new(1);
        disk.fail_sync_at(op);
        let mut acknowledged = Vec::new();
        let result = builder(&disk, 1).open().and_then(|db| {
            let result = run(&db, 3, &mut acknowledged);
            if let Err(error) = &result
                && error.kind() == ErrorKind::OutcomeUnknown
            {
                let again = db
                    .tenant("t")?
                    .stream("s0")?
                    .append(ExpectedVersion::Any, &[event("y")]);
                assert_eq!(again.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
            }
            result
        });
        failed += u32::from(result.is_err());
        // The process ends; the page cache still shows what the disk does not have.
        let reopened = disk.process_kill();
        let shown = check_prefix(&reopened, &acknowledged, &format!("sync at {op}"));
        // What the reopened database showed must survive power loss from then on.
        let lost = reopened.crash(CrashMode::LoseUnsynced);
        check_prefix(&lost, &shown, &format!("sync at {op}, power loss"));
    }
    assert!(failed > 20, "the failed syncs were met");
}

#[test]
fn a_key_and_nonce_never_repeat_over_thousands_of_histories() {
    let mut sealed = 0;
    for seed in 0..2000_u64 {
        let mut rng = Rng::new(seed);
        let ledger = NonceLedger::new();
        let mut disk = SimulatedDisk::new(seed);
        ledger.watch(&disk);
        let copy_after = rng.below(4);
        let mut copy = None;
        for life in 0..4_u64 {
            if life == copy_after {
                copy = Some(disk.snapshot());
            }
            // The last life goes on from a copy that was made before, as a restored backup would.
            if life == 3
                && let Some(copy) = copy.take()
            {
                disk = copy;
            }
            disk.crash_after(10 + rng.below(120));
            let opened = builder(&disk, seed * 16 + life).open();
            let _ = opened.and_then(|db| {
                let stream = db.tenant("t")?.stream("s")?;
                (0..8).try_for_each(|n| {
                    let events = [event(&format!("{life}-{n}")), event("same text")];
                    stream.append(ExpectedVersion::Any, &events).map(drop)
                })
            });
            disk = disk.crash(CrashMode::Mixed(rng.next_u64()));
        }
        assert!(
            !ledger.is_repeated(),
            "seed {seed}: a counter sealed two plaintexts under one key"
        );
        sealed += ledger.len();
    }
    assert!(sealed > 20_000, "only {sealed} sealings were seen");
}

/// As above, but the copy is a backup that is restored, beside the original that lives on.
#[test]
fn a_key_and_nonce_never_repeat_after_a_backup_is_restored() {
    let mut sealed = 0;
    for seed in 0..150_u64 {
        let mut rng = Rng::new(seed);
        let ledger = NonceLedger::new();
        let mut disk = SimulatedDisk::new(seed);
        ledger.watch(&disk);
        let backup = std::path::Path::new("/backup");
        let append = |db: &Database, life: u64| {
            let stream = db.tenant("t")?.stream("s")?;
            (0..6).try_for_each(|n| {
                let events = [event(&format!("{life}-{n}")), event("same text")];
                stream.append(ExpectedVersion::Any, &events).map(drop)
            })
        };
        let db = crate::support::open_at(&disk, "/0", seed * 16)
            .open()
            .unwrap();
        append(&db, 0).unwrap();
        let options = kimberlite::BackupOptions::new().with_root_key(true);
        db.backup(backup, &options, &mut |_| {}).unwrap();
        append(&db, 1).unwrap();
        drop(db);
        for life in 1..4_u64 {
            let path = format!("/{life}");
            let builder = crate::support::open_at(&disk, &path, seed * 16 + life);
            let options = kimberlite::RestoreOptions::new();
            builder.restore(backup, &options, &mut |_| {}).unwrap();
            disk.crash_after(disk.ops() + 8 + rng.below(60));
            let opened = crate::support::open_at(&disk, &path, seed * 16 + 8 + life).open();
            let _ = opened.and_then(|db| append(&db, 10 + life));
            disk = disk.crash(CrashMode::Mixed(rng.next_u64()));
        }
        assert!(!ledger.is_repeated(), "seed {seed}");
        sealed += ledger.len();
    }
    assert!(sealed > 4_000, "only {sealed} sealings were seen");
}
