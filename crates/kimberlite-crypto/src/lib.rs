//! Digests, Merkle tree, sealing, keys and signed notes of Kimberlite.
//!
//! Everything that turns bytes into evidence or into secrets, as pure functions: no file, no clock,
//! no source of randomness; whoever calls passes random bytes in.
//!
//! * [`payload_digest`], [`payload_digests`], [`log_id`]: SHA-256, for all that a third party checks.
//! * [`leaf_hash`], [`leaf_hashes`], [`node_hash`], [`Frontier`]: the Merkle tree of RFC 6962 over
//!   record headers.
//! * [`chain_seed`], [`chain_next`]: the hash chain over the same leaves.
//! * [`internal_hash`], [`internal_hash_many`], [`InternalHasher`]: BLAKE3, for files that only
//!   Kimberlite reads.
//! * [`EnvelopeParts`], [`Envelope`]: type, metadata and data of an event in one payload.
//! * [`SessionCipher`]: AES-256-GCM under the key of one writer session, with a commitment to the
//!   plaintext.
//! * [`PageCipher`]: AES-256-GCM for the pages of derived state, under a [`ProjectionKey`].
//! * [`RootKey`], [`KeyEncryptionKey`], [`Keyring`]: where data keys rest.
//! * [`Signer`], [`VerifierKey`], [`CheckpointBody`], [`SignedCheckpoint`]: signed statements about
//!   history, as C2SP tlog-checkpoints.
//!
//! It is not a general toolbox: there is one suite, and it is the one that the log is written with.
//!
//! # Examples
//!
//! ```
//! use kimberlite_crypto::{
//!     Commit, DataKey, KeyId, KeyVersion, Place, SessionCipher, commitment_bytes, log_id,
//! };
//! use kimberlite_types::{Position, RecordFlags, SessionId};
//!
//! let log_id = log_id(b"the payload of the genesis record");
//! let data_key = DataKey::new([1; 32]); // random in earnest, as are key id and salt
//! let (key_id, version, salt) = (KeyId::new([2; 16]), KeyVersion::new(0), [3; 32]);
//! let (cipher, params) = SessionCipher::open_new(&data_key, &log_id, key_id, version, salt);
//!
//! let place = Place {
//!     log_id,
//!     stream: None,
//!     session: SessionId::new(Position::new(1)),
//!     counter: 0, // never used twice in a session
//! };
//! let mut payload = vec![0; commitment_bytes(Commit::Included)];
//! payload.extend(b"plaintext");
//! cipher.seal_in_place(&place, Commit::Included, &mut payload, 0);
//!
//! let reader = SessionCipher::from_params(&data_key, &log_id, &params)?;
//! assert_eq!(reader.open(&place, RecordFlags::COMMITTED, &payload)?, b"plaintext");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! `aws-lc-rs` (default) seals with aws-lc; without it the portable `aes-gcm` is used. The bytes are
//! the same.

#![deny(unsafe_code)]

mod aead;
mod chain;
mod digest;
mod entropy;
mod envelope;
mod expand;
mod fields;
mod key;
mod key_wrap;
mod keyring;
mod merkle;
mod note;
mod page;
mod root_key;
mod session;
mod sha256;
mod signer;
mod snapshot_claim;

pub use aead::Backend;
pub use chain::{chain_next, chain_seed};
pub use digest::{
    InternalHash, InternalHasher, RequestHasher, idempotency_key_hash, internal_hash,
    internal_hash_many, log_id, name_hash, payload_digest, payload_digests,
};
pub use entropy::Entropy;
pub use envelope::{Envelope, EnvelopeError, EnvelopeParts, EventTypeText};
pub use key::{DataKey, KeyId, KeyVersion, NameKey, RequestKey};
pub use key_wrap::{
    KeyEncryptionKey, KeyProvider, KeyProviderError, UnwrapError, WRAPPED_KEY_BYTES,
};
pub use keyring::{KEYRING_ENTRIES_MAX, Keyring, KeyringEntry, KeyringError, Slot};
pub use merkle::{Frontier, FrontierError, leaf_hash, leaf_hashes, node_hash};
pub use note::{CheckpointBody, NOTE_BYTES_MAX, NoteError, SignedCheckpoint};
pub use page::{PAGE_SALT_BYTES, PageCipher, PageError, PagePlace, ProjectionKey, StoreIdentity};
pub use root_key::{RootKey, RootKeyError};
pub use session::{
    COMMITMENT_BYTES, Commit, KeyCommitment, OpenError, Place, SESSION_PARAMS_BYTES, SessionCipher,
    SessionError, SessionParams, Suite, TAG_BYTES, ToSeal, commitment_bytes, seal_overhead,
};
pub use signer::{KEY_NAME_BYTES_MAX, Signer, SignerError, VerifierKey, VerifierKeyError};
pub use snapshot_claim::SnapshotClaim;
