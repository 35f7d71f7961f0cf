//! Repairs: they lose no more than they say, keep what they cut, never sign a lost history's name, and
//! go on from wherever they were cut short.

use std::path::{Path, PathBuf};

use kimberlite::{
    Error, ErrorKind, ExpectedVersion, RecordKind, RepairOptions, RepairReport, Tenant,
};
use kimberlite_disk::Disk;
use kimberlite_testkit::{CrashMode, SimulatedDisk};

use crate::support::{builder, contents, event, kinds};

/// A log of two closed segments and an active one, of six events, with two checkpoints.
fn written() -> SimulatedDisk {
    written_with([100, 240_000, 100, 1_000_000, 100, 240_000])
}

fn written_with(bytes: [usize; 6]) -> SimulatedDisk {
    let disk = SimulatedDisk::new(1);
    let db = builder(&disk, 1).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    let stream = tenant.stream("s").unwrap();
    for (n, bytes) in bytes.into_iter().enumerate() {
        let text = format!("{n}{}", "x".repeat(bytes));
        stream
            .append(ExpectedVersion::Any, &[event(&text)])
            .unwrap();
        if n == 1 {
            tenant.checkpoint().unwrap();
        }
    }
    drop((tenant, stream));
    db.close().unwrap();
    disk
}

fn repair(disk: &SimulatedDisk, accept: bool, seed: u64) -> Result<RepairReport, Error> {
    let options = RepairOptions::new().accept_loss(accept);
    builder(disk, seed).repair("t", &options)
}

fn segments(disk: &SimulatedDisk) -> Vec<PathBuf> {
    let mut files = disk.files();
    files.retain(|path| path.extension().is_some_and(|it| it == "seg"));
    files
}

fn check(disk: &SimulatedDisk, events: usize, what: &str) -> Tenant {
    let db = builder(disk, 70).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    let found = contents(&db, "t");
    assert_eq!(found.len(), events, "{what}");
    for (n, text) in found.iter().enumerate() {
        assert!(text.starts_with(&n.to_string()), "{what}");
    }
    let report = tenant.verify().unwrap();
    assert!(report.is_sound(), "{what}: {:?}", report.findings);
    let stream = tenant.stream("s").unwrap();
    stream
        .append(ExpectedVersion::Any, &[event(&format!("{events}"))])
        .unwrap();
    let checkpoint = tenant.checkpoint().unwrap();
    let incarnation = checkpoint.origin().rsplit('/').next().unwrap();
    assert!(incarnation.starts_with("2-"), "{what}: {incarnation}");
    assert!(tenant.verify().unwrap().is_sound(), "{what}");
    tenant
}

fn position_of(disk: &SimulatedDisk, event: usize) -> (u64, String, u64) {
    let db = builder(disk, 60).read_only(true).open().unwrap();
    let tenant = db.existing_tenant("t").unwrap();
    let record = tenant.read_all(..).nth(event).unwrap().unwrap();
    let (byte, header) = tenant.frame(record.position()).unwrap().unwrap();
    let inspection = tenant.inspect().unwrap();
    let segment = inspection
        .segments
        .iter()
        .rfind(|it| it.base <= record.position());
    assert!(byte > 0 && header.count == 1);
    (record.position().get(), segment.unwrap().name.clone(), byte)
}

#[test]
fn damage_in_the_middle_takes_what_stands_behind_it_and_keeps_its_bytes() {
    for event in 1..6 {
        let disk = written();
        let (position, segment, byte) = position_of(&disk, event);
        let path = Path::new("/db/tenants/t/log").join(&segment);
        disk.flip(&path, byte + 50, 1);
        // A seal would pass over it at opening; verify finds it.
        let before = disk.snapshot();
        let ops = disk.ops();
        let plan = repair(&disk, false, 2).unwrap();
        assert!(!plan.done && !plan.problems.is_empty());
        assert_eq!(plan.end.get(), position);
        // Before the first frame of a segment the log ends in the one before it.
        let within = byte > 4096;
        assert_eq!(plan.cut_at == (segment, byte), within);
        assert!(plan.known_end.get() > position);
        assert_eq!(disk.contents(&path), before.contents(&path));
        assert!(disk.ops() <= ops + 2, "nothing but the lock was written");
        let done = repair(&disk, true, 3).unwrap();
        assert!(done.done);
        assert_eq!(done.end, plan.end);
        check(&disk, event, &format!("event {event}"));
        // What was cut is kept: as a tail, or under another name.
        let kept = disk.files();
        let tail = kept
            .iter()
            .find(|it| it.extension().is_some_and(|it| it == "tail"));
        assert_eq!(tail.is_some(), within);
        if let Some(tail) = tail {
            let (tail, from) = (disk.contents(tail), usize::try_from(byte).unwrap());
            assert_eq!(before.contents(&path)[from..][..tail.len()], tail);
        }
        for lost in &done.segments {
            let lost = Path::new("/db/tenants/t/log").join(lost);
            let aside = PathBuf::from(format!("{}.lost", lost.display()));
            assert_eq!(disk.contents(aside), before.contents(lost));
        }
        let again = repair(&disk, true, 4).unwrap();
        assert!(again.problems.is_empty() && !again.done, "{again:?}");
    }
}

