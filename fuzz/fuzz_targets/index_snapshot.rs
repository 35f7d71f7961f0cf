//! A stream index as bytes: as it came, and with a right version.

#![no_main]

use kimberlite_projection::StreamIndex;
use kimberlite_types::Offset;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    bytes.extend(data);
    for bytes in [data, &bytes] {
        if let Ok(index) = StreamIndex::from_snapshot(bytes) {
            assert_eq!(index.to_snapshot(), bytes);
            for (stream, events) in index.streams() {
                let from = index.found_from(stream);
                assert!(from.get() == 0 || index.from().get() > 0);
                let runs = index.runs(stream, 0..u64::MAX).map(|run| run.count);
                assert_eq!(from.get() + runs.sum::<u64>(), events);
                let last = events.checked_sub(1).map(Offset::new);
                let last = last.filter(|last| *last >= from);
                assert!(last.is_none_or(|last| index.position_of(stream, last).is_some()));
            }
        }
    }
});
