//! Legal holds, rules of retention, purges: what they stop, what they leave, and what a crash leaves.

use std::path::Path;

use kimberlite::{
    BackupOptions, Database, Encryption, ErrorKind, ExpectedVersion, HoldId, Position,
    PurgeOptions, PurgeReport, ReadMode, RecordKind, RestoreOptions, Retention, Tenant,
};
use kimberlite_testkit::{CrashMode, SimulatedDisk};

use crate::support::{TickingClock, builder, event, kinds, open_at};

const HOUR_NS: u64 = 3600 * 1_000_000_000;

fn append(tenant: &Tenant, stream: &str, text: &str) -> Position {
    let stream = tenant.stream(stream).unwrap();
    let receipt = stream.append(ExpectedVersion::Any, &[event(text)]).unwrap();
    receipt.first_position()
}

fn purge(tenant: &Tenant, until: Position) -> Result<PurgeReport, kimberlite::Error> {
    tenant.purge(&PurgeOptions::new(until), &mut |_| ())
}

/// What reading each event gives: its data, or none where it was purged.
fn read(tenant: &Tenant) -> Vec<Option<String>> {
    let data = |record: Result<kimberlite::Record, kimberlite::Error>| match record {
        Ok(record) => Some(String::from_utf8(record.data().to_vec()).unwrap()),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Purged, "{error}");
            None
        }
    };
    tenant.read_all(..).map(data).collect()
}

fn some(texts: &[Option<&str>]) -> Vec<Option<String>> {
    let owned = texts.iter().map(|text| text.map(str::to_owned));
    owned.collect()
}

fn end(tenant: &Tenant) -> Position {
    tenant.durable_position()
}

#[test]
fn purged_events_are_gone_for_good_and_everything_verifies() {
    for encryption in [
        Encryption::On,
        Encryption::WithoutCommitment,
        Encryption::Off,
    ] {
        let disk = SimulatedDisk::new(1);
        let db = builder(&disk, 1).encryption(encryption).open().unwrap();
        let tenant = db.tenant("t").unwrap();
        append(&tenant, "a", "the first secret");
        append(&tenant, "b", "of another");
        tenant.checkpoint().unwrap();
        let second = append(&tenant, "a", "the second secret");
        let third = append(&tenant, "a", "what stays");
        let stream = tenant.stream("a").unwrap();

        let options = PurgeOptions::new(third).stream("a");
        let told = tenant.purge(&options.clone().dry_run(true), &mut |_| ());
        assert_eq!(told.unwrap().outcome.events_left, 2);
        assert_eq!(read(&tenant).iter().flatten().count(), 4);
        let mut steps = 0;
        let report = tenant.purge(&options, &mut |_| steps += 1).unwrap();
        assert_eq!((report.until, report.outcome.events), (third, 2));
        assert!(report.outcome.bytes_freed > 200 << 10 && steps == 1);
        let expected = some(&[None, Some("of another"), None, Some("what stays")]);
        assert_eq!(read(&tenant), expected);
        assert_eq!(stream.read(..).rev().count(), 3);
        assert_eq!(stream.len().unwrap(), 3);
        let error = tenant.read_position(second).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Purged);
        assert!(error.to_string().contains(&second.to_string()), "{error}");
        for path in disk.files() {
            let bytes = disk.contents(&path);
            let secret = bytes.windows(6).any(|window| window == b"secret");
            assert!(!secret, "{}", path.display());
        }
        assert_eq!(tenant.verify().unwrap().findings.len(), 0);
        tenant.checkpoint().unwrap();
        // Streams go on, and so does the log when it is opened again.
        append(&tenant, "a", "new");
        drop((stream, tenant));
        db.close().unwrap();
        let db = builder(&disk, 2).encryption(encryption).open().unwrap();
        let tenant = db.existing_tenant("t").unwrap();
        let expected = [expected, some(&[Some("new")])].concat();
        assert_eq!(read(&tenant), expected);
        assert_eq!(tenant.verify().unwrap().findings.len(), 0);
        let observer = builder(&disk, 3).read_only(true).open().unwrap();
        let observer = observer.existing_tenant("t").unwrap();
        assert_eq!(read(&observer), expected);
        assert_eq!(observer.verify().unwrap().findings.len(), 0);
    }
}

