//! What is left of files that another hand was at, that a crash or a power loss stopped, or that were given up.

use super::*;

/// Runs a statement on the file that is read.
fn by_another_hand(scratch: &Scratch, sql: &str) {
    let hand = rusqlite::Connection::open(scratch.link()).unwrap();
    hand.execute_batch(sql).unwrap();
}

#[test]
fn a_file_of_another_layout_or_without_its_place_is_built_anew() {
    let said = history(9);
    for sql in [
        "UPDATE _kimberlite SET format = 2",
        "UPDATE _kimberlite SET chain = x'01'",
        "UPDATE _kimberlite SET position = -1",
    ] {
        let scratch = Scratch::new();
        feed(&mut scratch.open(), &said, 100).unwrap();
        by_another_hand(&scratch, sql);
        let mut target = scratch.open();
        assert!(target.is_rebuilding(), "{sql}");
        feed(&mut target, &said, EVENTS).unwrap();
        target.caught_up().unwrap();
        scratch.check(&said);
    }
}

#[test]
fn who_recovers_is_where_the_file_is() {
    let said = history(11);
    let scratch = Scratch::new();
    let mut target = scratch.open();
    feed(&mut target, &said, 100).unwrap();
    // As if a commit that was told as failed had been one.
    by_another_hand(&scratch, "UPDATE _kimberlite SET position = 101");
    assert_eq!(target.applied(), at(100));
    target.recover().unwrap();
    assert_eq!(target.applied().position, at(101).position);
}

/// The link is made durable after the file: with the write-ahead log gone, all is in the file.
#[test]
fn what_takes_the_place_of_another_file_is_durable_first() {
    let said = history(12);
    let scratch = Scratch::new();
    let mut target = scratch.open();
    feed(&mut target, &said, 100).unwrap();
    target.rebuild(scratch.identities[0]).unwrap();
    feed(&mut target, &said, EVENTS).unwrap();
    target.caught_up().unwrap();
    let lost = copy(&scratch);
    let wal = lost.dir.path().join("data-2.sqlite-wal");
    if wal.exists() {
        fs::write(wal, b"").unwrap();
    }
    lost.check(&said);
}

#[test]
fn what_was_being_built_is_gone_where_another_one_is_begun() {
    let said = history(13);
    let scratch = Scratch::new();
    let mut target = scratch.open();
    feed(&mut target, &said, 100).unwrap();
    for identity in [0, 1] {
        target.rebuild(scratch.identities[identity]).unwrap();
        feed(&mut target, &said, 50).unwrap();
    }
    let files = scratch.names().into_iter();
    let files = files.filter(|name| name.starts_with("data-") && name.ends_with(".sqlite"));
    // The one that is read, and the one that is built.
    assert_eq!(files.count(), 2, "{:?}", scratch.names());
}
