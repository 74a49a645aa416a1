//! The machine with slots in virtual time, under random requests.

use std::collections::{BTreeMap, BTreeSet};

use blkmq_models::{
    BusyFault, BusyKind, Effect, Fate, Fault, ModelOp, ModelRequest, Outcome, Slots, SlotsConfig,
    Start, Trigger,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// One step of a driver.
#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Start { queue: usize, op: ModelOp, sector: u64, nr_sectors: u32 },
    Finish { queue: usize, room: usize },
    GiveBack { queue: usize, nth: usize },
}

/// What a driver knows of a request in flight.
#[derive(Clone, Copy, Debug)]
struct Known {
    fate: Fate,
    outcome: Option<Outcome>,
}

/// A driver that checks every answer. `trace` is all that it was told.
struct Driver {
    slots: Slots,
    config: SlotsConfig,
    now_ns: u64,
    next_id: u64,
    in_flight: BTreeMap<(usize, u64), Known>,
    owed: BTreeSet<usize>,
    trace: Vec<String>,
}

const QUEUES: usize = 3;
const BAD_SECTOR: u64 = 7;

impl Driver {
    fn new(config: SlotsConfig) -> Self {
        let mut slots = Slots::new(config.clone());
        (0..QUEUES).for_each(|number| assert_eq!(slots.add_queue(4), number));
        Driver {
            slots,
            config,
            now_ns: 1_000,
            next_id: 0,
            in_flight: BTreeMap::new(),
            owed: BTreeSet::new(),
            trace: Vec::new(),
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Wait(ns) => self.now_ns += ns,
            Step::Start { queue, op, sector, nr_sectors } => {
                let nr_sectors = if op == ModelOp::Flush { 0 } else { nr_sectors };
                let request = ModelRequest { id: self.next_id, op, sector, nr_sectors };
                self.next_id += 1;
                self.start(queue, request);
            }
            Step::Finish { queue, room } => self.finish(queue, room),
            Step::GiveBack { queue, nth } => {
                let ids: Vec<_> = self.in_flight.keys().filter(|key| key.0 == queue).collect();
                if let Some(&&(queue, id)) = ids.get(nth % ids.len().max(1)) {
                    assert!(self.slots.give_back(queue, id));
                    self.in_flight.remove(&(queue, id));
                }
                assert!(!self.slots.give_back(queue, u64::MAX), "there is no such request");
                self.take_kicks();
            }
        }
    }

    fn start(&mut self, queue: usize, request: ModelRequest) {
        let answer = self.slots.start(self.now_ns, queue, request);
        self.trace.push(format!("{} {queue} {request:?}: {answer:?}", self.now_ns));
        let mine = |key: &(usize, u64)| key.0 == queue;
        match answer {
            Start::Accepted => {
                let fate = self.slots.fate(queue, request.id).expect("it is in flight");
                self.check_time(&request, fate);
                let is_bad = request.sector <= BAD_SECTOR
                    && BAD_SECTOR < request.sector + u64::from(request.nr_sectors);
                let outcome = is_bad.then_some(Outcome::Medium);
                self.in_flight.insert((queue, request.id), Known { fate, outcome });
                let busy = self.in_flight.values().filter(|known| self.occupies(known.fate));
                assert!(busy.count() <= self.config.slots as usize, "too many at once");
            }
            Start::Busy(BusyKind::Completion) => {
                let mut mine = self.in_flight.iter().filter(|(key, _)| mine(key));
                assert!(mine.any(|(_, known)| known.fate != Fate::Lost), "it rests on nothing");
            }
            Start::Busy(BusyKind::Kick) => {
                self.owed.insert(queue);
            }
            Start::Busy(BusyKind::RetryAt(at_ns)) => assert_eq!(at_ns, self.now_ns + 70),
        }
    }

    fn occupies(&self, fate: Fate) -> bool {
        !matches!(fate, Fate::EndsAt(at_ns) if at_ns <= self.now_ns)
    }

    fn check_time(&self, request: &ModelRequest, fate: Fate) {
        let Fate::EndsAt(at_ns) = fate else { return };
        let service_ns = self.config.service_ns(request);
        let least_ns = self.now_ns + service_ns.saturating_sub(self.config.jitter_ns);
        let most_ns = service_ns + self.config.jitter_ns;
        // The late ones among them take three times as long, and 11 ns.
        let most_ns = self.now_ns + most_ns * 3 + 11;
        assert!((least_ns..=most_ns).contains(&at_ns), "{at_ns} in {least_ns}..={most_ns}");
    }

