//! The canonical header of a record.

#![no_main]

use kimberlite_types::RecordHeader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some(bytes) = data.first_chunk() else {
        return;
    };
    if let Ok(header) = RecordHeader::decode(bytes) {
        assert_eq!(&header.encode(), bytes);
    }
});
