//! mq-deadline beside a plain model of the algorithm as Linux documents it.
//!
//! The model holds its requests in one list and searches it; it shares no idea with the scheduler
//! but the algorithm. Ageing is left to tests of its own.

use std::time::Duration;

use blkmq_core::{Class, Deadline, DeadlineConfig, Op, Scheduler, Time};
use proptest::prelude::*;

use crate::order::Order;
use crate::world::{Setup, World};

struct Model {
    config: DeadlineConfig,
    waiting: Vec<(Order, Time)>,
    /// The class of what is in flight; one request at a time.
    in_flight: Option<Class>,
    last_writes: bool,
    batching: u32,
    starved: u32,
    position: [[u64; 2]; 3],
}

const CLASSES: [Class; 3] = [Class::RealTime, Class::BestEffort, Class::Idle];

fn is_write(order: &Order) -> bool {
    order.op != Op::Read
}

impl Model {
    fn new(config: DeadlineConfig) -> Self {
        Model {
            config,
            waiting: Vec::new(),
            in_flight: None,
            last_writes: false,
            batching: 0,
            starved: 0,
            position: [[0; 2]; 3],
        }
    }

    /// What waits in one class and direction, with its index, in the order of its coming.
    fn of(&self, class: Class, writes: bool) -> Vec<(usize, &(Order, Time))> {
        let waiting = self.waiting.iter().enumerate();
        waiting.filter(|(_, (o, _))| o.class == class && is_write(o) == writes).collect()
    }

    fn next_by_position(&self, class: Class, writes: bool) -> Option<usize> {
        let from = self.position[class as usize][usize::from(writes)];
        let mut ahead = self.of(class, writes);
        ahead.retain(|(_, (order, _))| order.sector >= from);
        ahead.iter().min_by_key(|(_, (order, _))| order.sector).map(|(index, _)| *index)
    }

    fn choose(&mut self, class: Class, now: Time) -> Option<usize> {
        if self.batching < self.config.fifo_batch
            && let Some(next) = self.next_by_position(class, self.last_writes)
        {
            return Some(next);
        }
        let reads = !self.of(class, false).is_empty();
        let writes = !self.of(class, true).is_empty();
        let starving = writes && self.starved >= self.config.writes_starved;
        let take_writes = match (reads, writes) {
            (false, false) => return None,
            (true, _) if !starving => {
                self.starved += u32::from(writes);
                false
            }
            _ => {
                self.starved = 0;
                true
            }
        };
        let (oldest, (_, came)) = self.of(class, take_writes)[0];
        let expire = match take_writes {
            true => self.config.write_expire,
            false => self.config.read_expire,
        };
        let expired = *came + expire <= now;
        (self.last_writes, self.batching) = (take_writes, 0);
        let next = self.next_by_position(class, take_writes);
        Some(next.filter(|_| !expired).unwrap_or(oldest))
    }

    fn dispatch(&mut self, now: Time) -> Option<Order> {
        for class in CLASSES {
            if let Some(index) = self.choose(class, now) {
                let (order, _) = self.waiting.remove(index);
                self.position[class as usize][usize::from(is_write(&order))] = order.sector;
                self.batching += 1;
                self.in_flight = Some(class);
                return Some(order);
            }
            if self.in_flight == Some(class) {
                return None;
            }
        }
        None
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// A submission of (write, sector, length, class).
    Submit(Vec<(bool, u64, u32, usize)>),
    Finish,
    Advance(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let one = (any::<bool>(), 0..1000u64, 1..8u32, 0..3usize);
    prop_oneof![
        3 => proptest::collection::vec(one, 1..6).prop_map(Step::Submit),
        4 => Just(Step::Finish),
        1 => (1..200u64).prop_map(Step::Advance),
    ]
}

fn config() -> impl Strategy<Value = DeadlineConfig> {
    (1..200u64, 1..400u64, 0..4u32, 1..6u32).prop_map(|(read, write, starved, batch)| {
        DeadlineConfig {
            read_expire: Duration::from_millis(read),
            write_expire: Duration::from_millis(write),
            writes_starved: starved,
            fifo_batch: batch,
            prio_aging_expire: Duration::from_secs(1000),
            ..DeadlineConfig::default()
        }
    })
}

/// The layer with mq-deadline and one slot, and the model, doing the same.
struct Pair {
    world: World,
    model: Model,
    expected: Vec<u64>,
}

impl Pair {
    fn submit(&mut self, wanted: &[(bool, u64, u32, usize)]) {
        let now = self.world.now();
        let mut orders: Vec<Order> = Vec::new();
        for (write, sector, nr_sectors, class) in wanted {
            let op = if *write { Op::Write } else { Op::Read };
            let order = Order::new(op, *sector, *nr_sectors).class(CLASSES[*class]);
            let near = |other: &Order| other.sector.abs_diff(order.sector) < 8;
            if !self.world.is_busy(&order) && !orders.iter().any(near) {
                orders.push(order);
            }
        }
        self.model.waiting.extend(orders.iter().map(|order| (*order, now)));
        self.world.submit(0, &orders);
        if self.model.in_flight.is_none() {
            self.dispatch();
        }
    }

    fn finish(&mut self) -> bool {
        self.model.in_flight = None;
        let any = self.world.finish(1) == 1;
        self.world.reap_all();
        self.dispatch();
        any
    }

    fn dispatch(&mut self) {
        let order = self.model.dispatch(self.world.now());
        self.expected.extend(order.map(|order| order.sector));
    }
}

proptest! {
    #[test]
    fn requests_go_in_the_documented_order(
        config in config(),
        script in proptest::collection::vec(step(), 1..60),
    ) {
        let scheduler = Some(Box::new(Deadline::new(config, 512)) as Box<dyn Scheduler>);
        let setup = Setup { nr_requests: 512, budget: Some(1), scheduler, ..Setup::default() };
        let mut pair =
            Pair { world: World::new(setup), model: Model::new(config), expected: Vec::new() };
        for step in &script {
            match step {
                Step::Submit(wanted) => pair.submit(wanted),
                Step::Finish => drop(pair.finish()),
                Step::Advance(ms) => pair.world.advance(Duration::from_millis(*ms)),
            }
            prop_assert_eq!(pair.world.issued(), pair.expected.clone());
        }
        while pair.finish() {}
        prop_assert_eq!(pair.world.issued(), pair.expected.clone());
        prop_assert!(pair.model.waiting.is_empty());
        pair.world.rest();
    }
}
