//! Limits: so many I/Os and bytes a second, with a burst, and never a request that waits for ever.
//!
//! A limit is one number: the time until which it is used up (the virtual scheduling algorithm, or
//! leaky bucket as a meter). A request may pass while that time is no further ahead than the burst,
//! and moves it on by what it costs. One that costs more than the burst passes all the same, and
//! those behind it wait the longer. Nothing has to be filled up by a timer.

use std::time::Duration;

use crossbeam_utils::CachePadded;

use crate::bio::Op;
use crate::sync::{AtomicU64, Relaxed};
use crate::time::Time;

/// The shortest burst, and that of a limit for which none is named: turns are not taken to the
/// nanosecond, and what a late turn misses has to be made up for.
const BURST_MIN: Duration = Duration::from_millis(20);

/// So much a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// I/Os or bytes a second, at least 1.
    pub per_second: u64,
    /// How much of it may come at once after a pause, as time; at least 20 ms, which is used for
    /// anything shorter.
    pub burst: Duration,
}

/// The limits of a tenant or a group; `None` where there is none. Discards and write-zeroes count
/// as writes, a flush as a write of no bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// I/Os of all kinds.
    pub iops: Option<Rate>,
    /// Reads.
    pub read_iops: Option<Rate>,
    /// Writes.
    pub write_iops: Option<Rate>,
    /// Bytes read and written.
    pub bps: Option<Rate>,
    /// Bytes read.
    pub read_bps: Option<Rate>,
    /// Bytes written.
    pub write_bps: Option<Rate>,
}

/// The fraction bits of a cost.
const SHIFT: u32 = 20;

const READ: u8 = 1;
const WRITE: u8 = 2;

/// One limit at work.
#[derive(Debug)]
struct Meter {
    /// Nanoseconds that an I/O or a byte costs, times `1 << SHIFT`; zero for no limit.
    cost: AtomicU64,
    burst_ns: AtomicU64,
    /// Until when it is used up.
    used_until_ns: CachePadded<AtomicU64>,
    directions: u8,
    of_bytes: bool,
}

/// The limits of one tenant or group at work, shared by all threads.
#[derive(Debug)]
pub(crate) struct Limiter {
    meters: [Meter; 6],
    /// A bit for each meter that limits.
    live: AtomicU64,
}

/// What a thread may let pass in one turn without looking at the limits again: of all, of reads and
/// of writes. What has passed is charged when the turn ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Credit {
    ios: [i64; 3],
    bytes: [i64; 3],
    /// What has passed, of reads and of writes.
    pub(crate) passed: [Passed; 2],
}

/// What has passed of one direction and is not charged yet.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Passed {
    pub(crate) ios: u64,
    pub(crate) bytes: u64,
}

impl Default for Credit {
    /// Everything may pass.
    fn default() -> Self {
        let all = [i64::MAX / 2; 3];
        Credit { ios: all, bytes: all, passed: [Passed::default(); 2] }
    }
}

impl Credit {
    /// Lets a request pass, if the limits do.
    #[inline]
    pub(crate) fn pass(&mut self, op: Op, bytes: u64) -> bool {
        let nth = usize::from(!matches!(op, Op::Read | Op::DrvIn));
        let left = self.ios[0].min(self.ios[1 + nth]).min(self.bytes[0]).min(self.bytes[1 + nth]);
        if left <= 0 {
            return false;
        }
        self.ios[0] -= 1;
        self.ios[1 + nth] -= 1;
        self.bytes[0] -= bytes as i64;
        self.bytes[1 + nth] -= bytes as i64;
        self.passed[nth].ios += 1;
        self.passed[nth].bytes += bytes;
        true
    }
}

impl Meter {
    /// Never zero for a meter that limits, but a thread may see it on its way from one to the
    /// other.
    fn cost(&self) -> u64 {
        self.cost.load(Relaxed).max(1)
    }
}

impl Rates {
    /// Whether there is no limit.
    pub fn is_unlimited(&self) -> bool {
        *self == Rates::default()
    }

    fn each(&self) -> [Option<Rate>; 6] {
        [self.iops, self.read_iops, self.write_iops, self.bps, self.read_bps, self.write_bps]
    }
}

