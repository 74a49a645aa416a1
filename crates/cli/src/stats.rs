//! What is counted while a job runs. Nothing here allocates once it is made.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Number, extremes, mean and deviation of latencies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Moments {
    n: u64,
    min_ns: u64,
    max_ns: u64,
    sum_ns: f64,
    sum_of_squares: f64,
}

/// Latencies with their distribution, to three significant figures. Recording one takes some sixty
/// instructions, which stand in the bench's figures.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    counts: Histogram<u64>,
    /// I/Os that end in one batch often took equally long; so many have, of this latency, since
    /// they were last counted.
    run: u64,
    run_ns: u64,
    n: u64,
    min_ns: u64,
    max_ns: u64,
    sum_ns: u64,
}

/// What reads, writes or trims have done.
#[derive(Clone, Debug, Default)]
pub(crate) struct KindStats {
    /// Bytes moved.
    bytes: u64,
    /// From submission to completion, of those that the layer took in at once.
    direct: Latencies,
    /// The same of those that had to wait because all requests were out.
    delayed: Latencies,
    /// How long those had waited.
    waits: Moments,
    /// Both together, of those.
    delayed_total: Moments,
}

/// How many I/Os were in flight, or in one batch, counted by powers of two as fio does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Depths(pub(crate) [u64; 7]);

/// What the operating system charges a thread with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Time in the program.
    pub(crate) user: Duration,
    /// Time in the kernel.
    pub(crate) system: Duration,
    /// How often it went to sleep or was put to sleep.
    pub(crate) switches: u64,
    /// Pages that had to be read.
    pub(crate) major_faults: u64,
    /// Pages that had not.
    pub(crate) minor_faults: u64,
}

/// What one clone of a job, or several together, have done.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stats {
    /// Reads, writes and trims.
    pub(crate) kinds: [KindStats; 3],
    /// Flushes.
    pub(crate) sync: Moments,
    /// I/Os in flight, seen at each submission.
    pub(crate) depth: Depths,
    /// The sizes of batches submitted.
    pub(crate) submitted: Depths,
    /// The sizes of batches that came back.
    pub(crate) completed: Depths,
    /// The longest that a clone has run, without its ramp.
    pub(crate) runtime: Duration,
    /// How long all clones have run, added up.
    pub(crate) total_runtime: Duration,
    /// What it took of the machine.
    pub(crate) usage: Usage,
}

/// Latencies from here on (137 s) are counted as one.
const LONGEST_NS: u64 = (1 << 37) - 1;
const SIGNIFICANT_FIGURES: u8 = 3;

impl Default for Moments {
    fn default() -> Self {
        Moments { n: 0, min_ns: u64::MAX, max_ns: 0, sum_ns: 0.0, sum_of_squares: 0.0 }
    }
}

impl Moments {
    /// Counts a latency.
    #[inline]
    pub(crate) fn record(&mut self, latency_ns: u64) {
        self.n += 1;
        self.min_ns = self.min_ns.min(latency_ns);
        self.max_ns = self.max_ns.max(latency_ns);
        let latency = latency_ns as f64;
        self.sum_ns += latency;
        self.sum_of_squares += latency * latency;
    }

    /// How many were counted.
    pub(crate) fn n(&self) -> u64 {
        self.n
    }

    /// The least; 0 if there were none.
    pub(crate) fn min_ns(&self) -> u64 {
        if self.n == 0 { 0 } else { self.min_ns }
    }

    /// The most.
    pub(crate) fn max_ns(&self) -> u64 {
        self.max_ns
    }

    /// The mean; 0 if there were none.
    pub(crate) fn mean_ns(&self) -> f64 {
        if self.n == 0 { 0.0 } else { self.sum_ns / self.n as f64 }
    }

