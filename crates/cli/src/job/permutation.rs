//! Every number below a limit exactly once, in an order that looks random, without a table.

use super::random::Random;

/// A linear congruential generator of full period over a power of two, whose bits are mixed in a
/// way that can be undone. Values past the limit are passed over, less than one for each one given.
#[derive(Clone, Debug)]
pub(super) struct Permutation {
    limit: u64,
    mask: u64,
    shift: u32,
    state: u64,
    addend: u64,
    left: u64,
}

impl Permutation {
    /// The numbers below `limit`, which is not zero.
    pub(super) fn new(limit: u64, random: &mut Random) -> Self {
        assert!(limit > 0, "there is no number below zero");
        let bits = 64 - (limit - 1).leading_zeros();
        let mask = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
        // The shift must not be zero, or the mixing would lose every bit.
        let shift = bits.div_ceil(2).max(1);
        let mut permutation = Permutation { limit, mask, shift, state: 0, addend: 0, left: 0 };
        permutation.begin(random);
        permutation
    }

    /// The next number; after the last one of an order, the first one of another.
    #[inline]
    pub(super) fn next(&mut self, random: &mut Random) -> u64 {
        if self.left == 0 {
            self.begin(random);
        }
        self.left -= 1;
        loop {
            // A multiplier of one more than a multiple of four and an odd addend: full period.
            let state = self.state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(self.addend);
            self.state = state & self.mask;
            // The lower half of the bits has short periods; the upper half lends it its own.
            let number = self.state ^ (self.state >> self.shift);
            if number < self.limit {
                return number;
            }
        }
    }

    fn begin(&mut self, random: &mut Random) {
        self.state = random.next() & self.mask;
        self.addend = random.next() | 1;
        self.left = self.limit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_comes_once_in_each_order() {
        for limit in (1..300).chain([1000, 4095, 4096, 4097, 65_536, 100_003]) {
            let mut random = Random::new(limit);
            let mut permutation = Permutation::new(limit, &mut random);
            for _ in 0..3 {
                let mut seen = vec![false; usize::try_from(limit).unwrap()];
                for _ in 0..limit {
                    let at = usize::try_from(permutation.next(&mut random)).unwrap();
                    assert!(!std::mem::replace(&mut seen[at], true), "{at} twice below {limit}");
                }
            }
        }
    }

    #[test]
    fn the_largest_limit_is_served() {
        let mut random = Random::new(1);
        let mut permutation = Permutation::new(u64::MAX, &mut random);
        let first = permutation.next(&mut random);
        assert_ne!(first, permutation.next(&mut random));
    }

    #[test]
    fn neighbours_in_order_are_far_apart_in_number() {
        let limit = 1 << 16;
        let mut random = Random::new(7);
        let mut permutation = Permutation::new(limit, &mut random);
        let numbers: Vec<_> = (0..limit).map(|_| permutation.next(&mut random)).collect();
        let distance: u64 = numbers.windows(2).map(|pair| pair[0].abs_diff(pair[1])).sum();
        let mean = distance / (limit - 1);
        // Of two independent numbers below a limit, the distance is a third of it in the mean.
        assert!((limit * 3 / 10..limit * 37 / 100).contains(&mean), "{mean} of {limit}");
        let rising = numbers.windows(2).filter(|pair| pair[0] < pair[1]).count() as u64;
        assert!((limit * 45 / 100..limit * 55 / 100).contains(&rising), "{rising} of {limit}");
    }
}
