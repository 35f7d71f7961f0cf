//! Projections beside their log: they follow it, also over closings, crashes, purges and failures.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use kimberlite::projection::store::{Snapshot, WriteTransaction};
use kimberlite::projection::{ApplyError, Batch, Content, FollowerState, Projection, Table};
use kimberlite::{
    Database, Encryption, Error, ErrorKind, Event, ExpectedVersion, Position, Projected,
    PurgeOptions, Tenant,
};
use kimberlite_disk::Disk;
use kimberlite_testkit::{CrashMode, Rng, SimulatedDisk};

use crate::support::builder;

/// The newest event of each stream, how many events there were, and which were purged.
#[derive(Clone, Default)]
struct Newest {
    version: u32,
    fails: Arc<AtomicBool>,
    panics: Arc<AtomicBool>,
    applied: Arc<AtomicU64>,
    batches: Arc<AtomicU32>,
}

const NEWEST: Table<String, Vec<u8>> = Table::new(1);
const COUNTS: Table<String, u64> = Table::new(2);
const PURGED: Table<Position, ()> = Table::new(3);

impl Projection for Newest {
    type View = Snapshot;

    fn name(&self) -> &'static str {
        "newest"
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn apply(&self, batch: &Batch<'_>, write: &mut WriteTransaction<'_>) -> Result<(), ApplyError> {
        for event in batch.events() {
            match event.content {
                Content::Payload { data, .. } => NEWEST.put(write, event.stream, data)?,
                _ => PURGED.put(write, event.position, ())?,
            }
            let count = COUNTS.find_in(write, event.stream)?.unwrap_or_default();
            COUNTS.put(write, event.stream, count + 1)?;
        }
        if self.fails.load(Ordering::Relaxed) {
            return Err("it was told to".into());
        }
        assert!(!self.panics.load(Ordering::Relaxed), "it was told to");
        let events = u64::try_from(batch.events().len())?;
        self.applied.fetch_add(events, Ordering::Relaxed);
        self.batches.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

fn open(disk: &SimulatedDisk, background: bool) -> Database {
    Database::builder("/db")
        .disk(Arc::new(disk.clone()))
        .background(background)
        .open()
        .unwrap()
}

fn append(tenant: &Tenant, stream: &str, data: &str) -> Position {
    let stream = tenant.stream(stream).unwrap();
    let event = Event::new("t", data.to_owned());
    let receipt = stream.append(ExpectedVersion::Any, &[event]).unwrap();
    receipt.last_position()
}

fn newest(view: &Snapshot, stream: &str) -> Option<String> {
    let found = NEWEST.find(view, stream).unwrap();
    found.map(|data| String::from_utf8(data).unwrap())
}

/// All that there is, key by key.
fn answers(view: &Snapshot) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut cursor = view.cursor().unwrap();
    let mut answers = Vec::new();
    while let Some(entry) = cursor.next_entry().unwrap() {
        answers.push((entry.key.to_vec(), entry.value.to_vec()));
    }
    answers
}

/// What a projection that begins now makes of the log.
fn anew(tenant: &Tenant, at: Position) -> Vec<(Vec<u8>, Vec<u8>)> {
    struct Other(Newest);
    impl Projection for Other {
        type View = Snapshot;
        fn name(&self) -> &'static str {
            "other"
        }
        fn version(&self) -> u32 {
            self.0.version
        }
        fn apply(
            &self,
            batch: &Batch<'_>,
            write: &mut WriteTransaction<'_>,
        ) -> Result<(), ApplyError> {
            self.0.apply(batch, write)
        }
    }
    let other = tenant.project(Other(Newest::default())).unwrap();
    other.rebuild().unwrap();
    other.wait_for(at).unwrap();
    answers(&other.view())
}

#[test]
fn a_projection_follows_the_log_in_the_background() {
    let disk = SimulatedDisk::new(1);
    let db = open(&disk, true);
    let tenant = db.tenant("t").unwrap();
    append(&tenant, "a", "before");
    let projected = tenant.project(Newest::default()).unwrap();
    for number in 0..200 {
        let at = append(&tenant, "a", &number.to_string());
        if number % 20 == 0 {
            projected.wait_for(at).unwrap();
            assert_eq!(newest(&projected.view(), "a"), Some(number.to_string()));
        }
    }
    let last = append(&tenant, "b", "last");
    // Nobody waits: it comes by itself.
    while projected.status().applied <= last {
        std::thread::yield_now();
    }
    assert!(matches!(projected.status().state, FollowerState::Following));
    assert_eq!(COUNTS.find(&projected.view(), "a").unwrap(), Some(201));
}

