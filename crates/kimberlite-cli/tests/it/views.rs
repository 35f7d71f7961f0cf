//! Looking at a database, the demonstration, and the help.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::json;

use crate::shell::{Shell, ran};

fn written() -> Shell {
    let shell = Shell::new();
    for (stream, data) in [("a", "1"), ("b", "two"), ("a", "{\"n\":3}")] {
        shell.append(stream, data);
    }
    shell
}

#[test]
fn events_are_read_by_tenant_and_by_stream_from_either_end() {
    let shell = written();
    let data = |arguments: &[&str]| {
        let events = shell.json(&[&["read", "-t", "t"], arguments].concat());
        let data = events.iter().map(|event| event["data"].clone());
        data.collect::<Vec<_>>()
    };
    let all = [json!(1), json!("two"), json!({"n": 3})];
    assert_eq!(data(&[]), all);
    assert_eq!(data(&["-s", "a"]), [json!(1), json!({"n": 3})]);
    assert_eq!(data(&["-s", "a", "--from", "1"]), [json!({"n": 3})]);
    assert_eq!(data(&["-s", "a", "--to", "1"]), [json!(1)]);
    assert_eq!(data(&["--reverse", "--limit", "1"]), [json!({"n": 3})]);
    assert_eq!(data(&["-s", "nobody"]), [json!(null); 0]);
    let text = shell.lines(&["read", "-t", "t", "-s", "b"]);
    assert!(text[0].ends_with("\tb@0\tnoted\ttwo"), "{text:?}");
}

#[test]
fn streams_sizes_parts_and_checkpoints_are_shown() {
    let shell = written();
    let streams = [
        json!({"stream": "a", "events": 2}),
        json!({"stream": "b", "events": 1}),
    ];
    assert_eq!(shell.json(&["streams", "-t", "t"]), streams);
    let stats = &shell.json(&["stats", "-t", "t"])[0];
    assert_eq!(
        (&stats["events"], &stats["streams"]),
        (&json!(3), &json!(2))
    );
    // Counting asks no cache; the bounds are those of the facade.
    for (cache, entries_max) in [
        ("stream_ids", 4096),
        ("stream_names", 4096),
        ("session_ciphers", 64),
    ] {
        let counted = json!({"hits": 0, "misses": 0, "entries": 0, "entries_max": entries_max});
        assert_eq!(stats["caches"][cache], counted, "{cache}");
    }
    let text = shell.lines(&["stats", "-t", "t"]);
    let line = "cache session_ciphers: 0 hits, 0 misses, 0 of 64 entries";
    assert_eq!(text.last().map(String::as_str), Some(line));
    let checkpoint = &shell.json(&["checkpoint", "-t", "t"])[0];
    let parts = &shell.json(&["inspect", "-t", "t"])[0];
    let sizes = parts["checkpoints"].as_array().unwrap();
    assert_eq!(sizes.last(), Some(&checkpoint["size"]));
    let note = checkpoint["note"].as_str().unwrap();
    assert!(
        note.starts_with(parts["origin"].as_str().unwrap()),
        "{note}"
    );
    let key = &parts["keys"][0];
    assert_eq!((&key["version"], &key["epoch"]), (&json!(1), &json!(1)));
    let report = &shell.json(&["verify", "-t", "t"])[0];
    assert_eq!(report["sound"], true);
    assert_eq!(report["records"], stats["records"]);
    let text = shell.lines(&["inspect", "-t", "t"]).join("\n");
    // What unlocks the data is never shown.
    for file in ["root.key", "t/keyring.a", "t/signer.pem"] {
        let bytes = std::fs::read(shell.path("db/keys").join(file)).unwrap();
        for line in String::from_utf8_lossy(&bytes)
            .lines()
            .filter(|line| line.len() > 20)
        {
            assert!(!text.contains(line), "{file}");
        }
    }
}

#[test]
fn the_database_may_be_named_by_the_environment() {
    let shell = written();
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("kimberlite"));
    command
        .env("KIMBERLITE_DB", shell.db())
        .args(["read", "-t", "t"]);
    assert_eq!(ran(&command.output().unwrap()).stdout.lines().count(), 3);
}

#[test]
fn tail_shows_the_newest_and_follows_what_other_processes_append() {
    let shell = written();
    assert_eq!(shell.lines(&["tail", "-t", "t", "-n", "2"]).len(), 2);
    let mut tail = shell
        .command(&["tail", "-t", "t", "-n", "1", "-f", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<serde_json::Value>(&lines.next().unwrap().unwrap());
    assert_eq!(next().unwrap()["data"], json!({"n": 3}));
    for n in 10..13 {
        shell.append("c", &n.to_string());
        let event = next().unwrap();
        assert_eq!((&event["stream"], &event["data"]), (&json!("c"), &json!(n)));
    }
    tail.kill().unwrap();
    tail.wait().unwrap();
}

#[test]
fn a_reader_of_the_output_that_goes_away_is_no_error() {
    let shell = Shell::new();
    let text = "{\"a\":\"s\",\"b\":\"t\"}\n".repeat(3000);
    shell.write("many.jsonl", &text);
    shell.lines(&[
        "import",
        "many.jsonl",
        "-t",
        "t",
        "--stream-by",
        "a",
        "--type-by",
        "b",
    ]);
    let mut child = shell
        .command(&["read", "-t", "t"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let ran = ran(&child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
}

#[test]
fn help_says_the_exit_codes_and_completions_know_the_commands() {
    let shell = Shell::new();
    assert!(
        shell
            .lines(&["--help"])
            .join(" ")
            .contains("Exit codes: 0 done")
    );
    for name in ["bash", "zsh", "fish"] {
        let script = shell.lines(&["completions", name]).join("\n");
        assert!(script.contains("checkpoint"), "{name}");
    }
}

#[test]
fn the_demonstration_runs_to_its_end_and_keeps_its_files() {
    let shell = Shell::new();
    let text = shell.lines(&["demo", "--keep", "kept"]).join("\n");
    for part in ["22048 events", "flipped one bit", "the signed checkpoint"] {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
    let db = shell.path("kept/db");
    let read = [
        "--db",
        db.to_str().unwrap(),
        "read",
        "-t",
        "clinic",
        "--limit",
        "5",
    ];
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("kimberlite"));
    let read = ran(&command.args(read).output().unwrap());
    assert_eq!(read.stdout.lines().count(), 5, "{}", read.stderr);
    assert_eq!(shell.run(&["demo", "--keep", "kept"]).code, 1);
}

#[test]
fn a_killed_writer_loses_nothing_that_it_had_acknowledged() {
    let shell = Shell::new();
    let said = shell.json(&["kill-test", "--rounds", "12"]);
    assert_eq!(
        (&said[0]["rounds"], &said[0]["lost"]),
        (&json!(12), &json!(0))
    );
    assert!(said[0]["acknowledged"].as_u64().unwrap() > 100);
}
