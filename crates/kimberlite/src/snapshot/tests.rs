//! Goal: an opening that begins at a snapshot ends where one that reads the whole log does, and a
//! snapshot that is anything but what the signer made changes nothing. Method: each log is opened
//! twice, on twins of one disk, with its snapshots and without; the states, the indexes and what is
//! decided next are compared.

mod erased;
mod purged;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use kimberlite_crypto::{Signer, VerifierKey, internal_hash};
use kimberlite_disk::{Access, Disk as _};
use kimberlite_storage::{CheckpointStore, Entropy, LogSnapshot, OpenReport};
use kimberlite_testkit::{CrashMode, Rng, SimulatedDisk};
use kimberlite_types::{Position, SessionId, Timestamp};

use super::Wanted;
use crate::{
    Clock, Database, DatabaseBuilder, Error, ErrorKind, Event, ExpectedVersion, Finding, Tenant,
};

#[derive(Debug)]
struct Ticking(AtomicU64);

impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanoseconds(self.0.fetch_add(1_000_000, Ordering::Relaxed))
    }
}

#[derive(Debug)]
struct Seeded(Mutex<Rng>);

impl Entropy for Seeded {
    fn fill(&self, bytes: &mut [u8]) -> bool {
        self.0.lock().unwrap().fill(bytes);
        true
    }
}

fn builder(disk: &SimulatedDisk, seed: u64) -> DatabaseBuilder {
    Database::builder("/db")
        .disk(Arc::new(disk.clone()))
        .clock(Arc::new(Ticking(AtomicU64::new(1_700_000_000_000_000_000))))
        .entropy(Arc::new(Seeded(Mutex::new(Rng::new(seed)))))
        .background(false)
        .snapshot_growth_min(0)
}

fn open(disk: &SimulatedDisk) -> Result<(Database, Tenant), Error> {
    let db = builder(disk, disk.ops()).open()?;
    let tenant = db.existing_tenant("t")?;
    Ok((db, tenant))
}

fn observe(disk: &SimulatedDisk) -> (Database, Tenant) {
    let db = builder(disk, 1).read_only(true).open().unwrap();
    let tenant = db.existing_tenant("t").unwrap();
    (db, tenant)
}

fn append(tenant: &Tenant, stream: &str, count: usize, bytes: usize) {
    let events = vec![Event::new("noted", vec![b'x'; bytes]); count];
    let stream = tenant.stream(stream).unwrap();
    stream.append(ExpectedVersion::Any, &events).unwrap();
}

fn segment(base: u64) -> PathBuf {
    PathBuf::from(format!("/db/tenants/t/log/{base:020}.seg"))
}

fn with_ending(disk: &SimulatedDisk, ending: &str) -> Vec<PathBuf> {
    let mut files = disk.files();
    files.retain(|path| path.extension().is_some_and(|it| it == ending));
    files
}

fn snapshot_of(disk: &SimulatedDisk) -> PathBuf {
    let snapshots = with_ending(disk, "snapshot");
    assert_eq!(snapshots.len(), 1, "the newest one is kept");
    snapshots[0].clone()
}

/// The same disk without its snapshots.
fn bare(disk: &SimulatedDisk) -> SimulatedDisk {
    let disk = disk.twin();
    for path in with_ending(&disk, "snapshot") {
        disk.remove(&path).unwrap();
    }
    disk
}

fn replace(disk: &SimulatedDisk, path: &Path, content: &[u8]) {
    disk.write_new_atomic(path, content, Access::Shared)
        .unwrap();
}

/// How many records the snapshot stands for that the opening began at.
fn begun_at(tenant: &Tenant) -> u64 {
    tenant.open_report().snapshot.map_or(0, Position::get)
}

/// What an opening reports, wherever it began.
fn found(tenant: &Tenant) -> OpenReport {
    OpenReport {
        snapshot: None,
        ..tenant.open_report().clone()
    }
}

