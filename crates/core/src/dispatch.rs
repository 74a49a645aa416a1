//! The way from the dispatch list, the scheduler or the software queues to the driver: the seed's
//! room.
//!
//! Every request takes the same way. First a unit of the budget, then a driver tag, and only then
//! is a request looked for. So a request stays where it is until it can go; nothing is ever held in
//! private while it waits for budget or tag, which is how Linux came to lose requests (commits
//! ab3cee3762e5, 9ba52e5812e5). The price is the seed's: a unit may be taken and no request found,
//! because another thread was quicker. Such a unit goes back, and the end of the turn hands it on.

use crate::bio::Flags;
use crate::budget::Waiter;
use crate::cpu::BATCH;
use crate::driver::{Driver, Env, QueueRq, Restarter, Wish};
use crate::enter::kind_of;
use crate::hold::Holds;
use crate::live::Live;
use crate::request::{Grant, InFlight, Request};
use crate::stats::Hold;
use crate::status::Status;
use crate::time::Time;
use crate::turn::Turn;

/// Whether the device takes more.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Device {
    Ready,
    /// It does not, or there is no budget or tag. Somebody named will run this hardware queue
    /// again.
    Blocked,
}

impl<D: Driver, E: Env> Turn<'_, D, E> {
    /// One pass: sends whatever can go on this thread's hardware queues.
    pub(crate) fn dispatch(&mut self) {
        let live = self.live;
        self.cpu.counters.passes += 1;
        let mut run = false;
        for lane in 0..self.cpu.lanes.len() {
            let side = &mut self.cpu.lanes[lane];
            if std::mem::take(&mut side.busy) {
                // The marks were passed over because the device was busy. It is asked again, so
                // they are looked at again.
                self.came_back = true;
            }
            let is_due = std::mem::take(&mut side.due);
            run |= is_due;
            let hctx = self.queue.hctx(side.hctx);
            self.take_given(lane);
            if hctx.is_stopped() {
                // Whoever starts it kicks it.
                self.publish(lane);
                continue;
            }
            let device = if is_due || hctx.has_dispatch() {
                self.dispatch_refused(lane)
            } else {
                Device::Ready
            };
            match &live.elevator {
                Some(_) if lane > 0 => {}
                Some(elevator) => self.dispatch_scheduler(elevator, run, device),
                None => self.dispatch_software(lane, device),
            }
        }
    }

    /// Sends what is in the dispatch list.
    fn dispatch_refused(&mut self, lane: usize) -> Device {
        let id = self.cpu.lanes[lane].hctx;
        let hctx = self.queue.hctx(id);
        while hctx.has_dispatch() {
            let Some(grant) = self.acquire(lane, Waiter::Hctx(id), 1) else {
                return Device::Blocked;
            };
            let Some(request) = hctx.pop_dispatch() else {
                self.release(grant);
                return Device::Ready;
            };
            if self.issue(lane, request, grant) == Device::Blocked {
                return Device::Blocked;
            }
        }
        Device::Ready
    }

    /// Scheduler `none`: sends what the software queues of this hardware queue hold, and then what
    /// was submitted in this turn, without publishing it if it can go at once.
    fn dispatch_software(&mut self, lane: usize, mut device: Device) {
        let id = self.cpu.lanes[lane].hctx;
        let ctx_map = &self.queue.hctx(id).ctx_map;
        // What was published earlier goes first.
        if device == Device::Ready && !self.cpu.lanes[lane].plug.is_empty() && ctx_map.is_empty() {
            device = self.issue_plugged(lane);
            if device == Device::Ready && self.cpu.lanes[lane].plug.is_empty() {
                // Nothing was published when this pass began, and who publishes since then runs
                // this hardware queue too.
                return;
            }
        }
        self.publish(lane);
        let mut next = if device == Device::Ready { self.next_published(lane) } else { None };
        while let Some(ctx) = next {
            // A device that was busy lately gets one request at a time, so that the rest stays
            // where it can be merged and comes round; else it gets them in bulk.
            let is_busy = self.queue.hctx(id).dispatch_busy() > 0;
            let wanted = if is_busy { 1 } else { BATCH as u32 };
            let Some(grant) = self.acquire(lane, Waiter::Hctx(id), wanted) else { return };
            let Some((request, was_last)) = self.take_published(lane, ctx) else {
                // The seed's moment: we hold a unit, and other threads took all the requests.
                self.release(grant);
                return;
            };
            if self.issue(lane, request, grant) == Device::Blocked {
                return;
            }
            next = if was_last { None } else { self.next_published(lane) };
        }
    }

    /// Direct issue. Stops quietly where budget or tag is short: what is left is published, and
    /// asks again in a way that leaves a mark.
    fn issue_plugged(&mut self, lane: usize) -> Device {
        loop {
            let wanted = self.cpu.lanes[lane].plug.len() as u32;
            if wanted == 0 {
                return Device::Ready;
            }
            let Some(grant) = self.try_acquire(lane, wanted) else { return Device::Ready };
            let request = self.cpu.lanes[lane].plug.pop_front().expect("the plug is not empty");
            if self.issue_inline(lane, request, grant) == Device::Blocked {
                return Device::Blocked;
            }
        }
    }

    /// The next software queue that has something.
    fn next_published(&self, lane: usize) -> Option<usize> {
        let lane = &self.cpu.lanes[lane];
        self.queue.hctx(lane.hctx).ctx_map.next_from(lane.cursor)
    }

    /// The first request of software queue `ctx`, or of another if that has become empty, and
    /// whether it was the last of all. `None` says that all are empty: somebody may rely on us for
    /// any of them.
    fn take_published(&mut self, lane: usize, ctx: usize) -> Option<(Request, bool)> {
        let map = &self.queue.hctx(self.cpu.lanes[lane].hctx).ctx_map;
        let mut next = Some(ctx);
        while let Some(ctx) = next {
            let after = ctx + 1;
            self.cpu.lanes[lane].cursor =
                if after == self.queue.software.len() { 0 } else { after };
            let taken = self.queue.software[ctx].with(lane, |published| {
                let request = published.requests.pop_front();
                let was_last = published.is_empty() && map.clear(ctx);
                request.map(|request| (request, was_last))
            });
            if taken.is_some() {
                return taken;
            }
            next = self.next_published(lane);
        }
        None
    }

    /// Gives one request to the driver.
    pub(crate) fn issue(&mut self, lane: usize, request: Request, grant: Grant) -> Device {
        self.issue_inline(lane, request, grant)
    }

    #[inline(always)]
    fn issue_inline(&mut self, lane: usize, mut request: Request, grant: Grant) -> Device {
        let now = self.now;
        assert!(grant.hctx == self.cpu.lanes[lane].hctx, "a request rides its dispatcher's ring");
        let hctx = self.queue.hctx(grant.hctx);
        let body = request.body_mut();
        if body.has_waited {
            body.has_waited = false;
            self.note_wait(&request);
        }
        let body = request.body_mut();
        body.issued_at = now;
        hctx.take_off(grant.tag.index(), self.flight_mark);
        body.grant = Some(grant);
        if body.is_special && body.bio.flags.contains(Flags::POLLED) {
            self.cpu.polled += 1;
        }
        self.cpu.counters.issued += 1;
        match self.queue.driver.queue_rq(&mut self.cpu.ring, InFlight(request)) {
            QueueRq::Queued => {
                self.uncommitted = true;
                self.issued = true;
                hctx.note_busy(false);
            }
            QueueRq::Failed(request, status) => self.complete_failed(request, status),
            QueueRq::Busy(request, restarter) => {
                hctx.note_busy(true);
                self.bounce(lane, request, restarter);
                return Device::Blocked;
            }
        }
        Device::Ready
    }

    #[cold]
    fn complete_failed(&mut self, request: InFlight, status: Status) {
        self.complete(request, status);
    }

    /// The device is busy: the request, and those that were to follow it, wait in the dispatch list
    /// for whom the driver named.
    fn bounce(&mut self, lane: usize, request: InFlight, restarter: Restarter) {
        self.cpu.counters.busy += 1;
        self.cpu.lanes[lane].busy = true;
        self.cpu.batch.push_front(request.0);
        let mut bounced = std::mem::take(&mut self.cpu.batch);
        for request in &mut bounced {
            self.give_back(request);
            note_waiting(request, self.live, self.queue.holds.read(self.now), self.now);
        }
        // What is at hand is in nobody's flight, and must not pass for it in `must_rerun`.
        self.empty_purses();
        let hctx = self.queue.hctx(self.cpu.lanes[lane].hctx);
        hctx.rest_on(restarter);
        hctx.push_dispatch_front(bounced.drain(..));
        self.cpu.batch = bounced;
        let must_rerun = match restarter {
            Restarter::RetryAt(at) => {
                self.queue.env.run_at(self.cpu.ctx, at, Wish::DriverRetry);
                false
            }
            Restarter::Completion => hctx.must_rerun(true),
            Restarter::Kick => hctx.must_rerun(false),
        };
        self.cpu.lanes[lane].due |= must_rerun;
    }

    /// Publishes what this thread alone knows of, for whoever serves the software queues next.
    pub(crate) fn publish(&mut self, lane: usize) {
        let ctx = usize::from(self.cpu.ctx.0);
        let holds = self.queue.holds.read(self.now);
        let side = &mut self.cpu.lanes[lane];
        let hctx = self.queue.hctx(side.hctx);
        if lane == 0 && !self.cpu.returned.is_empty() {
            hctx.push_dispatch_front(self.cpu.returned.drain(..));
            side.due = true;
        }
        let timer_came = lane == 0 && std::mem::take(&mut self.timer_came);
        let completions = &mut self.cpu.completions;
        if side.plug.is_empty() && !timer_came && (lane > 0 || completions.is_empty()) {
            return;
        }
        let limits = &self.live.limits;
        let (mut merged, stats) = (0, &self.queue.stats);
        self.queue.software[ctx].with(lane, |published| {
            published.timer_came |= timer_came;
            if lane == 0 {
                published.completions.append(completions);
            }
            for mut request in side.plug.drain(..) {
                note_waiting(&mut request, self.live, holds, self.now);
                let (volume, op) = (request.volume, request.op);
                if published.add(request, limits) {
                    stats.merged(self.cpu.ctx, volume, op);
                    merged += 1;
                }
            }
            hctx.ctx_map.set(ctx);
        });
        self.cpu.counters.merged += merged;
    }

    /// Publishes everything.
    pub(crate) fn publish_plugs(&mut self) {
        (0..self.cpu.lanes.len()).for_each(|lane| self.publish(lane));
    }

    /// Budget and tag for one request, and at hand for up to `wanted`; or neither, and whoever puts
    /// one back will run us.
    pub(crate) fn acquire(&mut self, lane: usize, who: Waiter, wanted: u32) -> Option<Grant> {
        let side = &mut self.cpu.lanes[lane];
        let hctx = self.queue.hctx(side.hctx);
        if side.rests_on_tag && side.purse.tags.is_empty() && hctx.is_still_marked() {
            // Whoever puts a tag back takes our mark, and then looks at what we have published.
            // Asking for budget before that would take it from others, or have it handed to and
            // fro.
            return None;
        }
        if let Some(budget) = &self.queue.budget
            && side.purse.tokens.count() == 0
        {
            side.purse.tokens = budget.get(who, budget.at_once(wanted));
            if side.purse.tokens.count() == 0 {
                self.queue.holds.begin(Hold::Budget, self.now);
                return None;
            }
        }
        if side.purse.tags.is_empty() {
            let tags = hctx.get_tags(&mut side.tag_hint, wanted);
            // Looking at this mark at the end of the turn would be taking it from under ourselves.
            side.rests_on_tag = tags.is_none();
            let Some(tags) = tags else {
                self.queue.holds.begin(Hold::Tag, self.now);
                self.in_vain |= side.purse.tokens.count() > 0;
                return None;
            };
            side.purse.tags = tags;
        }
        self.queue.holds.end(self.now);
        self.grant(lane)
    }

    /// As [`Turn::acquire`], but a failure leaves no mark, and the caller must not rest on it.
    #[inline(always)]
    fn try_acquire(&mut self, lane: usize, wanted: u32) -> Option<Grant> {
        let side = &mut self.cpu.lanes[lane];
        if let Some(budget) = &self.queue.budget
            && side.purse.tokens.count() == 0
        {
            side.purse.tokens = budget.try_get(budget.at_once(wanted));
        }
        if side.purse.tags.is_empty() {
            let hctx = self.queue.hctx(side.hctx);
            let Some(tags) = hctx.try_get_tags(&mut side.tag_hint, wanted) else {
                self.in_vain |= side.purse.tokens.count() > 0;
                return None;
            };
            side.purse.tags = tags;
        }
        self.grant(lane)
    }

    /// Takes what one request needs out of the purse.
    #[inline(always)]
    fn grant(&mut self, lane: usize) -> Option<Grant> {
        let side = &mut self.cpu.lanes[lane];
        let token = match &self.queue.budget {
            Some(_) => Some(side.purse.tokens.take()?),
            None => None,
        };
        let tag = side.purse.tags.pop().expect("tags are at hand");
        Some(Grant { hctx: side.hctx, token, tag })
    }

    /// Puts back what was acquired in vain. The end of the turn hands it on.
    pub(crate) fn release(&mut self, grant: Grant) {
        self.in_vain = true;
        self.put_grant(grant);
    }

    /// The lane by which a request goes.
    #[inline]
    pub(crate) fn lane_for(&self, request: &Request) -> usize {
        self.cpu.lane_of(kind_of(request))
    }

    /// Notes what has held up a request between its entry and now.
    #[cold]
    fn note_wait(&mut self, request: &Request) {
        let body = request.body();
        let wait_ns = self.now.since(body.entered_at).as_nanos() as u64;
        let (budget_ns, tag_ns, rest_ns) =
            body.holds.divide(self.queue.holds.read(self.now), wait_ns);
        self.live.pool.note_gone(body.sched_tag);
        for follower in &body.followers {
            self.live.pool.note_gone(follower.sched_tag());
        }
        let rest = if self.live.elevator.is_some() { Hold::Scheduler } else { Hold::Device };
        let reasons = [(Hold::Budget, budget_ns), (Hold::Tag, tag_ns), (rest, rest_ns)];
        for (why, ns) in reasons {
            self.queue.stats.held(self.cpu.ctx, request.volume, why, ns);
        }
    }
}

/// A request begins to wait where others can see it.
pub(crate) fn note_waiting(request: &mut Request, live: &Live, holds: Holds, now: Time) {
    let body = request.body_mut();
    body.has_waited = true;
    body.holds = holds;
    live.pool.note_waiting(body.sched_tag, now);
}
