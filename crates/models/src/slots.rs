//! A device with some slots: each request occupies one for its service time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::faults::{BusyFault, Drawn, Faults, draw};
use crate::random::Random;
use crate::request::{BusyKind, ModelOp, ModelRequest, Outcome, Start};

/// How a device with slots behaves. Times are nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotsConfig {
    /// How many requests are served at once, over all queues; at least 1.
    pub slots: u32,
    /// How long a read takes.
    pub read_ns: u64,
    /// How long a write takes.
    pub write_ns: u64,
    /// How long a flush takes.
    pub flush_ns: u64,
    /// How long a discard or a write-zeroes takes, which carry no data.
    pub discard_ns: u64,
    /// What each KiB of a read or write adds.
    pub ns_per_kib: u64,
    /// Every service time is longer or shorter by at most this, all times in between being as
    /// likely; none becomes shorter than nothing.
    pub jitter_ns: u64,
    /// What all chance comes from.
    pub seed: u64,
    /// What goes wrong.
    pub faults: Faults,
}

impl Default for SlotsConfig {
    /// 64 slots, no service time and no faults.
    fn default() -> Self {
        SlotsConfig {
            slots: 64,
            read_ns: 0,
            write_ns: 0,
            flush_ns: 0,
            discard_ns: 0,
            ns_per_kib: 0,
            jitter_ns: 0,
            seed: 0,
            faults: Faults::new(),
        }
    }
}

impl SlotsConfig {
    /// Whether every request is over, and well, at the moment it begins. Then no slot is ever
    /// occupied, there is nothing to keep account of, and the machine need not be asked.
    pub fn is_instant(&self) -> bool {
        let longest_ns = [self.read_ns, self.write_ns, self.flush_ns, self.discard_ns];
        let rest_ns = self.ns_per_kib | self.jitter_ns;
        longest_ns.iter().all(|ns| *ns == 0) && rest_ns == 0 && self.faults.is_empty()
    }

    /// The service time of a request without jitter and faults.
    pub fn service_ns(&self, request: &ModelRequest) -> u64 {
        let data_ns = u64::from(request.nr_sectors).saturating_mul(self.ns_per_kib) / 2;
        match request.op {
            ModelOp::Read => self.read_ns.saturating_add(data_ns),
            ModelOp::Write => self.write_ns.saturating_add(data_ns),
            ModelOp::Flush => self.flush_ns,
            ModelOp::Discard | ModelOp::WriteZeroes => self.discard_ns,
        }
    }
}

/// A device with slots, which its queues share.
///
/// Whoever drives it calls [`Slots::start`] for each request, [`Slots::finish`] for a queue once
/// [`Slots::next_event`] of that queue has come, and gives the kicks that [`Slots::take_kicks`]
/// says are owed, after every call of `finish`, `give_back` and `remove_queue`. A slot is free
/// again when its service time is over, whether or not the request has been fetched by then.
///
/// Times are nanoseconds of whatever clock the caller has. They need not be in order, as between
/// threads they are not; a time that is early finds less finished.
#[derive(Clone, Debug)]
pub struct Slots {
    config: SlotsConfig,
    random: Random,
    queues: Vec<Queue>,
    /// How many slots are occupied.
    used: u32,
    /// How many requests have begun, ever.
    started: u64,
    /// How many kicks are owed.
    waiting: usize,
}

/// One way to the device, with what came in by it.
#[derive(Clone, Debug, Default)]
struct Queue {
    is_open: bool,
    /// What is being served, the first to end on top.
    running: BinaryHeap<Reverse<Service>>,
    /// What has been served, and waits to be fetched.
    ended: VecDeque<Service>,
    /// What is lost for ever.
    lost: Vec<u64>,
    /// It is owed a kick as soon as there is a slot.
    wants_slot: bool,
    /// It is owed a kick at this time.
    kick_at_ns: Option<u64>,
}

/// A request being served. Such are ordered by their ends, and those that end at once by their
/// beginnings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Service {
    ends_ns: u64,
    nth: u64,
    id: u64,
    outcome: Outcome,
    /// The device has lost it, and ends it when it turns up again.
    is_lost: bool,
}

/// What will become of a request in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It ends at this time, in nanoseconds, or has ended then and waits to be fetched.
    EndsAt(u64),
    /// The device has lost it. It may turn up again, but nobody knows when.
    Lost,
}

