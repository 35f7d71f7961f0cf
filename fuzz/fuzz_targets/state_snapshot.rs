//! A state of the kernel as bytes: as it came, and with a right version.

#![no_main]

use kimberlite_kernel::{State, check_invariants};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    bytes.extend([0; 4]);
    bytes.extend(data);
    for bytes in [data, &bytes] {
        if let Ok(state) = State::from_snapshot(bytes) {
            assert_eq!(check_invariants(&state), Ok(()));
            assert_eq!(state.to_snapshot().as_deref(), Some(bytes));
        }
    }
});
