//! Bytes that somebody made up: nothing panics, and nothing but what is whole is believed.

use kimberlite_storage::{
    FRAME_HEADER_BYTES, FrameHeader, SealFile, SegmentHeader, SegmentSeed, StorageError,
};
use kimberlite_testkit::SimulatedDisk;
use kimberlite_types::{ChainHash, LogId, Position};
use proptest::prelude::*;

use crate::rig::{self, Rig, log_id, observe, one, seal, segment};

fn header(salt: [u8; 16]) -> SegmentHeader {
    SegmentHeader {
        log_id: LogId::new([1; 32]),
        base_position: Position::ZERO,
        base_chain: ChainHash::new([2; 32]),
        salt,
        segment_bytes: 1 << 18,
    }
}

/// Makes the checksum fit, as only somebody who knows the salt can.
fn with_checksum(salt: [u8; 16], at: u64, fields: &[u8]) -> Vec<u8> {
    let parts = [&salt[..], &at.to_le_bytes(), fields];
    let checksum = parts
        .iter()
        .fold(0, |sum, part| crc32c::crc32c_append(sum, part));
    [b"KFRM", &checksum.to_le_bytes()[..], fields].concat()
}

fn check_frame_header(seed: SegmentSeed, at: u64, bytes: &[u8]) {
    if let Ok(header) = FrameHeader::decode(bytes, seed, at) {
        assert_eq!(header.encode(seed, at), bytes[..FRAME_HEADER_BYTES]);
        assert!(header.end_position() >= header.base_position);
        assert!(header.stored_bytes() >= u64::from(header.length));
    }
}

/// Mostly small numbers and all ones, which get further than random bytes.
fn field() -> impl Strategy<Value = u8> {
    prop_oneof![4 => Just(0), 2 => Just(1), 2 => Just(255), 1 => any::<u8>()]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn frame_headers_with_a_right_checksum_are_canonical_or_refused(
        fields in prop::collection::vec(field(), 104..200),
        salt in any::<[u8; 16]>(),
        at in any::<u64>(),
    ) {
        let seed = header(salt).seed();
        check_frame_header(seed, at, &with_checksum(salt, at, &fields));
        check_frame_header(seed, at, &fields);
    }

    #[test]
    fn segment_headers_with_a_right_checksum_are_canonical_or_refused(
        fields in prop::collection::vec(field(), 0..120),
    ) {
        let mut checked = 1_u32.to_le_bytes().to_vec();
        checked.extend(&fields);
        checked.resize(4096 - 12, 0);
        let checksum = crc32c::crc32c(&checked).to_le_bytes();
        let page = [b"KIMBSEG1", &checksum[..], &checked].concat();
        if let Ok(header) = SegmentHeader::decode(&page) {
            prop_assert_eq!(header.encode(), page);
        }
        let _ = SegmentHeader::decode(&fields);
    }

    #[test]
    fn seals_with_a_right_digest_are_canonical_or_refused(
        fields in prop::collection::vec(field(), 0..400),
    ) {
        let mut bytes = b"KIMBSEL1\x01\0\0\0".to_vec();
        bytes.extend(&fields);
        let digest = kimberlite_crypto::internal_hash(&bytes);
        bytes.extend(digest.as_bytes());
        if let Ok(seal) = SealFile::decode(&bytes) {
            prop_assert_eq!(seal.encode(), bytes);
        }
        let _ = SealFile::decode(&fields);
    }
}

/// Two segments of some frames, the second with free space behind them.
fn log() -> Rig {
    let mut rig = Rig::new(1);
    rig.append(&vec![vec![vec![1; 40], vec![2; 90]], vec![vec![3; 700]]]);
    rig.roll(256 << 10);
    rig.append(&one(&[4; 40]));
    rig.append(&vec![vec![vec![5; 9]; 5]]);
    rig
}

/// Opens and verifies whatever is there.
fn look_at(disk: &SimulatedDisk) -> Result<u64, StorageError> {
    let opened = kimberlite_storage::open_observer(
        &rig::dyn_disk(disk),
        rig::dir(),
        &rig::options(2),
        &rig::witness(disk),
        &mut |_| Ok(()),
    );
    if let Ok((reader, _)) = &opened {
        let _ = rig::verify_all(reader, disk);
        for position in 0..reader.end().get() + 2 {
            let _ = reader.record(Position::new(position));
        }
        let _ = reader.has_grown(disk);
        let _ = reader.segments(disk);
    }
    Rig::open(disk, 3).map(|rig| rig.verify().records)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_log_with_arbitrary_bytes_anywhere_is_opened_or_refused(
        base in prop_oneof![Just(0_u64), Just(4)],
        at in 0_u64..6000,
        bytes in prop::collection::vec(field(), 1..300),
    ) {
        let rig = log();
        rig.disk.overwrite(segment(base), at, &bytes);
        let _ = look_at(&rig.disk);
    }

    #[test]
    fn frames_with_right_checksums_and_any_fields_are_taken_or_refused(
        mut fields in prop::collection::vec(field(), 104),
        payload in prop::collection::vec(any::<u8>(), 0..300),
        right in any::<[bool; 7]>(),
    ) {
        let rig = log();
        let page = rig.disk.contents(segment(4));
        let salt = SegmentHeader::decode(&page).unwrap().salt;
        let at = rig::layout(&rig.disk).last().unwrap().end;
        let place = rig.writer.next_position().get().to_le_bytes();
        let length = u32::try_from(120 + payload.len()).unwrap().to_le_bytes();
        let chain = rig.writer.history().chain();
        let prefix = log_id().prefix();
        let wanted: [(usize, &[u8]); 7] = [
            (0, &length),
            (8, &[4, 0]),
            (10, &[1, 0]),
            (12, &[255; 4]),
            (16, &place),
            (64, chain.as_bytes()),
            (96, &prefix),
        ];
        for ((from, bytes), _) in wanted.iter().zip(right).filter(|(_, right)| *right) {
            fields[*from..from + bytes.len()].copy_from_slice(bytes);
        }
        let mut bytes = with_checksum(salt, at, &fields);
        bytes.extend(&payload);
        rig.disk.overwrite(segment(4), at, &bytes);
        let _ = look_at(&rig.disk);
    }
}

#[test]
fn a_log_of_nothing_but_noise_is_refused() {
    let rig = log();
    let noise = kimberlite_testkit::Rng::new(5).bytes(256 << 10);
    for path in [segment(0), segment(4), seal(0)] {
        let disk = rig.disk.snapshot();
        let length = disk.contents(&path).len();
        disk.overwrite(&path, 0, &noise[..length.min(noise.len())]);
        let _ = look_at(&disk);
    }
    let (reader, _) = observe(&rig.disk, &rig.model);
    assert_eq!(reader.end().get(), rig.end());
}
