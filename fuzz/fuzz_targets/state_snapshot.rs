//! A state of the kernel as bytes: as it came, and with each version that is read.

#![no_main]

use kimberlite_kernel::{State, check_invariants};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let versioned = [2_u32, 3].map(|version| {
        let mut bytes = version.to_le_bytes().to_vec();
        bytes.extend([0; 4]);
        bytes.extend(data);
        bytes
    });
    let [before, newest] = versioned.each_ref().map(Vec::as_slice);
    for bytes in [data, before, newest] {
        if let Ok(state) = State::from_snapshot(bytes) {
            assert_eq!(check_invariants(&state), Ok(()));
            let written = state.to_snapshot().expect("it has records");
            // What was written before there were shreds is written anew, and means the same.
            if bytes.starts_with(&[3]) {
                assert_eq!(written, bytes);
            }
            let read = State::from_snapshot(&written).expect("it was just written");
            assert_eq!(read.digest(), state.digest());
        }
    }
});
