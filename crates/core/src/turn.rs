//! A turn: what one thread does at a queue in one go, and the end of it, where every kick that is
//! owed is given.

use std::sync::Arc;
use std::time::Duration;
use std::vec;

use crate::admission::Wanted;
use crate::bio::TenantId;
use crate::budget::{BUDGET_DELAY, Budget, BudgetMode, Waiter};
use crate::control::Pass;
use crate::cpu::{Cpu, Side};
use crate::driver::{Driver, Env, Wish};
use crate::hardware::{Flight, HardwareQueue};
use crate::ids::{CtxId, HctxId};
use crate::lane::{Lane, Lanes};
use crate::live::Live;
use crate::queue::Queue;
use crate::request::{Body, Done, Grant};
use crate::sync::{Omission, SeqCst, fence, is_unwinding};
use crate::time::Time;

/// How often a turn runs its hardware queues before it asks to be called again, so that no thread
/// works for others for ever.
const PASSES_MAX: u32 = 8;

/// One thread's turn at a queue.
///
/// What is submitted in a turn is plugged: it goes to the device as one batch when the turn ends.
/// The turn ends when it is dropped.
pub struct Turn<'a, D: Driver, E: Env> {
    pub(crate) queue: &'a Queue<D, E>,
    pub(crate) live: &'a Live,
    /// Nothing while the driver is asked what it has finished.
    pub(crate) ring: Option<&'a mut D::Ring>,
    pub(crate) cpu: &'a mut Side,
    /// The default hardware queue of this thread, that of its first lane.
    pub(crate) home: &'a HardwareQueue,
    pub(crate) now: Time,
    pub(crate) pass: Pass,
    /// What the flight table says of a request that is issued in this turn.
    pub(crate) flight_mark: u64,
    /// Something came back, or a kick came in, since the marks were last looked at.
    pub(crate) came_back: bool,
    /// Of that, budget that was taken in vain.
    pub(crate) in_vain: bool,
    /// Of that, requests that ended.
    pub(crate) ended: bool,
    /// Those who wait to get in are to try again.
    pub(crate) admit_due: bool,
    /// A time that the scheduler named has come.
    pub(crate) timer_came: bool,
    /// The device has not been told of everything.
    pub(crate) uncommitted: bool,
    /// A request was issued.
    pub(crate) issued: bool,
}

impl<'a, D: Driver, E: Env> Turn<'a, D, E> {
    #[inline]
    pub(crate) fn new(queue: &'a Queue<D, E>, cpu: &'a mut Cpu<D>, now: Time) -> Self {
        let pass = queue.control.enter(cpu.side.ctx);
        if pass.is_stale() {
            refresh(queue, cpu);
        }
        let Cpu { live, ring, side } = cpu;
        side.turn += 1;
        for lane in side.lanes.iter_mut() {
            (lane.busy, lane.rests_on_tag) = (false, false);
        }
        let timeout_ns = queue.timeout_ns();
        let ends_at = Time::from_ns(now.as_ns().saturating_add(timeout_ns));
        Turn {
            queue,
            live,
            now,
            pass,
            flight_mark: Flight::mark(ends_at, side.ctx),
            ring: Some(ring),
            home: queue.hctx(side.lanes[0].hctx),
            cpu: side,
            came_back: false,
            in_vain: false,
            ended: false,
            admit_due: false,
            timer_came: false,
            uncommitted: false,
            issued: false,
        }
    }

    /// The hardware queue was kicked, or there may be room for who waits to get in.
    pub fn run(&mut self) {
        self.end_lost();
        self.run_lanes();
        self.admit_due = true;
        // A kick that finds nothing to do is passed on to the next who waits.
        self.came_back = true;
    }

    /// The time of a wish has come.
    pub fn timer(&mut self, why: Wish) {
        match why {
            Wish::SchedulerIdle => self.timer_came = true,
            Wish::Limit => self.cpu.limit_wish = Time::ZERO,
            Wish::Timeout => self.look_at_timeouts(),
            Wish::DriverRetry | Wish::BudgetRerun => {}
        }
        self.run();
    }