/// Everything that is decided and read by.
#[derive(Debug, PartialEq, Eq)]
struct Meaning {
    digest: u64,
    state: Option<Vec<u8>>,
    index: Vec<u8>,
    sessions: Vec<SessionId>,
    substantial_end: Position,
    streams: Vec<crate::StreamSummary>,
}

fn meaning(tenant: &Tenant) -> Meaning {
    let inner = tenant.inner();
    let state = inner
        .with_engine(|engine| Ok(engine.state.clone()))
        .unwrap();
    kimberlite_kernel::check_invariants(&state).unwrap();
    let streams = tenant.streams().unwrap();
    let catalog = inner.catalog();
    for stream in &streams {
        let hash = inner.sealer.name_hash(&stream.name);
        assert_eq!(catalog.stream(&hash), Some(stream.id));
    }
    Meaning {
        digest: state.digest().get(),
        state: state.to_snapshot(),
        index: catalog.index.to_snapshot(),
        sessions: catalog.sessions.clone(),
        substantial_end: catalog.substantial_end,
        streams,
    }
}

/// Opens a log with and without its snapshot, compares everything, and lets both go on.
fn compare(disk: &SimulatedDisk, what: &str) -> u64 {
    let (with, without) = (disk.twin(), bare(disk));
    let (_db, tenant) = open(&with).unwrap();
    let (_bare_db, replayed) = open(&without).unwrap();
    assert_eq!(begun_at(&replayed), 0);
    assert_eq!(meaning(&tenant), meaning(&replayed), "{what}");
    assert_eq!(found(&tenant), found(&replayed), "{what}");
    for tenant in [&tenant, &replayed] {
        append(tenant, "s1", 2, 10);
        append(tenant, "new", 1, 10);
        tenant.checkpoint().unwrap();
        let report = tenant.verify().unwrap();
        assert!(report.is_sound(), "{what}: {:?}", report.findings);
    }
    assert_eq!(
        meaning(&tenant).streams,
        meaning(&replayed).streams,
        "{what}"
    );
    let read = |tenant: &Tenant| tenant.read_all(..).collect::<Result<Vec<_>, _>>();
    let events = |tenant| {
        read(tenant)
            .unwrap()
            .into_iter()
            .map(|it| it.data().clone())
    };
    assert!(events(&tenant).eq(events(&replayed)), "{what}");
    begun_at_of(disk)
}

fn begun_at_of(disk: &SimulatedDisk) -> u64 {
    let (_db, tenant) = open(&disk.twin()).unwrap();
    begun_at(&tenant)
}

/// Appends, checkpoints and reopenings by a seed; calls `at_checkpoint` behind each checkpoint.
fn history(seed: u64, steps: u64, mut at_checkpoint: impl FnMut(&SimulatedDisk, u64)) {
    let mut rng = Rng::new(seed);
    let disk = SimulatedDisk::new(seed);
    let db = builder(&disk, seed).open().unwrap();
    let mut opened = (db.tenant("t").unwrap(), db);
    for _ in 0..steps {
        let tenant = &opened.0;
        match rng.below(10) {
            0 => {
                drop(opened);
                let (db, tenant) = open(&disk).unwrap();
                opened = (tenant, db);
            }
            1 | 2 => {
                let size = tenant.checkpoint().unwrap().size();
                at_checkpoint(&disk, size);
            }
            3 => tenant.settle().unwrap(),
            4 => append(tenant, "large", 1, 150_000),
            _ => {
                let stream = format!("s{}", rng.below(4));
                let count = usize::try_from(1 + rng.below(4)).unwrap();
                append(tenant, &stream, count, 100);
            }
        }
    }
}

/// Three closed segments and a fourth, with a snapshot that covers two of them at least.
fn four_segments() -> SimulatedDisk {
    four_segments_of(1)
}

