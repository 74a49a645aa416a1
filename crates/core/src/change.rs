//! Stop, quiesce, freeze, and what may be changed while the queue stands.

use std::sync::Arc;

use crate::driver::{Driver, Env};
use crate::elevator::{AttributeError, Elevator, Scheduler};
use crate::ids::HctxId;
use crate::live::{Live, Maps};
use crate::queue::Queue;
use crate::tags::RequestPool;

/// A change for which the queue is frozen and quiesced.
pub enum Change {
    /// Another scheduler; `None` is scheduler `none`.
    Scheduler(Option<Box<dyn Scheduler>>),
    /// Another number of requests that the queue holds, at least 1.
    NrRequests(u32),
    /// Another number of default hardware queues, at least 1 and at most one for each submitter.
    ///
    /// Those of the other kinds are numbered behind them. A hardware queue that stays is stopped
    /// still if it was, under the number that it has then; one that goes is forgotten, so a new
    /// one in its place is not stopped.
    NrHwQueues(u16),
    /// Another size of the device, in sectors.
    CapacitySectors(u64),
}

/// A change under way. It has to be polled until it is done; dropped before, it would leave the
/// queue frozen.
#[must_use = "a change that is not driven to its end leaves the queue frozen"]
pub struct Changing {
    change: Option<Change>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Freezing,
    Quiescing,
    Done,
}

impl<D: Driver, E: Env> Queue<D, E> {
    /// Stops a hardware queue: no run that begins from now on sends anything from it.
    ///
    /// # Panics
    ///
    /// If there is no such hardware queue.
    pub fn stop_hw_queue(&self, hctx: HctxId) {
        let _not_while_they_are_numbered_anew = self.admin.lock();
        self.hctx(hctx).set_stopped(true);
    }

    /// Starts a hardware queue again, and has it run.
    ///
    /// # Panics
    ///
    /// If there is no such hardware queue.
    pub fn start_hw_queue(&self, hctx: HctxId) {
        let numbered = self.admin.lock();
        self.hctx(hctx).set_stopped(false);
        drop(numbered);
        self.env.kick(self.live().maps.thread(hctx));
    }

    /// Asks that nothing is sent to the driver any more. Has to be taken back as often as it was
    /// asked for. [`Queue::is_quiesced`] tells when it holds, and [`Env::settled`] when to look.
    pub fn quiesce(&self) {
        self.control.quiesce();
    }

    /// Whether a quiesce holds: no thread sends anything to the driver.
    pub fn is_quiesced(&self) -> bool {
        self.control.is_quiesced()
    }

    /// Takes back one [`Queue::quiesce`]. After the last, every hardware queue is run.
    pub fn unquiesce(&self) {
        if self.control.unquiesce() {
            self.kick_all();
        }
    }

    /// Asks that no bio becomes a request any more, so that those which are on their way come to
    /// their end. Has to be taken back as often as it was asked for. [`Queue::is_frozen`] tells
    /// when it holds, and [`Env::settled`] when to look.
    ///
    /// A queue that is quiesced, or a hardware queue that is stopped, sends nothing; with requests
    /// in it a freeze is complete only when it is started again.
    pub fn freeze(&self) {
        // Other than in Linux nothing is run: what is on its way has somebody who sees to it.
        self.control.freeze();
    }

    /// Whether a freeze holds: no request is on its way, and none will be.
    pub fn is_frozen(&self) -> bool {
        self.control.is_freezing_everywhere() && self.live().pool.tags().is_idle()
    }

    /// Takes back one [`Queue::freeze`]. After the last, those who wait to get in are let in.
    pub fn unfreeze(&self) {
        if self.control.unfreeze() {
            self.kick_all();
        }
    }

    /// Begins a change, which [`Changing::poll`] brings to its end. Changes may be under way at the
    /// same time; they are made one after the other.
    pub fn change(&self, change: Change) -> Changing {
        self.freeze();
        Changing { change: Some(change), stage: Stage::Freezing }
    }

