//! The request queue: what belongs to one device, and who may take a turn at it.

use std::fmt;
use std::sync::Arc;

use crossbeam_utils::CachePadded;

use crate::bitmap::Bitmap;
use crate::budget::{Budget, BudgetMode};
use crate::combiner::Combiner;
use crate::cpu::Cpu;
use crate::driver::{Driver, Env};
use crate::elevator::{Elevator, Scheduler};
use crate::hardware::HardwareQueue;
use crate::ids::{CtxId, HctxId};
use crate::limits::Limits;
use crate::lost::Lost;
use crate::software::SoftwareQueue;
use crate::sync::{SeqCst, fence};
use crate::tags::RequestPool;
use crate::time::Time;
use crate::turn::Turn;

/// How a queue is made.
pub struct Config {
    /// The number of software queues: one for each submitter. At least 1.
    pub nr_ctx: u16,
    /// The number of hardware queues. Submitter `c` uses hardware queue `c % nr_hw_queues`. At
    /// least 1.
    pub nr_hw_queues: u16,
    /// How many requests the queue holds in all. At least 1.
    pub nr_requests: u32,
    /// How many requests each hardware queue has in flight at most: its driver tags. At least 1.
    pub nr_tags: u32,
    /// The device's budget, shared by all its hardware queues: at most so many in flight. `None`
    /// where the driver tags are bound enough.
    pub budget: Option<u32>,
    /// What becomes of budget that was taken in vain.
    pub budget_mode: BudgetMode,
    /// The scheduler; `None` is scheduler `none`.
    pub scheduler: Option<Box<dyn Scheduler>>,
}

impl Default for Config {
    /// One submitter, one hardware queue, 256 requests, all of them in flight if need be, no budget
    /// and no scheduler.
    fn default() -> Self {
        Config {
            nr_ctx: 1,
            nr_hw_queues: 1,
            nr_requests: 256,
            nr_tags: 256,
            budget: None,
            budget_mode: BudgetMode::default(),
            scheduler: None,
        }
    }
}

/// The queue of one device: the multi-queue block layer between its submitters and its driver.
///
/// All work is done in *turns*: a thread brings its [`Cpu`], submits, reaps, and at the end of the
/// turn whatever can go to the device goes.
pub struct Queue<D: Driver, E: Env> {
    pub(crate) driver: D,
    pub(crate) env: Arc<E>,
    pub(crate) limits: Limits,
    pub(crate) software: Box<[CachePadded<SoftwareQueue>]>,
    pub(crate) hardware: Box<[CachePadded<HardwareQueue>]>,
    pub(crate) pool: RequestPool,
    /// Which submitters wait for a scheduler tag; a bit for each.
    pub(crate) entry: CachePadded<Bitmap>,
    pub(crate) budget: Option<Budget>,
    pub(crate) elevator: Option<Combiner<Elevator>>,
    pub(crate) lost: Arc<Lost>,
}

impl<D: Driver, E: Env> Queue<D, E> {
    /// Makes the queue of a device. Everything it will ever need is allocated here.
    ///
    /// # Panics
    ///
    /// If a number in `config` is zero.
    pub fn new(driver: D, env: Arc<E>, config: Config) -> Self {
        assert!(config.nr_ctx > 0, "a queue has a submitter");
        assert!(config.nr_hw_queues > 0, "a queue has a hardware queue");
        let nr_requests = config.nr_requests as usize;
        let kick_env = Arc::clone(&env);
        let lost = Arc::new(Lost::new(Box::new(move || kick_env.kick(HctxId(0)))));
        let software = || CachePadded::new(SoftwareQueue::new(nr_requests));
        let hardware = || {
            let nr_ctx = usize::from(config.nr_ctx);
            CachePadded::new(HardwareQueue::new(config.nr_tags, nr_requests, nr_ctx))
        };
        let nr_hctx = usize::from(config.nr_hw_queues);
        Queue {
            limits: driver.limits(),
            driver,
            env,
            software: (0..config.nr_ctx).map(|_| software()).collect(),
            hardware: (0..config.nr_hw_queues).map(|_| hardware()).collect(),
            pool: RequestPool::new(config.nr_requests, &lost),
            entry: CachePadded::new(Bitmap::new(usize::from(config.nr_ctx))),
            budget: config.budget.map(|limit| Budget::new(limit, config.budget_mode, nr_hctx)),
            elevator: config
                .scheduler
                .map(|scheduler| Combiner::new(Elevator { scheduler, in_flight: 0 })),
            lost,
        }
    }

    /// What a thread needs to take turns: the software queue `ctx`, the hardware queue that belongs
    /// to it, and the thread's ring.
    ///
    /// # Panics
    ///
    /// If there is no such software queue.
    pub fn cpu(&self, ctx: CtxId, ring: D::Ring) -> Cpu<D> {
        assert!(usize::from(ctx.0) < self.software.len(), "there is no software queue {}", ctx.0);
        Cpu::new(ctx, self.hctx_of(ctx), ring, self.pool.tags().depth())
    }

    /// Begins a turn. It ends, and what is owed is done, when the answer is dropped.
    pub fn turn<'a>(&'a self, cpu: &'a mut Cpu<D>, now: Time) -> Turn<'a, D, E> {
        Turn::new(self, cpu, now)
    }

    /// The driver can take more on `hctx`: what it answered [`crate::Restarter::Kick`] to is tried
    /// again. May be called from any thread.
    pub fn kick(&self, hctx: HctxId) {
        // What the driver changed is published before the mark is looked at.
        fence(SeqCst);
        // The mark is taken so that a dispatcher which has not yet put its request in the dispatch
        // list notices (M1); the run is owed in either case.
        let _ = self.hardware[usize::from(hctx.0)].take_restart();
        self.env.kick(hctx);
    }

    /// The hardware queue that submitter `ctx` uses.
    pub fn hctx_of(&self, ctx: CtxId) -> HctxId {
        HctxId(ctx.0 % self.nr_hw_queues())
    }

    /// The number of hardware queues.
    pub fn nr_hw_queues(&self) -> u16 {
        self.hardware.len() as u16
    }

    /// The device.
    pub fn driver(&self) -> &D {
        &self.driver
    }

    /// What the device can take.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// How many requests a driver or a scheduler has dropped, ever. Each ended in an I/O error.
    pub fn defects(&self) -> usize {
        self.lost.defects()
    }

    /// What the queue holds at this moment, as far as can be seen without stopping it.
    pub fn held(&self) -> Held {
        Held {
            requests: self.pool.tags().used(),
            in_flight: self.hardware.iter().map(|h| h.tags().used()).sum(),
            budget: self.budget.as_ref().map_or(0, Budget::used),
            dispatch: self.hardware.iter().map(|h| h.dispatch_len()).sum(),
        }
    }

    pub(crate) fn hctx(&self, hctx: HctxId) -> &HardwareQueue {
        &self.hardware[usize::from(hctx.0)]
    }
}

impl<D: Driver, E: Env> Drop for Queue<D, E> {
    fn drop(&mut self) {
        self.lost.close();
    }
}

/// What a queue holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Requests that have been submitted and have not come back.
    pub requests: u32,
    /// Driver tags that are out.
    pub in_flight: u32,
    /// Units of the budget that are out.
    pub budget: u32,
    /// Requests in the dispatch lists.
    pub dispatch: usize,
}

impl<D: Driver, E: Env> fmt::Debug for Queue<D, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("held", &self.held()).finish_non_exhaustive()
    }
}
