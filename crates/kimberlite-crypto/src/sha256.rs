//! SHA-256 of short messages, and HMAC with a prepared key, on the bare compression function.
//!
//! A leaf and a link of the chain are two blocks each and are hashed for every record; a commitment
//! blind is drawn for every sealing. The streaming interface spends as long on its buffer as on a
//! block. Everything longer goes through [`sha2::Sha256`], and so does the test of this module.

use sha2::block_api::compress256;
use zeroize::{Zeroize, ZeroizeOnDrop};

const BLOCK_BYTES: usize = 64;
const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// Bytes of a message that fit into two blocks together with its padding.
const TWO_BLOCKS_MESSAGE_MAX: usize = 2 * BLOCK_BYTES - 9;

/// Hashes `prefix ‖ left ‖ right`, a message of two blocks.
#[inline]
pub(crate) fn hash_two_blocks<const L: usize, const R: usize>(
    prefix: u8,
    left: &[u8; L],
    right: &[u8; R],
) -> [u8; 32] {
    const {
        assert!(
            1 + L + R > BLOCK_BYTES - 9,
            "a shorter message has one block"
        );
        assert!(
            1 + L + R <= TWO_BLOCKS_MESSAGE_MAX,
            "a longer message has more blocks"
        );
    }
    let mut message = [0; 2 * BLOCK_BYTES];
    message[0] = prefix;
    message[1..=L].copy_from_slice(left);
    message[1 + L..=L + R].copy_from_slice(right);
    finish(INITIAL, message, 1 + L + R, 0)
}

/// HMAC-SHA-256 with the two states that its key leads to.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct PreparedHmac {
    inner: [u32; 8],
    outer: [u32; 8],
}

impl PreparedHmac {
    /// Prepares a key.
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        let padded = |byte: u8| {
            let mut block = [byte; BLOCK_BYTES];
            for (byte, key) in block.iter_mut().zip(key) {
                *byte ^= key;
            }
            let mut state = INITIAL;
            compress256(&mut state, &[block]);
            block.zeroize();
            state
        };
        Self {
            inner: padded(0x36),
            outer: padded(0x5c),
        }
    }

    /// Authenticates a message of at most 55 bytes: two compressions.
    #[inline]
    pub(crate) fn authenticate<const N: usize>(&self, message: &[u8; N]) -> [u8; 32] {
        const {
            assert!(
                N <= BLOCK_BYTES - 9,
                "the message and its padding are one block"
            );
        }
        let inner = one_block(self.inner, message);
        one_block(self.outer, &inner)
    }
}

/// Finishes an HMAC state, one block into its message, with a message of one block.
#[inline]
fn one_block<const N: usize>(state: [u32; 8], message: &[u8; N]) -> [u8; 32] {
    let mut block = [0; BLOCK_BYTES];
    block[..N].copy_from_slice(message);
    finish(state, block, N, BLOCK_BYTES)
}

/// Pads the `bytes` of `message`, which `before` bytes precede, and compresses it.
#[inline]
#[expect(
    clippy::big_endian_bytes,
    reason = "SHA-256 is defined in big-endian words"
)]
fn finish<const N: usize>(
    mut state: [u32; 8],
    mut message: [u8; N],
    bytes: usize,
    before: usize,
) -> [u8; 32] {
    message[bytes] = 0x80;
    let bits = (before + bytes) as u64 * 8;
    message[N - 8..].copy_from_slice(&bits.to_be_bytes());
    let (blocks, rest) = message.as_chunks::<BLOCK_BYTES>();
    debug_assert!(rest.is_empty(), "the padded message is whole blocks");
    compress256(&mut state, blocks);
    let mut digest = [0; 32];
    for (bytes, word) in digest.as_chunks_mut().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    digest
}

#[cfg(test)]
mod tests {
    use hmac::{Hmac, KeyInit, Mac};
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    use super::*;

    fn check<const L: usize, const R: usize>(prefix: u8, fill: u8) {
        let left =
            core::array::from_fn::<u8, L, _>(|i| fill.wrapping_add(u8::try_from(i).unwrap()));
        let right = core::array::from_fn::<u8, R, _>(|i| fill ^ u8::try_from(i).unwrap());
        let expected: [u8; 32] = Sha256::new()
            .chain_update([prefix])
            .chain_update(left)
            .chain_update(right)
            .finalize()
            .into();
        assert_eq!(hash_two_blocks(prefix, &left, &right), expected);
    }

    #[test]
    fn short_messages_hash_as_the_streaming_interface_hashes_them() {
        for fill in 0..=u8::MAX {
            check::<84, 0>(0, fill);
            check::<32, 32>(1, fill);
            check::<32, 23>(fill, 9);
            check::<64, 54>(fill, 7);
        }
    }

    proptest! {
        #[test]
        fn a_prepared_hmac_equals_the_library_s(key: [u8; 32], message: [u8; 4], long: [u8; 32]) {
            let prepared = PreparedHmac::new(&key);
            let library = Hmac::<Sha256>::new_from_slice(&key).unwrap();
            let expected: [u8; 32] =
                library.clone().chain_update(message).finalize().into_bytes().into();
            prop_assert_eq!(prepared.authenticate(&message), expected);
            let expected: [u8; 32] = library.chain_update(long).finalize().into_bytes().into();
            prop_assert_eq!(prepared.authenticate(&long), expected);
        }
    }
}
