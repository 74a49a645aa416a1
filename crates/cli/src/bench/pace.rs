//! How fast a job may go: its rates, and its pauses to think.

use crate::job::Job;
use crate::job::pattern::{Io, Kind};

/// The pace of one clone. Times are nanoseconds of the bench's clock.
#[derive(Debug)]
pub(super) struct Pace {
    /// The least time between two I/Os of a kind.
    each_ns: [u64; 3],
    /// The least time for a byte of a kind.
    byte_ns: [f64; 3],
    /// When the next of a kind may go.
    next_ns: [u64; 3],
    think_ns: u64,
    think_blocks: u32,
    /// I/Os until the next pause.
    left: u32,
    /// The pause ends here; 0 if there is none.
    pause_ends_ns: u64,
}

impl Pace {
    /// The pace of a job that begins now; nothing if it may go as fast as it can.
    pub(super) fn of(job: &Job, now_ns: u64) -> Option<Pace> {
        let limited = job.rate_iops.iter().chain(&job.rate_bytes).any(Option::is_some);
        if !limited && job.thinktime.is_zero() {
            return None;
        }
        Some(Pace {
            each_ns: job.rate_iops.map(|rate| rate.map_or(0, |rate| 1_000_000_000 / rate)),
            byte_ns: job.rate_bytes.map(|rate| rate.map_or(0.0, |rate| 1e9 / rate as f64)),
            next_ns: [now_ns; 3],
            think_ns: u64::try_from(job.thinktime.as_nanos()).unwrap_or(u64::MAX),
            think_blocks: job.thinktime_blocks,
            left: job.thinktime_blocks,
            pause_ends_ns: 0,
        })
    }

    /// When `io` may go, which may be past. `u64::MAX`: not before what is in flight has ended.
    pub(super) fn ready_ns(&mut self, io: &Io, in_flight: usize, now_ns: u64) -> u64 {
        if self.think_ns > 0 && self.left == 0 {
            if in_flight > 0 {
                return u64::MAX;
            }
            if self.pause_ends_ns == 0 {
                self.pause_ends_ns = now_ns.saturating_add(self.think_ns);
            }
            if now_ns < self.pause_ends_ns {
                return self.pause_ends_ns;
            }
            self.pause_ends_ns = 0;
            self.left = self.think_blocks;
        }
        match io.kind {
            Kind::Sync => 0,
            kind => self.next_ns[kind as usize],
        }
    }

    /// Notes that `io` goes.
    pub(super) fn went(&mut self, io: &Io) {
        self.left = self.left.saturating_sub(1);
        if io.kind != Kind::Sync {
            let kind = io.kind as usize;
            let by_bytes_ns = (self.byte_ns[kind] * f64::from(io.len_bytes)) as u64;
            // A job that has fallen behind catches up, so that the mean is what was asked for.
            self.next_ns[kind] += self.each_ns[kind].max(by_bytes_ns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(line: &str) -> Pace {
        let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        let job = crate::job::load("j", &words, None).unwrap().jobs.remove(0);
        Pace::of(&job, 1000).expect("the job has a pace")
    }

    fn io(kind: Kind) -> Io {
        Io { kind, offset_bytes: 0, len_bytes: 4096 }
    }

    #[test]
    fn rates_space_out_each_kind_for_itself() {
        let mut pace = pace("rate_iops=1000,0 rate=0,4096k");
        let (read, write) = (io(Kind::Read), io(Kind::Write));
        assert_eq!(pace.ready_ns(&read, 0, 1000), 1000);
        pace.went(&read);
        assert_eq!(pace.ready_ns(&read, 0, 1000), 1_001_000);
        assert_eq!(pace.ready_ns(&write, 0, 1000), 1000);
        pace.went(&write);
        assert_eq!(pace.ready_ns(&write, 0, 1000), 1000 + 1_000_000_000 / 1024);
        pace.went(&read);
        assert_eq!(pace.ready_ns(&read, 0, 9_000_000), 2_001_000, "it may catch up");
    }

    #[test]
    fn thinking_waits_for_what_is_in_flight() {
        let mut pace = pace("thinktime=50 thinktime_blocks=2");
        let read = io(Kind::Read);
        for _ in 0..2 {
            assert!(pace.ready_ns(&read, 1, 2000) <= 2000);
            pace.went(&read);
        }
        assert_eq!(pace.ready_ns(&read, 2, 3000), u64::MAX);
        assert_eq!(pace.ready_ns(&read, 0, 4000), 54_000);
        assert_eq!(pace.ready_ns(&read, 0, 5000), 54_000);
        assert!(pace.ready_ns(&read, 0, 54_000) <= 54_000);
        pace.went(&read);
        assert!(pace.ready_ns(&read, 1, 54_000) <= 54_000);
    }

    #[test]
    fn a_job_without_rates_has_no_pace() {
        let job = crate::job::load("j", &[], None).unwrap().jobs.remove(0);
        assert!(Pace::of(&job, 0).is_none());
    }
}
