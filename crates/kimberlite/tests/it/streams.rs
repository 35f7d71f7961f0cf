//! Where the events of streams are found.
//!
//! Goal: a stream reads the same whether its runs are in memory or in their store, whatever happened to that. Method:
//! seeded histories in which a few runs fill memory, with every stream read from both ends after each step and
//! compared with a model; crashes at each operation; stores that are damaged, forged, missing and written anew
//! beside a reader.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kimberlite::{
    Database, DatabaseBuilder, Encryption, Error, ErrorKind, ExpectedVersion, Offset, Position,
    PurgeOptions, Record, StreamId, SyncPolicy, Tenant,
};
use kimberlite_disk::{Access, Disk as _, OpenMode, OsDisk};
use kimberlite_projection::store::{Store, StoreOptions};
use kimberlite_projection::{STREAM_RUNS_NAME, Table};
use kimberlite_testkit::{CrashMode, Rng, SimulatedDisk};

use crate::support::{builder, event};

/// What was appended to each stream, in order.
type Model = BTreeMap<String, Vec<String>>;

/// The table of the store, as docs/format.md has it.
const RUNS: Table<(StreamId, Offset), Position> = Table::new(1);

/// One that keeps few runs in memory.
fn small(disk: &SimulatedDisk, seed: u64) -> DatabaseBuilder {
    builder(disk, seed)
        .snapshot_growth_min(0)
        .stream_runs_max(4)
}

fn store_path() -> PathBuf {
    Path::new("/db/tenants/t/projections")
        .join(STREAM_RUNS_NAME)
        .join("store")
}

fn append(tenant: &Tenant, name: &str, count: u64, model: &mut Model) -> Result<(), Error> {
    let events = model.entry(name.to_owned()).or_default();
    let first = events.len() as u64;
    let texts: Vec<_> = (first..first + count)
        .map(|n| format!("{name} {n}"))
        .collect();
    let appended: Vec<_> = texts.iter().map(|text| event(text)).collect();
    let stream = tenant.stream(name)?;
    stream.append(ExpectedVersion::Any, &appended)?;
    events.extend(texts);
    Ok(())
}

fn text(record: Result<Record, Error>) -> String {
    String::from_utf8(record.unwrap().data().to_vec()).unwrap()
}

/// Reads every stream, all of it and a part, from both ends and from either in turn.
fn check(tenant: &Tenant, model: &Model, rng: &mut Rng, what: &str) {
    for (name, events) in model {
        let stream = tenant.stream(name).unwrap();
        let len = events.len() as u64;
        assert_eq!(stream.len().unwrap(), len, "{what}");
        let (a, b) = (rng.below(len + 2), rng.below(len + 2));
        for range in [0..u64::MAX, a..b, a..u64::MAX] {
            let at = |offset: u64| usize::try_from(offset.min(len)).unwrap();
            let expected = events
                .get(at(range.start)..at(range.end))
                .unwrap_or_default();
            let found: Vec<_> = stream.read(range.clone()).map(text).collect();
            assert_eq!(found, expected, "{what}: {name} {range:?}");
            let mut back: Vec<_> = stream.read(range.clone()).rev().map(text).collect();
            back.reverse();
            assert_eq!(back, expected, "{what}: {name} {range:?} backward");
            let mut both = stream.read(range);
            let (mut first, mut last) = (Vec::new(), Vec::new());
            while let Some(record) = both.next() {
                first.push(text(record));
                last.extend(both.next_back().map(text));
            }
            first.extend(last.into_iter().rev());
            assert_eq!(first, expected, "{what}: {name} from both ends");
        }
    }
}

/// A database whose runs are mostly in their store, and what it holds.
fn written(disk: &SimulatedDisk, encryption: Encryption) -> Model {
    let db = small(disk, 1).encryption(encryption).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    let mut model = Model::new();
    for _ in 0..6 {
        for n in 0..20 {
            append(&tenant, &format!("s{}", n % 5), 1 + n % 3, &mut model).unwrap();
        }
        tenant.checkpoint().unwrap();
    }
    append(&tenant, "s1", 2, &mut model).unwrap();
    let runs_bytes = tenant.stats().unwrap().stream_index_bytes;
    assert!(runs_bytes < 4_000, "{runs_bytes}");
    db.close().unwrap();
    model
}

