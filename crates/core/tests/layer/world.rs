//! A queue, its device and its submitters in one thread and in virtual time.
//!
//! Turns are whole: what interleaves is their order, drawn from a seed. Every request that comes
//! back is checked as it comes: once, to its submitter, with the status the device gave and the
//! data that lie there. [`World::rest`] runs until nothing is left to do, and finds whatever is
//! left undone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use blkmq_core::{
    BudgetMode, Config, Cpu, CtxId, Done, Held, InFlight, Limits, Maps, Queue, Refused,
    SECTOR_SIZE_BYTES, Scheduler, Status, TenantId, Time, Turn,
};

use crate::device::{self, Device, Ring, State};
use crate::env::{Asked, Env};
use crate::order::{Order, Placed};
use crate::rng::Rng;

/// The size of the device of a world, in sectors.
pub(crate) const CAPACITY_SECTORS: u64 = 4096;

/// Without a new event from outside, no more than so many turns may follow: beyond it the layer is
/// working without getting anywhere.
const TURNS_WITHOUT_EVENT_MAX: u32 = 1000;

/// How many volumes there are, all of one tenant.
const VOLUMES: u32 = 8;

/// How a world is made.
pub(crate) struct Setup {
    pub(crate) nr_ctx: u16,
    pub(crate) nr_hctx: u16,
    pub(crate) nr_requests: u32,
    pub(crate) nr_tags: u32,
    pub(crate) budget: Option<u32>,
    pub(crate) mode: BudgetMode,
    pub(crate) scheduler: Option<Box<dyn Scheduler>>,
    pub(crate) limits: Limits,
    pub(crate) seed: u64,
    pub(crate) entry_max: u32,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            nr_ctx: 1,
            nr_hctx: 1,
            nr_requests: 64,
            nr_tags: 32,
            budget: None,
            mode: BudgetMode::Handoff,
            scheduler: None,
            limits: device::limits(CAPACITY_SECTORS),
            seed: 1,
            entry_max: 0,
        }
    }
}

/// The bounds that a world was made with, to be held against what happened.
pub(crate) struct Bounds {
    pub(crate) nr_tags: u32,
    pub(crate) budget: Option<u32>,
    pub(crate) mode: BudgetMode,
    pub(crate) scheduled: bool,
}

/// Something that waits to be served.
#[derive(Clone, Copy, Debug)]
enum Event {
    Kick(CtxId),
    Wake(usize),
    DeviceKick,
    Reap(usize),
}

pub(crate) struct World {
    pub(crate) queue: Arc<Queue<Device, Env>>,
    env: Arc<Env>,
    pub(crate) cpus: Vec<Cpu<Device>>,
    rng: Rng,
    pub(crate) bounds: Bounds,
    /// What the device should hold, byte by byte.
    pub(crate) model: Vec<u8>,
    /// Given to the layer and not done.
    pub(crate) placed: BTreeMap<u64, Placed>,
    /// What each submitter could not place. It tries again when it is woken, and not before.
    waiting: Vec<VecDeque<Order>>,
    /// Submitters that were told that there is room again.
    pub(crate) wakes: BTreeSet<CtxId>,
    next_cookie: u64,
    /// What the layer said has ended, and was not checked yet.
    pub(crate) arrived: Vec<(CtxId, Done)>,
    /// What ended, in the order of its ending.
    pub(crate) done: Vec<(Order, Done)>,
    /// What happened from outside: submissions, completions, timers, kicks by the device.
    pub(crate) events: u64,
    turns_without_event: u32,
}

impl World {
    pub(crate) fn new(setup: Setup) -> Self {
        let bounds = Bounds {
            nr_tags: setup.nr_tags,
            budget: setup.budget,
            mode: setup.mode,
            scheduled: setup.scheduler.is_some(),
        };
        let env = Arc::new(Env::default());
        let nr_ctx = usize::from(setup.nr_ctx);
        let device = Device::new(setup.limits, nr_ctx);
        let config = Config {
            nr_ctx: setup.nr_ctx,
            maps: Maps::of(setup.nr_hctx),
            nr_requests: setup.nr_requests,
            nr_tags: setup.nr_tags,
            budget: setup.budget,
            budget_mode: setup.mode,
            scheduler: setup.scheduler,
            entry_max: setup.entry_max,
            timeout: None,
            volumes: (0..VOLUMES).map(|_| TenantId(0)).collect(),
            ..Config::default()
        };
        let queue = Arc::new(Queue::new(device, Arc::clone(&env), config));
        queue.driver().state().queue = Arc::downgrade(&queue);
        let cpu = |ctx: usize| queue.cpu(CtxId(ctx as u16), Ring { id: ctx });
        World {
            cpus: (0..nr_ctx).map(cpu).collect(),
            env,
            rng: Rng::new(setup.seed),
            bounds,
            model: vec![0; (setup.limits.capacity_sectors * SECTOR_SIZE_BYTES) as usize],
            placed: BTreeMap::new(),
            waiting: (0..nr_ctx).map(|_| VecDeque::new()).collect(),
            wakes: BTreeSet::new(),
            next_cookie: 0,
            arrived: Vec::new(),
            done: Vec::new(),
            events: 0,
            turns_without_event: 0,
            queue,
        }
    }

