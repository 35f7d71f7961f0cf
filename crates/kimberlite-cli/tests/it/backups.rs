//! Backups on the command line.

use kimberlite::Database;

use crate::shell::Shell;

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