/// The same of a log of its own.
fn four_segments_of(seed: u64) -> SimulatedDisk {
    let disk = SimulatedDisk::new(seed);
    let db = builder(&disk, seed).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    for _ in 0..12 {
        append(&tenant, "s1", 20, 200);
        append(&tenant, "s2", 10, 60_000);
    }
    tenant.checkpoint().unwrap();
    append(&tenant, "s1", 3, 100);
    drop((tenant, db));
    assert!(with_ending(&disk, "seg").len() >= 4);
    disk
}

/// The base positions of the segments.
fn bases(disk: &SimulatedDisk) -> Vec<u64> {
    let base = |path: &PathBuf| path.file_stem()?.to_str()?.parse().ok();
    with_ending(disk, "seg").iter().filter_map(base).collect()
}

#[test]
fn opening_from_a_snapshot_ends_where_reading_the_whole_log_does() {
    let mut compared = 0;
    for seed in 0..12 {
        history(seed, 60, |disk, size| {
            let what = format!("seed {seed}, {size} records");
            compared += 1;
            assert_eq!(compare(disk, &what), size, "{what}: the snapshot was used");
        });
    }
    assert!(compared > 60, "{compared}");
}

#[test]
fn a_crash_at_any_operation_leaves_a_log_that_opens_to_the_same_state() {
    fn run(disk: &SimulatedDisk) -> Result<(), Error> {
        let db = builder(disk, 3).open()?;
        let tenant = db.tenant("t")?;
        for n in 0..4 {
            let events = vec![Event::new("noted", vec![b'x'; 300]); 3];
            let stream = tenant.stream(&format!("s{}", n % 2))?;
            stream.append(ExpectedVersion::Any, &events)?;
            tenant.checkpoint()?;
        }
        db.close()
    }
    let whole = SimulatedDisk::new(1);
    run(&whole).unwrap();
    let mut from_snapshots = 0;
    for op in 1..=whole.ops() {
        let disk = SimulatedDisk::new(1);
        disk.crash_after(op);
        let _ = run(&disk);
        let modes = [CrashMode::LoseUnsynced, CrashMode::KeepUnsynced];
        let modes = modes.into_iter().chain((0..3).map(CrashMode::Mixed));
        let crashed = modes.map(|mode| disk.crash(mode));
        for (nth, disk) in crashed.chain([disk.process_kill()]).enumerate() {
            // Made before it is opened: a log that never was is made by either.
            drop(builder(&disk, 9).open().unwrap().tenant("t").unwrap());
            let begun = compare(&disk, &format!("op {op}, crash {nth}"));
            from_snapshots += u32::from(begun > 0);
        }
    }
    assert!(from_snapshots > 100, "{from_snapshots}");
}

#[test]
fn one_snapshot_is_kept_and_none_is_made_before_the_log_has_grown() {
    let disk = SimulatedDisk::new(1);
    let db = builder(&disk, 1)
        .snapshot_growth_min(30_000)
        .open()
        .unwrap();
    let tenant = db.tenant("t").unwrap();
    let mut made = Vec::new();
    for _ in 0..30 {
        append(&tenant, "s", 10, 200);
        let size = tenant.checkpoint().unwrap().size();
        let snapshots = with_ending(&disk, "snapshot");
        assert!(snapshots.len() <= 1);
        let name = format!("{size:020}.snapshot");
        made.push(snapshots.first().is_some_and(|path| path.ends_with(&name)));
    }
    // An append with its checkpoint takes some 4 KB: one in eight makes a snapshot.
    let count = made.iter().filter(|made| **made).count();
    assert!(!made[0] && (3..=4).contains(&count), "{made:?}");
    drop((tenant, db));
    // What an earlier process made counts.
    let db = builder(&disk, 2)
        .snapshot_growth_min(30_000)
        .open()
        .unwrap();
    let tenant = db.tenant("t").unwrap();
    let before = snapshot_of(&disk);
    append(&tenant, "s", 1, 10);
    tenant.checkpoint().unwrap();
    assert_eq!(snapshot_of(&disk), before);
}

