//! Sealing and opening under the secrets of one session.

use std::fmt;

use kimberlite_types::{LogId, RecordFlags, SessionId, StreamId};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{
    COMMITMENT_BYTES, Commit, KeyCommitment, OpenError, Place, SessionError, SessionParams, Suite,
    TAG_BYTES, commitment_bytes, seal_overhead,
};
use crate::aead::{Aead, Backend, NONCE_BYTES};
use crate::expand::expand;
use crate::sha256::{Message, PreparedHmac, hash_many};
use crate::{DataKey, KeyId, KeyVersion};

/// The first byte of what a commitment hashes.
const COMMITMENT: u8 = 0x03;

const ASSOCIATED_FIXED_BYTES: usize = 32 + 8 + 8 + 4;

/// The secrets of a session, ready for use from any number of threads.
pub struct SessionCipher {
    aead: Aead,
    base_nonce: Zeroizing<[u8; NONCE_BYTES]>,
    blind: PreparedHmac,
}

impl SessionCipher {
    /// Opens a new session; `salt` is freshly drawn at random for it.
    pub fn open_new(
        data_key: &DataKey,
        log_id: &LogId,
        key_id: KeyId,
        key_version: KeyVersion,
        salt: [u8; 32],
    ) -> (Self, SessionParams) {
        let mut params = SessionParams {
            suite: Suite::Aes256GcmSha256,
            key_id,
            key_version,
            salt,
            key_commitment: KeyCommitment::new([0; 32]),
        };
        let (cipher, commitment) = derive(data_key, log_id, &params, Backend::default());
        params.key_commitment = commitment;
        (cipher, params)
    }

    /// Comes back to a session of which the parameters are in the log.
    ///
    /// # Errors
    ///
    /// [`SessionError::WrongKey`] when the data key is not the one of the session.
    pub fn from_params(
        data_key: &DataKey,
        log_id: &LogId,
        params: &SessionParams,
    ) -> Result<Self, SessionError> {
        Self::with_backend(data_key, log_id, params, Backend::default())
    }

    /// Does what [`from_params`](Self::from_params) does with a chosen library, to compare them.
    ///
    /// # Errors
    ///
    /// [`SessionError::WrongKey`] when the data key is not the one of the session.
    pub fn with_backend(
        data_key: &DataKey,
        log_id: &LogId,
        params: &SessionParams,
        backend: Backend,
    ) -> Result<Self, SessionError> {
        let (cipher, commitment) = derive(data_key, log_id, params, backend);
        let same = commitment
            .as_bytes()
            .ct_eq(params.key_commitment.as_bytes());
        if bool::from(same) {
            Ok(cipher)
        } else {
            Err(SessionError::WrongKey)
        }
    }

    /// Seals in place what stands in `buffer` from `start` on, and appends the tag.
    ///
    /// With [`Commit::Included`] the first 32 bytes are room for the commitment and the plaintext
    /// stands after them; with [`Commit::Omitted`] the plaintext stands at `start`. Nothing is
    /// allocated when the buffer has room for 16 bytes more. The counter of `place` must not have
    /// been used in this session before.
    ///
    /// # Panics
    ///
    /// When the buffer ends before `start` or before the room for the commitment does.
    pub fn seal_in_place(&self, place: &Place, commit: Commit, buffer: &mut Vec<u8>, start: usize) {
        let (commitment, plaintext) = buffer
            .get_mut(start..)
            .and_then(|payload| payload.split_at_mut_checked(commitment_bytes(commit)))
            .expect("the buffer has room for the commitment at its start");
        if commit == Commit::Included {
            commitment.copy_from_slice(&self.commitment(place.counter, plaintext));
        }
        let tag = self.encrypt(place, commitment, plaintext);
        buffer.extend_from_slice(&tag);
    }

