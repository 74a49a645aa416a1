//! The tenants of a queue: their shares of the scheduler tags, and who waits for one.
//!
//! First come, first served would undo any weight: a tenant with many requests would hold all tags,
//! and the scheduler could only choose among its requests. So every tenant has two tags that are
//! kept for it, and the rest is shared by weight among those that are active. A tenant is active
//! while it has a request in the layer.

use crossbeam_utils::CachePadded;

use super::limit::{Credit, Limiter, Passed, Rates};
use crate::bio::{Op, TenantId, VolumeId};
use crate::bitmap::Bitmap;
use crate::ids::CtxId;
use crate::sync::{AtomicU32, Relaxed};
use crate::time::Time;

/// The number of a group of tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupId(pub u32);

/// How a tenant is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantConfig {
    /// Its weight, 1 to 1000.
    pub weight: u32,
    /// Its limits.
    pub limits: Rates,
    /// The group whose limits it shares with others.
    pub group: Option<GroupId>,
}

impl Default for TenantConfig {
    /// Weight 100, no limits, no group.
    fn default() -> Self {
        TenantConfig { weight: 100, limits: Rates::default(), group: None }
    }
}

/// Tags that are kept for each tenant.
const KEPT: u32 = 2;

/// All tenants of a queue.
#[derive(Debug)]
pub(crate) struct Tenants {
    tenants: Box<[CachePadded<Tenant>]>,
    groups: Box<[Limiter]>,
    /// Whose each volume is.
    owners: Box<[TenantId]>,
    /// The weights of all that are active.
    active_weight: CachePadded<AtomicU32>,
    /// Which tenants have somebody waiting for a tag, by [`Wanted`].
    waiting: [CachePadded<Bitmap>; 2],
}

/// What kind of tag somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Any.
    Any,
    /// One of those that requests may have for which nobody waits.
    Async,
}

#[derive(Debug)]
struct Tenant {
    weight: AtomicU32,
    limiter: Limiter,
    group: Option<GroupId>,
    /// Scheduler tags that its requests hold.
    used: AtomicU32,
    /// The weight with which it counts among the active ones; zero while it is not.
    counted: AtomicU32,
    /// Which submitters wait for a tag on its behalf, by [`Wanted`].
    waiting: [Bitmap; 2],
}

