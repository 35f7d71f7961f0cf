//! What the signer of a tenant says of a snapshot: that it made these bytes of this log up to there.
//!
//! The signed message is `"kimberlite/v1/snapshot\n" ‖ log id 32 ‖ position u64 ‖ digest 32`. No
//! signed note begins so: its first line is an origin, in which the log id stands second.

use kimberlite_types::{LogId, Position};

use crate::InternalHash;
use crate::signer::{SIGNATURE_BYTES, Signer, VerifierKey};

const DOMAIN: &[u8] = b"kimberlite/v1/snapshot\n";

/// A claim about a snapshot, to be signed and checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotClaim {
    /// The log.
    pub log_id: LogId,
    /// How many of its records the snapshot stands for.
    pub position: Position,
    /// BLAKE3 of the snapshot.
    pub digest: InternalHash,
}

impl SnapshotClaim {
    /// Bytes of a signature.
    pub const SIGNATURE_BYTES: usize = SIGNATURE_BYTES;

    /// Signs the claim.
    pub fn sign(&self, signer: &Signer) -> [u8; SIGNATURE_BYTES] {
        signer.sign(&self.message())
    }

    /// Whether the owner of `key` signed the claim.
    #[must_use]
    pub fn is_signed(&self, key: &VerifierKey, signature: &[u8; SIGNATURE_BYTES]) -> bool {
        key.verify(&self.message(), signature)
    }

    fn message(&self) -> Vec<u8> {
        let mut message = DOMAIN.to_vec();
        message.extend_from_slice(self.log_id.as_bytes());
        message.extend_from_slice(&self.position.get().to_le_bytes());
        message.extend_from_slice(self.digest.as_bytes());
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::internal_hash;

    #[test]
    fn a_signature_is_of_one_log_position_digest_and_key() {
        let claim = SnapshotClaim {
            log_id: LogId::new([1; 32]),
            position: Position::new(7),
            digest: internal_hash(b"snapshot"),
        };
        let signer = Signer::from_seed([5; 32]);
        let key = signer.verifier_key("t/0101010101010101/1").unwrap();
        let signature = claim.sign(&signer);
        assert!(claim.is_signed(&key, &signature));
        let others = [
            SnapshotClaim {
                log_id: LogId::new([2; 32]),
                ..claim
            },
            SnapshotClaim {
                position: Position::new(8),
                ..claim
            },
            SnapshotClaim {
                digest: internal_hash(b"other"),
                ..claim
            },
        ];
        assert!(others.iter().all(|it| !it.is_signed(&key, &signature)));
        let other = Signer::from_seed([6; 32]);
        assert!(!claim.is_signed(&key, &claim.sign(&other)));
    }

    #[test]
    fn the_message_is_that_of_the_format() {
        let claim = SnapshotClaim {
            log_id: LogId::new([1; 32]),
            position: Position::new(7),
            digest: InternalHash::new([3; 32]),
        };
        let mut expected = b"kimberlite/v1/snapshot\n".to_vec();
        expected.extend([1; 32]);
        expected.extend([7, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([3; 32]);
        assert_eq!(claim.message(), expected);
    }
}
