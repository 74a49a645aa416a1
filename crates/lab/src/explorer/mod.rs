//! The two explorers: they run a scenario again and again, each time in another order of steps.
//!
//! - *loom* sees every order of the steps within the bound, and what weak memory makes of each.
//!   SeqCst accesses count as AcqRel there, so write Relaxed plus `fence(SeqCst)`. It has five
//!   threads at most, and no timeouts.
//! - *shuttle* sees every order of the steps within the bound, of any number of threads. Memory is
//!   sequentially consistent: fences do nothing, and a missing one is not missed.
//! - *shuttle at random* sees some orders, deep ones too, and proves nothing.
//!
//! The bound is one on *preemptions*: on how often a thread that could have gone on is made to
//! wait. A switch away from a thread that blocks, yields or ends is free. So a bound of zero is not
//! "no concurrency", and small bounds go a long way: the race that the project began with needs
//! two.
//!
//! A thread under loom has 32 KiB of stack, one under shuttle 256 KiB. Overrunning it is a crash.
//!
//! # Spin loops
//!
//! A loop that waits without blocking has to call `yield_now` of its flavour's `thread` module.
//! Under loom a thread that has yielded does not run again before another has; under our bounded
//! search with shuttle likewise, and those that have yielded least go first (any other choice costs
//! a preemption, which keeps the search finite). A loop without a yield never gives way at a bound
//! already spent: it is reported as a livelock, after [`BRANCHES_MAX`] or [`STEPS_MAX`] steps.

pub(crate) mod bounded;
pub(crate) mod loom;
pub(crate) mod meter;
pub(crate) mod shuttle;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::check::Params;
use meter::Meter;

/// The branches (choices of a thread or of a value to load) that loom takes in one schedule before
/// it calls it a livelock.
pub const BRANCHES_MAX: usize = 50_000;

/// The steps that shuttle takes in one schedule before it calls it a livelock.
pub const STEPS_MAX: usize = 100_000;

/// Who explores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Explorer {
    /// loom: exhaustive within a bound, with the memory order of C11.
    Loom,
    /// shuttle under our bounded search: exhaustive within a bound, sequentially consistent.
    Shuttle,
    /// shuttle under its own random search: never exhaustive.
    ShuttleRandom,
}

impl fmt::Display for Explorer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Explorer::Loom => "loom",
            Explorer::Shuttle => "shuttle",
            Explorer::ShuttleRandom => "shuttle-random",
        })
    }
}

/// How far an explorer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Search {
    /// Everything with at most so many preemptions.
    Loom { preemptions_max: u32 },
    /// Everything with at most so many preemptions.
    Shuttle { preemptions_max: u32 },
    /// So many schedules, drawn from a seed.
    ShuttleRandom { seed: u64, schedules_max: u64 },
}

impl Search {
    pub(crate) fn explorer(self) -> Explorer {
        match self {
            Search::Loom { .. } => Explorer::Loom,
            Search::Shuttle { .. } => Explorer::Shuttle,
            Search::ShuttleRandom { .. } => Explorer::ShuttleRandom,
        }
    }

    /// The bound, where there is one.
    pub(crate) fn bound(self) -> Option<u32> {
        match self {
            Search::Loom { preemptions_max } | Search::Shuttle { preemptions_max } => {
                Some(preemptions_max)
            }
            Search::ShuttleRandom { .. } => None,
        }
    }

    /// The seed, where there is one.
    pub(crate) fn seed(self) -> Option<u64> {
        match self {
            Search::Loom { .. } | Search::Shuttle { .. } => None,
            Search::ShuttleRandom { seed, .. } => Some(seed),
        }
    }

    /// Runs `scenario` in one order after the other, in this thread, for at most `limit`.
    ///
    /// Answers whether nothing is left to run. A finding is a panic, and may end the process: see
    /// [`crate::child`].
    pub(crate) fn run(self, scenario: fn(&Params), params: Params, limit: Duration) -> bool {
        let meter = Meter::start(limit);
        match self {
            Search::Loom { preemptions_max } => {
                loom::explore(scenario, params, preemptions_max, meter)
            }
            Search::Shuttle { preemptions_max } => {
                shuttle::explore_bounded(scenario, params, preemptions_max, meter)
            }
            Search::ShuttleRandom { seed, schedules_max } => {
                shuttle::explore_random(scenario, params, seed, schedules_max, meter);
                false
            }
        }
    }
}
