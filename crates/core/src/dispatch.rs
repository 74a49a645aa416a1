//! The way from the dispatch list, the scheduler or the software queues to the driver: the seed's
//! room.
//!
//! Every request takes the same way. First a unit of the budget, then a driver tag, and only then
//! is a request looked for. So a request stays where it is until it can go; nothing is ever held in
//! private while it waits for budget or tag, which is how Linux came to lose requests (commits
//! ab3cee3762e5, 9ba52e5812e5). The price is the seed's: a unit may be taken and no request found,
//! because another thread was quicker. Such a unit goes back, and the end of the turn hands it on.

use std::vec::Drain;

use crate::bio::Flags;
use crate::budget::Waiter;
use crate::cpu::BATCH;
use crate::driver::{Driver, Env, QueueRq, Restarter, Wish};
use crate::enter::kind_of;
use crate::hold::Holds;
use crate::live::Live;
use crate::request::{InFlight, Request};
use crate::stats::Hold;
use crate::status::Status;
use crate::time::Time;
use crate::turn::Turn;

/// Why requests are not given to the driver any more.
enum Stop {
    /// It has ended this one without starting it.
    Failed(InFlight, Status),
    /// It does not take this one now.
    Busy(InFlight, Restarter),
}

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
            if self.acquire(lane, Waiter::Hctx(id), 0, 1) == 0 {
                return Device::Blocked;
            }
            let Some(request) = hctx.pop_dispatch() else {
                self.in_vain = true;
                return Device::Ready;
            };
            self.cpu.batch.push(request);
            if self.issue_batch(lane) == Device::Blocked {
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
            let ready = self.acquire(lane, Waiter::Hctx(id), 0, wanted);
            if ready == 0 {
                return;
            }
            let was_last = self.take_published(lane, ctx, ready as usize);
            if self.cpu.batch.is_empty() {
                // The seed's moment: we hold a unit, and other threads took all the requests.
                self.in_vain = true;
                return;
            }
            if self.issue_batch(lane) == Device::Blocked {
                return;
            }
            next = if was_last { None } else { self.next_published(lane) };
        }
    }

    /// Direct issue. Stops quietly where budget or tag is short: what is left is published, and
    /// asks again in a way that leaves a mark.
    fn issue_plugged(&mut self, lane: usize) -> Device {
        loop {
            let wanted = self.cpu.lanes[lane].plug.len();
            let ready = self.try_acquire(lane, wanted as u32) as usize;
            if ready == 0 {
                return Device::Ready;
            }
            let mut plug = std::mem::take(&mut self.cpu.lanes[lane].plug);
            let mut going = plug.drain(..ready);
            let refused = self.issue(lane, &mut going);
            if refused.is_some() {
                let stopped: Vec<Request> = going.collect();
                plug.splice(..0, stopped);
            } else {
                drop(going);
            }
            // What failed at once may have come back as several.
            plug.append(&mut self.cpu.lanes[lane].plug);
            self.cpu.lanes[lane].plug = plug;
            if let Some((refused, restarter)) = refused {
                self.bounce(lane, refused, std::iter::empty(), restarter);
                return Device::Blocked;
            }
        }
    }

    /// Sends the batch, for which everything is at hand. What the device does not take waits in the
    /// dispatch list for whom the driver named.
    pub(crate) fn issue_batch(&mut self, lane: usize) -> Device {
        let mut batch = std::mem::take(&mut self.cpu.batch);
        let mut going = batch.drain(..);
        let mut device = Device::Ready;
        if let Some((refused, restarter)) = self.issue(lane, &mut going) {
            self.bounce(lane, refused, going, restarter);
            device = Device::Blocked;
        } else {
            drop(going);
        }
        self.cpu.batch = batch;
        device
    }

    /// The next software queue that has something.
    fn next_published(&self, lane: usize) -> Option<usize> {
        let lane = &self.cpu.lanes[lane];
        self.queue.hctx(lane.hctx).ctx_map.next_from(lane.cursor)
    }

    /// Takes up to `max` requests of software queue `ctx`, or of another if that has become empty,
    /// into the batch, and answers whether they were the last of all. An empty batch says that all
    /// are empty: somebody may rely on us for any of them.
    fn take_published(&mut self, lane: usize, ctx: usize, max: usize) -> bool {
        let map = &self.queue.hctx(self.cpu.lanes[lane].hctx).ctx_map;
        let mut next = Some(ctx);
        while let Some(ctx) = next {
            let after = ctx + 1;
            self.cpu.lanes[lane].cursor =
                if after == self.queue.software.len() { 0 } else { after };
            let batch = &mut self.cpu.batch;
            let was_last = self.queue.software[ctx].with(lane, |published| {
                let count = published.requests.len().min(max);
                batch.extend(published.requests.drain(..count));
                published.is_empty() && map.clear(ctx)
            });
            if !self.cpu.batch.is_empty() {
                return was_last;
            }
            next = self.next_published(lane);
        }
        true
    }

    /// Gives requests to the driver, for which tags and budget are at hand, until it refuses one.
    fn issue(
        &mut self,
        lane: usize,
        going: &mut Drain<'_, Request>,
    ) -> Option<(InFlight, Restarter)> {
        loop {
            match self.issue_run(lane, going)? {
                Stop::Failed(request, status) => self.complete(request, status),
                Stop::Busy(request, restarter) => return Some((request, restarter)),
            }
        }
    }

    /// As [`Turn::issue`], up to the first that is not taken.
    #[inline(always)]
    fn issue_run(&mut self, lane: usize, going: &mut Drain<'_, Request>) -> Option<Stop> {
        let id = self.cpu.lanes[lane].hctx;
        let hctx = self.queue.hctx(id);
        let has_budget = self.queue.budget.is_some();
        let ring = self.ring.take().expect("a driver that is asked asks nothing itself");
        let mut purse = std::mem::take(&mut self.cpu.lanes[lane].purse);
        let before = going.len();
        let mut stop = None;
        for mut request in going.by_ref() {
            let body = request.body_mut();
            if body.has_waited | body.is_special {
                self.note_issue(&mut request);
            }
            let body = request.body_mut();
            body.issued_at = self.now;
            let grant = purse.grant(id, has_budget);
            hctx.take_off(grant.tag.index(), self.flight_mark);
            body.grant = Some(grant);
            stop = match self.queue.driver.queue_rq(ring, InFlight(request)) {
                QueueRq::Queued => continue,
                QueueRq::Failed(request, status) => Some(Stop::Failed(request, status)),
                QueueRq::Busy(request, restarter) => Some(Stop::Busy(request, restarter)),
            };
            break;
        }
        let asked = before - going.len();
        let taken = asked - usize::from(stop.is_some());
        self.ring = Some(ring);
        let side = &mut self.cpu.lanes[lane];
        side.purse = purse;
        side.active += asked as i32;
        self.cpu.counters.issued += asked as u64;
        if taken > 0 {
            (self.uncommitted, self.issued) = (true, true);
            hctx.note_taken(taken as u32);
        }
        stop
    }

    /// Notes what is to be known of a request that goes out and was not simply submitted just now.
    #[inline(always)]
    fn note_issue(&mut self, request: &mut Request) {
        if std::mem::take(&mut request.body_mut().has_waited) {
            self.note_wait(request);
        }
        if request.body().is_special {
            self.note_special(request);
        }
    }

    /// Notes what is out of the ordinary about a request that goes out.
    #[cold]
    fn note_special(&mut self, request: &Request) {
        for follower in &request.body().followers {
            self.live.pool.note_gone(follower.sched_tag());
        }
        if request.body().bio.flags.contains(Flags::POLLED) {
            self.cpu.polled += 1;
        }
    }

    /// The device is busy: the request, and those that were to follow it, wait in the dispatch list
    /// for whom the driver named.
    fn bounce(
        &mut self,
        lane: usize,
        refused: InFlight,
        rest: impl DoubleEndedIterator<Item = Request>,
        restarter: Restarter,
    ) {
        self.cpu.counters.busy += 1;
        self.cpu.lanes[lane].busy = true;
        let InFlight(mut refused) = refused;
        self.give_back(&mut refused);
        // What is at hand is in nobody's flight, and must not pass for it in `must_rerun`.
        self.empty_purses();
        let (live, now, holds) = (self.live, self.now, self.queue.holds.read(self.now));
        let bounced = std::iter::once(refused).chain(rest).map(|mut request| {
            note_waiting(&mut request, live, holds, now);
            request
        });
        let hctx = self.queue.hctx(self.cpu.lanes[lane].hctx);
        hctx.rest_on(restarter);
        hctx.note_busy();
        hctx.push_dispatch_front(bounced);
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

    /// Has budget and tags at hand for up to `wanted` requests beyond `reserved`, for which they
    /// are at hand already, and answers for how many. If it is none, whoever puts back what is
    /// short will run us.
    pub(crate) fn acquire(&mut self, lane: usize, who: Waiter, reserved: u32, wanted: u32) -> u32 {
        let ready = self.at_hand(lane) - reserved;
        if ready > 0 {
            return ready.min(wanted);
        }
        let side = &mut self.cpu.lanes[lane];
        let hctx = self.queue.hctx(side.hctx);
        let is_short = side.rests_on_tag && side.purse.tags.len() as u32 == reserved;
        if is_short && hctx.is_still_marked() {
            // Whoever puts a tag back takes our mark, and then looks at what we have published.
            // Asking for budget before that would take it from others, or have it handed to and
            // fro.
            return 0;
        }
        if let Some(budget) = &self.queue.budget
            && side.purse.tokens.count() == reserved
        {
            let held = self.queue.hctx(side.hctx).nr_active(side.active);
            side.purse.tokens.join(budget.get(who, budget.at_once(wanted), held));
            if side.purse.tokens.count() == reserved {
                self.queue.holds.begin(Hold::Budget, self.now);
                return 0;
            }
        }
        if side.purse.tags.len() as u32 == reserved {
            let has_tags = hctx.get_tags(&mut side.tag_hint, wanted, &mut side.purse.tags);
            // Looking at this mark at the end of the turn would be taking it from under ourselves.
            side.rests_on_tag = !has_tags;
            if !has_tags {
                self.queue.holds.begin(Hold::Tag, self.now);
                self.in_vain |= side.purse.tokens.count() > reserved;
                return 0;
            }
        }
        self.queue.holds.end(self.now);
        (self.at_hand(lane) - reserved).min(wanted)
    }

    /// As [`Turn::acquire`] with nothing reserved, but a failure leaves no mark, and the caller
    /// must not rest on it.
    fn try_acquire(&mut self, lane: usize, wanted: u32) -> u32 {
        let side = &mut self.cpu.lanes[lane];
        if let Some(budget) = &self.queue.budget
            && side.purse.tokens.count() == 0
        {
            side.purse.tokens = budget.try_get(budget.at_once(wanted));
            if side.purse.tokens.count() == 0 {
                return 0;
            }
        }
        if side.purse.tags.is_empty() {
            let hctx = self.queue.hctx(side.hctx);
            let has_tags = hctx.try_get_tags(&mut side.tag_hint, wanted, &mut side.purse.tags);
            self.in_vain |= !has_tags && side.purse.tokens.count() > 0;
        }
        self.at_hand(lane).min(wanted)
    }

    /// For how many requests everything is at hand.
    fn at_hand(&self, lane: usize) -> u32 {
        let purse = &self.cpu.lanes[lane].purse;
        let tags = purse.tags.len() as u32;
        if self.queue.budget.is_some() { tags.min(purse.tokens.count()) } else { tags }
    }

    /// The lane by which a request goes.
    #[inline]
    pub(crate) fn lane_for(&self, request: &Request) -> usize {
        self.cpu.lanes.of(kind_of(request))
    }

    /// Notes that a request waits no longer, and what has held it up since its entry.
    #[inline(always)]
    fn note_wait(&mut self, request: &Request) {
        self.live.pool.note_gone(request.sched_tag());
        if request.body().entered_at != self.now {
            self.note_holds(request);
        }
    }

    /// Notes what has held up a request between its entry and now.
    #[cold]
    fn note_holds(&mut self, request: &Request) {
        let body = request.body();
        let wait_ns = self.now.since(body.entered_at).as_nanos() as u64;
        let (budget_ns, tag_ns, rest_ns) =
            body.holds.divide(self.queue.holds.read(self.now), wait_ns);
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
