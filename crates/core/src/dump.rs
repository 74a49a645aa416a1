//! What a queue looks like inside at one moment, as debugfs shows it; and who is overdue.

use std::time::Duration;

use crate::bio::{Op, TenantId};
use crate::budget::Waiter;
use crate::driver::{Driver, Env, Restarter};
use crate::ids::{CtxId, HctxId};
use crate::live::HctxType;
use crate::queue::Queue;
use crate::time::Time;

/// A queue at one moment. What several threads change meanwhile may not fit together.
#[derive(Clone, Debug)]
pub struct Dump {
    /// The name of the scheduler.
    pub scheduler: &'static str,
    /// What the scheduler shows of itself; nothing if a thread held it at the moment.
    pub scheduler_state: Vec<(&'static str, String)>,
    /// Until when the scheduler idles, if it has named a time that is to come.
    pub scheduler_idles_until: Option<Time>,
    /// How often a quiesce is asked for.
    pub quiesce_depth: u32,
    /// How often a freeze is asked for.
    pub freeze_depth: u32,
    /// Requests that the queue holds at most, and holds.
    pub nr_requests: u32,
    /// See above.
    pub requests: u32,
    /// Requests that wait in the layer, with their scheduler tags, the one that has waited longest
    /// first.
    pub waiting: Vec<(u32, Time)>,
    /// Requests whose submitters were answered while the device still has them.
    pub abandoned: u64,
    /// Requests that were dropped, ever.
    pub defects: usize,
    /// The budget, if there is one.
    pub budget: Option<BudgetDump>,
    /// The flush machine.
    pub flush: FlushDump,
    /// The tenants.
    pub tenants: Vec<TenantDump>,
    /// The software queues.
    pub software: Vec<SoftwareDump>,
    /// The hardware queues.
    pub hardware: Vec<HardwareDump>,
}

/// A budget at one moment.
#[derive(Clone, Debug)]
pub struct BudgetDump {
    /// How many units there are.
    pub limit: u32,
    /// How many are out.
    pub used: u32,
    /// Hardware queues that wait for one.
    pub waiting: Vec<HctxId>,
    /// Whether the scheduler's requests wait for one.
    pub scheduler_waits: bool,
}

/// The flush machine at one moment.
#[derive(Clone, Copy, Debug)]
pub struct FlushDump {
    /// How many wait for the next flush.
    pub waiting: usize,
    /// How many the flush in flight covers.
    pub covered: usize,
    /// Whether one is in flight.
    pub in_flight: bool,
    /// Whether one has failed, and nothing is written any more.
    pub failed: bool,
}

/// A tenant at one moment.
#[derive(Clone, Copy, Debug)]
pub struct TenantDump {
    /// Its weight.
    pub weight: u32,
    /// Scheduler tags that its requests hold.
    pub used: u32,
    /// Scheduler tags that they may hold.
    pub share: u32,
}

/// A software queue at one moment.
#[derive(Clone, Copy, Debug)]
pub struct SoftwareDump {
    /// Requests in it.
    pub requests: usize,
    /// Bios of its submitter that wait to get in.
    pub waiting: u64,
}

/// A hardware queue at one moment.
#[derive(Clone, Debug)]
pub struct HardwareDump {
    /// Its number.
    pub hctx: HctxId,
    /// Its kind.
    pub kind: HctxType,
    /// Nothing is sent from it.
    pub is_stopped: bool,
    /// Somebody rests until a tag comes back or the driver kicks (`SCHED_RESTART`).
    pub restart: bool,
    /// How busy the device was lately; zero if it was not.
    pub dispatch_busy: u64,
    /// Whom the device has named to have what it refused tried again, if it is busy.
    pub rests_on: Option<Restarter>,
    /// Requests that only it can send.
    pub dispatch: Vec<RequestDump>,
    /// Software queues that have something for it.
    pub ctx_map: Vec<CtxId>,
    /// Driver tags there are, and are out.
    pub nr_tags: u32,
    /// See above.
    pub tags: u32,
    /// Requests in flight: driver tag, whose ring they are on, and when their time is over.
    pub busy: Vec<(u32, CtxId, Option<Time>)>,
}

/// A request at one moment.
#[derive(Clone, Copy, Debug)]
pub struct RequestDump {
    /// Its scheduler tag.
    pub sched_tag: u32,
    /// What is to be done.
    pub op: Op,
    /// Where.
    pub sector: u64,
    /// How much.
    pub nr_sectors: u32,
    /// Whose it is.
    pub tenant: TenantId,
    /// How many bios it carries.
    pub nr_bios: usize,
    /// When it was submitted.
    pub submitted_at: Time,
}

/// A request that has waited for too long while nobody named holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overdue {
    /// Its scheduler tag.
    pub sched_tag: u32,
    /// Since when it has waited.
    pub since: Time,
}

