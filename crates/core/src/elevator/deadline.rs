//! mq-deadline: requests in the order of their sectors, in batches, unless one has waited too long.
//!
//! Three levels, one for each class, and within a level two directions. A level is served while it
//! has requests waiting *or in flight*; the levels below wait for it, up to `prio_aging_expire`.

use std::collections::VecDeque;
use std::time::Duration;

use super::held::{Fifo, Held};
use super::sorted::Sorted;
use super::{AttributeError, Completion, Dispatch, Run, Scheduler};
use crate::bio::{Class, Op};
use crate::request::{Request, SchedulerData};
use crate::time::Time;

/// The attributes of mq-deadline, with Linux's names and defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadlineConfig {
    /// How long a read may wait before it goes first. Default 500 ms.
    pub read_expire: Duration,
    /// How long a write may wait before it goes first. Default 5 s.
    pub write_expire: Duration,
    /// How often reads may go first while writes wait. Default 2.
    pub writes_starved: u32,
    /// How many requests go in one direction, in the order of their sectors, before the choice is
    /// made anew. Default 16.
    pub fifo_batch: u32,
    /// How long a request may be held back by those of a higher class. Default 10 s.
    pub prio_aging_expire: Duration,
}

impl Default for DeadlineConfig {
    fn default() -> Self {
        DeadlineConfig {
            read_expire: Duration::from_millis(500),
            write_expire: Duration::from_secs(5),
            writes_starved: 2,
            fifo_batch: 16,
            prio_aging_expire: Duration::from_secs(10),
        }
    }
}

/// The scheduler mq-deadline.
#[derive(Debug)]
pub struct Deadline {
    config: DeadlineConfig,
    /// Requests that came back, in the order in which they go again: before everything else.
    requeued: VecDeque<Request>,
    held: Held,
    levels: [Level; 3],
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
#[derive(Debug, Default)]
struct Level {
    dirs: [Waiting; 2],
    /// Requests that came and have not completed, waiting or in flight.
    queued: u32,
}

/// The waiting requests of one class and direction.
#[derive(Debug, Default)]
struct Waiting {
    sorted: Sorted,
    fifo: Fifo,
    /// The sector after the last request that was sent.
    position: u64,
}

const LEVELS: [Class; 3] = [Class::RealTime, Class::BestEffort, Class::Idle];

impl Deadline {
    /// The scheduler for a queue of `nr_requests` requests.
    pub fn new(config: DeadlineConfig, nr_requests: u32) -> Self {
        let capacity = nr_requests as usize;
        let waiting = || Waiting { sorted: Sorted::with_capacity(capacity), ..Waiting::default() };
        let level = || Level { dirs: [waiting(), waiting()], queued: 0 };
        Deadline {
            config,
            requeued: VecDeque::with_capacity(capacity),
            held: Held::new(nr_requests),
            levels: [level(), level(), level()],
            nr_held: 0,
            last_dir: Dir::Read,
            batching: 0,
            starved: 0,
        }
    }

    /// The next request of a level.
    fn dispatch_level(&mut self, level: usize, now: Time) -> Option<Request> {
        let tag = match self.continue_batch(level) {
            Some(tag) => tag,
            None => {
                let dir = self.choose_dir(level)?;
                self.begin_batch(level, dir, now)
            }
        };
        self.batching += 1;
        Some(self.take(level, self.last_dir, tag))
    }

    /// The next request in the running direction, while the batch lasts.
    fn continue_batch(&self, level: usize) -> Option<u32> {
        if self.batching >= self.config.fifo_batch {
            return None;
        }
        let waiting = &self.levels[level].dirs[self.last_dir as usize];
        waiting.sorted.at_or_after(waiting.position)
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
        let expire = match dir {
            Dir::Read => self.config.read_expire,
            Dir::Write => self.config.write_expire,
        };
        self.last_dir = dir;
        self.batching = 0;
        if self.held.came_at(oldest) + expire <= now {
            return oldest;
        }
        waiting.sorted.at_or_after(waiting.position).unwrap_or(oldest)
    }

    fn take(&mut self, level: usize, dir: Dir, tag: u32) -> Request {
        let waiting = &mut self.levels[level].dirs[dir as usize];
        let request = self.held.remove(&mut waiting.fifo, tag);
        waiting.sorted.remove(request.sector, tag);
        waiting.position = request.end_sector();
        self.nr_held -= 1;
        request
    }

