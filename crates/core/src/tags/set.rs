//! Driver tags shared by several queues: the devices behind one host adapter.

use std::sync::Arc;

use crossbeam_utils::CachePadded;

use super::driver_tags::{DriverTags, TagKind};
use super::sbitmap::{Sbitmap, Tag};
use super::shares::Shares;
use super::user::TagUser;
use super::wait::WaitQueue;
use crate::ids::HctxId;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Relaxed, SeqCst, fence};

/// The most users that a set can be made for.
const USERS_MAX: u32 = 4096;

/// Driver tags shared by the hardware queues of the same number of several queues (Linux's tag
/// set).
///
/// Each queue joins as a [`TagUser`]. Those that are active have fair shares, as in Linux: a user
/// may have `max(ceil(depth / users), 4)` of the normal tags of a hardware queue; who is alone, or
/// where there is but one tag, may have all. If all the hardware queues of a queue are to share the
/// same tags, the set is made with one hardware queue and the queue joins once for each of its own.
///
/// Who waits and who is kicked is described in `wait.rs`.
#[derive(Debug)]
pub struct TagSet {
    lanes: Box<[Lane]>,
    /// The places of the users.
    seats: Sbitmap,
    waits: TagWaits,
}

/// The shared tags of one hardware queue.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) tags: DriverTags,
    pub(super) shares: CachePadded<Shares>,
    /// Who waits for normal tags, and for reserved ones where there are some.
    normal: WaitQueue,
    reserved: Option<WaitQueue>,
    pub(super) seats: Box<[CachePadded<Seat>]>,
}

/// One user at the tags of one hardware queue.
#[derive(Debug)]
pub(super) struct Seat {
    /// How many normal tags it has out; for moments fewer than it has.
    pub(super) normal_out: AtomicU32,
    pub(super) reserved_out: AtomicU32,
    /// It is among those who share.
    pub(super) is_active: AtomicBool,
    /// What the user is called in kicks.
    handle: AtomicU64,
}

/// Somebody to be kicked: tags have come free that it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagKick {
    /// The handle with which the user joined. The user may have left since; then the kick is to be
    /// ignored.
    pub user: u64,
    /// The hardware queue that waited.
    pub hctx: HctxId,
}

/// What is done to lose no wake-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TagWaits {
    /// What has to be done. Our default.
    #[default]
    Handoff,
    /// There is no fence between waiting and the second try: Linux before commit 5266caaf5660.
    /// Stalls on machines that reorder; kept for the lab, which must catch it.
    NoFence,
    /// Who was kicked and takes no tag passes the wake-up on to nobody: Linux before commit
    /// e6fc46498784, where the woken one had moved to another hardware queue. Stalls; kept for the
    /// lab, which must catch it.
    NoPassOn,
}

/// There are as many users as the set was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagSetFull;

impl TagSet {
    /// A set for up to `nr_users_max` users (1 to 4096) with `nr_hw_queues` hardware queues (at
    /// least 1), which have `nr_tags` tags each, of which `nr_reserved` are reserved. Everything it
    /// will ever need is allocated here.
    ///
    /// # Panics
    ///
    /// If a number is outside its range, or all tags would be reserved.
    pub fn new(nr_tags: u32, nr_reserved: u32, nr_hw_queues: u16, nr_users_max: u32) -> Arc<Self> {
        Self::with_waits(nr_tags, nr_reserved, nr_hw_queues, nr_users_max, TagWaits::default())
    }

    /// As [`TagSet::new`], with something left out; for the lab.
    pub fn with_waits(
        nr_tags: u32,
        nr_reserved: u32,
        nr_hw_queues: u16,
        nr_users_max: u32,
        waits: TagWaits,
    ) -> Arc<Self> {
        assert!(nr_hw_queues > 0, "a tag set has a hardware queue");
        assert!((1..=USERS_MAX).contains(&nr_users_max), "a tag set has 1 to {USERS_MAX} users");
        let lane = |_| Lane::new(nr_tags, nr_reserved, nr_users_max);
        Arc::new(TagSet {
            lanes: (0..nr_hw_queues).map(lane).collect(),
            seats: Sbitmap::new(nr_users_max),
            waits,
        })
    }

    /// A queue joins. Kicks call it `handle`, which its users choose.
    ///
    /// # Errors
    ///
    /// If the set is full.
    pub fn join(self: &Arc<Self>, handle: u64) -> Result<TagUser, TagSetFull> {
        let seat = self.seats.get(&mut 0).ok_or(TagSetFull)?;
        for lane in &self.lanes {
            lane.seats[seat.index() as usize].handle.store(handle, Relaxed);
        }
        Ok(TagUser::new(Arc::clone(self), seat))
    }

