//! One thread's side of a model whose requests take their time.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use blkmq_core::{Expired, HctxId, InFlight, Op, QueueRq, Restarter, Status, TimeoutAnswer};
use blkmq_models::{BusyKind, Fate, ModelOp, ModelRequest, Outcome, Start};

use super::timer::Timer;
use super::{Shared, State};

/// A ring: a queue of the machine, the requests that are in flight on it, and a timer for when the
/// next of them ends.
#[derive(Debug)]
pub(super) struct Timed {
    shared: Arc<Shared>,
    /// The number of its queue.
    queue: usize,
    /// By driver tag, which is also what the machine knows a request by. A ring serves one hardware
    /// queue, so no two bear the same.
    in_flight: Box<[Option<InFlight>]>,
    /// When there is something to reap, or a kick to be given; `u64::MAX` for never.
    next_event_ns: u64,
    timer: Timer,
    /// What the machine has ended.
    ended: Vec<(u64, Outcome)>,
    /// The queues that the machine owes a kick, and their hardware queues.
    owed: Vec<usize>,
    kicks: Vec<HctxId>,
}

impl Timed {
    pub(super) fn new(shared: Arc<Shared>, depth: usize) -> io::Result<Self> {
        let timer = Timer::new()?;
        let State { slots, hctx } = &mut *shared.state();
        let queue = slots.add_queue(depth);
        hctx.resize(hctx.len().max(queue + 1), HctxId(0));
        let rings = hctx.len();
        Ok(Timed {
            shared: Arc::clone(&shared),
            queue,
            in_flight: (0..depth).map(|_| None).collect(),
            next_event_ns: u64::MAX,
            timer,
            ended: Vec::with_capacity(depth),
            owed: Vec::with_capacity(rings),
            kicks: Vec::with_capacity(rings),
        })
    }

    /// Begins a request. The timer is set at the end of the batch.
    pub(super) fn start(&mut self, rq: InFlight) -> QueueRq {
        let tag = rq.tag();
        let Some(op) = model_op(rq.op()) else { return QueueRq::Failed(rq, Status::NotSupp) };
        let request = ModelRequest {
            id: u64::from(tag),
            op,
            sector: rq.sector(),
            nr_sectors: rq.nr_sectors(),
        };
        let now_ns = self.shared.now_ns();
        let mut state = self.shared.state();
        let answer = state.slots.start(now_ns, self.queue, request);
        state.hctx[self.queue] = rq.hctx();
        self.next_event_ns = state.slots.next_event(self.queue).unwrap_or(u64::MAX);
        drop(state);
        let restarter = match answer {
            Start::Accepted => {
                let before = self.in_flight[tag as usize].replace(rq);
                assert!(before.is_none(), "a driver tag is one request's");
                return QueueRq::Queued;
            }
            Start::Busy(BusyKind::Completion) => Restarter::Completion,
            Start::Busy(BusyKind::Kick) => {
                assert!(self.shared.kick.get().is_some(), "the device was told how to kick");
                // A batch in which nothing begins has no end.
                self.timer.set(now_ns, self.next_event_ns);
                Restarter::Kick
            }
            Start::Busy(BusyKind::RetryAt(at_ns)) => {
                // The queue's clock has another epoch than ours.
                let delay = Duration::from_nanos(at_ns.saturating_sub(now_ns));
                Restarter::RetryAt(rq.issued_at() + delay)
            }
        };
        QueueRq::Busy(rq, restarter)
    }

    /// Has the timer tell of the next event.
    pub(super) fn arm(&mut self) {
        if self.timer.set_for_ns() > self.next_event_ns {
            self.timer.set(self.shared.now_ns(), self.next_event_ns);
        }
    }

    /// Ends the requests that are over, gives the kicks that are owed, and sets the timer anew.
    pub(super) fn reap(&mut self, mut end: impl FnMut(InFlight, Status)) {
        let earliest_ns = self.next_event_ns.min(self.timer.set_for_ns());
        if earliest_ns == u64::MAX {
            return;
        }
        let now_ns = self.shared.now_ns();
        if now_ns < earliest_ns {
            return;
        }
        let mut state = self.shared.state();
        state.slots.finish(now_ns, self.queue, usize::MAX, &mut self.ended);
        state.take_kicks(now_ns, &mut self.owed, &mut self.kicks);
        self.next_event_ns = state.slots.next_event(self.queue).unwrap_or(u64::MAX);
        drop(state);
        for (id, outcome) in self.ended.drain(..) {
            let rq = self.in_flight[id as usize].take().expect("what ends was in flight");
            end(rq, status_of(outcome));
        }
        self.give_kicks();
        self.timer.set(now_ns, self.next_event_ns);
    }

    /// What is to be done about a request that is in flight for too long.
    pub(super) fn late(&mut self, expired: Expired) -> TimeoutAnswer {
        let now_ns = self.shared.now_ns();
        let fate = self.shared.state().slots.fate(self.queue, u64::from(expired.tag));
        match fate.expect("what is late is in flight") {
            Fate::EndsAt(at_ns) if at_ns <= now_ns => TimeoutAnswer::Done,
            Fate::EndsAt(at_ns) => {
                // The queue's clock has another epoch than ours.
                let left = Duration::from_nanos(at_ns - now_ns);
                TimeoutAnswer::WaitUntil(expired.now + left)
            }
            Fate::Lost => {
                let rq = self.in_flight[expired.tag as usize].as_mut();
                TimeoutAnswer::Abandon(rq.expect("what is late is in flight").abandon())
            }
        }
    }

    pub(super) fn has_finished(&self) -> bool {
        self.next_event_ns != u64::MAX && self.shared.now_ns() >= self.next_event_ns
    }

    pub(super) fn poll_fd(&self) -> BorrowedFd<'_> {
        self.timer.fd()
    }

    /// Gives the kicks that were owed, after the lock has been left.
    fn give_kicks(&mut self) {
        if let Some(kick) = self.shared.kick.get() {
            self.kicks.drain(..).for_each(kick);
        }
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        let now_ns = self.shared.now_ns();
        let mut state = self.shared.state();
        state.slots.remove_queue(self.queue);
        // Others may have waited for the slots of what was in flight here.
        state.take_kicks(now_ns, &mut self.owed, &mut self.kicks);
        drop(state);
        self.give_kicks();
    }
}

impl State {
    fn take_kicks(&mut self, now_ns: u64, owed: &mut Vec<usize>, kicks: &mut Vec<HctxId>) {
        self.slots.take_kicks(now_ns, owed);
        kicks.extend(owed.drain(..).map(|queue| self.hctx[queue]));
    }
}

fn model_op(op: Op) -> Option<ModelOp> {
    match op {
        Op::Read => Some(ModelOp::Read),
        Op::Write => Some(ModelOp::Write),
        Op::Flush => Some(ModelOp::Flush),
        Op::Discard => Some(ModelOp::Discard),
        Op::WriteZeroes => Some(ModelOp::WriteZeroes),
        Op::DrvIn | Op::DrvOut => None,
    }
}

fn status_of(outcome: Outcome) -> Status {
    match outcome {
        Outcome::Ok => Status::Ok,
        Outcome::IoErr => Status::IoErr,
        Outcome::Medium => Status::Medium,
        Outcome::NoSpc => Status::NoSpc,
        Outcome::NotSupp => Status::NotSupp,
        Outcome::Offline => Status::Offline,
        Outcome::Timeout => Status::Timeout,
    }
}
