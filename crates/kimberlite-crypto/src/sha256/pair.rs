//! Two SHA-256 compressions side by side. The one module of the cryptography that needs `unsafe`.
//!
//! With SHA extensions the rounds of one message wait for each other (a latency of four cycles at a
//! throughput of two, on the processors of both makers), so that a second, independent message costs
//! next to nothing. Where the processor has none, the two are compressed one after the other by
//! [`sha2`], which is also what the tests compare every result with.
//!
//! The rounds are those of FIPS 180-4, 6.2.2, in the form that the instructions ask for: the state in
//! two registers, `a b e f` and `c d g h`, four words of the schedule in one.
#![cfg_attr(
    target_arch = "x86_64",
    expect(
        unsafe_code,
        reason = "a function for a processor feature may be called only where the feature was found"
    )
)]

use sha2::block_api::compress256;

use super::BLOCK_BYTES;

/// One block of a message.
pub(super) type Block = [u8; BLOCK_BYTES];

/// Compresses as many blocks into one state as into the other.
pub(super) fn compress_pair(states: [&mut [u32; 8]; 2], blocks: [&[Block]; 2]) {
    let [left, right] = blocks;
    assert_eq!(left.len(), right.len(), "the lanes have as many blocks");
    #[cfg(target_arch = "x86_64")]
    if sha_ni::is_available() {
        // SAFETY: the processor has every feature that the function is compiled for, by the word of
        // the check above; the function has no other demand, and takes and gives safe references.
        unsafe { sha_ni::compress_pair(states, left, right) };
        return;
    }
    let [left_state, right_state] = states;
    compress256(left_state, left);
    compress256(right_state, right);
}

