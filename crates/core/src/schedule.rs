//! Dispatch with a scheduler: whoever holds it tells it what has come and gone, and sends what it
//! chooses. Nobody waits for it: who finds it held publishes, and the holder works for both.

use crate::budget::Waiter;
use crate::combiner::Leave;
use crate::cpu::BATCH;
use crate::dispatch::{Device, note_waiting};
use crate::driver::{Driver, Env, Wish};
use crate::elevator::{Added, Dispatch, Elevator, Run};
use crate::ids::HctxId;
use crate::queue::Locked;
use crate::request::Request;
use crate::sync::Omission;
use crate::turn::Turn;

/// How often the holder of the scheduler looks again for those who found it held, before it lets go
/// and asks to be called again.
const ROUNDS_MAX: u32 = 8;

/// The lane of which a scheduler's requests go.
const LANE: usize = 0;

impl<D: Driver, E: Env> Turn<'_, D, E> {
    /// Tells the scheduler what has come and gone, and sends what it chooses. If another thread
    /// holds it, that thread does so for us.
    pub(crate) fn dispatch_scheduler(
        &mut self,
        elevator: &Locked,
        mut run: bool,
        mut device: Device,
    ) {
        let Some(mut holder) = elevator.try_enter().or_else(|| {
            self.publish(LANE);
            elevator.enter_or_note()
        }) else {
            return;
        };
        let mut is_noted = false;
        for round in 1.. {
            let full = holder.with(|elevator| {
                run |= self.feed(elevator);
                run && device == Device::Ready && self.choose(elevator, &mut device)
            });
            if is_noted && device == Device::Blocked {
                self.kick_others();
            }
            if full || round == ROUNDS_MAX {
                holder.hand_over();
                self.cpu.lanes[LANE].due = true;
                break;
            }
            match holder.leave() {
                Leave::Left => break,
                Leave::Noted(again) => holder = again,
            }
            (run, is_noted) = (true, true);
            if !Omission::NotedRetry.is_made() {
                device = self.look_again(device);
            }
        }
        self.issue_batch(LANE);
    }

    /// Somebody left a note. What brought him may be the budget or the tag that we failed to get,
    /// and he took the mark that we left for it; so it is asked for again. A busy device is not.
    fn look_again(&self, device: Device) -> Device {
        if self.cpu.lanes[LANE].busy { device } else { Device::Ready }
    }

    /// Somebody left a note and relies on us, but our hardware queue is blocked. His may not be.
    fn kick_others(&mut self) {
        let own = self.cpu.lanes[LANE].hctx;
        for hctx in (0..self.live.maps.default).map(HctxId).filter(|hctx| *hctx != own) {
            self.kick(hctx);
        }
    }

    /// Tells the scheduler what has come and gone, here and in the software queues. Answers whether
    /// a request may go now that could not before.
    fn feed(&mut self, elevator: &mut Elevator) -> bool {
        let now = self.now;
        let mut run =
            std::mem::take(&mut self.timer_came) && elevator.scheduler.timer(now) == Run::Yes;
        for done in self.cpu.completions.drain(..) {
            run |= elevator.complete(&done, now);
        }
        while let Some(mut request) = self.cpu.returned.pop() {
            elevator.take_back(&mut request);
            run |= elevator.scheduler.requeue(request, now) == Run::Yes;
        }
        let holds = self.queue.holds.read(now);
        let mut plug = std::mem::take(&mut self.cpu.lanes[LANE].plug);
        for mut request in plug.drain(..) {
            note_waiting(&mut request, self.live, holds, now);
            run |= self.insert(elevator, request);
        }
        self.cpu.lanes[LANE].plug = plug;
        run | self.feed_published(elevator)
    }

    fn feed_published(&mut self, elevator: &mut Elevator) -> bool {
        let mut run = false;
        let queue = self.queue;
        for hctx in &queue.hardware {
            while let Some(ctx) = hctx.ctx_map.next_from(0) {
                queue.software[ctx].with(LANE, |published| {
                    if std::mem::take(&mut published.timer_came) {
                        run |= elevator.scheduler.timer(self.now) == Run::Yes;
                    }
                    for done in published.completions.drain(..) {
                        run |= elevator.complete(&done, self.now);
                    }
                    for request in published.requests.drain(..) {
                        run |= self.insert(elevator, request);
                    }
                    hctx.ctx_map.clear(ctx);
                });
            }
        }
        run
    }

    /// Gives a request to the scheduler, merged with one that it holds if that can be.
    fn insert(&mut self, elevator: &mut Elevator, request: Request) -> bool {
        let (volume, op) = (request.volume, request.op);
        match elevator.scheduler.add(request, &self.live.limits, self.now) {
            Added::Inserted(run) => run == Run::Yes,
            Added::Merged => {
                self.queue.stats.merged(self.cpu.ctx, volume, op);
                self.cpu.counters.merged += 1;
                false
            }
        }
    }

    /// Takes from the scheduler what can go. Answers whether the batch is full and there may be
    /// more.
    fn choose(&mut self, elevator: &mut Elevator, device: &mut Device) -> bool {
        let hctx = self.queue.hctx(self.cpu.lanes[LANE].hctx);
        // A device that was busy lately gets one at a time: the rest can still be merged.
        let max = if hctx.dispatch_busy() > 0 { 1 } else { BATCH };
        let mut ready = 0;
        while self.cpu.batch.len() < max {
            if ready == 0 {
                if !elevator.scheduler.has_work() {
                    return false;
                }
                let chosen = self.cpu.batch.len() as u32;
                ready = self.acquire(LANE, Waiter::Scheduler, chosen, max as u32 - chosen);
                if ready == 0 {
                    *device = Device::Blocked;
                    return false;
                }
            }
            match elevator.scheduler.dispatch(self.now) {
                Dispatch::Request(mut request) => {
                    ready -= 1;
                    if self.cpu.batch.is_empty() {
                        self.queue.idle_until.set(0);
                    }
                    elevator.in_flight += 1;
                    request.body_mut().scheduled = true;
                    self.cpu.batch.push(request);
                }
                pause => {
                    self.pause(elevator, pause);
                    self.in_vain = true;
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
                self.queue.idle_until.set(at.as_ns());
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
}
