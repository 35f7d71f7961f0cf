//! `kimberlite import`: formats, resumption, lines that cannot be read.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::json;

use crate::shell::{Shell, ran};

const BY: [&str; 6] = ["-t", "t", "--stream-by", "who", "--type-by", "what"];

fn import<'a>(file: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["import", file], BY.as_slice(), more].concat()
}

/// `count` lines over three streams.
fn lines(count: usize) -> String {
    (0..count).fold(String::new(), |text, n| {
        text + &format!("{{\"who\":\"w{}\",\"what\":\"done\",\"n\":{n}}}\n", n % 3)
    })
}

/// The numbers of all imported events, in the order of the log.
fn numbers(shell: &Shell) -> Vec<u64> {
    let events = shell.json(&["read", "-t", "t"]);
    let number = |event: &serde_json::Value| event["data"]["n"].as_u64().unwrap();
    events.iter().map(number).collect()
}

#[test]
fn each_line_is_an_event_of_the_stream_and_type_that_its_fields_name() {
    let shell = Shell::new();
    shell.write("events.jsonl", &lines(7));
    let said = shell.json(&import("events.jsonl", &["--batch", "2"]));
    assert_eq!(
        said,
        [json!({"imported": 7, "present": 0, "unreadable": 0})]
    );
    assert_eq!(numbers(&shell), (0..7).collect::<Vec<_>>());
    let second = &shell.json(&["read", "-t", "t", "-s", "w1", "--from", "1", "--limit", "1"])[0];
    assert_eq!(second["type"], "done");
    assert_eq!(second["offset"], 1);
    assert_eq!(second["data"], json!({"who": "w1", "what": "done", "n": 4}));
}

#[test]
fn comma_separated_values_are_events_with_the_names_of_the_columns() {
    let shell = Shell::new();
    shell.write(
        "events.csv",
        "who,what,note\na,x,\"two\nlines\"\nb,y,\"a, b\"\n",
    );
    shell.lines(&import("events.csv", &[]));
    let events = shell.json(&["read", "-t", "t"]);
    let data = |n: usize| events[n]["data"].clone();
    assert_eq!(
        data(0),
        json!({"who": "a", "what": "x", "note": "two\nlines"})
    );
    assert_eq!(data(1), json!({"who": "b", "what": "y", "note": "a, b"}));
}

#[test]
fn an_import_that_was_killed_goes_on_without_gap_or_duplicate() {
    let shell = Shell::new();
    let text = lines(3000);
    shell.write("events.jsonl", &text);
    // Fed by hand, the first one never sees the end of its input, and dies wherever it is by then.
    for part in [&text[..400], &text[..text.len() / 2]] {
        let mut first = shell
            .command(&import(
                "-",
                &["--format", "jsonl", "--source", "events.jsonl"],
            ))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        first
            .stdin
            .as_mut()
            .unwrap()
            .write_all(part.as_bytes())
            .unwrap();
        first.kill().unwrap();
        assert!(!first.wait().unwrap().success());
    }
    let said = shell.json(&import("events.jsonl", &[]));
    let count = |name: &str| said[0][name].as_u64().unwrap();
    assert_eq!(count("imported") + count("present"), 3000);
    assert_eq!(numbers(&shell), (0..3000).collect::<Vec<_>>());
    let again = shell.json(&import("events.jsonl", &[]));
    assert_eq!(
        again,
        [json!({"imported": 0, "present": 3000, "unreadable": 0})]
    );
}

#[test]
fn lines_that_came_to_a_file_since_are_imported_alone() {
    let shell = Shell::new();
    shell.write("events.jsonl", &lines(10));
    shell.lines(&import("events.jsonl", &[]));
    shell.write("events.jsonl", &lines(12));
    let said = shell.json(&import("events.jsonl", &[]));
    assert_eq!(
        said,
        [json!({"imported": 2, "present": 10, "unreadable": 0})]
    );
    assert_eq!(numbers(&shell), (0..12).collect::<Vec<_>>());
}

#[test]
fn an_import_stops_at_a_purged_event_before_it_has_found_its_own_newest() {
    let shell = Shell::new();
    shell.write("events.jsonl", &lines(10));
    shell.lines(&import("events.jsonl", &[]));
    shell.append("later", "0");
    let until = shell.json(&["read", "-t", "t"])[9]["position"].to_string();
    shell.lines(&["purge", "-t", "t", "--until", &until, "--yes"]);
    // Its newest event is the first that was not purged.
    shell.write("events.jsonl", &lines(12));
    let said = shell.json(&import("events.jsonl", &[]));
    assert_eq!(said[0]["imported"], 2);
    let refused = |arguments: &[&str]| {
        let refused = shell.run(arguments);
        assert_eq!(refused.code, 1, "{}", refused.stderr);
        assert!(refused.stderr.contains("purged"), "{}", refused.stderr);
    };
    // One of which nothing is there yet cannot tell that.
    refused(&import("events.jsonl", &["--source", "other"]));
    shell.append("later", "1");
    let until = shell.json(&["read", "-t", "t"])[4]["position"].to_string();
    shell.lines(&["purge", "-t", "t", "--until", &until, "--yes"]);
    refused(&import("events.jsonl", &[]));
    assert_eq!(shell.json(&["read", "-t", "t"]).len(), 1);
}

