//! Projections into `SQLite` beside a database, over its public face.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests fail by panicking, and look at files by themselves"
)]

use std::path::{Path, PathBuf};

use kimberlite::projection::FollowerState;
use kimberlite::{Database, Event, ExpectedVersion, Position, PurgeOptions, Tenant};
use kimberlite_projection_sqlite::{
    Answer, ColumnType, Error, Mapping, Reader, Rule, SqliteProjection, Table, Value,
};
use kimberlite_testkit::Rng;
use tempfile::TempDir;

const SEEDS: u64 = 6;

struct Clinic {
    dir: TempDir,
}

impl Clinic {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("db")
    }

    fn open(&self) -> (Database, Tenant) {
        let db = Database::open(self.path()).unwrap();
        let tenant = db.tenant("t").unwrap();
        (db, tenant)
    }

    /// The directory of the projection `p`.
    fn files(&self) -> PathBuf {
        let name = "t".parse_name();
        let link = SqliteProjection::path_in(&self.path(), &name, "p");
        link.parent().unwrap().to_path_buf()
    }

    fn file_names(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.files()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names = names.collect::<Vec<_>>();
        names.sort();
        names
    }

    fn has(&self, what: &str) -> bool {
        let mut files = self
            .file_names()
            .into_iter()
            .filter(|name| name != "data.sqlite");
        files.any(|name| {
            let bytes = std::fs::read(self.files().join(name)).unwrap();
            bytes.windows(what.len()).any(|it| it == what.as_bytes())
        })
    }
}

trait ParseName {
    fn parse_name(&self) -> kimberlite::TenantName;
}

impl ParseName for str {
    fn parse_name(&self) -> kimberlite::TenantName {
        kimberlite::TenantName::new(self).unwrap()
    }
}

fn mapping() -> Mapping {
    Mapping::new([
        Table::new("notes")
            .key(["id"])
            .column("id", ColumnType::Text, "$stream")
            .column("text", ColumnType::Text, "/text")
            .column("number", ColumnType::Integer, "/number")
            .on(Rule::upsert(["noted"]))
            .on(Rule::delete(["gone"])),
        Table::new("log")
            .key(["at"])
            .column("at", ColumnType::Integer, "$position")
            .column("data", ColumnType::Blob, "$data")
            .on(Rule::insert([""; 0])),
    ])
    .unwrap()
}

fn append(tenant: &Tenant, stream: &str, event_type: &str, data: String) -> Position {
    let stream = tenant.stream(stream).unwrap();
    let event = Event::new(event_type, data);
    let receipt = stream.append(ExpectedVersion::Any, &[event]).unwrap();
    receipt.last_position()
}

fn note(tenant: &Tenant, stream: &str, text: &str) -> Position {
    let data = format!("{{\"text\": \"{text}\"}}");
    append(tenant, stream, "noted", data)
}

/// All that the tables say.
fn dump(reader: &Reader) -> Vec<Answer> {
    let tables = [
        "SELECT * FROM notes ORDER BY id",
        "SELECT * FROM log ORDER BY at",
        "SELECT * FROM _kimberlite_skipped ORDER BY number",
        "SELECT skipped FROM _kimberlite",
    ];
    tables.map(|sql| reader.query(sql, &[]).unwrap()).to_vec()
}

fn text(reader: &Reader, id: &str) -> Vec<Vec<Value>> {
    let sql = "SELECT text FROM notes WHERE id = ?1";
    reader.query(sql, &[id.into()]).unwrap().rows
}

#[test]
fn a_projection_follows_the_log_and_goes_on_after_closing() {
    let clinic = Clinic::new();
    let (db, tenant) = clinic.open();
    note(&tenant, "a", "before");
    let projection = SqliteProjection::open(&tenant, "p", &mapping()).unwrap();
    let at = note(&tenant, "b", "after");
    projection.wait_for(at).unwrap();
    let reader = projection.reader().unwrap();
    assert_eq!(text(&reader, "a"), [["before".into()]]);
    assert_eq!(text(&reader, "b"), [["after".into()]]);
    assert_eq!(projection.path(), clinic.files().join("data.sqlite"));
    let at = append(&tenant, "a", "gone", String::new());
    projection.wait_for(at).unwrap();
    assert_eq!(text(&reader, "a"), [[Value::Null; 1]; 0]);
    assert_eq!(reader.applied().unwrap().get(), at.get() + 1);
    assert_eq!(reader.mapping().unwrap(), mapping());
    drop((projection, tenant));
    db.close().unwrap();
    let (_db, tenant) = clinic.open();
    let projection = SqliteProjection::open(&tenant, "p", &mapping()).unwrap();
    projection.wait_for(note(&tenant, "a", "again")).unwrap();
    assert_eq!(text(&reader, "a"), [["again".into()]]);
    assert_eq!(clinic.file_names()[0], "data-1.sqlite");
}