    /// Seals many payloads in place, each as [`seal_in_place`](Self::seal_in_place) would, two
    /// commitments side by side. Here the last 16 bytes of a payload are room for the tag.
    ///
    /// # Panics
    ///
    /// When a payload has no room for commitment and tag.
    pub fn seal_many(&self, commit: Commit, payloads: &mut [ToSeal<'_>]) {
        if commit == Commit::Included {
            let commitments = self.commitments(payloads);
            for (payload, commitment) in payloads.iter_mut().zip(commitments) {
                let (room, ..) = payload.split(commit);
                room.copy_from_slice(&commitment);
            }
        }
        for payload in payloads {
            let place = payload.place;
            let (commitment, plaintext, tag) = payload.split(commit);
            tag.copy_from_slice(&self.encrypt(&place, commitment, plaintext));
        }
    }

    #[inline]
    fn encrypt(&self, place: &Place, commitment: &[u8], plaintext: &mut [u8]) -> [u8; TAG_BYTES] {
        let associated = Associated::new(place, commitment);
        let nonce = self.nonce(place.counter);
        self.aead.seal(nonce, associated.as_bytes(), plaintext)
    }

    /// Returns the commitments to the plaintexts of payloads that have room for them.
    fn commitments(&self, payloads: &[ToSeal<'_>]) -> Vec<[u8; COMMITMENT_BYTES]> {
        let heads = self.commitment_heads(payloads);
        let mut commitments = vec![[0; COMMITMENT_BYTES]; payloads.len()];
        let messages = heads.iter().zip(payloads).map(|(head, payload)| Message {
            head,
            body: payload.plaintext(Commit::Included),
        });
        hash_many(messages, |index, hash| {
            if let Some(commitment) = commitments.get_mut(index) {
                *commitment = hash;
            }
        });
        commitments
    }

    /// Returns what stands before each plaintext in what its commitment hashes.
    fn commitment_heads(
        &self,
        payloads: &[ToSeal<'_>],
    ) -> Zeroizing<Vec<[u8; 1 + COMMITMENT_BYTES]>> {
        let mut heads = Zeroizing::new(Vec::with_capacity(payloads.len()));
        let head = |blind: [u8; 32]| {
            let mut head = [COMMITMENT; 1 + COMMITMENT_BYTES];
            head[1..].copy_from_slice(&blind);
            head
        };
        let counter = |payload: &ToSeal<'_>| payload.place.counter.to_le_bytes();
        let (pairs, rest) = payloads.as_chunks();
        for [a, b] in pairs {
            let blinds = self.blind.authenticate_pair([&counter(a), &counter(b)]);
            heads.extend(blinds.map(head));
        }
        heads.extend(
            rest.iter()
                .map(|last| head(self.blind.authenticate(&counter(last)))),
        );
        heads
    }

    /// Opens a sealed payload and checks the commitment that it carries.
    ///
    /// # Errors
    ///
    /// [`OpenError`] when the payload is not what was sealed for this place.
    pub fn open(
        &self,
        place: &Place,
        flags: RecordFlags,
        stored: &[u8],
    ) -> Result<Vec<u8>, OpenError> {
        if !flags.is_encrypted() {
            return Err(OpenError::NotSealed);
        }
        let commit = if flags.is_committed() {
            Commit::Included
        } else {
            Commit::Omitted
        };
        let too_short = OpenError::TooShort {
            bytes_min: seal_overhead(commit),
            actual: stored.len(),
        };
        let (commitment, sealed) = stored
            .split_at_checked(commitment_bytes(commit))
            .ok_or(too_short)?;
        let (ciphertext, tag) = sealed.split_last_chunk::<TAG_BYTES>().ok_or(too_short)?;

        let associated = Associated::new(place, commitment);
        let mut plaintext = ciphertext.to_vec();
        self.aead
            .open(
                self.nonce(place.counter),
                associated.as_bytes(),
                &mut plaintext,
                tag,
            )
            .map_err(|_| OpenError::NotAuthentic)?;
        if commit == Commit::Included && commitment != self.commitment(place.counter, &plaintext) {
            return Err(OpenError::Commitment);
        }
        Ok(plaintext)
    }

    /// Returns the library that seals and opens.
    pub const fn backend(&self) -> Backend {
        self.aead.backend()
    }

    #[inline]
    fn nonce(&self, counter: u32) -> [u8; NONCE_BYTES] {
        let mut nonce = *self.base_nonce;
        let last = nonce
            .last_chunk_mut::<4>()
            .expect("a nonce has twelve bytes");
        for (byte, counter) in last.iter_mut().zip(counter.to_le_bytes()) {
            *byte ^= counter;
        }
        nonce
    }

    #[inline]
    fn commitment(&self, counter: u32, plaintext: &[u8]) -> [u8; COMMITMENT_BYTES] {
        let blind = self.blind.authenticate(&counter.to_le_bytes());
        let mut head = [COMMITMENT; 1 + COMMITMENT_BYTES];
        head[1..].copy_from_slice(&blind);
        let mut commitment = [0; COMMITMENT_BYTES];
        let message = Message {
            head: &head,
            body: plaintext,
        };
        hash_many([message], |_, hash| commitment = hash);
        commitment
    }
}

/// A payload that is laid out to be sealed in place: room for the commitment if there is to be one,
/// the plaintext, room for the tag.
pub struct ToSeal<'a> {
    /// Where it will stand. Its counter must not have been used in this session before.
    pub place: Place,
    /// The payload's bytes.
    pub payload: &'a mut [u8],
}

impl ToSeal<'_> {
    /// Returns the room for the commitment, the plaintext, and the room for the tag.
    fn split(&mut self, commit: Commit) -> (&mut [u8], &mut [u8], &mut [u8; TAG_BYTES]) {
        let parts = self.payload.split_at_mut_checked(commitment_bytes(commit));
        let parts = parts.and_then(|(commitment, rest)| {
            let (plaintext, tag) = rest.split_last_chunk_mut()?;
            Some((commitment, plaintext, tag))
        });
        parts.expect("the payload has room for commitment and tag")
    }

    fn plaintext(&self, commit: Commit) -> &[u8] {
        let end = self.payload.len().checked_sub(TAG_BYTES);
        let range = end.and_then(|end| self.payload.get(commitment_bytes(commit)..end));
        range.expect("the payload has room for commitment and tag")
    }
}

impl fmt::Debug for ToSeal<'_> {
    // What is sealed is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToSeal")
            .field("place", &self.place)
            .field("bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SessionCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionCipher")
            .field("backend", &self.backend())
            .finish_non_exhaustive()
    }
}

