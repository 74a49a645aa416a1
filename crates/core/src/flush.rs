//! The flush machine: what has to be durable before and after a write, with one flush in flight.
//!
//! A bio that asks for it waits here before its data go (PREFLUSH), after they have gone (FUA where
//! the device has none), or both; a flush itself has no data. One flush is in flight at a time, and
//! whoever comes meanwhile shares the next one: it covers everything that completed before it was
//! submitted, so it is right for all of them. Each of them holds a scheduler tag of its own
//! tenant's while it waits, so a storm of flushes takes its tenant's share and no more.
//!
//! A flush that fails may have lost what was written, and the next one may succeed without having
//! brought it back. So after a failure every flush fails, and nothing is written any more.

use std::sync::Arc;

use crate::bio::{Bio, Flags, Op, Priority, Segments};
use crate::driver::{Driver, Env};
use crate::lost::Lost;
use crate::request::{Body, Origin, Request};
use crate::status::Status;
use crate::sync::{AtomicBool, Mutex, Omission, Relaxed};
use crate::time::Time;
use crate::turn::Turn;

/// Where a request is on its way through the flush machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FlushStep {
    /// It needs none of it.
    #[default]
    None,
    /// It waits for a flush, and its data go afterwards.
    Before,
    /// As `Before`, and another flush follows the data.
    BeforeAndAfter,
    /// Its data are on their way, and nothing follows.
    Data,
    /// Its data are on their way, and a flush follows.
    DataThenFlush,
    /// It waits for the flush with which it ends.
    After,
    /// It is the flush itself.
    Carrier,
}

/// The tag of the flush itself, which is none of the queue's.
const CARRIER_TAG: u32 = u32::MAX;

/// The flush machine of one queue.
#[derive(Debug)]
pub(crate) struct FlushQueue {
    state: Mutex<State>,
    failed: AtomicBool,
}

#[derive(Debug)]
struct State {
    /// Came since the last flush began.
    waiting: Vec<Request>,
    /// Covered by the flush that is in flight.
    running: Vec<Request>,
    /// The memory of the flush itself, while none is in flight.
    carrier: Option<Box<Body>>,
}

impl FlushQueue {
    pub(crate) fn new(lost: &Arc<Lost>) -> Self {
        let carrier = Some(Box::new(Body::new(CARRIER_TAG, Arc::clone(lost))));
        let state = State { waiting: Vec::new(), running: Vec::new(), carrier };
        FlushQueue { state: Mutex::new(state), failed: AtomicBool::new(false) }
    }

    /// Whether a flush has failed, and nothing is written any more.
    #[inline]
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Relaxed)
    }

    /// How many wait for the next flush and for the one in flight, and whether one is.
    pub(crate) fn lengths(&self) -> (usize, usize, bool) {
        let state = self.state.lock();
        (state.waiting.len(), state.running.len(), state.carrier.is_none())
    }

    /// Adds one that waits. Answers the flush to be sent, if none is in flight.
    fn wait(&self, request: Request, now: Time) -> Option<Request> {
        let mut state = self.state.lock();
        if Omission::NextFlush.is_made() && state.carrier.is_none() {
            state.running.push(request);
            return None;
        }
        state.waiting.push(request);
        state.start(now)
    }

    /// The flush has ended: those it covered come out, and the next one if somebody waits.
    fn ended(&self, carrier: Box<Body>, is_ok: bool, now: Time) -> (Vec<Request>, Option<Request>) {
        let mut state = self.state.lock();
        assert!(state.carrier.is_none(), "one flush is in flight at a time");
        state.carrier = Some(carrier);
        if !is_ok {
            self.failed.store(true, Relaxed);
        }
        let mut covered = std::mem::take(&mut state.running);
        if self.has_failed() {
            covered.append(&mut state.waiting);
            return (covered, None);
        }
        let next = state.start(now);
        (covered, next)
    }

    /// Takes out those that the flush in flight covers, before it has ended.
    fn running(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().running)
    }

    /// The flush in flight is given up: those it covered, and those who wait, come out.
    fn given_up(&self) -> Vec<Request> {
        self.failed.store(true, Relaxed);
        let mut state = self.state.lock();
        let mut all = std::mem::take(&mut state.running);
        all.append(&mut state.waiting);
        all
    }
}

impl State {
    fn start(&mut self, now: Time) -> Option<Request> {
        let first = self.waiting.first()?;
        let carrier = self.carrier.take()?;
        let bio = Bio {
            op: Op::Flush,
            flags: Flags::SYNC,
            prio: Priority::default(),
            volume: first.volume,
            sector: 0,
            nr_sectors: 0,
            segments: Segments::new(),
            cookie: 0,
        };
        let ctx = first.body().ctx;
        let tenant = first.tenant();
        let origin = Origin { ctx, tenant, submitted_at: now, entered_at: now };
        let mut request = Request::start(carrier, bio, origin);
        let body = request.body_mut();
        (body.flush, body.is_special) = (FlushStep::Carrier, true);
        assert!(self.running.is_empty(), "those a flush covered have left");
        std::mem::swap(&mut self.waiting, &mut self.running);
        Some(request)
    }
}

