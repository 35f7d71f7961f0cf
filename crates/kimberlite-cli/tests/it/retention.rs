//! Holds, rules and purges on the command line.

use std::os::unix::fs::MetadataExt as _;

use crate::shell::Shell;

#[test]
fn a_purge_is_told_before_it_is_done_and_reading_goes_on_behind_it() {
    let shell = Shell::new();
    for n in 0..4 {
        shell.append("s", &n.to_string());
    }
    let until = shell.json(&["read", "-t", "t"])[2]["position"].to_string();
    let printed = &shell.lines(&["read", "-t", "t"])[2];
    assert!(printed.starts_with(&until), "{printed}");
    let args = ["purge", "-t", "t", "--until", &until];
    let told = &shell.json(&args)[0];
    assert_eq!((&told["done"], &told["events"]), (&false.into(), &2.into()));
    assert_eq!(shell.lines(&["read", "-t", "t"]).len(), 4);
    let done = &shell.json(&[args.as_slice(), &["--yes"]].concat())[0];
    assert_eq!(
        (&done["done"], &done["events"]),
        (&true.into(), &2.into()),
        "{done}"
    );
    let read = shell.run(&["read", "-t", "t"]);
    assert_eq!(read.code, 0, "{}", read.stderr);
    assert_eq!(read.stdout.lines().count(), 2);
    assert_eq!(
        read.stderr.matches("was purged").count(),
        2,
        "{}",
        read.stderr
    );
    assert_eq!(shell.json(&["verify", "-t", "t"])[0]["sound"], true);
}

/// Bytes of the disk that the segments take.
fn taken_bytes(shell: &Shell) -> u64 {
    let entries = std::fs::read_dir(shell.db().join("tenants/t/log")).unwrap();
    let files = entries.map(|entry| entry.unwrap().path());
    let segments = files.filter(|path| path.extension().is_some_and(|it| it == "seg"));
    let blocks = segments.map(|path| std::fs::metadata(path).unwrap().blocks());
    blocks.sum::<u64>() * 512
}

#[test]
fn the_disk_gets_back_what_a_purge_says_that_it_frees() {
    let shell = Shell::new();
    for _ in 0..15 {
        shell.append("s", &"x".repeat(100_000));
    }
    let until = shell.json(&["read", "-t", "t"])[10]["position"].to_string();
    let before = taken_bytes(&shell);
    let done = &shell.json(&["purge", "-t", "t", "--until", &until, "--yes"])[0];
    // They stand in two segments that are closed, so that none is begun.
    assert_eq!(done["events"], 10);
    let told = done["bytes_freed"].as_u64().unwrap();
    assert!(told > 900_000, "{told}");
    let freed = before - taken_bytes(&shell);
    // File systems have their own ways to count, within some blocks.
    assert!(freed.abs_diff(told) < 50_000, "{freed} of {told}");
}

#[test]
fn a_purge_names_what_was_kept_aside_and_may_hold_the_same_payloads() {
    let shell = Shell::new();
    shell.append("s", "0");
    let purge = ["purge", "-t", "t", "--until", "3", "--yes"];
    let log = shell.db().join("tenants/t/log");
    let kept = [log.join("discarded/5-0-4096.tail"), log.join("9.seg.lost")];
    let done = shell.run(&purge);
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
    std::fs::create_dir_all(log.join("discarded")).unwrap();
    for path in kept.iter().chain([&log.join("9.seal.lost")]) {
        std::fs::write(path, "a payload").unwrap();
    }
    let done = shell.run(&purge);
    assert_eq!(done.code, 0, "{}", done.stderr);
    for path in &kept {
        let name = path.display().to_string();
        assert!(done.stderr.contains(&name), "{}", done.stderr);
    }
    assert!(!done.stderr.contains("9.seal"), "a seal holds no payload");
    let told = &shell.json(&purge[..5])[0]["kept_aside"];
    assert_eq!(told.as_array().unwrap().len(), 2);
}

#[test]
fn a_hold_is_listed_stops_a_purge_and_is_released() {
    let shell = Shell::new();
    shell.append("s", "0");
    let hold = &shell.json(&["hold", "-t", "t", "-s", "s", "--reason", "case 17"])[0]["hold"];
    let listed = &shell.json(&["holds", "-t", "t"])[0];
    assert_eq!(&listed["hold"], hold);
    assert_eq!(listed["reason"], "case 17");
    assert_eq!(listed["stream"], "s");
    let id = hold.to_string();
    let purge = ["purge", "-t", "t", "--until", "3", "--yes"];
    let refused = shell.run(&purge);
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains(&format!("legal hold {id}")),
        "{}",
        refused.stderr
    );
    shell.lines(&["release", &id, "-t", "t", "--reason", "closed"]);
    assert_eq!(shell.lines(&["holds", "-t", "t"]).len(), 0);
    assert_eq!(
        shell
            .run(&["release", &id, "-t", "t", "--reason", "again"])
            .code,
        1
    );
    assert_eq!(shell.run(&purge).code, 0);
}

#[test]
fn a_rule_stops_a_purge_until_it_is_taken_away() {
    let shell = Shell::new();
    shell.append("s", "0");
    shell.lines(&["retain", "-t", "t", "--days", "30"]);
    let purge = ["purge", "-t", "t", "--until", "3"];
    let refused = shell.run(&purge);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("2592000 s"), "{}", refused.stderr);
    shell.lines(&["retain", "-t", "t", "--none"]);
    assert_eq!(shell.run(&purge).code, 0);
    let of_stream = ["retain", "-t", "t", "-s", "s"];
    shell.lines(&[of_stream.as_slice(), &["--records", "100"]].concat());
    let refused = shell.run(&purge);
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("100 later records"),
        "{}",
        refused.stderr
    );
    shell.lines(&[of_stream.as_slice(), &["--none"]].concat());
    assert_eq!(shell.run(&purge).code, 0);
    assert_eq!(shell.run(&["retain", "-t", "t"]).code, 2);
}
