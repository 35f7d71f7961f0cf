//! Repairs: they lose no more than they say, keep what they cut, never sign a lost history's name, and
//! go on from wherever they were cut short.

use std::path::{Path, PathBuf};

use kimberlite::{
    DatabaseBuilder, Error, ErrorKind, ExpectedVersion, Position, PurgeOptions, RecordKind,
    RepairOptions, RepairReport, Tenant,
};
use kimberlite_disk::{Access, Disk};
use kimberlite_testkit::{CrashMode, SimulatedDisk};

use crate::support::{builder, contents, event, kinds};

/// A log of two closed segments and an active one, of six events, with two checkpoints.
fn written() -> SimulatedDisk {
    written_with([100, 240_000, 100, 1_000_000, 100, 240_000])
}

fn written_with(bytes: [usize; 6]) -> SimulatedDisk {
    written_by(bytes, |builder| builder)
}

fn written_by(bytes: [usize; 6], options: fn(DatabaseBuilder) -> DatabaseBuilder) -> SimulatedDisk {
    let disk = SimulatedDisk::new(1);
    let db = options(builder(&disk, 1)).open().unwrap();
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

/// A byte of a frame header, and one of the payload of a frame of one record.
const HEADER: u64 = 50;
const PAYLOAD: u64 = 112 + 8 + 20;

fn recoveries(tenant: &Tenant) -> usize {
    let kinds = kinds(tenant).into_iter();
    kinds.filter(|kind| *kind == RecordKind::Recovery).count()
}

fn kept(disk: &SimulatedDisk, ending: &str) -> Vec<PathBuf> {
    let mut files = disk.files();
    files.retain(|path| path.extension().is_some_and(|it| it == ending));
    files
}

/// Removes the active segment.
fn roll_back(disk: &SimulatedDisk) {
    let names = segments(disk);
    disk.remove(names.last().unwrap()).unwrap();
    let closed = &names[names.len() - 2];
    disk.remove(&closed.with_extension("seal")).unwrap();
}

#[test]
fn damage_in_the_middle_takes_what_stands_behind_it_and_keeps_its_bytes() {
    for (event, within) in (1..6).flat_map(|event| [(event, HEADER), (event, PAYLOAD)]) {
        let disk = written();
        let (position, segment, byte) = position_of(&disk, event);
        let path = Path::new("/db/tenants/t/log").join(&segment);
        disk.flip(&path, byte + within, 1);
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
        let tenant = check(&disk, event, &format!("event {event}"));
        assert_eq!(recoveries(&tenant), 1, "event {event}");
        drop(tenant);
        // What was cut is kept: as a copy, or under another name.
        let copies = kept(&disk, "cut");
        assert_eq!(copies.len(), usize::from(within));
        if let Some(tail) = copies.first() {
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
    roll_back(&disk);
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

const SMALL: [usize; 6] = [100, 240_000, 100, 240_000, 100, 100];

fn small() -> SimulatedDisk {
    written_with(SMALL).snapshot()
}

/// With a snapshot of the whole log.
fn with_snapshot() -> SimulatedDisk {
    let disk = written_by(SMALL, |builder| builder.snapshot_growth_min(1));
    let db = builder(&disk, 2).read_only(true).open().unwrap();
    let tenant = db.existing_tenant("t").unwrap();
    assert!(tenant.open_report().snapshot.is_some());
    disk.snapshot()
}

fn rot(disk: &SimulatedDisk, event: usize, within: u64) {
    let (_, segment, byte) = position_of(disk, event);
    let path = Path::new("/db/tenants/t/log").join(segment);
    disk.flip(path, byte + within, 1);
}

type Case = (fn() -> SimulatedDisk, fn(&SimulatedDisk));

/// Logs, and what befalls them: in the active segment, and in the sealed one.
const CASES: [Case; 4] = [
    (small, roll_back),
    (small, |disk| rot(disk, 3, HEADER)),
    (small, |disk| rot(disk, 1, PAYLOAD)),
    (with_snapshot, |disk| rot(disk, 1, PAYLOAD)),
];

fn fallen((written, fault): Case) -> SimulatedDisk {
    let disk = written();
    fault(&disk);
    disk.snapshot()
}

#[test]
fn a_repair_that_is_cut_short_anywhere_goes_on() {
    for (number, case) in CASES.into_iter().enumerate() {
        let whole = fallen(case);
        let before = whole.ops();
        let events = {
            repair(&whole, true, 3).unwrap();
            contents(&builder(&whole, 4).read_only(true).open().unwrap(), "t").len()
        };
        let mut cut_short = 0;
        for op in before + 1..=whole.ops() {
            let disk = fallen(case);
            disk.crash_after(op);
            cut_short += u32::from(repair(&disk, true, 3).is_err());
            for mode in [
                CrashMode::LoseUnsynced,
                CrashMode::KeepUnsynced,
                CrashMode::Mixed(op),
            ] {
                let disk = disk.crash(mode);
                let what = format!("case {number}, op {op}, {mode:?}");
                let reader = builder(&disk, 6).read_only(true).open().unwrap();
                let reader = reader.existing_tenant("t");
                drop(reader.unwrap_or_else(|error| panic!("{what}: {error}")));
                let plan = repair(&disk, false, 7).unwrap();
                let again = repair(&disk, true, 5);
                let again = again.unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(plan.problems.is_empty(), !again.done, "{what}");
                let tenant = check(&disk, events, &what);
                // The record of the repair itself may be cut off unfinished, which another tells.
                let torn = usize::from(!kept(&disk, "tail").is_empty());
                assert_eq!(recoveries(&tenant), 1 + torn, "{what}");
            }
        }
        assert!(cut_short > 15, "{cut_short} repairs were cut short");
    }
}

#[test]
fn notes_that_a_plain_opening_left_behind_a_cut_are_set_aside() {
    let whole = fallen(CASES[1]);
    let before = whole.ops();
    repair(&whole, true, 3).unwrap();
    let mut left_over = 0;
    for op in before + 1..=whole.ops() {
        let disk = fallen(CASES[1]);
        disk.crash_after(op);
        drop(repair(&disk, true, 3));
        let disk = disk.crash(CrashMode::KeepUnsynced);
        let opened = builder(&disk, 4).open().unwrap().tenant("t").map(drop);
        let sound = opened.is_ok() && {
            let db = builder(&disk, 5).read_only(true).open().unwrap();
            db.existing_tenant("t")
                .unwrap()
                .verify()
                .unwrap()
                .is_sound()
        };
        let done = repair(&disk, true, 6).unwrap();
        assert_eq!(done.done, !sound, "op {op}: {:?}", done.problems);
        if opened.is_ok() && !sound {
            left_over += 1;
            assert_eq!(done.known_end, done.end, "op {op}");
        }
        check(&disk, 3, &format!("op {op}"));
    }
    assert!(left_over > 0);
}

#[test]
fn a_log_whose_incarnation_record_rotted_is_read_and_repaired_under_a_new_name() {
    let disk = written();
    roll_back(&disk);
    let first = repair(&disk, true, 3).unwrap();
    let db = builder(&disk, 4).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    let stream = tenant.stream("s").unwrap();
    for _ in 0..6 {
        let event = event(&"x".repeat(1_000_000));
        stream.append(ExpectedVersion::Any, &[event]).unwrap();
    }
    let (byte, header) = tenant.frame(first.end).unwrap().unwrap();
    assert_eq!(header.kind, Some(RecordKind::Recovery));
    drop((tenant, stream));
    db.close().unwrap();
    let names = segments(&disk);
    let name = |position: Position| format!("{:020}.seg", position.get());
    let of = names.iter().rfind(|path| {
        let file = path.file_name().unwrap().to_str().unwrap();
        *file <= *name(first.end)
    });
    let of = of.unwrap();
    assert!(
        of.with_extension("seal")
            .to_str()
            .is_some_and(|it| disk.files().iter().any(|path| path.to_str() == Some(it)))
    );
    disk.flip(of, byte + PAYLOAD, 1);
    let db = builder(&disk, 5).read_only(true).open().unwrap();
    let report = db.existing_tenant("t").unwrap().verify().unwrap();
    assert_eq!(report.findings[0].position, Some(first.end));
    drop(db);
    let done = repair(&disk, true, 6).unwrap();
    assert_eq!(done.end, first.end);
    // The second incarnation has signed for records that are lost now.
    assert!(
        done.origin
            .unwrap()
            .rsplit('/')
            .next()
            .unwrap()
            .starts_with("3-")
    );
    let db = builder(&disk, 7).open().unwrap();
    assert!(db.tenant("t").unwrap().verify().unwrap().is_sound());
}

#[test]
fn what_a_segment_has_beyond_its_length_is_cut_and_kept() {
    for number in 0..segments(&written()).len() {
        let disk = written();
        let path = &segments(&disk)[number];
        let whole = disk.contents(path);
        let surplus = [7; 5000];
        let longer = [whole.as_slice(), &surplus].concat();
        disk.write_new_atomic(path, &longer, Access::Shared)
            .unwrap();
        let done = repair(&disk, true, 3).unwrap();
        assert!(done.done && done.known_end == done.end, "{done:?}");
        assert_eq!(disk.contents(path).len(), whole.len());
        check(&disk, 6, &format!("segment {number}"));
        let copies = kept(&disk, "cut");
        assert_eq!(copies.len(), 1);
        assert_eq!(disk.contents(&copies[0]), surplus);
    }
}

#[test]
fn a_log_that_was_purged_is_diagnosed_and_repaired_like_any_other() {
    let disk = written();
    let until = Position::new(position_of(&disk, 3).0);
    {
        let db = builder(&disk, 2).open().unwrap();
        let tenant = db.existing_tenant("t").unwrap();
        let options = PurgeOptions::new(until);
        let outcome = tenant.purge(&options, &mut |_| ()).unwrap().outcome;
        assert_eq!((outcome.events, outcome.segments_rewritten), (3, 1));
        drop(tenant);
        db.close().unwrap();
    }
    assert_eq!(builder(&disk, 3).diagnose().unwrap().worst(), None);
    assert!(repair(&disk, true, 4).unwrap().problems.is_empty());
    // The digest of the third event, which stands in a segment without space behind its frames.
    let (position, segment, byte) = {
        let db = builder(&disk, 5).read_only(true).open().unwrap();
        let tenant = db.existing_tenant("t").unwrap();
        let position = Position::new(until.get() - 1);
        let (byte, header) = tenant.frame(position).unwrap().unwrap();
        assert!(header.purged);
        let inspection = tenant.inspect().unwrap();
        let segments = inspection.segments.iter();
        let of = segments.rev().find(|segment| segment.base <= position);
        (position, of.unwrap().name.clone(), byte)
    };
    let path = Path::new("/db/tenants/t/log").join(segment);
    disk.flip(&path, byte + 112 + 8 + 3, 1);
    let told = repair(&disk, false, 6).unwrap();
    assert_eq!(told.end, position);
    assert!(!told.problems.is_empty());
    assert!(repair(&disk, true, 7).unwrap().done);
    let db = builder(&disk, 8).open().unwrap();
    let tenant = db.existing_tenant("t").unwrap();
    let stream = tenant.stream("s").unwrap();
    let event = event(&"y".repeat(300_000));
    stream.append(ExpectedVersion::Any, &[event]).unwrap();
    let purged = tenant.read_all(..).filter(Result::is_err).count();
    assert_eq!(purged, 2, "those before the one that was damaged");
    assert_eq!(tenant.read_all(..).flatten().count(), 1);
    assert!(tenant.verify().unwrap().is_sound());
}
