//! A set of small numbers that many threads change: who has work, who waits.

use crate::sync::{Acquire, AtomicU64, Relaxed, Release};

/// A set of numbers below a bound, changed without a lock.
#[derive(Debug)]
pub(crate) struct Bitmap {
    words: Box<[AtomicU64]>,
}

impl Bitmap {
    /// The empty set of numbers below `len`.
    pub(crate) fn new(len: usize) -> Self {
        Bitmap { words: (0..len.div_ceil(64)).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Adds `index`. What the caller wrote before is seen by whoever takes it.
    pub(crate) fn set(&self, index: usize) {
        self.words[index / 64].fetch_or(1 << (index % 64), Release);
    }

    /// Removes `index`. Answers whether the set is known to be empty now; `false` says nothing.
    pub(crate) fn clear(&self, index: usize) -> bool {
        let bit = 1 << (index % 64);
        let before = self.words[index / 64].fetch_and(!bit, Release);
        self.words.len() == 1 && before & !bit == 0
    }

    /// Whether the set looks empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.words.iter().all(|w| w.load(Relaxed) == 0)
    }

    /// How many numbers are in it, as far as can be seen.
    pub(crate) fn count(&self) -> u32 {
        self.words.iter().map(|w| w.load(Relaxed).count_ones()).sum()
    }

    /// Removes one number and answers it: the first at or after `start`, going round. Of two
    /// callers that see the same number, one gets it.
    pub(crate) fn take_from(&self, start: usize) -> Option<usize> {
        let mut from = start;
        loop {
            let index = self.next_from(from)?;
            if self.take(index) {
                return Some(index);
            }
            from = index + 1;
        }
    }

    /// Removes `index`, and answers whether it was there. Of two callers, one gets it.
    pub(crate) fn take(&self, index: usize) -> bool {
        let bit = 1 << (index % 64);
        self.words[index / 64].fetch_and(!bit, Acquire) & bit != 0
    }

    /// Whether `index` is in the set.
    pub(crate) fn contains(&self, index: usize) -> bool {
        self.words[index / 64].load(Acquire) & 1 << (index % 64) != 0
    }

    /// The first number at or after `start`, going round. `None` says of each number that it was
    /// not there at some moment since the call.
    ///
    /// Each word is loaded once: what stands before `start` in its word is judged by the same load.
    pub(crate) fn next_from(&self, start: usize) -> Option<usize> {
        let nr_words = self.words.len();
        let first = start / 64 % nr_words;
        let load = |i: usize| self.words[i].load(Acquire);
        let lowest =
            |i: usize, word: u64| (word != 0).then(|| i * 64 + word.trailing_zeros() as usize);
        let (word, ahead) = (load(first), u64::MAX << (start % 64));
        lowest(first, word & ahead)
            .or_else(|| (first + 1..nr_words).chain(0..first).find_map(|i| lowest(i, load(i))))
            .or_else(|| lowest(first, word & !ahead))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_goes_round() {
        for len in [1, 2, 63, 64, 65, 130] {
            let set = Bitmap::new(len);
            assert_eq!(set.next_from(0), None);
            for member in 0..len {
                set.set(member);
                assert!((0..=len).all(|start| set.next_from(start) == Some(member)), "{member}");
                assert!(set.contains(member));
                set.clear(member);
            }
            assert!(set.is_empty());
        }
    }

    #[test]
    fn the_first_ahead_is_taken_and_each_once() {
        let set = Bitmap::new(130);
        for member in [3, 70, 71, 129] {
            set.set(member);
        }
        let taken: Vec<_> = (0..5).map(|_| set.take_from(71)).collect();
        assert_eq!(taken, [Some(71), Some(129), Some(3), Some(70), None]);
        assert!(!set.take(3));
    }
}
