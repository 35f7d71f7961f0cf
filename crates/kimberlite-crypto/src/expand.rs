//! HKDF-Expand-SHA256 (RFC 5869, 2.3) from uniformly random keys of 32 bytes.
//!
//! | derived | from | info |
//! |---|---|---|
//! | key-encryption key, 32 | root key | `kimberlite/v1/key-encryption` ‖ log id 32 ‖ epoch `u32` |
//! | wrapping key, 32 | key-encryption key | `kimberlite/v1/wrap` ‖ log id 32 ‖ key id 16 ‖ version `u32` |
//! | name key, 32 | data key | `kimberlite/v1/name` ‖ log id 32 |
//! | projection key, 32 | data key | `kimberlite/v1/projection` ‖ log id 32 |
//! | page key, 32 | projection key | `kimberlite/v1/store/page` ‖ log id 32 ‖ name hash 32 ‖ version `u32` ‖ salt 16 |
//! | superblock code, 32 | projection key | `kimberlite/v1/store/superblock` ‖ superblock 168 |
//! | session secret, 32 | data key | `kimberlite/v1/session` ‖ suite `u16` ‖ log id 32 ‖ key id 16 ‖ version `u32` ‖ salt 32 |
//! | AES key, 32 | session secret | `kimberlite/v1/session/key` |
//! | base nonce, 12 | session secret | `kimberlite/v1/session/nonce` |
//! | blind, 32 | session secret | `kimberlite/v1/session/blind` |
//! | key commitment, 32 | session secret | `kimberlite/v1/session/commitment` |
//!
//! Integers are little-endian and every field has a fixed length. The labels under one key are no
//! prefixes of each other, so that no two infos are equal.

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

/// Derives `N` bytes from `key` for the use that the parts of `info` name.
pub(crate) fn expand<const N: usize>(key: &[u8; 32], info: &[&[u8]]) -> Zeroizing<[u8; N]> {
    const {
        assert!(N <= 32, "one block of output");
    }
    let mut bytes = Zeroizing::new([0; N]);
    Hkdf::<Sha256>::from_prk(key)
        .expect("32 bytes are as many as a SHA-256 has")
        .expand_multi_info(info, bytes.as_mut_slice())
        .expect("one block is within the bound of HKDF");
    bytes
}
