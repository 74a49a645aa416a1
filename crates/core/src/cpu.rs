//! What a thread brings to its turns, and keeps between them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::vec;

use crate::admission::{Credit, Entries};
use crate::bio::VolumeId;
use crate::budget::Tokens;
use crate::driver::Driver;
use crate::elevator::Completion;
use crate::enter::Refusal;
use crate::ids::{CtxId, HctxId};
use crate::live::{HctxType, Live};
use crate::request::{Done, InFlight, Request};
use crate::stats::{Accounts, Tally};
use crate::status::Status;
use crate::tags::TagRun;
use crate::time::Time;
use crate::timeout::NEVER;

/// How many requests go to the device, or come from it, in one go.
pub(crate) const BATCH: usize = 32;

/// A thread as the layer sees it: its software queue, its hardware queues and its ring. What is in
/// here is the thread's alone and costs no synchronisation.
pub struct Cpu<D: Driver> {
    pub(crate) live: Arc<Live>,
    pub(crate) side: Side<D>,
}

/// A thread without its view of the queue, so that a turn can borrow both.
pub(crate) struct Side<D: Driver> {
    pub(crate) ctx: CtxId,
    pub(crate) ring: D::Ring,
    /// Its side of each hardware queue that it uses, the default one first.
    pub(crate) lanes: Vec<Lane>,
    /// The lane for each kind of request.
    lane_of: [u8; 3],
    /// What the scheduler has not yet been told.
    pub(crate) completions: Vec<Completion>,
    /// Chosen by the scheduler and not yet sent on.
    pub(crate) batch: VecDeque<Request>,
    /// Given back by the driver, for the scheduler.
    pub(crate) returned: Vec<Request>,
    pub(crate) reaped: Vec<(InFlight, Status)>,
    pub(crate) done: Vec<Done>,
    /// Scheduler tags at hand: given back in this turn, or taken for several bios at once.
    pub(crate) stash: TagRun,
    pub(crate) pool_hint: u32,
    /// Bios that wait to get in.
    pub(crate) entries: Entries,
    pub(crate) tenants: Box<[TenantSide]>,
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

/// A thread's side of one hardware queue.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) hctx: HctxId,
    /// Submitted in this turn and not yet sent on.
    pub(crate) plug: VecDeque<Request>,
    /// Driver tags and budget at hand: given back in this turn, or taken for several requests at
    /// once. Empty between turns.
    pub(crate) purse: Purse,
    pub(crate) tag_hint: u32,
    /// The software queue to serve next, so that each comes round.
    pub(crate) cursor: usize,
    /// It has to be run.
    pub(crate) due: bool,
    /// Its last run ended at a busy answer, whose restarter sees to the rest.
    pub(crate) busy: bool,
    /// The last try to get a tag left a mark, and we have put no tag back since: the mark is for
    /// whoever does.
    pub(crate) rests_on_tag: bool,
}

/// What it takes to send requests.
#[derive(Debug, Default)]
pub(crate) struct Purse {
    pub(crate) tags: TagRun,
    pub(crate) tokens: Tokens,
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
        let mut side = Side {
            ctx,
            ring,
            lanes: Vec::new(),
            lane_of: [0; 3],
            completions: Vec::with_capacity(capacity),
            batch: VecDeque::with_capacity(BATCH),
            returned: Vec::with_capacity(BATCH),
            reaped: Vec::with_capacity(BATCH),
            done: Vec::with_capacity(capacity),
            stash: TagRun::default(),
            // Neighbours begin in different words, so that they seldom meet.
            pool_hint: u32::from(ctx.0),
            entries: Entries::new(nr_tenants, entry_max),
            tenants: vec![TenantSide::default(); nr_tenants].into_boxed_slice(),
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
        side.make_lanes(&live);
        Cpu { live, side }
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
        &self.side.ring
    }

    /// The thread's ring, to set it up.
    pub fn ring_mut(&mut self) -> &mut D::Ring {
        &mut self.side.ring
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

impl<D: Driver> Side<D> {
    /// Lays the lanes anew, after the hardware queues have changed.
    pub(crate) fn make_lanes(&mut self, live: &Live) {
        assert!(self.lanes.iter().all(Lane::is_idle), "a lane that goes holds nothing");
        self.lanes.clear();
        for kind in [HctxType::Default, HctxType::Read, HctxType::Poll] {
            // With a scheduler everything goes by the queue of whoever dispatches it.
            let kind_of_queue = if live.elevator.is_some() { HctxType::Default } else { kind };
            let hctx = live.maps.hctx(self.ctx, kind_of_queue);
            let known = self.lanes.iter().position(|lane| lane.hctx == hctx);
            let lane = known.unwrap_or_else(|| {
                self.lanes.push(Lane::new(hctx, live.nr_requests, self.ctx));
                self.lanes.len() - 1
            });
            self.lane_of[kind as usize] = lane as u8;
        }
    }

    /// The lane of a kind of request.
    #[inline]
    pub(crate) fn lane_of(&self, kind: HctxType) -> usize {
        usize::from(self.lane_of[kind as usize])
    }

    /// The lane of a hardware queue, if this thread uses it.
    #[inline]
    pub(crate) fn lane_of_hctx(&self, hctx: HctxId) -> Option<usize> {
        if self.lanes[0].hctx == hctx {
            return Some(0);
        }
        self.lanes.iter().position(|lane| lane.hctx == hctx)
    }
}

impl Lane {
    fn new(hctx: HctxId, nr_requests: u32, ctx: CtxId) -> Self {
        Lane {
            hctx,
            plug: VecDeque::with_capacity(nr_requests as usize),
            purse: Purse::default(),
            tag_hint: u32::from(ctx.0),
            cursor: 0,
            due: false,
            busy: false,
            rests_on_tag: false,
        }
    }

    fn is_idle(&self) -> bool {
        self.plug.is_empty() && self.purse.tags.is_empty() && self.purse.tokens.count() == 0
    }
}
