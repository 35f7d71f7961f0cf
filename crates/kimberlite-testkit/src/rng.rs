//! Seeded randomness: splitmix64, which is small, fast and the same on every machine.

use std::ops::Range;

/// A generator that gives the same numbers for the same seed, for ever. Not for secrets.
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// A generator with this seed. Neighbouring seeds give unrelated numbers.
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 up to, not including, `end`; 0 when `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        let scaled = (u128::from(self.next_u64()) * u128::from(end)) >> 64;
        u64::try_from(scaled).expect("the upper half of a product of two u64 fits")
    }

    /// An index into something of `count` items; 0 when there are none.
    pub fn index(&mut self, count: usize) -> usize {
        let end = u64::try_from(count).expect("an address space has at most 64 bits");
        usize::try_from(self.below(end)).expect("below a usize")
    }

    /// A number from the range; its start when it is empty.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.below(range.end.saturating_sub(range.start))
    }

    /// True in `count` of `of` cases.
    pub fn chance(&mut self, count: u64, of: u64) -> bool {
        self.below(of) < count
    }

    /// One of the items.
    pub fn choose<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.index(items.len()))
    }

    /// Fills the buffer.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let random = self.next_u64().to_le_bytes();
            for (byte, random) in chunk.iter_mut().zip(random) {
                *byte = random;
            }
        }
    }

    /// So many random bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.fill(&mut bytes);
        bytes
    }

    /// A generator of its own for a part of the test, so that what that part draws does not
    /// change what the others get.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self::new(self.next_u64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_splitmix64() {
        // From the reference implementation with the seed 1234567.
        let mut rng = Rng::new(1_234_567);
        let drawn: Vec<u64> = (0..5).map(|_| rng.next_u64()).collect();
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!(drawn, expected);
    }

    #[test]
    fn draws_stay_in_their_bounds_and_reach_all_of_them() {
        let mut rng = Rng::new(7);
        let mut seen = [0_u32; 5];
        for _ in 0..1_000 {
            seen[rng.index(5)] += 1;
            assert!((10..13).contains(&rng.within(10..13)));
        }
        assert!(seen.iter().all(|&count| count > 100), "{seen:?}");
        assert_eq!(rng.below(0), 0);
        assert_eq!(rng.within(4..4), 4);
        assert!(rng.chance(1, 1) && !rng.chance(0, 1));
        assert_eq!(rng.choose::<u8>(&[]), None);
    }

    #[test]
    fn bytes_of_every_length_are_filled_to_the_end() {
        for count in 0..20 {
            let drawn: Vec<Vec<u8>> = (0..64).map(|seed| Rng::new(seed).bytes(count)).collect();
            assert!(drawn.iter().all(|bytes| bytes.len() == count));
            assert!(count == 0 || drawn.iter().any(|bytes| bytes[count - 1] != 0));
        }
    }
}