/// Checkpoints of an event each, of which a thinning keeps few.
fn checkpoints(tenant: &Tenant, count: usize) {
    for _ in 0..count {
        append(tenant, "s", 1, 10);
        tenant.checkpoint().unwrap();
    }
}

#[test]
fn the_note_of_a_snapshot_stays_also_while_the_snapshot_is_made() {
    let disk = SimulatedDisk::new(1);
    let db = builder(&disk, 1).checkpoint_density(1).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    checkpoints(&tenant, 20);
    let (maker, left) = (tenant.clone(), AtomicU64::new(1));
    disk.set_sync_observer(Arc::new(move |path| {
        let is_snapshot = path.to_string_lossy().contains(".snapshot");
        if is_snapshot && left.swap(0, Ordering::Relaxed) > 0 {
            checkpoints(&maker, 40);
        }
    }));
    append(&tenant, "s", 1, 10);
    let size = tenant.checkpoint().unwrap().size();
    disk.set_sync_observer(Arc::new(|_| {}));
    drop((db, tenant));
    for _ in 0..2 {
        let options = builder(&disk, disk.ops()).checkpoint_density(1);
        let db = options.snapshot_growth_min(1 << 40).open().unwrap();
        let tenant = db.existing_tenant("t").unwrap();
        assert_eq!(begun_at(&tenant), size);
        checkpoints(&tenant, 40);
    }
}

#[test]
fn what_was_left_of_an_unfinished_snapshot_is_removed_with_the_next() {
    let disk = four_segments();
    let path = snapshot_of(&disk).with_extension("snapshot.tmp");
    replace(&disk, &path, b"unfinished");
    let (db, tenant) = open(&disk).unwrap();
    append(&tenant, "s", 1, 1);
    db.close().unwrap();
    assert!(with_ending(&disk, "tmp").is_empty());
    snapshot_of(&disk);
}

#[test]
fn a_state_that_differs_from_the_writers_makes_no_snapshot_and_stops_the_writer() {
    let disk = four_segments();
    let (db, tenant) = open(&disk).unwrap();
    let checkpoint = tenant.checkpoint().unwrap();
    let before = snapshot_of(&disk);
    append(&tenant, "s1", 1, 1);
    let digest = tenant
        .inner()
        .with_engine(|engine| Ok(engine.state.digest()));
    let snapshots = tenant.inner().snapshots.as_ref().unwrap();
    disk.remove(&before).unwrap();
    snapshots.want(Wanted {
        position: Position::new(checkpoint.size()),
        chain: checkpoint.chain(),
        digest: digest.unwrap(),
    });
    tenant.inner().keep_snapshot();
    assert!(with_ending(&disk, "snapshot").is_empty());
    let written = disk.ops();
    let stream = tenant.stream("s1").unwrap();
    let event = [Event::new("noted", "more")];
    let refused = [
        stream.append(ExpectedVersion::Any, &event).map(drop),
        tenant.checkpoint().map(drop),
        db.close(),
    ];
    for refused in refused {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains("differs"), "{error}");
    }
    assert_eq!(disk.ops(), written);
    // Reads go on, and whoever opens it anew has what the log says.
    let count = stream.read(..).map(Result::unwrap).count();
    drop((stream, tenant));
    let (_db, tenant) = open(&disk).unwrap();
    let stream = tenant.stream("s1").unwrap();
    stream.append(ExpectedVersion::Any, &event).unwrap();
    assert_eq!(stream.read(..).count(), count + 1);
}