#[test]
fn a_hold_is_read_back_stops_purges_of_what_it_covers_and_outlives_reopening() {
    let disk = SimulatedDisk::new(2);
    let db = builder(&disk, 1).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    append(&tenant, "a", "1");
    append(&tenant, "b", "2");
    let hold = tenant.stream("a").unwrap().hold("case 17").unwrap();
    let all = tenant.hold("court order").unwrap();
    let holds = tenant.holds().unwrap();
    let a = tenant.streams().unwrap()[0].id;
    let told = holds
        .iter()
        .map(|it| (it.id, it.stream, it.reason.as_str()));
    let expected = [(hold, Some(a), "case 17"), (all, None, "court order")];
    assert_eq!(told.collect::<Vec<_>>(), expected);
    for path in disk.files() {
        let bytes = disk.contents(&path);
        assert!(!bytes.windows(7).any(|window| window == b"case 17"));
    }
    tenant.checkpoint().unwrap();
    drop(tenant);
    db.close().unwrap();

    let db = builder(&disk, 2).open().unwrap();
    let tenant = db.existing_tenant("t").unwrap();
    assert_eq!(tenant.holds().unwrap(), holds);
    let refused = purge(&tenant, end(&tenant)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Rejected);
    assert!(refused.to_string().contains("case") || refused.to_string().contains("hold"));
    tenant.release(all, "settled").unwrap();
    let other = PurgeOptions::new(end(&tenant)).stream("b");
    assert_eq!(tenant.purge(&other, &mut |_| ()).unwrap().outcome.events, 1);
    assert!(purge(&tenant, end(&tenant)).is_err());
    assert_eq!(read(&tenant), some(&[Some("1"), None]));
    tenant.release(hold, "closed").unwrap();
    let again = tenant.release(hold, "closed").unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Rejected);
    assert_eq!(purge(&tenant, end(&tenant)).unwrap().outcome.events, 1);
    assert_eq!(tenant.holds().unwrap(), []);
    let kinds = kinds(&tenant);
    let count = |kind| kinds.iter().filter(|&&it| it == kind).count();
    let counts = [RecordKind::Hold, RecordKind::Release, RecordKind::Purge].map(count);
    assert_eq!(counts, [2, 2, 2]);
    assert_eq!(tenant.verify().unwrap().findings.len(), 0);
}

#[test]
fn a_rule_is_met_by_the_log_and_not_by_the_clock_of_the_purge() {
    let disk = SimulatedDisk::new(3);
    let clock = TickingClock::new();
    let now = |hours: u64| 1_700_000_000_000_000_000 + hours * HOUR_NS;
    let db = builder(&disk, 1).clock(clock.clone()).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    append(&tenant, "a", "1");
    append(&tenant, "b", "2");
    let rule = |hours, records| {
        Some(Retention {
            age_ns: hours * HOUR_NS,
            records,
        })
    };
    tenant.retain(rule(5, 0)).unwrap();
    let until = end(&tenant);
    clock.set(now(9));
    let refused = purge(&tenant, until).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Rejected);
    assert!(refused.to_string().contains("18000 s"), "{refused}");
    append(&tenant, "b", "3");
    tenant.stream("a").unwrap().retain(rule(0, 100)).unwrap();
    assert!(purge(&tenant, until).is_err(), "the stream's own rule");
    let b = PurgeOptions::new(until).stream("b");
    assert_eq!(tenant.purge(&b, &mut |_| ()).unwrap().outcome.events, 1);
    tenant.stream("a").unwrap().retain(None).unwrap();
    assert_eq!(purge(&tenant, until).unwrap().outcome.events, 1);
    assert_eq!(read(&tenant), some(&[None, None, Some("3")]));
}