    /// The standard deviation of the sample; 0 if there were fewer than two.
    pub(crate) fn deviation_ns(&self) -> f64 {
        if self.n < 2 {
            return 0.0;
        }
        let n = self.n as f64;
        // Rounding can make the difference of two nearly equal numbers negative.
        ((self.sum_of_squares - self.sum_ns * self.sum_ns / n).max(0.0) / (n - 1.0)).sqrt()
    }

    fn plus(mut self, other: &Moments) -> Moments {
        self.n += other.n;
        self.min_ns = self.min_ns.min(other.min_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
        self.sum_ns += other.sum_ns;
        self.sum_of_squares += other.sum_of_squares;
        self
    }

    /// So many latencies of nothing.
    fn zeroes(n: u64) -> Moments {
        let zero = Moments { n, min_ns: 0, ..Moments::default() };
        if n == 0 { Moments::default() } else { zero }
    }
}

impl Default for Latencies {
    fn default() -> Self {
        let counts = Histogram::new_with_bounds(1, LONGEST_NS, SIGNIFICANT_FIGURES)
            .expect("the bounds are those that the crate allows");
        Latencies { counts, run: 0, run_ns: 0, n: 0, min_ns: u64::MAX, max_ns: 0, sum_ns: 0 }
    }
}

impl Latencies {
    /// Counts a latency. [`Latencies::settle`] has to be called before anything is asked.
    #[inline]
    pub(crate) fn record(&mut self, latency_ns: u64) {
        if latency_ns != self.run_ns {
            self.settle();
            self.run_ns = latency_ns;
        }
        self.run += 1;
    }

    /// Counts what has been put off.
    #[inline(never)]
    pub(crate) fn settle(&mut self) {
        let count = std::mem::take(&mut self.run);
        if count == 0 {
            return;
        }
        let latency_ns = self.run_ns;
        self.counts.saturating_record_n(latency_ns, count);
        self.n += count;
        self.min_ns = self.min_ns.min(latency_ns);
        self.max_ns = self.max_ns.max(latency_ns);
        self.sum_ns = self.sum_ns.saturating_add(latency_ns.saturating_mul(count));
    }

    /// Number, extremes, mean and deviation.
    pub(crate) fn moments(&self) -> Moments {
        let square = |(latency_ns, count): (u64, u64)| count as f64 * (latency_ns as f64).powi(2);
        Moments {
            n: self.n,
            min_ns: self.min_ns,
            max_ns: self.max_ns,
            sum_ns: self.sum_ns as f64,
            sum_of_squares: self.each().map(square).sum(),
        }
    }

    /// The latency that `percentile` of a hundred do not exceed.
    pub(crate) fn percentile_ns(&self, percentile: f64) -> u64 {
        let rank = (self.n as f64 * percentile / 100.0).ceil() as u64;
        let mut seen = 0;
        let reached = self.each().find(|(_, count)| {
            seen += count;
            seen >= rank
        });
        reached.map_or(self.max_ns, |(latency_ns, _)| latency_ns)
    }

    /// Each latency that occurred, the shortest first, with how often it did.
    pub(crate) fn each(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        // A step may be wider than what fell into it.
        let (min_ns, max_ns) = (self.min_ns.min(self.max_ns), self.max_ns);
        self.counts.iter_recorded().map(move |step| {
            let middle_ns = self.counts.median_equivalent(step.value_iterated_to());
            (middle_ns.clamp(min_ns, max_ns), step.count_at_value())
        })
    }

    fn add(&mut self, other: &Latencies) {
        self.counts.add(&other.counts).expect("all histograms have the same bounds");
        self.n += other.n;
        self.min_ns = self.min_ns.min(other.min_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
    }

    fn reset(&mut self) {
        if self.n + self.run > 0 {
            *self = Latencies::default();
        }
    }
}

impl Depths {
    /// Counts so many I/Os at a number in flight: 1, 2 to 3, 4 to 7, and so on to 64 or more.
    #[inline]
    pub(crate) fn record_depth(&mut self, depth: usize, ios: usize) {
        let bit = depth.max(1).ilog2() as usize;
        self.0[bit.min(6)] += ios as u64;
    }