#[test]
fn streams_read_the_same_however_their_runs_are_kept() {
    let mut stores = 0;
    for seed in 0..30 {
        let mut rng = Rng::new(seed);
        let disk = SimulatedDisk::new(seed);
        let mut model = Model::new();
        let db = small(&disk, seed).open().unwrap();
        let mut opened = (db.tenant("t").unwrap(), db);
        for step in 0..60 {
            let what = format!("seed {seed} step {step}");
            let tenant = &opened.0;
            match rng.below(12) {
                0 => {
                    drop(opened);
                    let db = small(&disk, step).open().unwrap();
                    opened = (db.tenant("t").unwrap(), db);
                }
                1 => {
                    let db = small(&disk, 1).read_only(true).open().unwrap();
                    let observed = db.tenant("t").unwrap();
                    check(&observed, &model, &mut rng, &what);
                }
                2 | 3 => drop(tenant.checkpoint().unwrap()),
                _ => {
                    let name = format!("s{}", rng.below(5));
                    append(tenant, &name, 1 + rng.below(4), &mut model).unwrap();
                }
            }
            check(&opened.0, &model, &mut rng, &what);
        }
        stores += u32::from(disk.exists(&store_path()).unwrap());
    }
    assert!(stores > 20, "{stores}");
}

#[test]
fn a_small_index_has_no_store() {
    let disk = SimulatedDisk::new(1);
    let db = builder(&disk, 1).snapshot_growth_min(0).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    for _ in 0..20 {
        append(&tenant, "a", 1, &mut Model::new()).unwrap();
        append(&tenant, "b", 1, &mut Model::new()).unwrap();
        tenant.checkpoint().unwrap();
    }
    db.close().unwrap();
    assert!(!disk.exists(&store_path()).unwrap());
}

#[test]
fn a_crash_at_any_operation_leaves_streams_that_read_as_what_was_kept() {
    fn run(disk: &SimulatedDisk, model: &mut Model) -> Result<(), Error> {
        let db = small(disk, 3).open()?;
        let tenant = db.tenant("t")?;
        for n in 0..14 {
            append(&tenant, &format!("s{}", n % 3), 1 + n % 2, model)?;
            if n % 4 == 3 {
                tenant.checkpoint()?;
            }
        }
        db.close()
    }
    let whole = SimulatedDisk::new(1);
    run(&whole, &mut Model::new()).unwrap();
    assert!(whole.exists(&store_path()).unwrap());
    let mut rng = Rng::new(1);
    for op in (1..=whole.ops()).step_by(2) {
        let disk = SimulatedDisk::new(1);
        disk.crash_after(op);
        let mut acknowledged = Model::new();
        let _ = run(&disk, &mut acknowledged);
        let modes = [CrashMode::LoseUnsynced, CrashMode::KeepUnsynced];
        for mode in modes.into_iter().chain([CrashMode::Mixed(op)]) {
            let what = format!("op {op}, {mode:?}");
            let after = disk.crash(mode);
            let db = small(&after, 9).open().unwrap();
            let tenant = db.tenant("t").unwrap();
            let mut model = Model::new();
            for summary in tenant.streams().unwrap() {
                let name = summary.name.as_str().to_owned();
                let texts = (0..summary.events).map(|n| format!("{name} {n}"));
                let texts = texts.collect();
                model.insert(name, texts);
            }
            for (name, events) in &acknowledged {
                let kept = model.get(name).map_or(0, Vec::len);
                assert!(kept >= events.len(), "{what}: {name}");
            }
            check(&tenant, &model, &mut rng, &what);
            append(&tenant, "s1", 1, &mut model).unwrap();
            tenant.checkpoint().unwrap();
            check(&tenant, &model, &mut rng, &what);
        }
    }
}

