//! The files after each step, compared with a model that is told the same events.

#![expect(
    clippy::disallowed_methods,
    reason = "the files are looked at, copied and damaged by hand"
)]

mod left;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kimberlite::projection::{Content, Event};
use kimberlite::{ChainHash, Database, Offset, Position, StreamId, Timestamp};
use kimberlite_testkit::{Rng, SimulatedDisk};
use serde_json::Value as Json;
use tempfile::TempDir;

use super::*;
use crate::mapping::{ColumnType, Mapping, Rule, Table};
use crate::reader::{Reader, Value};

type Prefix = fn(Applied) -> bool;
type Damage = fn(&mut Vec<u8>);

const SEEDS: u64 = 4;
const EVENTS: usize = 300;

fn mapping() -> Mapping {
    let patients = Table::new("patients")
        .key(["id"])
        .column("id", ColumnType::Text, "$stream")
        .column("ward", ColumnType::Integer, "/ward")
        .column("name", ColumnType::Text, "/name")
        .index(["ward"])
        .on(Rule::upsert(["set"]))
        .on(Rule::delete(["gone"]));
    let log = Table::new("log")
        .key(["at"])
        .column("at", ColumnType::Integer, "$position")
        .column("id", ColumnType::Text, "$stream")
        .on(Rule::insert(["set", "gone"]));
    Mapping::new([patients, log]).unwrap()
}

fn plan() -> Arc<Plan> {
    Arc::new(Plan::new(&mapping()))
}

/// Two identities of the same log.
fn identities() -> [Identity; 2] {
    let db = Database::builder("/db")
        .disk(Arc::new(SimulatedDisk::new(1)))
        .background(false)
        .open()
        .unwrap();
    let tenant = db.tenant("t").unwrap();
    ["one", "two"].map(|name| {
        let seen = RefCell::new(None);
        let refused = tenant.project_into((name, 1), |place| {
            *seen.borrow_mut() = Some(place.identity);
            Err::<SqliteTarget, _>(TargetError::Failed {
                position: Position::ZERO,
                source: "only the identity is wanted".into(),
            })
        });
        refused.unwrap_err();
        seen.take().unwrap()
    })
}

/// What an event of the workload does.
#[derive(Clone, Debug)]
enum Said {
    /// Fields that are not there, and a name that is null.
    Set(String, Option<i64>, Option<Json>),
    Gone(String),
    Garbage(String),
    Other(String),
    Purged(String),
}

impl Said {
    fn stream(&self) -> &str {
        match self {
            Self::Set(stream, ..)
            | Self::Gone(stream)
            | Self::Garbage(stream)
            | Self::Other(stream)
            | Self::Purged(stream) => stream,
        }
    }

    fn data(&self) -> String {
        let Self::Set(_, ward, name) = self else {
            return match self {
                Self::Garbage(_) => r#"{"ward": "three""#.to_owned(),
                _ => "{}".to_owned(),
            };
        };
        let mut fields = serde_json::Map::new();
        if let Some(ward) = ward {
            fields.insert("ward".to_owned(), (*ward).into());
        }
        if let Some(name) = name {
            fields.insert("name".to_owned(), name.clone());
        }
        Json::from(fields).to_string()
    }
}

fn history(seed: u64) -> Vec<Said> {
    let mut rng = Rng::new(seed);
    let said = (0..EVENTS).map(|_| {
        let stream = format!("patient/{}", rng.below(20));
        match rng.below(12) {
            0 => Said::Gone(stream),
            1 => Said::Garbage(stream),
            2 => Said::Other(stream),
            3 => Said::Purged(stream),
            _ => {
                let ward = rng
                    .chance(2, 3)
                    .then(|| i64::try_from(rng.below(9)).unwrap());
                let name = rng.chance(1, 2).then(|| {
                    let length = usize::try_from(rng.below(300)).unwrap();
                    rng.chance(3, 4).then(|| "n".repeat(length)).into()
                });
                Said::Set(stream, ward, name)
            }
        }
    });
    said.collect()
}

