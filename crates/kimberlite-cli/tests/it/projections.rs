//! `get`, `scan`, `history` and `projections`.

use crate::shell::Shell;

#[test]
fn the_newest_event_of_a_stream_is_found_now_and_then() {
    let shell = Shell::new();
    for (stream, data) in [
        ("bed/1", "a"),
        ("bed/2", "b"),
        ("bed/1", "c"),
        ("ward", "d"),
    ] {
        shell.append(stream, data);
    }
    let events = shell.json(&["read", "-t", "t"]);
    let second = events[1]["position"].to_string();
    let get = |args: &[&str]| {
        shell.json(&[&["get", "-t", "t", "bed/1"], args].concat())[0]["data"].clone()
    };
    assert_eq!(get(&[]), "c");
    assert_eq!(get(&["--at", &second]), "a");
    let scan = |args: &[&str]| {
        let found = shell.json(&[&["scan", "-t", "t"], args].concat());
        let data = found
            .iter()
            .map(|it| it["data"].as_str().unwrap().to_owned());
        data.collect::<Vec<_>>()
    };
    assert_eq!(scan(&["bed/"]), ["c", "b"]);
    assert_eq!(scan(&[]), ["c", "b", "d"]);
    assert_eq!(scan(&["--limit", "1"]), ["c"]);
    assert_eq!(scan(&["bed/", "--at", &second]), ["a", "b"]);
    let history = shell.json(&["history", "-t", "t", "bed/1"]);
    assert_eq!(history.len(), 2);
    assert_eq!(history[0]["data"], "c");
    assert_eq!(history[1]["position"], events[0]["position"]);
    assert_eq!(shell.run(&["get", "-t", "t", "none"]).code, 3);
    let behind = shell.run(&["get", "-t", "t", "bed/1", "--at", "1000"]);
    assert!(
        behind.code == 1 && behind.stderr.contains("ends before"),
        "{}",
        behind.stderr
    );
}

#[test]
fn what_is_derived_is_listed_verified_and_removed() {
    let shell = Shell::new();
    shell.append("s", "one");
    assert!(shell.json(&["projections", "list", "-t", "t"]).is_empty());
    shell.json(&["get", "-t", "t", "s"]);
    let listed = &shell.json(&["projections", "status", "-t", "t"])[0];
    assert_eq!(listed["projection"], "newest");
    assert_eq!(
        (&listed["store"]["version"], &listed["store"]["entries"]),
        (&1.into(), &1.into())
    );
    assert_eq!(listed["store"]["encrypted"], true);
    let sound = &shell.json(&["projections", "verify", "-t", "t", "newest"])[0];
    assert_eq!(sound["entries"], 1);
    assert_eq!(
        shell
            .run(&["projections", "verify", "-t", "t", "other"])
            .code,
        3
    );
    assert_eq!(
        shell
            .run(&["projections", "rebuild", "-t", "t", "../newest"])
            .code,
        3
    );
    let store = shell.db().join("tenants/t/projections/newest/store");
    let mut bytes = std::fs::read(&store).unwrap();
    for page in bytes.chunks_mut(4096).skip(2) {
        page[100] ^= 1;
    }
    std::fs::write(&store, bytes).unwrap();
    // Damage is told, and whoever reads next has it derived anew.
    let damaged = shell.run(&["projections", "verify", "-t", "t", "newest"]);
    assert!(
        damaged.code == 1 && damaged.stderr.contains("is damaged"),
        "{}",
        damaged.stderr
    );
    assert_eq!(shell.json(&["get", "-t", "t", "s"])[0]["data"], "one");
    shell.json(&["projections", "verify", "-t", "t", "newest"]);
    shell.json(&["projections", "rebuild", "-t", "t", "newest"]);
    assert!(!store.exists());
    assert_eq!(shell.json(&["get", "-t", "t", "s"])[0]["data"], "one");
}