impl Slots {
    /// A device without queues.
    ///
    /// # Panics
    ///
    /// If it has no slot.
    pub fn new(config: SlotsConfig) -> Self {
        assert!(config.slots > 0, "a device has a slot");
        let random = Random::new(config.seed);
        Slots { config, random, queues: Vec::new(), used: 0, started: 0, waiting: 0 }
    }

    /// A new queue, with room for `depth` requests in flight; more cost an allocation. Its number
    /// is the lowest that no open queue bears.
    pub fn add_queue(&mut self, depth: usize) -> usize {
        let queue = Queue {
            is_open: true,
            running: BinaryHeap::with_capacity(depth),
            ended: VecDeque::with_capacity(depth),
            ..Queue::default()
        };
        let free = self.queues.iter().position(|queue| !queue.is_open);
        let number = free.unwrap_or(self.queues.len());
        match free {
            Some(number) => self.queues[number] = queue,
            None => self.queues.push(queue),
        }
        number
    }

    /// Closes a queue. What was in flight on it is forgotten and leaves its slots.
    pub fn remove_queue(&mut self, queue: usize) {
        let queue = std::mem::take(&mut self.queues[queue]);
        assert!(queue.is_open, "a queue is closed once");
        self.waiting -= queue.owed();
        self.used -= (queue.running.len() + queue.lost.len()) as u32;
    }

    /// Begins a request that came in by `queue`, or says why not.
    pub fn start(&mut self, now_ns: u64, queue: usize, request: ModelRequest) -> Start {
        if self.used == self.config.slots {
            self.free_slots(now_ns);
            if self.used == self.config.slots {
                return Start::Busy(self.wait_for_slot(queue));
            }
        }
        let may_rest = self.queues[queue].will_complete();
        let drawn = draw(&mut self.config.faults, &request, may_rest, &mut self.random);
        if let Some(busy) = drawn.busy {
            return Start::Busy(self.refuse(now_ns, queue, busy));
        }
        self.used += 1;
        self.started += 1;
        let into = &mut self.queues[queue];
        if drawn.lost_ns == Some(u64::MAX) {
            into.lost.push(request.id);
            return Start::Accepted;
        }
        let (nth, id, is_lost) = (self.started, request.id, drawn.lost_ns.is_some());
        let outcome = if is_lost { Outcome::Timeout } else { drawn.outcome };
        let takes_ns = match drawn.lost_ns {
            Some(lost_ns) => lost_ns,
            None => self.service_ns(&request, &drawn),
        };
        let ends_ns = now_ns.saturating_add(takes_ns);
        let service = Service { ends_ns, nth, id, outcome, is_lost };
        self.queues[queue].running.push(Reverse(service));
        Start::Accepted
    }

    /// When there will be something for this queue: a request that ends, or a kick that it is owed
    /// at a time. `None` if never, unless something else happens before.
    pub fn next_event(&self, queue: usize) -> Option<u64> {
        let queue = &self.queues[queue];
        let served = queue.ended.front().or(queue.running.peek().map(|Reverse(first)| first));
        let served_ns = served.map(|service| service.ends_ns);
        [served_ns, queue.kick_at_ns].into_iter().flatten().min()
    }

    /// Fetches what is over on this queue: adds to `done` the id of each request and how it ended,
    /// in the order in which they ended, at most `room` of them.
    pub fn finish(
        &mut self,
        now_ns: u64,
        queue: usize,
        room: usize,
        done: &mut Vec<(u64, Outcome)>,
    ) {
        let queue = &mut self.queues[queue];
        self.used -= queue.serve_until(now_ns);
        let count = room.min(queue.ended.len());
        done.extend(queue.ended.drain(..count).map(|service| (service.id, service.outcome)));
    }

    /// Adds to `kicks` the queues that are owed a kick that can be given now. It is given by having
    /// what they were refused tried again, and is owed no longer.
    pub fn take_kicks(&mut self, now_ns: u64, kicks: &mut Vec<usize>) {
        if self.waiting == 0 {
            return;
        }
        self.free_slots(now_ns);
        let has_room = self.used < self.config.slots;
        for (number, queue) in self.queues.iter_mut().enumerate() {
            let is_time = queue.kick_at_ns.is_some_and(|at_ns| at_ns <= now_ns);
            let may_start = queue.wants_slot && has_room;
            if is_time || may_start {
                // One kick answers for both.
                self.waiting -= queue.owed();
                queue.kick_at_ns = None;
                queue.wants_slot = false;
                kicks.push(number);
            }
        }
    }