#[cfg(target_arch = "x86_64")]
mod sha_ni {
    use core::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_set_epi32, _mm_set_epi64x,
        _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8,
        _mm_shuffle_epi32,
    };

    use super::Block;

    /// The round constants of FIPS 180-4, 4.2.2, by four times four rounds.
    const K: [[[u32; 4]; 4]; 4] = [
        [
            [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
            [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
            [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
            [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
        ],
        [
            [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
            [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
            [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
            [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
        ],
        [
            [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
            [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
            [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
            [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
        ],
        [
            [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
            [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
            [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
            [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
        ],
    ];

    pub(super) fn is_available() -> bool {
        is_x86_feature_detected!("sha")
            && is_x86_feature_detected!("sse4.1")
            && is_x86_feature_detected!("ssse3")
    }

    /// A state as the instructions take it.
    #[derive(Clone, Copy)]
    struct Lane {
        abef: __m128i,
        cdgh: __m128i,
    }

    #[target_feature(enable = "sha,sse4.1,ssse3")]
    pub(super) fn compress_pair(states: [&mut [u32; 8]; 2], left: &[Block], right: &[Block]) {
        let [left_state, right_state] = states;
        let (mut a, mut b) = (load_state(left_state), load_state(right_state));
        let [first, rest @ ..] = &K;
        for (left, right) in left.iter().zip(right) {
            let before = (a, b);
            let (mut a_words, mut b_words) = (load_words(left), load_words(right));
            for (index, constants) in first.iter().enumerate() {
                a.four_rounds(a_words[index], constants);
                b.four_rounds(b_words[index], constants);
            }
            for constants in rest {
                for (index, constants) in constants.iter().enumerate() {
                    next_words(&mut a_words, index);
                    next_words(&mut b_words, index);
                    a.four_rounds(a_words[index], constants);
                    b.four_rounds(b_words[index], constants);
                }
            }
            a.add(before.0);
            b.add(before.1);
        }
        store_state(left_state, a);
        store_state(right_state, b);
    }

    impl Lane {
        /// Does four rounds with four words of the schedule.
        #[inline]
        #[target_feature(enable = "sha,sse4.1,ssse3")]
        fn four_rounds(&mut self, words: __m128i, constants: &[u32; 4]) {
            let [k0, k1, k2, k3] = constants.map(u32::cast_signed);
            let sums = _mm_add_epi32(words, _mm_set_epi32(k3, k2, k1, k0));
            self.cdgh = _mm_sha256rnds2_epu32(self.cdgh, self.abef, sums);
            let sums = _mm_shuffle_epi32(sums, 0x0e);
            self.abef = _mm_sha256rnds2_epu32(self.abef, self.cdgh, sums);
        }

        #[inline]
        #[target_feature(enable = "sha,sse4.1,ssse3")]
        fn add(&mut self, before: Self) {
            self.abef = _mm_add_epi32(self.abef, before.abef);
            self.cdgh = _mm_add_epi32(self.cdgh, before.cdgh);
        }
    }

    /// Computes the next four words of the schedule in place of the oldest four, at `oldest` of the
    /// last sixteen.
    #[inline]
    #[target_feature(enable = "sha,sse4.1,ssse3")]
    fn next_words(words: &mut [__m128i; 4], oldest: usize) {
        let at = |behind: usize| words[(oldest + behind) % 4];
        let sum = _mm_add_epi32(
            _mm_sha256msg1_epu32(at(0), at(1)),
            _mm_alignr_epi8(at(3), at(2), 4),
        );
        words[oldest] = _mm_sha256msg2_epu32(sum, at(3));
    }

    /// Reads the sixteen words of a block.
    #[inline]
    #[target_feature(enable = "sha,sse4.1,ssse3")]
    fn load_words(block: &Block) -> [__m128i; 4] {
        // The bytes of each word the other way round.
        let swap = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
        let mut words = [swap; 4];
        let (halves, _) = block.as_chunks::<8>();
        for (word, halves) in words.iter_mut().zip(halves.as_chunks::<2>().0) {
            let [low, high] = halves.map(i64::from_le_bytes);
            *word = _mm_shuffle_epi8(_mm_set_epi64x(high, low), swap);
        }
        words
    }

    #[inline]
    #[target_feature(enable = "sha,sse4.1,ssse3")]
    #[expect(clippy::many_single_char_names, reason = "the names of FIPS 180-4")]
    fn load_state(state: &[u32; 8]) -> Lane {
        let [a, b, c, d, e, f, g, h] = state.map(u32::cast_signed);
        Lane {
            abef: _mm_set_epi32(a, b, e, f),
            cdgh: _mm_set_epi32(c, d, g, h),
        }
    }

    #[inline]
    #[target_feature(enable = "sha,sse4.1,ssse3")]
    #[expect(clippy::many_single_char_names, reason = "the names of FIPS 180-4")]
    fn store_state(state: &mut [u32; 8], lane: Lane) {
        let words = |from: __m128i| {
            [
                _mm_extract_epi32(from, 3),
                _mm_extract_epi32(from, 2),
                _mm_extract_epi32(from, 1),
                _mm_extract_epi32(from, 0),
            ]
        };
        let ([a, b, e, f], [c, d, g, h]) = (words(lane.abef), words(lane.cdgh));
        *state = [a, b, c, d, e, f, g, h].map(i32::cast_unsigned);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(states: [[u32; 8]; 2], blocks: &[[Block; 2]]) {
        let [left, right] = [0, 1].map(|lane| {
            let lane = |pair: &[Block; 2]| *pair.get(lane).expect("there are two lanes");
            blocks.iter().map(lane).collect::<Vec<_>>()
        });
        let [mut a, mut b] = states;
        compress_pair([&mut a, &mut b], [&left, &right]);
        let [mut c, mut d] = states;
        compress256(&mut c, &left);
        compress256(&mut d, &right);
        assert_eq!([a, b], [c, d]);
    }

    proptest! {
        #[test]
        fn two_lanes_give_what_each_gives_alone(
            states: [[u32; 8]; 2],
            blocks in prop::collection::vec(
                prop::array::uniform2(prop::array::uniform32(any::<u16>())), 0..6
            ),
        ) {
            let blocks = blocks.iter().map(|pair| pair.map(|words| {
                let mut block = [0; BLOCK_BYTES];
                for (bytes, word) in block.as_chunks_mut().0.iter_mut().zip(words) {
                    *bytes = word.to_le_bytes();
                }
                block
            }));
            check(states, &blocks.collect::<Vec<_>>());
        }
    }

    #[test]
    fn all_ones_and_all_zeros_carry_through_every_round() {
        for (state, fill) in [(0, 0), (u32::MAX, u8::MAX), (0, u8::MAX), (u32::MAX, 0)] {
            check([[state; 8], [!state; 8]], &[[[fill; 64], [!fill; 64]]; 3]);
        }
    }
}