impl<D: Driver, E: Env> Queue<D, E> {
    /// What the queue looks like inside at this moment.
    pub fn dump(&self, now: Time) -> Dump {
        let live = self.live();
        let (quiesce_depth, freeze_depth) = self.control.depths();
        let lengths = self.flush.lengths();
        let scheduler_state = self.with_scheduler(|scheduler| scheduler.debug());
        let all_used = live.pool.tags().used();
        let tenant = |index| {
            let id = TenantId(index as u32);
            let (used, share) = self.tenants.used_and_share(id, live.nr_requests, all_used);
            TenantDump { weight: self.tenants.weight(id), used, share }
        };
        Dump {
            scheduler: live.scheduler_name,
            scheduler_state: scheduler_state.unwrap_or_default(),
            scheduler_idles_until: self.idles_until(now),
            quiesce_depth,
            freeze_depth,
            nr_requests: live.nr_requests,
            requests: live.pool.tags().used(),
            waiting: self.waiting(),
            abandoned: self.abandoned.get(),
            defects: self.defects(),
            budget: self.dump_budget(),
            flush: FlushDump {
                waiting: lengths.0,
                covered: lengths.1,
                in_flight: lengths.2,
                failed: self.flush.has_failed(),
            },
            tenants: (0..self.tenants.len()).map(tenant).collect(),
            software: self.dump_software(),
            hardware: (0..live.maps.count()).map(|h| self.dump_hardware(HctxId(h))).collect(),
        }
    }

    /// A request that has waited in the layer for longer than `patience` while nobody named holds
    /// it: no quiesce or stop, no time that the scheduler has named, no device that has all it
    /// takes or has others in work, and none that was busy and has named who restarts it. There
    /// should never be one.
    pub fn overdue(&self, now: Time, patience: Duration) -> Option<Overdue> {
        let live = self.live();
        let (sched_tag, since) = *self.waiting().first()?;
        let is_stopped = || (0..live.maps.count()).any(|h| self.hctx(HctxId(h)).is_stopped());
        let has_room = |h: u16| {
            let tags = self.hctx(HctxId(h)).tags();
            tags.used() < tags.depth()
        };
        let budget_is_short = self.budget.as_ref().is_some_and(|b| b.used() >= b.limit());
        let device_is_full = budget_is_short || !(0..live.maps.count()).any(has_room);
        let in_flight = |h: u16| self.hctx(HctxId(h)).tags().used() > 0;
        let rests = |h: u16| match self.hctx(HctxId(h)).rests_on() {
            // The driver has promised to kick.
            Some(Restarter::Kick) => true,
            Some(Restarter::RetryAt(at)) => at > now,
            Some(Restarter::Completion) => in_flight(h),
            None => false,
        };
        let device_is_busy = (0..live.maps.count()).any(rests);
        let has_others = live.elevator.is_some() && (0..live.maps.count()).any(in_flight);
        let is_held = now.since(since) <= patience
            || self.control.depths().0 > 0
            || is_stopped()
            || self.idles_until(now).is_some()
            || self.flush.lengths().2
            || device_is_full
            || device_is_busy
            || has_others;
        (!is_held).then_some(Overdue { sched_tag, since })
    }

    /// What waits, the oldest first.
    fn waiting(&self) -> Vec<(u32, Time)> {
        let mut waiting: Vec<_> = self.live().pool.waiting().collect();
        waiting.sort_unstable_by_key(|(_, since)| *since);
        waiting
    }

    fn idles_until(&self, now: Time) -> Option<Time> {
        let until = Time::from_ns(self.idle_until.get());
        (until > now).then_some(until)
    }

    fn dump_budget(&self) -> Option<BudgetDump> {
        let budget = self.budget.as_ref()?;
        let waiters: Vec<Waiter> = budget.waiters().collect();
        let hctx = |waiter: &Waiter| match waiter {
            Waiter::Hctx(hctx) => Some(*hctx),
            Waiter::Scheduler => None,
        };
        Some(BudgetDump {
            limit: budget.limit(),
            used: budget.used(),
            waiting: waiters.iter().filter_map(hctx).collect(),
            scheduler_waits: waiters.contains(&Waiter::Scheduler),
        })
    }

    fn dump_software(&self) -> Vec<SoftwareDump> {
        let dump = |(index, software): (usize, &crossbeam_utils::CachePadded<_>)| {
            let software: &crate::software::SoftwareQueue = software;
            let requests = (0..3).map(|lane| software.with(lane, |p| p.requests.len())).sum();
            SoftwareDump { requests, waiting: self.waiting[index].get() }
        };
        self.software.iter().enumerate().map(dump).collect()
    }

    fn dump_hardware(&self, id: HctxId) -> HardwareDump {
        let hctx = self.hctx(id);
        let mut dispatch = Vec::new();
        hctx.each_dispatch(|request| {
            dispatch.push(RequestDump {
                sched_tag: request.sched_tag(),
                op: request.op,
                sector: request.sector,
                nr_sectors: request.nr_sectors,
                tenant: request.tenant(),
                nr_bios: request.nr_bios(),
                submitted_at: request.submitted_at(),
            });
        });
        let ctxs = (0..self.nr_ctx()).map(CtxId);
        HardwareDump {
            hctx: id,
            kind: self.live().maps.kind(id),
            is_stopped: hctx.is_stopped(),
            restart: hctx.is_marked(),
            dispatch_busy: hctx.dispatch_busy(),
            rests_on: hctx.rests_on(),
            dispatch,
            ctx_map: ctxs.filter(|ctx| hctx.ctx_map.contains(usize::from(ctx.0))).collect(),
            nr_tags: hctx.tags().depth(),
            tags: hctx.tags().used(),
            busy: hctx
                .flights()
                .map(|flight| (flight.tag, flight.ctx, flight.ends().then_some(flight.ends_at)))
                .collect(),
        }
    }
}
