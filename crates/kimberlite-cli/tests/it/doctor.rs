//! `kimberlite doctor`.

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