/// What the tables say.
#[derive(Debug, Default, PartialEq)]
struct Tables {
    patients: BTreeMap<String, (Option<i64>, Option<String>)>,
    log: Vec<(i64, String)>,
    skipped: Vec<i64>,
}

/// What they should say after these events.
fn model(said: &[Said]) -> Tables {
    let mut tables = Tables::default();
    for (said, at) in said.iter().zip(0..) {
        match said {
            Said::Set(stream, ward, name) => {
                let row = tables.patients.entry(stream.clone()).or_default();
                row.0 = ward.or(row.0);
                if let Some(name) = name {
                    row.1 = name.as_str().map(str::to_owned);
                }
            }
            Said::Gone(stream) => drop(tables.patients.remove(stream)),
            Said::Garbage(_) => tables.skipped.push(at),
            Said::Other(_) | Said::Purged(_) => continue,
        }
        tables.log.push((at, said.stream().to_owned()));
    }
    tables
}

fn read(path: &Path) -> (usize, Tables) {
    let reader = Reader::open(path).unwrap();
    let mut tables = Tables::default();
    let each = |sql: &str, take: &mut dyn FnMut(Vec<Value>)| {
        reader
            .query_each::<crate::Error>(sql, &[], |_, row| {
                take(row);
                Ok(())
            })
            .unwrap();
    };
    each("SELECT id, ward, name FROM patients", &mut |row| {
        let ward = match row[1] {
            Value::Integer(ward) => Some(ward),
            _ => None,
        };
        let name = match &row[2] {
            Value::Text(name) => Some(name.clone()),
            _ => None,
        };
        tables.patients.insert(text(&row[0]), (ward, name));
    });
    each("SELECT at, id FROM log ORDER BY at", &mut |row| {
        tables.log.push((integer(&row[0]), text(&row[1])));
    });
    let skipped = "SELECT position FROM _kimberlite_skipped ORDER BY number";
    each(skipped, &mut |row| tables.skipped.push(integer(&row[0])));
    let check = reader.query("PRAGMA integrity_check", &[]).unwrap();
    assert_eq!(check.rows, [[Value::from("ok")]]);
    let applied = reader.applied().unwrap().get();
    (usize::try_from(applied).unwrap(), tables)
}

fn text(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        other => panic!("{other:?}"),
    }
}

fn integer(value: &Value) -> i64 {
    match value {
        Value::Integer(value) => *value,
        other => panic!("{other:?}"),
    }
}

fn at(position: usize) -> Applied {
    let position = u64::try_from(position).unwrap();
    Applied {
        position: Position::new(position),
        chain: ChainHash::new([u8::try_from(position % 251).unwrap(); 32]),
    }
}

/// Whether it is a state of the history that all tests have.
fn is_prefix(applied: Applied) -> bool {
    let position = usize::try_from(applied.position.get()).unwrap();
    position == 0 || applied == at(position)
}

/// Gives a target the events from where it is up to `end`.
fn feed(target: &mut SqliteTarget, said: &[Said], end: usize) -> Result<(), TargetError> {
    let first = usize::try_from(target.applied().position.get()).unwrap();
    let said = &said[first..end];
    let data = said.iter().map(Said::data).collect::<Vec<_>>();
    let events = said
        .iter()
        .zip(&data)
        .zip(first..)
        .map(|((said, data), position)| Event {
            position: at(position).position,
            stream: said.stream(),
            stream_id: StreamId::new(Position::new(1)),
            offset: Offset::new(0),
            time: Timestamp::default(),
            content: match said {
                Said::Purged(_) => Content::Purged,
                said => Content::Payload {
                    event_type: match said {
                        Said::Other(_) => "other",
                        Said::Gone(_) => "gone",
                        _ => "set",
                    },
                    metadata: b"",
                    data: data.as_bytes(),
                },
            },
        });
    let events = events.collect::<Vec<_>>();
    target.apply(&Batch::new(at(first).position, &events, at(end)).unwrap())
}

