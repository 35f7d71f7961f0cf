//! The first page of a segment: as it came, and with a right magic, version and checksum.

#![no_main]

use kimberlite_storage::{SEGMENT_HEADER_BYTES, SegmentHeader};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = SegmentHeader::decode(data);

    let mut checked = 1_u32.to_le_bytes().to_vec();
    checked.extend(data);
    checked.resize(SEGMENT_HEADER_BYTES - 12, 0);
    let checksum = crc32c::crc32c(&checked).to_le_bytes();
    let bytes = [b"KIMBSEG1".as_slice(), &checksum, &checked].concat();
    if let Ok(header) = SegmentHeader::decode(&bytes) {
        assert_eq!(header.encode(), bytes);
        let _ = header.seed();
    }
});
