//! How a bio gets in: what it takes, and then the plug. What has to wait is in `admit.rs`.

use std::sync::Arc;

use crate::admission::Entry;
use crate::bio::{Bio, Flags, Op, SECTOR_SHIFT, TenantId, VolumeId};
use crate::cpu::{BATCH, Open, Side};
use crate::driver::{Driver, Env};
use crate::limits::Fit;
use crate::live::HctxType;
use crate::request::{Body, Origin, Request};
use crate::split::Parent;
use crate::status::Status;
use crate::time::Time;
use crate::turn::Turn;

/// Why a bio was not taken in. It comes back unharmed.
#[derive(Debug)]
pub enum Refused {
    /// As many wait already as may. [`crate::Cpu::take_woken`] will say when to try again, after a
    /// turn that the thread is kicked to.
    WouldBlock(Bio),
    /// It cannot be done, for this reason.
    Invalid(Bio, Status),
}

/// What is remembered of a bio that was refused, so that its submitter is told when there is room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) tenant: TenantId,
    /// [`Op::Read`] for what waits and is limited with the reads, else [`Op::Write`].
    pub(crate) op: Op,
    pub(crate) is_waited_for: bool,
}

impl Refusal {
    fn of(tenant: TenantId, bio: &Bio) -> Self {
        let is_read = matches!(bio.op, Op::Read | Op::DrvIn);
        let op = if is_read { Op::Read } else { Op::Write };
        Refusal { tenant, op, is_waited_for: is_waited_for(bio) }
    }
}