    /// Counts a batch: none, 1 to 4, 5 to 8, and so on to more than 64.
    #[inline]
    pub(crate) fn record_batch(&mut self, size: usize) {
        let bits = (usize::BITS - size.saturating_sub(1).leading_zeros()) as usize;
        self.0[if size == 0 { 0 } else { (bits.max(2) - 1).min(6) }] += 1;
    }

    fn add(&mut self, other: &Depths) {
        self.0.iter_mut().zip(other.0).for_each(|(count, more)| *count += more);
    }
}

impl KindStats {
    /// Counts an I/O that waited for `wait_ns` to be taken in and then took `latency_ns`.
    #[inline]
    pub(crate) fn record(&mut self, bytes: u32, wait_ns: u64, latency_ns: u64) {
        self.bytes += u64::from(bytes);
        if wait_ns == 0 {
            self.direct.record(latency_ns);
        } else {
            self.delayed.record(latency_ns);
            self.waits.record(wait_ns);
            self.delayed_total.record(wait_ns + latency_ns);
        }
    }

    /// Counts what has been put off, at the end of a batch.
    #[inline]
    pub(crate) fn settle(&mut self) {
        self.direct.settle();
        self.delayed.settle();
    }

    /// How many I/Os were counted.
    pub(crate) fn ios(&self) -> u64 {
        self.direct.n + self.delayed.n
    }

    /// How many bytes they moved.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How long reaching the layer took: longer than nothing only if all its requests were out.
    pub(crate) fn submission(&self) -> Moments {
        self.waits.plus(&Moments::zeroes(self.direct.n))
    }

    /// From submission to completion.
    pub(crate) fn completion(&self) -> Latencies {
        let mut all = self.direct.clone();
        all.add(&self.delayed);
        all
    }

    /// Both together.
    pub(crate) fn total(&self) -> Moments {
        self.delayed_total.plus(&self.direct.moments())
    }

    fn add(&mut self, other: &KindStats) {
        self.bytes += other.bytes;
        self.direct.add(&other.direct);
        self.delayed.add(&other.delayed);
        self.waits = self.waits.plus(&other.waits);
        self.delayed_total = self.delayed_total.plus(&other.delayed_total);
    }

    fn reset(&mut self) {
        self.bytes = 0;
        self.direct.reset();
        self.delayed.reset();
        self.waits = Moments::default();
        self.delayed_total = Moments::default();
    }
}

impl Stats {
    /// Adds what another clone has done at the same time.
    pub(crate) fn add(&mut self, other: &Stats) {
        self.kinds.iter_mut().zip(&other.kinds).for_each(|(kind, more)| kind.add(more));
        self.sync = self.sync.plus(&other.sync);
        self.depth.add(&other.depth);
        self.submitted.add(&other.submitted);
        self.completed.add(&other.completed);
        self.runtime = self.runtime.max(other.runtime);
        self.total_runtime += other.total_runtime;
        self.usage.add(&other.usage);
    }

    /// Forgets everything, at the end of a ramp.
    pub(crate) fn reset(&mut self) {
        self.kinds.iter_mut().for_each(KindStats::reset);
        self.sync = Moments::default();
        self.depth = Depths::default();
        self.submitted = Depths::default();
        self.completed = Depths::default();
    }
}

impl Usage {
    /// What has been used since `earlier`.
    pub(crate) fn since(&self, earlier: &Usage) -> Usage {
        Usage {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
            switches: self.switches.saturating_sub(earlier.switches),
            major_faults: self.major_faults.saturating_sub(earlier.major_faults),
            minor_faults: self.minor_faults.saturating_sub(earlier.minor_faults),
        }
    }

