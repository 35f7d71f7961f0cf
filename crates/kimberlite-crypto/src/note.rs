//! Checkpoints: signed statements about a log, as C2SP signed-note and tlog-checkpoint have them.
//!
//! ```text
//! <origin>
//! <size>
//! <base64 of the root>
//! kimberlite/v1/chain <base64 of the chain hash>
//! kimberlite/v1/time <nanoseconds UTC>
//!
//! — <origin> <base64 of key id 4 ‖ Ed25519 signature 64>
//! ```
//!
//! Lines end in a line feed, numbers are decimal without leading zeros, base64 has its padding. The
//! signature covers everything up to and including the line feed before the empty line. The key
//! name is the origin. Extension lines that this release does not know and signatures of other keys
//! are passed over.

#![deny(clippy::indexing_slicing)]

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use kimberlite_types::{ChainHash, RootHash, Timestamp};

use crate::signer::{NOTE_KEY_ID_BYTES, SIGNATURE_BYTES, is_key_name, note_key_id};
use crate::{Signer, VerifierKey};

/// Bytes of a note.
pub const NOTE_BYTES_MAX: usize = 16 << 10;

const EXTENSION_LINES_MAX: usize = 16;
const SIGNATURES_MAX: usize = 16;
const CHAIN: &str = "kimberlite/v1/chain ";
const TIME: &str = "kimberlite/v1/time ";
const SIGNATURE: &str = "— ";

/// What a checkpoint says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointBody {
    /// The log, and the name of the key that signs.
    pub origin: String,
    /// Records of the log.
    pub size: u64,
    /// The root of the Merkle tree over them.
    pub root: RootHash,
    /// The hash chain after the last of them.
    pub chain: ChainHash,
    /// When the checkpoint was made.
    pub time: Timestamp,
}

/// A checkpoint that was read, not verified yet: what it says is out of reach until it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// What the signatures cover.
    text: String,
    body: CheckpointBody,
    signatures: Vec<NoteSignature>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct NoteSignature {
    name: String,
    key_id: [u8; NOTE_KEY_ID_BYTES],
    /// The bytes after the key id: 64 of them in an Ed25519 signature.
    signature: Vec<u8>,
}

/// Why a checkpoint is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoteError {
    /// The note is larger than any that is written.
    #[error("the note has {bytes} bytes, at most {NOTE_BYTES_MAX} are allowed")]
    TooLong {
        /// Bytes of the note.
        bytes: usize,
    },
    /// The origin cannot stand in a signed note.
    #[error("the origin of a checkpoint has neither white space nor '+', and at most 255 bytes")]
    Origin,
    /// A line is absent or malformed.
    #[error("the {line} of the note is absent or malformed")]
    Line {
        /// What the line should hold.
        line: &'static str,
    },
    /// No signature is by the key.
    #[error("the note has no signature by the verifier key")]
    NotSigned,
    /// The signature by the key does not fit the text.
    #[error("the signature does not fit the note: it was changed, or signed by another key")]
    Signature,
    /// The checkpoint is of another log than the key.
    #[error("the note is about another origin than the one of the verifier key")]
    OtherOrigin,
}

impl CheckpointBody {
    /// Signs the checkpoint and returns the note.
    ///
    /// # Errors
    ///
    /// [`NoteError::Origin`] when the origin cannot stand in a signed note.
    pub fn sign(&self, signer: &Signer) -> Result<String, NoteError> {
        if !is_key_name(&self.origin) {
            return Err(NoteError::Origin);
        }
        let mut note = self.text();
        let mut signed = note_key_id(&self.origin, &signer.public_key()).to_vec();
        signed.extend(signer.sign(note.as_bytes()));
        let signature = BASE64.encode(signed);
        writeln!(note, "\n{SIGNATURE}{} {signature}", self.origin)
            .expect("writing to a string succeeds");
        debug_assert!(note.len() <= NOTE_BYTES_MAX);
        Ok(note)
    }

    fn text(&self) -> String {
        let root = BASE64.encode(self.root.as_bytes());
        let chain = BASE64.encode(self.chain.as_bytes());
        let time = self.time.as_nanoseconds();
        format!(
            "{}\n{}\n{root}\n{CHAIN}{chain}\n{TIME}{time}\n",
            self.origin, self.size
        )
    }

