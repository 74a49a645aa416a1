//! What a thread brings to its turns, and keeps between them.

use std::collections::{VecDeque, vec_deque};

use crate::driver::Driver;
use crate::elevator::Completion;
use crate::ids::{CtxId, HctxId};
use crate::request::{Done, InFlight, Request};
use crate::status::Status;

/// How many requests go to the device, or come from it, in one go.
pub(crate) const BATCH: usize = 32;

/// A thread as the layer sees it: its software queue, its hardware queue and its ring. What is in
/// here is the thread's alone and costs no synchronisation.
pub struct Cpu<D: Driver> {
    pub(crate) ctx: CtxId,
    pub(crate) hctx: HctxId,
    pub(crate) ring: D::Ring,
    /// Submitted in this turn and not yet sent on.
    pub(crate) plug: VecDeque<Request>,
    /// What the scheduler has not yet been told.
    pub(crate) completions: Vec<Completion>,
    /// Chosen by the scheduler and not yet sent on.
    pub(crate) batch: VecDeque<Request>,
    /// Given back by the driver, for the scheduler.
    pub(crate) returned: Vec<Request>,
    pub(crate) reaped: Vec<(InFlight, Status)>,
    pub(crate) done: VecDeque<Done>,
    pub(crate) pool_hint: u32,
    pub(crate) tag_hint: u32,
    /// The software queue to serve next, so that each comes round.
    pub(crate) cursor: usize,
    pub(crate) woken: bool,
    pub(crate) counters: Counters,
}

/// What a thread has done, for oracles and statistics. Nobody decides anything by these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests taken in.
    pub submitted: u64,
    /// Requests given to the device, counting each time.
    pub issued: u64,
    /// Requests ended.
    pub completed: u64,
    /// Passes of the dispatch code.
    pub passes: u64,
    /// Busy answers of the device.
    pub busy: u64,
    /// Kicks given to other hardware queues.
    pub kicks: u64,
}

impl<D: Driver> Cpu<D> {
    pub(crate) fn new(ctx: CtxId, hctx: HctxId, ring: D::Ring, nr_requests: u32) -> Self {
        let capacity = nr_requests as usize;
        Cpu {
            ctx,
            hctx,
            ring,
            plug: VecDeque::with_capacity(capacity),
            completions: Vec::with_capacity(capacity),
            batch: VecDeque::with_capacity(BATCH),
            returned: Vec::with_capacity(BATCH),
            reaped: Vec::with_capacity(BATCH),
            done: VecDeque::with_capacity(capacity),
            // Neighbours begin in different words, so that they seldom meet.
            pool_hint: u32::from(ctx.0),
            tag_hint: u32::from(ctx.0),
            cursor: 0,
            woken: false,
            counters: Counters::default(),
        }
    }

    /// The submitter.
    pub fn ctx(&self) -> CtxId {
        self.ctx
    }

    /// The hardware queue that this thread serves.
    pub fn hctx(&self) -> HctxId {
        self.hctx
    }

    /// The thread's ring, to wait on.
    pub fn ring(&self) -> &D::Ring {
        &self.ring
    }

    /// The thread's ring, to set it up.
    pub fn ring_mut(&mut self) -> &mut D::Ring {
        &mut self.ring
    }

    /// The requests of this submitter that have ended in this thread's turns, in the order of their
    /// ending. Those that ended in another thread's come through [`crate::Env::deliver`].
    pub fn take_done(&mut self) -> vec_deque::Drain<'_, Done> {
        self.done.drain(..)
    }

    /// Whether requests have ended that were not taken yet.
    pub fn has_done(&self) -> bool {
        !self.done.is_empty()
    }

    /// Whether a tag has come free for this submitter since it was last asked, in a turn of its
    /// own. The counterpart of [`crate::Env::wake`].
    pub fn take_woken(&mut self) -> bool {
        std::mem::take(&mut self.woken)
    }

    /// What the thread has done so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}