impl<D: Driver, E: Env> Turn<'_, D, E> {
    /// Sends a request on its way that is no plain read, write, discard or write-zeroes.
    pub(crate) fn begin_special(&mut self, mut request: Request) {
        if request.op.is_passthrough() {
            return self.send_aside(request);
        }
        let limits = &self.live.limits;
        let bio = &mut request.body_mut().bio;
        if !limits.write_cache {
            // What is written is durable.
            bio.flags.remove(Flags::FUA.union(Flags::PREFLUSH));
            return match bio.op {
                Op::Flush => self.finish(request, Status::Ok),
                _ => self.send_data(request),
            };
        }
        if Omission::Fua.is_made() {
            bio.flags.remove(Flags::FUA);
        }
        if Omission::Flush.is_made() && bio.op == Op::Flush {
            return self.finish(request, Status::Ok);
        }
        let before = bio.flags.contains(Flags::PREFLUSH);
        let after = bio.flags.contains(Flags::FUA) && !limits.fua;
        bio.flags.remove(Flags::PREFLUSH);
        if after {
            bio.flags.remove(Flags::FUA);
        }
        let step = match (bio.op, before, after) {
            (Op::Flush, ..) => FlushStep::After,
            (_, true, true) => FlushStep::BeforeAndAfter,
            (_, true, false) => FlushStep::Before,
            (_, false, true) => FlushStep::DataThenFlush,
            (_, false, false) => FlushStep::None,
        };
        let body = request.body_mut();
        (body.flush, body.is_special) = (step, true);
        match step {
            FlushStep::DataThenFlush | FlushStep::None => self.send_data(request),
            _ => self.wait_for_flush(request),
        }
    }

    /// The device has ended a step of a request's, or the flush itself.
    pub(crate) fn flush_step_ended(&mut self, mut request: Request, status: Status) {
        let body = request.body_mut();
        match body.flush {
            FlushStep::Carrier => self.flush_ended(request, status),
            FlushStep::DataThenFlush if status.is_ok() && !body.abandoned => {
                body.flush = FlushStep::After;
                self.leave_scheduler(&mut request);
                self.begin_wait(&mut request);
                self.wait_for_flush(request);
            }
            _ => self.finish(request, status),
        }
    }

    /// A flush in flight is given up: nobody who waits for it is to wait any longer.
    pub(crate) fn give_up_flush(&mut self) {
        for request in self.queue.flush.given_up() {
            self.finish(request, Status::Timeout);
        }
    }

    fn wait_for_flush(&mut self, request: Request) {
        if self.queue.flush.has_failed() {
            return self.finish(request, Status::IoErr);
        }
        if let Some(flush) = self.queue.flush.wait(request, self.now) {
            self.send_flush(flush);
        }
    }

    fn send_flush(&mut self, flush: Request) {
        self.send_aside(flush);
        if Omission::FlushEnd.is_made() {
            let covered = self.queue.flush.running();
            self.go_on_after_flush(covered, Status::Ok);
        }
    }

    fn flush_ended(&mut self, mut request: Request, status: Status) {
        let body = request.body_mut();
        if body.abandoned {
            self.queue.abandoned.add_shared(u64::MAX);
        }
        let is_ok = status.is_ok();
        let (covered, next) = self.queue.flush.ended(request.into_body(), is_ok, self.now);
        if let Some(flush) = next {
            self.send_flush(flush);
        }
        let status = if self.queue.flush.has_failed() && is_ok { Status::IoErr } else { status };
        self.go_on_after_flush(covered, status);
    }

    /// Has those that waited for a flush take their next step, or end.
    fn go_on_after_flush(&mut self, covered: Vec<Request>, status: Status) {
        for mut request in covered {
            let body = request.body_mut();
            match body.flush {
                FlushStep::Before if status.is_ok() => body.flush = FlushStep::Data,
                FlushStep::BeforeAndAfter if status.is_ok() => {
                    body.flush = FlushStep::DataThenFlush;
                }
                _ => {
                    self.finish(request, status);
                    continue;
                }
            }
            self.send_data(request);
        }
    }

    /// Sends a request the way that all data go.
    fn send_data(&mut self, request: Request) {
        let lane = self.lane_for(&request);
        self.plug(lane, request);
    }

    /// Sends a request past the scheduler, which has nothing to say about it: it has no place on
    /// the disk to be sorted by.
    fn send_aside(&mut self, request: Request) {
        let lane = self.lane_for(&request);
        let side = &mut self.cpu.lanes[lane];
        side.due = true;
        self.queue.hctx(side.hctx).push_dispatch(request);
    }
}