    fn add(&mut self, other: &Usage) {
        self.user += other.user;
        self.system += other.system;
        self.switches += other.switches;
        self.major_faults += other.major_faults;
        self.minor_faults += other.minor_faults;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_sample() {
        let mut moments = Moments::default();
        assert_eq!((moments.min_ns(), moments.max_ns(), moments.mean_ns()), (0, 0, 0.0));
        for latency_ns in [2, 4, 4, 4, 5, 5, 7, 9] {
            moments.record(latency_ns);
        }
        assert_eq!((moments.n(), moments.min_ns(), moments.max_ns()), (8, 2, 9));
        assert_eq!(moments.mean_ns(), 5.0);
        assert!((moments.deviation_ns() - (32.0_f64 / 7.0).sqrt()).abs() < 1e-9);
    }

    #[test]
    fn percentiles_are_near_and_never_past_the_longest() {
        let mut latencies = Latencies::default();
        for latency_ns in 1..=100_000 {
            latencies.record(latency_ns);
        }
        latencies.settle();
        for (percentile, exact) in [(1.0, 1000.0), (50.0, 50_000.0), (99.9, 99_900.0)] {
            let near = latencies.percentile_ns(percentile) as f64;
            assert!((near / exact - 1.0).abs() < 0.001, "{near} for {exact}");
        }
        assert!(latencies.percentile_ns(100.0) <= 100_000);
        assert_eq!(latencies.each().map(|(_, count)| count).sum::<u64>(), 100_000);
        let moments = latencies.moments();
        assert_eq!((moments.n(), moments.min_ns(), moments.max_ns()), (100_000, 1, 100_000));
        assert_eq!(moments.mean_ns(), 50_000.5);
        assert!((moments.deviation_ns() / 28_867.66 - 1.0).abs() < 0.001);
        latencies.record(u64::MAX / 2);
        latencies.settle();
        assert_eq!(latencies.moments().max_ns(), u64::MAX / 2, "longer ones are counted too");
    }

    #[test]
    fn two_clones_add_up() {
        let mut one = Stats::default();
        one.kinds[0].record(4096, 10, 100);
        one.kinds[0].settle();
        one.runtime = Duration::from_secs(2);
        one.total_runtime = one.runtime;
        let mut two = Stats::default();
        two.kinds[0].record(8192, 0, 300);
        two.kinds[0].settle();
        two.depth.record_depth(1, 1);
        two.runtime = Duration::from_secs(3);
        two.total_runtime = two.runtime;
        one.add(&two);
        assert_eq!((one.kinds[0].bytes(), one.kinds[0].ios()), (12_288, 2));
        let [wait, total] = [one.kinds[0].submission(), one.kinds[0].total()];
        assert_eq!((wait.n(), wait.min_ns(), wait.mean_ns()), (2, 0, 5.0));
        assert_eq!((total.n(), total.min_ns(), total.mean_ns()), (2, 110, 205.0));
        let completion = one.kinds[0].completion();
        assert_eq!((completion.moments().min_ns(), completion.percentile_ns(50.0)), (100, 100));
        assert_eq!((one.runtime.as_secs(), one.total_runtime.as_secs()), (3, 5));
        one.reset();
        assert_eq!((one.kinds[0].ios(), one.depth), (0, Depths::default()));
        assert_eq!(one.kinds[0].total(), Moments::default());
    }

    #[test]
    fn depths_are_counted_by_powers_of_two() {
        let mut depths = Depths::default();
        for depth in [1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 1000] {
            depths.record_depth(depth, 1);
        }
        assert_eq!(depths.0, [1, 2, 2, 2, 2, 2, 2]);
        let mut batches = Depths::default();
        for size in [0, 1, 2, 4, 5, 8, 9, 16, 17, 32, 33, 64, 65, 1000] {
            batches.record_batch(size);
        }
        assert_eq!(batches.0, [1, 3, 2, 2, 2, 2, 2]);
    }
}
