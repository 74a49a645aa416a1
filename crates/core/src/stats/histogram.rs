//! How long things took: counts by the logarithm of the time.

use crate::sync::Counter;

/// Each power of two is divided into so many buckets, so a bucket is at most an eighth wide.
const SUB: u32 = 8;
const SUB_SHIFT: u32 = SUB.trailing_zeros();
/// What is shorter counts as this, in nanoseconds, as a power of two.
const MIN_SHIFT: u32 = 6;
/// What is longer counts as this: about 18 minutes.
const MAX_SHIFT: u32 = 40;
const BUCKETS: usize = ((MAX_SHIFT - MIN_SHIFT) << SUB_SHIFT) as usize;

/// Counts of times, changed by one thread and read by anybody.
#[derive(Debug)]
pub(crate) struct Histogram {
    counts: Box<[Counter; BUCKETS]>,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Histogram { counts: Box::new([const { Counter::new() }; BUCKETS]) }
    }

    /// Counts `count` that took `ns` each.
    #[inline]
    pub(crate) fn record(&self, ns: u64, count: u64) {
        self.counts[bucket(ns)].add(count);
    }

    /// Adds its counts to `sum`.
    pub(crate) fn add_to(&self, sum: &mut Times) {
        for (sum, count) in sum.counts.iter_mut().zip(self.counts.iter()) {
            *sum += count.get();
        }
    }
}

/// Times of many I/Os, to be asked for counts and percentiles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Times {
    counts: Box<[u64]>,
}

impl Default for Times {
    fn default() -> Self {
        Times { counts: vec![0; BUCKETS].into_boxed_slice() }
    }
}

impl Times {
    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The time in nanoseconds that `percent` of them did not exceed, within an eighth; zero if
    /// there are none. `percent` is 0 to 100.
    pub fn percentile_ns(&self, percent: f64) -> u64 {
        let count = self.count();
        let rank = ((percent / 100.0 * count as f64).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper_end_ns(bucket);
            }
        }
        0
    }

    /// Adds the counts of others.
    pub fn add(&mut self, others: &Times) {
        self.counts.iter_mut().zip(&others.counts).for_each(|(sum, count)| *sum += count);
    }
}

/// The bucket of a time.
#[inline]
fn bucket(ns: u64) -> usize {
    let ns = ns.clamp(1 << MIN_SHIFT, (1 << MAX_SHIFT) - 1);
    let exponent = ns.ilog2();
    let sub = (ns >> (exponent - SUB_SHIFT)) as u32 & (SUB - 1);
    (((exponent - MIN_SHIFT) << SUB_SHIFT) + sub) as usize
}

/// The longest time that falls into a bucket.
fn upper_end_ns(bucket: usize) -> u64 {
    let exponent = MIN_SHIFT + (bucket as u32 >> SUB_SHIFT);
    let sub = u64::from(bucket as u32 & (SUB - 1));
    ((u64::from(SUB) + sub + 1) << (exponent - SUB_SHIFT)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_falls_into_its_bucket_and_buckets_are_an_eighth_wide() {
        let mut ns = 64;
        while ns < 1 << 40 {
            let upper = upper_end_ns(bucket(ns));
            assert!(upper >= ns && upper - ns <= ns / 8, "{ns} {upper}");
            assert_eq!(bucket(upper), bucket(ns));
            assert_eq!(bucket(upper + 1), (bucket(ns) + 1).min(BUCKETS - 1));
            ns = upper + 1;
        }
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_those_of_what_was_counted() {
        let histogram = Histogram::new();
        for ns in 1..=1000_u64 {
            histogram.record(ns * 1000, 1);
        }
        let mut times = Times::default();
        assert_eq!(times.percentile_ns(50.0), 0);
        histogram.add_to(&mut times);
        assert_eq!(times.count(), 1000);
        for (percent, expected_ns) in [(50.0, 500_000), (99.0, 990_000), (100.0, 1_000_000)] {
            let ns = times.percentile_ns(percent);
            assert!(ns >= expected_ns && ns <= expected_ns + expected_ns / 8, "{percent}: {ns}");
        }
    }
}
