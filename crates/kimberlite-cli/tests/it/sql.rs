//! Asking the tables of a projection.

use kimberlite::{Database, Event, ExpectedVersion};
use serde_json::json;

use crate::shell::Shell;

const MAPPING: &str = r#"{"tables": [{
    "name": "notes",
    "key": ["id"],
    "columns": [
        {"name": "id", "type": "text", "from": "$stream"},
        {"name": "n", "type": "integer", "from": "/n"},
        {"name": "raw", "type": "blob", "from": "$data"}
    ],
    "on": [{"types": ["noted"], "do": "upsert"}]
}]}"#;

fn written() -> Shell {
    let shell = Shell::new();
    shell.write("mapping.json", MAPPING);
    for (stream, data) in [("a", "{\"n\":1}"), ("b", "{\"n\":2}"), ("a", "{\"n\":3}")] {
        shell.append(stream, data);
    }
    shell
}

const SUM: &str = "SELECT sum(n) AS total FROM notes";

#[test]
fn a_projection_is_made_by_its_mapping_and_asked_without_it() {
    let shell = written();
    let refused = shell.run(&["sql", "-t", "t", SUM]);
    assert_eq!(refused.code, 3, "{}", refused.stderr);
    assert!(refused.stderr.contains("--mapping"), "{}", refused.stderr);
    let made = shell.json(&["sql", "-t", "t", "--mapping", "mapping.json", SUM]);
    assert_eq!(made, [json!({"total": 5})]);
    shell.append("c", "{\"n\":10}");
    assert_eq!(shell.json(&["sql", "-t", "t", SUM]), [json!({"total": 15})]);
    let select = "SELECT id, n, raw, NULL AS absent, 1.5 AS real FROM notes WHERE id = 'c'";
    let row = json!({"id": "c", "n": 10, "raw": "7b226e223a31307d", "absent": null, "real": 1.5});
    assert_eq!(shell.json(&["sql", "-t", "t", select]), [row]);
    let text = shell.lines(&["sql", "-t", "t", "SELECT id, n FROM notes ORDER BY n"]);
    let cells = |line: &String| {
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert!(
        text.iter().any(|line| cells(line) == ["id", "n"]),
        "{text:?}"
    );
    assert!(
        text.iter().any(|line| cells(line) == ["c", "10"]),
        "{text:?}"
    );
    let verified = &shell.json(&["verify", "-t", "t"])[0];
    assert_eq!(verified["sound"], true);
}

#[test]
fn the_tables_as_of_a_position_are_derived_for_one_statement() {
    let shell = written();
    let positions = shell.json(&["read", "-t", "t"]);
    let third = positions[2]["position"].to_string();
    let ask = |more: &[&str]| {
        let command = ["sql", "-t", "t", "--mapping", "mapping.json", SUM];
        shell.json(&[&command, more].concat())
    };
    assert_eq!(ask(&["--as-of", &third]), [json!({"total": 3})]);
    assert_eq!(ask(&["--as-of", "0"]), [json!({"total": null})]);
    assert!(!shell.path("db/tenants/t/projections/sql").exists());
    assert_eq!(ask(&[]), [json!({"total": 5})]);
    let stored = shell.json(&["sql", "-t", "t", SUM, "--as-of", &third]);
    assert_eq!(stored, [json!({"total": 3})]);
    let beyond = shell.run(&["sql", "-t", "t", SUM, "--as-of", "1000000"]);
    assert_eq!(beyond.code, 1);
    assert!(
        beyond.stderr.contains("the log ends at position"),
        "{}",
        beyond.stderr
    );
}

#[test]
fn beside_a_writer_the_file_is_read_as_it_is() {
    let shell = written();
    let mapping = ["--mapping", "mapping.json"];
    let sql = |more: &[&str]| shell.run(&[&["sql", "-t", "t", "--json", SUM], more].concat());
    let db = Database::open(shell.db()).unwrap();
    let stream = db.tenant("t").unwrap().stream("d").unwrap();
    let missing = sql(&mapping);
    assert_eq!(missing.code, 4);
    assert!(
        missing
            .stderr
            .contains("another process has the database open"),
        "{}",
        missing.stderr
    );
    drop(stream);
    db.close().unwrap();
    assert_eq!(sql(&mapping).stdout, "{\"total\":5}\n");
    let db = Database::open(shell.db()).unwrap();
    let stream = db.tenant("t").unwrap().stream("d").unwrap();
    let event = Event::new("noted", "{\"n\": 100}");
    stream.append(ExpectedVersion::Any, &[event]).unwrap();
    let stale = sql(&mapping);
    assert_eq!((stale.code, stale.stdout.as_str()), (0, "{\"total\":5}\n"));
    assert!(stale.stderr.contains("before position"), "{}", stale.stderr);
    let end = db.tenant("t").unwrap().durable_position().to_string();
    let derived = sql(&[&mapping[..], &["--as-of", &end]].concat());
    assert_eq!(derived.stdout, "{\"total\":105}\n");
    shell.write("other.json", &MAPPING.replace("upsert", "insert"));
    assert_eq!(sql(&["--mapping", "other.json"]).code, 4);
}

#[test]
fn what_cannot_be_asked_says_why() {
    let shell = written();
    let check = |mapping: &str, statement: &str, code: i32, said: &str| {
        let ran = shell.run(&["sql", "-t", "t", "--mapping", mapping, statement]);
        assert_eq!(ran.code, code, "{}", ran.stderr);
        assert!(ran.stderr.contains(said), "{}", ran.stderr);
    };
    check(
        "mapping.json",
        "DELETE FROM notes",
        1,
        "only statements that read",
    );
    check(
        "mapping.json",
        "SELECT x FROM notes",
        1,
        "no such column: x",
    );
    check("nothing.json", SUM, 1, "cannot read nothing.json");
    shell.write("no.json", "{}");
    check("no.json", SUM, 1, "missing field `tables`");
    shell.write("key.json", &MAPPING.replace("[\"id\"]", "[]"));
    check("key.json", SUM, 1, "it has no key");
    let unknown = shell.run(&["sql", "-t", "nobody", "--mapping", "mapping.json", SUM]);
    assert_eq!(unknown.code, 3);
    // What an event says does not steer the terminal.
    shell.append("\u{2588}", "{\"n\": 1}");
    let escaped = shell.lines(&[
        "sql",
        "-t",
        "t",
        "--mapping",
        "mapping.json",
        "SELECT 'a' || char(27) || 'b'",
    ]);
    assert!(
        escaped.iter().any(|line| line.contains("a\\u{1b}b")),
        "{escaped:?}"
    );
    let damaged = shell.path("db/tenants/t/projections/sql/data.sqlite");
    std::fs::write(damaged, "no database at all").unwrap();
    assert_eq!(shell.run(&["sql", "-t", "t", SUM]).code, 6);
    check("mapping.json", "SELECT 1", 0, "");
}
