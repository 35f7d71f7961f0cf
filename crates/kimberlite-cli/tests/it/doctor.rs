//! `kimberlite doctor`, `kimberlite repair` and `kimberlite scrub`.

use std::path::Path;

use kimberlite::Database;

use crate::shell::{Shell, flip};

#[test]
fn a_doctor_says_what_is_wrong_where_and_what_to_do() {
    let shell = Shell::new();
    assert_eq!(shell.run(&["doctor"]).code, 3);
    shell.append("s", "0");
    let healthy = &shell.json(&["doctor"])[0];
    assert_eq!(healthy["tenants"][0]["clean"], true, "{healthy}");
    let db = Database::open(shell.db()).unwrap();
    let open = &shell.json(&["doctor"])[0];
    assert_eq!(open["worst"], "in-use", "{open}");
    drop(db);
    flip(
        &shell.path("db/tenants/t/log/00000000000000000000.seg"),
        4200,
    );
    let damaged = shell.run(&["doctor"]);
    assert_eq!(damaged.code, 6);
    for part in [
        "t: corrupt",
        "00000000000000000000.seg",
        "byte",
        "kimberlite restore",
    ] {
        assert!(damaged.stdout.contains(part), "{}", damaged.stdout);
    }
    std::fs::remove_file(shell.path("db/keys/root.key")).unwrap();
    assert_eq!(shell.run(&["doctor"]).code, 5);
}

#[test]
fn a_repair_says_what_would_be_lost_and_loses_it_when_that_is_accepted() {
    let shell = Shell::new();
    shell.append("s", "0");
    shell.append("s", "1");
    let sound = shell.run(&["repair", "-t", "t"]);
    assert_eq!(
        (sound.code, sound.stdout.trim()),
        (0, "there is nothing to repair")
    );
    let inspected = &shell.json(&["read", "-t", "t"])[1];
    let position = inspected["position"].as_u64().unwrap();
    let path = shell.path("db/tenants/t/log/00000000000000000000.seg");
    let bytes = std::fs::read(&path).unwrap();
    let at = position.to_le_bytes();
    let frame = (4096..bytes.len() - 32)
        .step_by(8)
        .find(|&frame| bytes[frame..].starts_with(b"KFRM") && bytes[frame + 24..].starts_with(&at));
    flip(&path, frame.unwrap() + 40);
    let plan = shell.run(&["repair", "-t", "t"]);
    assert_eq!(plan.code, 2, "{}", plan.stderr);
    assert!(plan.stdout.contains("--accept-loss"), "{}", plan.stdout);
    assert_eq!(
        shell.run(&["checkpoint", "-t", "t"]).code,
        6,
        "nothing was changed"
    );
    let done = &shell.json(&["repair", "-t", "t", "--accept-loss"])[0];
    // The event goes with its group, which begins with the record of its key session.
    let end = position - 1;
    assert_eq!((&done["done"], &done["end"]), (&true.into(), &end.into()));
    assert_eq!(shell.lines(&["read", "-t", "t"]).len(), 1);
    assert_eq!(shell.json(&["verify", "-t", "t"])[0]["sound"], true);
    shell.append("s", "2");
}

/// Copies the files of a folder, and of the folders in it.
fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn a_repair_that_was_begun_is_to_be_gone_on_with_also_where_nothing_else_is_wrong() {
    let shell = Shell::new();
    shell.append("s", "0");
    let (tenant, older) = (shell.path("db/tenants/t"), shell.path("older"));
    copy_all(&tenant, &older);
    shell.append("s", "1");
    // The log goes back to where it was, and its checkpoints do not.
    std::fs::remove_dir_all(tenant.join("log")).unwrap();
    copy_all(&older.join("log"), &tenant.join("log"));
    assert_eq!(shell.run(&["repair", "-t", "t"]).code, 2);
    shell.lines(&["repair", "-t", "t", "--accept-loss"]);
    // As it stood before the repair wrote its record: with the incarnation, and without the notes.
    let incarnation = std::fs::read(tenant.join("incarnation")).unwrap();
    std::fs::remove_dir_all(&tenant).unwrap();
    copy_all(&older, &tenant);
    std::fs::write(tenant.join("incarnation"), incarnation).unwrap();
    let plan = shell.run(&["repair", "-t", "t"]);
    assert_eq!(plan.code, 2, "{}", plan.stdout);
    for part in [
        "a repair of this log was begun and is not finished",
        "--accept-loss",
    ] {
        assert!(plan.stdout.contains(part), "{}", plan.stdout);
    }
    let done = &shell.json(&["repair", "-t", "t", "--accept-loss"])[0];
    assert_eq!(done["done"], true, "{done}");
    assert_eq!(shell.run(&["repair", "-t", "t"]).code, 0);
    shell.append("s", "2");
    assert_eq!(shell.lines(&["read", "-t", "t"]).len(), 2);
}

#[test]
fn a_scrub_reads_closed_segments_and_exits_with_2_for_one_that_rotted() {
    let shell = Shell::new();
    for _ in 0..3 {
        shell.append("s", &"x".repeat(100_000));
    }
    let scrub = ["scrub", "-t", "t", "--rate", "1GiB"];
    let sound = &shell.json(&scrub)[0];
    assert_eq!(
        (&sound["sound"], &sound["segments"]),
        (&true.into(), &1.into())
    );
    flip(
        &shell.path("db/tenants/t/log/00000000000000000000.seg"),
        50_000,
    );
    let rotted = shell.run(&scrub);
    assert_eq!(rotted.code, 2, "{}", rotted.stderr);
    assert!(
        rotted.stdout.contains("00000000000000000000.seg"),
        "{}",
        rotted.stdout
    );
    assert_eq!(shell.run(&["scrub", "-t", "t", "--rate", "0"]).code, 2);
}