fn derive(
    data_key: &DataKey,
    log_id: &LogId,
    params: &SessionParams,
    backend: Backend,
) -> (SessionCipher, KeyCommitment) {
    let secret = expand::<32>(
        data_key.as_bytes(),
        &[
            b"kimberlite/v1/session",
            &params.suite.to_u16().to_le_bytes(),
            log_id.as_bytes(),
            params.key_id.as_bytes(),
            &params.key_version.get().to_le_bytes(),
            &params.salt,
        ],
    );
    let key = expand::<32>(&secret, &[b"kimberlite/v1/session/key"]);
    let blind = expand::<32>(&secret, &[b"kimberlite/v1/session/blind"]);
    let cipher = SessionCipher {
        aead: Aead::new(backend, &key),
        base_nonce: expand(&secret, &[b"kimberlite/v1/session/nonce"]),
        blind: PreparedHmac::new(&blind),
    };
    let commitment = expand(&secret, &[b"kimberlite/v1/session/commitment"]);
    (cipher, KeyCommitment::new(*commitment))
}

/// What the tag covers beside the ciphertext.
struct Associated {
    bytes: [u8; ASSOCIATED_FIXED_BYTES + COMMITMENT_BYTES],
    used: usize,
}

impl Associated {
    #[inline]
    fn new(place: &Place, commitment: &[u8]) -> Self {
        let mut associated = Self {
            bytes: [0; ASSOCIATED_FIXED_BYTES + COMMITMENT_BYTES],
            used: 0,
        };
        associated.put(place.log_id.as_bytes());
        associated.put(&StreamId::to_stored(place.stream).to_le_bytes());
        associated.put(&SessionId::to_stored(Some(place.session)).to_le_bytes());
        associated.put(&place.counter.to_le_bytes());
        associated.put(commitment);
        associated
    }

