//! The projection against a map of histories, and in a database.

use std::collections::{BTreeMap, BTreeSet};

use kimberlite_projection::testkit::{TestLog, check};
use kimberlite_testkit::Rng;

use super::*;

/// To each key what was done to it, in order.
type Model = BTreeMap<Vec<u8>, Vec<(Position, Option<Vec<u8>>)>>;

/// Each event is a line of changes: `+key value` and `-key`, one after the other.
fn changes_of(event: &Event<'_>, changes: &mut Changes<'_, '_>) {
    let Some((_, data)) = event.payload() else {
        return;
    };
    for change in data.split(|byte| *byte == b'\n') {
        match change.split_first() {
            Some((b'+', change)) => {
                let at = change.iter().position(|byte| *byte == b' ').unwrap();
                changes.put(&change[..at], &change[at + 1..]);
            }
            Some((b'-', key)) => changes.remove(key),
            _ => {}
        }
    }
}

fn kv() -> Kv<fn(&Event<'_>, &mut Changes<'_, '_>)> {
    Kv::new("test", 1, changes_of)
}

fn key(rng: &mut Rng) -> Vec<u8> {
    let mut key = vec![b'a'; rng.index(2)];
    key.extend((0..rng.index(3)).map(|_| [0, b'a', 0xff][rng.index(3)]));
    key
}

fn history(seed: u64) -> (TestLog, Model) {
    let mut rng = Rng::new(seed);
    let (mut log, mut model) = (TestLog::new(), Model::new());
    for number in 0..60 {
        if rng.chance(1, 10) {
            log = log.purged("s");
            continue;
        }
        let mut data = Vec::new();
        let mut done = BTreeMap::new();
        for change in 0..=rng.index(3) {
            let key = key(&mut rng);
            if rng.chance(2, 3) {
                let value = format!("{number}.{change}").into_bytes();
                data.extend([b"+", &key[..], b" ", &value[..], b"\n"].concat());
                done.insert(key, Some(value));
            } else {
                data.extend([b"-", &key[..], b"\n"].concat());
                let had = done.get(&key).cloned();
                let there = had.map_or_else(
                    || matches!(model.get(&key).and_then(|it| it.last()), Some((_, Some(_)))),
                    |it: Option<Vec<u8>>| it.is_some(),
                );
                if there {
                    done.insert(key, None);
                }
            }
        }
        log = log.event("s", "t", &data);
        let position = log.last_position().unwrap();
        for (key, value) in done {
            model.entry(key).or_default().push((position, value));
        }
    }
    (log, model)
}

fn at(history: &[(Position, Option<Vec<u8>>)], position: Position) -> Option<Entry> {
    let (since, value) = history.iter().rfind(|(at, _)| *at <= position)?;
    let (since, value) = (*since, value.clone()?);
    Some(Entry { since, value })
}

#[test]
fn each_key_has_what_it_had_at_any_time() {
    for seed in 0..8 {
        let (log, model) = history(seed);
        let view = View::from(check(&kv(), &log));
        let last = log.last_position().unwrap();
        let mut keys: BTreeSet<Vec<u8>> = model.keys().cloned().collect();
        keys.extend([b"none".to_vec(), vec![0; 3]]);
        for key in &keys {
            let empty = Vec::new();
            let history = model.get(key).unwrap_or(&empty);
            assert_eq!(view.get(key).unwrap(), at(history, last), "seed {seed}");
            for position in (0..=last.get()).map(Position::new) {
                let found = view.get_at(key, position).unwrap();
                assert_eq!(
                    found,
                    at(history, position),
                    "seed {seed} position {position}"
                );
            }
            let found = view.history(key).unwrap().map(Result::unwrap);
            let found = found.map(|change| (change.position, change.value));
            let mut found: Vec<_> = found.collect();
            found.reverse();
            assert_eq!(&found, history, "seed {seed} key {key:?}");
        }
        for prefix in [&b""[..], b"a", b"aa", b"\0", b"z"] {
            for position in (0..=last.get()).step_by(3).map(Position::new) {
                let expected = model.iter().filter(|(key, _)| key.starts_with(prefix));
                let expected = expected
                    .filter_map(|(key, history)| Some((key.clone(), at(history, position)?)));
                let found = view.scan_at(prefix, position).unwrap().map(Result::unwrap);
                let (found, expected): (Vec<_>, Vec<_>) = (found.collect(), expected.collect());
                assert_eq!(found, expected, "seed {seed} position {position}");
                if position == last {
                    let forward: Vec<_> = view.scan(prefix).map(Result::unwrap).collect();
                    assert_eq!(forward, expected);
                    let mut back: Vec<_> = view.scan(prefix).rev().map(Result::unwrap).collect();
                    back.reverse();
                    assert_eq!(back, expected);
                }
            }
        }
    }
}

#[test]
fn what_was_not_taken_in_yet_is_no_answer() {
    let log = TestLog::new().event("s", "t", b"+a 1");
    let view = View::from(check(&kv(), &log));
    let behind = view.applied();
    assert!(matches!(
        view.get_at("a", behind),
        Err(KvError::NotThereYet { .. })
    ));
    assert!(view.scan_at("", behind).is_err());
}

#[test]
fn what_is_too_long_is_passed_over_and_counted() {
    let long = "x".repeat(KEY_BYTES_MAX + 1);
    let zeros = "\0".repeat(KEY_BYTES_MAX / 2 + 1);
    let fits = "x".repeat(KEY_BYTES_MAX);
    let data = format!("+{long} 1\n+{zeros} 2\n-{long}\n+{fits} 3");
    let log = TestLog::new().event("s", "t", data.as_bytes());
    let view = View::from(check(&kv(), &log));
    assert_eq!(view.refused().unwrap(), 3);
    assert_eq!(view.scan("").count(), 1);
    assert_eq!(view.get(&fits).unwrap().unwrap().value, b"3");
}

#[test]
fn values_may_be_empty_and_as_long_as_an_event() {
    let long = "y".repeat(16 << 20 >> 4);
    let data = format!("+empty \n+long {long}");
    let log = TestLog::new().event("s", "t", data.as_bytes());
    let view = View::from(check(&kv(), &log));
    assert_eq!(view.get("empty").unwrap().unwrap().value, b"");
    assert_eq!(view.get("long").unwrap().unwrap().value, long.as_bytes());
}

#[test]
fn a_key_that_changed_100_000_times_answers_as_any_other() {
    let mut log = TestLog::new();
    for number in 0..100_000_u32 {
        log = log.event("s", "t", &number.to_le_bytes());
    }
    let kv = Kv::by_stream();
    // What `check` checks is checked elsewhere, with fewer.
    let view = View::from(kimberlite_projection::testkit::derive_in_batches(
        &kv, &log, 5_000,
    ));
    let first = 2;
    for number in (0..100_000_u32).step_by(997) {
        let position = Position::new(first + u64::from(number));
        let found = view.get_at("s", position).unwrap().unwrap();
        assert_eq!(
            (found.since, &found.value[..]),
            (position, &number.to_le_bytes()[..])
        );
    }
    assert_eq!(view.history("s").unwrap().count(), 100_000);
    assert_eq!(view.scan("").count(), 1);
    let early = view.scan_at("", Position::new(first + 10)).unwrap();
    assert_eq!(
        early.map(Result::unwrap).next().unwrap().1.value,
        10_u32.to_le_bytes()
    );
}

#[test]
fn what_is_read_is_not_printed() {
    let entry = Entry {
        since: Position::new(7),
        value: b"secret".to_vec(),
    };
    let shown = format!("{entry:?}");
    assert!(shown.contains('7') && !shown.contains("115"));
}
