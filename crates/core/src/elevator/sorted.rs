//! Requests by their place on the device.

use std::collections::VecDeque;

/// Scheduler tags in the order of their sectors; equal sectors in the order of insertion.
///
/// An insertion moves the shorter side of the array. With as many entries as a queue holds requests
/// that is a short `memmove`, cheaper than a tree's cache misses, and it allocates nothing.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    entries: VecDeque<(u64, u32)>,
}

impl Sorted {
    /// An empty order with room for `capacity` entries.
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Sorted { entries: VecDeque::with_capacity(capacity) }
    }

    pub(super) fn insert(&mut self, sector: u64, tag: u32) {
        let at = self.entries.partition_point(|entry| entry.0 <= sector);
        self.entries.insert(at, (sector, tag));
    }

    pub(super) fn remove(&mut self, sector: u64, tag: u32) {
        let first = self.entries.partition_point(|entry| entry.0 < sector);
        let at = (first..self.entries.len()).find(|at| self.entries[*at].1 == tag);
        let removed = self.entries.remove(at.expect("what is removed was inserted"));
        assert_eq!(removed, Some((sector, tag)), "the entry of this request");
    }

    /// The first request at or after `sector`.
    pub(super) fn at_or_after(&self, sector: u64) -> Option<u32> {
        let at = self.entries.partition_point(|entry| entry.0 < sector);
        self.entries.get(at).map(|entry| entry.1)
    }
}