    #[inline]
    fn put(&mut self, field: &[u8]) {
        let end = self.used + field.len();
        self.bytes
            .get_mut(self.used..end)
            .expect("the fields fill the associated data at most")
            .copy_from_slice(field);
        self.used = end;
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.used).expect("what was put is within")
    }
}

#[cfg(test)]
mod tests {
    use kimberlite_types::Position;

    use super::*;

    /// Who knows the session's key can make any ciphertext authentic; the commitment is what stops
    /// a second plaintext, and only if opening checks it.
    #[test]
    fn a_commitment_of_another_blind_is_refused_although_the_payload_is_authentic() {
        let log_id = LogId::new([1; 32]);
        let open_new = |salt| {
            let id = KeyId::new([2; 16]);
            SessionCipher::open_new(
                &DataKey::new([3; 32]),
                &log_id,
                id,
                KeyVersion::new(0),
                salt,
            )
            .0
        };
        let honest = open_new([4; 32]);
        let forger = SessionCipher {
            blind: open_new([5; 32]).blind,
            ..open_new([4; 32])
        };
        let place = Place {
            log_id,
            stream: None,
            session: SessionId::new(Position::new(6)),
            counter: 7,
        };
        let seal = |cipher: &SessionCipher| {
            let mut buffer = vec![0; COMMITMENT_BYTES];
            buffer.extend(b"plaintext");
            cipher.seal_in_place(&place, Commit::Included, &mut buffer, 0);
            honest.open(&place, RecordFlags::COMMITTED, &buffer)
        };
        assert_eq!(seal(&honest).unwrap(), b"plaintext");
        assert_eq!(seal(&forger), Err(OpenError::Commitment));
    }

    #[test]
    fn many_payloads_are_sealed_as_each_is_alone() {
        let log_id = LogId::new([1; 32]);
        let (id, version) = (KeyId::new([2; 16]), KeyVersion::new(0));
        let (cipher, _) =
            SessionCipher::open_new(&DataKey::new([3; 32]), &log_id, id, version, [4; 32]);
        let place = |counter| Place {
            log_id,
            stream: None,
            session: SessionId::new(Position::new(6)),
            counter,
        };
        for commit in [Commit::Included, Commit::Omitted] {
            for count in 0..6 {
                let laid_out = (0..count).map(|n| vec![n; usize::from(n) * 300]);
                let laid_out = laid_out.map(|plaintext| {
                    let mut payload = vec![0; commitment_bytes(commit)];
                    payload.extend(plaintext);
                    payload
                });
                let mut alone = laid_out.collect::<Vec<_>>();
                let mut many = alone.clone();
                for (counter, payload) in (0..).zip(&mut alone) {
                    cipher.seal_in_place(&place(counter), commit, payload, 0);
                }
                let mut to_seal = Vec::new();
                for (counter, payload) in (0..).zip(&mut many) {
                    payload.extend([0; TAG_BYTES]);
                    let place = place(counter);
                    to_seal.push(ToSeal { place, payload });
                }
                cipher.seal_many(commit, &mut to_seal);
                assert_eq!(many, alone);
            }
        }
    }

    #[test]
    fn every_counter_has_a_nonce_of_its_own() {
        let log_id = LogId::new([1; 32]);
        let (id, version) = (KeyId::new([2; 16]), KeyVersion::new(0));
        let (cipher, _) =
            SessionCipher::open_new(&DataKey::new([3; 32]), &log_id, id, version, [4; 32]);
        let base = cipher.nonce(0);
        assert_eq!(base, *cipher.base_nonce);
        for bit in 0..32 {
            let counter = 1_u32 << bit;
            let mut expected = base;
            let at = 8 + bit / 8;
            *expected.get_mut(at).unwrap() ^= 1 << (bit % 8);
            assert_eq!(cipher.nonce(counter), expected);
        }
    }
}
