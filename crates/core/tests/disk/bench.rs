//! A queue over the disk, with its submitters, in one thread and in virtual time. Whatever comes
//! back is checked as it comes.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use blkmq_core::{
    Change, Changing, Config, Cpu, CtxId, Done, Flags, Held, Limits, Memory, Op, Queue, Refused,
    Status, TenantId, Time, Turn, Wish,
};

use crate::disk::{Disk, Ring, State};
use crate::env::Env;
use crate::order::{Order, Placed, overlap, value_of};

/// Beyond so many turns without anything from outside, the layer works without getting anywhere.
const TURNS_WITHOUT_EVENT_MAX: u32 = 1000;

/// How many kicks follow from something from outside, all told. A change is the worst: it ends a
/// freeze and a quiesce, and either kicks every hardware queue, of which there are a few.
const KICKS_AN_EVENT_MAX: u64 = 16;

/// The size of the disk in sectors.
pub(crate) const CAPACITY_SECTORS: u64 = 512;

/// The limits of the disk unless a test has others.
pub(crate) fn limits() -> Limits {
    Limits {
        capacity_sectors: CAPACITY_SECTORS,
        max_sectors: 16,
        max_segments: 8,
        max_discard_sectors: 32,
        max_write_zeroes_sectors: 32,
        write_cache: true,
        fua: true,
        ..Limits::default()
    }
}

/// What an order was given under, until it comes back.
struct Out {
    placed: Placed,
    /// The versions that had been written, and told of, when it was submitted.
    known: Vec<u64>,
    /// What its sectors held then.
    before: Vec<u64>,
    /// It was answered, and its memory is still lent.
    lent: bool,
}

pub(crate) struct Bench {
    pub(crate) queue: Arc<Queue<Disk, Env>>,
    pub(crate) env: Arc<Env>,
    pub(crate) cpus: Vec<Cpu<Disk>>,
    out: BTreeMap<u64, Out>,
    /// What each submitter could not place. It tries again when it is woken, and not before.
    pub(crate) waiting: Vec<VecDeque<Order>>,
    /// The version of each sector that a submitter was told of.
    known: Vec<u64>,
    pub(crate) changing: Vec<Changing>,
    settled: u64,
    next_cookie: u64,
    turns_without_event: u32,
    /// How much has come from outside: orders, endings, timers and changes.
    events: u64,
    /// What ended, in the order of its ending.
    pub(crate) done: Vec<(Order, Done)>,
    /// What was refused for good.
    pub(crate) refused: Vec<(Order, Status)>,
    pub(crate) late: Vec<u64>,
    /// The smallest size that the disk has had.
    pub(crate) capacity_min: u64,
}

impl Bench {
    pub(crate) fn new(limits: Limits, config: Config) -> Self {
        let env = Arc::new(Env::default());
        let nr_ctx = usize::from(config.nr_ctx);
        let disk = Disk::new(limits, nr_ctx);
        let queue = Arc::new(Queue::new(disk, Arc::clone(&env), config));
        Bench {
            cpus: (0..nr_ctx).map(|ctx| queue.cpu(CtxId(ctx as u16), Ring(ctx))).collect(),
            queue,
            env,
            out: BTreeMap::new(),
            waiting: (0..nr_ctx).map(|_| VecDeque::new()).collect(),
            known: vec![0; limits.capacity_sectors as usize],
            changing: Vec::new(),
            settled: 0,
            next_cookie: 0,
            turns_without_event: 0,
            events: 0,
            done: Vec::new(),
            refused: Vec::new(),
            late: Vec::new(),
            capacity_min: limits.capacity_sectors,
        }
    }

