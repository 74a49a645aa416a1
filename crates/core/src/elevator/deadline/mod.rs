//! mq-deadline: requests in the order of their sectors, in batches, unless one has waited too long.
//!
//! Three levels, one for each class, and within a level two directions. A level is served while it
//! has requests waiting *or in flight*; the levels below wait for it, up to `prio_aging_expire`.
//! The running batch, and how often writes were passed over, are the device's and not a level's.
//!
//! After Linux 6.12, described in our own words. It differs where Linux's ageing lets a batch of
//! younger requests hold back an aged one: we then send the aged one, because we have to say when.

mod config;
mod debug;
mod merging;

use std::collections::VecDeque;

pub use config::DeadlineConfig;

use super::held::{Fifo, Held};
use super::sorted::Sorted;
use super::{AttributeError, Completion, Dispatch, Merge, Run, Scheduler};
use crate::bio::Op;
use crate::limits::Limits;
use crate::request::{Request, SchedulerData};
use crate::time::Time;

/// One level for each class.
const LEVELS: usize = 3;

/// The scheduler mq-deadline.
#[derive(Debug)]
pub struct Deadline {
    config: DeadlineConfig,
    nr_requests: u32,
    /// Requests that came back, in the order in which they go again: before everything else.
    requeued: VecDeque<Request>,
    held: Held,
    levels: [Level; LEVELS],
    /// Requests in `held`.
    nr_held: u32,
    last_dir: Dir,
    batching: u32,
    starved: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dir {
    Read,
    Write,
}

/// What mq-deadline keeps of one class.
#[derive(Debug)]
struct Level {
    dirs: [Waiting; 2],
    /// Requests that came and have not completed, waiting or in flight.
    queued: u32,
    stats: Stats,
}

/// The waiting requests of one class and direction.
#[derive(Debug)]
struct Waiting {
    sorted: Sorted,
    fifo: Fifo,
}

/// How many requests of one class there were. All that was inserted and not merged away completes.
#[derive(Debug, Default)]
struct Stats {
    /// Came, whether or not they were merged then.
    inserted: u64,
    /// Became part of another.
    merged: u64,
    /// Given to the device, counting each time.
    dispatched: u64,
    completed: u64,
}

impl Deadline {
    /// The scheduler for a queue of `nr_requests` requests.
    pub fn new(config: DeadlineConfig, nr_requests: u32) -> Self {
        let capacity = nr_requests as usize;
        let waiting = || Waiting { sorted: Sorted::with_capacity(capacity), fifo: Fifo::default() };
        let level = || Level { dirs: [waiting(), waiting()], queued: 0, stats: Stats::default() };
        Deadline {
            config,
            nr_requests,
            requeued: VecDeque::with_capacity(capacity),
            held: Held::new(nr_requests),
            levels: [level(), level(), level()],
            nr_held: 0,
            last_dir: Dir::Read,
            batching: 0,
            starved: 0,
        }
    }

    /// The request that goes next, with its level. It is in the running direction.
    #[inline]
    fn choose(&mut self, now: Time) -> Option<(usize, u32)> {
        let queued = |level: usize| self.levels[level].queued != 0;
        let (top, is_alone) = match (queued(0), queued(1)) {
            (true, others) => (0, !others && !queued(2)),
            (false, true) => (1, !queued(2)),
            (false, false) => (2, true),
        };
        if !is_alone && let Some(aged) = self.choose_aged(now) {
            return Some(aged);
        }
        // The levels below wait, even if all of this one are in flight.
        self.choose_of(top, now).map(|tag| (top, tag))
    }

    /// The next request of a level.
    #[inline]
    fn choose_of(&mut self, level: usize, now: Time) -> Option<u32> {
        if let Some(tag) = self.continue_batch(level) {
            return Some(tag);
        }
        let dir = self.choose_dir(level)?;
        Some(self.begin_batch(level, dir, now))
    }

    /// The next request in the running direction, while the batch lasts.
    #[inline]
    fn continue_batch(&self, level: usize) -> Option<u32> {
        if self.batching >= self.config.fifo_batch {
            return None;
        }
        self.levels[level].dirs[self.last_dir as usize].sorted.next()
    }

    fn choose_dir(&mut self, level: usize) -> Option<Dir> {
        let dirs = &self.levels[level].dirs;
        let reads = !dirs[Dir::Read as usize].fifo.is_empty();
        let writes = !dirs[Dir::Write as usize].fifo.is_empty();
        if reads && writes && self.starved < self.config.writes_starved {
            self.starved += 1;
            return Some(Dir::Read);
        }
        if writes {
            self.starved = 0;
            return Some(Dir::Write);
        }
        reads.then_some(Dir::Read)
    }

    /// The first request of a new batch: the oldest if it has expired, else the next by position,
    /// else the oldest again.
    fn begin_batch(&mut self, level: usize, dir: Dir, now: Time) -> u32 {
        let waiting = &self.levels[level].dirs[dir as usize];
        let oldest = waiting.fifo.first().expect("the direction has a request");
        self.last_dir = dir;
        self.batching = 0;
        if self.config.has_expired(self.held.came_at(oldest), dir, now) {
            return oldest;
        }
        waiting.sorted.next().unwrap_or(oldest)
    }