#[test]
fn one_that_is_rebuilt_is_as_the_one_that_followed_also_over_purges() {
    for seed in 0..SEEDS {
        let clinic = Clinic::new();
        let (_db, tenant) = clinic.open();
        let projection = SqliteProjection::open(&tenant, "p", &mapping()).unwrap();
        let mut rng = Rng::new(seed);
        let mut at = Position::ZERO;
        for round in 0..60_u32 {
            let stream = format!("s{}", rng.below(6));
            at = match rng.below(12) {
                0 => append(&tenant, &stream, "gone", "{}".to_owned()),
                1 => append(&tenant, &stream, "noted", "{".to_owned()),
                2 => append(&tenant, &stream, "noted", "{\"number\": 1.5}".to_owned()),
                3 if round > 20 => {
                    let until = Position::new(rng.below(at.get()));
                    let options = PurgeOptions::new(until);
                    let options = if rng.chance(1, 2) {
                        options.stream(&stream)
                    } else {
                        options
                    };
                    let _ = tenant.purge(&options, &mut |_| ());
                    note(&tenant, &stream, "after a purge")
                }
                number => {
                    let data = format!("{{\"number\": {number}, \"text\": \"{round}\"}}");
                    append(&tenant, &stream, "noted", data)
                }
            };
            if rng.chance(1, 4) {
                projection.wait_for(at).unwrap();
            }
        }
        projection.wait_for(at).unwrap();
        let followed = dump(&projection.reader().unwrap());
        let end = Position::new(at.get() + 1);
        let scratch = Reader::as_of(&tenant, &mapping(), end, &mut |_| {}).unwrap();
        assert_eq!(dump(&scratch), followed, "seed {seed}");
        projection.rebuild().unwrap();
        projection.wait_for(note(&tenant, "s0", "last")).unwrap();
        while !matches!(projection.status().state, FollowerState::Following) {
            std::thread::yield_now();
        }
        let other = SqliteProjection::open(&tenant, "q", &mapping()).unwrap();
        other.wait_for(Position::new(at.get() + 1)).unwrap();
        let rebuilt = dump(&projection.reader().unwrap());
        assert_eq!(rebuilt, dump(&other.reader().unwrap()), "seed {seed}");
    }
}

#[test]
fn a_purge_leaves_nothing_of_what_it_removed_in_the_files() {
    let clinic = Clinic::new();
    let (_db, tenant) = clinic.open();
    let projection = SqliteProjection::open(&tenant, "p", &mapping()).unwrap();
    let secret = "nobody should remember this";
    note(&tenant, "a", secret);
    let kept = note(&tenant, "b", "this is kept");
    projection.wait_for(kept).unwrap();
    projection.flush().unwrap();
    assert!(clinic.has(secret) && clinic.has("this is kept"));
    tenant.purge(&PurgeOptions::new(kept), &mut |_| ()).unwrap();
    projection.wait_for(note(&tenant, "c", "later")).unwrap();
    while !matches!(projection.status().state, FollowerState::Following) {
        std::thread::yield_now();
    }
    assert!(!clinic.has(secret) && clinic.has("this is kept"));
    let reader = projection.reader().unwrap();
    assert_eq!(text(&reader, "a"), [[Value::Null; 1]; 0]);
    assert_eq!(text(&reader, "b"), [["this is kept".into()]]);
    let names = clinic.file_names();
    assert!(
        names
            .iter()
            .all(|name| name.starts_with("data-2.") || name == "data.sqlite")
    );
}

#[test]
fn another_mapping_and_a_damaged_file_are_derived_anew() {
    let clinic = Clinic::new();
    let (db, tenant) = clinic.open();
    let at = note(&tenant, "a", "one");
    let open = |tenant: &Tenant, mapping: &Mapping| {
        let projection = SqliteProjection::open(tenant, "p", mapping).unwrap();
        projection.wait_for(at).unwrap();
        while !matches!(projection.status().state, FollowerState::Following) {
            std::thread::yield_now();
        }
        projection
    };
    drop(open(&tenant, &mapping()));
    let names = Mapping::new([Table::new("names")
        .key(["id"])
        .column("id", ColumnType::Text, "$stream")
        .on(Rule::upsert([""; 0]))]);
    let projection = open(&tenant, &names.unwrap());
    let answer = projection.query("SELECT id FROM names", &[]).unwrap();
    assert_eq!(answer.rows, [["a".into()]]);
    assert!(projection.query("SELECT * FROM notes", &[]).is_err());
    drop(projection);
    drop(open(&tenant, &mapping()));
    assert_eq!(clinic.file_names(), ["data-3.sqlite", "data.sqlite"]);
    let file = clinic.files().join("data-3.sqlite");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[..100].fill(0xee);
    std::fs::write(&file, bytes).unwrap();
    let error = Reader::open(&file).unwrap_err();
    assert!(matches!(error, Error::NotAProjection { .. }), "{error:?}");
    let projection = open(&tenant, &mapping());
    assert_eq!(text(&projection.reader().unwrap(), "a"), [["one".into()]]);
    // A directory that was lost is made again.
    drop(projection);
    std::fs::remove_dir_all(clinic.files()).unwrap();
    let projection = open(&tenant, &mapping());
    assert_eq!(text(&projection.reader().unwrap(), "a"), [["one".into()]]);
    drop((projection, tenant));
    db.close().unwrap();
}