struct Scratch {
    dir: TempDir,
    identities: [Identity; 2],
}

impl Scratch {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            identities: identities(),
        }
    }

    fn open(&self) -> SqliteTarget {
        self.open_as(0, plan(), &is_prefix)
    }

    fn open_as(
        &self,
        identity: usize,
        plan: Arc<Plan>,
        is_prefix: &dyn Fn(Applied) -> bool,
    ) -> SqliteTarget {
        let identity = self.identities[identity];
        SqliteTarget::open(self.dir.path(), identity, plan, is_prefix).unwrap()
    }

    fn link(&self) -> PathBuf {
        Generations::new(self.dir.path()).link()
    }

    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.dir.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names = names.collect::<Vec<_>>();
        names.sort();
        names
    }

    #[track_caller]
    fn check(&self, said: &[Said]) {
        let (applied, tables) = read(&self.link());
        assert_eq!(applied, said.len());
        assert_eq!(tables, model(said));
    }
}

#[test]
fn however_the_log_is_cut_into_batches_the_tables_are_the_same() {
    for seed in 0..SEEDS {
        let said = history(seed);
        let mut rng = Rng::new(seed);
        for batch_max in [1, 7, 50, EVENTS] {
            let scratch = Scratch::new();
            let mut target = scratch.open();
            let mut end = 0;
            while end < EVENTS {
                end = EVENTS.min(end + 1 + rng.index(batch_max));
                feed(&mut target, &said, end).unwrap();
                if rng.chance(1, 20) {
                    target.flush().unwrap();
                }
            }
            scratch.check(&said);
        }
    }
}

/// A copy of the files at any moment is what a kill leaves; with less of the write-ahead log, or with a
/// tail that is something else, it is what power loss may leave.
#[test]
fn a_copy_at_any_moment_holds_exactly_a_prefix_and_goes_on() {
    for seed in 0..SEEDS {
        let said = history(seed);
        let mut rng = Rng::new(seed);
        let scratch = Scratch::new();
        let mut target = scratch.open();
        let (mut ends, mut flushed) = (vec![0], 0);
        while *ends.last().unwrap() < EVENTS {
            let end = EVENTS.min(ends.last().unwrap() + 1 + rng.index(40));
            feed(&mut target, &said, end).unwrap();
            ends.push(end);
            if rng.chance(1, 4) {
                target.flush().unwrap();
                flushed = end;
            }
            let killed = copy(&scratch);
            killed.check(&said[..end]);
            drop(killed.open());
            killed.check(&said[..end]);

            let torn = copy(&scratch);
            let wal = torn.dir.path().join("data-1.sqlite-wal");
            let mut bytes = fs::read(&wal).unwrap();
            let cut = rng.index(bytes.len() + 1);
            if rng.chance(1, 2) {
                bytes.truncate(cut);
            } else {
                rng.fill(&mut bytes[cut..]);
            }
            fs::write(&wal, bytes).unwrap();
            let (applied, tables) = read(&torn.link());
            assert!(
                ends.contains(&applied) && applied >= flushed,
                "seed {seed}: {applied}"
            );
            assert_eq!(tables, model(&said[..applied]), "seed {seed} at {applied}");
            let mut target = torn.open();
            assert!(!target.is_rebuilding());
            feed(&mut target, &said, EVENTS).unwrap();
            torn.check(&said);
        }
    }
}

/// Copies the files, but not the memory that readers and writers of them share.
fn copy(scratch: &Scratch) -> Scratch {
    let copied = Scratch {
        dir: tempfile::tempdir().unwrap(),
        identities: scratch.identities,
    };
    for name in scratch
        .names()
        .iter()
        .filter(|name| !name.ends_with("-shm"))
    {
        let (from, to) = (scratch.dir.path().join(name), copied.dir.path().join(name));
        match fs::read_link(&from) {
            Ok(link) => std::os::unix::fs::symlink(link, to).unwrap(),
            Err(_) => drop(fs::copy(from, to).unwrap()),
        }
    }
    copied
}

