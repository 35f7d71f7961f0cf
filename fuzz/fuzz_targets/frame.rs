//! The fixed header of a frame: as it came, and with the checksum that the bytes ask for, so that the
//! fields behind the checksum are reached; and the key of an append.

#![no_main]

use kimberlite_storage::{FRAME_HEADER_BYTES, FrameHeader, SegmentHeader};
use kimberlite_types::{ChainHash, KeyedAppend, LogId, Position};
use libfuzzer_sys::fuzz_target;

const SALT: [u8; 16] = *b"salt of the file";
const AT: u64 = 8192;

fuzz_target!(|data: &[u8]| {
    let segment = SegmentHeader {
        log_id: LogId::new([1; 32]),
        base_position: Position::new(0),
        base_chain: ChainHash::new([2; 32]),
        salt: SALT,
        segment_bytes: 1 << 18,
    };
    let seed = segment.seed();
    let _ = FrameHeader::decode(data, seed, AT);

    let Some(fields) = data.first_chunk::<{ FRAME_HEADER_BYTES - 8 }>() else {
        return;
    };
    let checksum = [SALT.as_slice(), &AT.to_le_bytes(), fields]
        .iter()
        .fold(0, |checksum, part| crc32c::crc32c_append(checksum, part));
    let bytes = [b"KFRM".as_slice(), &checksum.to_le_bytes(), fields].concat();
    if let Ok(header) = FrameHeader::decode(&bytes, seed, AT) {
        assert_eq!(header.encode(seed, AT).as_slice(), bytes);
        assert!(header.end_position() >= header.base_position);
        assert!(header.stored_bytes() >= u64::from(header.length));
        let key = if header.keyed { 40 } else { 0 };
        assert!(!header.purged || header.length == 112 + key + 40 * u32::from(header.count));
    }

    if let Some(bytes) = data.first_chunk()
        && let Some(append) = KeyedAppend::decode(bytes)
    {
        assert_eq!(append.encode(), *bytes);
    }
});
