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

    /// Removes `index`.
    pub(crate) fn clear(&self, index: usize) {
        self.words[index / 64].fetch_and(!(1 << (index % 64)), Release);
    }

    /// Whether the set looks empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.words.iter().all(|w| w.load(Relaxed) == 0)
    }

    /// Removes one number and answers it: the first at or after `start`, going round. Of two callers
    /// that see the same number, one gets it.
    pub(crate) fn take_from(&self, start: usize) -> Option<usize> {
        let mut from = start;
        loop {
            let index = self.next_from(from).or_else(|| self.next_from(0))?;
            let bit = 1 << (index % 64);
            if self.words[index / 64].fetch_and(!bit, Acquire) & bit != 0 {
                return Some(index);
            }
            from = index + 1;
        }
    }

    /// The first number at or after `start`.
    pub(crate) fn next_from(&self, start: usize) -> Option<usize> {
        let mut mask = u64::MAX << (start % 64);
        for (i, word) in self.words.iter().enumerate().skip(start / 64) {
            let found = word.load(Acquire) & mask;
            if found != 0 {
                return Some(i * 64 + found.trailing_zeros() as usize);
            }
            mask = u64::MAX;
        }
        None
    }
}