impl Limiter {
    pub(crate) fn new(rates: &Rates) -> Self {
        let meter = |directions, of_bytes| Meter {
            cost: AtomicU64::new(0),
            burst_ns: AtomicU64::new(0),
            used_until_ns: CachePadded::new(AtomicU64::new(0)),
            directions,
            of_bytes,
        };
        let limiter = Limiter {
            meters: [
                meter(READ | WRITE, false),
                meter(READ, false),
                meter(WRITE, false),
                meter(READ | WRITE, true),
                meter(READ, true),
                meter(WRITE, true),
            ],
            live: AtomicU64::new(0),
        };
        limiter.set(rates);
        limiter
    }

    /// Sets other limits. What the old ones were used up by is forgotten, so nobody waits for what
    /// they would have meant.
    pub(crate) fn set(&self, rates: &Rates) {
        let mut live = 0;
        for (index, (meter, rate)) in self.meters.iter().zip(rates.each()).enumerate() {
            meter.used_until_ns.store(0, Relaxed);
            let Some(rate) = rate else {
                meter.cost.store(0, Relaxed);
                continue;
            };
            let burst_ns = rate.burst.max(BURST_MIN).as_nanos();
            meter.burst_ns.store(u64::try_from(burst_ns).unwrap_or(u64::MAX), Relaxed);
            let cost = (1_000_000_000_u64 << SHIFT) / rate.per_second.max(1);
            meter.cost.store(cost.max(1), Relaxed);
            live |= 1 << index;
        }
        self.live.store(live, Relaxed);
    }

    /// Whether anything is limited.
    #[inline]
    pub(crate) fn is_live(&self) -> bool {
        self.live.load(Relaxed) != 0
    }

    /// Since when, or until when, all limits together let a request pass.
    #[inline]
    pub(crate) fn passes_at(&self, op: Op, now: Time) -> Time {
        let mut at_ns = 0;
        self.each_live(op, |meter| {
            let until_ns = meter.used_until_ns.load(Relaxed);
            at_ns = at_ns.max(until_ns.saturating_sub(meter.burst_ns.load(Relaxed)));
        });
        Time::from_ns(at_ns).max(now)
    }

    /// Charges requests that have passed: so many of one direction, and their bytes.
    ///
    /// Two threads that both saw room may both pass. What they use up is added exactly, so such a
    /// pair costs those behind it time and never the limit its truth.
    pub(crate) fn charge(&self, op: Op, ios: u64, bytes: u64, now: Time) {
        self.each_live(op, |meter| {
            let amount = if meter.of_bytes { bytes } else { ios };
            let cost = u128::from(meter.cost.load(Relaxed)) * u128::from(amount);
            let cost_ns = u64::try_from(cost >> SHIFT).unwrap_or(u64::MAX);
            let mut before = meter.used_until_ns.load(Relaxed);
            loop {
                let after = before.max(now.as_ns()).saturating_add(cost_ns);
                let changed =
                    meter.used_until_ns.compare_exchange_weak(before, after, Relaxed, Relaxed);
                match changed {
                    Ok(_) => break,
                    Err(now) => before = now,
                }
            }
        });
    }

    /// Takes off `credit` what these limits do not let pass at this moment.
    pub(crate) fn curb(&self, credit: &mut Credit, now: Time) {
        let mut live = self.live.load(Relaxed);
        while live != 0 {
            let index = live.trailing_zeros() as usize;
            live &= live - 1;
            let meter = &self.meters[index];
            let until_ns = meter.used_until_ns.load(Relaxed).max(now.as_ns());
            let free_ns = now.as_ns().saturating_add(meter.burst_ns.load(Relaxed));
            let left = match free_ns.checked_sub(until_ns) {
                // What begins while the limit is not used up may pass, however large it is.
                Some(free_ns) => {
                    let units = (u128::from(free_ns) << SHIFT) / u128::from(meter.cost());
                    i64::try_from(units).unwrap_or(i64::MAX / 2).saturating_add(1)
                }
                None => 0,
            };
            let lefts = if meter.of_bytes { &mut credit.bytes } else { &mut credit.ios };
            let left_of = &mut lefts[index % 3];
            *left_of = left.min(*left_of);
        }
    }