#[test]
fn every_flipped_byte_of_a_snapshot_makes_it_count_for_nothing() {
    let disk = SimulatedDisk::new(1);
    let db = builder(&disk, 1).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    append(&tenant, "s1", 3, 10);
    append(&tenant, "s2", 2, 10);
    tenant.checkpoint().unwrap();
    append(&tenant, "s1", 1, 10);
    drop((tenant, db));
    let path = snapshot_of(&disk);
    let expected = {
        let (_db, tenant) = open(&bare(&disk)).unwrap();
        meaning(&tenant)
    };
    assert!(begun_at_of(&disk) > 0);
    let bytes = u64::try_from(disk.contents(&path).len()).unwrap();
    for at in 0..bytes {
        let disk = disk.twin();
        disk.flip(&path, at, 0x20);
        let (_db, tenant) = open(&disk).unwrap();
        assert_eq!(begun_at(&tenant), 0, "byte {at}");
        assert_eq!(meaning(&tenant), expected, "byte {at}");
    }
}

/// The key that the tenant's snapshots are checked with.
fn key(disk: &SimulatedDisk) -> VerifierKey {
    let (_db, tenant) = open(&disk.twin()).unwrap();
    tenant.inner().checkpoints.verifier().clone()
}

/// Whoever can write files but holds no key makes a snapshot that looks sound, of another state.
#[test]
fn a_forged_snapshot_counts_for_nothing() {
    let disk = four_segments();
    let path = snapshot_of(&disk);
    let mut snapshot = LogSnapshot::decode(&disk.contents(&path).into(), &key(&disk)).unwrap();
    let mut contents = snapshot.contents.to_vec();
    let last = contents.len() - 8;
    contents[last] ^= 1;
    snapshot.contents = Bytes::from(contents);
    let mut forged = snapshot.encode(&Signer::from_seed([6; 32]));
    replace(&disk, &path, &forged);
    assert_eq!(compare(&disk, "signed by another"), 0);
    let body = forged.len() - 96;
    assert_eq!(
        forged[body..body + 32],
        *internal_hash(&forged[..body]).as_bytes(),
        "the digest is right"
    );
    forged[body + 32..].fill(0);
    replace(&disk, &path, &forged);
    assert_eq!(compare(&disk, "not signed"), 0);
}

#[test]
fn a_snapshot_that_is_larger_than_its_log_is_not_read() {
    let disk = four_segments();
    let path = snapshot_of(&disk);
    let content = disk.contents(&path);
    let segments = with_ending(&disk, "seg");
    let log_bytes = segments.iter().map(|path| disk.contents(path).len());
    let log_bytes = log_bytes.sum::<usize>();
    let store = |bytes: usize| {
        let disk = disk.snapshot();
        let mut padded = content.clone();
        padded.resize(bytes, 0);
        replace(&disk, &path, &padded);
        let store = CheckpointStore::new(Arc::new(disk), Path::new("/db/tenants/t"));
        let position = store.snapshots().unwrap()[0];
        store.snapshot(position).map(|bytes| bytes.len())
    };
    assert_eq!(store(log_bytes).unwrap(), log_bytes);
    assert!(store(log_bytes + 1).is_err());
}

#[test]
fn a_snapshot_counts_for_nothing_without_the_signed_note_and_state_beside_it() {
    for ending in ["note", "state"] {
        let disk = four_segments();
        let beside = snapshot_of(&disk).with_extension(ending);
        disk.remove(&beside).unwrap();
        assert_eq!(compare(&disk, ending), 0);
    }
}

#[test]
fn the_snapshot_of_another_log_counts_for_nothing() {
    let disk = four_segments();
    let other = four_segments_of(2);
    let path = snapshot_of(&disk);
    replace(&disk, &path, &other.contents(snapshot_of(&other)));
    assert_eq!(compare(&disk, "another log"), 0);
}

