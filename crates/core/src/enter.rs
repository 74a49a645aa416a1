//! How a bio gets in: limits, its tenant's share, a scheduler tag, and then the plug.

use std::sync::Arc;
use std::time::Duration;

use crate::admission::{Entry, Wanted};
use crate::bio::{Bio, Flags, Op, SECTOR_SHIFT, TenantId, VolumeId};
use crate::cpu::{BATCH, Open, Side};
use crate::driver::{Driver, Env, Wish};
use crate::limits::Fit;
use crate::live::HctxType;
use crate::request::{Body, Done, Memory, Origin, Request};
use crate::split::{self, Parent};
use crate::stats::Hold;
use crate::status::Status;
use crate::sync::{Omission, SeqCst, fence};
use crate::time::Time;
use crate::turn::Turn;

/// A limit's next request is not looked for before so much time has passed.
const LIMIT_STEP: Duration = Duration::from_micros(1);

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
    tenant: TenantId,
    /// [`Op::Read`] for what waits and is limited with the reads, else [`Op::Write`].
    op: Op,
    is_waited_for: bool,
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

    /// Lets in those that wait and may come in now, a queue of a tenant's after the other.
    pub(crate) fn admit(&mut self) {
        self.close();
        for _ in 0..self.cpu.entries.nr_waiting() {
            let Some((index, tenant, mut queue)) = self.cpu.entries.begin_turn() else { break };
            let length = queue.len();
            while let Some(mut entry) = queue.pop_front() {
                if let Err(status) = self.may_still_go(&entry.bio) {
                    self.end_entry(&entry, status);
                    continue;
                }
                if !self.let_in(tenant, &mut entry) {
                    queue.push_front(entry);
                    break;
                }
            }
            let was_served = queue.len() < length;
            self.cpu.entries.end_turn(index, queue, was_served);
        }
        self.cpu.entries.end_pass();
        if !self.cpu.refused.is_empty() {
            self.look_for_room();
        }
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
    fn take_body(&mut self) -> Option<Box<Body>> {
        let Side { stash, pool_hint, .. } = &mut *self.cpu;
        if stash.is_empty() {
            self.live.pool.take_run(pool_hint, BATCH as u32, stash);
        }
        stash.pop()
    }

    /// Whether all limits let a bio pass, which then is charged when the turn ends.
    #[inline]
    fn passes_limits(&mut self, tenant: TenantId, bio: &Bio) -> bool {
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

    /// Lets a bio in, all of it; or as much of it as can come in, and whoever or whatever holds the
    /// rest will have this thread take a turn.
    fn let_in(&mut self, tenant: TenantId, entry: &mut Entry) -> bool {
        self.touch(tenant);
        if !entry.charged && !self.charge(tenant, entry) {
            return false;
        }
        loop {
            let Some(body) = self.enter(tenant, &entry.bio) else { return false };
            self.note_hold(entry, Hold::Admission);
            let Some((piece, is_last)) = self.next_piece(entry) else {
                self.unenter(body);
                return true;
            };
            let parent = entry.parent.clone();
            self.begin(body, piece, tenant, entry.submitted_at, parent);
            if is_last {
                return true;
            }
        }
    }

    /// The next piece of a bio, and whether it is all that is left. Nothing if no piece can be cut
    /// that the device would take: then the bio ends in an error.
    fn next_piece(&mut self, entry: &mut Entry) -> Option<(Bio, bool)> {
        let bio = &mut entry.bio;
        let Some(parent) = &entry.parent else { return Some((take_whole(bio), true)) };
        let limits = &self.live.limits;
        let sectors = limits.first_piece(bio);
        if sectors == Some(bio.nr_sectors) {
            return Some((take_whole(bio), true));
        }
        if let Some(piece) = sectors.and_then(|_| split::cut(bio, limits)) {
            parent.add_piece();
            return Some((piece, false));
        }
        self.end_entry(entry, Status::Inval);
        None
    }

    /// Whether what waits can still be done: the device may have become smaller meanwhile, and a
    /// flush may have failed, after which nothing is written.
    fn may_still_go(&self, bio: &Bio) -> Result<(), Status> {
        if bio.op.is_write() && self.queue.flush.has_failed() {
            return Err(Status::ReadOnly);
        }
        self.live.limits.check(bio).map(|_| ())
    }

    /// Ends a bio that waits, or what is left of it, without its going any further.
    #[cold]
    fn end_entry(&mut self, entry: &Entry, status: Status) {
        let Entry { bio, submitted_at, .. } = entry;
        let done = match &entry.parent {
            Some(parent) => match parent.end_piece(status, None) {
                Some(whole) => whole.done(parent.cookie, *submitted_at),
                None => return,
            },
            None => Done {
                cookie: bio.cookie,
                status,
                issued_at: *submitted_at,
                submitted_at: *submitted_at,
                memory: Memory::Returned,
            },
        };
        self.tell(self.cpu.ctx, done);
    }

    /// Holds a bio to its limits: it passes, or a turn is wished for when it will.
    fn charge(&mut self, tenant: TenantId, entry: &mut Entry) -> bool {
        let is_limited = self.cpu.tenants[tenant.0 as usize].is_limited;
        if !is_limited || self.passes_limits(tenant, &entry.bio) {
            entry.charged = true;
            self.note_hold(entry, Hold::Limit);
            return true;
        }
        // What has passed in this turn counts.
        self.charge_limits(tenant);
        let at = self.queue.tenants.passes_at(tenant, entry.bio.op, self.now);
        let side = &mut self.cpu.tenants[tenant.0 as usize];
        side.credit = self.queue.tenants.credit(tenant, self.now);
        if at <= self.now && self.passes_limits(tenant, &entry.bio) {
            // They were raised in between.
            entry.charged = true;
            self.note_hold(entry, Hold::Limit);
            return true;
        }
        let at = at.max(self.now + LIMIT_STEP);
        self.wish_for_limit(at);
        false
    }

    /// Charges a tenant's limits with what has passed in this turn.
    pub(crate) fn charge_limits(&mut self, tenant: TenantId) {
        let side = &mut self.cpu.tenants[tenant.0 as usize];
        if side.is_limited {
            self.queue.tenants.charge(tenant, &mut side.credit, self.now);
        }
    }

    fn wish_for_limit(&mut self, at: Time) {
        let wish = self.cpu.limit_wish;
        if wish == Time::ZERO || at < wish || wish <= self.now {
            self.cpu.limit_wish = at;
            self.queue.env.run_at(self.cpu.ctx, at, Wish::Limit);
        }
    }

    /// The memory of a request of this tenant's; or the submitter is marked, and whoever makes room
    /// has it take a turn.
    fn enter(&mut self, tenant: TenantId, bio: &Bio) -> Option<Box<Body>> {
        if self.pass.is_frozen() {
            // Whoever takes the freeze back kicks every thread.
            return None;
        }
        if let Some(body) = self.try_enter(tenant, bio) {
            return Some(body);
        }
        // What this turn has given back counts for whoever looks, and that is us.
        self.give_back_tags();
        self.queue.tenants.mark(tenant, self.cpu.ctx, self.wanted(is_waited_for(bio)));
        // Pair E1, the waiter's side: the mark is published before room and tags are looked at
        // again. The other side is the fence in `settle`.
        fence(SeqCst);
        if Omission::EntryLook.is_made() {
            return None;
        }
        self.touch(tenant);
        self.try_enter(tenant, bio)
    }

    /// Tells the submitter if one of the tenants of which a bio was refused has room now. The
    /// others stay marked.
    fn look_for_room(&mut self) {
        let mut refused = std::mem::take(&mut self.cpu.refused);
        refused.retain(|refusal| {
            let Refusal { tenant, op, is_waited_for } = *refusal;
            let entries = &self.cpu.entries;
            let has_room = entries.has_room(tenant, op)
                || (!entries.is_behind(tenant, op)
                    && self.could_pass(tenant, op)
                    && self.could_enter(tenant, is_waited_for));
            self.cpu.woken |= has_room;
            !has_room
        });
        self.cpu.refused = refused;
    }

    /// Whether the limits would let a bio pass; if not, a turn is wished for when they will.
    fn could_pass(&mut self, tenant: TenantId, op: Op) -> bool {
        let at = self.queue.tenants.passes_at(tenant, op, self.now);
        if at > self.now {
            self.wish_for_limit(at);
        }
        at <= self.now
    }

    /// Whether a bio of this tenant's could get in; if not, the submitter is marked.
    fn could_enter(&mut self, tenant: TenantId, is_waited_for: bool) -> bool {
        if self.pass.is_frozen() {
            return false;
        }
        self.touch(tenant);
        if self.could_enter_now(tenant, is_waited_for) {
            return true;
        }
        self.give_back_tags();
        self.queue.tenants.mark(tenant, self.cpu.ctx, self.wanted(is_waited_for));
        // Pair E1, the waiter's side, as in `enter`.
        fence(SeqCst);
        self.touch(tenant);
        self.could_enter_now(tenant, is_waited_for)
    }

    fn could_enter_now(&self, tenant: TenantId, is_waited_for: bool) -> bool {
        if self.cpu.tenants[tenant.0 as usize].room <= 0 {
            return false;
        }
        let tags = self.live.pool.tags();
        match (self.wanted(is_waited_for), self.live.async_depth) {
            (Wanted::Async, Some(depth)) => tags.has_free_shallow(depth),
            _ => !self.cpu.stash.is_empty() || tags.used() < tags.depth(),
        }
    }

    /// What kind of tag a bio needs.
    fn wanted(&self, is_waited_for: bool) -> Wanted {
        let is_held_down = self.live.async_depth.is_some() && !is_waited_for;
        if is_held_down { Wanted::Async } else { Wanted::Any }
    }

    fn try_enter(&mut self, tenant: TenantId, bio: &Bio) -> Option<Box<Body>> {
        if self.cpu.tenants[tenant.0 as usize].room <= 0 {
            return None;
        }
        match self.live.async_depth {
            Some(depth) if !is_waited_for(bio) => {
                let pool = &self.live.pool;
                let tag = pool.tags().get_shallow(&mut self.cpu.pool_hint, depth)?;
                Some(pool.body(tag))
            }
            _ => self.take_body(),
        }
    }

    /// Gives back the memory that a bio turned out not to need.
    fn unenter(&mut self, body: Box<Body>) {
        self.put_body(body);
    }

    /// The wait for one reason has ended, and that for the next begins.
    fn note_hold(&mut self, entry: &mut Entry, why: Hold) {
        let waited_ns = self.now.since(entry.since).as_nanos() as u64;
        self.queue.stats.held(self.cpu.ctx, entry.bio.volume, why, waited_ns);
        entry.since = self.now;
    }
}

/// Takes a bio, and leaves one with the same place and length but no memory.
fn take_whole(bio: &mut Bio) -> Bio {
    let bare = bio.clone_bare();
    std::mem::replace(bio, bare)
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
fn is_waited_for(bio: &Bio) -> bool {
    let waited_for = Flags::SYNC.union(Flags::FUA).union(Flags::PREFLUSH);
    !bio.op.is_write() || bio.flags.intersects(waited_for)
}

/// What a bio costs where bytes are limited.
#[inline]
fn bytes_of(bio: &Bio) -> u64 {
    if bio.op.has_data() { u64::from(bio.nr_sectors) << SECTOR_SHIFT } else { 0 }
}
