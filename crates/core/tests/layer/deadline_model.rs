//! mq-deadline with merging, ageing and requeueing beside a slow and obvious model.
//!
//! The model keeps what waits in one list, in the order of its coming, and searches it for
//! everything. It shares no idea with the scheduler but the algorithm.

use std::time::Duration;

use blkmq_core::{
    Class, Deadline, DeadlineConfig, Dispatch, Limits, Merge, Op, Request, Run, Scheduler, Time,
};
use proptest::prelude::*;

use crate::device::limits;
use crate::order::Order;
use crate::quarry::{Quarry, completion};
use crate::world::CAPACITY_SECTORS;

const CLASSES: [Class; 3] = [Class::RealTime, Class::BestEffort, Class::Idle];
/// Of several requests that lie beside a newcomer, so many are tried.
const CANDIDATES_MAX: usize = 4;

/// A request as the model sees it.
#[derive(Clone, Copy, Debug)]
struct Piece {
    order: Order,
    segments: usize,
    nr_bios: usize,
    came: Time,
    /// The higher, the later it got its first sector, and its last.
    began: u64,
    ended: u64,
}

impl Piece {
    fn end(&self) -> u64 {
        self.order.sector + u64::from(self.order.nr_sectors)
    }

    fn is_write(&self) -> bool {
        self.order.op != Op::Read
    }

    fn level(&self) -> usize {
        self.order.class as usize
    }

    fn fits(&self, other: &Piece, limits: &Limits) -> bool {
        let (a, b) = (&self.order, &other.order);
        (a.op, a.class, a.tenant) == (b.op, b.class, b.tenant)
            && a.nr_sectors + b.nr_sectors <= limits.longest(a.op)
            && self.segments + other.segments <= usize::from(limits.max_segments)
    }

    fn add(&mut self, other: &Piece) {
        self.order.sector = self.order.sector.min(other.order.sector);
        self.order.nr_sectors += other.order.nr_sectors;
        self.segments += other.segments;
        self.nr_bios += other.nr_bios;
        self.came = self.came.min(other.came);
    }
}

struct Model {
    config: DeadlineConfig,
    waiting: Vec<Piece>,
    again: Vec<Piece>,
    in_flight: Vec<Piece>,
    clock: u64,
    last_writes: bool,
    batching: u32,
    starved: u32,
    position: [[u64; 2]; 3],
}

/// What a dispatch gave: sector, length and number of bios, or when to come again.
#[derive(Debug, PartialEq)]
enum Given {
    Piece(u64, u32, usize),
    Nothing,
    Idle(Time),
}