#[test]
fn a_damaged_store_changes_no_answer_and_another_one_is_made() {
    let mut rng = Rng::new(5);
    for encryption in [Encryption::On, Encryption::Off] {
        let disk = SimulatedDisk::new(1);
        let model = written(&disk, encryption);
        let bytes = disk.contents(store_path()).len();
        for at in (0..bytes).step_by(1_021) {
            let what = format!("{encryption:?}, byte {at}");
            let damaged = disk.twin();
            let mut contents = damaged.contents(store_path());
            contents[at] ^= 0x10;
            replace(&damaged, &contents);
            for read_only in [true, false] {
                let db = small(&damaged, 9).encryption(encryption);
                let db = db.read_only(read_only).open().unwrap();
                let tenant = db.tenant("t").unwrap();
                check(&tenant, &model, &mut rng, &what);
            }
            let mut model = model.clone();
            let db = small(&damaged, 10).encryption(encryption).open().unwrap();
            let tenant = db.tenant("t").unwrap();
            for _ in 0..8 {
                append(&tenant, "s2", 1, &mut model).unwrap();
                append(&tenant, "s3", 1, &mut model).unwrap();
            }
            tenant.checkpoint().unwrap();
            check(&tenant, &model, &mut rng, &what);
            drop((tenant, db));
            if encryption == Encryption::Off {
                let identity = Store::survey(&damaged, &store_path()).unwrap().identity;
                let options = StoreOptions::default();
                let store = Store::open(&damaged, &store_path(), identity, options).unwrap();
                let verified = store.verify();
                assert!(verified.is_ok(), "{what}: {verified:?}");
            }
        }
    }
}

fn replace(disk: &SimulatedDisk, contents: &[u8]) {
    disk.write_new_atomic(&store_path(), contents, Access::Private)
        .unwrap();
}

#[test]
fn a_store_that_is_missing_or_of_an_older_state_changes_no_answer() {
    let mut rng = Rng::new(5);
    let disk = SimulatedDisk::new(1);
    let mut model = written(&disk, Encryption::On);
    let older = disk.contents(store_path());
    let db = small(&disk, 2).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    for n in 0..40 {
        append(&tenant, &format!("s{}", n % 4), 1, &mut model).unwrap();
    }
    tenant.checkpoint().unwrap();
    db.close().unwrap();
    for older in [Some(older), None] {
        let disk = disk.twin();
        match &older {
            Some(older) => replace(&disk, older),
            None => disk.remove(&store_path()).unwrap(),
        }
        for read_only in [true, false] {
            let db = small(&disk, 9).read_only(read_only).open().unwrap();
            let tenant = db.tenant("t").unwrap();
            check(&tenant, &model, &mut rng, "opened");
            // One that is merely behind takes in what it has not.
            assert_eq!(disk.exists(&store_path()).unwrap(), older.is_some());
            if !read_only {
                let mut model = model.clone();
                append(&tenant, "s1", 3, &mut model).unwrap();
                tenant.checkpoint().unwrap();
                check(&tenant, &model, &mut rng, "gone on");
                assert!(disk.exists(&store_path()).unwrap());
            }
        }
    }
}

