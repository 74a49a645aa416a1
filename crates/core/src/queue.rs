//! The request queue: what belongs to one device, and who may take a turn at it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_utils::CachePadded;

use crate::admission::{GroupId, Rates, TenantConfig, Tenants};
use crate::bio::{TenantId, VolumeId};
use crate::budget::{Budget, BudgetMode};
use crate::combiner::Combiner;
use crate::control::Control;
use crate::cpu::Cpu;
use crate::driver::{Driver, Env};
use crate::elevator::{Elevator, Scheduler};
use crate::flush::FlushQueue;
use crate::hardware::HardwareQueue;
use crate::hold::HoldClock;
use crate::ids::{CtxId, HctxId};
use crate::limits::Limits;
use crate::live::{Live, Maps};
use crate::lost::Lost;
use crate::software::SoftwareQueue;
use crate::stats::{Figures, Stats};
use crate::sync::{Counter, Mutex, SeqCst, fence};
use crate::tags::RequestPool;
use crate::time::Time;
use crate::turn::Turn;

/// How a queue is made.
pub struct Config {
    /// The number of software queues: one for each submitter. At least 1.
    pub nr_ctx: u16,
    /// The hardware queues, by kind. There are no more of a kind than submitters.
    pub maps: Maps,
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
    /// The tenants. At least 1.
    pub tenants: Vec<TenantConfig>,
    /// The limits of each group of tenants.
    pub groups: Vec<Rates>,
    /// The tenant of each volume. At least 1.
    pub volumes: Vec<TenantId>,
    /// How many bios of a tenant may wait to get in, for each submitter and direction. With zero,
    /// what cannot get in at once is refused.
    pub entry_max: u32,
    /// How long a request may be in flight before its driver is asked about it; `None` for ever.
    pub timeout: Option<Duration>,
}

