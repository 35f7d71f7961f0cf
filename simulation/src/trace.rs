//! What happened in a history: its steps in words, a digest of them, and how many of each sort.

use std::ops::AddAssign;

/// How often things happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Operations on open databases.
    pub operations: u64,
    /// Events whose append was acknowledged.
    pub events: u64,
    /// Appends that were answered before their sync.
    pub early: u64,
    /// Futures that were polled to their end.
    pub awaited: u64,
    /// Tenants that were opened and held against the model.
    pub openings: u64,
    /// Power losses and kills.
    pub crashes: u64,
    /// Faults of the disk that an operation met as an error.
    pub errors: u64,
    /// Torn ends that an opening cut off.
    pub torn: u64,
    /// Copies that were damaged, rolled back or forked, and opened.
    pub spoiled: u64,
    /// Those of them where something was told.
    pub told: u64,
    /// Pairs of key and nonce.
    pub sealings: u64,
    /// Events that were purged.
    pub purged: u64,
    /// Retries that were told where their events stood already.
    pub duplicates: u64,
    /// Retries that were appended, since what was asked for first was gone.
    pub retried: u64,
    /// Backups that were made.
    pub backups: u64,
    /// Backups that were restored.
    pub restores: u64,
    /// Projections that took in what is durable.
    pub projected: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.operations += other.operations;
        self.events += other.events;
        self.early += other.early;
        self.awaited += other.awaited;
        self.openings += other.openings;
        self.crashes += other.crashes;
        self.errors += other.errors;
        self.torn += other.torn;
        self.spoiled += other.spoiled;
        self.told += other.told;
        self.sealings += other.sealings;
        self.purged += other.purged;
        self.duplicates += other.duplicates;
        self.retried += other.retried;
        self.backups += other.backups;
        self.restores += other.restores;
        self.projected += other.projected;
    }
}

/// The steps of one history.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    digest: blake3::Hasher,
    lines: Vec<String>,
    pub(crate) counts: Counts,
}

impl Trace {
    pub(crate) fn note(&mut self, line: String) {
        self.digest.update(line.as_bytes());
        self.digest.update(b"\n");
        self.lines.push(line);
    }

    pub(crate) fn digest(&self) -> String {
        self.digest.finalize().to_hex().to_string()
    }

    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines
    }
}