    /// A request of a lower level, or of the level that is served if that is not the highest, that
    /// has waited for too long. Of those that have, the one whose turn it is by the usual rules; if
    /// by these a younger one would go, the oldest.
    #[cold]
    fn choose_aged(&mut self, now: Time) -> Option<(usize, u32)> {
        for level in 1..LEVELS {
            let Some((came_at, dir, oldest)) = self.oldest(level) else { continue };
            if self.config.ages_at(came_at) > now {
                continue;
            }
            let chosen = self.choose_of(level, now).expect("the level has a request");
            if self.config.ages_at(self.held.came_at(chosen)) <= now {
                return Some((level, chosen));
            }
            self.last_dir = dir;
            self.batching = 0;
            return Some((level, oldest));
        }
        None
    }

    /// When the first of the requests held back will have waited for too long.
    fn next_aged(&self) -> Option<Time> {
        let oldest = (1..LEVELS).filter_map(|level| self.oldest(level));
        oldest.map(|(came_at, ..)| self.config.ages_at(came_at)).min()
    }

    /// The request of a level that came first, with its time and direction.
    fn oldest(&self, level: usize) -> Option<(Time, Dir, u32)> {
        let first = |dir: Dir| {
            let tag = self.levels[level].dirs[dir as usize].fifo.first()?;
            Some((self.held.came_at(tag), dir, tag))
        };
        let both = [first(Dir::Read), first(Dir::Write)];
        both.into_iter().flatten().min_by_key(|(came_at, ..)| *came_at)
    }

    #[inline]
    fn take(&mut self, level: usize, tag: u32) -> Request {
        let level = &mut self.levels[level];
        let waiting = &mut level.dirs[self.last_dir as usize];
        let request = self.held.remove(&mut waiting.fifo, tag);
        waiting.sorted.take(request.sector, tag);
        level.stats.dispatched += 1;
        self.nr_held -= 1;
        self.batching += 1;
        request
    }
}

impl Scheduler for Deadline {
    fn name(&self) -> &'static str {
        "mq-deadline"
    }

    fn resized(&self, nr_requests: u32) -> Box<dyn Scheduler> {
        Box::new(Deadline::new(self.config, nr_requests))
    }

    // This and `insert` are inlined by force into `add`, as what they call is.
    #[inline(always)]
    fn merge(&mut self, request: Request, limits: &Limits) -> Merge {
        self.merge_request(request, limits)
    }

    fn async_depth(&self, nr_requests: u32) -> Option<u32> {
        Some(self.config.depth(nr_requests))
    }

    #[inline(always)]
    fn insert(&mut self, mut request: Request, _now: Time) -> Run {
        let index = level_of(&request);
        // The level is remembered here: it must not depend on what the request looks like at its
        // end (Linux commit 1b0cab327e06).
        request.set_scheduler_data(SchedulerData([index as u64, 0]));
        let level = &mut self.levels[index];
        let waiting = &mut level.dirs[dir_of(&request) as usize];
        waiting.sorted.insert(request.sector, request.sched_tag());
        let came_at = request.submitted_at();
        self.held.push(&mut waiting.fifo, request, came_at);
        level.queued += 1;
        level.stats.inserted += 1;
        self.nr_held += 1;
        Run::Yes
    }

    fn requeue(&mut self, request: Request, _now: Time) -> Run {
        // It still counts as queued in its level, from its insertion to its completion.
        self.requeued.push_back(request);
        Run::Yes
    }

    fn dispatch(&mut self, now: Time) -> Dispatch {
        if let Some(request) = self.requeued.pop_front() {
            let level = &mut self.levels[data_level(&request)];
            level.dirs[dir_of(&request) as usize].sorted.seek(request.sector);
            level.stats.dispatched += 1;
            return Dispatch::Request(request);
        }
        if self.nr_held == 0 {
            return Dispatch::Empty;
        }
        match self.choose(now) {
            Some((level, tag)) => Dispatch::Request(self.take(level, tag)),
            // A request of a higher level is in flight; its completion answers "run" if it comes
            // first.
            None => Dispatch::IdleUntil(self.next_aged().expect("what is held is of a low level")),
        }
    }

    fn complete(&mut self, done: &Completion, _now: Time) -> Run {
        let level = &mut self.levels[done.data.0[0] as usize];
        level.queued = level.queued.checked_sub(1).expect("what completes was inserted");
        level.stats.completed += 1;
        if level.queued == 0 && self.has_work() { Run::Yes } else { Run::No }
    }

    fn timer(&mut self, _now: Time) -> Run {
        if self.has_work() { Run::Yes } else { Run::No }
    }

    fn has_work(&self) -> bool {
        self.nr_held != 0 || !self.requeued.is_empty()
    }

    fn set(&mut self, attribute: &str, value: &str) -> Result<(), AttributeError> {
        self.config.set(attribute, value, self.nr_requests)
    }

    fn attributes(&self) -> Vec<(&'static str, String)> {
        self.config.attributes(self.nr_requests)
    }

    fn debug(&self) -> Vec<(&'static str, String)> {
        self.show()
    }
}

/// The level of a request that was not inserted yet or is held.
#[inline]
fn level_of(request: &Request) -> usize {
    // The classes are listed with the most urgent first, as the levels are.
    request.prio.class as usize
}

/// The level that a request was inserted into.
fn data_level(request: &Request) -> usize {
    request.scheduler_data().0[0] as usize
}

#[inline]
fn dir_of(request: &Request) -> Dir {
    if request.op == Op::Read { Dir::Read } else { Dir::Write }
}