    fn finish(&mut self, queue: usize, room: usize) {
        let mut done = Vec::new();
        self.slots.finish(self.now_ns, queue, room, &mut done);
        assert!(done.len() <= room);
        let mut last_ns = 0;
        for (id, outcome) in &done {
            self.trace.push(format!("{} {queue} {id} ended: {outcome:?}", self.now_ns));
            let known = self.in_flight.remove(&(queue, *id)).expect("it was in flight, and once");
            let Fate::EndsAt(at_ns) = known.fate else { panic!("what is lost has ended") };
            assert!(last_ns <= at_ns && at_ns <= self.now_ns, "out of order, or early");
            assert!(known.outcome.is_none_or(|expected| expected == *outcome));
            last_ns = at_ns;
        }
        let mut mine = self.in_flight.iter().filter(|(key, _)| key.0 == queue);
        let is_late = mine.any(|(_, known)| !self.occupies(known.fate));
        assert!(done.len() == room || !is_late, "it is over and was not told");
        self.take_kicks();
    }

    fn take_kicks(&mut self) {
        let mut kicks = Vec::new();
        self.slots.take_kicks(self.now_ns, &mut kicks);
        for queue in kicks {
            self.trace.push(format!("{} {queue} kicked", self.now_ns));
            assert!(self.owed.remove(&queue), "a kick that is not owed");
        }
    }

    /// Lets time pass until nothing is in flight that ever ends.
    fn drain(&mut self) {
        while let Some(at_ns) = (0..QUEUES).filter_map(|q| self.slots.next_event(q)).min() {
            self.now_ns = self.now_ns.max(at_ns);
            (0..QUEUES).for_each(|queue| self.finish(queue, usize::MAX));
        }
        let lost: Vec<_> = self.in_flight.keys().copied().collect();
        for (queue, id) in lost {
            let known = self.in_flight.remove(&(queue, id)).expect("it is from the list");
            assert_eq!(known.fate, Fate::Lost, "it never ended");
            assert!(self.slots.give_back(queue, id));
        }
        self.take_kicks();
        assert_eq!(self.slots.used(), 0);
        assert_eq!(self.owed, BTreeSet::new(), "kicks that were never given");
    }
}

fn op() -> impl Strategy<Value = ModelOp> {
    use ModelOp::{Discard, Flush, Read, Write, WriteZeroes};
    prop_oneof![Just(Read), Just(Write), Just(Flush), Just(Discard), Just(WriteZeroes)]
}

fn step() -> impl Strategy<Value = Step> {
    let queue = 0..QUEUES;
    prop_oneof![
        3 => (0..200_u64).prop_map(Step::Wait),
        6 => (queue.clone(), op(), 0..32_u64, 1..8_u32).prop_map(
            |(queue, op, sector, nr_sectors)| Step::Start { queue, op, sector, nr_sectors }
        ),
        3 => (queue.clone(), 0..6_usize).prop_map(|(queue, room)| Step::Finish { queue, room }),
        1 => (queue, 0..6_usize).prop_map(|(queue, nth)| Step::GiveBack { queue, nth }),
    ]
}

fn faults() -> impl Strategy<Value = Vec<Fault>> {
    let effect = prop_oneof![
        Just(Effect::Busy(BusyFault::Completion)),
        Just(Effect::Busy(BusyFault::KickAfter(50))),
        Just(Effect::Busy(BusyFault::RetryAfter(70))),
        Just(Effect::Lost { for_ns: None }),
    ];
    let rate = (0..300_000_u32, effect).prop_map(|(ppm, effect)| Fault::rate(ppm, effect));
    let late = Fault::rate(100_000, Effect::Late { factor: 3, add_ns: 11 });
    let bad = Fault::bad_sectors(BAD_SECTOR..BAD_SECTOR + 1);
    vec(rate, 0..4).prop_map(move |mut faults| {
        faults.extend([bad.clone(), late.clone()]);
        faults
    })
}

fn config() -> impl Strategy<Value = SlotsConfig> {
    let times = (0..150_u64, 0..150_u64, 0..400_u64, 0..20_u64);
    (1..6_u32, times, 0..20_u64, 0..60_u64, any::<u64>(), faults()).prop_map(
        |(slots, times, ns_per_kib, jitter_ns, seed, faults)| SlotsConfig {
            slots,
            read_ns: times.0,
            write_ns: times.1,
            flush_ns: times.2,
            discard_ns: times.3,
            ns_per_kib,
            jitter_ns,
            seed,
            faults,
        },
    )
}

fn run(config: &SlotsConfig, steps: &[Step]) -> Vec<String> {
    let mut driver = Driver::new(config.clone());
    steps.iter().for_each(|step| driver.step(step));
    driver.drain();
    driver.trace
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn each_request_ends_once_in_time_and_every_kick_is_given(
        config in config(),
        steps in vec(step(), 1..120),
    ) {
        run(&config, &steps);
    }

    #[test]
    fn the_same_seed_does_the_same(config in config(), steps in vec(step(), 1..60)) {
        prop_assert_eq!(run(&config, &steps), run(&config, &steps));
    }
}

