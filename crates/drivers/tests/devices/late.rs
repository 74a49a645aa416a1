//! A modelled device that is slow, or loses requests, under a queue with a timeout, in real time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use blkmq_core::{
    Bio, Config, Cpu, CtxId, Done, Env, Flags, Memory, Op, Queue, Refused, Status, Time, Wish,
};
use blkmq_drivers::{Device, Model, ModelCache, ModelOptions, connect_kicks};
use blkmq_models::{Effect, Fault, ModelOp, SlotsConfig};

use crate::pages::Pages;
use crate::rig::{bio, flush};

const TIMEOUT: Duration = Duration::from_millis(10);
/// How long what is lost or slow takes.
const LONG: Duration = Duration::from_millis(80);
const LIMIT: Duration = Duration::from_secs(20);

/// Writes down when a turn is wished for because of the timeout.
#[derive(Default)]
struct Wishes {
    next: Mutex<Option<Time>>,
}

impl Env for Wishes {
    fn kick(&self, _ctx: CtxId) {}

    fn run_at(&self, _ctx: CtxId, at: Time, why: Wish) {
        assert_eq!(why, Wish::Timeout, "nothing else is waited for");
        *self.next.lock().unwrap() = Some(at);
    }

    fn deliver(&self, _ctx: CtxId, done: Done) {
        panic!("there is no other thread to deliver {done:?}");
    }
}

/// A queue whose thread does what a runtime does, with its own clock.
struct Bench {
    start: Instant,
    wishes: Arc<Wishes>,
    queue: Arc<Queue<Model, Wishes>>,
    cpu: Cpu<Model>,
    told: VecDeque<Done>,
}

impl Bench {
    /// A device of which the first request of this kind meets `effect`.
    fn new(op: Option<ModelOp>, effect: Effect) -> Self {
        let fault = Fault { op, limit: 1, ..Fault::rate(1_000_000, effect) };
        let slots = SlotsConfig { faults: vec![fault], ..SlotsConfig::default() };
        let device = Model::new(ModelOptions {
            size_bytes: 1 << 20,
            slots,
            store: true,
            cache: ModelCache::Volatile,
        });
        let ring = device.ring(8).unwrap();
        let wishes = Arc::new(Wishes::default());
        let config = Config { nr_tags: 8, timeout: Some(TIMEOUT), ..Config::default() };
        let queue = Arc::new(Queue::new(device, Arc::clone(&wishes), config));
        connect_kicks(&queue);
        let cpu = queue.cpu(CtxId(0), ring);
        Bench { start: Instant::now(), wishes, queue, cpu, told: VecDeque::new() }
    }

    fn now(&self) -> Time {
        Time::from_ns(self.start.elapsed().as_nanos() as u64)
    }

    fn submit(&mut self, bio: Bio) -> Result<(), Refused> {
        let now = self.now();
        self.queue.turn(&mut self.cpu, now).submit(bio)
    }

    /// The next that its submitter is told, and when.
    fn next(&mut self) -> (Done, Duration) {
        loop {
            assert!(self.start.elapsed() < LIMIT, "nothing is told");
            let now = self.now();
            let wish = self.wishes.next.lock().unwrap().take_if(|at| *at <= now);
            let mut turn = self.queue.turn(&mut self.cpu, now);
            if wish.is_some() {
                turn.timer(Wish::Timeout);
            }
            turn.reap();
            drop(turn);
            self.told.extend(self.cpu.take_done());
            if let Some(done) = self.told.pop_front() {
                return (done, self.start.elapsed());
            }
            std::thread::yield_now();
        }
    }
}

fn lost(for_time: Option<Duration>) -> Effect {
    Effect::Lost { for_ns: for_time.map(|time| time.as_nanos() as u64) }
}

#[test]
fn a_lost_request_is_answered_for_and_its_memory_comes_back_when_it_turns_up() {
    let mut bench = Bench::new(None, lost(Some(LONG)));
    let memory = Pages::new(4096);
    let segment = [memory.segment(0, 4096, None)];
    bench.submit(bio(Op::Write, Flags::empty(), 8, 8, &segment)).unwrap();
    let (done, at) = bench.next();
    assert_eq!((done.cookie, done.status, done.memory), (8, Status::Timeout, Memory::Lent));
    assert!(at >= TIMEOUT, "{at:?}");
    let dump = bench.queue.dump(bench.now());
    assert_eq!((dump.abandoned, bench.queue.held().in_flight), (1, 1), "its tag is kept");
    // Others are served meanwhile, with other tags.
    bench.submit(bio(Op::Read, Flags::empty(), 64, 8, &segment)).unwrap();
    let (done, _) = bench.next();
    assert_eq!((done.cookie, done.status, done.memory), (64, Status::Ok, Memory::Returned));
    let (done, at) = bench.next();
    assert_eq!((done.cookie, done.memory), (8, Memory::ReturnedLate));
    assert!(at >= LONG, "{at:?}");
    assert_eq!((bench.queue.dump(bench.now()).abandoned, bench.queue.held().requests), (0, 0));
    assert_eq!((bench.cpu.counters().expired, bench.queue.defects()), (1, 0));
}

#[test]
fn a_slow_request_is_waited_for() {
    let late = Effect::Late { factor: 1, add_ns: LONG.as_nanos() as u64 };
    let mut bench = Bench::new(None, late);
    bench.submit(bio(Op::Discard, Flags::empty(), 8, 8, &[])).unwrap();
    let (done, at) = bench.next();
    assert_eq!((done.status, done.memory), (Status::Ok, Memory::Returned));
    assert!(at >= LONG, "{at:?}");
    // It was asked about once, and said how long it would be; a machine that is slow asks again.
    let expired = bench.cpu.counters().expired;
    assert!((1..=3).contains(&expired), "asked {expired} times");
}

#[test]
fn what_is_lost_for_ever_keeps_its_tag_until_the_ring_goes() {
    let mut bench = Bench::new(None, lost(None));
    bench.submit(bio(Op::Discard, Flags::empty(), 8, 8, &[])).unwrap();
    assert_eq!(bench.next().0.memory, Memory::Lent);
    for nth in 0..20 {
        bench.submit(bio(Op::Discard, Flags::empty(), nth * 8, 8, &[])).unwrap();
        assert_eq!(bench.next().0.status, Status::Ok);
    }
    assert_eq!(bench.queue.held().in_flight, 1);
    let ring = bench.queue.driver().ring(8).unwrap();
    bench.cpu = bench.queue.cpu(CtxId(0), ring);
    let now = bench.now();
    bench.queue.turn(&mut bench.cpu, now).run();
    let told: Vec<Done> = bench.cpu.take_done().collect();
    assert_eq!((told.len(), told[0].memory), (1, Memory::ReturnedLate));
    assert_eq!(bench.queue.held().requests, 0);
}

#[test]
fn a_lost_flush_fails_for_all_and_nothing_is_written_any_more() {
    let mut bench = Bench::new(Some(ModelOp::Flush), lost(Some(LONG)));
    bench.submit(flush()).unwrap();
    bench.submit(flush()).unwrap();
    for _ in 0..2 {
        assert_eq!(bench.next().0.status, Status::Timeout);
    }
    match bench.submit(bio(Op::Discard, Flags::empty(), 8, 8, &[])) {
        Err(Refused::Invalid(_, status)) => assert_eq!(status, Status::ReadOnly),
        other => panic!("expected a refusal, not {other:?}"),
    }
}
