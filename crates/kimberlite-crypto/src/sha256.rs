//! SHA-256 of many messages at once and of short ones, and HMAC with a prepared key, on the bare
//! compression function.
//!
//! A leaf and a link of the chain are two blocks each and are hashed for every record; a commitment
//! blind is drawn for every sealing. The streaming interface spends as long on its buffer as on a
//! block. One longer message goes through [`sha2::Sha256`], with which the tests compare everything
//! here.

mod many;
mod pair;

pub(crate) use many::{Message, hash_many};

use pair::compress_pair;
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
    let mut state = INITIAL;
    compress256(&mut state, &two_blocks(prefix, left, right));
    digest_of(state)
}

/// Hashes two messages of two blocks each, `prefix ‖ left ‖ right`, side by side.
#[inline]
pub(crate) fn hash_two_blocks_pair<const L: usize, const R: usize>(
    prefix: u8,
    messages: [(&[u8; L], &[u8; R]); 2],
) -> [[u8; 32]; 2] {
    let [a, b] = messages.map(|(left, right)| two_blocks(prefix, left, right));
    let (mut left, mut right) = (INITIAL, INITIAL);
    compress_pair([&mut left, &mut right], [&a, &b]);
    [digest_of(left), digest_of(right)]
}

/// Lays out a message of two blocks, its padding included.
#[inline]
fn two_blocks<const L: usize, const R: usize>(
    prefix: u8,
    left: &[u8; L],
    right: &[u8; R],
) -> [[u8; BLOCK_BYTES]; 2] {
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
    pad(&mut message, 1 + L + R, 1 + L + R);
    let (blocks, _) = message.as_chunks();
    [blocks[0], blocks[1]]
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
        let mut state = self.inner;
        compress256(&mut state, &[second_block(message)]);
        let inner = digest_of(state);
        let mut state = self.outer;
        compress256(&mut state, &[second_block(&inner)]);
        digest_of(state)
    }

    /// Authenticates two messages side by side.
    #[inline]
    pub(crate) fn authenticate_pair<const N: usize>(
        &self,
        messages: [&[u8; N]; 2],
    ) -> [[u8; 32]; 2] {
        let both = |start: [u32; 8], [a, b]: [[u8; BLOCK_BYTES]; 2]| {
            let (mut left, mut right) = (start, start);
            compress_pair([&mut left, &mut right], [&[a], &[b]]);
            [digest_of(left), digest_of(right)]
        };
        let inner = both(self.inner, messages.map(second_block));
        both(self.outer, inner.each_ref().map(second_block))
    }
}

/// Lays out a message of one block that follows on one block, its padding included.
#[inline]
fn second_block<const N: usize>(message: &[u8; N]) -> [u8; BLOCK_BYTES] {
    const {
        assert!(
            N <= BLOCK_BYTES - 9,
            "the message and its padding are one block"
        );
    }
    let mut block = [0; BLOCK_BYTES];
    block[..N].copy_from_slice(message);
    pad(&mut block, N, BLOCK_BYTES + N);
    block
}

/// Lays out the end of a message of `bytes` bytes, of which `rest` are left and are fewer than a
/// block: one block or two, at the end of those returned, and how many.
fn padding_of(rest: [&[u8]; 2], bytes: usize) -> ([[u8; BLOCK_BYTES]; 2], usize) {
    let [front, back] = rest;
    let used = front.len() + back.len();
    debug_assert!(used < BLOCK_BYTES);
    let count = 1 + usize::from(used > BLOCK_BYTES - 9);
    let mut blocks = [[0; BLOCK_BYTES]; 2];
    let flat = &mut blocks.as_flattened_mut()[(2 - count) * BLOCK_BYTES..];
    flat[..front.len()].copy_from_slice(front);
    flat[front.len()..used].copy_from_slice(back);
    pad(flat, used, bytes);
    (blocks, count)
}

/// Writes the padding of a message of `bytes` bytes into its last blocks, of which `used` bytes
/// are its own.
#[inline]
#[expect(
    clippy::big_endian_bytes,
    reason = "SHA-256 is defined in big-endian words"
)]
fn pad(blocks: &mut [u8], used: usize, bytes: usize) {
    blocks[used] = 0x80;
    let end = blocks.len();
    blocks[end - 8..].copy_from_slice(&(bytes as u64 * 8).to_be_bytes());
}

#[inline]
#[expect(
    clippy::big_endian_bytes,
    reason = "SHA-256 is defined in big-endian words"
)]
fn digest_of(state: [u32; 8]) -> [u8; 32] {
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
        let other = [fill; L];
        let alone = hash_two_blocks(prefix, &other, &right);
        assert_eq!(
            hash_two_blocks_pair(prefix, [(&left, &right), (&other, &right)]),
            [expected, alone]
        );
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
            let other = prepared.authenticate(&[7; 32]);
            prop_assert_eq!(prepared.authenticate_pair([&long, &[7; 32]]), [expected, other]);
        }
    }
}
