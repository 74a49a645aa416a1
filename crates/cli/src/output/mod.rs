//! Results as fio prints them, so that whoever reads fio's reads ours.

mod json;
mod text;
mod units;

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use crate::job::Job;
use crate::stats::{KindStats, Stats};

/// The form of the results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Normal,
    /// For programs: one object, with fio's layout and names.
    Json,
}

/// What a run has found out.
#[derive(Debug)]
pub(crate) struct Report {
    /// When it ended.
    pub(crate) time: SystemTime,
    /// The options that stood in global sections.
    pub(crate) global_options: Vec<(String, String)>,
    /// Each clone of each job, or each group that is reported as one.
    pub(crate) jobs: Vec<JobReport>,
}

/// What a clone of a job, or several, have done.
#[derive(Debug)]
pub(crate) struct JobReport {
    /// The job.
    pub(crate) job: Job,
    /// The number of the group: a job that waits for those before it begins a new one.
    pub(crate) group: u32,
    /// How many clones it stands for.
    pub(crate) clones: u32,
    /// The error number of the first I/O that failed; 0 if none did.
    pub(crate) error: i32,
    /// How long it took, with ramp and delay.
    pub(crate) elapsed: Duration,
    /// What was done.
    pub(crate) stats: Stats,
}

/// The percentiles that fio tells.
const PERCENTILES: [f64; 17] = [
    1.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95,
    99.99,
];

impl Report {
    /// Prints it.
    ///
    /// # Errors
    ///
    /// Those of writing to `out`.
    pub(crate) fn print(&self, format: Format, out: &mut impl Write) -> io::Result<()> {
        match format {
            Format::Normal => text::print(self, out),
            Format::Json => json::print(self, out),
        }
    }
}

/// So many of a hundred.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

/// So many a second.
fn per_second(count: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { count as f64 / time.as_secs_f64() }
}

/// Latencies by fio's steps: below 2, 4, 10, ... 1000 ns, then us, then ms, then 2 s and longer.
#[derive(Debug, Default, PartialEq, Eq)]
struct Buckets {
    ns: [u64; 10],
    us: [u64; 10],
    ms: [u64; 12],
}

/// The upper ends of the steps; only milliseconds go to the last one.
const STEPS: [u64; 11] = [2, 4, 10, 20, 50, 100, 250, 500, 750, 1000, 2000];

impl Buckets {
    fn of(stats: &Stats) -> Buckets {
        let mut buckets = Buckets::default();
        for kind in &stats.kinds {
            buckets.add(kind);
        }
        buckets
    }

    fn add(&mut self, kind: &KindStats) {
        for (latency_ns, count) in kind.completion().each() {
            let (row, in_unit): (&mut [u64], u64) = match latency_ns {
                0..1_000 => (&mut self.ns, latency_ns),
                1_000..1_000_000 => (&mut self.us, latency_ns / 1_000),
                _ => (&mut self.ms, latency_ns / 1_000_000),
            };
            row[STEPS.partition_point(|end| *end <= in_unit)] += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_fall_into_the_steps_that_fio_has() {
        let mut stats = Stats::default();
        let table = [0, 1, 2, 9, 10, 999, 1_000, 1_999, 2_000, 999_000, 1_000_000, 1_999_000_000];
        for latency_ns in table {
            stats.kinds[0].record(512, 0, latency_ns);
        }
        stats.kinds[1].record(512, 0, 5_000_000_000);
        stats.kinds.iter_mut().for_each(KindStats::settle);
        let buckets = Buckets::of(&stats);
        assert_eq!(buckets.ns, [2, 1, 1, 1, 0, 0, 0, 0, 0, 1]);
        assert_eq!(buckets.us, [2, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(buckets.ms, [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
    }
}
