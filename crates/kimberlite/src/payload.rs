//! The payloads of administrative records.
//!
//! * **genesis**: `version u16 | zero u16 | random [32] | public key [32] | label_len u16 | label`.
//!   The log's id is the SHA-256 of it.
//! * **stream-created**: `name hash [32] | stored payload`: the keyed hash by which the kernel tells
//!   names apart, then an envelope of type `stream-created` whose data is the name, stored as an
//!   event's payload is.
//! * **recovery**: `version u16 | zero u16 | segment u64 | byte u64 | bytes u64`: the base of the
//!   segment in which the discarded tail stood, where it began there, and how long it was. The record's position is where the log ended.
//! * **hold**: `version u16 | zero u16 | scope u64 | stored payload`, **release**: the same with the
//!   hold's id in place of the scope: an envelope whose type is `hold` or `release` and whose data is the
//!   reason, stored as an event's payload is. A scope is the id of a stream, all ones for the tenant.
//! * **retain**: `version u16 | zero u16 | scope u64 | age u64 | records u64`, the last two all ones
//!   where a rule is taken away; **purge**: `version u16 | zero u16 | scope u64 | until u64 | newest u64`.
//! * **shred**: as a hold's, an envelope of type `shred`; **shred-complete**: `version u16 | zero u16 | shred u64`,
//!   the position of the shred's record. This release reads them, and writes none.
//! * **key-session**: [`kimberlite_crypto::SessionParams`]; **checkpoint**: a signed note as it is.
//!
//! Integers are little-endian.

#![deny(clippy::indexing_slicing)]

use kimberlite_kernel::{ErasureAct, Retention, RetentionAct, Scope};
use kimberlite_storage::TailDiscarded;
use kimberlite_types::{HoldId, NameHash, Position, RecordKind, ShredId, Timestamp};

const GENESIS_VERSION: u16 = 1;
const GENESIS_FIXED_BYTES: usize = 70;
const RECOVERY_VERSION: u16 = 1;
const ACT_VERSION: u16 = 1;
const ACT_HEAD_BYTES: usize = 12;
const NAME_HASH_BYTES: usize = 32;

/// The type of the envelope that holds a stream's name.
pub(crate) const STREAM_CREATED_TYPE: &str = "stream-created";

/// What a log begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Genesis {
    pub(crate) random: [u8; 32],
    pub(crate) public_key: [u8; 32],
    pub(crate) label: String,
}

impl Genesis {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let label_bytes = u16::try_from(self.label.len()).expect("a label is a tenant's name");
        let mut bytes = Vec::with_capacity(GENESIS_FIXED_BYTES + self.label.len());
        bytes.extend(GENESIS_VERSION.to_le_bytes());
        bytes.extend([0; 2]);
        bytes.extend(self.random);
        bytes.extend(self.public_key);
        bytes.extend(label_bytes.to_le_bytes());
        bytes.extend(self.label.as_bytes());
        bytes
    }

    /// `None` when the bytes are not a genesis of this version.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first_chunk::<4>()?;
        let [low, high] = GENESIS_VERSION.to_le_bytes();
        if *version != [low, high, 0, 0] {
            return None;
        }
        let (random, rest) = rest.split_first_chunk()?;
        let (public_key, rest) = rest.split_first_chunk()?;
        let (label_bytes, label) = rest.split_first_chunk::<2>()?;
        if usize::from(u16::from_le_bytes(*label_bytes)) != label.len() {
            return None;
        }
        let label = std::str::from_utf8(label).ok()?.to_owned();
        Some(Self {
            random: *random,
            public_key: *public_key,
            label,
        })
    }
}

/// Returns the name hash and the stored name of a stream-created record.
pub(crate) fn split_stream_created(payload: &[u8]) -> Option<(NameHash, &[u8])> {
    let (hash, name) = payload.split_first_chunk::<NAME_HASH_BYTES>()?;
    Some((NameHash::new(*hash), name))
}

