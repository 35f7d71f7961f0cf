//! Histories without a planted fault, which must all hold.

use kimberlite_simulation::{Counts, simulate};

const SEEDS: u64 = 250;

#[test]
fn a_few_hundred_histories_break_no_promise_and_meet_every_fault() {
    let mut counts = Counts::default();
    for seed in 0..SEEDS {
        let report = simulate(seed, None);
        if let Some(failure) = report.failure {
            panic!(
                "seed {seed}: {failure}\nagain: cargo xtask simulate --seed {seed} --seeds 1 --trace"
            );
        }
        counts += report.counts;
    }
    assert!(counts.openings > 3 * SEEDS, "{counts:?}");
    assert!(counts.crashes > SEEDS, "{counts:?}");
    assert!(counts.errors > SEEDS, "{counts:?}");
    assert!(
        counts.early > SEEDS && counts.awaited > SEEDS / 5,
        "{counts:?}"
    );
    assert!(counts.torn > SEEDS / 15, "{counts:?}");
    assert!(counts.told > SEEDS, "{counts:?}");
    assert!(counts.sealings > 20 * SEEDS, "{counts:?}");
    assert!(counts.purged > SEEDS, "{counts:?}");
    assert!(counts.duplicates > SEEDS, "{counts:?}");
    assert!(counts.retried > SEEDS / 50, "{counts:?}");
    assert!(counts.backups > SEEDS / 4, "{counts:?}");
    assert!(counts.restores > SEEDS / 10, "{counts:?}");
    assert!(counts.projected > SEEDS, "{counts:?}");
}

#[test]
fn a_seed_gives_the_same_history_every_time_and_another_seed_another_one() {
    let digests = |seeds: std::ops::Range<u64>| -> Vec<String> {
        seeds.map(|seed| simulate(seed, None).digest).collect()
    };
    let first = digests(0..25);
    assert_eq!(first, digests(0..25));
    let distinct: std::collections::BTreeSet<_> = first.iter().collect();
    assert_eq!(distinct.len(), first.len());
}