    /// The name of the scheduler.
    pub fn scheduler(&self) -> &'static str {
        let live = self.live();
        // Its name does not change, so it can be asked for without the lock that orders requests.
        live.scheduler_name
    }

    /// Works on the scheduler, if there is one and no thread holds it at the moment: `None` says
    /// that it has to be tried again.
    pub fn with_scheduler<R>(&self, work: impl FnOnce(&mut dyn Scheduler) -> R) -> Option<R> {
        let _one_at_a_time = self.admin.lock();
        let live = self.live();
        let elevator = live.elevator.as_ref()?;
        let mut holder = elevator.try_enter()?;
        let answer = holder.with(|elevator| work(elevator.scheduler.as_mut()));
        // Whatever was noted meanwhile, and whatever the work has changed, a run sees to.
        holder.hand_over();
        self.kick_all();
        Some(answer)
    }

    /// Sets an attribute of the scheduler, by its sysfs name; `None` if it has to be tried again.
    ///
    /// # Errors
    ///
    /// Those of [`Scheduler::set`]; with scheduler `none` there is no attribute.
    pub fn set_attribute(&self, name: &str, value: &str) -> Option<Result<(), AttributeError>> {
        if self.live().elevator.is_none() {
            return Some(Err(AttributeError::Unknown(Vec::new())));
        }
        let set = |scheduler: &mut dyn Scheduler| {
            let set = scheduler.set(name, value);
            (set, scheduler.async_depth(self.nr_requests()))
        };
        let (set, async_depth) = self.with_scheduler(set)?;
        if set.is_ok() && async_depth != self.live().async_depth {
            self.renew(|live| Live { async_depth, ..live });
            // More may come in than before.
            self.kick_all();
        }
        Some(set)
    }

    /// Which hardware queues are used depends on their number and on whether there is a scheduler.
    /// A unit of the budget that is on its way to one that will not be would be lost.
    fn recall_budget(&self) {
        if let Some(budget) = &self.budget {
            budget.recall();
        }
    }

    fn apply(&self, change: Change) {
        let _one_at_a_time = self.admin.lock();
        match change {
            // It was made for as many requests as there were when the change began.
            Change::Scheduler(scheduler) => {
                self.recall_budget();
                self.switch(scheduler.map(|scheduler| scheduler.resized(self.nr_requests())));
            }
            Change::NrRequests(nr_requests) => self.resize(nr_requests),
            Change::NrHwQueues(nr) => {
                self.recall_budget();
                let before = self.maps();
                self.renew(|live| {
                    let maps = Maps { default: nr, ..live.maps }.clamped(self.nr_ctx());
                    Live { maps, ..live }
                });
                self.renumber_stopped(before, self.maps());
            }
            Change::CapacitySectors(capacity_sectors) => self.renew(|mut live| {
                live.limits.capacity_sectors = capacity_sectors;
                live
            }),
        }
    }

    /// Has what was stopped be stopped under its new number, and nothing else.
    fn renumber_stopped(&self, before: Maps, after: Maps) {
        let is_stopped: Vec<bool> =
            (0..before.count()).map(|h| self.hctx(HctxId(h)).is_stopped()).collect();
        self.hardware.iter().for_each(|hctx| hctx.set_stopped(false));
        for (h, _) in is_stopped.iter().enumerate().filter(|(_, is_stopped)| **is_stopped) {
            let old = HctxId(u16::try_from(h).expect("hardware queues are numbered in u16"));
            if let Some(new) = after.number_of(before.place_of(old)) {
                self.hctx(new).set_stopped(true);
            }
        }
    }

    fn switch(&self, scheduler: Option<Box<dyn Scheduler>>) {
        self.forget_the_scheduler();
        let async_depth = scheduler.as_ref().and_then(|s| s.async_depth(self.nr_requests()));
        let scheduler_name = scheduler.as_ref().map_or("none", |s| s.name());
        let elevator = scheduler.map(|scheduler| Arc::new(Elevator::locked(scheduler)));
        self.renew(|live| Live { elevator, async_depth, scheduler_name, ..live });
    }

    fn resize(&self, nr_requests: u32) {
        assert!(nr_requests > 0, "a queue holds a request");
        let resized = self.live().elevator.as_ref().map(|elevator| {
            let holder = elevator.try_enter();
            let mut holder = holder.expect("nobody works on the scheduler of a quiesced queue");
            let resized = holder.with(|elevator| elevator.scheduler.resized(nr_requests));
            holder.hand_over();
            resized
        });
        let pool = Arc::new(RequestPool::new(nr_requests, &self.lost));
        self.renew(|live| Live { pool, nr_requests, ..live });
        // What the scheduler keeps is by the numbers of requests, so it is made anew as well.
        if let Some(resized) = resized {
            self.switch(Some(resized));
        }
    }

    /// Forgets what the scheduler would have been told. Every turn that knew of anything has
    /// published it before its last request counted as ended.
    fn forget_the_scheduler(&self) {
        for software in &self.software {
            software.with(0, |published| {
                published.completions.clear();
                published.timer_came = false;
            });
        }
    }

    /// Exchanges what can be made anew; every thread sees it from its next turn on.
    fn renew(&self, make: impl FnOnce(Live) -> Live) {
        let mut live = self.live.lock();
        *live = Arc::new(make(Live::clone(&live)));
        drop(live);
        self.control.make_stale();
    }
}

impl Changing {
    /// Goes on with the change, and answers whether it is done. To be called again whenever
    /// [`Env::settled`] says so.
    pub fn poll<D: Driver, E: Env>(&mut self, queue: &Queue<D, E>) -> bool {
        if self.stage == Stage::Freezing && queue.is_frozen() {
            queue.quiesce();
            self.stage = Stage::Quiescing;
        }
        if self.stage == Stage::Quiescing && queue.is_quiesced() && queue.is_frozen() {
            let change = self.change.take().expect("a change is made once");
            queue.apply(change);
            queue.unquiesce();
            queue.unfreeze();
            self.stage = Stage::Done;
        }
        self.stage == Stage::Done
    }
}