#[test]
fn a_view_stays_as_it_is() {
    let disk = SimulatedDisk::new(1);
    let db = open(&disk, false);
    let tenant = db.tenant("t").unwrap();
    let projected = tenant.project(Newest::default()).unwrap();
    projected.wait_for(append(&tenant, "a", "1")).unwrap();
    let before = projected.view();
    projected.wait_for(append(&tenant, "a", "2")).unwrap();
    assert_eq!(newest(&before, "a").as_deref(), Some("1"));
    assert_eq!(newest(&projected.view(), "a").as_deref(), Some("2"));
}

#[test]
fn what_was_flushed_is_not_derived_again() {
    let disk = SimulatedDisk::new(1);
    let db = open(&disk, false);
    let tenant = db.tenant("t").unwrap();
    let first = Newest::default();
    let projected = tenant.project(first.clone()).unwrap();
    projected.wait_for(append(&tenant, "a", "1")).unwrap();
    drop(projected);
    let again = Newest::default();
    let projected = tenant.project(again.clone()).unwrap();
    assert_eq!(newest(&projected.view(), "a").as_deref(), Some("1"));
    projected.wait_for(append(&tenant, "a", "2")).unwrap();
    assert_eq!(again.applied.load(Ordering::Relaxed), 1);
    assert_eq!(COUNTS.find(&projected.view(), "a").unwrap(), Some(2));
}

#[test]
fn two_of_one_name_are_refused_until_the_first_is_gone() {
    let disk = SimulatedDisk::new(1);
    let db = open(&disk, false);
    let tenant = db.tenant("t").unwrap();
    let first = tenant.project(Newest::default()).unwrap();
    let second = tenant.project(Newest::default()).unwrap_err();
    assert_eq!(second.kind(), ErrorKind::InvalidInput);
    drop(first);
    tenant.project(Newest::default()).unwrap();
}

#[test]
fn another_version_derives_all_anew_beside_what_was_there() {
    let disk = SimulatedDisk::new(1);
    let db = open(&disk, false);
    let tenant = db.tenant("t").unwrap();
    let projected = tenant.project(Newest::default()).unwrap();
    let at = append(&tenant, "a", "1");
    projected.wait_for(at).unwrap();
    drop(projected);
    let second = Newest {
        version: 2,
        ..Newest::default()
    };
    let projected = tenant.project(second.clone()).unwrap();
    assert!(matches!(
        projected.status().state,
        FollowerState::Rebuilding
    ));
    let dir = "/db/tenants/t/projections/newest";
    assert_eq!(disk.list(dir.as_ref()).unwrap().len(), 2);
    projected.wait_for(at).unwrap();
    assert_eq!(newest(&projected.view(), "a").as_deref(), Some("1"));
    assert_eq!(disk.list(dir.as_ref()).unwrap().len(), 1);
    drop(projected);
    // Also across a closing.
    second.applied.store(0, Ordering::Relaxed);
    let projected = tenant.project(second.clone()).unwrap();
    projected.wait_for(at).unwrap();
    assert_eq!(second.applied.load(Ordering::Relaxed), 0);
}

#[test]
fn one_that_fails_stands_still_and_is_tried_again() {
    let disk = SimulatedDisk::new(1);
    let db = open(&disk, false);
    let tenant = db.tenant("t").unwrap();
    for panics in [false, true] {
        let projection = Newest::default();
        let projected = tenant.project(projection.clone()).unwrap();
        projected.wait_for(append(&tenant, "a", "1")).unwrap();
        projection.fails.store(!panics, Ordering::Relaxed);
        projection.panics.store(panics, Ordering::Relaxed);
        let at = append(&tenant, "a", "2");
        assert_eq!(
            projected.wait_for(at).unwrap_err().kind(),
            ErrorKind::Projection
        );
        assert!(matches!(projected.status().state, FollowerState::Parked(_)));
        // The writer goes on, what is there is read, and nothing of the batch is in it.
        let at = append(&tenant, "b", "3");
        assert_eq!(newest(&projected.view(), "a").as_deref(), Some("1"));
        projection.fails.store(false, Ordering::Relaxed);
        projection.panics.store(false, Ordering::Relaxed);
        assert_eq!(
            projected.wait_for(at).unwrap_err().kind(),
            ErrorKind::Projection
        );
        projected.retry().unwrap();
        projected.wait_for(at).unwrap();
        assert_eq!(newest(&projected.view(), "b").as_deref(), Some("3"));
        assert_eq!(answers(&projected.view()), anew(&tenant, at));
    }
}

