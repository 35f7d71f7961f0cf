//! Verifying a tenant: everything is recomputed from the bytes on disk and compared with what the
//! log and its checkpoints say.

use kimberlite_storage::{Damage, VerifiedLog, VerifyProgress};
use kimberlite_types::{ChainHash, Position, RootHash};

use crate::checkpoint::Checkpoint;
use crate::error::{Error, ErrorKind};
use crate::tenant::{Tenant, TenantInner};

/// What a verification found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Records that were recomputed.
    pub records: u64,
    /// Stored payload bytes that were hashed.
    pub payload_bytes: u64,
    /// Checkpoints that were compared.
    pub checkpoints: u64,
    /// The Merkle root over all records.
    pub root: RootHash,
    /// The hash chain after the last record.
    pub chain: ChainHash,
    /// What is wrong, in order of position.
    pub findings: Vec<Finding>,
}

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What is wrong, in words.
    pub what: String,
    /// The segment file, where it is in one.
    pub segment: Option<String>,
    /// Byte of that file.
    pub byte: Option<u64>,
    /// The first record that is affected, where it can be told.
    pub position: Option<Position>,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }
}

impl Finding {
    pub(crate) fn of(damage: &Damage) -> Self {
        Self {
            what: damage.kind.to_string(),
            segment: Some(damage.segment.clone()),
            byte: Some(damage.byte),
            position: Some(damage.position),
        }
    }

    fn at(position: Position, what: String) -> Self {
        Self {
            what,
            segment: None,
            byte: None,
            position: Some(position),
        }
    }
}

impl Tenant {
    /// Recomputes the digest of every payload, every leaf, the chain and the tree, and compares
    /// every checkpoint, its signature included.
    ///
    /// Opens no payload, and reads everything from disk.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) when files cannot be read. What is wrong with the
    /// data is in the report.
    pub fn verify(&self) -> Result<VerifyReport, Error> {
        self.verify_with(&mut |_| {})
    }

    /// Does what [`Tenant::verify`] does, and tells how far it is.
    ///
    /// # Errors
    ///
    /// As [`Tenant::verify`].
    pub fn verify_with(
        &self,
        progress: &mut dyn FnMut(VerifyProgress),
    ) -> Result<VerifyReport, Error> {
        let inner = self.inner();
        let disk = inner.database.options.disk.as_ref();
        let checkpoints = inner.all_checkpoints()?;
        let mut sizes = checkpoints
            .iter()
            .map(|(size, _)| *size)
            .collect::<Vec<_>>();
        sizes.sort_unstable();
        let log = kimberlite_storage::verify(&inner.reader, disk, &sizes, progress)?;
        let mut findings = inner
            .report
            .damage
            .iter()
            .chain(&log.damage)
            .map(Finding::of)
            .collect();
        dedup(&mut findings);
        let sound = findings.is_empty();
        let count = u64::try_from(checkpoints.len()).unwrap_or(u64::MAX);
        for (size, signed) in checkpoints {
            let signed = match signed {
                Ok(signed) => signed,
                // A file that cannot be read now says nothing about the data.
                Err(error) if error.kind() != ErrorKind::Corrupt => return Err(error),
                Err(error) => {
                    findings.push(Finding::at(size, error.to_string()));
                    continue;
                }
            };
            findings.extend(compare(&signed, &log, sound));
        }
        Ok(VerifyReport {
            records: log.records,
            payload_bytes: log.payload_bytes,
            checkpoints: count,
            root: log.root,
            chain: log.chain,
            findings,
        })
    }
}

/// The size of a checkpoint, and the checkpoint if its signature is right.
pub(crate) type ReadCheckpoint = (Position, Result<Checkpoint, Error>);

impl TenantInner {
    /// Reads all checkpoints, by size, and the one that other tools see where it is none of them.
    pub(crate) fn all_checkpoints(&self) -> Result<Vec<ReadCheckpoint>, Error> {
        Ok(self.read_checkpoints(&self.checkpoints.sizes()?))
    }

    /// Reads those of the checkpoints with these sizes that were not removed meanwhile, and the one
    /// that other tools see.
    fn read_checkpoints(&self, sizes: &[Position]) -> Vec<ReadCheckpoint> {
        let read = |&size: &Position| Some((size, self.checkpoints.read_if_there(size)?));
        let mut all = sizes.iter().filter_map(read).collect::<Vec<_>>();
        if let Some(shown) = self.checkpoints.shown() {
            let size = shown.as_ref().map_or(Position::ZERO, Checkpoint::position);
            let same = |(_, other): &ReadCheckpoint| matches!((other, &shown), (Ok(other), Ok(shown)) if other == shown);
            if !all.iter().any(same) {
                all.push((size, shown));
            }
        }
        if self.engine.is_none() {
            // What a writer has made since this handle was opened speaks of records that it does not
            // see.
            let seen = self.reader.end().max(self.witnessed);
            all.retain(|(size, _)| *size <= seen);
        }
        all
    }
}

/// Holds a checkpoint against what the log is by its own bytes.
fn compare(signed: &Checkpoint, log: &VerifiedLog, sound: bool) -> Option<Finding> {
    let size = signed.position();
    match log.at_sizes.iter().find(|(at, _, _)| *at == size) {
        Some((_, root, chain)) if (*root, *chain) == (signed.root(), signed.chain()) => None,
        Some(_) => Some(Finding::at(
            size,
            format!("the log is not the one that the checkpoint of {size} records signed"),
        )),
        // Behind damage nothing can be compared, and the damage is told.
        None if !sound => None,
        None => Some(Finding::at(
            Position::new(log.records),
            format!(
                "the log was rolled back: it has {} records, a checkpoint vouches for {size}",
                log.records
            ),
        )),
    }
}

fn dedup(findings: &mut Vec<Finding>) {
    // What opening and verification both tell of one place need not stand side by side.
    findings.sort_by(|a, b| {
        let place = |it: &Finding| (it.position, it.byte);
        place(a).cmp(&place(b)).then_with(|| a.what.cmp(&b.what))
    });
    findings.dedup();
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kimberlite_testkit::SimulatedDisk;

    use super::*;
    use crate::{Database, Event, ExpectedVersion};

    #[test]
    fn a_checkpoint_that_was_removed_since_the_files_were_listed_is_no_finding() {
        let disk = Arc::new(SimulatedDisk::new(1));
        let db = Database::builder("/db").disk(disk).background(false);
        let tenant = db.open().unwrap().tenant("t").unwrap();
        let stream = tenant.stream("s").unwrap();
        stream
            .append(ExpectedVersion::Any, &[Event::new("noted", "x")])
            .unwrap();
        let size = tenant.checkpoint().unwrap().position();
        let listed = [Position::new(1), size];
        let read = tenant.inner().read_checkpoints(&listed);
        assert!(matches!(&read[..], [(at, Ok(_))] if *at == size));
    }
}