    /// The bios of this submitter that have ended in its turns; see [`Cpu::take_done`].
    pub fn take_done(&mut self) -> vec::Drain<'_, Done> {
        self.cpu.done.drain(..)
    }

    /// The time of this turn.
    pub fn now(&self) -> Time {
        self.now
    }

    pub(crate) fn tell(&mut self, ctx: CtxId, done: Done) {
        if ctx == self.cpu.ctx {
            self.cpu.done.push(done);
        } else {
            self.queue.env.deliver(ctx, done);
        }
    }

    /// Has a hardware queue run: here if it is one of ours, else by its thread.
    pub(crate) fn kick(&mut self, hctx: HctxId) {
        if let Some(lane) = self.cpu.lanes.of_hctx(hctx) {
            self.cpu.lanes[lane].due = true;
        } else {
            self.kick_thread(self.live.maps.thread(hctx));
        }
    }

    pub(crate) fn kick_thread(&mut self, ctx: CtxId) {
        self.cpu.counters.kicks += 1;
        self.queue.env.kick(ctx);
    }

    /// Puts the memory of a request back, and with it the scheduler tag: into the stash,
    /// from which it is taken again or given back before the turn ends.
    #[inline(always)]
    pub(crate) fn put_body(&mut self, body: Box<Body>) {
        self.cpu.stash.push(body);
    }

    /// Gives back the scheduler tags at hand, and notes what each tenant's requests hold.
    pub(crate) fn give_back_tags(&mut self) {
        self.close();
        if !self.cpu.stash.is_empty() {
            self.live.pool.put_all(&mut self.cpu.stash);
            self.came_back = true;
        }
        while let Some(tenant) = self.cpu.touched.pop() {
            self.charge_limits(TenantId(tenant));
            let side = &mut self.cpu.tenants[tenant as usize];
            if side.more != 0 {
                self.came_back |= side.more < 0;
                self.queue.tenants.change_used(TenantId(tenant), side.more);
            }
            // What is known of it is no longer so.
            side.turn = 0;
        }
    }

    /// Gives back the driver tags and the budget at hand.
    pub(crate) fn empty_purses(&mut self) {
        for lane in self.cpu.lanes.iter_mut() {
            if !lane.purse.tags.is_empty() {
                self.queue.hctx(lane.hctx).put_tags(lane.purse.tags.drain(..));
                lane.rests_on_tag = false;
                self.came_back = true;
            }
            if let (Some(budget), 1..) = (&self.queue.budget, lane.purse.tokens.count()) {
                budget.put(&mut lane.purse.tokens);
                self.came_back = true;
            }
        }
    }

    fn run_lanes(&mut self) {
        self.cpu.lanes.iter_mut().for_each(|lane| lane.due = true);
    }

    /// Puts back what a request of another hardware queue than the default one has held.
    #[cold]
    pub(crate) fn put_grant_elsewhere(&mut self, grant: Grant) {
        let hctx = self.queue.hctx(grant.hctx);
        hctx.land(grant.tag.index());
        if let Some(lane) = self.cpu.lanes.of_hctx(grant.hctx) {
            return self.cpu.lanes[lane].purse.put(grant);
        }
        hctx.put_tag(grant.tag);
        if let Some(token) = grant.token {
            self.cpu.lanes[0].purse.tokens.add(token);
        }
        // The end of the turn looks at our own hardware queues' marks; this is another's (T1).
        fence(SeqCst);
        if hctx.take_restart() {
            self.kick_thread(self.live.maps.thread(grant.hctx));
        }
    }

    /// Units of the budget that came with a kick are at hand. Called when the lane is about to be
    /// run, and not before: until then they are not to be handed on.
    #[inline]
    pub(crate) fn take_given(&mut self, lane: usize) {
        if let Some(budget) = &self.queue.budget {
            let lane = &mut self.cpu.lanes[lane];
            lane.purse.tokens.join(budget.take_given(lane.hctx));
        }
    }

    /// The end of the turn.
    fn end(&mut self) {
        if self.pass.is_quiesced() {
            return self.end_quiesced();
        }
        let mut passes = 0;
        loop {
            if self.others_wait() {
                // Those who wait come before what this turn would take again.
                self.hand_back();
            }
            if self.admit_due {
                self.admit_due = false;
                self.admit();
            }
            if self.is_due() && passes < PASSES_MAX {
                self.dispatch();
                passes += 1;
                if self.is_due() {
                    continue;
                }
            }
            self.hand_back();
            if !(self.is_due() || self.admit_due) || passes >= PASSES_MAX {
                break;
            }
        }
        self.commit();
        if self.is_due() || self.admit_due || self.came_back {
            self.queue.env.kick(self.cpu.ctx);
        }
        let is_empty = self.cpu.lanes.iter().all(|lane| lane.plug.is_empty());
        assert!(is_empty, "what was submitted has been sent or published");
        assert!(self.cpu.batch.is_empty(), "what the scheduler gave has been sent");
    }

    /// The end of a turn in which nothing may be sent. Whoever takes the quiesce back kicks every
    /// thread, so nothing is owed but what others wait for.
    fn end_quiesced(&mut self) {
        if self.admit_due {
            self.admit_due = false;
            self.admit();
        }
        self.publish_plugs();
        (0..self.cpu.lanes.len()).for_each(|lane| self.take_given(lane));
        self.hand_back();
        self.commit();
        self.cpu.lanes.iter_mut().for_each(|lane| lane.due = false);
    }

    fn commit(&mut self) {
        self.settle_accounts();
        assert!(self.cpu.touched.is_empty(), "what each tenant holds has been noted");
        let waiting = &self.queue.waiting[usize::from(self.cpu.ctx.0)];
        if !self.cpu.entries.is_empty() || waiting.get() != 0 {
            waiting.set(self.cpu.entries.len() as u64);
        }
        if self.uncommitted {
            let ring = self.ring.as_deref_mut().expect("the turn has its ring back");
            self.queue.driver.commit_rqs(ring);
        }
        if self.issued {
            self.wish_for_timeouts();
        }
    }

    fn is_due(&self) -> bool {
        !self.cpu.completions.is_empty() || self.cpu.lanes.iter().any(|lane| lane.due)
    }

    /// Whether somebody is marked for what this turn has at hand, or for what is free now that a
    /// kick has come, as far as can be seen without a fence.
    fn others_wait(&self) -> bool {
        let Queue { tenants, budget, .. } = self.queue;
        let kicked = self.came_back;
        let for_purse = |lane: &Lane| {
            let has_tokens = kicked || lane.purse.tokens.count() > 0;
            has_tokens && budget.as_ref().is_some_and(Budget::has_waiters)
                || !lane.purse.tags.is_empty() && self.queue.hctx(lane.hctx).is_marked()
        };
        (kicked || !self.cpu.stash.is_empty()) && tenants.has_waiters()
            || self.cpu.lanes.iter().any(for_purse)
    }

    /// Gives everything at hand back, and if anything came back looks at the marks.
    fn hand_back(&mut self) {
        self.give_back_tags();
        self.empty_purses();
        if self.came_back {
            self.settle();
        }
    }

    /// Looks at the marks of all who may wait for what came back.
    fn settle(&mut self) {
        self.came_back = false;
        // Pairs T1, B1 and E1, the holder's side: tags, budget and requests are back before the
        // marks of those who wait for them are looked at.
        fence(SeqCst);
        for lane in self.cpu.lanes.iter_mut() {
            // Where the device was busy, or a tag is short, the mark is our own, left for the
            // restarter.
            let is_ours = lane.busy || lane.rests_on_tag;
            if !is_ours && self.queue.hctx(lane.hctx).take_restart() {
                lane.due = true;
            }
        }
        self.hand_on_budget();
        self.wake_submitters();
        self.in_vain = false;
        self.ended = false;
    }

    fn hand_on_budget(&mut self) {
        let queue = self.queue;
        let Some(budget) = &queue.budget else { return };
        if self.pass.is_quiesced() {
            // Nobody could use it. After the quiesce everybody is kicked.
            return;
        }
        let is_busy = self.cpu.lanes.iter().any(|lane| lane.busy);
        match budget.mode() {
            // A busy device does not hand on: its restarter does.
            BudgetMode::Handoff if is_busy => return,
            BudgetMode::Handoff => {}
            BudgetMode::Delayed if self.in_vain => {
                self.rerun_all_after(BUDGET_DELAY);
            }
            BudgetMode::Delayed | BudgetMode::None => {}
        }
        if budget.mode() == BudgetMode::Handoff || self.ended {
            let own = self.cpu.lanes[0].hctx;
            budget.pass_on(own, |who| match who {
                Waiter::Hctx(hctx) => {
                    self.kick(hctx);
                    self.came_back |= self.cpu.lanes.of_hctx(hctx).is_some();
                }
                // Any hardware queue can send what the scheduler holds; this one is at hand. As
                // with a kick, a run that finds nothing to do is passed on.
                Waiter::Scheduler => {
                    self.cpu.lanes[0].due = true;
                    self.came_back = true;
                }
            });
        }
    }

    fn rerun_all_after(&self, delay: Duration) {
        for ctx in 0..self.queue.nr_ctx() {
            self.queue.env.run_at(CtxId(ctx), self.now + delay, Wish::BudgetRerun);
        }
    }

    /// Wakes one submitter for each free request.
    fn wake_submitters(&mut self) {
        let tenants = &self.queue.tenants;
        if !tenants.has_waiters() || self.pass.is_frozen() {
            return;
        }
        let tags = self.live.pool.tags();
        let free = tags.depth() - tags.used().min(tags.depth());
        let own = self.cpu.ctx;
        let (mut kicks, mut is_own) = (0, false);
        let (nr_requests, from) = (self.live.nr_requests, self.cpu.turn as usize);
        let mut wake = |ctx| {
            if ctx == own {
                is_own = true;
            } else {
                kicks += 1;
                self.queue.env.kick(ctx);
            }
        };
        tenants.wake(Wanted::Any, free, nr_requests, from, &mut wake);
        let depth = self.live.async_depth;
        if depth.is_none_or(|depth| tags.has_free_shallow(depth)) {
            tenants.wake(Wanted::Async, free, nr_requests, from, &mut wake);
        }
        if is_own {
            // A wake that is not used, because the mark was an old one, is passed on.
            (self.admit_due, self.came_back) = (true, true);
        }
        self.cpu.counters.kicks += kicks;
    }

    /// Whether a freeze waits for nothing any more but this turn's end.
    fn is_last_of_freeze(&self) -> bool {
        self.pass.is_frozen() && self.live.pool.tags().is_idle()
    }
}