#[test]
fn damage_is_rebuilt() {
    let disk = SimulatedDisk::new(1);
    let db = open(&disk, false);
    let tenant = db.tenant("t").unwrap();
    let projected = tenant.project(Newest::default()).unwrap();
    // More leaves than what comes next looks into.
    for number in 0..200 {
        append(&tenant, &number.to_string(), &"x".repeat(200));
    }
    let at = append(&tenant, "a", "1");
    projected.wait_for(at).unwrap();
    drop(projected);
    let path = "/db/tenants/t/projections/newest/store";
    let length = u64::try_from(disk.contents(path).len()).unwrap();
    let (mut found, mut found_by_flush) = (0, 0);
    for byte in (0..length).step_by(2039) {
        disk.flip(path, byte, 3);
        let projected = tenant.project(Newest::default()).unwrap();
        // Whoever finds it, reading or writing: what comes next has it rebuilt.
        let view = projected.view();
        for stream in 0..200 {
            if NEWEST.find(&view, &stream.to_string()).is_err() {
                found += 1;
            }
        }
        let at = append(&tenant, "a", "2");
        projected.wait_for(at).unwrap();
        assert_eq!(answers(&projected.view()), anew(&tenant, at));
    }
    assert!(found > 0);
    for byte in (0..length).step_by(2039) {
        disk.flip(path, byte, 3);
        let projected = tenant.project(Newest::default()).unwrap();
        let at = append(&tenant, "a", "3");
        projected.wait_for(at).unwrap();
        // What was taken in is put into pages, of which some are read for it.
        if projected.flush().is_ok() {
            disk.flip(path, byte, 3);
            continue;
        }
        found_by_flush += 1;
        let at = append(&tenant, "a", "4");
        projected.wait_for(at).unwrap();
        while !matches!(projected.status().state, FollowerState::Following) {
            projected.wait_for(Position::new(at.get() + 1)).ok();
        }
        assert_eq!(answers(&projected.view()), anew(&tenant, at));
        projected.flush().unwrap();
    }
    assert!(found_by_flush > 0);
}

#[test]
fn a_store_of_another_history_is_rebuilt() {
    let disk = SimulatedDisk::new(1);
    let path = "/db/tenants/t/projections/newest/store";
    let db = open(&disk, false);
    let tenant = db.tenant("t").unwrap();
    append(&tenant, "a", "1");
    db.close().unwrap();
    drop(tenant);
    let other = disk.snapshot();
    for (disk, data) in [(&disk, "2"), (&other, "two")] {
        let db = open(disk, false);
        let tenant = db.tenant("t").unwrap();
        let projected = tenant.project(Newest::default()).unwrap();
        projected.wait_for(append(&tenant, "a", data)).unwrap();
    }
    disk.graft(path, &other);
    let db = open(&disk, false);
    let tenant = db.tenant("t").unwrap();
    let projected = tenant.project(Newest::default()).unwrap();
    let at = append(&tenant, "b", "3");
    projected.wait_for(at).unwrap();
    assert_eq!(newest(&projected.view(), "a").as_deref(), Some("2"));
    assert_eq!(answers(&projected.view()), anew(&tenant, at));
}