#[test]
fn what_is_derived_from_something_else_is_read_until_it_was_derived_anew() {
    let said = history(1);
    let other = Mapping::new([Table::new("others")
        .key(["at"])
        .column("at", ColumnType::Integer, "$position")
        .on(Rule::insert([""; 0]))]);
    let other = Arc::new(Plan::new(&other.unwrap()));
    let cases: [(&str, usize, Arc<Plan>, Prefix); 3] = [
        ("another identity", 1, plan(), is_prefix),
        ("another mapping", 0, other, is_prefix),
        ("another history", 0, plan(), |applied| {
            applied.position == Position::ZERO
        }),
    ];
    for (what, identity, plan, is_prefix) in cases {
        let scratch = Scratch::new();
        feed(&mut scratch.open(), &said, 100).unwrap();
        let open = || scratch.open_as(identity, Arc::clone(&plan), &is_prefix);
        let target = open();
        assert!(target.is_rebuilding(), "{what}");
        assert_eq!(target.applied().position, Position::ZERO, "{what}");
        scratch.check(&said[..100]);
        drop(target);
        // What was being built is gone on with.
        let mut target = open();
        feed(&mut target, &said, 50).unwrap();
        drop(target);
        let is_known = |applied| is_prefix(applied) || applied == at(50);
        let mut target = scratch.open_as(identity, Arc::clone(&plan), &is_known);
        assert!(
            target.is_rebuilding() || what == "another history",
            "{what}"
        );
        scratch.check(&said[..100]);
        feed(&mut target, &said, 200).unwrap();
        target.caught_up().unwrap();
        assert!(!target.is_rebuilding(), "{what}");
        assert_eq!(
            Reader::open(&scratch.link())
                .unwrap()
                .applied()
                .unwrap()
                .get(),
            200
        );
        assert!(
            !scratch.names().contains(&"data-1.sqlite".to_owned()),
            "{what}"
        );
        drop(target);
        let is_known = |applied| is_prefix(applied) || applied == at(200);
        assert!(
            !scratch
                .open_as(identity, Arc::clone(&plan), &is_known)
                .is_rebuilding()
        );
    }
}

#[test]
fn a_crash_within_a_switch_leaves_the_old_file_or_the_new_one() {
    let said = history(2);
    let generations = |scratch: &Scratch| Generations::new(scratch.dir.path());
    let scratch = Scratch::new();
    feed(&mut scratch.open(), &said, 100).unwrap();
    let mut target = scratch.open();
    target.rebuild(scratch.identities[0]).unwrap();
    feed(&mut target, &said, 100).unwrap();
    target.flush().unwrap();
    // It is built, and not linked: the one that is there is good.
    let before = copy(&scratch);
    drop(before.open());
    before.check(&said[..100]);
    assert_eq!(generations(&before).all().unwrap(), [1]);
    // A new link was made, and not renamed.
    let linking = copy(&scratch);
    std::os::unix::fs::symlink("data-2.sqlite", linking.dir.path().join("data.sqlite.new"))
        .unwrap();
    drop(linking.open());
    linking.check(&said[..100]);
    let mut target = linking.open();
    target.rebuild(linking.identities[0]).unwrap();
    target.caught_up().unwrap();
    linking.check(&[]);
    // It is linked, and the old one not removed, or only half.
    for removed in ["", "data-1.sqlite", "data-1.sqlite-wal"] {
        let linked = copy(&scratch);
        generations(&linked).publish(2).unwrap();
        let _ = fs::remove_file(linked.dir.path().join(removed));
        drop(linked.open());
        linked.check(&said[..100]);
        assert_eq!(generations(&linked).all().unwrap(), [2], "{removed}");
    }
    // The first file was made, and not linked.
    let first = Scratch::new();
    drop(first.open());
    fs::remove_file(first.link()).unwrap();
    assert!(!first.open().is_rebuilding());
    first.check(&[]);
    // It was made and is empty.
    fs::write(first.dir.path().join("data-1.sqlite"), "").unwrap();
    let mut target = first.open();
    feed(&mut target, &said, 3).unwrap();
    target.caught_up().unwrap();
    first.check(&said[..3]);
}

