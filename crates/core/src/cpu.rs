//! What a thread brings to its turns, and keeps between them.

use std::sync::Arc;
use std::vec;

use crate::admission::{Credit, Entries};
use crate::bio::{TenantId, VolumeId};
use crate::driver::Driver;
use crate::elevator::Completion;
use crate::enter::Refusal;
use crate::ids::{CtxId, HctxId};
use crate::lane::Lanes;
use crate::live::Live;
use crate::request::{Done, Request};
use crate::stats::{Accounts, Tally};
use crate::tags::Bodies;
use crate::time::Time;
use crate::timeout::NEVER;

/// How many requests go to the device, or come from it, in one go.
pub(crate) const BATCH: usize = 32;

/// A thread as the layer sees it: its software queue, its hardware queues and its ring. What is in
/// here is the thread's alone and costs no synchronisation.
pub struct Cpu<D: Driver> {
    pub(crate) live: Arc<Live>,
    pub(crate) ring: D::Ring,
    pub(crate) side: Side,
}

/// A thread without its ring and its view of the queue, so that a turn can borrow all three.
pub(crate) struct Side {
    pub(crate) ctx: CtxId,
    /// Its side of each hardware queue that it uses.
    pub(crate) lanes: Lanes,
    /// What the scheduler has not yet been told.
    pub(crate) completions: Vec<Completion>,
    /// Chosen and not yet sent on; budget and tags for it are at hand.
    pub(crate) batch: Vec<Request>,
    /// Given back by the driver, for the scheduler.
    pub(crate) returned: Vec<Request>,
    pub(crate) done: Vec<Done>,
    /// Memory of requests at hand, and with it their scheduler tags: given back in this turn, or
    /// taken for several bios at once. Empty between turns.
    pub(crate) stash: Bodies,
    pub(crate) pool_hint: u32,
    /// Bios that wait to get in.
    pub(crate) entries: Entries,
    pub(crate) tenants: Box<[TenantSide]>,
    /// For whom bios come in without another look at anything.
    pub(crate) open: Open,
    /// Tenants that this turn has looked at.
    pub(crate) touched: Vec<u32>,
    /// The number of this turn.
    pub(crate) turn: u64,
    /// The kinds of bios that were refused and for which there has been no room since.
    pub(crate) refused: Vec<Refusal>,
    pub(crate) woken: bool,
    /// The wish that is out for a turn when a limit lets the next bio pass; zero if none is.
    pub(crate) limit_wish: Time,
    /// The wish that is out for a turn in which timeouts are looked at; never if none is.
    pub(crate) timeout_wish: Time,
    /// Requests that are polled for and in flight.
    pub(crate) polled: u32,
    pub(crate) counters: Counters,
    /// Where it counts what it does, for each volume.
    pub(crate) accounts: Arc<Accounts>,
    /// What has ended in this turn and is not in the accounts yet.
    pub(crate) tally: Tally,
    /// Likewise what has begun: of this volume, so many.
    pub(crate) begun: (VolumeId, u64),
}

/// A volume whose tenant was looked at in this turn: so many of its bios may come in as long as
/// nothing about them is out of the ordinary. What that means for the tenant's `room` is noted when
/// the next look is taken.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Open {
    pub(crate) volume: VolumeId,
    pub(crate) tenant: TenantId,
    pub(crate) is_limited: bool,
    /// How many were allowed, and how many of them are left.
    pub(crate) allowed: u32,
    pub(crate) left: u32,
}

/// What a thread knows of a tenant in one turn.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TenantSide {
    /// The turn it knows it from.
    pub(crate) turn: u64,
    /// How many more tags it may take.
    pub(crate) room: i32,
    /// Tags taken, less those given back, in this turn.
    pub(crate) more: i32,
    /// It has limits.
    pub(crate) is_limited: bool,
    /// Its bios have to be looked at more closely: some of them wait, or the queue is frozen.
    pub(crate) is_slow: bool,
    /// What its limits, if it has any, let pass in this turn.
    pub(crate) credit: Credit,
}

/// What a thread has done, for oracles and statistics. Nobody decides anything by these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bios that became requests, counting each piece of those that were cut.
    pub submitted: u64,
    /// Requests given to the device, counting each time.
    pub issued: u64,
    /// Bios ended, counting each piece of those that were cut.
    pub completed: u64,
    /// Passes of the dispatch code.
    pub passes: u64,
    /// Busy answers of the device.
    pub busy: u64,
    /// Kicks given to other threads.
    pub kicks: u64,
    /// Bios merged with others.
    pub merged: u64,
    /// Requests for which the device was asked because their time was over.
    pub expired: u64,
}

impl<D: Driver> Cpu<D> {
    pub(crate) fn new(
        ctx: CtxId,
        live: Arc<Live>,
        ring: D::Ring,
        nr_tenants: usize,
        entry_max: u32,
        accounts: Arc<Accounts>,
    ) -> Self {
        let capacity = live.nr_requests as usize;
        let lanes = Lanes::new(ctx, &live);
        let side = Side {
            ctx,
            lanes,
            completions: Vec::with_capacity(capacity),
            batch: Vec::with_capacity(BATCH),
            returned: Vec::with_capacity(BATCH),
            done: Vec::with_capacity(capacity),
            stash: Vec::with_capacity(capacity),
            // Neighbours begin in different words, so that they seldom meet.
            pool_hint: u32::from(ctx.0),
            entries: Entries::new(nr_tenants, entry_max),
            tenants: vec![TenantSide::default(); nr_tenants].into_boxed_slice(),
            open: Open::default(),
            touched: Vec::with_capacity(nr_tenants),
            turn: 0,
            refused: Vec::with_capacity(3 * nr_tenants),
            woken: false,
            limit_wish: Time::ZERO,
            timeout_wish: NEVER,
            polled: 0,
            counters: Counters::default(),
            accounts,
            tally: Tally::default(),
            begun: (VolumeId(0), 0),
        };
        Cpu { live, ring, side }
    }

    /// The submitter.
    pub fn ctx(&self) -> CtxId {
        self.side.ctx
    }

    /// The default hardware queue that this thread uses, as of its last turn.
    pub fn hctx(&self) -> HctxId {
        self.side.lanes[0].hctx
    }

    /// The thread's ring, to wait on.
    pub fn ring(&self) -> &D::Ring {
        &self.ring
    }

    /// The thread's ring, to set it up.
    pub fn ring_mut(&mut self) -> &mut D::Ring {
        &mut self.ring
    }

    /// The bios of this submitter that have ended in this thread's turns, in the order of their
    /// ending. Those that ended in another thread's come through [`crate::Env::deliver`].
    pub fn take_done(&mut self) -> vec::Drain<'_, Done> {
        self.side.done.drain(..)
    }

    /// Whether bios have ended that were not taken yet.
    pub fn has_done(&self) -> bool {
        !self.side.done.is_empty()
    }

    /// Whether there is room again for this submitter, since a bio of its was refused.
    pub fn take_woken(&mut self) -> bool {
        std::mem::take(&mut self.side.woken)
    }

    /// How many of this submitter's bios wait to get in.
    pub fn nr_waiting(&self) -> usize {
        self.side.entries.len()
    }

    /// Whether requests are in flight whose end nobody announces: the thread has to go on reaping.
    pub fn must_poll(&self) -> bool {
        self.side.polled > 0
    }

    /// What the thread has done so far.
    pub fn counters(&self) -> &Counters {
        &self.side.counters
    }
}