#[test]
fn a_frame_is_purged_as_a_whole_or_not_at_all() {
    let disk = SimulatedDisk::new(4);
    let db = builder(&disk, 1).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    let stream = tenant.stream("a").unwrap();
    let events = ["1", "2", "3"].map(event);
    let first = stream.append(ExpectedVersion::Any, &events).unwrap();
    let inside = first.last_position();
    let report = purge(&tenant, inside).unwrap();
    assert_eq!(report.until, first.first_position());
    assert_eq!(report.outcome.events, 0);
    let report = purge(&tenant, end(&tenant)).unwrap();
    assert_eq!(report.outcome.events, 3);
}

#[test]
fn what_cannot_be_asked_for_is_refused() {
    let disk = SimulatedDisk::new(5);
    let db = builder(&disk, 1).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    append(&tenant, "a", "1");
    let none = tenant.stream("none").unwrap();
    assert_eq!(none.hold("x").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(none.retain(None).unwrap_err().kind(), ErrorKind::NotFound);
    let long = "x".repeat(4097);
    assert_eq!(
        tenant.hold(&long).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    let beyond = Position::new(end(&tenant).get() + 1);
    assert_eq!(
        purge(&tenant, beyond).unwrap_err().kind(),
        ErrorKind::Rejected
    );
    let unknown = HoldId::new(Position::new(1));
    let refused = tenant.release(unknown, "x").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Rejected);
    drop(tenant);
    db.close().unwrap();
    let db = builder(&disk, 2).read_only(true).open().unwrap();
    let tenant = db.existing_tenant("t").unwrap();
    assert_eq!(tenant.hold("x").unwrap_err().kind(), ErrorKind::ReadOnly);
    assert_eq!(
        purge(&tenant, Position::new(3)).unwrap_err().kind(),
        ErrorKind::ReadOnly
    );
    assert_eq!(tenant.holds().unwrap(), []);
}

/// Two streams, a checkpoint; then a purge, a hold on one stream, and another purge.
fn act(disk: &SimulatedDisk) -> Result<(), kimberlite::Error> {
    let db = builder(disk, 2).open()?;
    let tenant = db.existing_tenant("t")?;
    purge(&tenant, end(&tenant))?;
    tenant.stream("a")?.hold("case 17")?;
    let stream = tenant.stream("b")?;
    stream.append(ExpectedVersion::Any, &[event("5")])?;
    let options = PurgeOptions::new(end(&tenant)).stream("b");
    tenant.purge(&options, &mut |_| ())?;
    tenant.checkpoint()?;
    Ok(())
}

#[test]
fn a_crash_at_any_operation_leaves_a_log_that_verifies_and_a_purge_that_completes() {
    let base = SimulatedDisk::new(6);
    {
        let db = builder(&base, 1).open().unwrap();
        let tenant = db.tenant("t").unwrap();
        for (stream, text) in [("a", "1"), ("b", "2"), ("a", "3")] {
            append(&tenant, stream, text);
        }
        tenant.checkpoint().unwrap();
        append(&tenant, "b", "4");
        drop(tenant);
        db.close().unwrap();
    }
    let counted = base.twin();
    act(&counted).unwrap();
    let (mut completed, mut whole) = (0, 0);
    for op in 1..=counted.ops() {
        let disk = base.twin();
        disk.crash_after(op);
        let _ = act(&disk);
        for mode in [
            CrashMode::LoseUnsynced,
            CrashMode::KeepUnsynced,
            CrashMode::Mixed(op),
        ] {
            let why = format!("crash in operation {op}, {mode:?}");
            let found = disk.crash(mode);
            let db = builder(&found, 3 + op).open();
            let db = db.unwrap_or_else(|error| panic!("{why}: {error}"));
            let tenant = db.existing_tenant("t").unwrap();
            let findings = tenant.verify().unwrap().findings;
            assert!(findings.is_empty(), "{why}: {findings:?}");
            let ordered = kinds(&tenant).contains(&RecordKind::Purge);
            let before = read(&tenant);
            whole += u64::from(before.iter().all(Option::is_some));
            // Nothing is removed before its purge is in the log.
            assert!(ordered || before.iter().all(Option::is_some), "{why}");
            // One that asks for nothing more completes those that are in the log.
            let none = PurgeOptions::new(Position::ZERO);
            let report = tenant.purge(&none, &mut |_| ()).unwrap();
            assert_eq!(report.record, None);
            completed += report.outcome.events;
            let after = read(&tenant);
            let held = tenant.holds().unwrap().len() == 1;
            if ordered && !held {
                assert!(after.iter().take(4).all(Option::is_none), "{why}");
            }
            let findings = tenant.verify().unwrap().findings;
            assert!(findings.is_empty(), "{why}: {findings:?}");
        }
    }
    assert!(completed > 10 && whole > 10, "{completed}, {whole}");
}

#[test]
fn a_hold_that_comes_after_a_purge_was_cut_short_keeps_what_is_left() {
    let base = SimulatedDisk::new(7);
    {
        let db = builder(&base, 1).open().unwrap();
        let tenant = db.tenant("t").unwrap();
        append(&tenant, "a", "1");
        append(&tenant, "b", "2");
        drop(tenant);
        db.close().unwrap();
    }
    let mut kept = 0;
    for op in 1..40 {
        let disk = base.twin();
        disk.fail_write_at(op);
        let cut = builder(&disk, 2).open().and_then(|db| {
            let tenant = db.existing_tenant("t")?;
            purge(&tenant, end(&tenant))
        });
        let disk = disk.process_kill();
        if cut.is_ok() {
            continue;
        }
        let db = builder(&disk, 3).open().unwrap();
        let tenant = db.existing_tenant("t").unwrap();
        let was_left = read(&tenant)[0].is_some();
        let ordered = kinds(&tenant).contains(&RecordKind::Purge);
        tenant.stream("a").unwrap().hold("case 17").unwrap();
        let none = PurgeOptions::new(Position::ZERO);
        tenant.purge(&none, &mut |_| ()).unwrap();
        let after = read(&tenant);
        assert_eq!(after[0].is_some(), was_left);
        assert_eq!(after[1].is_none(), ordered);
        kept += u64::from(ordered && was_left);
    }
    assert!(kept > 0);
}

#[test]
fn segments_that_nobody_has_opened_yet_may_be_purged_meanwhile() {
    for read_mode in [ReadMode::Mapped, ReadMode::Copied] {
        check_segments_unopened(read_mode);
    }
}

fn check_segments_unopened(read_mode: ReadMode) {
    let disk = SimulatedDisk::new(8);
    let open = |seed| {
        let builder = builder(&disk, seed).snapshot_growth_min(0);
        builder.read_mode(read_mode).tail_bytes_max(0)
    };
    let db = open(1).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    let large = "x".repeat(200 << 10);
    for n in 0..6 {
        append(&tenant, "a", &format!("{n}{large}"));
    }
    tenant.checkpoint().unwrap();
    drop(tenant);
    db.close().unwrap();
    let db = open(2).open().unwrap();
    let tenant = db.existing_tenant("t").unwrap();
    assert!(tenant.open_report().snapshot.is_some());
    let observers = [4, 5].map(|seed| open(seed).read_only(true).open().unwrap());
    let observers = observers.map(|db| db.existing_tenant("t").unwrap());
    assert!(observers[0].open_report().snapshot.is_some());
    // One of them has read the old files, the other has opened none.
    assert!(read(&observers[0]).iter().all(Option::is_some));
    let used = disk.used_bytes();
    let report = purge(&tenant, end(&tenant)).unwrap();
    assert_eq!((report.outcome.events, report.outcome.events_left), (6, 0));
    // What was freed, less the segment that was begun.
    assert!(disk.used_bytes() < used - (200 << 10));
    // What an observer has opened it keeps: the first one all, the other the segment that was appended
    // to when it came, which holds all events but the first.
    assert!(read(&observers[0]).iter().all(Option::is_some));
    let by_other = read(&observers[1]);
    assert!(by_other[0].is_none() && by_other[1..].iter().all(Option::is_some));
    for tenant in observers {
        assert_eq!(tenant.verify().unwrap().findings, []);
    }
    drop(tenant);
    db.close().unwrap();
    let db = open(3).open().unwrap();
    let tenant = db.existing_tenant("t").unwrap();
    assert!(read(&tenant).iter().all(Option::is_none));
    assert_eq!(tenant.verify().unwrap().findings, []);
}

#[test]
fn what_is_rolled_to_behind_a_purge_survives_a_crash_at_any_operation() {
    // The purge closes the segment, and the second append the small one that it began.
    fn run(disk: &SimulatedDisk, acknowledged: &mut usize) -> Result<(), kimberlite::Error> {
        let db = builder(disk, 1).open()?;
        let tenant = db.tenant("t")?;
        let stream = tenant.stream("a")?;
        let mut append = |text: &str| -> Result<(), kimberlite::Error> {
            stream.append(ExpectedVersion::Any, &[event(text)])?;
            *acknowledged += 1;
            Ok(())
        };
        append("secret")?;
        tenant.purge(&PurgeOptions::new(end(&tenant)), &mut |_| ())?;
        append("small")?;
        append(&"x".repeat(300 << 10))?;
        append("last")
    }
    let (whole, mut all) = (SimulatedDisk::new(1), 0);
    run(&whole, &mut all).unwrap();
    let purged = (1..=whole.ops()).find(|op| {
        let (disk, mut acknowledged) = (SimulatedDisk::new(1), 0);
        disk.crash_after(*op);
        run(&disk, &mut acknowledged).is_err() && acknowledged == 1
    });
    for op in purged.unwrap()..=whole.ops() {
        let (disk, mut acknowledged) = (SimulatedDisk::new(1), 0);
        disk.crash_after(op);
        let _ = run(&disk, &mut acknowledged);
        let modes = [CrashMode::LoseUnsynced, CrashMode::KeepUnsynced];
        let mixed = (0..3).map(|seed| CrashMode::Mixed(op << 4 | seed));
        for mode in modes.into_iter().chain(mixed) {
            let disk = disk.crash(mode);
            let db = builder(&disk, 2).open().unwrap();
            let tenant = db.tenant("t").unwrap();
            let found = read(&tenant);
            let what = format!("op {op}, {mode:?}");
            assert!(found.len() >= acknowledged, "{what}: {}", found.len());
            assert!(acknowledged < 2 || found[0].is_none(), "{what}");
            assert_eq!(tenant.verify().unwrap().findings, [], "{what}");
            append(&tenant, "a", "it goes on");
        }
    }
}

#[test]
fn the_next_backup_has_no_payload_of_what_was_purged() {
    let disk = SimulatedDisk::new(9);
    let db = builder(&disk, 1).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    append(&tenant, "a", "1");
    let until = append(&tenant, "a", "2");
    back_up(&db).unwrap();
    purge(&tenant, until).unwrap();
    append(&tenant, "a", "3");
    back_up(&db).unwrap();
    let copy = open_at(&disk, "/backup", 3).read_only(true).open().unwrap();
    let copy = copy.existing_tenant("t").unwrap();
    assert_eq!(read(&copy), some(&[None, Some("2"), Some("3")]));
    assert_eq!(copy.verify().unwrap().findings, []);
}

/// A backup that holds payloads, and a purge of them since.
fn backed_up_and_purged() -> (SimulatedDisk, Database) {
    let disk = SimulatedDisk::new(9);
    let db = builder(&disk, 1).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    append(&tenant, "a", "1");
    let until = append(&tenant, "a", "2");
    back_up(&db).unwrap();
    purge(&tenant, until).unwrap();
    drop(tenant);
    (disk, db)
}

fn back_up(db: &Database) -> Result<(), kimberlite::Error> {
    let options = BackupOptions::new().with_root_key(true);
    db.backup(Path::new("/backup"), &options, &mut |_| {})
        .map(drop)
}

#[test]
fn a_backup_after_a_purge_that_is_cut_short_is_restored_as_a_whole_or_refused() {
    let (whole, db) = backed_up_and_purged();
    let before = whole.ops();
    back_up(&db).unwrap();
    let (mut old, mut new, mut refused) = (0, 0, 0);
    for op in before + 1..=whole.ops() {
        let (disk, db) = backed_up_and_purged();
        disk.crash_after(op);
        let _ = back_up(&db);
        drop(db);
        for mode in [CrashMode::LoseUnsynced, CrashMode::Mixed(op)] {
            let disk = disk.crash(mode);
            let restore = |to: &str| {
                let options = RestoreOptions::new();
                let new = open_at(&disk, to, 3);
                new.restore(Path::new("/backup"), &options, &mut |_| {})?;
                let db = open_at(&disk, to, 4).open()?;
                Ok::<_, kimberlite::Error>(read(&db.tenant("t")?))
            };
            match restore("/first") {
                Ok(events) if events == some(&[Some("1"), Some("2")]) => old += 1,
                Ok(events) => {
                    assert_eq!(events, some(&[None, Some("2")]), "op {op}, {mode:?}");
                    new += 1;
                }
                Err(error) => {
                    assert_eq!(
                        error.kind(),
                        ErrorKind::Corrupt,
                        "op {op}, {mode:?}: {error}"
                    );
                    refused += 1;
                }
            }
            let db = builder(&disk, 5).open().unwrap();
            back_up(&db).unwrap();
            let restored = restore("/second").unwrap();
            assert_eq!(restored, some(&[None, Some("2")]), "op {op}, {mode:?}");
        }
    }
    assert!(old > 0 && new > 0 && refused > 0, "{old}, {new}, {refused}");
}

#[test]
fn a_restore_of_an_older_backup_brings_payloads_back_and_they_are_purged_again() {
    let (disk, db) = backed_up_and_purged();
    drop(db);
    let to = |seed| open_at(&disk, "/restored", seed);
    let options = RestoreOptions::new();
    to(2)
        .restore(Path::new("/backup"), &options, &mut |_| {})
        .unwrap();
    let db = to(3).open().unwrap();
    let tenant = db.existing_tenant("t").unwrap();
    assert_eq!(read(&tenant), some(&[Some("1"), Some("2")]));
    purge(&tenant, end(&tenant)).unwrap();
    assert_eq!(read(&tenant), some(&[None, None]));
    assert_eq!(tenant.verify().unwrap().findings, []);
}

#[test]
fn others_append_and_read_while_segments_are_written_anew() {
    let disk = SimulatedDisk::new(10);
    let db = builder(&disk, 1).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    let large = "x".repeat(200 << 10);
    for n in 0..4 {
        append(&tenant, "a", &format!("{n}{large}"));
    }
    let until = end(&tenant);
    let mut appended = 0;
    let mut meanwhile = |_: &_| {
        let position = append(&tenant, "b", "meanwhile");
        let record = tenant.read_position(position).unwrap().unwrap();
        assert_eq!(record.data().as_ref(), b"meanwhile");
        appended += 1;
    };
    let report = tenant.purge(&PurgeOptions::new(until), &mut meanwhile);
    assert_eq!(report.unwrap().outcome.events, 4);
    assert!(appended > 1, "{appended} segments");
    let events = read(&tenant);
    assert!(events[..4].iter().all(Option::is_none));
    assert_eq!(events.iter().flatten().count(), appended);
    assert_eq!(tenant.verify().unwrap().findings, []);
}
