//! A turn: what one thread does at a queue in one go, and the end of it, where every kick that is
//! owed is given.

use std::time::Duration;

use crate::bio::{Bio, Op, TenantId};
use crate::budget::{BUDGET_DELAY, BudgetMode, Waiter};
use crate::cpu::{BATCH, Cpu};
use crate::driver::{Driver, Env, Wish};
use crate::elevator::Completion;
use crate::ids::{CtxId, HctxId};
use crate::queue::Queue;
use crate::request::{Body, Done, Grant, InFlight, Origin, Request};
use crate::status::Status;
use crate::sync::{SeqCst, fence, is_unwinding};
use crate::time::Time;

/// How often a turn runs its hardware queue before it asks to be called again, so that no thread
/// works for others for ever.
const PASSES_MAX: u32 = 8;

/// Why a bio was not taken in. It comes back unharmed.
#[derive(Debug)]
pub enum Refused {
    /// All requests are out. [`crate::Env::wake`] will say when to try again.
    WouldBlock(Bio),
    /// The device cannot do it, for this reason.
    Invalid(Bio, Status),
}

/// One thread's turn at a queue.
///
/// What is submitted in a turn is plugged: it goes to the device as one batch when the turn ends.
/// The turn ends when it is dropped.
pub struct Turn<'a, D: Driver, E: Env> {
    pub(crate) queue: &'a Queue<D, E>,
    pub(crate) cpu: &'a mut Cpu<D>,
    pub(crate) now: Time,
    /// The hardware queue has to be run.
    pub(crate) due: bool,
    /// Something came back, or a kick came in, since the marks were last looked at.
    pub(crate) came_back: bool,
    /// Of that, budget that was taken in vain.
    pub(crate) in_vain: bool,
    /// Of that, requests that ended.
    ended: bool,
    /// The last run ended at a busy answer, whose restarter sees to the rest.
    pub(crate) busy: bool,
    /// The last try to get a tag left a mark, and we have put no tag back since: the mark is for
    /// whoever does.
    pub(crate) rests_on_tag: bool,
    /// A time that the scheduler named has come.
    pub(crate) timer_came: bool,
    /// The device has not been told of everything.
    pub(crate) uncommitted: bool,
}

impl<'a, D: Driver, E: Env> Turn<'a, D, E> {
    pub(crate) fn new(queue: &'a Queue<D, E>, cpu: &'a mut Cpu<D>, now: Time) -> Self {
        Turn {
            queue,
            cpu,
            now,
            due: false,
            came_back: false,
            in_vain: false,
            ended: false,
            busy: false,
            rests_on_tag: false,
            timer_came: false,
            uncommitted: false,
        }
    }

    /// Takes a bio in, or says why not. Never sleeps.
    pub fn submit(&mut self, bio: Bio) -> Result<(), Refused> {
        if let Err(status) = self.queue.limits.check(&bio) {
            return Err(Refused::Invalid(bio, status));
        }
        let Some(body) = self.enter() else { return Err(Refused::WouldBlock(bio)) };
        let origin = Origin {
            ctx: self.cpu.ctx,
            tenant: TenantId(0),
            submitted_at: self.now,
            entered_at: self.now,
        };
        let request = Request::start(body, bio, origin);
        self.cpu.counters.submitted += 1;
        self.due = true;
        if request.op == Op::Flush && self.queue.elevator.is_some() {
            // A flush has no place on the disk to be sorted by, and a scheduler has nothing to say
            // about it.
            self.queue.hctx(self.cpu.hctx).push_dispatch(request);
        } else {
            self.cpu.plug.push_back(request);
        }
        Ok(())
    }

    /// Asks the device what it has finished, and ends all of it: at most as many as were in flight.
    pub fn reap(&mut self) {
        loop {
            let mut reaped = std::mem::take(&mut self.cpu.reaped);
            assert!(reaped.is_empty(), "what was reaped before has been ended");
            self.queue.driver.reap(&mut self.cpu.ring, &mut reaped);
            let full = reaped.len() >= BATCH;
            for (request, status) in reaped.drain(..) {
                self.complete(request, status);
            }
            self.cpu.reaped = reaped;
            if !full {
                return;
            }
        }
    }

