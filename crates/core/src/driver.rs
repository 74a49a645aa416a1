//! What a device implements, and what the layer asks of the world around it.

use std::time::Duration;

use crate::ids::{CtxId, HctxId};
use crate::limits::Limits;
use crate::request::{Abandoned, Done, InFlight};
use crate::status::Status;
use crate::time::Time;

/// A device under the layer (Linux's `blk_mq_ops`).
///
/// None of the functions may block. Each is called with the ring of the calling thread, so a driver
/// needs no lock for what it keeps there.
pub trait Driver: Send + Sync + 'static {
    /// What a thread keeps to talk to the device: an io_uring, a virtqueue, a list.
    type Ring: Send;

    /// What the device can take. Asked once, when the queue is made.
    fn limits(&self) -> Limits;

    /// Starts one request, or says why not. The driver owns `rq` from here to its completion.
    ///
    /// The device may be told later, at [`Driver::commit_rqs`].
    fn queue_rq(&self, ring: &mut Self::Ring, rq: InFlight) -> QueueRq;

    /// Tells the device of everything queued on this ring. Called after each batch, however the
    /// batch ended.
    fn commit_rqs(&self, ring: &mut Self::Ring);

    /// Hands what the device has finished on this ring to `end`, one after the other.
    fn reap(&self, ring: &mut Self::Ring, end: impl FnMut(InFlight, Status));

    /// A request on this ring has been in flight for longer than [`crate::Config::timeout`]. The
    /// layer may not take it away; it asks what is to be done. Unless a driver says otherwise, it
    /// is waited for as long again.
    fn timeout(&self, ring: &mut Self::Ring, expired: Expired) -> TimeoutAnswer {
        let _ = ring;
        expired.wait_as_long_again()
    }
}

/// A request that has been in flight for too long. Its tag is its own until the driver completes
/// it, so that it cannot be taken for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired {
    /// The hardware queue it went out on.
    pub hctx: HctxId,
    /// Its driver tag.
    pub tag: u32,
    /// The time now. When it was issued says [`InFlight::issued_at`].
    pub now: Time,
    /// How long a request may be in flight, as it is configured now; `None` for ever.
    pub timeout: Option<Duration>,
}

impl Expired {
    /// It may still come, and is waited for as long as a request that is issued now.
    pub fn wait_as_long_again(&self) -> TimeoutAnswer {
        TimeoutAnswer::WaitUntil(self.now + self.timeout.unwrap_or(Duration::MAX))
    }
}

/// What a driver says of a request that has been in flight for too long.
#[derive(Debug)]
pub enum TimeoutAnswer {
    /// It has ended, and the next reap will bring it.
    Done,
    /// It may still come; ask again then.
    WaitUntil(Time),
    /// The submitter is not to wait any longer: see [`InFlight::abandon`].
    Abandon(Abandoned),
}

/// A driver's answer to a request.
#[derive(Debug)]
pub enum QueueRq {
    /// Started; the driver will complete it.
    Queued,
    /// Not now. The request comes back, with the name of who will have it tried again.
    Busy(InFlight, Restarter),
    /// It has ended without being started.
    Failed(InFlight, Status),
}

/// Who has a refused request tried again. A busy answer without one cannot be written down, which
/// is why there is no timer that retries "just in case".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restarter {
    /// A request of the same hardware queue is in flight, and its completion will do it
    /// (`BLK_STS_DEV_RESOURCE`).
    Completion,
    /// The driver will call [`crate::Queue::kick`] for this hardware queue once it can take more.
    Kick,
    /// Nobody: try again at this time.
    RetryAt(Time),
}

/// Why a later run is wished for. Every timer that the layer asks for bears one of these, so that
/// progress made by a timer can be told from progress made by a kick.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wish {
    /// The scheduler idles, and named the time.
    SchedulerIdle,
    /// The driver was busy, and named the time.
    DriverRetry,
    /// A budget came back unused in mode `delayed`, and everybody is to look again, 3 ms later.
    BudgetRerun,
    /// A tenant's limit lets its next request pass then.
    Limit,
    /// A request that is in flight will have been so for too long.
    Timeout,
}

impl Wish {
    /// All of them.
    pub const ALL: [Wish; 5] =
        [Wish::SchedulerIdle, Wish::DriverRetry, Wish::BudgetRerun, Wish::Limit, Wish::Timeout];
}

/// What the layer asks of the world around it: the runtime, the simulator, or an explorer.
///
/// The functions are called from within a turn and must neither block nor call back into the queue.
pub trait Env: Send + Sync + 'static {
    /// Have the thread of `ctx` take a turn soon, with [`crate::Turn::run`]: a kick. It may not be
    /// lost; two kicks that come before the run may be answered by one run.
    fn kick(&self, ctx: CtxId);

    /// Have the thread of `ctx` take a turn at `at` or soon after, with [`crate::Turn::timer`]. Of
    /// several wishes for the same thread with the same reason, the earliest has to be kept.
    fn run_at(&self, ctx: CtxId, at: Time, why: Wish);

    /// A request that `ctx` submitted has ended in another thread's turn.
    fn deliver(&self, ctx: CtxId, done: Done);

    /// A quiesce or a freeze may have become complete: whoever waits for one asks again, by
    /// [`crate::Queue::is_quiesced`] or [`crate::Queue::is_frozen`].
    fn settled(&self) {}
}