    /// The tags of a hardware queue, for counting.
    ///
    /// # Panics
    ///
    /// If there is no such hardware queue.
    pub fn tags(&self, hctx: HctxId) -> &DriverTags {
        &self.lane(hctx).tags
    }

    /// How many users share the tags of a hardware queue at the moment.
    pub fn nr_active(&self, hctx: HctxId) -> u16 {
        self.lane(hctx).shares.load().users
    }

    /// The number of hardware queues.
    pub fn nr_hw_queues(&self) -> u16 {
        self.lanes.len() as u16
    }

    pub(super) fn waits(&self) -> TagWaits {
        self.waits
    }

    #[inline]
    pub(super) fn lane(&self, hctx: HctxId) -> &Lane {
        &self.lanes[usize::from(hctx.0)]
    }

    /// A user has left, and looks for who may have what it had.
    pub(super) fn leave(&self, seat: Tag, mut kick: impl FnMut(TagKick)) {
        let number = seat.index();
        for lane in &self.lanes {
            lane.vacate(number);
        }
        self.seats.put(seat);
        // Pair T2: the place is empty before those who wait are looked at.
        fence(SeqCst);
        for (hctx, lane) in self.lanes.iter().enumerate() {
            lane.wake(HctxId(hctx as u16), &mut kick);
        }
    }
}

impl Lane {
    fn new(nr_tags: u32, nr_reserved: u32, nr_users_max: u32) -> Self {
        let tags = DriverTags::new(nr_tags, nr_reserved);
        Lane {
            shares: CachePadded::new(Shares::new(tags.depth(TagKind::Normal))),
            tags,
            normal: WaitQueue::new(nr_users_max),
            reserved: (nr_reserved > 0).then(|| WaitQueue::new(nr_users_max)),
            seats: (0..nr_users_max).map(|_| CachePadded::new(Seat::new())).collect(),
        }
    }

    /// Who waits for tags of a kind; nobody can for what there is none of.
    pub(super) fn queue(&self, kind: TagKind) -> Option<&WaitQueue> {
        match kind {
            TagKind::Normal => Some(&self.normal),
            TagKind::Reserved => self.reserved.as_ref(),
        }
    }

    /// Whatever kick `seat` was given is answered. Answers whether there was one; see
    /// [`WaitQueue::answer`].
    #[inline]
    pub(super) fn answer(&self, seat: u32) -> bool {
        let normal = self.normal.answer(seat);
        let reserved = self.reserved.as_ref().is_some_and(|queue| queue.answer(seat));
        normal || reserved
    }

    /// Kicks who can use what is free. The caller has executed a full fence since it put tags back,
    /// answered a kick or let a share grow (pair T2, the side of who puts back).
    #[inline]
    pub(super) fn wake(&self, hctx: HctxId, kick: &mut impl FnMut(TagKick)) {
        if self.normal.is_waited_for() {
            self.wake_kind(TagKind::Normal, &self.normal, hctx, kick);
        }
        if let Some(reserved) = self.reserved.as_ref().filter(|queue| queue.is_waited_for()) {
            self.wake_kind(TagKind::Reserved, reserved, hctx, kick);
        }
    }

    #[cold]
    fn wake_kind(
        &self,
        kind: TagKind,
        queue: &WaitQueue,
        hctx: HctxId,
        kick: &mut impl FnMut(TagKick),
    ) {
        let share = self.shares.load();
        let seat = |seat: u32| &self.seats[seat as usize];
        // Whoever makes a user eligible that is passed over here (by a put of its own, or by
        // becoming idle) looks again after that.
        let eligible = |number| match kind {
            TagKind::Normal => seat(number).normal_out.load(Relaxed) < share.most,
            TagKind::Reserved => true,
        };
        queue.wake(self.tags.free(kind), share.wake_batch, eligible, |number| {
            kick(TagKick { user: seat(number).handle.load(Relaxed), hctx });
        });
    }

    fn vacate(&self, number: u32) {
        let seat = &self.seats[number as usize];
        let out = seat.normal_out.load(Relaxed) + seat.reserved_out.load(Relaxed);
        assert!(out == 0, "a user leaves its tag set when all its tags are back");
        self.normal.leave(number);
        if let Some(reserved) = &self.reserved {
            reserved.leave(number);
        }
        if seat.is_active.swap(false, Relaxed) {
            self.shares.remove_user();
        }
    }
}

impl Seat {
    fn new() -> Self {
        Seat {
            normal_out: AtomicU32::new(0),
            reserved_out: AtomicU32::new(0),
            is_active: AtomicBool::new(false),
            handle: AtomicU64::new(0),
        }
    }
}
