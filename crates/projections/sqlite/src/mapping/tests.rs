use std::error::Error as _;

use super::*;

/// A mapping of one table with these fields besides its name, which is refused for this reason, or none.
fn check(fields: &str, expected: &str) {
    let text = format!("{{\"tables\": [{{\"name\": \"t\", {fields}}}]}}");
    check_all(&text, expected);
}

fn check_all(text: &str, expected: &str) {
    let said = match Mapping::from_json(text) {
        Ok(mapping) => {
            assert_eq!(Mapping::from_json(&mapping.to_json()).unwrap(), mapping);
            String::new()
        }
        Err(error) => error
            .source()
            .map_or(error.to_string(), ToString::to_string),
    };
    assert!(
        said.starts_with(expected) && expected.is_empty() == said.is_empty(),
        "{text}: {said:?} instead of {expected:?}"
    );
}

const ID: &str = r#"{"name": "id", "type": "integer", "from": "$position"}"#;
const ON: &str = r#""on": [{"do": "insert"}]"#;

/// A table with the column `id`, which is its key, and another one.
fn check_column(column: &str, expected: &str) {
    check(
        &format!(r#""key": ["id"], "columns": [{ID}, {column}], {ON}"#),
        expected,
    );
}

#[test]
fn tables_are_checked() {
    check(&format!(r#""key": ["id"], "columns": [{ID}], {ON}"#), "");
    check(&format!(r#""columns": [{ID}], {ON}"#), "it has no key");
    check(
        &format!(r#""key": ["id", "id"], "columns": [{ID}], {ON}"#),
        "its key names a column twice",
    );
    check(
        &format!(r#""key": ["x"], "columns": [{ID}], {ON}"#),
        "its key names column \"x\"",
    );
    check(
        &format!(r#""key": ["id"], "columns": [{ID}], "indexes": [[]], {ON}"#),
        "its index names",
    );
    check(
        &format!(r#""key": ["id"], "columns": [{ID}], "indexes": [["x"]], {ON}"#),
        "its index names",
    );
    check(
        &format!(r#""key": ["id"], "columns": [{ID}], "on": []"#),
        "no event changes it",
    );
    check(
        &format!(r#""key": ["id"], "columns": [{ID}, {ID}], {ON}"#),
        "column \"id\" is there twice",
    );
    let upper = ID.replace("id", "ID");
    check(
        &format!(r#""key": ["id"], "columns": [{ID}, {upper}], {ON}"#),
        "column \"ID\" is there twice",
    );
    check(
        &format!(r#""key": ["id"], "columns": [{ID}], {ON}, "x": 1"#),
        "unknown field `x`",
    );
    check(
        &format!(r#""key": ["id"], "columns": [{ID}], "on": [{{"do": "x"}}]"#),
        "unknown variant `x`",
    );
    let many = vec![ID; 201].join(", ");
    check(
        &format!(r#""key": ["id"], "columns": [{many}], {ON}"#),
        "it has 201 columns",
    );
    let many = vec![r#"["id"]"#; 33].join(", ");
    check(
        &format!(r#""key": ["id"], "columns": [{ID}], "indexes": [{many}], {ON}"#),
        "it has 33 indexes",
    );
    let many = vec![r#"{"do": "insert"}"#; 65].join(", ");
    check(
        &format!(r#""key": ["id"], "columns": [{ID}], "on": [{many}]"#),
        "it has 65 rules",
    );
}

#[test]
fn columns_are_checked() {
    for from in [
        "/a",
        "/",
        "/a~1b/0",
        "$data",
        "$data/a",
        "$metadata",
        "$metadata/a",
    ] {
        check_column(
            &format!(r#"{{"name": "c", "type": "json", "from": "{from}"}}"#),
            "",
        );
    }
    for from in ["", "a", "$a", "/~", "$dataa", "$metadata.a", "$Stream"] {
        let column = format!(r#"{{"name": "c", "type": "text", "from": "{from}"}}"#);
        check_column(&column, "column \"c\" comes from");
    }
    let typed = [
        ("$stream", "text"),
        ("$type", "text"),
        ("$position", "integer"),
        ("$offset", "integer"),
        ("$time", "integer"),
    ];
    for (from, only) in typed {
        for value_type in ["integer", "real", "text", "boolean", "json", "blob"] {
            let expected = if value_type == only {
                ""
            } else {
                "column \"c\" comes from"
            };
            let column = format!(r#"{{"name": "c", "type": "{value_type}", "from": "{from}"}}"#);
            check_column(&column, expected);
        }
    }
    check_column(r#"{"name": "c", "type": "blob", "from": "$data"}"#, "");
    check_column(
        r#"{"name": "c", "type": "blob", "from": "/a"}"#,
        "column \"c\" comes from",
    );
    for name in ["", "a\\u0000b", "a\\nb", &"n".repeat(65)] {
        let column = format!(r#"{{"name": "{name}", "type": "text", "from": "/a"}}"#);
        check_column(&column, "\"");
    }
    for name in [
        "a b",
        "\\\"",
        "select",
        "ä",
        "'; DROP TABLE t; --",
        "rowid",
        &"n".repeat(64),
    ] {
        check_column(
            &format!(r#"{{"name": "{name}", "type": "text", "from": "/a"}}"#),
            "",
        );
    }
    for value_type in ["real", "json"] {
        let key = format!(r#"{{"name": "k", "type": "{value_type}", "from": "/a"}}"#);
        check(
            &format!(r#""key": ["k"], "columns": [{key}], {ON}"#),
            "column \"k\" is in the key",
        );
    }
}

#[test]
fn mappings_are_checked() {
    let table =
        |name: &str| format!(r#"{{"name": "{name}", "key": ["id"], "columns": [{ID}], {ON}}}"#);
    let all = |names: &[&str]| {
        let tables = names.iter().map(|name| table(name)).collect::<Vec<_>>();
        format!("{{\"tables\": [{}]}}", tables.join(", "))
    };
    check_all(&all(&["a", "b"]), "");
    check_all(&all(&[]), "the mapping has no table");
    check_all(&all(&["a", "A"]), "there is another table of this name");
    check_all(&all(&["SQLite_a"]), "names that begin with");
    check_all(&all(&["_Kimberlite"]), "names that begin with");
    check_all(&all(&[""]), "\"\" is no name");
    let many = (0..65).map(|nth| format!("t{nth}")).collect::<Vec<_>>();
    let many = many.iter().map(String::as_str).collect::<Vec<_>>();
    check_all(&all(&many), "the mapping has 65 tables");
    check_all("7", "invalid type");
    check_all("{", "EOF");
    check_all(&"[".repeat(100_000), "invalid type");
}

#[test]
fn a_rule_takes_events_by_type_and_by_the_beginning_of_the_stream() {
    let rule = Rule::upsert(["a", "b"]).streams("patient/");
    assert!(rule.takes("patient/", "a") && rule.takes("patient/4", "b"));
    assert!(!rule.takes("patient/4", "c") && !rule.takes("patien", "a"));
    assert!(Rule::delete([""; 0]).takes("anything", "whatever"));
}