/// Returns the payload of an act of retention, up to its text if it has one.
pub(crate) fn encode_act(act: &RetentionAct) -> Vec<u8> {
    let (first, others) = match *act {
        RetentionAct::Hold { scope } => (scope.to_stored(), None),
        RetentionAct::Release { hold } => (hold.position().get(), None),
        RetentionAct::Retain { scope, rule } => {
            let rule = rule.map_or([u64::MAX; 2], |rule| [rule.age_ns, rule.records]);
            (scope.to_stored(), Some(rule))
        }
        RetentionAct::Purge {
            scope,
            until,
            newest,
        } => {
            let rest = [until.get(), newest.as_nanoseconds()];
            (scope.to_stored(), Some(rest))
        }
    };
    let mut payload = Vec::with_capacity(ACT_HEAD_BYTES + 16);
    payload.extend(ACT_VERSION.to_le_bytes());
    payload.extend([0; 2]);
    payload.extend(first.to_le_bytes());
    for word in others.into_iter().flatten() {
        payload.extend(word.to_le_bytes());
    }
    payload
}

/// Reads an act of retention from the payload of a record of this kind; `None` when it is none of this
/// version.
pub(crate) fn decode_act(kind: RecordKind, payload: &[u8]) -> Option<RetentionAct> {
    let (first, rest) = split_act(payload)?;
    let words = || match rest.as_chunks().0 {
        [one, two] if rest.len() == 16 => {
            Some((u64::from_le_bytes(*one), u64::from_le_bytes(*two)))
        }
        _ => None,
    };
    let scope = Scope::from_stored(first);
    match kind {
        RecordKind::Hold => Some(RetentionAct::Hold { scope }),
        RecordKind::Release => {
            let hold = HoldId::from_stored(first)?;
            Some(RetentionAct::Release { hold })
        }
        RecordKind::Retain => {
            let (age_ns, records) = words()?;
            let none = (age_ns, records) == (u64::MAX, u64::MAX);
            let rule = (!none).then_some(Retention { age_ns, records });
            Some(RetentionAct::Retain { scope, rule })
        }
        RecordKind::Purge => {
            let (until, newest) = words()?;
            Some(RetentionAct::Purge {
                scope,
                until: Position::new(until),
                newest: Timestamp::from_nanoseconds(newest),
            })
        }
        _ => None,
    }
}

/// Reads an act of erasure from the payload of a record of this kind; `None` when it is none of this
/// version.
pub(crate) fn decode_erasure(kind: RecordKind, payload: &[u8]) -> Option<ErasureAct> {
    let (first, rest) = split_act(payload)?;
    match kind {
        RecordKind::Shred => {
            let scope = Scope::from_stored(first);
            Some(ErasureAct::Shred { scope })
        }
        RecordKind::ShredComplete if rest.is_empty() => {
            let shred = ShredId::from_stored(first)?;
            Some(ErasureAct::Complete { shred })
        }
        _ => None,
    }
}

/// Returns the stored reason of a hold.
pub(crate) fn split_hold(payload: &[u8]) -> Option<&[u8]> {
    split_act(payload).map(|(_, reason)| reason)
}

fn split_act(payload: &[u8]) -> Option<(u64, &[u8])> {
    let (version, rest) = payload.split_first_chunk::<4>()?;
    let [low, high] = ACT_VERSION.to_le_bytes();
    if *version != [low, high, 0, 0] {
        return None;
    }
    let (first, rest) = rest.split_first_chunk()?;
    Some((u64::from_le_bytes(*first), rest))
}

/// Returns the payload of a recovery record.
pub(crate) fn encode_recovery(cut: &TailDiscarded) -> Vec<u8> {
    let mut payload = Vec::with_capacity(28);
    payload.extend(RECOVERY_VERSION.to_le_bytes());
    payload.extend([0; 2]);
    payload.extend(cut.segment_base.get().to_le_bytes());
    payload.extend(cut.byte.to_le_bytes());
    payload.extend(cut.bytes.to_le_bytes());
    payload
}