    pub(crate) fn disk(&self) -> MutexGuard<'_, State> {
        self.queue.driver().state()
    }

    pub(crate) fn now(&self) -> Time {
        self.disk().now
    }

    pub(crate) fn advance(&mut self, by: Duration) {
        let mut disk = self.disk();
        disk.now = disk.now + by;
    }

    /// Something has come from outside.
    pub(crate) fn happened(&mut self) {
        self.turns_without_event = 0;
        self.events += 1;
    }

    /// Whether some order that has not come back, or waits, is about one of these sectors.
    pub(crate) fn is_busy(&self, sectors: &Range<u64>) -> bool {
        let out = self.out.values().map(|out| &out.placed.order);
        out.chain(self.waiting.iter().flatten()).any(|order| overlap(&order.sectors(), sectors))
    }

    fn flush_failed(&self, now: Time) -> bool {
        self.queue.dump(now).flush.failed
    }

    pub(crate) fn turn<R>(
        &mut self,
        ctx: usize,
        work: impl FnOnce(&mut Turn<'_, Disk, Env>) -> R,
    ) -> R {
        self.turns_without_event += 1;
        assert!(
            self.turns_without_event < TURNS_WITHOUT_EVENT_MAX,
            "livelock: turn follows turn and nothing happens; {:?}",
            self.queue.dump(self.now())
        );
        let now = self.now();
        let mut turn = self.queue.turn(&mut self.cpus[ctx], now);
        let answer = work(&mut turn);
        drop(turn);
        answer
    }

    /// Checks what has come back, and goes on with the changes under way.
    pub(crate) fn look(&mut self) {
        let mut came: Vec<(CtxId, Done)> = std::mem::take(&mut self.env.asked().delivered);
        for cpu in &mut self.cpus {
            let ctx = cpu.ctx();
            came.extend(cpu.take_done().map(|done| (ctx, done)));
        }
        for (ctx, done) in came {
            self.came_back(ctx, done);
        }
        let settled = self.env.asked().settled;
        if settled != std::mem::replace(&mut self.settled, settled) {
            self.poll_changes();
        }
    }

    /// Begins a change. It is asked about again whenever something has settled, and not else.
    pub(crate) fn change(&mut self, change: Change) {
        self.happened();
        let changing = self.queue.change(change);
        self.changing.push(changing);
        self.poll_changes();
    }

    fn poll_changes(&mut self) {
        let queue = &self.queue;
        self.changing.retain_mut(|changing| !changing.poll(queue));
        let capacity_sectors = self.queue.limits().capacity_sectors;
        self.disk().limits.capacity_sectors = capacity_sectors;
        self.capacity_min = self.capacity_min.min(capacity_sectors);
    }

    /// Orders, all in one turn. What does not find a place waits for a wake.
    pub(crate) fn submit(&mut self, ctx: usize, orders: &[Order]) {
        self.happened();
        self.events += orders.len() as u64;
        let others_wait = !self.waiting[ctx].is_empty();
        self.waiting[ctx].extend(orders.iter().cloned());
        if !others_wait {
            self.place(ctx, false);
        }
    }

    fn place(&mut self, ctx: usize, woken: bool) {
        let mut orders = std::mem::take(&mut self.waiting[ctx]);
        let mut cookie = self.next_cookie;
        let (mut placed, mut refused) = (Vec::new(), Vec::new());
        self.turn(ctx, |turn| {
            if woken {
                turn.run();
            }
            while let Some(order) = orders.front() {
                cookie += 1;
                let mut one = Placed::new(ctx, order.clone(), cookie);
                match turn.submit(one.bio()) {
                    Ok(()) => placed.push(one),
                    Err(Refused::WouldBlock(_)) => break,
                    Err(Refused::Invalid(_, status)) => refused.push((order.clone(), status)),
                }
                orders.pop_front();
            }
        });
        self.next_cookie = cookie;
        self.refused.extend(refused);
        self.waiting[ctx] = orders;
        let store = self.disk().store.clone();
        for placed in placed {
            let of = |sector: u64| store.get(sector as usize).copied().unwrap_or(0);
            let before = placed.order.sectors().map(of).collect();
            let known = self.known.clone();
            self.out.insert(placed.cookie, Out { placed, known, before, lent: false });
        }
        self.look();
    }

    fn came_back(&mut self, ctx: CtxId, done: Done) {
        let out = self.out.remove(&done.cookie);
        let mut out = out.unwrap_or_else(|| panic!("told twice, or never ordered: {done:?}"));
        assert_eq!(usize::from(ctx.0), out.placed.ctx, "told to whoever ordered it");
        if done.memory == Memory::ReturnedLate {
            assert!(out.lent, "memory comes back late that was lent");
            self.late.push(done.cookie);
            return self.note_rest(&out);
        }
        assert!(!out.lent, "answered twice: {done:?}");
        assert!(done.submitted_at <= done.issued_at, "issued before it was submitted");
        self.check(&out, &done);
        self.done.push((out.placed.order.clone(), done));
        if done.memory == Memory::Lent {
            // Of a bio that was cut, another piece may have failed before this one was given up.
            assert!(!done.status.is_ok(), "{done:?} while the device has its memory");
            out.lent = true;
            self.out.insert(done.cookie, out);
        } else {
            self.note_rest(&out);
        }
    }

    /// An order is at rest: what its sectors hold now is what was there before or what it brought.
    fn note_rest(&mut self, out: &Out) {
        let order = &out.placed.order;
        if !order.op.is_write() {
            return;
        }
        let disk = self.queue.driver().state();
        let new = if order.op == Op::Write { value_of(out.placed.cookie) } else { 0 };
        for (sector, before) in order.sectors().zip(&out.before) {
            let Some(value) = disk.store.get(sector as usize) else { continue };
            assert!([new, *before].contains(value), "sector {sector} holds another's: {order:?}");
            self.known[sector as usize] = disk.version[sector as usize];
        }
    }

    fn check(&self, out: &Out, done: &Done) {
        let Placed { order, .. } = &out.placed;
        let disk = self.disk();
        let sectors = order.sectors();
        let is_bad = order.op != Op::Flush && disk.bad.range(sectors.clone()).next().is_some();
        match done.status {
            Status::Ok => assert!(!is_bad, "it touches a bad sector: {order:?}"),
            Status::Medium => assert!(is_bad, "it touches no bad sector: {order:?}"),
            Status::Timeout => {
                let abandoned = disk.abandoned.iter().any(|range| overlap(range, &sectors));
                let flushes = order.op == Op::Flush || order.flags.contains(Flags::PREFLUSH);
                let is_aside = order.op.is_passthrough();
                assert!(abandoned || flushes || is_aside, "it was in time: {order:?}");
            }
            Status::NoSpc | Status::Inval => {
                assert!(sectors.end > self.capacity_min, "{done:?}: {order:?}");
            }
            status => assert!(self.flush_failed(disk.now), "{status:?} of {order:?}"),
        }
        if done.status.is_ok() {
            check_data(out, &disk);
        }
    }

    /// Serves something that waits to be served; `pick` chooses. Answers whether there was any.
    pub(crate) fn serve(&mut self, mut pick: impl FnMut(usize) -> usize) -> bool {
        let kicks: Vec<CtxId> = self.env.asked().kicks.iter().copied().collect();
        let reaps: Vec<usize> =
            (0..self.cpus.len()).filter(|ctx| self.disk().has_finished(*ctx)).collect();
        let wakes: Vec<usize> = (0..self.cpus.len())
            .filter(|ctx| !self.waiting[*ctx].is_empty() && self.cpus[*ctx].take_woken())
            .collect();
        // Who was woken is served at once, for the mark has been taken.
        for ctx in &wakes {
            self.place(*ctx, true);
        }
        let owed = self.disk().has_owed();
        let all = kicks.len() + reaps.len() + usize::from(owed);
        if all == 0 {
            return !wakes.is_empty();
        }
        let chosen = pick(all);
        if let Some(ctx) = kicks.get(chosen) {
            self.env.asked().kicks.remove(ctx);
            self.turn(usize::from(ctx.0), |turn| turn.run());
        } else if let Some(ctx) = reaps.get(chosen - kicks.len()) {
            self.turn(*ctx, |turn| turn.reap());
        } else {
            self.happened();
            let owed = self.disk().take_owed();
            owed.into_iter().for_each(|hctx| self.queue.kick(hctx));
        }
        self.look();
        true
    }

    /// Serves all there is, without time passing and without the disk ending anything.
    pub(crate) fn serve_all(&mut self) {
        while self.serve(|_| 0) {}
    }

    /// Has the disk end one of those that it works on; `pick` chooses.
    pub(crate) fn finish(&mut self, pick: impl FnOnce(usize) -> usize) -> bool {
        let at_work = self.disk().at_work();
        if at_work.is_empty() {
            return false;
        }
        self.happened();
        let index = at_work[pick(at_work.len())];
        self.disk().finish(index);
        true
    }

    /// Has the disk end all that it works on, and whatever follows from it, without time passing.
    pub(crate) fn finish_all(&mut self) {
        self.serve_all();
        while self.finish(|_| 0) {
            self.serve_all();
        }
    }

    /// Lets time pass to the next wish, and fulfils it. Answers whether there was one.
    pub(crate) fn fire(&mut self) -> bool {
        let Some((ctx, why, at)) = self.env.asked().take_wish() else { return false };
        self.happened();
        let now = self.now().max(at);
        self.disk().now = now;
        self.turn(usize::from(ctx.0), |turn| turn.timer(why));
        self.look();
        true
    }

    /// Runs until nothing is left to do, and checks that nothing is left undone.
    pub(crate) fn rest(&mut self) {
        loop {
            self.finish_all();
            if self.fire() {
                continue;
            }
            // Whatever it forgot comes back now.
            let lost = self.disk().in_flight.len();
            if lost == 0 {
                break;
            }
            self.happened();
            self.disk().finish(lost - 1);
        }
        let dump = self.queue.dump(self.now());
        assert_eq!(
            self.queue.held(),
            Held { requests: 0, in_flight: 0, budget: 0, dispatch: 0 },
            "{dump:?}"
        );
        assert!(self.out.is_empty(), "stranded: {:?}", self.out.keys());
        assert!(self.waiting.iter().all(VecDeque::is_empty), "never woken: {:?}", self.waiting);
        assert!(self.cpus.iter().all(|cpu| cpu.nr_waiting() == 0 && !cpu.must_poll()));
        assert!(self.changing.is_empty(), "a change was not told that it can be made");
        assert_eq!((dump.defects, dump.abandoned), (0, 0));
        assert!(dump.waiting.is_empty(), "{dump:?}");
        assert!(dump.software.iter().all(|software| software.waiting == 0), "{dump:?}");
        assert!(dump.tenants.iter().all(|tenant| tenant.used == 0), "{dump:?}");
        self.check_asked();
        self.check_figures(dump.tenants.len());
    }

    /// No herd was woken, and no timer was asked for without a reason.
    fn check_asked(&self) {
        let asked = self.env.asked();
        let bound = KICKS_AN_EVENT_MAX * (self.events + 1);
        assert!(asked.nr_kicks <= bound, "{} kicks for {} events", asked.nr_kicks, self.events);
        assert_eq!(asked.nr_wishes(Wish::BudgetRerun), 0, "a timer nobody asked for");
    }

    /// What the accounts say is what was done.
    fn check_figures(&self, nr_tenants: usize) {
        let disk = self.queue.figures_of_disk();
        let counters = |of: fn(&blkmq_core::Counters) -> u64| -> u64 {
            self.cpus.iter().map(|cpu| of(cpu.counters())).sum()
        };
        let sum =
            |of: fn(&blkmq_core::KindFigures) -> u64| -> u64 { disk.kinds.iter().map(of).sum() };
        assert_eq!(disk.in_flight, 0);
        assert_eq!(sum(|kind| kind.ios), counters(|c| c.completed), "each end counts once");
        assert_eq!(counters(|c| c.submitted), counters(|c| c.completed));
        assert_eq!(sum(|kind| kind.merges), counters(|c| c.merged));
        if self.capacity_min == self.known.len() as u64 && !self.flush_failed(self.now()) {
            let sectors: u64 = self.done.iter().map(|(order, _)| u64::from(order.nr_sectors)).sum();
            assert_eq!(sum(|kind| kind.sectors), sectors, "each sector counts once");
        }
        let mut tenants = blkmq_core::Figures::default();
        for tenant in 0..nr_tenants {
            tenants.add(&self.queue.figures_of_tenant(TenantId(tenant as u32)));
        }
        assert_eq!(tenants, disk, "a disk's figures are those of its tenants");
    }

    /// How the orders ended, by their first sectors.
    pub(crate) fn endings(&self) -> Vec<(u64, Status)> {
        self.done.iter().map(|(order, done)| (order.sector, done.status)).collect()
    }
}

/// What was done is done: the data are there, and durable if that was asked for.
fn check_data(out: &Out, disk: &State) {
    let Out { placed, known, .. } = out;
    let order = &placed.order;
    let places = order.sector as usize..order.sectors().end as usize;
    match order.op {
        Op::Read => assert_eq!(placed.values(), disk.store[places.clone()], "{order:?}"),
        Op::Write => {
            let expected = value_of(placed.cookie);
            let written = &disk.store[places.clone()];
            assert!(written.iter().all(|value| *value == expected), "{order:?}: {written:?}");
        }
        Op::WriteZeroes | Op::Discard => {
            assert!(disk.store[places.clone()].iter().all(|v| *v == 0))
        }
        Op::Flush | Op::DrvIn | Op::DrvOut => {}
    }
    if order.flags.contains(Flags::FUA) {
        for sector in places {
            assert_eq!(disk.durable[sector], disk.version[sector], "sector {sector} of {order:?}");
        }
    }
    if order.op == Op::Flush || order.flags.contains(Flags::PREFLUSH) {
        for (sector, (durable, known)) in disk.durable.iter().zip(known).enumerate() {
            assert!(durable >= known, "sector {sector} was written before {order:?}");
        }
    }
}