/// An older copy of the log under newer checkpoints, and under a newer snapshot alone.
#[test]
fn a_snapshot_ahead_of_its_log_neither_hides_nor_makes_a_rollback() {
    let disk = SimulatedDisk::new(1);
    let db = builder(&disk, 1).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    append(&tenant, "s1", 3, 10);
    tenant.checkpoint().unwrap();
    tenant.settle().unwrap();
    let log = segment(0);
    let old = disk.contents(&log);
    append(&tenant, "s1", 3, 10);
    tenant.checkpoint().unwrap();
    drop((tenant, db));
    disk.overwrite(&log, 0, &old);
    let refused = |disk: &SimulatedDisk| open(disk).unwrap_err();
    assert_eq!(refused(&disk.twin()).kind(), ErrorKind::RolledBack);
    assert_eq!(
        refused(&disk.twin()).to_string(),
        refused(&bare(&disk)).to_string()
    );
    // Without the newer notes nothing vouches for the rest, and the snapshot does not either.
    let newest = snapshot_of(&disk).with_extension("note");
    disk.remove(&newest).unwrap();
    disk.remove(Path::new("/db/tenants/t/checkpoint")).unwrap();
    assert_eq!(compare(&disk, "no newer note"), 0);
}

/// Two histories of one beginning and one length, by the same keys: nothing stands behind the
/// snapshot, or something does.
#[test]
fn a_snapshot_of_another_history_of_the_log_counts_for_nothing() {
    for longer in [false, true] {
        let disk = SimulatedDisk::new(1);
        let db = builder(&disk, 1).open().unwrap();
        append(&db.tenant("t").unwrap(), "s1", 1, 10);
        drop(db);
        let fork = disk.twin();
        for (disk, bytes) in [(&disk, 10), (&fork, 11)] {
            let (_db, tenant) = open(disk).unwrap();
            append(&tenant, "s1", 3, bytes);
            tenant.checkpoint().unwrap();
            if longer {
                append(&tenant, "s1", 1, 10);
            }
        }
        let path = snapshot_of(&disk);
        assert_eq!(path, snapshot_of(&fork));
        replace(&disk, &path, &fork.contents(&path));
        assert_eq!(compare(&disk, "a fork"), 0);
        let note = path.with_extension("note");
        let mixed = fork.twin();
        replace(&mixed, &note, &disk.contents(&note));
        assert_eq!(begun_at(&observe(&mixed).1), 0, "the note is of another");
        // An observer holds no note against the log, so that the chain of the snapshot must tell.
        for name in ["note", "state"] {
            let path = path.with_extension(name);
            replace(&disk, &path, &fork.contents(&path));
        }
        let shown = Path::new("/db/tenants/t/checkpoint");
        replace(&disk, shown, &fork.contents(shown));
        let (_db, with) = observe(&disk);
        assert_eq!(begun_at(&with), 0);
        assert_eq!(open(&disk).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

/// What is done to the file of a segment.
type Change<'a> = &'a dyn Fn(&SimulatedDisk, &Path);

#[test]
fn a_missing_or_cut_segment_is_the_error_that_it_is_without_a_snapshot() {
    let disk = four_segments();
    let bases = bases(&disk);
    let changes: [(&str, Change<'_>); 3] = [
        ("missing", &|disk, path| disk.remove(path).unwrap()),
        ("cut", &|disk, path| {
            let bytes = disk.contents(path);
            replace(disk, path, &bytes[..bytes.len() / 2]);
        }),
        ("longer", &|disk, path| {
            let mut bytes = disk.contents(path);
            bytes.extend([0; 4096]);
            replace(disk, path, &bytes);
        }),
    ];
    for (name, change) in changes {
        for &base in &bases[..2] {
            let disk = disk.twin();
            change(&disk, &segment(base));
            let what = format!("{name}, segment {base}");
            let refused = |disk: &SimulatedDisk| open(disk).unwrap_err().to_string();
            assert_eq!(refused(&disk.twin()), refused(&bare(&disk)), "{what}");
            if name == "missing" && base == 0 {
                continue;
            }
            let (_db, with) = observe(&disk);
            let (_bare_db, without) = observe(&bare(&disk));
            assert_eq!(found(&with), found(&without), "{what}");
            assert!(!with.open_report().damage.is_empty(), "{what}");
        }
    }
}

/// A place in the second segment: its header page, the header, the table or a payload of a frame.
fn places(disk: &SimulatedDisk) -> Vec<u64> {
    let (_db, tenant) = observe(disk);
    let (byte, header) = {
        let base = bases(disk)[1];
        let second = tenant.frame(Position::new(base)).unwrap().unwrap().1;
        tenant.frame(second.end_position()).unwrap().unwrap()
    };
    let table = byte + 112;
    vec![
        60,
        byte + 20,
        table + 2,
        byte + u64::from(header.length) - 3,
    ]
}

#[test]
fn damage_before_a_snapshot_is_told_by_reads_and_by_verify() {
    let disk = four_segments();
    let base = bases(&disk)[1];
    for at in places(&disk) {
        for read_only in [false, true] {
            let disk = disk.twin();
            let before = observe(&disk);
            disk.flip(segment(base), at, 0x40);
            let opened = if read_only {
                observe(&disk)
            } else {
                open(&disk).unwrap()
            };
            let tenant = &opened.1;
            assert_eq!(tenant.open_report().damage, [], "the segment was not read");
            let errors = |tenant: &Tenant| {
                let errors = tenant.read_all(base..).filter_map(Result::err);
                errors.map(|error| error.to_string()).collect::<Vec<_>>()
            };
            let told = errors(tenant);
            assert!(told[0].contains(&format!("{base:020}.seg")), "{told:?}");
            if at > 4096 {
                assert_eq!(told, errors(&before.1), "byte {at}");
            }
            let findings = tenant.verify().unwrap().findings;
            let of_all = observe(&bare(&disk)).1.verify().unwrap().findings;
            let located = |finding: &Finding| (finding.segment.clone(), finding.byte);
            assert_eq!(located(&findings[0]), located(&of_all[0]), "byte {at}");
            assert_eq!(findings[0].what, of_all[0].what, "byte {at}");
        }
    }
}

#[test]
fn an_unread_segment_of_another_log_is_not_read_for_this_one() {
    let (disk, other) = (four_segments(), four_segments_of(2));
    let path = segment(bases(&disk)[1]);
    assert_eq!(bases(&disk), bases(&other));
    replace(&disk, &path, &other.contents(&path));
    let (_db, tenant) = open(&disk).unwrap();
    assert!(begun_at(&tenant) > 0);
    let told = tenant.read_position(bases(&disk)[1].into()).unwrap_err();
    assert!(told.to_string().contains("another log"), "{told}");
    let findings = tenant.verify().unwrap().findings;
    assert!(findings[0].what.contains("another log"), "{findings:?}");
}

#[test]
fn every_kind_of_byte_of_an_unread_segment_is_verified() {
    let disk = four_segments();
    let base = bases(&disk)[1];
    let bytes = u64::try_from(disk.contents(segment(base)).len()).unwrap();
    let mut rng = Rng::new(5);
    let random = (0..60).map(|_| rng.below(bytes)).collect::<Vec<_>>();
    for at in random.into_iter().chain([0, 8, 60, 4095, 4096, bytes - 1]) {
        let disk = disk.twin();
        let (_db, tenant) = open(&disk).unwrap();
        disk.flip(segment(base), at, 1);
        let report = tenant.verify().unwrap();
        assert!(!report.is_sound(), "byte {at}");
    }
    let (_db, tenant) = open(&disk.twin()).unwrap();
    assert!(begun_at(&tenant) > 0 && tenant.verify().unwrap().is_sound());
}

#[test]
fn an_unread_segment_that_has_lost_its_free_space_is_not_sound() {
    let disk = four_segments();
    let path = segment(bases(&disk)[1]);
    let bytes = disk.contents(&path);
    for changed in [&bytes[..bytes.len() - 8], &[&bytes[..], &[0; 8]].concat()] {
        let disk = disk.twin();
        let (_db, tenant) = open(&disk).unwrap();
        replace(&disk, &path, changed);
        let report = tenant.verify().unwrap();
        assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
    }
}

#[test]
fn no_snapshot_passes_over_a_segment_without_its_seal() {
    let disk = four_segments();
    let seal = segment(bases(&disk)[1]).with_extension("seal");
    let before = snapshot_of(&disk);
    let (_db, tenant) = open(&disk).unwrap();
    disk.remove(&seal).unwrap();
    append(&tenant, "s1", 1, 1);
    tenant.checkpoint().unwrap();
    assert_eq!(snapshot_of(&disk), before);
}

#[test]
fn a_seal_that_is_damaged_or_wrong_costs_time_alone() {
    let disk = four_segments();
    let bases = bases(&disk);
    let seal = segment(bases[1]).with_extension("seal");
    let read = |tenant: &Tenant| tenant.read_all(..).map(Result::unwrap).collect::<Vec<_>>();
    let expected = read(&open(&disk.twin()).unwrap().1);
    let mut wrong = disk.contents(&seal);
    // The last entry of the index points to the middle of a frame.
    let entry = wrong.len() - 32 - 4;
    wrong[entry] ^= 1;
    let body = wrong.len() - 32;
    let digest = internal_hash(&wrong[..body]);
    wrong[body..].copy_from_slice(digest.as_bytes());
    let mut damaged = disk.contents(&seal);
    damaged[200] ^= 1;
    for (name, bytes) in [("wrong", wrong), ("damaged", damaged)] {
        let disk = disk.twin();
        replace(&disk, &seal, &bytes);
        let (_db, tenant) = open(&disk).unwrap();
        assert!(begun_at(&tenant) > 0, "{name}");
        assert_eq!(read(&tenant), expected, "{name}");
    }
    let missing = disk.twin();
    missing.remove(&seal).unwrap();
    let (_db, observed) = observe(&missing);
    assert_eq!(read(&observed), expected);
    // A writer reads such a log as a whole, and makes the seal again.
    let (_db, tenant) = open(&missing).unwrap();
    assert_eq!(begun_at(&tenant), 0);
    assert_eq!(missing.contents(&seal), disk.contents(&seal));
}

#[test]
fn an_observer_begins_at_the_snapshot_and_sees_what_is_new() {
    let disk = four_segments();
    let (_db, with) = observe(&disk);
    let (_bare_db, without) = observe(&bare(&disk));
    assert!(begun_at(&with) > 0 && begun_at(&without) == 0);
    assert_eq!(with.streams().unwrap(), without.streams().unwrap());
    assert_eq!(
        with.inspect().unwrap().segments,
        without.inspect().unwrap().segments
    );
    assert_eq!(
        with.inspect().unwrap().sessions,
        without.inspect().unwrap().sessions
    );
    assert!(!with.has_grown().unwrap());
    let (_writer, tenant) = open(&disk).unwrap();
    append(&tenant, "s1", 1, 1);
    assert!(with.has_grown().unwrap());
    let index = |tenant: &Tenant| tenant.stats().unwrap().index_bytes;
    assert!(index(&with) < index(&without), "no old segment was read");
}

#[test]
fn a_group_that_ends_at_the_snapshot_may_be_the_last() {
    let disk = SimulatedDisk::new(1);
    let db = builder(&disk, 1).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    append(&tenant, "s1", 3, 10);
    let size = tenant.checkpoint().unwrap().size();
    drop((tenant, db));
    // No watermark stands behind it yet.
    assert_eq!(compare(&disk, "the last group"), size);
    let (db, _tenant) = open(&disk).unwrap();
    db.close().unwrap();
    assert_eq!(compare(&disk, "with a watermark"), size);
}
