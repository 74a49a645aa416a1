//! A source of random numbers that costs a few instructions and is the same on every machine.

/// A counter whose value is scattered by one wide multiplication.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    /// The numbers that `seed` stands for; different seeds give unrelated numbers.
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random { state: seed };
        // Seeds are small and near to each other, so the first number is what really seeds.
        random.state = random.next().rotate_left(32) ^ seed;
        random
    }

    /// Any number.
    #[inline]
    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let wide = u128::from(self.state) * u128::from(self.state ^ 0xd1b5_4a32_d192_ed03);
        (wide as u64) ^ ((wide >> 64) as u64)
    }

    /// Any number below `limit`, which is not zero, each about as likely.
    #[inline]
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_below_a_limit_comes_about_as_often() {
        for limit in [1_u64, 2, 3, 10, 100] {
            let mut random = Random::new(limit);
            let mut counts = vec![0_u64; usize::try_from(limit).unwrap()];
            for _ in 0..limit * 10_000 {
                counts[usize::try_from(random.below(limit)).unwrap()] += 1;
            }
            for count in counts {
                assert!((9_500..10_500).contains(&count), "{count} of 10000 at limit {limit}");
            }
        }
    }

    #[test]
    fn a_seed_gives_its_own_numbers_every_time() {
        let take = |seed| {
            let mut random = Random::new(seed);
            [random.next(), random.next(), random.next()]
        };
        assert_eq!(take(1), take(1));
        assert_ne!(take(1), take(2));
        assert_ne!(take(0), take(1));
    }
}