#[test]
fn a_damaged_file_is_built_anew() {
    let said = history(3);
    let whole = Scratch::new();
    feed(&mut whole.open(), &said, EVENTS).unwrap();
    let bytes = fs::read(whole.dir.path().join("data-1.sqlite")).unwrap();
    let damage: [(&str, Damage); 5] = [
        ("no database", |bytes| bytes[..16].fill(b'x')),
        ("no first page", |bytes| bytes[16..4096].fill(0)),
        ("nothing behind the first page", |bytes| {
            bytes.truncate(4096);
        }),
        ("cut", |bytes| bytes.truncate(bytes.len() - 4096)),
        ("all pages but the first", |bytes| bytes[4096..].fill(0xa5)),
    ];
    for (what, damage) in damage {
        let scratch = copy(&whole);
        let mut damaged = bytes.clone();
        damage(&mut damaged);
        fs::write(scratch.dir.path().join("data-1.sqlite"), damaged).unwrap();
        let mut target = scratch.open();
        // What is not seen at once is seen where it is come across.
        let mut again = said.clone();
        again.extend(said.clone());
        if !target.is_rebuilding() {
            let error = feed(&mut target, &again, 2 * EVENTS).unwrap_err();
            assert!(
                matches!(error, TargetError::Damaged { .. }),
                "{what}: {error:?}"
            );
            target.rebuild(scratch.identities[0]).unwrap();
        }
        feed(&mut target, &said, EVENTS).unwrap();
        target.caught_up().unwrap();
        scratch.check(&said);
    }
}

#[test]
fn what_another_hand_has_changed_is_built_anew() {
    let said = history(4);
    for sql in [
        "UPDATE _kimberlite SET position = position + 1",
        "DELETE FROM _kimberlite",
        "DROP TABLE patients",
        "CREATE TRIGGER t BEFORE INSERT ON log BEGIN SELECT RAISE(ABORT, 'no'); END",
    ] {
        let scratch = Scratch::new();
        let mut target = scratch.open();
        feed(&mut target, &said, 100).unwrap();
        let hand = rusqlite::Connection::open(scratch.link()).unwrap();
        hand.execute_batch(sql).unwrap();
        drop(hand);
        let error = feed(&mut target, &said, EVENTS).unwrap_err();
        assert!(
            matches!(error, TargetError::Damaged { .. }),
            "{sql}: {error:?}"
        );
        assert_eq!(target.applied(), at(100));
        target.rebuild(scratch.identities[0]).unwrap();
        feed(&mut target, &said, EVENTS).unwrap();
        target.caught_up().unwrap();
        scratch.check(&said);
    }
}

#[test]
fn a_file_that_is_locked_for_long_is_tried_again() {
    let said = history(5);
    let scratch = Scratch::new();
    let mut target = scratch.open();
    feed(&mut target, &said, 100).unwrap();
    let hand = rusqlite::Connection::open(scratch.link()).unwrap();
    hand.execute_batch("BEGIN IMMEDIATE").unwrap();
    target.current.as_ref().unwrap().file.wait_not();
    let error = feed(&mut target, &said, EVENTS).unwrap_err();
    assert!(
        matches!(error, TargetError::Unavailable { .. }),
        "{error:?}"
    );
    hand.execute_batch("ROLLBACK").unwrap();
    assert_eq!(target.applied(), at(100));
    feed(&mut target, &said, EVENTS).unwrap();
    scratch.check(&said);
}

#[test]
fn a_file_for_which_there_is_no_space_is_tried_again() {
    let said = history(5);
    let scratch = Scratch::new();
    let mut target = scratch.open();
    target.current.as_ref().unwrap().file.bound_pages(1);
    let error = feed(&mut target, &said, EVENTS).unwrap_err();
    assert!(
        matches!(error, TargetError::Unavailable { .. }),
        "{error:?}"
    );
    let before = target.applied();
    let (rows, _) = read(&scratch.link());
    assert_eq!(at(rows), before, "nothing of the batch is there");
    target.current.as_ref().unwrap().file.bound_pages(u32::MAX);
    feed(&mut target, &said, EVENTS).unwrap();
    scratch.check(&said);
}

