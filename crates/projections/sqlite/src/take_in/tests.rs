use kimberlite::projection::Content;
use kimberlite::{Offset, Position, StreamId, Timestamp};
use rusqlite::types::Value;

use super::*;
use crate::mapping::{ColumnType, Mapping, Rule, Table};

fn event<'a>(position: u64, event_type: &'a str, data: &'a [u8]) -> Event<'a> {
    Event {
        position: Position::new(position),
        stream: "patient/1",
        stream_id: StreamId::new(Position::new(1)),
        offset: Offset::new(position / 2),
        time: Timestamp::from_nanoseconds(1_700_000_000_000_000_000),
        content: Content::Payload {
            event_type,
            metadata: br#"{"user": "u1"}"#,
            data,
        },
    }
}

/// What a mapping makes of events: the rows of table `t`, and why events were passed over.
fn taken(table: Table, events: &[Event<'_>]) -> (Vec<Vec<Value>>, Vec<String>) {
    let plan = Plan::new(&Mapping::new([table]).unwrap());
    let connection = Connection::open_in_memory().unwrap();
    create(&connection, &plan, &[]).unwrap();
    let mut skipped = 0;
    take_in(&connection, &plan, events, &mut skipped).unwrap();
    let mut statement = connection.prepare("SELECT * FROM t").unwrap();
    let columns = statement.column_count();
    let row = |row: &rusqlite::Row<'_>| (0..columns).map(|nth| row.get(nth)).collect();
    let rows = statement
        .query_map([], row)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let mut statement = connection
        .prepare("SELECT why FROM _kimberlite_skipped ORDER BY number")
        .unwrap();
    let whys = statement.query_map([], |row| row.get(0)).unwrap();
    let whys = whys.map(Result::unwrap).collect::<Vec<String>>();
    assert_eq!(usize::try_from(skipped).unwrap(), whys.len());
    (rows, whys)
}

fn table(value_type: ColumnType, from: &str) -> Table {
    Table::new("t")
        .key(["id"])
        .column("id", ColumnType::Integer, "$position")
        .column("c", value_type, from)
        .on(Rule::upsert([""; 0]))
}

fn check(value_type: ColumnType, from: &str, data: &str, expected: Result<Value, &str>) {
    let (rows, whys) = taken(table(value_type, from), &[event(4, "e", data.as_bytes())]);
    match expected {
        Ok(value) => assert_eq!(
            (rows, whys.len()),
            (vec![vec![Value::Integer(4), value]], 0),
            "{value_type:?} {from:?} {data}"
        ),
        Err(why) => {
            assert!(rows.is_empty(), "{value_type:?} {from:?} {data}: {rows:?}");
            assert_eq!(whys, [why], "{value_type:?} {from:?} {data}");
        }
    }
}

const NO_JSON: &str = "its data is not JSON that can be read";

#[test]
fn values_are_what_the_column_says_or_the_event_is_passed_over() {
    use ColumnType::{Integer, Real};
    let integer = |value| Ok(Value::Integer(value));
    let real = |value| Ok(Value::Real(value));
    let no_integer = || Err("column \"c\": not an integer of 64 bits");
    check(
        Integer,
        "/a",
        r#"{"a": -9223372036854775808}"#,
        integer(i64::MIN),
    );
    check(
        Integer,
        "/a",
        r#"{"a": 9223372036854775807}"#,
        integer(i64::MAX),
    );
    check(Integer, "/a", r#"{"a": 9223372036854775808}"#, no_integer());
    check(Integer, "/a", r#"{"a": 1e2}"#, no_integer());
    check(Integer, "/a", r#"{"a": true}"#, no_integer());
    check(Integer, "/a", r#"{"a": "1"}"#, no_integer());
    check(Real, "/a", r#"{"a": 1}"#, real(1.0));
    check(
        Real,
        "/a",
        r#"{"a": 18446744073709551615}"#,
        real(18_446_744_073_709_551_615.0),
    );
    check(Real, "/a", r#"{"a": 1.5e300}"#, real(1.5e300));
    check(
        Real,
        "/a",
        r#"{"a": "1"}"#,
        Err("column \"c\": not a number"),
    );
    check(Real, "/a", r#"{"a": 1e999}"#, Err(NO_JSON));
}

#[test]
fn texts_and_what_is_no_pointer_are_what_they_are() {
    use ColumnType::{Blob, Boolean, Integer, Json, Text};
    let integer = |value| Ok(Value::Integer(value));
    let text = |value: &str| Ok(Value::Text(value.to_owned()));
    check(Text, "/a", r#"{"a": "ward 3"}"#, text("ward 3"));
    check(Text, "/a", r#"{"a": "12"}"#, text("12"));
    check(Text, "/a", r#"{"a": "a\u0000b"}"#, text("a\0b"));
    check(Text, "/a", r#"{"a": 3}"#, Err("column \"c\": not a text"));
    check(Boolean, "/a", r#"{"a": true}"#, integer(1));
    check(Boolean, "/a", r#"{"a": false}"#, integer(0));
    check(
        Boolean,
        "/a",
        r#"{"a": 1}"#,
        Err("column \"c\": not true or false"),
    );
    check(
        Json,
        "/a",
        r#"{"a": {"b":  [1, "x"]}}"#,
        text(r#"{"b":[1,"x"]}"#),
    );
    check(Json, "/a", r#"{"a": 5}"#, text("5"));
    check(Json, "$data", "[1, 2]", text("[1,2]"));
    check(Json, "$metadata", "not JSON", text(r#"{"user":"u1"}"#));
    check(Text, "$metadata/user", "not JSON", text("u1"));
    check(Text, "$metadata/none", "not JSON", Ok(Value::Null));
    check(
        Blob,
        "$data",
        "\0 not JSON",
        Ok(Value::Blob(b"\0 not JSON".to_vec())),
    );
    check(Text, "$stream", "not JSON", text("patient/1"));
    check(Text, "$type", "not JSON", text("e"));
    check(Integer, "$offset", "not JSON", integer(2));
    check(
        Integer,
        "$time",
        "not JSON",
        integer(1_700_000_000_000_000_000),
    );
}

#[test]
fn what_is_not_there_leaves_a_column_empty_and_what_is_no_json_does_not_fit() {
    use ColumnType::{Boolean, Integer, Json, Real, Text};
    for value_type in [Integer, Real, Text, Boolean, Json] {
        check(value_type, "/a", r#"{"a": null}"#, Ok(Value::Null));
        check(value_type, "/a", "{}", Ok(Value::Null));
        check(value_type, "/a", "7", Ok(Value::Null));
        check(value_type, "/a", "", Err(NO_JSON));
        check(value_type, "/a", "{\"a\": 1", Err(NO_JSON));
        check(value_type, "/a", "{\"a\": 1} x", Err(NO_JSON));
        check(value_type, "/a", "{\"a\": \"\u{0}\"}", Err(NO_JSON));
    }
}

#[test]
fn an_event_without_metadata_fits_and_one_whose_metadata_is_no_json_does_not() {
    for (metadata, expected) in [
        (b"".as_slice(), Ok(Value::Null)),
        (b"{}", Ok(Value::Null)),
        (b"{", Err("its metadata is not JSON that can be read")),
    ] {
        let mut event = event(4, "e", b"{}");
        if let Content::Payload {
            metadata: bytes, ..
        } = &mut event.content
        {
            *bytes = metadata;
        }
        let (rows, whys) = taken(table(ColumnType::Text, "$metadata/user"), &[event]);
        match expected {
            Ok(value) => assert_eq!((rows[0][1].clone(), whys.len()), (value, 0)),
            Err(why) => assert_eq!((rows.len(), whys), (0, vec![why.to_owned()])),
        }
    }
}

#[test]
fn deep_nesting_is_not_read() {
    let deep = "[".repeat(200_000) + &"]".repeat(200_000);
    check(ColumnType::Json, "$data", &deep, Err(NO_JSON));
    let shallow = "[".repeat(127) + &"]".repeat(127);
    check(
        ColumnType::Json,
        "$data",
        &shallow,
        Ok(Value::Text(shallow.clone())),
    );
}

#[test]
fn an_upsert_changes_what_the_event_has_and_clears_what_is_null() {
    let table = |of: ColumnType| {
        Table::new("t")
            .key(["id"])
            .column("a", ColumnType::Integer, "/a")
            .column("id", of, "/id")
            .column("b", ColumnType::Text, "/b")
            .on(Rule::delete(["gone"]))
            .on(Rule::insert(["new"]))
            .on(Rule::upsert([""; 0]))
    };
    for (of, id, value) in [
        (ColumnType::Text, "\"x\"", Value::Text("x".to_owned())),
        (ColumnType::Integer, "7", Value::Integer(7)),
        (ColumnType::Boolean, "true", Value::Integer(1)),
    ] {
        let said = |fields: &str| format!("{{\"id\": {id}{fields}}}");
        let all = [
            ("set", said(", \"a\": 1, \"b\": \"one\"")),
            ("set", said(", \"a\": 2")),
            ("set", said(", \"b\": null")),
            ("new", said(", \"a\": 9")),
            ("set", "{\"a\": 3}".to_owned()),
            ("set", "{\"id\": null}".to_owned()),
            ("set", "{\"id\": 1.5}".to_owned()),
            ("gone", "{}".to_owned()),
            // Only the key counts.
            ("gone", said(", \"a\": \"no integer\"")),
            ("gone", said("")),
            ("new", said(", \"b\": \"again\"")),
        ];
        let rows = |count: usize| {
            let events = all.iter().take(count).zip(0..);
            let events = events.map(|((kind, data), at)| event(at, kind, data.as_bytes()));
            taken(table(of), &events.collect::<Vec<_>>())
        };
        let text = |text: &str| Value::Text(text.to_owned());
        let row = |a, b| vec![vec![a, value.clone(), b]];
        assert_eq!(rows(1).0, row(Value::Integer(1), text("one")));
        assert_eq!(rows(2).0, row(Value::Integer(2), text("one")));
        assert_eq!(rows(3).0, row(Value::Integer(2), Value::Null));
        let no_key = "it has no value for column \"id\" of the key";
        let (left, whys) = rows(8);
        assert_eq!(left, row(Value::Integer(2), Value::Null));
        assert_eq!(whys.len(), 5, "{whys:?}");
        assert_eq!(whys[..3], ["a row of its key is there", no_key, no_key]);
        assert_eq!(whys[4], no_key);
        assert_eq!(rows(10).0, Vec::<Vec<Value>>::new());
        assert_eq!(rows(11).0, row(Value::Null, text("again")));
    }
}

#[test]
fn any_name_is_a_name() {
    for name in [
        "t", "select", "a\"b", "excluded", "; DROP", "ä ö", "rowid", "[x]", "?1",
    ] {
        let table = Table::new("t")
            .key(["id", name])
            .column("id", ColumnType::Integer, "$position")
            .column(name, ColumnType::Text, "/a")
            .column(format!("{name}2"), ColumnType::Text, "/b")
            .index([name, "id"])
            .on(Rule::delete(["gone"]))
            .on(Rule::upsert([""; 0]));
        let other = Table {
            name: format!("{name}_"),
            ..table.clone()
        };
        Mapping::new([table.clone(), other]).unwrap();
        let first = event(1, "e", br#"{"a": "x", "b": "y"}"#);
        let gone = event(1, "gone", br#"{"a": "x"}"#);
        assert_eq!(taken(table.clone(), &[first, first]).0.len(), 1, "{name:?}");
        assert_eq!(taken(table, &[first, gone]).0.len(), 0, "{name:?}");
    }
}

#[test]
fn the_newest_of_those_that_did_not_fit_are_kept_and_all_are_counted() {
    let plan = Plan::new(&Mapping::new([table(ColumnType::Text, "/a")]).unwrap());
    let connection = Connection::open_in_memory().unwrap();
    create(&connection, &plan, &[]).unwrap();
    let mut skipped = 0;
    for at in 0..1500 {
        take_in(&connection, &plan, &[event(at, "e", b"")], &mut skipped).unwrap();
    }
    let sql = "SELECT count(*), min(position), max(position) FROM _kimberlite_skipped";
    let columns = |row: &rusqlite::Row<'_>| Ok([row.get(0)?, row.get(1)?, row.get(2)?]);
    let kept: [i64; 3] = connection.query_row(sql, [], columns).unwrap();
    assert_eq!((skipped, kept), (1500, [1000, 500, 1499]));
}

#[test]
fn what_is_purged_is_passed_over_without_a_word() {
    let purged = Event {
        content: Content::Purged,
        ..event(1, "e", b"")
    };
    let (rows, whys) = taken(table(ColumnType::Text, "/a"), &[purged]);
    assert_eq!((rows.len(), whys.len()), (0, 0));
}