#[test]
fn after_a_purge_what_is_derived_is_what_a_new_one_derives() {
    let disk = SimulatedDisk::new(1);
    let open = |disk: &SimulatedDisk, background| {
        let db = Database::builder("/db").disk(Arc::new(disk.clone()));
        let db = db.background(background).encryption(Encryption::Off);
        db.open().unwrap()
    };
    let db = open(&disk, false);
    let tenant = db.tenant("t").unwrap();
    let projected = tenant.project(Newest::default()).unwrap();
    let first = append(&tenant, "a", "secret");
    let second = append(&tenant, "b", "kept");
    projected.wait_for(second).unwrap();
    let options = PurgeOptions::new(second);
    tenant.purge(&options, &mut |_| {}).unwrap();
    let at = append(&tenant, "b", "new");
    projected.wait_for(at).unwrap();
    let view = projected.view();
    assert_eq!(newest(&view, "a"), None);
    assert_eq!(PURGED.find(&view, first).unwrap(), Some(()));
    assert_eq!(PURGED.find(&view, second).unwrap(), None);
    assert_eq!(newest(&view, "b").as_deref(), Some("new"));
    assert_eq!(answers(&view), anew(&tenant, at));
    drop(view);
    drop(projected);
    let contents = disk.contents("/db/tenants/t/projections/newest/store");
    assert!(!contents.windows(6).any(|bytes| bytes == b"secret"));
    // An opening knows that it was derived after the purge.
    db.close().unwrap();
    drop(tenant);
    let tenant = open(&disk, false).tenant("t").unwrap();
    let again = Newest::default();
    let projected = tenant.project(again.clone()).unwrap();
    assert!(matches!(
        projected.status().state,
        FollowerState::Following | FollowerState::CatchingUp
    ));
    assert_eq!(newest(&projected.view(), "b").as_deref(), Some("new"));
}

#[test]
fn what_was_ordered_purged_is_gone_from_a_projection_before_the_purge_is_done() {
    let life = |disk: &SimulatedDisk| -> Result<(), Error> {
        let tenant = builder(disk, 1).open()?.tenant("t")?;
        let stream = tenant.stream("a")?;
        stream.append(ExpectedVersion::Any, &[Event::new("t", "secret")])?;
        let kept = tenant.stream("b")?;
        let kept = kept.append(ExpectedVersion::Any, &[Event::new("t", "kept")])?;
        let options = PurgeOptions::new(kept.first_position());
        tenant.purge(&options, &mut |_| {}).map(drop)
    };
    let whole = SimulatedDisk::new(1);
    life(&whole).unwrap();
    let mut were_unfinished = 0;
    for op in 0..whole.ops() {
        let disk = SimulatedDisk::new(1);
        disk.crash_after(op);
        let _ = life(&disk);
        let disk = disk.crash(CrashMode::KeepUnsynced);
        let tenant = builder(&disk, 2).open().unwrap().tenant("t").unwrap();
        let projected = tenant.project(Newest::default()).unwrap();
        let at = append(&tenant, "b", "later");
        projected.wait_for(at).unwrap();
        let before = answers(&projected.view());
        let until = tenant
            .read_all(..)
            .flatten()
            .find(|it| it.data().as_ref() == b"kept");
        let Some(until) = until.map(|kept| kept.position()) else {
            continue;
        };
        let report = tenant
            .purge(&PurgeOptions::new(until), &mut |_| {})
            .unwrap();
        // It was ordered before the crash, so it was gone; what was left to do changes nothing.
        if report.record.is_none() {
            were_unfinished += u64::from(report.outcome.events > 0);
            projected.wait_for(append(&tenant, "c", "")).unwrap();
            let mut after = answers(&projected.view());
            after.retain(|(key, _)| !key.ends_with(b"c\x00\x01"));
            assert_eq!(after, before, "operation {op}");
            assert_eq!(newest(&projected.view(), "a"), None, "operation {op}");
        }
    }
    assert!(were_unfinished > 0);
}

#[test]
fn a_projection_keeps_its_database_open_and_ends_with_its_handle() {
    let disk = SimulatedDisk::new(1);
    let db = open(&disk, true);
    let tenant = db.tenant("t").unwrap();
    let projected = tenant.project(Newest::default()).unwrap();
    projected.wait_for(append(&tenant, "a", "1")).unwrap();
    drop(tenant);
    db.close().unwrap();
    assert_eq!(newest(&projected.view(), "a").as_deref(), Some("1"));
    let builder = Database::builder("/db").disk(Arc::new(disk.clone()));
    assert_eq!(builder.open().unwrap_err().kind(), ErrorKind::Locked);
    drop(projected);
    open(&disk, true);
}

#[test]
fn what_is_derived_is_encrypted_where_the_log_is() {
    for encryption in [Encryption::On, Encryption::Off] {
        let disk = SimulatedDisk::new(1);
        let db = Database::builder("/db").disk(Arc::new(disk.clone()));
        let db = db.background(false).encryption(encryption).open().unwrap();
        let tenant = db.tenant("t").unwrap();
        let projected = tenant.project(Newest::default()).unwrap();
        projected
            .wait_for(append(&tenant, "person", "secret"))
            .unwrap();
        drop(projected);
        let contents = disk.contents("/db/tenants/t/projections/newest/store");
        let has = |text: &[u8]| contents.windows(text.len()).any(|bytes| bytes == text);
        let is_plain = encryption == Encryption::Off;
        assert_eq!((has(b"secret"), has(b"person")), (is_plain, is_plain));
    }
}