impl Model {
    fn new(config: DeadlineConfig) -> Self {
        Model {
            config,
            waiting: Vec::new(),
            again: Vec::new(),
            in_flight: Vec::new(),
            clock: 0,
            last_writes: false,
            batching: 0,
            starved: 0,
            position: [[0; 2]; 3],
        }
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn put(&mut self, order: Order, now: Time, limits: &Limits) -> bool {
        let segments = if order.op.has_data() { order.nr_sectors.min(2) as usize } else { 0 };
        let (began, ended) = (self.tick(), self.tick());
        let new = Piece { order, segments, nr_bios: 1, came: now, began, ended };
        if self.merge(&new, limits) {
            return true;
        }
        self.waiting.push(new);
        false
    }

    fn merge(&mut self, new: &Piece, limits: &Limits) -> bool {
        let mut before = self.indices(|piece| piece.end() == new.order.sector);
        before.sort_by_key(|index| std::cmp::Reverse(self.waiting[*index].ended));
        before.truncate(CANDIDATES_MAX);
        if let Some(at) = before.into_iter().find(|at| self.waiting[*at].fits(new, limits)) {
            self.waiting[at].add(new);
            self.waiting[at].ended = self.tick();
            self.join_behind(at, limits);
            return true;
        }
        let behind = if self.config.front_merges { self.beginning_behind(new) } else { vec![] };
        let Some(at) = behind.into_iter().find(|at| self.waiting[*at].fits(new, limits)) else {
            return false;
        };
        self.waiting[at].add(new);
        self.waiting[at].began = self.tick();
        true
    }

    fn join_behind(&mut self, at: usize, limits: &Limits) {
        let mut kept = self.waiting[at];
        let behind = self.beginning_behind(&kept);
        let Some(other) = behind.into_iter().find(|other| self.waiting[*other].fits(&kept, limits))
        else {
            return;
        };
        let gone = self.waiting[other];
        let place = if gone.came < kept.came { other } else { at };
        kept.add(&gone);
        kept.ended = self.tick();
        self.waiting[place] = kept;
        self.waiting.remove(if place == at { other } else { at });
    }

    fn indices(&self, which: impl Fn(&Piece) -> bool) -> Vec<usize> {
        (0..self.waiting.len()).filter(|index| which(&self.waiting[*index])).collect()
    }

    fn beginning_behind(&self, piece: &Piece) -> Vec<usize> {
        let mut behind = self.indices(|other| {
            (other.level(), other.is_write()) == (piece.level(), piece.is_write())
                && other.order.sector == piece.end()
        });
        behind.sort_by_key(|index| self.waiting[*index].began);
        behind.truncate(CANDIDATES_MAX);
        behind
    }

    fn next_by_position(&self, level: usize, writes: bool) -> Option<usize> {
        let from = self.position[level][usize::from(writes)];
        let ahead = self.indices(|piece| {
            (piece.level(), piece.is_write()) == (level, writes) && piece.order.sector >= from
        });
        ahead.into_iter().min_by_key(|index| {
            let piece = &self.waiting[*index];
            (piece.order.sector, piece.began)
        })
    }

    fn choose(&mut self, level: usize, now: Time) -> Option<usize> {
        if self.batching < self.config.fifo_batch
            && let Some(next) = self.next_by_position(level, self.last_writes)
        {
            return Some(next);
        }
        let of = |writes| self.indices(|p| (p.level(), p.is_write()) == (level, writes));
        let (reads, writes) = (of(false), of(true));
        let take_writes = if reads.is_empty() && writes.is_empty() {
            return None;
        } else if reads.is_empty() {
            true
        } else if writes.is_empty() {
            false
        } else {
            self.starved += 1;
            self.starved > self.config.writes_starved
        };
        if take_writes {
            self.starved = 0;
        }
        let oldest = if take_writes { writes[0] } else { reads[0] };
        let expire = if take_writes { self.config.write_expire } else { self.config.read_expire };
        (self.last_writes, self.batching) = (take_writes, 0);
        if self.waiting[oldest].came + expire <= now {
            return Some(oldest);
        }
        Some(self.next_by_position(level, take_writes).unwrap_or(oldest))
    }

    /// The request of a level that came first, reads before writes if they came together.
    fn oldest(&self, level: usize) -> Option<usize> {
        let first = |writes| {
            self.indices(|p| (p.level(), p.is_write()) == (level, writes)).first().copied()
        };
        let both = [first(false), first(true)].into_iter().flatten();
        both.min_by_key(|index| self.waiting[*index].came)
    }

    fn choose_aged(&mut self, now: Time) -> Option<usize> {
        for level in [1, 2] {
            let Some(oldest) = self.oldest(level) else { continue };
            let is_aged = |model: &Self, at: usize| {
                model.waiting[at].came + model.config.prio_aging_expire <= now
            };
            if !is_aged(self, oldest) {
                continue;
            }
            let usual = self.choose(level, now).unwrap();
            if is_aged(self, usual) {
                return Some(usual);
            }
            (self.last_writes, self.batching) = (self.waiting[oldest].is_write(), 0);
            return Some(oldest);
        }
        None
    }

    fn is_busy(&self, level: usize) -> bool {
        let all = self.waiting.iter().chain(&self.again).chain(&self.in_flight);
        all.clone().any(|piece| piece.level() == level)
    }

    fn holds(&self) -> bool {
        !self.waiting.is_empty() || !self.again.is_empty()
    }

    fn dispatch(&mut self, now: Time) -> Given {
        if !self.again.is_empty() {
            let piece = self.again.remove(0);
            return self.send(piece);
        }
        if self.waiting.is_empty() {
            return Given::Nothing;
        }
        let busy: Vec<usize> = (0..3).filter(|level| self.is_busy(*level)).collect();
        let aged = if busy.len() > 1 { self.choose_aged(now) } else { None };
        match aged.or_else(|| self.choose(busy[0], now)) {
            Some(at) => {
                self.batching += 1;
                let piece = self.waiting.remove(at);
                self.send(piece)
            }
            None => {
                let oldest = [1, 2].into_iter().filter_map(|level| self.oldest(level));
                let came = oldest.map(|at| self.waiting[at].came).min().unwrap();
                Given::Idle(came + self.config.prio_aging_expire)
            }
        }
    }

    fn send(&mut self, piece: Piece) -> Given {
        let Order { sector, nr_sectors, .. } = piece.order;
        self.position[piece.level()][usize::from(piece.is_write())] = sector;
        self.in_flight.push(piece);
        Given::Piece(sector, nr_sectors, piece.nr_bios)
    }

    /// One of those in flight ends. Answers whether that lets others go.
    fn complete(&mut self, at: usize) -> bool {
        let level = self.in_flight.remove(at).level();
        !self.is_busy(level) && self.holds()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(Order),
    Dispatch(u32),
    Complete(usize),
    Requeue(usize),
    Advance(u64),
    FrontMerges(bool),
}

fn order() -> impl Strategy<Value = Order> {
    let op = prop_oneof![6 => Just(Op::Read), 4 => Just(Op::Write), 1 => Just(Op::Discard)];
    let class = prop_oneof![1 => Just(0usize), 4 => Just(1usize), 1 => Just(2usize)];
    // Few places, so that requests meet.
    (op, 0..60u64, 1..=4u32, class, 0..20u32).prop_map(|(op, sector, len, class, tenant)| Order {
        class: CLASSES[class],
        tenant: u32::from(tenant == 0),
        ..Order::new(op, sector, len)
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => order().prop_map(Step::Put),
        4 => (1..4u32).prop_map(Step::Dispatch),
        4 => any::<usize>().prop_map(Step::Complete),
        1 => any::<usize>().prop_map(Step::Requeue),
        3 => (1..40u64).prop_map(Step::Advance),
        1 => any::<bool>().prop_map(Step::FrontMerges),
    ]
}

fn config() -> impl Strategy<Value = DeadlineConfig> {
    let times = (1..100u64, 1..200u64, 1..300u64);
    (times, 0..4u32, 0..6u32).prop_map(|((read, write, aging), starved, batch)| DeadlineConfig {
        read_expire: Duration::from_millis(read),
        write_expire: Duration::from_millis(write),
        prio_aging_expire: Duration::from_millis(aging),
        writes_starved: starved,
        fifo_batch: batch,
        ..DeadlineConfig::default()
    })
}

/// The scheduler and the model, doing the same.
struct Pair {
    deadline: Deadline,
    in_flight: Vec<Request>,
    model: Model,
    quarry: Quarry,
    limits: Limits,
    now: Time,
}

impl Pair {
    fn put(&mut self, order: Order) {
        let request = self.quarry.dig(order, self.now);
        let merged = match self.deadline.merge(request, &self.limits) {
            Merge::Merged => true,
            Merge::No(request) => {
                assert_eq!(self.deadline.insert(request, self.now), Run::Yes);
                false
            }
        };
        assert_eq!(merged, self.model.put(order, self.now, &self.limits), "{order:?}");
    }

    fn dispatch(&mut self) -> bool {
        let given = match self.deadline.dispatch(self.now) {
            Dispatch::Request(request) => {
                let given = Given::Piece(request.sector, request.nr_sectors, request.nr_bios());
                self.in_flight.push(request);
                given
            }
            Dispatch::Empty => Given::Nothing,
            Dispatch::IdleUntil(at) => {
                assert!(at > self.now);
                Given::Idle(at)
            }
            pause => panic!("{pause:?}"),
        };
        assert_eq!(given, self.model.dispatch(self.now));
        assert_eq!(self.deadline.has_work(), self.model.holds());
        matches!(given, Given::Piece(..))
    }

    fn complete(&mut self, which: usize) {
        let at = which % self.in_flight.len();
        let request = self.in_flight.remove(at);
        let run = self.deadline.complete(&completion(&request), self.now);
        assert_eq!(run == Run::Yes, self.model.complete(at));
    }

    fn requeue(&mut self, which: usize) {
        let at = which % self.in_flight.len();
        let request = self.in_flight.remove(at);
        assert_eq!(self.deadline.requeue(request, self.now), Run::Yes);
        let piece = self.model.in_flight.remove(at);
        self.model.again.push(piece);
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Put(order) => self.put(*order),
            Step::Dispatch(n) => {
                for _ in 0..*n {
                    self.dispatch();
                }
            }
            Step::Complete(_) | Step::Requeue(_) if self.in_flight.is_empty() => {}
            Step::Complete(which) => self.complete(*which),
            Step::Requeue(which) => self.requeue(*which),
            Step::Advance(ms) => self.now = self.now + Duration::from_millis(*ms),
            Step::FrontMerges(on) => {
                self.deadline.set("front_merges", if *on { "1" } else { "0" }).unwrap();
                self.model.config.front_merges = *on;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn requests_are_merged_and_go_as_in_the_model(
        config in config(),
        script in proptest::collection::vec(step(), 1..120),
    ) {
        let mut pair = Pair {
            deadline: Deadline::new(config, 128),
            in_flight: Vec::new(),
            model: Model::new(config),
            quarry: Quarry::new(128),
            limits: Limits { max_sectors: 12, max_segments: 6, ..limits(CAPACITY_SECTORS) },
            now: Time::ZERO,
        };
        for step in &script {
            pair.take(step);
        }
        // All of it goes in the end.
        while pair.dispatch() || !pair.in_flight.is_empty() {
            if !pair.in_flight.is_empty() {
                pair.complete(0);
            }
        }
        prop_assert!(pair.model.waiting.is_empty());
        let shown = pair.deadline.debug();
        prop_assert!(shown.contains(&("queued", "0 0 0".to_string())));
    }
}