/// Returns the number of records that a note in a checkpoint record speaks of, unverified.
pub(crate) fn checkpoint_size(note: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(note).ok()?;
    text.lines().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_genesis_round_trips_and_cuts_are_refused() {
        let genesis = Genesis {
            random: [1; 32],
            public_key: [2; 32],
            label: "clinic-7".to_owned(),
        };
        let bytes = genesis.encode();
        assert_eq!(Genesis::decode(&bytes), Some(genesis));
        for end in 0..bytes.len() {
            assert_eq!(
                Genesis::decode(bytes.get(..end).unwrap()),
                None,
                "cut at {end}"
            );
        }
    }

    #[test]
    fn acts_of_retention_have_their_bytes_and_others_are_refused() {
        let stream = Scope::from_stored(0x0102);
        let rule = Retention {
            age_ns: 7,
            records: 8,
        };
        let (hold, until) = (HoldId::new(Position::new(9)), Position::new(5));
        let newest = Timestamp::from_nanoseconds(6);
        let head = |first: u64| [&[1, 0, 0, 0], first.to_le_bytes().as_slice()].concat();
        let words = |first, one: u64, two: u64| {
            [head(first), [one.to_le_bytes(), two.to_le_bytes()].concat()].concat()
        };
        let retain = |scope, rule| RetentionAct::Retain { scope, rule };
        let tenant = Scope::Tenant;
        let purge = RetentionAct::Purge {
            scope: tenant,
            until,
            newest,
        };
        for (act, bytes) in [
            (RetentionAct::Hold { scope: tenant }, head(u64::MAX)),
            (RetentionAct::Hold { scope: stream }, head(0x0102)),
            (RetentionAct::Release { hold }, head(9)),
            (retain(stream, Some(rule)), words(0x0102, 7, 8)),
            (retain(tenant, None), words(u64::MAX, u64::MAX, u64::MAX)),
            (purge, words(u64::MAX, 5, 6)),
        ] {
            assert_eq!(encode_act(&act), bytes);
            assert_eq!(decode_act(act.kind(), &bytes), Some(act));
            for end in 0..bytes.len() {
                let cut = bytes.get(..end).unwrap();
                assert_eq!(decode_act(act.kind(), cut), None, "{act:?}, cut at {end}");
            }
            let other = [&[2], bytes.get(1..).unwrap()].concat();
            assert_eq!(decode_act(act.kind(), &other), None);
        }
        let long = words(0x0102, 7, 8);
        let long = [long.as_slice(), &[0]].concat();
        assert_eq!(decode_act(RecordKind::Retain, &long), None);
        assert_eq!(decode_act(RecordKind::Release, &head(u64::MAX)), None);
        assert_eq!(decode_act(RecordKind::Event, &head(9)), None);
    }

    #[test]
    fn acts_of_erasure_are_read_from_their_bytes_and_others_are_refused() {
        let head = |first: u64| [&[1, 0, 0, 0], first.to_le_bytes().as_slice()].concat();
        let scope = Scope::from_stored(0x0102);
        let tenant = Scope::Tenant;
        let shred = ShredId::new(Position::new(9));
        for (act, bytes) in [
            (ErasureAct::Shred { scope }, head(0x0102)),
            (ErasureAct::Shred { scope: tenant }, head(u64::MAX)),
            (ErasureAct::Complete { shred }, head(9)),
        ] {
            assert_eq!(decode_erasure(act.kind(), &bytes), Some(act));
            for end in 0..bytes.len() {
                let cut = bytes.get(..end).unwrap();
                assert_eq!(decode_erasure(act.kind(), cut), None, "cut at {end}");
            }
            let other = [&[2], bytes.get(1..).unwrap()].concat();
            assert_eq!(decode_erasure(act.kind(), &other), None);
            // Behind a shred stands its reason.
            let longer = [bytes.as_slice(), &[0]].concat();
            let read = decode_erasure(act.kind(), &longer);
            assert_eq!(read.is_some(), act.kind() == RecordKind::Shred);
        }
        let kind = RecordKind::ShredComplete;
        assert_eq!(decode_erasure(kind, &head(u64::MAX)), None);
        assert_eq!(decode_erasure(RecordKind::KeyRotation, &head(9)), None);
    }

    #[test]
    fn the_size_of_a_note_is_its_second_line() {
        assert_eq!(checkpoint_size(b"origin\n42\nroot\n"), Some(42));
        assert_eq!(checkpoint_size(b"origin"), None);
        assert_eq!(checkpoint_size(b"origin\nx\n"), None);
        assert_eq!(checkpoint_size(&[0xff, b'\n', b'1']), None);
    }
}