    /// Ends a request that the device has finished.
    pub fn complete(&mut self, request: InFlight, status: Status) {
        let InFlight(mut request) = request;
        self.give_back(&mut request);
        self.finish(request, status);
    }

    /// Takes back a request that the device has started and that has to be tried again. It goes
    /// before others; one that the driver had not prepared goes through the scheduler again.
    pub fn requeue(&mut self, request: InFlight) {
        let InFlight(mut request) = request;
        self.give_back(&mut request);
        let body = request.body();
        if body.scheduled && !body.prepared {
            self.cpu.returned.push(request);
        } else {
            self.queue.hctx(self.cpu.hctx).push_dispatch_front(std::iter::once(request));
        }
        self.due = true;
    }

    /// The hardware queue was kicked, or the submitter woken.
    pub fn run(&mut self) {
        self.end_lost();
        self.due = true;
        // A kick that finds nothing to do is passed on to the next who waits.
        self.came_back = true;
    }

    /// The time of a wish has come.
    pub fn timer(&mut self, why: Wish) {
        self.timer_came |= why == Wish::SchedulerIdle;
        self.run();
    }

    /// The time of this turn.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Gets the memory of a request. If there is none the submitter is marked, and whoever ends a
    /// request wakes it.
    fn enter(&mut self) -> Option<Box<Body>> {
        let pool = &self.queue.pool;
        let hint = &mut self.cpu.pool_hint;
        pool.get(hint).or_else(|| {
            self.queue.entry.set(usize::from(self.cpu.ctx.0));
            // Pair E1, the waiter's side: the mark is published before the pool is looked at again.
            // The other side is the fence in `settle`.
            fence(SeqCst);
            pool.get(hint)
        })
    }

    /// Puts back the tag and the budget of a request, in this order.
    pub(crate) fn give_back(&mut self, request: &mut Request) {
        let grant = request.body_mut().grant.take().expect("a request in flight holds its grant");
        self.put_grant(grant);
    }

    pub(crate) fn put_grant(&mut self, grant: Grant) {
        let Grant { hctx, token, tag } = grant;
        self.queue.hctx(hctx).put_tag(tag);
        if let (Some(budget), Some(token)) = (&self.queue.budget, token) {
            budget.put(token);
        }
        self.came_back = true;
        if hctx == self.cpu.hctx {
            self.rests_on_tag = false;
        } else {
            // The end of the turn looks at our own hardware queue's mark; this is another's (T1).
            fence(SeqCst);
            if self.queue.hctx(hctx).take_restart() {
                self.kick(hctx);
            }
        }
    }

    /// Ends a request that holds nothing any more: the scheduler is told, the memory goes back to
    /// its place, and then the submitter is told.
    pub(crate) fn finish(&mut self, mut request: Request, status: Status) {
        let body = request.body_mut();
        if body.scheduled {
            body.scheduled = false;
            self.cpu.completions.push(Completion {
                data: body.scheduler_data,
                op: body.bio.op,
                class: body.bio.prio.class,
                tenant: body.tenant,
                nr_sectors: body.bio.nr_sectors,
                issued_at: body.issued_at,
            });
        }
        body.bio.segments.clear();
        let ctx = body.ctx;
        let done = Done {
            cookie: body.bio.cookie,
            status,
            issued_at: body.issued_at,
            submitted_at: body.submitted_at,
        };
        self.queue.pool.put(request);
        self.came_back = true;
        self.ended = true;
        self.cpu.counters.completed += 1;
        self.tell(ctx, done);
    }

    fn tell(&mut self, ctx: CtxId, done: Done) {
        if ctx == self.cpu.ctx {
            self.cpu.done.push_back(done);
        } else {
            self.queue.env.deliver(ctx, done);
        }
    }