/// Looks at the queue anew, because something of it was made anew.
#[cold]
fn refresh<D: Driver, E: Env>(queue: &Queue<D, E>, cpu: &mut Cpu<D>) {
    queue.control.refreshed(cpu.side.ctx);
    let live = queue.live();
    let is_same = |a: &Option<Arc<_>>, b: &Option<Arc<_>>| match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (a, b) => a.is_none() && b.is_none(),
    };
    if !is_same(&live.elevator, &cpu.live.elevator) {
        // The scheduler they were for has gone.
        cpu.side.completions.clear();
    }
    if live.maps != cpu.live.maps || live.elevator.is_some() != cpu.live.elevator.is_some() {
        assert!(cpu.side.lanes.are_idle(), "a lane that goes holds nothing");
        cpu.side.lanes = Lanes::new(cpu.side.ctx, &live);
    }
    cpu.live = live;
}

impl<D: Driver, E: Env> Drop for Turn<'_, D, E> {
    fn drop(&mut self) {
        // A panicking thread does not begin new work; its panic is what matters now.
        if is_unwinding() {
            return;
        }
        self.end();
        let is_last = self.is_last_of_freeze();
        let is_waited_for = self.queue.control.leave(self.cpu.ctx) || is_last;
        if is_waited_for && !Omission::Settled.is_made() {
            self.queue.env.settled();
        }
    }
}