    #[inline]
    fn each_live(&self, op: Op, mut work: impl FnMut(&Meter)) {
        let direction = if matches!(op, Op::Read | Op::DrvIn) { READ } else { WRITE };
        let mut live = self.live.load(Relaxed);
        while live != 0 {
            let meter = &self.meters[live.trailing_zeros() as usize];
            live &= live - 1;
            if meter.directions & direction != 0 {
                work(meter);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_second: u64) -> Option<Rate> {
        Some(Rate { per_second, burst: Duration::ZERO })
    }

    /// How many requests pass in `seconds` if there is always one that waits, looked at every
    /// `step_us`.
    fn passed(rates: &Rates, op: Op, bytes: u64, seconds: u64, step_us: u64) -> u64 {
        let limiter = Limiter::new(rates);
        let mut passed = 0;
        for step in 0..seconds * 1_000_000 / step_us {
            let now = Time::from_ns(1_000_000_000 + step * step_us * 1000);
            while limiter.passes_at(op, now) <= now {
                limiter.charge(op, 1, bytes, now);
                passed += 1;
            }
        }
        passed
    }

    #[test]
    fn a_rate_is_exact_within_one_percent_over_ten_seconds() {
        for (rates, op, bytes, expected) in [
            (Rates { iops: rate(1000), ..Rates::default() }, Op::Read, 4096, 10_000),
            (Rates { iops: rate(333), ..Rates::default() }, Op::Write, 4096, 3330),
            (Rates { bps: rate(4_096_000), ..Rates::default() }, Op::Read, 4096, 10_000),
            (Rates { write_bps: rate(3 << 20), ..Rates::default() }, Op::Write, 65_536, 480),
            (Rates { read_iops: rate(70_000), ..Rates::default() }, Op::Read, 512, 700_000),
            (
                Rates { iops: rate(5000), read_bps: rate(4_096_000), ..Rates::default() },
                Op::Read,
                4096,
                10_000,
            ),
        ] {
            // Turns that come late by up to 10 ms lose nothing.
            for step_us in [10, 1000, 10_000] {
                let passed = passed(&rates, op, bytes, 10, step_us);
                let error = (passed as f64 - expected as f64) / expected as f64;
                assert!(error.abs() < 0.01, "{rates:?}: {passed}, {expected} expected, {step_us}");
            }
        }
    }

    #[test]
    fn what_is_larger_than_the_burst_passes_late_and_never_never() {
        let rates = Rates { bps: rate(1 << 20), ..Rates::default() };
        // 16 MiB at 1 MiB a second: the first at once, the others 16 s after each other.
        assert_eq!(passed(&rates, Op::Write, 16 << 20, 40, 1000), 3);
    }

    #[test]
    fn a_turns_credit_lets_pass_what_single_looks_would() {
        let rates = Rates { iops: rate(1000), write_bps: rate(1 << 20), ..Rates::default() };
        for (op, bytes) in [(Op::Read, 4096), (Op::Write, 4096), (Op::Write, 1 << 20)] {
            let (one_by_one, in_turns) = (Limiter::new(&rates), Limiter::new(&rates));
            for turn in 0..50 {
                let now = Time::from_ns(1_000_000_000 + turn * 7_000_000);
                let mut single = 0;
                while one_by_one.passes_at(op, now) <= now {
                    one_by_one.charge(op, 1, bytes, now);
                    single += 1;
                }
                let mut credit = Credit::default();
                in_turns.curb(&mut credit, now);
                while credit.pass(op, bytes) {}
                let passed = credit.passed[usize::from(op != Op::Read)];
                assert_eq!(passed.ios, single, "{op:?} {bytes} in turn {turn}");
                in_turns.charge(op, passed.ios, passed.bytes, now);
            }
        }
    }

    #[test]
    fn the_other_direction_is_not_limited() {
        let limiter = Limiter::new(&Rates { read_iops: rate(1), ..Rates::default() });
        let now = Time::from_ns(5_000_000_000);
        for _ in 0..100 {
            assert_eq!(limiter.passes_at(Op::Write, now), now);
            limiter.charge(Op::Write, 1, 4096, now);
        }
        limiter.charge(Op::Read, 1, 4096, now);
        limiter.charge(Op::Read, 1, 4096, now);
        assert!(limiter.passes_at(Op::Read, now) > now);
        limiter.set(&Rates { read_iops: rate(1000), ..Rates::default() });
        assert_eq!(limiter.passes_at(Op::Read, now), now, "a raised limit counts at once");
    }
}