#[test]
fn a_forged_store_leads_to_no_other_event() {
    let rng = Rng::new(5);
    let disk = SimulatedDisk::new(1);
    let model = written(&disk, Encryption::Off);
    let purged = {
        let db = small(&disk, 8).encryption(Encryption::Off).open().unwrap();
        let tenant = db.tenant("t").unwrap();
        let stream = tenant.stream("secret").unwrap();
        let secret = stream.append(ExpectedVersion::Any, &[event("secret")]);
        let options = PurgeOptions::new(tenant.durable_position()).stream("secret");
        tenant.purge(&options, &mut |_| ()).unwrap();
        tenant.checkpoint().unwrap();
        db.close().unwrap();
        secret.unwrap().first_position().get()
    };
    let identity = Store::survey(&disk, &store_path()).unwrap().identity;
    let check_forged = |what: &str, forge: &dyn Fn(StreamId, u64) -> Option<u64>| {
        let disk = disk.twin();
        let options = StoreOptions::default();
        let mut store = Store::open(&disk, &store_path(), identity, options).unwrap();
        let (applied, snapshot) = (store.applied(), store.snapshot());
        let all = (StreamId::new(Position::ZERO), Offset::ZERO)..;
        let entries: Vec<_> = RUNS.range(&snapshot, all).map(Result::unwrap).collect();
        assert!(entries.len() > 50, "{}", entries.len());
        let mut write = store.write();
        for (key, position) in entries {
            match forge(key.0, position.get()) {
                Some(position) => RUNS.put(&mut write, key, Position::new(position)).unwrap(),
                None => RUNS.remove(&mut write, key).unwrap(),
            }
        }
        write.commit(applied).unwrap();
        store.flush().unwrap();
        for read_only in [true, false] {
            let db = small(&disk, 9).encryption(Encryption::Off);
            let db = db.read_only(read_only).open().unwrap();
            check(&db.tenant("t").unwrap(), &model, &mut rng.clone(), what);
        }
    };
    check_forged("the next record", &|_, position| Some(position + 1));
    check_forged("the first record", &|_, _| Some(0));
    check_forged("a session", &|_, _| Some(1));
    check_forged("behind the end", &|_, _| Some(1 << 40));
    check_forged("a purged one", &|_, _| Some(purged));
    let firsts = {
        let options = StoreOptions::default();
        let store = Store::open(&disk, &store_path(), identity, options).unwrap();
        let snapshot = store.snapshot();
        let entries = RUNS.range(&snapshot, (StreamId::new(Position::ZERO), Offset::ZERO)..);
        let entries = entries
            .map(|entry| entry.unwrap())
            .map(|(key, at)| (key.0, at.get()));
        entries.rev().collect::<BTreeMap<_, _>>()
    };
    check_forged("the first of the stream", &|stream, _| {
        firsts.get(&stream).copied()
    });
    check_forged("nothing", &|_, _| None);
    check_forged("every third", &|_, position| {
        Some(position).filter(|it| it % 3 > 0)
    });
}

#[test]
fn a_reader_beside_a_writer_reads_on_while_the_store_is_written_anew() {
    let mut rng = Rng::new(5);
    let disk = SimulatedDisk::new(1);
    let mut model = written(&disk, Encryption::On);
    let observer = small(&disk, 3).read_only(true).open().unwrap();
    let observed = observer.tenant("t").unwrap();
    let then = model.clone();
    let db = small(&disk, 2).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    for round in 0..20 {
        for n in 0..40 {
            append(&tenant, &format!("s{}", n % 4), 1, &mut model).unwrap();
        }
        tenant.checkpoint().unwrap();
        check(&observed, &then, &mut rng, &format!("round {round}"));
    }
    check(&tenant, &model, &mut rng, "writer");
}

#[test]
fn a_store_that_was_damaged_is_not_used_again() {
    let disk = SimulatedDisk::new(1);
    let db = small(&disk, 1).encryption(Encryption::Off).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    let mut model = Model::new();
    for n in 0..1_500 {
        append(&tenant, &format!("s{}", n % 3), 1, &mut model).unwrap();
    }
    tenant.checkpoint().unwrap();
    drop((tenant, db));
    let (pages, mut remade) = (disk.contents(store_path()).len() / 4096, 0);
    assert!(pages > 12, "{pages}");
    for page in 2..pages {
        let disk = disk.twin();
        let mut contents = disk.contents(store_path());
        contents[page * 4096 + 100] ^= 1;
        replace(&disk, &contents);
        let db = small(&disk, 2).encryption(Encryption::Off).open().unwrap();
        let tenant = db.tenant("t").unwrap();
        for (name, events) in &model {
            let found: Vec<_> = tenant.stream(name).unwrap().read(..).map(text).collect();
            assert_eq!(&found, events, "page {page}");
        }
        remade += u32::from(!disk.exists(&store_path()).unwrap());
        append(&tenant, "s1", 1, &mut model.clone()).unwrap();
        tenant.checkpoint().unwrap();
        drop((tenant, db));
        let identity = Store::survey(&disk, &store_path()).unwrap().identity;
        let store = Store::open(&disk, &store_path(), identity, StoreOptions::default());
        assert!(store.unwrap().verify().is_ok(), "page {page}");
    }
    assert!(remade > 5, "{remade}");
}

