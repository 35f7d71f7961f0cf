//! Backups on the command line.

use kimberlite::Database;

use crate::shell::{Shell, flip};

#[test]
fn a_backup_says_what_it_copied_and_a_second_one_copies_what_is_new() {
    let shell = Shell::new();
    shell.append("s", "0");
    let first = &shell.json(&["backup", "copy", "--with-root-key"])[0];
    assert_eq!(first["tenants"][0]["records"], 4);
    assert_eq!(first["resumed"], false);
    let second = &shell.json(&["backup", "copy", "--with-root-key"])[0];
    assert_eq!(second["files_copied"], 0, "{second}");
    let verified = &shell.json(&["verify", "-t", "t", "--db", "copy"])[0];
    assert_eq!(verified["sound"], true, "{verified}");
}

#[test]
fn a_backup_beside_a_writer_goes_up_to_the_newest_checkpoint_and_says_so() {
    let shell = Shell::new();
    shell.append("s", "0");
    let db = Database::open(shell.db()).unwrap();
    db.tenant("t").unwrap();
    let ran = shell.run(&["backup", "copy"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("in use"), "{}", ran.stderr);
}

#[test]
fn a_restored_database_goes_on_as_a_new_incarnation() {
    let shell = Shell::new();
    shell.append("s", "0");
    shell.lines(&["backup", "copy"]);
    let restored = &shell.json(&["restore", "copy", "new", "--root-key", "db/keys/root.key"])[0];
    assert_eq!(restored["tenants"][0]["records"], 4, "{restored}");
    assert_eq!(restored["lacks_root_key"], false);
    let verified = &shell.json(&["verify", "-t", "t", "--db", "new"])[0];
    assert_eq!(
        (&verified["sound"], &verified["checkpoints"]),
        (&true.into(), &2.into())
    );
    let inspected = &shell.json(&["inspect", "-t", "t", "--db", "new"])[0];
    assert_eq!(inspected["origin"], restored["tenants"][0]["origin"]);
    assert_ne!(inspected["origin"], restored["tenants"][0]["old_origin"]);
    let again = shell.run(&["restore", "copy", "new"]);
    assert_eq!(again.code, 1);
    assert!(again.stderr.contains("not empty"), "{}", again.stderr);
}

#[test]
fn a_damaged_or_unfinished_backup_is_refused_by_the_name_of_its_file() {
    let shell = Shell::new();
    shell.append("s", "0");
    shell.lines(&["backup", "copy"]);
    flip(
        &shell.path("copy/tenants/t/log/00000000000000000000.seg"),
        4200,
    );
    let damaged = shell.run(&["restore", "copy", "new"]);
    assert_eq!(damaged.code, 6);
    assert!(
        damaged.stderr.contains("log/00000000000000000000.seg"),
        "{}",
        damaged.stderr
    );
    let begun = shell.run(&["verify", "-t", "t", "--db", "new"]);
    assert_eq!(begun.code, 6);
    assert!(begun.stderr.contains("interrupted"), "{}", begun.stderr);
    std::fs::remove_file(shell.path("copy/backup.manifest")).unwrap();
    let unfinished = shell.run(&["restore", "copy", "other"]);
    assert_eq!(unfinished.code, 6);
    assert!(
        unfinished.stderr.contains("never finished"),
        "{}",
        unfinished.stderr
    );
}