    fn parse(text: &str) -> Result<Self, NoteError> {
        let absent = |line| NoteError::Line { line };
        let mut lines = text.split('\n');
        let mut line = |name| lines.next().ok_or(absent(name));
        let origin = line("origin")?;
        if !is_key_name(origin) {
            return Err(NoteError::Origin);
        }
        let size = parse_number(line("size")?).ok_or(absent("size"))?;
        let root = parse_hash(line("root")?).ok_or(absent("root"))?;
        let (mut chain, mut time) = (None, None);
        let mut extensions = 0;
        for extension in lines {
            extensions += 1;
            if extension.is_empty() || extensions > EXTENSION_LINES_MAX {
                return Err(absent("extension line"));
            }
            if let Some(hash) = extension.strip_prefix(CHAIN) {
                let hash = parse_hash(hash).ok_or(absent("chain hash"))?;
                if chain.replace(hash).is_some() {
                    return Err(absent("chain hash"));
                }
            } else if let Some(number) = extension.strip_prefix(TIME) {
                let number = parse_number(number).ok_or(absent("time"))?;
                if time.replace(number).is_some() {
                    return Err(absent("time"));
                }
            }
        }
        Ok(Self {
            origin: origin.to_owned(),
            size,
            root: RootHash::new(root),
            chain: ChainHash::new(chain.ok_or(absent("chain hash"))?),
            time: Timestamp::from_nanoseconds(time.ok_or(absent("time"))?),
        })
    }
}

impl SignedCheckpoint {
    /// Reads a note.
    ///
    /// # Errors
    ///
    /// [`NoteError`] when it is not a checkpoint of this format.
    pub fn parse(note: &str) -> Result<Self, NoteError> {
        if note.len() > NOTE_BYTES_MAX {
            return Err(NoteError::TooLong { bytes: note.len() });
        }
        let malformed = NoteError::Line { line: "signature" };
        if note.contains(|letter: char| letter.is_control() && letter != '\n') {
            return Err(NoteError::Line { line: "text" });
        }
        // The text may hold no empty line, so that the first one ends it.
        let (text, signatures) = note.split_once("\n\n").ok_or(malformed)?;
        let lines = signatures.strip_suffix('\n').ok_or(malformed)?;
        let signatures = lines
            .split('\n')
            .take(SIGNATURES_MAX + 1)
            .map(|line| NoteSignature::parse(line).ok_or(malformed))
            .collect::<Result<Vec<_>, _>>()?;
        if signatures.len() > SIGNATURES_MAX {
            return Err(malformed);
        }
        Ok(Self {
            body: CheckpointBody::parse(text)?,
            text: format!("{text}\n"),
            signatures,
        })
    }

    /// Verifies the signature by `key` and that the checkpoint is about the key's origin.
    ///
    /// # Errors
    ///
    /// [`NoteError`] when the note is not signed by the key, was changed, or is about another log.
    pub fn verify(self, key: &VerifierKey) -> Result<CheckpointBody, NoteError> {
        let mut by_key = self
            .signatures
            .iter()
            .filter(|signature| signature.name == key.name() && signature.key_id == key.key_id())
            .peekable();
        if by_key.peek().is_none() {
            return Err(NoteError::NotSigned);
        }
        let verifies = |signature: &NoteSignature| {
            <&[u8; SIGNATURE_BYTES]>::try_from(signature.signature.as_slice())
                .is_ok_and(|signature| key.verify(self.text.as_bytes(), signature))
        };
        if !by_key.all(verifies) {
            return Err(NoteError::Signature);
        }
        if self.body.origin != key.name() {
            return Err(NoteError::OtherOrigin);
        }
        Ok(self.body)
    }
}

impl NoteSignature {
    fn parse(line: &str) -> Option<Self> {
        let (name, signed) = line.strip_prefix(SIGNATURE)?.split_once(' ')?;
        if !is_key_name(name) {
            return None;
        }
        let signed = BASE64.decode(signed).ok()?;
        let (key_id, signature) = signed.split_first_chunk()?;
        Some(Self {
            name: name.to_owned(),
            key_id: *key_id,
            signature: signature.to_vec(),
        })
    }
}

fn parse_hash(text: &str) -> Option<[u8; 32]> {
    BASE64.decode(text).ok()?.try_into().ok()
}

/// Reads a decimal number without sign or leading zeros.
fn parse_number(text: &str) -> Option<u64> {
    let plain = text == "0" || !text.starts_with(['0', '+']);
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests;