#[test]
fn a_damaged_log_that_the_store_cannot_stand_in_for_is_told_once() {
    let disk = SimulatedDisk::new(1);
    let open = |seed| small(&disk, seed).encryption(Encryption::Off);
    let db = open(1).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    let mut model = Model::new();
    for n in 0..40 {
        append(&tenant, &format!("s{}", n % 4), 1, &mut model).unwrap();
        // So much that the first segment is closed.
        let large = [event(&"x".repeat(20_000))];
        let stream = tenant.stream("large").unwrap();
        stream.append(ExpectedVersion::Any, &large).unwrap();
    }
    tenant.checkpoint().unwrap();
    append(&tenant, "s1", 1, &mut model).unwrap();
    db.close().unwrap();
    drop(tenant);
    disk.remove(&store_path()).unwrap();
    let segment = PathBuf::from("/db/tenants/t/log/00000000000000000000.seg");
    let mut contents = disk.contents(&segment);
    // In the header of one of the first frames.
    contents[4096 + 400..4096 + 900].fill(0xee);
    disk.write_new_atomic(&segment, &contents, Access::Shared)
        .unwrap();
    let db = open(3).read_only(true).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    assert!(tenant.open_report().damage.is_empty(), "nobody has looked");
    let stream = tenant.stream("s1").unwrap();
    assert_eq!(stream.len().unwrap(), 11);
    let mut read: Vec<_> = stream.read(..).take(1_000).collect();
    assert_eq!(read.len(), 2);
    // What is in memory is given all the same.
    assert_eq!(text(read.pop().unwrap()), "s1 10");
    assert_eq!(stream.read(..).rev().take(1_000).count(), 2);
    let error = read.pop().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

/// Reads a stream whose events count up, as far as it is there, from either end.
fn check_counts(tenant: &Tenant, name: &str) -> u64 {
    let stream = tenant.stream(name).unwrap();
    let len = stream.len().unwrap();
    let found = stream.read(..len).map(text);
    let count = found
        .zip(0..)
        .all(|(found, n)| found == format!("{name} {n}"));
    assert!(count, "{name}");
    let last = stream.read(..len).next_back().map(text);
    assert_eq!(last, len.checked_sub(1).map(|n| format!("{name} {n}")));
    len
}

#[test]
fn threads_append_and_read_while_the_store_comes_along_and_is_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let names = ["a", "b", "c"];
    for round in 0..4_u64 {
        let db = Database::builder(directory.path())
            .sync_policy(SyncPolicy::OnFlush)
            .snapshot_growth_min(0)
            .stream_runs_max(32)
            .open()
            .unwrap();
        let tenant = db.tenant("t").unwrap();
        let before = names.map(|name| check_counts(&tenant, name));
        assert!(before.iter().all(|len| *len == 400 * round), "{before:?}");
        std::thread::scope(|scope| {
            for name in names {
                let (writer, reader) = (tenant.clone(), tenant.clone());
                scope.spawn(move || {
                    let stream = writer.stream(name).unwrap();
                    for n in 400 * round..400 * (round + 1) {
                        let text = [event(&format!("{name} {n}"))];
                        stream.append(ExpectedVersion::Any, &text).unwrap();
                        if n % 100 == 99 {
                            writer.checkpoint().unwrap();
                        }
                    }
                });
                scope.spawn(move || {
                    while check_counts(&reader, name) < 400 * (round + 1) {
                        std::thread::yield_now();
                    }
                });
            }
            let path = directory.path().join("tenants/t/projections");
            let path = path.join(STREAM_RUNS_NAME).join("store");
            scope.spawn(move || {
                for page in 2..6 {
                    if let Ok(file) = OsDisk::new().open(&path, OpenMode::ReadWrite) {
                        file.write_all_at(&[&[0xee; 64][..]], page * 4096).unwrap();
                    }
                    std::thread::yield_now();
                }
            });
        });
        drop(tenant);
        db.close().unwrap();
    }
    let path = directory.path().join("tenants/t/projections");
    assert!(path.join(STREAM_RUNS_NAME).join("store").exists());
}