#[test]
fn readers_see_whole_batches_while_they_are_written() {
    let said = history(6);
    let scratch = Scratch::new();
    let mut target = scratch.open();
    let (link, ended) = (scratch.link(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let reader = Reader::open(&link).unwrap();
            let mut seen = Vec::new();
            while !ended.load(Ordering::Relaxed) {
                let sql = "SELECT position, (SELECT count(*) FROM log) FROM _kimberlite";
                let row = reader.query(sql, &[]).unwrap().rows.remove(0);
                let position = usize::try_from(integer(&row[0])).unwrap();
                let rows = usize::try_from(integer(&row[1])).unwrap();
                assert_eq!(rows, model(&said[..position]).log.len());
                seen.push(position);
            }
            assert!(seen.is_sorted(), "{seen:?}");
        });
        for end in (10..=EVENTS).step_by(10) {
            feed(&mut target, &said, end).unwrap();
            target.flush().unwrap();
            // It reads at least once for each.
            let _ = Reader::open(&scratch.link()).unwrap().applied().unwrap();
        }
        ended.store(true, Ordering::Relaxed);
        looking.join().unwrap();
    });
    scratch.check(&said);
}

#[test]
fn who_has_the_file_open_keeps_it_over_a_switch_and_disturbs_nothing() {
    let said = history(7);
    let scratch = Scratch::new();
    let mut target = scratch.open();
    feed(&mut target, &said, 100).unwrap();
    let old = Reader::open(&scratch.link()).unwrap();
    // One that may write, as other tools open files.
    let tool = rusqlite::Connection::open(scratch.link()).unwrap();
    let count = "SELECT count(*) FROM log";
    let before = old.query(count, &[]).unwrap();
    let held: i64 = tool.query_row(count, [], |row| row.get(0)).unwrap();
    target.rebuild(scratch.identities[0]).unwrap();
    feed(&mut target, &said, EVENTS).unwrap();
    target.caught_up().unwrap();
    assert_eq!(old.query(count, &[]).unwrap(), before);
    assert_eq!(held, integer(&before.rows[0][0]));
    drop((old, tool));
    scratch.check(&said);
    let left = scratch.names();
    assert!(
        left.iter().all(|name| !name.starts_with("data-1.sqlite")),
        "{left:?}"
    );
    drop(target);
    assert_eq!(scratch.names(), ["data-2.sqlite", "data.sqlite"]);
}

#[test]
fn the_files_are_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let scratch = Scratch::new();
    let mut target = scratch.open();
    feed(&mut target, &history(8), 10).unwrap();
    for name in scratch.names().iter().filter(|name| *name != "data.sqlite") {
        let mode = fs::metadata(scratch.dir.path().join(name))
            .unwrap()
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o600, "{name}");
    }
}

#[test]
fn what_was_deleted_is_not_in_the_file_after_a_flush() {
    let scratch = Scratch::new();
    let mut target = scratch.open();
    let secret = "kept for a while only";
    let stream = "patient/1".to_owned();
    let said = [
        Said::Set(stream.clone(), None, Some(secret.repeat(20).into())),
        Said::Gone(stream),
    ];
    let has_secret = || {
        let names = scratch.names();
        let mut files = names.iter().filter(|name| *name != "data.sqlite");
        files.any(|name| {
            let bytes = fs::read(scratch.dir.path().join(name)).unwrap();
            bytes
                .windows(secret.len())
                .any(|it| it == secret.as_bytes())
        })
    };
    feed(&mut target, &said, 1).unwrap();
    target.flush().unwrap();
    assert!(has_secret());
    feed(&mut target, &said, 2).unwrap();
    target.flush().unwrap();
    assert!(!has_secret());
}
