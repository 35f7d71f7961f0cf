//! Signed checkpoints.
//!
//! A checkpoint is made in this order: 1. the record of the one before is appended, 2. the log is
//! synced, 3. the note is signed over its size, root and chain, 4. stored. So the newest checkpoint
//! is never in the log that it speaks of, and such records alone call for no new one.

use kimberlite_crypto::{CheckpointBody, SignedCheckpoint, VerifierKey};
use kimberlite_kernel::Command;
use kimberlite_types::{ChainHash, Position, RecordKind, RootHash, Timestamp};

use crate::engine::{Engine, Group};
use crate::error::{Error, Problem};
use crate::tenant::{Tenant, TenantInner};

/// A signed statement about history: that the log had this root and chain when it had this size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    body: CheckpointBody,
    note: String,
}

impl Checkpoint {
    /// Returns the log that it speaks of, as its key is named.
    pub fn origin(&self) -> &str {
        &self.body.origin
    }

    /// Returns the number of records.
    pub fn size(&self) -> u64 {
        self.body.size
    }

    /// Returns the root of the Merkle tree over them (RFC 6962).
    pub fn root(&self) -> RootHash {
        self.body.root
    }

    /// Returns the hash chain after the last of them.
    pub fn chain(&self) -> ChainHash {
        self.body.chain
    }

    /// Returns when it was made.
    pub fn time(&self) -> Timestamp {
        self.body.time
    }

    /// Returns the signed note (C2SP tlog-checkpoint), for others to keep and check.
    pub fn note(&self) -> &str {
        &self.note
    }
}

impl Tenant {
    /// Makes a checkpoint of everything appended so far; the newest one when nothing is new.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown) when the log cannot be
    /// synced, [`ErrorKind::Io`](crate::ErrorKind::Io) and
    /// [`ErrorKind::DiskFull`](crate::ErrorKind::DiskFull) when the note cannot be stored.
    pub fn checkpoint(&self) -> Result<Checkpoint, Error> {
        self.inner()
            .with_engine(|engine| self.inner().checkpoint(engine))
    }

    /// Returns the newest checkpoint, its signature checked.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when it is damaged or not ours.
    pub fn latest_checkpoint(&self) -> Result<Option<Checkpoint>, Error> {
        self.inner().latest_checkpoint()
    }

    /// Returns the key that checkpoints are verified with, in the form that signed-note tools take.
    pub fn verifier_key(&self) -> String {
        self.inner().verifier().to_string()
    }
}

impl TenantInner {
    pub(crate) fn verifier(&self) -> VerifierKey {
        let key = self.keys.signer.verifier_key(&self.origin);
        key.expect("the tenant's name was checked when it was made")
    }

    pub(crate) fn latest_checkpoint(&self) -> Result<Option<Checkpoint>, Error> {
        match self.store.sizes()?.last() {
            Some(&size) => self.read_checkpoint(size).map(Some),
            None => Ok(None),
        }
    }

    /// Reads the checkpoint of `size` records and checks its signature.
    pub(crate) fn read_checkpoint(&self, size: Position) -> Result<Checkpoint, Error> {
        let bad = |source| Problem::Checkpoint {
            size: size.get(),
            source,
        };
        let note = self.store.note(size)?;
        let body = SignedCheckpoint::parse(&note).map_err(bad)?;
        let body = body.verify(&self.verifier()).map_err(bad)?;
        if body.size != size.get() {
            return Err(
                kimberlite_storage::StorageError::CheckpointFile { size: size.get() }.into(),
            );
        }
        Ok(Checkpoint { body, note })
    }

    pub(crate) fn checkpoint(&self, engine: &mut Engine) -> Result<Checkpoint, Error> {
        engine.log.sync()?;
        let latest = self.latest_checkpoint()?;
        if let Some(latest) = &latest {
            if self.catalog().substantial_end.get() <= latest.size() {
                return Ok(latest.clone());
            }
            let size = Position::new(latest.size());
            if engine.state.last_checkpoint() != Some(size) {
                let command = Command::Checkpoint {
                    size,
                    time: engine.now(),
                };
                let mut group = Group::default();
                let note = latest.note().as_bytes();
                let bytes = u64::try_from(note.len()).unwrap_or(u64::MAX);
                engine.log.reserve(bytes + 256)?;
                engine.record(&mut group, RecordKind::Checkpoint, command, note)?;
                self.commit(engine, group)?;
                engine.log.sync()?;
            }
        }
        let state = engine.log.history();
        let body = CheckpointBody {
            origin: self.origin.clone(),
            size: state.size().get(),
            root: state.root(),
            chain: state.chain(),
            time: engine.now(),
        };
        let bad = |source| Problem::Checkpoint {
            size: body.size,
            source,
        };
        let note = body.sign(&self.keys.signer).map_err(bad)?;
        self.store.store(&state, &note)?;
        Ok(Checkpoint { body, note })
    }
}