#[test]
fn a_full_disk_holds_a_projection_up_until_there_is_space() {
    let disk = SimulatedDisk::new(1);
    let db = open(&disk, false);
    let tenant = db.tenant("t").unwrap();
    let projected = tenant.project(Newest::default()).unwrap();
    let mut at = append(&tenant, "a", "1");
    for number in 0..100 {
        at = append(&tenant, &number.to_string(), &"x".repeat(800));
    }
    disk.set_space_bytes(Some(disk.used_bytes()));
    projected.wait_for(at).unwrap();
    assert_eq!(projected.flush().unwrap_err().kind(), ErrorKind::Projection);
    assert_eq!(newest(&projected.view(), "a").as_deref(), Some("1"));
    disk.set_space_bytes(None);
    projected.wait_for(append(&tenant, "a", "2")).unwrap();
    projected.flush().unwrap();
}

/// What the records before `applied` give: the obvious model.
fn model(tenant: &Tenant, applied: Position) -> BTreeMap<String, (String, u64)> {
    let mut model = BTreeMap::<String, (String, u64)>::new();
    for record in tenant.read_all(..applied.get()) {
        let record = record.unwrap();
        let stream = tenant.stream_name(record.stream_id().unwrap()).unwrap();
        let entry = model.entry(stream.to_string()).or_default();
        entry.0 = String::from_utf8(record.data().to_vec()).unwrap();
        entry.1 += 1;
    }
    model
}

fn check_is_prefix(tenant: &Tenant, projected: &Projected<Newest>) {
    let view = projected.view();
    let expected = model(tenant, view.applied().position);
    let newest = NEWEST.range(&view, ..).map(Result::unwrap);
    let counts = COUNTS.range(&view, ..).map(Result::unwrap);
    let found = newest
        .zip(counts)
        .map(|((stream, data), (_, count))| (stream, (String::from_utf8(data).unwrap(), count)));
    assert_eq!(found.collect::<BTreeMap<_, _>>(), expected);
}

/// A life of a database with a projection: it goes as far as the disk lets it.
fn live(disk: &SimulatedDisk, seed: u64) -> Result<(), Error> {
    let mut rng = Rng::new(seed);
    let version = u32::try_from(rng.below(2)).unwrap();
    let db = builder(disk, seed).open()?;
    let tenant = db.tenant("t")?;
    let projection = Newest {
        version,
        ..Newest::default()
    };
    let projected = tenant.project(projection)?;
    for _ in 0..12 {
        let stream = tenant.stream(&rng.below(4).to_string())?;
        let data = "x".repeat(usize::try_from(rng.below(3000)).unwrap());
        let event = Event::new("t", data);
        let receipt = stream.append(ExpectedVersion::Any, &[event])?;
        if rng.below(2) == 0 {
            projected.wait_for(receipt.last_position())?;
        }
        match rng.below(6) {
            0 => projected.flush()?,
            1 => projected.rebuild()?,
            _ => {}
        }
    }
    Ok(())
}

#[test]
fn after_a_crash_anywhere_a_projection_is_a_prefix_of_the_log_and_catches_up() {
    let mut crashes = 0;
    for seed in 0..4 {
        let whole = SimulatedDisk::new(seed);
        live(&whole, seed).unwrap();
        live(&whole, seed + 100).unwrap();
        for op in (0..whole.ops()).step_by(3) {
            let disk = SimulatedDisk::new(seed);
            disk.crash_after(op);
            // Closing may be what meets the crash: nobody is told then.
            let _ = live(&disk, seed).and_then(|()| live(&disk, seed + 100));
            crashes += u64::from(disk.is_dead());
            for mode in [
                CrashMode::LoseUnsynced,
                CrashMode::KeepUnsynced,
                CrashMode::Mixed(op),
            ] {
                let disk = disk.crash(mode);
                let db = open(&disk, false);
                let tenant = db.tenant("t").unwrap();
                let version = u32::try_from(op % 2).unwrap();
                let projection = Newest {
                    version,
                    ..Newest::default()
                };
                let projected = tenant.project(projection).unwrap();
                check_is_prefix(&tenant, &projected);
                projected.wait_for(append(&tenant, "9", "last")).unwrap();
                check_is_prefix(&tenant, &projected);
                let view = projected.view();
                assert_eq!(view.applied().position, tenant.durable_position());
            }
        }
    }
    assert!(crashes > 100, "{crashes} crashes");
}