#[test]
fn a_rolled_back_log_goes_on_under_a_new_name_and_says_what_is_lost() {
    let disk = written();
    let names = segments(&disk);
    let last = names.last().unwrap();
    disk.remove(last).unwrap();
    let closed = &names[names.len() - 2];
    disk.remove(&closed.with_extension("seal")).unwrap();
    let opened = builder(&disk, 2).open().unwrap().tenant("t").map(drop);
    assert_eq!(opened.unwrap_err().kind(), ErrorKind::RolledBack);
    let done = repair(&disk, true, 3).unwrap();
    assert!(done.done && done.known_end > done.end && done.checkpoints.len() == 1);
    let events = contents(&builder(&disk, 4).read_only(true).open().unwrap(), "t").len();
    let tenant = check(&disk, events, "rolled back");
    assert!(kinds(&tenant).contains(&RecordKind::Recovery));
}

#[test]
fn a_segment_that_is_gone_or_has_no_header_ends_the_log_before_it() {
    for gone in [false, true] {
        let disk = written();
        let names = segments(&disk);
        assert!(names.len() >= 3, "{names:?}");
        if gone {
            disk.remove(&names[1]).unwrap();
        } else {
            disk.flip(&names[1], 20, 1);
        }
        let done = repair(&disk, true, 3).unwrap();
        assert!(done.done, "{done:?}");
        let events = contents(&builder(&disk, 4).read_only(true).open().unwrap(), "t").len();
        check(&disk, events, &format!("gone: {gone}"));
    }
}

#[test]
fn a_log_without_its_beginning_cannot_be_repaired() {
    let disk = written();
    disk.flip(&segments(&disk)[0], 20, 1);
    assert_eq!(
        repair(&disk, true, 2).unwrap_err().kind(),
        ErrorKind::Corrupt
    );
    disk.remove(&segments(&disk)[0]).unwrap();
    assert_eq!(
        repair(&disk, true, 2).unwrap_err().kind(),
        ErrorKind::RolledBack
    );
}

#[test]
fn a_sound_log_is_not_changed() {
    let disk = written();
    let before = disk.snapshot();
    let report = repair(&disk, true, 2).unwrap();
    assert!(report.problems.is_empty() && !report.done);
    for path in before.files().iter().filter(|path| !path.ends_with("LOCK")) {
        assert_eq!(
            before.contents(path),
            disk.contents(path),
            "{}",
            path.display()
        );
    }
}

#[test]
fn a_repair_that_is_cut_short_anywhere_goes_on() {
    let rolled_back = |disk: &SimulatedDisk| {
        let names = segments(disk);
        disk.remove(names.last().unwrap()).unwrap();
        let closed = &names[names.len() - 2];
        disk.remove(&closed.with_extension("seal")).unwrap();
    };
    let damaged = |disk: &SimulatedDisk| {
        let (_, segment, byte) = position_of(disk, 3);
        disk.flip(Path::new("/db/tenants/t/log").join(segment), byte + 50, 1);
    };
    let faults: [&dyn Fn(&SimulatedDisk); 2] = [&rolled_back, &damaged];
    for (case, fault) in faults.into_iter().enumerate() {
        let whole = written_with([100, 240_000, 100, 240_000, 100, 100]).snapshot();
        fault(&whole);
        let whole = whole.snapshot();
        let before = whole.ops();
        let events = {
            repair(&whole, true, 3).unwrap();
            contents(&builder(&whole, 4).read_only(true).open().unwrap(), "t").len()
        };
        let mut cut_short = 0;
        for op in before + 1..=whole.ops() {
            let disk = written_with([100, 240_000, 100, 240_000, 100, 100]).snapshot();
            fault(&disk);
            let disk = disk.snapshot();
            disk.crash_after(op);
            cut_short += u32::from(repair(&disk, true, 3).is_err());
            for mode in [
                CrashMode::LoseUnsynced,
                CrashMode::KeepUnsynced,
                CrashMode::Mixed(op),
            ] {
                let disk = disk.crash(mode);
                let what = format!("case {case}, op {op}, {mode:?}");
                let again = repair(&disk, true, 5);
                again.unwrap_or_else(|error| panic!("{what}: {error}"));
                let tenant = check(&disk, events, &what);
                let kinds = kinds(&tenant);
                let recoveries = kinds.iter().filter(|kind| **kind == RecordKind::Recovery);
                assert!((1..=2).contains(&recoveries.count()), "{what}");
            }
        }
        assert!(cut_short > 15, "{cut_short} repairs were cut short");
    }
}
