//! Exit codes and messages, for everything that can be wrong.

use kimberlite::Database;
use serde_json::Value;

use crate::shell::{Ran, Shell, flip};

fn fails(ran: &Ran, code: i32, says: &[&str]) {
    assert_eq!(ran.code, code, "{}", ran.stderr);
    for part in says {
        assert!(
            ran.stderr.contains(part),
            "{part:?} is not in: {}",
            ran.stderr
        );
    }
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    let shell = Shell::new();
    fails(&shell.run(&["raed"]), 2, &["read"]);
    fails(&shell.run(&["read"]), 2, &["--tenant"]);
    fails(
        &shell.run(&["import", "x", "--batch", "0"]),
        2,
        &["--batch"],
    );
}

#[test]
fn a_missing_database_or_tenant_exits_with_3_and_is_not_made() {
    let shell = Shell::new();
    for command in [
        "read",
        "tail",
        "streams",
        "verify",
        "checkpoint",
        "inspect",
        "stats",
    ] {
        let name = shell.db();
        let name = name.to_str().unwrap();
        fails(&shell.run(&[command, "-t", "t"]), 3, &["no database", name]);
        assert!(!shell.db().exists(), "{command}");
    }
    shell.append("s", "x");
    for command in [
        "read",
        "tail",
        "streams",
        "verify",
        "checkpoint",
        "inspect",
        "stats",
    ] {
        fails(&shell.run(&[command, "-t", "other"]), 3, &["\"other\""]);
    }
    assert!(!shell.path("db/tenants/other").exists());
}

#[test]
fn a_database_that_is_in_use_exits_with_4_for_writers_and_is_open_to_readers() {
    let shell = Shell::new();
    shell.append("s", "x");
    let db = Database::open(shell.db()).unwrap();
    let append = ["append", "-t", "t", "-s", "s", "--type", "noted", "y"];
    fails(&shell.run(&append), 4, &["in use"]);
    fails(&shell.run(&["checkpoint", "-t", "t"]), 4, &["in use"]);
    assert_eq!(shell.lines(&["read", "-t", "t"]).len(), 1);
    db.close().unwrap();
    shell.lines(&append);
}

#[test]
fn an_append_under_a_key_is_appended_once_and_another_one_under_it_exits_with_1() {
    let shell = Shell::new();
    let append = |data| {
        let of = [
            "append", "-t", "t", "-s", "s", "--type", "noted", "--key", "k", data,
        ];
        of.map(str::to_owned)
    };
    let lines = |data| shell.lines(&append(data).each_ref().map(String::as_str));
    let first = lines("x");
    let place = first[0].strip_prefix("appended ").unwrap();
    assert_eq!(lines("x"), [format!("was there already {place}")]);
    let mut told = append("x").to_vec();
    told.push("--json".to_owned());
    let told = shell.lines(&told.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(told[0].contains("\"duplicate\":true"), "{told:?}");
    let other = append("y");
    let other = shell.run(&other.each_ref().map(String::as_str));
    fails(&other, 1, &["idempotency key"]);
    assert_eq!(shell.lines(&["read", "-t", "t"]).len(), 1);
}

#[test]
fn keys_that_cannot_be_used_exit_with_5() {
    let shell = Shell::new();
    shell.append("s", "x");
    let root = shell.path("db/keys/root.key");
    let kept = std::fs::read(&root).unwrap();
    std::fs::remove_file(&root).unwrap();
    fails(
        &shell.run(&["read", "-t", "t"]),
        5,
        &["root.key", "missing"],
    );
    let other = Shell::new();
    other.append("s", "x");
    std::fs::copy(other.path("db/keys/root.key"), &root).unwrap();
    fails(&shell.run(&["read", "-t", "t"]), 5, &["root key", "\"t\""]);
    std::fs::write(&root, kept).unwrap();
    shell.lines(&["read", "-t", "t"]);
    let shared = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&root, shared).unwrap();
    fails(&shell.run(&["read", "-t", "t"]), 5, &["chmod 600"]);
}

