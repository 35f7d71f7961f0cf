//! Runs beside a map.

use std::collections::BTreeMap;

use kimberlite_testkit::Rng;

use super::*;

type Model = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Some changes, and the run of them. Keys that begin alike for longer than is compared at once, and such as one of
/// which is the beginning of another.
fn changes(rng: &mut Rng) -> (Model, Run) {
    let mut changes = Model::new();
    for _ in 0..=rng.below(30) {
        let mut key = vec![0; rng.index(20)];
        if let Some(last) = key.last_mut() {
            *last = rng.bytes(1)[0] % 4;
        }
        let bytes = if rng.chance(1, 8) {
            2_000
        } else {
            rng.index(40)
        };
        changes.insert(key, rng.chance(2, 3).then(|| rng.bytes(bytes)));
    }
    let run = run_of(&changes);
    (changes, run)
}

fn run_of(changes: &Model) -> Run {
    let mut chunk = Chunk::default();
    let mut entries = Vec::new();
    for (key, value) in changes {
        let at = u32::try_from(chunk.bytes.len()).unwrap();
        let value = match value {
            None => REMOVED,
            Some(value) if value.len() < 1_000 => {
                chunk.bytes.extend_from_slice(value);
                u16::try_from(value.len()).unwrap()
            }
            Some(value) => {
                let number = u32::try_from(chunk.long.len()).unwrap();
                chunk.long.push(value.clone().into());
                chunk.bytes.extend_from_slice(&number.to_le_bytes());
                LONG
            }
        };
        chunk.bytes.extend_from_slice(key);
        entries.push(RunEntry {
            word: word_of(key),
            chunk: 0,
            at,
            key_bytes: u16::try_from(key.len()).unwrap(),
            value,
        });
    }
    Run::new(entries, vec![chunk])
}

fn value_of(held: Held<'_>) -> Option<Vec<u8>> {
    held.value().map(|value| value.to_vec())
}

#[test]
fn the_newest_change_of_a_key_is_found_and_runs_put_together_say_the_same() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let (mut recent, mut model) = (Recent::default(), Model::new());
        let (mut kept, mut kept_model) = (0, Model::new());
        for nth in 0..rng.below(40) {
            let (changes, run) = changes(&mut rng);
            model.extend(changes);
            recent = recent.with(run, kept);
            assert!(recent.len() >= kept, "seed {seed}");
            if nth == 20 {
                (kept, kept_model) = (recent.len(), model.clone());
            }
        }
        for (key, value) in &model {
            let found = recent.find(key).expect("it was changed");
            assert_eq!(&value_of(found), value, "seed {seed}");
        }
        assert!(recent.find(b"another").is_none());
        check_run(&recent.to_run(), &model, seed);
        let first = Recent {
            runs: recent.runs[..kept].to_vec(),
        };
        check_run(&first.to_run(), &kept_model, seed);
        // What came behind those that were kept is all that is left without them.
        let mut both = kept_model;
        let rest = recent.without_first(kept).to_run();
        both.extend(
            rest.iter()
                .map(|(key, held)| (key.to_vec(), value_of(held))),
        );
        assert_eq!(both, model, "seed {seed}");
    }
}

fn check_run(run: &Run, model: &Model, seed: u64) {
    let entries = run.iter().map(|(key, held)| (key.to_vec(), value_of(held)));
    assert!(entries.eq(model.clone()), "seed {seed}");
    assert_eq!(run.has_removals(), model.values().any(Option::is_none));
    for (index, key) in model.keys().enumerate() {
        assert_eq!(run.lower_bound((word_of(key), key)), index);
    }
}

#[test]
fn few_runs_hold_many_commits() {
    let mut recent = Recent::default();
    for key in 0..10_000_u32 {
        let changes = Model::from([(key.to_le_bytes().to_vec(), Some(vec![0; 10]))]);
        recent = recent.with(run_of(&changes), 0);
        assert!(recent.len() <= 10, "{key}: {}", recent.len());
    }
    // The entries, their bytes, and what a chunk and a list of them take.
    let bytes = recent.bytes();
    assert!((10_000 * 46..10_000 * 200).contains(&bytes), "{bytes}");
}

#[test]
fn long_values_take_memory_too() {
    let changes = Model::from([(b"k".to_vec(), Some(vec![0; 100_000]))]);
    let recent = Recent::default().with(run_of(&changes), 0);
    let bytes = recent.bytes();
    assert!((100_000..101_000).contains(&bytes), "{bytes}");
}

#[test]
fn runs_beyond_some_size_are_not_put_together() {
    let mut recent = Recent::default();
    for nth in 0..3_u32 {
        let entries = TOGETHER_MAX / 2 + 1;
        let changes = (0..u32::try_from(entries).unwrap()).map(|key| {
            let key = [key.to_le_bytes(), nth.to_le_bytes()].concat();
            (key, None)
        });
        recent = recent.with(run_of(&changes.collect()), 0);
    }
    assert_eq!(recent.len(), 3);
}