#[test]
fn another_input_of_the_same_name_is_refused_until_it_has_its_own() {
    let shell = Shell::new();
    shell.write("events.jsonl", &lines(10));
    shell.lines(&import("events.jsonl", &[]));
    let other = lines(20).replace("done", "undone");
    for (text, what) in [
        (other.as_str(), "longer"),
        (&lines(4), "shorter"),
        ("", "empty"),
    ] {
        shell.write("other/events.jsonl", text);
        let refused = shell.run(&import("other/events.jsonl", &[]));
        assert_eq!(refused.code, 1, "{what}");
        assert!(
            refused.stderr.contains("up to line 10"),
            "{what}: {}",
            refused.stderr
        );
        assert!(
            refused.stderr.contains("--source"),
            "{what}: {}",
            refused.stderr
        );
        assert_eq!(numbers(&shell).len(), 10, "{what}");
    }
    // A line that is not there, or cannot be read, does not let the others pass.
    for tenth in ["", "nonsense"] {
        let mut lines = other.lines().collect::<Vec<_>>();
        lines[9] = tenth;
        shell.write("other/events.jsonl", &lines.join("\n"));
        let refused = shell.run(&import("other/events.jsonl", &["--on-error", "keep"]));
        assert_eq!(refused.code, 1, "{tenth:?}");
        assert_eq!(numbers(&shell).len(), 10, "{tenth:?}");
    }
    shell.write("other/events.jsonl", &other);
    shell.lines(&import("other/events.jsonl", &["--source", "other"]));
    assert_eq!(numbers(&shell).len(), 30);
    // Each of the two still knows how far it is.
    let said = shell.json(&import("events.jsonl", &[]));
    assert_eq!(said[0]["present"], 10);
}

#[test]
fn a_line_that_cannot_be_read_stops_with_its_number_or_is_passed_over() {
    for (bad, problem) in [
        ("{\"who\":\"a\"", "EOF"),
        ("[1]", "expected a map"),
        ("{\"what\":\"x\"}", "\"who\""),
        ("{\"who\":\"a\",\"what\":[]}", "neither text nor a number"),
        ("{\"who\":\"\",\"what\":\"x\"}", "empty"),
    ] {
        let shell = Shell::new();
        let good = lines(5);
        shell.write("events.jsonl", &format!("{good}\n{bad}\n{good}"));
        let stopped = shell.run(&import("events.jsonl", &[]));
        assert_eq!(stopped.code, 1, "{bad}");
        // A blank line counts, as in an editor.
        assert!(
            stopped.stderr.contains("line 7"),
            "{bad}: {}",
            stopped.stderr
        );
        assert!(
            stopped.stderr.contains(problem),
            "{bad}: {}",
            stopped.stderr
        );
        assert!(
            stopped.stderr.contains("--on-error keep"),
            "{}",
            stopped.stderr
        );
        let kept = shell.run(&import("events.jsonl", &["--on-error", "keep"]));
        assert_eq!(kept.code, 0, "{bad}: {}", kept.stderr);
        assert!(kept.stderr.contains("line 7"), "{bad}: {}", kept.stderr);
        assert_eq!(numbers(&shell), [0, 1, 2, 3, 4, 0, 1, 2, 3, 4], "{bad}");
    }
}

#[test]
fn the_lines_before_one_that_cannot_be_read_are_imported() {
    let shell = Shell::new();
    shell.write("events.jsonl", &format!("{}nonsense\n", lines(5)));
    assert_eq!(shell.run(&import("events.jsonl", &[])).code, 1);
    assert_eq!(numbers(&shell), [0, 1, 2, 3, 4]);
}

#[test]
fn columns_that_are_missing_are_told_by_line() {
    let shell = Shell::new();
    shell.write("events.csv", "who,what\na,x\nb\nc,z\n");
    let stopped = shell.run(&import("events.csv", &[]));
    assert_eq!(stopped.code, 1);
    assert!(stopped.stderr.contains("line 3"), "{}", stopped.stderr);
    shell.lines(&import("events.csv", &["--on-error", "keep"]));
    assert_eq!(shell.json(&["read", "-t", "t"]).len(), 2);
}

#[test]
fn a_format_is_asked_for_only_where_the_name_does_not_tell() {
    let shell = Shell::new();
    shell.write("events.txt", &lines(1));
    let refused = shell.run(&import("events.txt", &[]));
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("--format"), "{}", refused.stderr);
    shell.lines(&import("events.txt", &["--format", "jsonl"]));
}

#[test]
fn standard_input_is_a_file_too() {
    let shell = Shell::new();
    let mut child = shell
        .command(&import("-", &["--format", "jsonl"]))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(lines(4).as_bytes()).unwrap();
    drop(stdin);
    let ran = ran(&child.wait_with_output().unwrap());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(numbers(&shell), [0, 1, 2, 3]);
}