    /// A request of a lower level that a higher one has held back for too long.
    fn dispatch_aged(&mut self, now: Time) -> Option<Request> {
        let busy_levels = self.levels.iter().filter(|level| level.queued != 0).count();
        if busy_levels < 2 {
            return None;
        }
        (1..LEVELS.len()).find_map(|level| {
            let (came_at, dir, tag) = self.oldest(level)?;
            (came_at + self.config.prio_aging_expire <= now).then(|| self.take(level, dir, tag))
        })
    }

    /// When the first of the requests held back will have waited for too long.
    fn next_aged(&self) -> Option<Time> {
        let oldest = (1..LEVELS.len()).filter_map(|level| self.oldest(level));
        oldest.map(|(came_at, ..)| came_at + self.config.prio_aging_expire).min()
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
}

impl Scheduler for Deadline {
    fn name(&self) -> &'static str {
        "mq-deadline"
    }

    fn resize(&mut self, nr_requests: u32) {
        assert!(!self.has_work(), "a scheduler that holds requests is not resized");
        *self = Deadline::new(self.config, nr_requests);
    }

    fn insert(&mut self, mut request: Request, _now: Time) -> Run {
        let level = level_of(request.prio.class);
        let dir = dir_of(request.op);
        // The level is remembered here: it must not depend on what the request looks like at its
        // end.
        request.set_scheduler_data(SchedulerData([level as u64, 0]));
        let Level { dirs, queued } = &mut self.levels[level];
        let waiting = &mut dirs[dir as usize];
        waiting.sorted.insert(request.sector, request.sched_tag());
        let came_at = request.submitted_at();
        self.held.push(&mut waiting.fifo, request, came_at);
        *queued += 1;
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
            return Dispatch::Request(request);
        }
        if let Some(request) = self.dispatch_aged(now) {
            return Dispatch::Request(request);
        }
        for level in 0..LEVELS.len() {
            if let Some(request) = self.dispatch_level(level, now) {
                return Dispatch::Request(request);
            }
            if self.levels[level].queued != 0 {
                break;
            }
        }
        match self.next_aged() {
            None => Dispatch::Empty,
            // A request of a higher level is in flight; its completion answers "run" if it comes
            // first.
            Some(at) => Dispatch::IdleUntil(at),
        }
    }

    fn complete(&mut self, done: &Completion, _now: Time) -> Run {
        let level = &mut self.levels[done.data.0[0] as usize];
        level.queued = level.queued.checked_sub(1).expect("what completes was inserted");
        if level.queued == 0 && self.has_work() { Run::Yes } else { Run::No }
    }

    fn timer(&mut self, _now: Time) -> Run {
        if self.has_work() { Run::Yes } else { Run::No }
    }

    fn has_work(&self) -> bool {
        self.nr_held != 0 || !self.requeued.is_empty()
    }

    fn set(&mut self, attribute: &str, value: &str) -> Result<(), AttributeError> {
        let number = value.trim().parse::<u32>();
        let ms = || number.clone().map(|ms| Duration::from_millis(u64::from(ms)));
        let config = &mut self.config;
        let kind = match attribute {
            "read_expire" => ms().map(|v| config.read_expire = v),
            "write_expire" => ms().map(|v| config.write_expire = v),
            "prio_aging_expire" => ms().map(|v| config.prio_aging_expire = v),
            "writes_starved" => number.clone().map(|v| config.writes_starved = v),
            "fifo_batch" => number.clone().map(|v| config.fifo_batch = v.max(1)),
            _ => {
                let names = self.attributes().into_iter().map(|(name, _)| name).collect();
                return Err(AttributeError::Unknown(names));
            }
        };
        kind.map_err(|_| AttributeError::Invalid("a whole number, times in milliseconds"))
    }

    fn attributes(&self) -> Vec<(&'static str, String)> {
        let config = &self.config;
        vec![
            ("read_expire", config.read_expire.as_millis().to_string()),
            ("write_expire", config.write_expire.as_millis().to_string()),
            ("writes_starved", config.writes_starved.to_string()),
            ("fifo_batch", config.fifo_batch.to_string()),
            ("prio_aging_expire", config.prio_aging_expire.as_millis().to_string()),
        ]
    }
}

fn level_of(class: Class) -> usize {
    LEVELS.iter().position(|level| *level == class).expect("every class has a level")
}

fn dir_of(op: Op) -> Dir {
    if op == Op::Read { Dir::Read } else { Dir::Write }
}