#[test]
fn any_past_position_can_be_projected_also_within_a_frame() {
    let disk = SimulatedDisk::new(1);
    let db = open(&disk, false);
    let tenant = db.tenant("t").unwrap();
    for number in 0..6 {
        let stream = tenant.stream(&(number % 2).to_string()).unwrap();
        let events = [0, 1, 2].map(|nth| Event::new("t", format!("{number}.{nth}")));
        stream.append(ExpectedVersion::Any, &events).unwrap();
    }
    let end = tenant.durable_position();
    let reading = Database::builder("/db")
        .disk(Arc::new(disk.clone()))
        .read_only(true);
    let reading = reading.open().unwrap().existing_tenant("t").unwrap();
    for position in 0..end.get() {
        for tenant in [&tenant, &reading] {
            let mut last = Position::ZERO;
            let progress = &mut |position| last = position;
            let position = Position::new(position);
            let view = tenant
                .project_at(&Newest::default(), position, progress)
                .unwrap();
            assert_eq!(last.get(), position.get() + 1);
            for (stream, (data, count)) in model(tenant, last) {
                assert_eq!(newest(&view, &stream), Some(data));
                assert_eq!(COUNTS.find(&view, &stream).unwrap(), Some(count));
            }
        }
    }
    let behind = tenant.project_at(&Newest::default(), end, &mut |_| {});
    assert_eq!(behind.unwrap_err().kind(), ErrorKind::InvalidInput);
}

/// Stands still when it is told so, and says that it does.
struct Slow {
    projection: Newest,
    entered: std::sync::mpsc::SyncSender<()>,
    go_on: std::sync::Mutex<std::sync::mpsc::Receiver<()>>,
}

impl Projection for Slow {
    type View = Snapshot;

    fn name(&self) -> &'static str {
        "slow"
    }

    fn version(&self) -> u32 {
        1
    }

    fn apply(&self, batch: &Batch<'_>, write: &mut WriteTransaction<'_>) -> Result<(), ApplyError> {
        self.entered.send(())?;
        self.go_on.lock().unwrap().recv()?;
        self.projection.apply(batch, write)
    }
}

#[test]
fn while_it_is_derived_anew_what_is_waited_for_is_what_is_read() {
    let disk = SimulatedDisk::new(1);
    let db = open(&disk, true);
    let tenant = db.tenant("t").unwrap();
    let (entered, enters) = std::sync::mpsc::sync_channel(0);
    let (goes_on, go_on) = std::sync::mpsc::channel();
    let projected = tenant.project(Slow {
        projection: Newest::default(),
        entered,
        go_on: std::sync::Mutex::new(go_on),
    });
    let projected = projected.unwrap();
    // Dropped before the projection: a test that fails must not wait for itself.
    let (enters, goes_on) = (enters, goes_on);
    let wait_for = |position| {
        let moment = std::time::Duration::from_millis(1);
        while projected.wait_for_at_most(position, moment).is_err() {
            if enters.try_recv().is_ok() {
                goes_on.send(()).unwrap();
            }
        }
    };
    let first = append(&tenant, "a", "1");
    wait_for(first);
    projected.rebuild().unwrap();
    // More than a batch has room for: the new state has the second event before it is read.
    enters.recv().unwrap();
    let second = append(&tenant, "a", "2");
    let large = "x".repeat(600_000);
    for _ in 0..4 {
        append(&tenant, "b", &large);
    }
    goes_on.send(()).unwrap();
    enters.recv().unwrap();
    goes_on.send(()).unwrap();
    enters.recv().unwrap();
    assert!(projected.status().applied > second);
    let waited = projected.wait_for_at_most(second, std::time::Duration::ZERO);
    assert_eq!(waited.unwrap_err().kind(), ErrorKind::TimedOut);
    assert_eq!(newest(&projected.view(), "a").as_deref(), Some("1"));
    goes_on.send(()).unwrap();
    wait_for(second);
    assert_eq!(newest(&projected.view(), "a").as_deref(), Some("2"));
}