fn read(id: u64) -> ModelRequest {
    ModelRequest { id, op: ModelOp::Read, sector: id, nr_sectors: 2 }
}

#[test]
fn a_slot_is_free_when_its_time_is_over_even_if_nobody_fetches() {
    let mut slots = Slots::new(SlotsConfig { slots: 1, read_ns: 100, ..SlotsConfig::default() });
    let (one, other) = (slots.add_queue(4), slots.add_queue(4));
    assert_eq!(slots.start(0, one, read(1)), Start::Accepted);
    assert_eq!(slots.start(99, one, read(2)), Start::Busy(BusyKind::Completion));
    assert_eq!(slots.start(99, other, read(3)), Start::Busy(BusyKind::Kick));
    let mut kicks = Vec::new();
    slots.take_kicks(99, &mut kicks);
    assert_eq!(kicks, []);
    slots.take_kicks(100, &mut kicks);
    assert_eq!(kicks, [other]);
    assert_eq!(slots.start(100, other, read(3)), Start::Accepted);
    assert_eq!((slots.next_event(one), slots.next_event(other)), (Some(100), Some(200)));
    let mut done = Vec::new();
    slots.finish(100, one, 9, &mut done);
    assert_eq!(done, [(1, Outcome::Ok)]);
}

#[test]
fn data_add_to_the_time_and_a_limit_ends_a_fault() {
    let error = Effect::Error(Outcome::NoSpc);
    let fault = Fault { limit: 1, ..Fault::rate(1_000_000, error) };
    let sectors = Trigger::Sectors(5..6);
    let late = Effect::Late { factor: 10, add_ns: 1 };
    let late = Fault { trigger: sectors, ..Fault::rate(0, late) };
    let config = SlotsConfig { read_ns: 100, ns_per_kib: 8, ..SlotsConfig::default() };
    assert!(!config.is_instant());
    assert!(SlotsConfig::default().is_instant());
    let mut slots = Slots::new(SlotsConfig { faults: vec![fault, late], ..config });
    let queue = slots.add_queue(4);
    for id in [1, 3, 4] {
        assert_eq!(slots.start(0, queue, read(id)), Start::Accepted);
    }
    let fates = [1, 3, 4].map(|id| slots.fate(queue, id).unwrap());
    assert_eq!(fates, [Fate::EndsAt(108), Fate::EndsAt(108), Fate::EndsAt(1081)]);
    let mut done = Vec::new();
    slots.finish(2_000, queue, 9, &mut done);
    assert_eq!(done, [(1, Outcome::NoSpc), (3, Outcome::Ok), (4, Outcome::Ok)]);
}

#[test]
fn a_lost_request_may_turn_up_again_and_ends_in_a_timeout() {
    let lost = Effect::Lost { for_ns: Some(500) };
    let faults = vec![Fault { limit: 1, ..Fault::rate(1_000_000, lost) }];
    let mut slots = Slots::new(SlotsConfig { slots: 1, faults, ..SlotsConfig::default() });
    let queue = slots.add_queue(4);
    assert_eq!(slots.start(10, queue, read(1)), Start::Accepted);
    assert_eq!((slots.fate(queue, 1), slots.next_event(queue)), (Some(Fate::Lost), Some(510)));
    assert_eq!(slots.start(509, queue, read(2)), Start::Busy(BusyKind::Completion));
    let mut done = Vec::new();
    slots.finish(509, queue, 9, &mut done);
    assert_eq!(done, []);
    slots.finish(510, queue, 9, &mut done);
    assert_eq!((done, slots.used()), (vec![(1, Outcome::Timeout)], 0));
    assert_eq!(slots.start(511, queue, read(2)), Start::Accepted);
}

#[test]
fn a_lost_request_holds_its_slot_until_it_is_given_back_or_its_queue_closed() {
    let faults = vec![Fault { limit: 2, ..Fault::rate(1_000_000, Effect::Lost { for_ns: None }) }];
    let mut slots = Slots::new(SlotsConfig { slots: 2, faults, ..SlotsConfig::default() });
    let (one, other) = (slots.add_queue(4), slots.add_queue(4));
    assert_eq!(slots.start(0, one, read(1)), Start::Accepted);
    assert_eq!(slots.start(0, other, read(2)), Start::Accepted);
    assert_eq!((slots.fate(one, 1), slots.next_event(one)), (Some(Fate::Lost), None));
    // A lost request is no completion to come.
    assert_eq!(slots.start(u64::MAX, one, read(3)), Start::Busy(BusyKind::Kick));
    assert!(slots.give_back(one, 1));
    let mut kicks = Vec::new();
    slots.take_kicks(u64::MAX, &mut kicks);
    assert_eq!((kicks.as_slice(), slots.used()), (&[one][..], 1));
    slots.remove_queue(other);
    assert_eq!((slots.used(), slots.add_queue(4)), (0, other));
}
