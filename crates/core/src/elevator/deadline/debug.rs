//! What mq-deadline shows of itself, under the names of Linux's debugfs.

use super::{Deadline, Dir, LEVELS, Level};

const FIFO_NAMES: [[&str; 2]; LEVELS] = [
    ["read0_fifo_list", "write0_fifo_list"],
    ["read1_fifo_list", "write1_fifo_list"],
    ["read2_fifo_list", "write2_fifo_list"],
];

const NEXT_NAMES: [[&str; 2]; LEVELS] = [
    ["read0_next_rq", "write0_next_rq"],
    ["read1_next_rq", "write1_next_rq"],
    ["read2_next_rq", "write2_next_rq"],
];

impl Deadline {
    /// The lengths of the lists and, in them, the sector of the request that a batch would go on
    /// with; what the device is about; and for each level, the most urgent first, how many requests
    /// there are and were.
    pub(super) fn show(&self) -> Vec<(&'static str, String)> {
        let mut shown = Vec::new();
        for level in 0..LEVELS {
            for dir in [Dir::Read, Dir::Write] {
                let waiting = &self.levels[level].dirs[dir as usize];
                let len = self.held.iter(&waiting.fifo).count();
                shown.push((FIFO_NAMES[level][dir as usize], len.to_string()));
                let next = waiting.sorted.next().map(|tag| self.held.get(tag).sector);
                let next = next.map_or_else(|| "none".to_string(), |sector| sector.to_string());
                shown.push((NEXT_NAMES[level][dir as usize], next));
            }
        }
        let depth = self.config.depth(self.nr_requests);
        shown.extend([
            ("batching", self.batching.to_string()),
            ("starved", self.starved.to_string()),
            ("async_depth", depth.to_string()),
            ("dispatch", self.requeued.len().to_string()),
            ("owned_by_driver", self.per_level(|index| self.owned_by_driver(index))),
            ("queued", self.per_level(|index| u64::from(self.levels[index].queued))),
        ]);
        let stats = |of: fn(&Level) -> u64| self.per_level(|index| of(&self.levels[index]));
        shown.extend([
            ("inserted", stats(|level| level.stats.inserted)),
            ("merged", stats(|level| level.stats.merged)),
            ("dispatched", stats(|level| level.stats.dispatched)),
            ("completed", stats(|level| level.stats.completed)),
        ]);
        shown
    }

    fn per_level(&self, of: impl Fn(usize) -> u64) -> String {
        let numbers: Vec<String> = (0..LEVELS).map(|index| of(index).to_string()).collect();
        numbers.join(" ")
    }

    fn owned_by_driver(&self, index: usize) -> u64 {
        let level = &self.levels[index];
        let waiting = level.dirs.iter().map(|dir| self.held.iter(&dir.fifo).count());
        let again = self.requeued.iter().filter(|request| super::data_level(request) == index);
        u64::from(level.queued) - (waiting.sum::<usize>() + again.count()) as u64
    }
}