#[test]
fn the_tables_as_of_a_position_are_those_that_were_there_then() {
    let clinic = Clinic::new();
    let (_db, tenant) = clinic.open();
    let projection = SqliteProjection::open(&tenant, "p", &mapping()).unwrap();
    let mut rng = Rng::new(1);
    let mut then = Vec::new();
    for number in 0..40_u32 {
        let stream = format!("s{}", rng.below(5));
        let at = match rng.below(6) {
            0 => append(&tenant, &stream, "gone", "{}".to_owned()),
            1 => append(&tenant, &stream, "noted", "no JSON".to_owned()),
            _ => note(&tenant, &stream, &number.to_string()),
        };
        projection.wait_for(at).unwrap();
        then.push((at, dump(&projection.reader().unwrap())));
    }
    let observer = Database::builder(clinic.path())
        .read_only(true)
        .open()
        .unwrap();
    let observed = observer.existing_tenant("t").unwrap();
    for (at, tables) in then {
        let end = Position::new(at.get() + 1);
        let mut seen = Position::ZERO;
        let mapping = mapping();
        let scratch = Reader::as_of(&observed, &mapping, end, &mut |at| seen = at).unwrap();
        assert_eq!(dump(&scratch), tables, "{at}");
        assert_eq!((scratch.applied().unwrap(), seen), (end, end));
    }
    let end = Position::new(observed.durable_position().get() + 1);
    let error = Reader::as_of(&observed, &mapping(), end, &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::BehindEnd { .. }), "{error:?}");
}

#[test]
fn only_reading_is_done_for_who_asks() {
    let clinic = Clinic::new();
    let (_db, tenant) = clinic.open();
    let projection = SqliteProjection::open(&tenant, "p", &mapping()).unwrap();
    let at = note(&tenant, "a", "one");
    projection.wait_for(at).unwrap();
    let live = projection.reader().unwrap();
    let end = Position::new(at.get() + 1);
    let scratch = Reader::as_of(&tenant, &mapping(), end, &mut |_| {}).unwrap();
    let outside = clinic.dir.path().join("outside");
    let attach = format!("ATTACH '{}' AS outside", outside.display());
    let vacuum = format!("VACUUM INTO '{}'", outside.display());
    for reader in [&live, &scratch] {
        let before = dump(reader);
        for sql in [
            "DELETE FROM notes",
            "INSERT INTO log VALUES (1, x'')",
            "CREATE TABLE t (a)",
            "DROP TABLE notes",
            "UPDATE _kimberlite SET position = 0",
            "SELECT 1; DELETE FROM notes",
            "WITH x AS (SELECT 1) DELETE FROM notes",
            &attach,
            &vacuum,
            "nonsense",
            "",
            "SELECT * FROM nothing",
            "SELECT load_extension('x')",
            "SELECT ?1",
        ] {
            let refused = reader.query(sql, &[]);
            assert!(refused.is_err() || sql.is_empty(), "{sql}: {refused:?}");
        }
        for sql in ["DELETE FROM notes", "CREATE TABLE t (a)"] {
            let refused = reader.query(sql, &[]);
            assert!(
                matches!(refused, Err(kimberlite_projection_sqlite::Error::Writes)),
                "{sql}: {refused:?}"
            );
        }
        assert_eq!(dump(reader), before);
        assert!(!outside.exists());
        let answer = reader
            .query("SELECT 1 AS one, x'0102', 1.5, NULL WHERE 0", &[])
            .unwrap();
        assert_eq!(
            (answer.columns[0].as_str(), answer.columns.len()),
            ("one", 4)
        );
        let answer = reader.query(
            "SELECT ?1, ?2, ?3, ?4",
            &[Value::Null, 2.into(), Value::Blob(vec![3]), 1.5.into()],
        );
        let expected = [
            Value::Null,
            Value::Integer(2),
            Value::Blob(vec![3]),
            Value::Real(1.5),
        ];
        assert_eq!(answer.unwrap().rows, [expected]);
    }
    let missing = Reader::open(Path::new("/nonexistent/data.sqlite")).unwrap_err();
    assert!(matches!(missing, Error::NoFile { .. }), "{missing:?}");
}
