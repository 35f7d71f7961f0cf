//! Goal: the simulation is not blind. Method: a fault that no database survives is planted, and some
//! history among the first few must break a promise.

use kimberlite_simulation::{Canary, simulate};
use kimberlite_testkit::Lie;

/// Returns how a planted fault is found, which must be in one of the first `seeds` histories.
fn found(canary: Canary, seeds: u64) -> String {
    let failure = (0..seeds).find_map(|seed| simulate(seed, Some(canary)).failure);
    assert!(
        failure.is_some(),
        "{canary:?} is not found in {seeds} histories"
    );
    failure.unwrap_or_default()
}

#[test]
fn syncs_that_are_skipped_are_found_within_20_histories() {
    found(Canary::Lie(Lie::SkipSync, 4), 20);
}

#[test]
fn a_directory_sync_that_is_skipped_is_found_within_20_histories() {
    found(Canary::Lie(Lie::SkipDirectorySync, 4), 20);
}

#[test]
fn acknowledged_writes_that_are_lost_are_found_within_20_histories() {
    found(Canary::Lie(Lie::LoseWrite, 30), 20);
}

#[test]
fn writes_that_are_reordered_across_a_sync_are_found_within_20_histories() {
    found(Canary::Lie(Lie::ReorderAcrossSync, 4), 20);
}

#[test]
fn bits_that_are_flipped_on_reading_are_found_within_20_histories() {
    found(Canary::Lie(Lie::FlipOnRead, 20), 20);
}

#[test]
fn a_nonce_that_repeats_is_found_within_20_histories() {
    let failure = found(Canary::RepeatedEntropy, 20);
    assert!(failure.contains("sealed two payloads"), "{failure}");
}

#[test]
fn early_answers_that_are_taken_for_promises_are_found_within_60_histories() {
    let failure = found(Canary::EarlyAsDurable, 60);
    let is_loss = ["were acknowledged", "is gone"].map(|told| failure.contains(told));
    assert!(is_loss.contains(&true), "{failure}");
}

#[test]
fn a_projection_that_leaves_out_events_is_found_within_20_histories() {
    let failure = found(Canary::ForgetfulProjection, 20);
    assert!(failure.contains("a projection of"), "{failure}");
}

#[test]
fn retries_that_forget_their_keys_are_found_within_20_histories() {
    let failure = found(Canary::RetryWithoutKey, 20);
    assert!(failure.contains("retry"), "{failure}");
}