impl<D: Driver, E: Env> Turn<'_, D, E> {
    /// Takes a bio in, or says why not. Never sleeps.
    #[inline(always)]
    pub fn submit(&mut self, bio: Bio) -> Result<(), Refused> {
        if bio.volume != self.cpu.open.volume || self.cpu.open.left == 0 {
            self.open(bio.volume);
        }
        match self.enter_at_once(&bio) {
            Some((tenant, body)) => {
                self.begin_plain(body, bio, tenant);
                Ok(())
            }
            None => self.submit_any(bio),
        }
    }

    /// What most bios get: memory at hand, because nothing about them is out of the ordinary and
    /// nobody of their tenant's waits. Nothing says that the other way has to be gone.
    #[inline(always)]
    fn enter_at_once(&mut self, bio: &Bio) -> Option<(TenantId, Box<Body>)> {
        let Open { tenant, is_limited, left, .. } = self.cpu.open;
        if left == 0 || !self.live.limits.is_plain(bio) {
            return None;
        }
        if bio.op == Op::Write && !self.may_write_at_once(bio) {
            return None;
        }
        if is_limited && (self.cpu.stash.is_empty() || !self.passes_limits(tenant, bio)) {
            return None;
        }
        let body = self.cpu.stash.pop()?;
        self.cpu.open.left = left - 1;
        Some((tenant, body))
    }

    /// Lets the next bios of a volume in without another look, as many as its tenant has room for.
    #[cold]
    fn open(&mut self, volume: VolumeId) {
        self.close();
        let Some(tenant) = self.queue.tenants.owner(volume) else { return };
        self.touch(tenant);
        let side = &self.cpu.tenants[tenant.0 as usize];
        let room = if side.is_slow { 0 } else { side.room };
        let allowed = u32::try_from(room).unwrap_or(0);
        let is_limited = side.is_limited;
        self.cpu.open = Open { volume, tenant, is_limited, allowed, left: allowed };
        let Side { stash, pool_hint, .. } = &mut *self.cpu;
        if allowed > 0 && stash.is_empty() {
            self.live.pool.take_run(pool_hint, BATCH as u32, stash);
        }
    }

    /// Notes what has come in and gone without another look.
    pub(crate) fn close(&mut self) {
        self.settle_accounts();
        let Open { volume, tenant, allowed, left, .. } = self.cpu.open;
        let count = allowed - left;
        (self.cpu.open.allowed, self.cpu.open.left) = (0, 0);
        if count > 0 {
            let side = &mut self.cpu.tenants[tenant.0 as usize];
            side.room -= count.cast_signed();
            side.more += count.cast_signed();
            self.count_begun(volume, count);
        }
    }

    #[inline]
    fn may_write_at_once(&self, bio: &Bio) -> bool {
        !self.live.limits.read_only
            && !self.queue.flush.has_failed()
            && (self.live.async_depth.is_none() || is_waited_for(bio))
    }

    fn submit_any(&mut self, bio: Bio) -> Result<(), Refused> {
        let fit = match self.live.limits.check(&bio) {
            Ok(fit) => fit,
            Err(status) => return Err(Refused::Invalid(bio, status)),
        };
        let Some(tenant) = self.queue.tenants.owner(bio.volume) else {
            return Err(Refused::Invalid(bio, Status::Inval));
        };
        if bio.op.is_write() && self.queue.flush.has_failed() {
            return Err(Refused::Invalid(bio, Status::ReadOnly));
        }
        self.close();
        self.touch(tenant);
        let side = &self.cpu.tenants[tenant.0 as usize];
        let is_open = fit == Fit::Whole
            && side.room > 0
            && !bio.flags.contains(Flags::NOWAIT)
            && !self.pass.is_frozen()
            && !self.cpu.entries.is_behind(tenant, bio.op)
            && (self.live.async_depth.is_none() || is_waited_for(&bio))
            && (!side.is_limited || self.passes_limits(tenant, &bio));
        if is_open && let Some(body) = self.take_body() {
            let now = self.now;
            self.begin(body, bio, tenant, now, None);
            return Ok(());
        }
        self.submit_slowly(bio, fit, tenant, is_open)
    }

    /// Notes what is known of a tenant in this turn, at its first request.
    #[inline(always)]
    pub(crate) fn touch(&mut self, tenant: TenantId) {
        if self.cpu.tenants[tenant.0 as usize].turn != self.cpu.turn {
            self.touch_first(tenant);
        }
    }

    #[cold]
    fn touch_first(&mut self, tenant: TenantId) {
        let side = &mut self.cpu.tenants[tenant.0 as usize];
        side.turn = self.cpu.turn;
        side.more = 0;
        side.room = self.queue.tenants.room(tenant, self.live.nr_requests);
        side.is_limited = self.queue.tenants.is_limited(tenant);
        side.is_slow = self.pass.is_frozen()
            || self.cpu.entries.is_behind(tenant, Op::Read)
            || self.cpu.entries.is_behind(tenant, Op::Write);
        if side.is_limited {
            side.credit = self.queue.tenants.credit(tenant, self.now);
        }
        self.cpu.touched.push(tenant.0);
    }

    /// Makes a request of a bio that has all it takes, and of which nothing is out of the ordinary.
    #[inline(always)]
    fn begin_plain(&mut self, body: Box<Body>, bio: Bio, tenant: TenantId) {
        let now = self.now;
        let kind = if bio.op == Op::Read { HctxType::Read } else { HctxType::Default };
        let origin = Origin { ctx: self.cpu.ctx, tenant, submitted_at: now, entered_at: now };
        let request = Request::start(body, bio, origin);
        self.plug(self.cpu.lanes.of(kind), request);
    }

    fn count_begun(&mut self, volume: VolumeId, count: u32) {
        if self.cpu.begun.0 != volume {
            self.settle_accounts();
            self.cpu.begun.0 = volume;
        }
        self.cpu.begun.1 += u64::from(count);
        self.cpu.counters.submitted += u64::from(count);
    }

    /// Makes a request of a bio that has all it takes.
    pub(crate) fn begin(
        &mut self,
        body: Box<Body>,
        bio: Bio,
        tenant: TenantId,
        submitted_at: Time,
        parent: Option<Arc<Parent>>,
    ) {
        let now = self.now;
        let side = &mut self.cpu.tenants[tenant.0 as usize];
        side.room -= 1;
        side.more += 1;
        let is_plain = !bio.flags.intersects(Flags::FUA.union(Flags::PREFLUSH))
            && matches!(bio.op, Op::Read | Op::Write | Op::Discard | Op::WriteZeroes);
        let is_polled = bio.flags.contains(Flags::POLLED);
        let kind = kind_of(&bio);
        let volume = bio.volume;
        let origin = Origin { ctx: self.cpu.ctx, tenant, submitted_at, entered_at: now };
        let mut request = Request::start(body, bio, origin);
        let body = request.body_mut();
        if parent.is_some() || is_polled {
            (body.parent, body.is_special) = (parent, true);
        }
        self.count_begun(volume, 1);
        if is_plain {
            self.plug(self.cpu.lanes.of(kind), request);
        } else {
            self.begin_special(request);
        }
    }

    /// Adds a request to the plug of a lane, merged with the one before it if they lie side by
    /// side.
    #[inline(always)]
    pub(crate) fn plug(&mut self, lane: usize, request: Request) {
        let lane = &mut self.cpu.lanes[lane];
        lane.due = true;
        if let Some(last) = lane.plug.last_mut()
            && let Some(side) = last.merge_side(&request, &self.live.limits)
        {
            self.queue.stats.merged(self.cpu.ctx, request.volume, request.op);
            self.cpu.counters.merged += 1;
            last.merge(request, side);
            return;
        }
        lane.plug.push(request);
    }

    /// The memory of a request, if a tag is free. Leaves no mark.
    #[inline]
    pub(crate) fn take_body(&mut self) -> Option<Box<Body>> {
        let Side { stash, pool_hint, .. } = &mut *self.cpu;
        if stash.is_empty() {
            self.live.pool.take_run(pool_hint, BATCH as u32, stash);
        }
        stash.pop()
    }

    /// Whether all limits let a bio pass, which then is charged when the turn ends.
    #[inline]
    pub(crate) fn passes_limits(&mut self, tenant: TenantId, bio: &Bio) -> bool {
        self.cpu.tenants[tenant.0 as usize].credit.pass(bio.op, bytes_of(bio))
    }

    #[cold]
    fn submit_slowly(
        &mut self,
        bio: Bio,
        fit: Fit,
        tenant: TenantId,
        charged: bool,
    ) -> Result<(), Refused> {
        let (now, op) = (self.now, bio.op);
        let is_behind = self.cpu.entries.is_behind(tenant, op);
        if bio.flags.contains(Flags::NOWAIT) {
            return self.submit_nowait(bio, tenant, fit == Fit::Cut || is_behind);
        }
        let parent = (fit == Fit::Cut).then(|| Parent::new(bio.cookie));
        let mut entry = Entry { bio, submitted_at: now, since: now, charged, parent };
        if !is_behind && self.let_in(tenant, &mut entry) {
            return Ok(());
        }
        // What has been charged, or has begun, cannot be sent away any more.
        let has_begun = entry.parent.as_ref().is_some_and(|parent| parent.has_begun());
        let is_limited = self.cpu.tenants[tenant.0 as usize].is_limited;
        let must_stay = has_begun || (is_limited && entry.charged);
        if !must_stay && !self.cpu.entries.has_room(tenant, op) {
            let refused = Refusal::of(tenant, &entry.bio);
            if !self.cpu.refused.contains(&refused) {
                self.cpu.refused.push(refused);
            }
            return Err(Refused::WouldBlock(entry.bio));
        }
        self.cpu.entries.push(tenant, entry);
        // Who comes later waits behind it.
        self.cpu.tenants[tenant.0 as usize].is_slow = true;
        Ok(())
    }

    /// Lets a bio in at once, or not at all. `must_wait` says that the latter is certain: what has
    /// to be cut could stop half-way.
    fn submit_nowait(
        &mut self,
        bio: Bio,
        tenant: TenantId,
        must_wait: bool,
    ) -> Result<(), Refused> {
        if must_wait || self.pass.is_frozen() {
            return Err(Refused::Invalid(bio, Status::Again));
        }
        let Some(body) = self.try_enter(tenant, &bio) else {
            return Err(Refused::Invalid(bio, Status::Again));
        };
        // Charged last, so that a bio that is sent away has cost nothing.
        self.touch(tenant);
        let is_limited = self.cpu.tenants[tenant.0 as usize].is_limited;
        if is_limited && !self.passes_limits(tenant, &bio) {
            self.unenter(body);
            return Err(Refused::Invalid(bio, Status::Again));
        }
        let now = self.now;
        self.begin(body, bio, tenant, now, None);
        Ok(())
    }
}

/// Which hardware queues a bio goes by.
#[inline]
pub(crate) fn kind_of(bio: &Bio) -> HctxType {
    if bio.flags.contains(Flags::POLLED) {
        HctxType::Poll
    } else if bio.op == Op::Read {
        HctxType::Read
    } else {
        HctxType::Default
    }
}

#[inline]
pub(crate) fn is_waited_for(bio: &Bio) -> bool {
    let waited_for = Flags::SYNC.union(Flags::FUA).union(Flags::PREFLUSH);
    !bio.op.is_write() || bio.flags.intersects(waited_for)
}

/// What a bio costs where bytes are limited.
#[inline]
fn bytes_of(bio: &Bio) -> u64 {
    if bio.op.has_data() { u64::from(bio.nr_sectors) << SECTOR_SHIFT } else { 0 }
}