impl Tenants {
    /// # Panics
    ///
    /// If a volume is of a tenant, or a tenant of a group, that is not there, or there is no tenant.
    pub(crate) fn new(
        tenants: &[TenantConfig],
        groups: &[Rates],
        owners: &[TenantId],
        nr_ctx: usize,
    ) -> Self {
        assert!(!tenants.is_empty(), "a queue has a tenant");
        assert!(owners.iter().all(|of| (of.0 as usize) < tenants.len()), "a volume has a tenant");
        let group_is_there = |group: GroupId| (group.0 as usize) < groups.len();
        let tenant = |config: &TenantConfig| {
            assert!(config.group.is_none_or(group_is_there), "a tenant's group is there");
            CachePadded::new(Tenant {
                weight: AtomicU32::new(config.weight.max(1)),
                limiter: Limiter::new(&config.limits),
                group: config.group,
                used: AtomicU32::new(0),
                counted: AtomicU32::new(0),
                waiting: [Bitmap::new(nr_ctx), Bitmap::new(nr_ctx)],
            })
        };
        Tenants {
            tenants: tenants.iter().map(tenant).collect(),
            groups: groups.iter().map(Limiter::new).collect(),
            owners: owners.into(),
            active_weight: CachePadded::new(AtomicU32::new(0)),
            waiting: [0, 1].map(|_| CachePadded::new(Bitmap::new(tenants.len()))),
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.tenants.len()
    }

    /// Whose a volume is; nothing if there is no such volume.
    #[inline]
    pub(crate) fn owner(&self, volume: VolumeId) -> Option<TenantId> {
        self.owners.get(volume.0 as usize).copied()
    }

    /// Whether requests of this tenant have to be held to limits.
    #[inline]
    pub(crate) fn is_limited(&self, id: TenantId) -> bool {
        let tenant = self.tenant(id);
        tenant.limiter.is_live() || self.group_of(tenant).is_some_and(Limiter::is_live)
    }

    /// When all its limits together will let a request pass.
    pub(crate) fn passes_at(&self, id: TenantId, op: Op, now: Time) -> Time {
        let tenant = self.tenant(id);
        let own_at = tenant.limiter.passes_at(op, now);
        self.group_of(tenant).map_or(own_at, |group| group.passes_at(op, now).max(own_at))
    }

    /// What a tenant's limits let pass now.
    pub(crate) fn credit(&self, id: TenantId, now: Time) -> Credit {
        let tenant = self.tenant(id);
        let mut credit = Credit::default();
        tenant.limiter.curb(&mut credit, now);
        if let Some(group) = self.group_of(tenant) {
            group.curb(&mut credit, now);
        }
        credit
    }

    /// Charges what has passed on a credit.
    pub(crate) fn charge(&self, id: TenantId, credit: &mut Credit, now: Time) {
        let tenant = self.tenant(id);
        for (op, passed) in [Op::Read, Op::Write].into_iter().zip(&mut credit.passed) {
            let Passed { ios, bytes } = std::mem::take(passed);
            if ios == 0 {
                continue;
            }
            tenant.limiter.charge(op, ios, bytes, now);
            if let Some(group) = self.group_of(tenant) {
                group.charge(op, ios, bytes, now);
            }
        }
    }

    /// How many more tags a tenant may take of `nr_requests`; negative if it has too many, because
    /// others have become active since. Who is alone may take them all: the tags themselves are the
    /// bound, and nothing is counted for it that all its threads would meet at.
    #[inline]
    pub(crate) fn room(&self, id: TenantId, nr_requests: u32) -> i32 {
        if self.is_one() {
            return nr_requests as i32;
        }
        let used = self.tenant(id).used.load(Relaxed);
        self.share(id, used, nr_requests) as i32 - used as i32
    }

    /// Notes that a tenant's requests hold `more` tags than before, or fewer.
    pub(crate) fn change_used(&self, id: TenantId, more: i32) {
        if self.is_one() {
            return;
        }
        let tenant = self.tenant(id);
        let before = tenant.used.fetch_add(more.cast_unsigned(), Relaxed);
        let after = before.wrapping_add(more.cast_unsigned());
        // A thread may note what another took before that one has noted it, so the number may be
        // "negative" for a moment.
        if (before.cast_signed() > 0) != (after.cast_signed() > 0) {
            self.count(tenant);
        }
    }

    /// Brings what a tenant counts for in line with whether it is active. What is added to the sum
    /// is what the exchange changed, so the sum is that of all `counted`, whoever was quicker.
    fn count(&self, tenant: &Tenant) {
        loop {
            let is_active = |tenant: &Tenant| tenant.used.load(Relaxed).cast_signed() > 0;
            let counts = is_active(tenant);
            let weight = if counts { tenant.weight.load(Relaxed) } else { 0 };
            let before = tenant.counted.swap(weight, Relaxed);
            self.active_weight.fetch_add(weight.wrapping_sub(before), Relaxed);
            if is_active(tenant) == counts {
                return;
            }
        }
    }

    /// Marks that `ctx` waits for a tag on a tenant's behalf. A full fence and another look follow
    /// (pair E1, the waiter's side).
    pub(crate) fn mark(&self, id: TenantId, ctx: CtxId, wanted: Wanted) {
        self.tenant(id).waiting[wanted as usize].set(usize::from(ctx.0));
        self.waiting[wanted as usize].set(id.0 as usize);
    }

    /// Whether anybody waits, as far as can be seen without a fence.
    #[inline]
    pub(crate) fn has_waiters(&self) -> bool {
        !self.waiting[0].is_empty() || !self.waiting[1].is_empty()
    }

    /// Takes marks of those who wait and have room, at most `free` of them, and answers each to
    /// `wake`. The caller has executed a full fence since it gave tags back and noted so (pair E1,
    /// the holder's side).
    pub(crate) fn wake(
        &self,
        wanted: Wanted,
        mut free: u32,
        nr_requests: u32,
        from: usize,
        mut wake: impl FnMut(CtxId),
    ) {
        let all = &self.waiting[wanted as usize];
        if all.is_empty() {
            return;
        }
        for nth in 0..self.tenants.len() {
            let index = (from + nth) % self.tenants.len();
            let id = TenantId(index as u32);
            if free == 0 {
                return;
            }
            if !all.contains(index) || self.room(id, nr_requests) <= 0 {
                continue;
            }
            let mut room = free.min(self.room(id, nr_requests).max(0).cast_unsigned());
            let is_taken = all.take(index);
            let waiting = &self.tenants[index].waiting[wanted as usize];
            while room > 0 {
                let Some(ctx) = waiting.take_from(0) else { break };
                wake(CtxId(ctx as u16));
                (room, free) = (room - 1, free - 1);
            }
            if is_taken && !waiting.is_empty() {
                // More wait than there was room for.
                all.set(index);
            }
        }
    }

    /// The weight of a tenant.
    pub(crate) fn weight(&self, id: TenantId) -> u32 {
        self.tenant(id).weight.load(Relaxed)
    }

    /// Changes the weight of a tenant. Those who wait have to look again.
    pub(crate) fn set_weight(&self, id: TenantId, weight: u32) {
        let tenant = self.tenant(id);
        tenant.weight.store(weight.max(1), Relaxed);
        self.count(tenant);
    }

    /// Changes the limits of a tenant. Those who wait have to look again.
    pub(crate) fn set_limits(&self, id: TenantId, limits: &Rates) {
        self.tenant(id).limiter.set(limits);
    }

    /// Changes the limits of a group. Those who wait have to look again.
    pub(crate) fn set_group_limits(&self, id: GroupId, limits: &Rates) {
        self.groups[id.0 as usize].set(limits);
    }

    /// Tags that a tenant's requests hold, and its share of `nr_requests`, of which `all_used` are
    /// out.
    pub(crate) fn used_and_share(
        &self,
        id: TenantId,
        nr_requests: u32,
        all_used: u32,
    ) -> (u32, u32) {
        if self.is_one() {
            return (all_used, nr_requests);
        }
        let used = self.tenant(id).used.load(Relaxed);
        (used, self.share(id, used, nr_requests))
    }

    #[inline]
    fn share(&self, id: TenantId, used: u32, nr_requests: u32) -> u32 {
        let nr_tenants = self.tenants.len() as u32;
        let kept = KEPT.min(nr_requests / nr_tenants);
        let rest = nr_requests - kept * nr_tenants;
        let weight = self.tenant(id).weight.load(Relaxed);
        let active = self.active_weight.load(Relaxed);
        let is_active = used.cast_signed() > 0;
        let all = if is_active { active.max(weight) } else { active.saturating_add(weight) };
        let by_weight = u64::from(rest) * u64::from(weight) / u64::from(all);
        (kept + by_weight as u32).max(1)
    }

    #[inline]
    fn is_one(&self) -> bool {
        self.tenants.len() == 1
    }

    #[inline]
    fn tenant(&self, id: TenantId) -> &Tenant {
        &self.tenants[id.0 as usize]
    }

    #[inline]
    fn group_of(&self, tenant: &Tenant) -> Option<&Limiter> {
        tenant.group.map(|group| &self.groups[group.0 as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenants(weights: &[u32]) -> Tenants {
        let config = |weight: &u32| TenantConfig { weight: *weight, ..TenantConfig::default() };
        let configs: Vec<_> = weights.iter().map(config).collect();
        Tenants::new(&configs, &[], &[TenantId(0)], 4)
    }

    #[test]
    fn a_tenant_alone_has_all_but_what_is_kept_for_the_others() {
        let all = tenants(&[100, 100, 800]);
        assert_eq!(all.room(TenantId(0), 64), 64 - 4);
        all.change_used(TenantId(0), 60);
        assert_eq!(all.room(TenantId(0), 64), 0);
        // The others have their two tags, and as soon as they use one their share of the rest.
        assert!(all.room(TenantId(2), 64) >= 2);
        all.change_used(TenantId(2), 1);
        assert_eq!(all.room(TenantId(2), 64), 2 + 58 * 8 / 9 - 1);
        assert_eq!(all.room(TenantId(0), 64), 2 + 58 / 9 - 60);
        all.change_used(TenantId(2), -1);
        assert_eq!(all.room(TenantId(0), 64), 0);
        let alone = tenants(&[7]);
        alone.change_used(TenantId(0), 3);
        assert_eq!(alone.room(TenantId(0), 5), 5, "the tags are the bound");
        assert_eq!(alone.used_and_share(TenantId(0), 5, 3), (3, 5));
    }

    #[test]
    fn those_who_have_room_are_woken_and_no_more_than_tags_are_free() {
        let all = tenants(&[100, 100]);
        all.change_used(TenantId(0), 40);
        all.change_used(TenantId(1), 1);
        for ctx in 0..3 {
            all.mark(TenantId(0), CtxId(ctx), Wanted::Any);
            all.mark(TenantId(1), CtxId(ctx), Wanted::Any);
        }
        let mut woken = Vec::new();
        all.wake(Wanted::Any, 2, 64, 0, |ctx| woken.push(ctx.0));
        assert_eq!(woken, [0, 1], "tenant 0 is over its share");
        all.wake(Wanted::Any, 5, 64, 0, |ctx| woken.push(ctx.0));
        assert_eq!(woken, [0, 1, 2]);
        all.change_used(TenantId(0), -39);
        all.wake(Wanted::Any, 1, 64, 0, |ctx| woken.push(ctx.0));
        assert_eq!(woken, [0, 1, 2, 0]);
        assert!(all.has_waiters());
    }

    #[test]
    fn weights_change_under_way() {
        let all = tenants(&[100, 100]);
        all.change_used(TenantId(0), 1);
        all.change_used(TenantId(1), 1);
        assert_eq!(all.used_and_share(TenantId(0), 104, 2).1, 2 + 50);
        all.set_weight(TenantId(0), 300);
        assert_eq!(all.used_and_share(TenantId(0), 104, 2).1, 2 + 75);
        assert_eq!(all.used_and_share(TenantId(1), 104, 2).1, 2 + 25);
        assert_eq!(all.weight(TenantId(0)), 300);
    }
}
