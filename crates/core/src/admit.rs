//! How bios get in that had to wait: limits, their tenant's share, a scheduler tag; and what marks
//! and wishes see to it that they are looked at again.

use std::time::Duration;

use crate::admission::{Entry, Wanted};
use crate::bio::{Bio, Op, TenantId};
use crate::driver::{Driver, Env, Wish};
use crate::enter::{Refusal, is_waited_for};
use crate::request::{Body, Done, Memory};
use crate::split;
use crate::stats::Hold;
use crate::status::Status;
use crate::sync::{Omission, SeqCst, fence};
use crate::time::Time;
use crate::turn::Turn;

/// A limit's next request is not looked for before so much time has passed.
const LIMIT_STEP: Duration = Duration::from_micros(1);

impl<D: Driver, E: Env> Turn<'_, D, E> {
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

    /// Lets a bio in, all of it; or as much of it as can come in, and whoever or whatever holds the
    /// rest will have this thread take a turn.
    pub(crate) fn let_in(&mut self, tenant: TenantId, entry: &mut Entry) -> bool {
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

    pub(crate) fn try_enter(&mut self, tenant: TenantId, bio: &Bio) -> Option<Box<Body>> {
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
    pub(crate) fn unenter(&mut self, body: Box<Body>) {
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