/// A byte of the last event's payload.
fn byte_of_the_last_event(shell: &Shell) -> (String, u64) {
    let db = Database::builder(shell.db())
        .read_only(true)
        .open()
        .unwrap();
    let tenant = db.existing_tenant("t").unwrap();
    let last = tenant.read_all(..).next_back().unwrap().unwrap();
    let (at, header) = tenant.frame(last.position()).unwrap().unwrap();
    let segment = tenant.inspect().unwrap().segments.pop().unwrap().name;
    (segment, at + u64::from(header.length) - 20)
}

#[test]
fn a_flipped_byte_is_located_by_verify_with_2_and_by_others_with_6() {
    let shell = Shell::new();
    shell.append("s", "x");
    assert_eq!(shell.run(&["verify", "-t", "t"]).code, 0);
    let (segment, byte) = byte_of_the_last_event(&shell);
    let path = shell.path("db/tenants/t/log").join(&segment);
    let file_bytes = std::fs::metadata(&path).unwrap().len();
    flip(&path, usize::try_from(byte).unwrap());
    let found = shell.run(&["verify", "-t", "t", "--json"]);
    assert_eq!(found.code, 2, "{}", found.stderr);
    let report: Value = serde_json::from_str(&found.stdout).unwrap();
    assert_eq!(report["sound"], false);
    let finding = &report["findings"][0];
    assert_eq!(finding["segment"], segment.as_str());
    let told = finding["byte"].as_u64().unwrap();
    assert!(
        told <= byte && byte < told + 200,
        "byte {byte}, told {told}"
    );
    let text = shell.run(&["verify", "-t", "t"]);
    assert!(text.stdout.contains("NOT SOUND"), "{}", text.stdout);
    assert!(text.stdout.contains(&segment), "{}", text.stdout);
    // A writer refuses, says where, and changes nothing.
    let append = ["append", "-t", "t", "-s", "s", "--type", "noted", "y"];
    fails(&shell.run(&append), 6, &[&segment, "byte", "position"]);
    let read = shell.run(&["read", "-t", "t"]);
    fails(&read, 6, &[&segment, "byte", "position"]);
    assert_eq!(read.stdout, "");
    let streams = shell.run(&["streams", "-t", "t"]);
    fails(&streams, 0, &["warning", &segment]);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), file_bytes);
    flip(&path, usize::try_from(byte).unwrap());
    assert_eq!(shell.run(&["verify", "-t", "t"]).code, 0);
}

#[test]
fn a_log_that_was_put_back_exits_with_6() {
    let shell = Shell::new();
    shell.append("s", "x");
    let log = shell.path("db/tenants/t/log/00000000000000000000.seg");
    let older = std::fs::read(&log).unwrap();
    shell.append("s", "y");
    std::fs::write(&log, older).unwrap();
    let append = ["append", "-t", "t", "-s", "s", "--type", "noted", "z"];
    fails(&shell.run(&append), 6, &["rolled back"]);
    let verified = shell.run(&["verify", "-t", "t"]);
    assert_eq!(verified.code, 2);
    assert!(
        verified.stdout.contains("rolled back"),
        "{}",
        verified.stdout
    );
}

#[test]
fn a_missing_input_is_named() {
    let shell = Shell::new();
    let arguments = [
        "import",
        "nowhere.jsonl",
        "-t",
        "t",
        "--stream-by",
        "a",
        "--type-by",
        "b",
    ];
    fails(
        &shell.run(&arguments),
        1,
        &["nowhere.jsonl", "No such file"],
    );
    assert!(!shell.db().exists());
}

#[test]
fn errors_are_json_where_results_are() {
    let shell = Shell::new();
    let ran = shell.run(&["read", "-t", "t", "--json"]);
    assert_eq!(ran.code, 3);
    let error: Value = serde_json::from_str(&ran.stderr).unwrap();
    assert!(error["error"].as_str().unwrap().contains("no database"));
}