    pub(crate) fn kick(&mut self, hctx: HctxId) {
        if hctx == self.cpu.hctx {
            self.due = true;
        } else {
            self.cpu.counters.kicks += 1;
            self.queue.env.kick(hctx);
        }
    }

    /// The end of the turn.
    fn end(&mut self) {
        let mut passes = 0;
        while self.is_owed() && passes < PASSES_MAX {
            if self.due || !self.cpu.completions.is_empty() {
                self.dispatch();
            }
            if self.came_back {
                self.settle();
            }
            passes += 1;
        }
        if self.uncommitted {
            self.queue.driver.commit_rqs(&mut self.cpu.ring);
        }
        if self.is_owed() {
            self.queue.env.kick(self.cpu.hctx);
        }
        assert!(self.cpu.plug.is_empty(), "what was submitted has been sent or published");
        assert!(self.cpu.batch.is_empty(), "what the scheduler gave has been sent");
    }

    fn is_owed(&self) -> bool {
        self.due || self.came_back || !self.cpu.completions.is_empty()
    }

    /// Ends what somebody dropped. A kick comes with it, so it is looked for in kicked turns alone.
    fn end_lost(&mut self) {
        for mut request in self.queue.lost.take() {
            if request.body().grant.is_some() {
                self.give_back(&mut request);
            }
            self.finish(request, Status::IoErr);
        }
    }

    /// Looks at the marks of all who may wait for what came back.
    fn settle(&mut self) {
        self.came_back = false;
        // Pairs T1, B1 and E1, the holder's side: tags, budget and requests are back before the
        // marks of those who wait for them are looked at.
        fence(SeqCst);
        // Where the device was busy, or a tag is short, the mark is our own, left for the
        // restarter.
        if !self.busy && !self.rests_on_tag && self.queue.hctx(self.cpu.hctx).take_restart() {
            self.due = true;
        }
        self.hand_on_budget();
        self.wake_submitters();
        self.in_vain = false;
        self.ended = false;
    }

    fn hand_on_budget(&mut self) {
        let queue = self.queue;
        let Some(budget) = &queue.budget else { return };
        match budget.mode() {
            // A busy device does not hand on: its restarter does.
            BudgetMode::Handoff if self.busy => return,
            BudgetMode::Handoff => {}
            BudgetMode::Delayed if self.in_vain => {
                self.rerun_all_after(BUDGET_DELAY);
            }
            BudgetMode::Delayed | BudgetMode::None => {}
        }
        if budget.mode() == BudgetMode::Handoff || self.ended {
            let own = self.cpu.hctx;
            budget.pass_on(own, |who| match who {
                Waiter::Hctx(hctx) if hctx != own => self.kick(hctx),
                // Any hardware queue can send what the scheduler holds; this one is at hand. As
                // with a kick, a run that finds nothing to do is passed on.
                Waiter::Hctx(_) | Waiter::Scheduler => (self.due, self.came_back) = (true, true),
            });
        }
    }

    fn rerun_all_after(&self, delay: Duration) {
        for hctx in 0..self.queue.nr_hw_queues() {
            self.queue.env.run_at(CtxId(hctx), self.now + delay, Wish::BudgetRerun);
        }
    }

    /// Wakes one submitter for each free request.
    fn wake_submitters(&mut self) {
        let entry = &self.queue.entry;
        if entry.is_empty() {
            return;
        }
        let tags = self.queue.pool.tags();
        for _ in tags.used()..tags.depth() {
            match entry.take_from(usize::from(self.cpu.ctx.0) + 1) {
                None => return,
                Some(ctx) if ctx == usize::from(self.cpu.ctx.0) => self.cpu.woken = true,
                Some(ctx) => self.queue.env.wake(CtxId(ctx as u16)),
            }
        }
    }
}

impl<D: Driver, E: Env> Drop for Turn<'_, D, E> {
    fn drop(&mut self) {
        // A panicking thread does not begin new work; its panic is what matters now.
        if !is_unwinding() {
            self.end();
        }
    }
}