    pub(crate) fn device(&self) -> MutexGuard<'_, State> {
        self.queue.driver().state()
    }

    pub(crate) fn asked(&self) -> MutexGuard<'_, Asked> {
        self.env.asked()
    }

    pub(crate) fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    pub(crate) fn now(&self) -> Time {
        self.device().now
    }

    pub(crate) fn advance(&mut self, by: Duration) {
        let mut device = self.device();
        device.now = device.now + by;
    }

    /// The sectors that are ordered and not done, so that a test can keep off them: the order of
    /// requests that overlap is nobody's promise.
    pub(crate) fn is_busy(&self, order: &Order) -> bool {
        let waiting = self.waiting.iter().flatten();
        let mut others = waiting.chain(self.placed.values().map(|placed| &placed.order));
        others.any(|other| {
            other.sector < order.sector + u64::from(order.nr_sectors)
                && order.sector < other.sector + u64::from(other.nr_sectors)
        })
    }

    /// A turn of a submitter's.
    pub(crate) fn turn<R>(
        &mut self,
        ctx: usize,
        work: impl FnOnce(&mut Turn<'_, Device, Env>) -> R,
    ) -> R {
        let answer = self.unchecked_turn(ctx, work);
        self.check_arrived();
        answer
    }

    fn unchecked_turn<R>(
        &mut self,
        ctx: usize,
        work: impl FnOnce(&mut Turn<'_, Device, Env>) -> R,
    ) -> R {
        self.turns_without_event += 1;
        assert!(
            self.turns_without_event < TURNS_WITHOUT_EVENT_MAX,
            "livelock: turn follows turn and nothing happens; {:?}",
            self.held()
        );
        let now = self.now();
        let mut turn = self.queue.turn(&mut self.cpus[ctx], now);
        let answer = work(&mut turn);
        drop(turn);
        self.collect();
        answer
    }

    /// Collects what has ended, and who was woken, in a turn.
    fn collect(&mut self) {
        let mut asked = self.env.asked();
        self.arrived.append(&mut asked.delivered);
        for cpu in &mut self.cpus {
            let ctx = cpu.ctx();
            self.arrived.extend(cpu.take_done().map(|done| (ctx, done)));
            if cpu.take_woken() {
                self.wakes.insert(ctx);
            }
        }
    }

    /// Orders, all in one turn. What does not find a place waits for a wake.
    pub(crate) fn submit(&mut self, ctx: usize, orders: &[Order]) {
        self.events += orders.len() as u64;
        self.turns_without_event = 0;
        if !self.waiting[ctx].is_empty() {
            self.waiting[ctx].extend(orders);
            return;
        }
        self.waiting[ctx].extend(orders);
        self.place_waiting(ctx, false);
    }

    fn place_waiting(&mut self, ctx: usize, woken: bool) {
        let mut orders = std::mem::take(&mut self.waiting[ctx]);
        let mut cookie = self.next_cookie;
        let mut placed = BTreeMap::new();
        self.unchecked_turn(ctx, |turn| {
            if woken {
                turn.run();
            }
            while let Some(order) = orders.front() {
                let mut one = Placed::new(ctx, *order, cookie);
                match turn.submit(one.bio(cookie)) {
                    Ok(()) => {}
                    Err(Refused::WouldBlock(_)) => break,
                    Err(Refused::Invalid(bio, status)) => panic!("{bio:?} is refused: {status:?}"),
                }
                placed.insert(cookie, one);
                cookie += 1;
                orders.pop_front();
            }
        });
        self.next_cookie = cookie;
        self.placed.append(&mut placed);
        self.waiting[ctx] = orders;
        self.check_arrived();
    }

    /// The number of orders that wait for a wake.
    pub(crate) fn nr_waiting(&self) -> usize {
        self.waiting.iter().map(VecDeque::len).sum()
    }

    /// A submitter loses interest in what it could not place.
    pub(crate) fn forget_waiting(&mut self, ctx: usize) {
        self.waiting[ctx].clear();
    }

    /// The sectors of what the device took, in order.
    pub(crate) fn issued(&self) -> Vec<u64> {
        self.device().issues.iter().map(|issue| issue.sector).collect()
    }

    /// How often the device was asked to take a request.
    pub(crate) fn nr_asked(&self) -> usize {
        self.device().asked
    }

    pub(crate) fn held(&self) -> Held {
        self.queue.held()
    }

    /// Ends up to `n` requests in flight, in an order drawn from the seed. They are to be reaped.
    pub(crate) fn finish(&mut self, n: usize) -> usize {
        let mut device = self.queue.driver().state();
        let n = n.min(device.in_flight.len());
        for _ in 0..n {
            let index = self.rng.below(device.in_flight.len());
            device.finish(index, Status::Ok);
        }
        drop(device);
        self.happened(n as u64);
        n
    }

    /// Ends the request that begins at `sector`, and reaps it.
    pub(crate) fn finish_at(&mut self, sector: u64) {
        let mut device = self.device();
        let index = device.index_of(sector);
        device.finish(index, Status::Ok);
        drop(device);
        self.happened(1);
        self.reap_all();
    }

    /// Ends a request, in a turn of any submitter's.
    pub(crate) fn complete_anywhere(&mut self, status: Status) {
        if let Some((index, ctx)) = self.draw() {
            let status = self.device().status_of(index, status);
            let rq = self.device().finish_apart(index, status);
            self.turn(ctx, |turn| turn.complete(rq, status));
        }
    }

    /// Has a request tried again, by any submitter.
    pub(crate) fn requeue_anywhere(&mut self) {
        if let Some((index, ctx)) = self.draw() {
            let rq = self.device().take_back(index);
            self.turn(ctx, |turn| turn.requeue(rq));
        }
    }

    /// Drops a request in flight.
    pub(crate) fn lose_one(&mut self) -> Option<InFlight> {
        let (index, _) = self.draw()?;
        if !self.device().status_of(index, Status::IoErr).is_ok() {
            return Some(self.device().lose(index));
        }
        None
    }

    fn draw(&mut self) -> Option<(usize, usize)> {
        let in_flight = self.device().in_flight.len();
        if in_flight == 0 {
            return None;
        }
        self.happened(1);
        Some((self.rng.below(in_flight), self.rng.below(self.cpus.len())))
    }

    fn happened(&mut self, events: u64) {
        self.events += events;
        self.turns_without_event = 0;
    }

    pub(crate) fn reap_all(&mut self) {
        for ctx in 0..self.cpus.len() {
            if self.device().has_finished(ctx) {
                self.turn(ctx, |turn| turn.reap());
            }
        }
    }

    /// Serves something that waits to be served. Answers whether there was anything.
    pub(crate) fn serve_one(&mut self) -> bool {
        let waiting = self.waiting_events();
        if waiting.is_empty() {
            return false;
        }
        match waiting[self.rng.below(waiting.len())] {
            Event::Kick(ctx) => {
                self.asked().kicks.remove(&ctx);
                self.turn(usize::from(ctx.0), |turn| turn.run());
            }
            Event::Wake(ctx) => {
                self.wakes.remove(&CtxId(ctx as u16));
                self.place_waiting(ctx, true);
            }
            Event::DeviceKick => {
                let owed = self.device().take_owed();
                self.happened(owed.len() as u64);
                for hctx in owed {
                    self.queue.kick(hctx);
                }
            }
            Event::Reap(ctx) => self.turn(ctx, |turn| turn.reap()),
        }
        true
    }

    fn waiting_events(&self) -> Vec<Event> {
        let asked = self.asked();
        let kicks = asked.kicks.iter().map(|ctx| Event::Kick(*ctx));
        let wakes = self.wakes.iter().map(|ctx| Event::Wake(usize::from(ctx.0)));
        let mut events: Vec<Event> = kicks.chain(wakes).collect();
        drop(asked);
        let device = self.device();
        events.extend(device.has_owed().then_some(Event::DeviceKick));
        let reaps = (0..self.cpus.len()).filter(|ctx| device.has_finished(*ctx));
        events.extend(reaps.map(Event::Reap));
        events
    }

    /// Serves all there is, without time passing and without the device ending anything.
    pub(crate) fn quiesce(&mut self) {
        while self.serve_one() {}
    }

    /// Lets time pass to the next wish, and fulfils it. Answers whether there was one.
    pub(crate) fn fire_timer(&mut self) -> bool {
        let Some((ctx, why, at)) = self.asked().take_wish() else { return false };
        let now = self.now().max(at);
        self.device().now = now;
        self.happened(1);
        self.turn(usize::from(ctx.0), |turn| turn.timer(why));
        true
    }

    /// Runs until nothing is left to do, and checks that nothing is left undone.
    pub(crate) fn rest(&mut self) {
        loop {
            self.quiesce();
            if self.finish(1) == 0 && !self.fire_timer() {
                break;
            }
        }
        self.check_rest();
    }
}