impl Default for Config {
    /// One submitter, one hardware queue, 256 requests, all of them in flight if need be, no budget
    /// and no scheduler, one tenant with one volume without limits, 1024 bios that may wait, and
    /// Linux's 30 seconds.
    fn default() -> Self {
        Config {
            nr_ctx: 1,
            maps: Maps::of(1),
            nr_requests: 256,
            nr_tags: 256,
            budget: None,
            budget_mode: BudgetMode::default(),
            scheduler: None,
            tenants: vec![TenantConfig::default()],
            groups: Vec::new(),
            volumes: vec![TenantId(0)],
            entry_max: 1024,
            timeout: Some(Duration::from_secs(30)),
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
    pub(crate) control: Control,
    pub(crate) live: Mutex<Arc<Live>>,
    /// Held by who changes the queue or its scheduler from outside of a turn.
    pub(crate) admin: Mutex<()>,
    pub(crate) software: Box<[CachePadded<SoftwareQueue>]>,
    pub(crate) hardware: Box<[CachePadded<HardwareQueue>]>,
    pub(crate) tenants: Tenants,
    pub(crate) budget: Option<Budget>,
    pub(crate) flush: FlushQueue,
    pub(crate) stats: Stats,
    pub(crate) holds: HoldClock,
    pub(crate) lost: Arc<Lost>,
    /// Requests whose submitters were answered while the device still has them.
    pub(crate) abandoned: Counter,
    /// Until when the scheduler idles, as it said last; zero if it has given a request since.
    pub(crate) idle_until: Counter,
    /// How many bios of each submitter wait to get in.
    pub(crate) waiting: Box<[CachePadded<Counter>]>,
    /// Nanoseconds; `u64::MAX` for never.
    timeout_ns: Counter,
    entry_max: u32,
}

impl<D: Driver, E: Env> Queue<D, E> {
    /// Makes the queue of a device. Everything it will ever need is allocated here.
    ///
    /// # Panics
    ///
    /// If a number in `config` is zero that must not be, or a volume's tenant or a tenant's group
    /// is not there.
    pub fn new(driver: D, env: Arc<E>, config: Config) -> Self {
        assert!(config.nr_ctx > 0, "a queue has a submitter");
        let nr_requests = config.nr_requests as usize;
        let nr_ctx = usize::from(config.nr_ctx);
        let maps = config.maps.clamped(config.nr_ctx);
        // There may be as many default queues as submitters later on.
        let nr_hctx = usize::from(config.nr_ctx + maps.read + maps.poll);
        let kick_env = Arc::clone(&env);
        let lost = Arc::new(Lost::new(Box::new(move || kick_env.kick(CtxId(0)))));
        let software = |_| CachePadded::new(SoftwareQueue::new(nr_requests));
        let hardware =
            |_| CachePadded::new(HardwareQueue::new(config.nr_tags, nr_requests, nr_ctx));
        let async_depth = config.scheduler.as_ref().and_then(|s| s.async_depth(config.nr_requests));
        let scheduler_name = config.scheduler.as_ref().map_or("none", |s| s.name());
        let live = Live {
            scheduler_name,
            limits: driver.limits(),
            pool: Arc::new(RequestPool::new(config.nr_requests, &lost)),
            elevator: config.scheduler.map(|scheduler| Arc::new(Elevator::locked(scheduler))),
            async_depth,
            maps,
            nr_requests: config.nr_requests,
        };
        let queue = Queue {
            driver,
            env,
            control: Control::new(nr_ctx),
            live: Mutex::new(Arc::new(live)),
            admin: Mutex::new(()),
            software: (0..nr_ctx).map(software).collect(),
            hardware: (0..nr_hctx).map(hardware).collect(),
            tenants: Tenants::new(&config.tenants, &config.groups, &config.volumes, nr_ctx),
            budget: config.budget.map(|limit| Budget::new(limit, config.budget_mode, nr_hctx)),
            flush: FlushQueue::new(&lost),
            stats: Stats::new(nr_ctx, config.volumes.len()),
            holds: HoldClock::default(),
            lost,
            abandoned: Counter::new(),
            idle_until: Counter::new(),
            waiting: (0..nr_ctx).map(|_| CachePadded::default()).collect(),
            timeout_ns: Counter::new(),
            entry_max: config.entry_max,
        };
        queue.set_timeout(config.timeout);
        queue
    }

    /// What a thread needs to take turns: the software queue `ctx`, the hardware queues that belong
    /// to it, and the thread's ring. Each software queue has one thread.
    ///
    /// # Panics
    ///
    /// If there is no such software queue.
    pub fn cpu(&self, ctx: CtxId, ring: D::Ring) -> Cpu<D> {
        assert!(usize::from(ctx.0) < self.software.len(), "there is no software queue {}", ctx.0);
        let accounts = self.stats.accounts(ctx);
        Cpu::new(ctx, self.live(), ring, self.tenants.len(), self.entry_max, accounts)
    }

    /// Begins a turn. It ends, and what is owed is done, when the answer is dropped.
    #[inline]
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
        let _ = self.hctx(hctx).take_restart();
        self.hctx(hctx).driver_kicks();
        self.env.kick(self.live().maps.thread(hctx));
    }

    /// Has every thread take a turn, because something has changed that anybody may wait for.
    pub(crate) fn kick_all(&self) {
        (0..self.nr_ctx()).for_each(|ctx| self.env.kick(CtxId(ctx)));
    }

    /// The number of submitters.
    pub fn nr_ctx(&self) -> u16 {
        self.software.len() as u16
    }

    /// The hardware queues at this moment.
    pub fn maps(&self) -> Maps {
        self.live().maps
    }

    /// How many requests the queue holds at most, at this moment.
    pub fn nr_requests(&self) -> u32 {
        self.live().nr_requests
    }

    /// The device.
    pub fn driver(&self) -> &D {
        &self.driver
    }

    /// What the device can take, at this moment.
    pub fn limits(&self) -> Limits {
        self.live().limits
    }

    /// How many requests a driver or a scheduler has dropped, ever. Each ended in an I/O error.
    pub fn defects(&self) -> usize {
        self.lost.defects()
    }

    /// Changes the weight of a tenant, 1 to 1000.
    ///
    /// # Panics
    ///
    /// If there is no such tenant; so do the other functions that take a number.
    pub fn set_weight(&self, tenant: TenantId, weight: u32) {
        self.tenants.set_weight(tenant, weight);
        self.kick_all();
    }

    /// The weight of a tenant.
    pub fn weight(&self, tenant: TenantId) -> u32 {
        self.tenants.weight(tenant)
    }

    /// Changes the limits of a tenant. They hold from now on, for what waits already too.
    pub fn set_limits(&self, tenant: TenantId, limits: &Rates) {
        self.tenants.set_limits(tenant, limits);
        self.kick_all();
    }

    /// Changes the limits of a group, as [`Queue::set_limits`] does.
    pub fn set_group_limits(&self, group: GroupId, limits: &Rates) {
        self.tenants.set_group_limits(group, limits);
        self.kick_all();
    }

    /// Changes how long a request may be in flight before its driver is asked about it; `None` for
    /// ever. Holds for what is issued from now on.
    pub fn set_timeout(&self, timeout: Option<Duration>) {
        let ns =
            timeout.map_or(u64::MAX, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        self.timeout_ns.set(ns);
    }

    /// What has been done for a volume.
    pub fn figures(&self, volume: VolumeId) -> Figures {
        self.stats.of(volume)
    }

    /// What has been done for all volumes of a tenant.
    pub fn figures_of_tenant(&self, tenant: TenantId) -> Figures {
        self.sum(|volume| self.tenants.owner(volume) == Some(tenant))
    }

    /// What has been done for all volumes.
    pub fn figures_of_disk(&self) -> Figures {
        self.sum(|_| true)
    }

    /// What the queue holds at this moment, as far as can be seen without stopping it.
    pub fn held(&self) -> Held {
        Held {
            requests: self.live().pool.tags().used(),
            in_flight: self.hardware.iter().map(|h| h.tags().used()).sum(),
            budget: self.budget.as_ref().map_or(0, Budget::used),
            dispatch: self.hardware.iter().map(|h| h.dispatch_len()).sum(),
        }
    }

    #[inline]
    pub(crate) fn hctx(&self, hctx: HctxId) -> &HardwareQueue {
        &self.hardware[usize::from(hctx.0)]
    }

    pub(crate) fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live.lock())
    }

    #[inline]
    pub(crate) fn timeout_ns(&self) -> u64 {
        self.timeout_ns.get()
    }

    pub(crate) fn timeout(&self) -> Option<Duration> {
        let ns = self.timeout_ns();
        (ns != u64::MAX).then(|| Duration::from_nanos(ns))
    }

    fn sum(&self, of: impl Fn(VolumeId) -> bool) -> Figures {
        let mut sum = Figures::default();
        for volume in (0..self.stats.nr_volumes()).map(|index| VolumeId(index as u32)) {
            if of(volume) {
                sum.add(&self.stats.of(volume));
            }
        }
        sum
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
    /// Requests that have been let in and have not come back.
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

/// The scheduler's lock; see [`Combiner`].
pub(crate) type Locked = Combiner<Elevator>;