    /// What will become of a request; `None` if there is none of that id in flight on this queue.
    pub fn fate(&self, queue: usize, id: u64) -> Option<Fate> {
        let queue = &self.queues[queue];
        let running = queue.running.iter().map(|Reverse(service)| service);
        let is_lost = queue.lost.contains(&id)
            || running.clone().any(|service| service.id == id && service.is_lost);
        if is_lost {
            return Some(Fate::Lost);
        }
        let served = running.chain(&queue.ended).find(|service| service.id == id);
        served.map(|service| Fate::EndsAt(service.ends_ns))
    }

    /// Takes a request away from the device, whatever it was doing with it: it leaves its slot and
    /// will not be fetched. Answers whether there was such a request.
    pub fn give_back(&mut self, queue: usize, id: u64) -> bool {
        let queue = &mut self.queues[queue];
        let occupied = queue.running.len() + queue.lost.len();
        let before = occupied + queue.ended.len();
        queue.running.retain(|Reverse(service)| service.id != id);
        queue.lost.retain(|lost| *lost != id);
        let left = queue.running.len() + queue.lost.len();
        queue.ended.retain(|service| service.id != id);
        self.used -= (occupied - left) as u32;
        left + queue.ended.len() < before
    }

    /// How many slots are occupied, as of the last call.
    pub fn used(&self) -> u32 {
        self.used
    }

    /// The service time of a request that begins now.
    fn service_ns(&mut self, request: &ModelRequest, drawn: &Drawn) -> u64 {
        let mut service_ns = self.config.service_ns(request);
        let jitter_ns = self.config.jitter_ns;
        if jitter_ns > 0 {
            let spread = self.random.below(jitter_ns.saturating_mul(2).saturating_add(1));
            service_ns = service_ns.saturating_add(spread).saturating_sub(jitter_ns);
        }
        service_ns.saturating_mul(u64::from(drawn.factor)).saturating_add(drawn.add_ns)
    }

    /// Frees the slots of all that has been served by now.
    fn free_slots(&mut self, now_ns: u64) {
        let freed: u32 = self.queues.iter_mut().map(|queue| queue.serve_until(now_ns)).sum();
        self.used -= freed;
    }

    /// All slots are occupied: a queue with something in flight comes again when that ends, and any
    /// other is owed a kick.
    fn wait_for_slot(&mut self, queue: usize) -> BusyKind {
        let queue = &mut self.queues[queue];
        if queue.will_complete() {
            return BusyKind::Completion;
        }
        self.waiting += usize::from(!std::mem::replace(&mut queue.wants_slot, true));
        BusyKind::Kick
    }

    fn refuse(&mut self, now_ns: u64, queue: usize, busy: BusyFault) -> BusyKind {
        match busy {
            BusyFault::Completion => BusyKind::Completion,
            BusyFault::RetryAfter(ns) => BusyKind::RetryAt(now_ns.saturating_add(ns)),
            BusyFault::KickAfter(ns) => {
                let at_ns = now_ns.saturating_add(ns);
                let kick_at_ns = &mut self.queues[queue].kick_at_ns;
                self.waiting += usize::from(kick_at_ns.is_none());
                *kick_at_ns = Some(kick_at_ns.map_or(at_ns, |earlier| earlier.min(at_ns)));
                BusyKind::Kick
            }
        }
    }
}

impl Queue {
    /// How many kicks it is owed: one for a slot, one for a time.
    fn owed(&self) -> usize {
        usize::from(self.wants_slot) + usize::from(self.kick_at_ns.is_some())
    }

    /// Whether a completion is to come. A lost request is none: who rests on it rests for ever.
    fn will_complete(&self) -> bool {
        !self.running.is_empty() || !self.ended.is_empty()
    }

    /// Ends what has been served by now. Answers how many slots that frees.
    fn serve_until(&mut self, now_ns: u64) -> u32 {
        let mut freed = 0;
        while let Some(Reverse(first)) = self.running.peek().filter(|s| s.0.ends_ns <= now_ns) {
            self.ended.push_back(*first);
            self.running.pop();
            freed += 1;
        }
        freed
    }
}
