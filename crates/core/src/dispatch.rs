//! The way from the dispatch list, the scheduler or the software queues to the driver: the seed's
//! room.
//!
//! Every request takes the same way. First a unit of the budget, then a driver tag, and only then
//! is a request looked for. So a request stays where it is until it can go; nothing is ever held in
//! private while it waits for budget or tag, which is how Linux came to lose requests (commits
//! ab3cee3762e5, 9ba52e5812e5). The price is the seed's: a unit may be taken and no request found,
//! because another thread was quicker. Such a unit goes back, and the end of the turn hands it on.

use crate::budget::Waiter;
use crate::combiner::{Combiner, Leave};
use crate::cpu::BATCH;
use crate::driver::{Driver, Env, QueueRq, Restarter, Wish};
use crate::elevator::{Dispatch, Elevator, Run};
use crate::ids::HctxId;
use crate::request::{Grant, InFlight, Request};
use crate::turn::Turn;

/// How often the holder of the scheduler looks again for those who found it held, before it lets go
/// and asks to be called again.
const ROUNDS_MAX: u32 = 8;

/// Whether the device takes more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Device {
    Ready,
    /// It does not, or there is no budget or tag. Somebody named will run this hardware queue
    /// again.
    Blocked,
}

impl<D: Driver, E: Env> Turn<'_, D, E> {
    /// One pass: sends whatever can go on this thread's hardware queue.
    pub(crate) fn dispatch(&mut self) {
        self.cpu.counters.passes += 1;
        if std::mem::take(&mut self.busy) {
            // The marks were passed over because the device was busy. It is asked again, so they
            // are looked at again.
            self.came_back = true;
        }
        let run = std::mem::take(&mut self.due);
        let device = self.dispatch_refused();
        match &self.queue.elevator {
            Some(elevator) => self.dispatch_scheduler(elevator, run, device),
            None => self.dispatch_software(device),
        }
    }

    /// Sends what is in the dispatch list.
    fn dispatch_refused(&mut self) -> Device {
        let hctx = self.queue.hctx(self.cpu.hctx);
        while hctx.has_dispatch() {
            let Some(grant) = self.acquire(Waiter::Hctx(self.cpu.hctx)) else {
                return Device::Blocked;
            };
            let Some(request) = hctx.pop_dispatch() else {
                self.release(grant);
                return Device::Ready;
            };
            if self.issue(request, grant) == Device::Blocked {
                return Device::Blocked;
            }
        }
        Device::Ready
    }

    /// Scheduler `none`: sends what the software queues of this hardware queue hold, and then what
    /// was submitted in this turn, without publishing it if it can go at once.
    fn dispatch_software(&mut self, mut device: Device) {
        let ctx_map = &self.queue.hctx(self.cpu.hctx).ctx_map;
        // What was published earlier goes first.
        if device == Device::Ready && !self.cpu.plug.is_empty() && ctx_map.is_empty() {
            device = self.issue_plugged();
            if device == Device::Ready && self.cpu.plug.is_empty() {
                // Nothing was published when this pass began, and who publishes since then runs
                // this hardware queue too.
                return;
            }
        }
        self.publish();
        let mut next = if device == Device::Ready { self.next_published() } else { None };
        while let Some(ctx) = next {
            let Some(grant) = self.acquire(Waiter::Hctx(self.cpu.hctx)) else { return };
            let Some((request, was_last)) = self.take_published(ctx) else {
                // The seed's moment: we hold a unit, and other threads took all the requests.
                self.release(grant);
                return;
            };
            if self.issue(request, grant) == Device::Blocked {
                return;
            }
            next = if was_last { None } else { self.next_published() };
        }
    }

    /// Direct issue. Stops quietly where budget or tag is short: what is left is published, and
    /// asks again in a way that leaves a mark.
    fn issue_plugged(&mut self) -> Device {
        while !self.cpu.plug.is_empty() {
            let Some(grant) = self.try_acquire() else { break };
            let request = self.cpu.plug.pop_front().expect("the plug is not empty");
            if self.issue(request, grant) == Device::Blocked {
                return Device::Blocked;
            }
        }
        Device::Ready
    }

    /// The next software queue that has something.
    fn next_published(&self) -> Option<usize> {
        self.queue.hctx(self.cpu.hctx).ctx_map.next_from(self.cpu.cursor)
    }

    /// The first request of software queue `ctx`, or of another if that has become empty, and
    /// whether it was the last of all. `None` says that all are empty: somebody may rely on us for
    /// any of them.
    fn take_published(&mut self, ctx: usize) -> Option<(Request, bool)> {
        let map = &self.queue.hctx(self.cpu.hctx).ctx_map;
        let mut next = Some(ctx);
        while let Some(ctx) = next {
            self.cpu.cursor = (ctx + 1) % self.queue.software.len();
            let taken = self.queue.software[ctx].with(|published| {
                let request = published.requests.pop_front();
                let was_last = published.is_empty() && map.clear(ctx);
                request.map(|request| (request, was_last))
            });
            if taken.is_some() {
                return taken;
            }
            next = self.next_published();
        }
        None
    }

    /// With a scheduler: tells it what has come and gone, and sends what it chooses. If another
    /// thread holds it, that thread does so for us.
    fn dispatch_scheduler(
        &mut self,
        elevator: &Combiner<Elevator>,
        mut run: bool,
        mut device: Device,
    ) {
        let Some(mut holder) = elevator.try_enter().or_else(|| {
            self.publish();
            elevator.enter_or_note()
        }) else {
            return;
        };
        for round in 1.. {
            let full = holder.with(|elevator| {
                run |= self.feed(elevator);
                run && device == Device::Ready && self.choose(elevator, &mut device)
            });
            if full || round == ROUNDS_MAX {
                holder.hand_over();
                self.due = true;
                break;
            }
            match holder.leave() {
                Leave::Left => break,
                Leave::Noted(again) => holder = again,
            }
            run = true;
            if device == Device::Blocked {
                self.kick_others();
            }
        }
        self.issue_batch();
    }

    /// Somebody left a note and relies on us, but our hardware queue is blocked. His may not be.
    fn kick_others(&mut self) {
        let own = self.cpu.hctx;
        for hctx in (0..self.queue.nr_hw_queues()).map(HctxId).filter(|hctx| *hctx != own) {
            self.kick(hctx);
        }
    }

    /// Tells the scheduler what has come and gone, here and in the software queues. Answers whether
    /// a request may go now that could not before.
    fn feed(&mut self, elevator: &mut Elevator) -> bool {
        let now = self.now;
        let Elevator { scheduler, in_flight } = elevator;
        let mut run = std::mem::take(&mut self.timer_came) && scheduler.timer(now) == Run::Yes;
        for done in self.cpu.completions.drain(..) {
            *in_flight = in_flight.checked_sub(1).expect("what completes was dispatched");
            run |= scheduler.complete(&done, now) == Run::Yes;
        }
        for mut request in self.cpu.returned.drain(..) {
            *in_flight = in_flight.checked_sub(1).expect("what is requeued was dispatched");
            request.body_mut().scheduled = false;
            run |= scheduler.requeue(request, now) == Run::Yes;
        }
        for request in self.cpu.plug.drain(..) {
            run |= scheduler.insert(request, now) == Run::Yes;
        }
        run | self.feed_published(elevator)
    }

    fn feed_published(&self, elevator: &mut Elevator) -> bool {
        let mut run = false;
        for hctx in &self.queue.hardware {
            while let Some(ctx) = hctx.ctx_map.next_from(0) {
                self.queue.software[ctx].with(|published| {
                    if std::mem::take(&mut published.timer_came) {
                        run |= elevator.scheduler.timer(self.now) == Run::Yes;
                    }
                    for done in published.completions.drain(..) {
                        let left = elevator.in_flight.checked_sub(1);
                        elevator.in_flight = left.expect("what completes was dispatched");
                        run |= elevator.scheduler.complete(&done, self.now) == Run::Yes;
                    }
                    for request in published.requests.drain(..) {
                        run |= elevator.scheduler.insert(request, self.now) == Run::Yes;
                    }
                    hctx.ctx_map.clear(ctx);
                });
            }
        }
        run
    }

    /// Takes from the scheduler what can go. Answers whether the batch is full and there may be
    /// more.
    fn choose(&mut self, elevator: &mut Elevator, device: &mut Device) -> bool {
        while self.cpu.batch.len() < BATCH {
            if !elevator.scheduler.has_work() {
                return false;
            }
            let Some(grant) = self.acquire(Waiter::Scheduler) else {
                *device = Device::Blocked;
                return false;
            };
            match elevator.scheduler.dispatch(self.now) {
                Dispatch::Request(mut request) => {
                    elevator.in_flight += 1;
                    let body = request.body_mut();
                    body.scheduled = true;
                    body.grant = Some(grant);
                    self.cpu.batch.push_back(request);
                }
                pause => {
                    self.pause(elevator, pause);
                    self.release(grant);
                    return false;
                }
            }
        }
        true
    }

    /// The scheduler gives nothing, and has said who will have it asked again.
    fn pause(&mut self, elevator: &Elevator, pause: Dispatch) {
        match pause {
            Dispatch::IdleUntil(at) => {
                assert!(at > self.now, "a scheduler idles until a time to come");
                self.queue.env.run_at(self.cpu.ctx, at, Wish::SchedulerIdle);
            }
            Dispatch::AfterCompletion => {
                assert!(elevator.in_flight > 0, "a scheduler waits for a request in flight");
            }
            Dispatch::Empty | Dispatch::AfterToken => {}
            Dispatch::Request(_) => unreachable!("a request is no pause"),
        }
        if let Some(budget) = &self.queue.budget {
            budget.answered();
        }
    }

    fn issue_batch(&mut self) {
        while let Some(mut request) = self.cpu.batch.pop_front() {
            let grant = request.body_mut().grant.take().expect("a chosen request has its grant");
            if self.issue(request, grant) == Device::Blocked {
                return;
            }
        }
    }

    /// Gives one request to the driver.
    fn issue(&mut self, mut request: Request, grant: Grant) -> Device {
        assert!(grant.hctx == self.cpu.hctx, "a request rides the ring of its dispatcher");
        let body = request.body_mut();
        body.issued_at = self.now;
        body.grant = Some(grant);
        self.cpu.counters.issued += 1;
        match self.queue.driver.queue_rq(&mut self.cpu.ring, InFlight(request)) {
            QueueRq::Queued => self.uncommitted = true,
            QueueRq::Failed(request, status) => self.complete(request, status),
            QueueRq::Busy(request, restarter) => {
                self.bounce(request, restarter);
                return Device::Blocked;
            }
        }
        Device::Ready
    }

    /// The device is busy: the request, and those that were to follow it, wait in the dispatch list
    /// for whom the driver named.
    fn bounce(&mut self, request: InFlight, restarter: Restarter) {
        self.cpu.counters.busy += 1;
        self.busy = true;
        self.cpu.batch.push_front(request.0);
        let mut bounced = std::mem::take(&mut self.cpu.batch);
        for request in &mut bounced {
            self.give_back(request);
        }
        let hctx = self.queue.hctx(self.cpu.hctx);
        hctx.push_dispatch_front(bounced.drain(..));
        self.cpu.batch = bounced;
        match restarter {
            Restarter::RetryAt(at) => {
                self.queue.env.run_at(self.cpu.ctx, at, Wish::DriverRetry);
            }
            Restarter::Completion => self.due |= hctx.must_rerun(true),
            Restarter::Kick => self.due |= hctx.must_rerun(false),
        }
    }

    /// Publishes what this thread alone knows of, for whoever serves the software queues next.
    fn publish(&mut self) {
        let cpu = &mut *self.cpu;
        let hctx = self.queue.hctx(cpu.hctx);
        if !cpu.returned.is_empty() {
            hctx.push_dispatch_front(cpu.returned.drain(..));
            self.due = true;
        }
        let timer_came = std::mem::take(&mut self.timer_came);
        if cpu.plug.is_empty() && cpu.completions.is_empty() && !timer_came {
            return;
        }
        let ctx = usize::from(cpu.ctx.0);
        self.queue.software[ctx].with(|published| {
            published.timer_came |= timer_came;
            published.requests.append(&mut cpu.plug);
            published.completions.append(&mut cpu.completions);
            hctx.ctx_map.set(ctx);
        });
    }

    /// Budget and tag for one request; or neither, and whoever puts one back will run us.
    fn acquire(&mut self, who: Waiter) -> Option<Grant> {
        let token = match &self.queue.budget {
            Some(budget) => Some(budget.get(who)?),
            None => None,
        };
        let tag = self.queue.hctx(self.cpu.hctx).get_tag(&mut self.cpu.tag_hint);
        // Looking at this mark at the end of the turn would be taking it from under ourselves.
        self.rests_on_tag = tag.is_none();
        self.grant(token, tag)
    }

    /// As [`Turn::acquire`], but a failure leaves no mark, and the caller must not rest on it.
    fn try_acquire(&mut self) -> Option<Grant> {
        let token = match &self.queue.budget {
            Some(budget) => Some(budget.try_get()?),
            None => None,
        };
        let tag = self.queue.hctx(self.cpu.hctx).try_get_tag(&mut self.cpu.tag_hint);
        self.grant(token, tag)
    }

    fn grant(
        &mut self,
        token: Option<crate::budget::Token>,
        tag: Option<crate::tags::Tag>,
    ) -> Option<Grant> {
        if let Some(tag) = tag {
            return Some(Grant { hctx: self.cpu.hctx, token, tag });
        }
        if let (Some(budget), Some(token)) = (&self.queue.budget, token) {
            budget.put(token);
            self.came_back = true;
            self.in_vain = true;
        }
        None
    }

    /// Puts back what was acquired in vain. The end of the turn hands it on.
    fn release(&mut self, grant: Grant) {
        self.in_vain = true;
        self.put_grant(grant);
    }
}
