//! The hardware queue (hctx): one way to the device, with its own driver tags.

use std::collections::VecDeque;

use crossbeam_utils::CachePadded;

use crate::bitmap::Bitmap;
use crate::driver::Restarter;
use crate::ids::CtxId;
use crate::request::Request;
use crate::sync::{
    AcqRel, Acquire, AtomicBool, AtomicUsize, Counter, Mutex, Omission, Relaxed, Release, SeqCst,
    fence,
};
use crate::tags::{Sbitmap, Tag};
use crate::time::Time;

impl Flight {
    /// What is noted of a request whose time is over at `ends_at` and that is on the ring of `ctx`.
    /// It is never zero.
    pub(crate) fn mark(ends_at: Time, ctx: CtxId) -> u64 {
        // Rounded up, so that nobody is asked before the time is over.
        let units = (ends_at.as_ns() >> FLIGHT_SHIFT) + 1;
        units.min(u64::MAX >> 16) << 16 | u64::from(ctx.0)
    }

    /// Whether its time is ever over.
    pub(crate) fn ends(&self) -> bool {
        self.ends_at.as_ns() < u64::MAX >> 16 << FLIGHT_SHIFT
    }
}

/// A hardware queue.
#[derive(Debug)]
pub(crate) struct HardwareQueue {
    /// Requests that only this hardware queue can send: the device refused them once, or they pass
    /// by the scheduler. They go before everything else.
    dispatch: Mutex<VecDeque<Request>>,
    /// The length of `dispatch`, to be looked at without the lock.
    dispatch_len: AtomicUsize,
    /// Somebody rests here until a tag of this hardware queue is put back, or the driver kicks
    /// (Linux's `SCHED_RESTART`).
    restart: AtomicBool,
    /// Which software queues have something published; a bit for each.
    pub(crate) ctx_map: Bitmap,
    /// What the device takes on this hardware queue at a time.
    tags: Sbitmap,
    /// Nothing may be sent from here.
    stopped: AtomicBool,
    /// How often the device was busy lately: a moving average, zero if it was not.
    dispatch_busy: Counter,
    /// Requests in flight, without those of turns under way.
    nr_active: CachePadded<Counter>,
    /// Whom what was refused last rests on, until the device takes something again; see
    /// [`HardwareQueue::rest_on`].
    rests_on: Counter,
    /// For each driver tag that is out, when its request's time is over and on whose ring it is.
    flight: Box<[Counter]>,
}

/// A request that is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flight {
    pub(crate) tag: u32,
    /// When its time is over.
    pub(crate) ends_at: Time,
    /// Whose ring it is on.
    pub(crate) ctx: CtxId,
}

/// Times in the flight table are counted in units of so many nanoseconds, as a power of two.
const FLIGHT_SHIFT: u32 = 10;

/// An answer of the device counts for so much in the average, as Linux has it.
const BUSY_WEIGHT: u64 = 8;
const BUSY_FACTOR: u64 = 16;
/// After so many answers nothing is left of one.
const BUSY_FORGOTTEN: u32 = 16;

/// What stands in `rests_on` where it is no time.
const RESTS_ON_COMPLETION: u64 = u64::MAX;
const RESTS_ON_KICK: u64 = u64::MAX - 1;

impl HardwareQueue {
    pub(crate) fn new(nr_tags: u32, nr_requests: usize, nr_ctx: usize) -> Self {
        HardwareQueue {
            dispatch: Mutex::new(VecDeque::with_capacity(nr_requests)),
            dispatch_len: AtomicUsize::new(0),
            restart: AtomicBool::new(false),
            ctx_map: Bitmap::new(nr_ctx),
            tags: Sbitmap::new(nr_tags),
            stopped: AtomicBool::new(false),
            dispatch_busy: Counter::new(),
            nr_active: CachePadded::default(),
            rests_on: Counter::new(),
            flight: (0..nr_tags).map(|_| Counter::new()).collect(),
        }
    }

    /// Adds up to `max` driver tags to `purse`; or none, and then whoever puts one back runs this
    /// hardware queue. Answers whether there are any.
    pub(crate) fn get_tags(&self, hint: &mut u32, max: u32, purse: &mut Vec<Tag>) -> bool {
        if self.try_get_tags(hint, max, purse) {
            return true;
        }
        // A read-modify-write, so that whoever takes the mark sees what everybody published who set
        // it.
        self.restart.fetch_or(true, Release);
        // Pair T1, the waiter's side: the mark is published before the tags are looked at again.
        // The other side is the fence between `put_tags` and `take_restart`.
        fence(SeqCst);
        self.try_get_tags(hint, max, purse)
    }

    /// As [`HardwareQueue::get_tags`], but leaves no mark: the caller must not rest on a failure.
    pub(crate) fn try_get_tags(&self, hint: &mut u32, max: u32, purse: &mut Vec<Tag>) -> bool {
        let Some(mut run) = self.tags.get_run(hint, max) else { return false };
        while let Some(tag) = run.pop() {
            purse.push(tag);
        }
        true
    }

    /// Puts driver tags back. The caller owes a full fence and [`HardwareQueue::take_restart`].
    pub(crate) fn put_tags(&self, tags: impl Iterator<Item = Tag>) {
        self.tags.put_all(tags);
    }

    /// As [`HardwareQueue::put_tags`], for one.
    pub(crate) fn put_tag(&self, tag: Tag) {
        self.tags.put(tag);
    }

    /// Whether somebody rests here, as far as can be seen without a fence.
    #[inline]
    pub(crate) fn is_marked(&self) -> bool {
        self.restart.load(Relaxed)
    }

    /// Whether the mark that the caller has left in this turn is there still, after it has
    /// published what else it has. If not, another thread of this hardware queue has taken it, and
    /// may have been done before that was published.
    ///
    /// M1, as in [`HardwareQueue::must_rerun`]: the fence orders "published" before "look at the
    /// mark".
    pub(crate) fn is_still_marked(&self) -> bool {
        fence(SeqCst);
        self.restart.load(Relaxed) || Omission::MarkLook.is_made()
    }

    /// Stops or starts it. Who starts it kicks it afterwards, whatever it holds, so no run that was
    /// passed over is lost: the kick is answered by a turn that begins after the change.
    pub(crate) fn set_stopped(&self, is_stopped: bool) {
        self.stopped.store(is_stopped, Release);
    }

    /// Whether nothing may be sent from here.
    #[inline]
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Acquire)
    }

    /// Notes that the device took `count` requests.
    #[inline]
    pub(crate) fn note_taken(&self, count: u32) {
        let mut average = self.dispatch_busy.get();
        if average == 0 {
            return;
        }
        self.rests_on.set(0);
        for _ in 0..count.min(BUSY_FORGOTTEN) {
            average = average * (BUSY_WEIGHT - 1) / BUSY_WEIGHT;
        }
        self.dispatch_busy.set(average);
    }

    /// Notes that the device did not take a request.
    pub(crate) fn note_busy(&self) {
        let average = self.dispatch_busy.get();
        self.dispatch_busy.set((average * (BUSY_WEIGHT - 1) + BUSY_FACTOR) / BUSY_WEIGHT);
    }

    /// Notes whom the device has named to restart what it refused.
    pub(crate) fn rest_on(&self, restarter: Restarter) {
        self.rests_on.set(match restarter {
            Restarter::Completion => RESTS_ON_COMPLETION,
            Restarter::Kick => RESTS_ON_KICK,
            // Times that far are never.
            Restarter::RetryAt(at) => at.as_ns().clamp(1, RESTS_ON_KICK - 1),
        });
    }

    /// The driver gives the kick that it owed, if it owed one.
    pub(crate) fn driver_kicks(&self) {
        self.rests_on.exchange(RESTS_ON_KICK, 0);
    }

    /// Whom the requests in the dispatch list rest on because the device was busy; nobody if it has
    /// taken something since.
    pub(crate) fn rests_on(&self) -> Option<Restarter> {
        match self.rests_on.get() {
            _ if !self.has_dispatch() => None,
            0 => None,
            RESTS_ON_COMPLETION => Some(Restarter::Completion),
            RESTS_ON_KICK => Some(Restarter::Kick),
            at => Some(Restarter::RetryAt(Time::from_ns(at))),
        }
    }

    /// How busy the device was lately: zero if it was not, and then requests go to it in bulk.
    #[inline]
    pub(crate) fn dispatch_busy(&self) -> u64 {
        self.dispatch_busy.get()
    }

    /// Notes so many requests more in flight, or fewer.
    pub(crate) fn add_active(&self, more: i32) {
        self.nr_active.add_shared(i64::from(more).cast_unsigned());
    }

    /// How many requests are in flight, as far as can be seen by a thread whose turn has seen
    /// `more` go out than come back.
    pub(crate) fn nr_active(&self, more: i32) -> u32 {
        let active = self.nr_active.get().cast_signed() + i64::from(more);
        u32::try_from(active).unwrap_or(0)
    }

    /// Notes that a request is in flight. `mark` is from [`Flight::mark`].
    #[inline]
    pub(crate) fn take_off(&self, tag: u32, mark: u64) {
        self.flight[tag as usize].set(mark);
    }

    /// Notes that a request has come back.
    #[inline]
    pub(crate) fn land(&self, tag: u32) {
        self.flight[tag as usize].set(0);
    }

    /// What is in flight.
    pub(crate) fn flights(&self) -> impl Iterator<Item = Flight> {
        self.flight.iter().enumerate().filter_map(|(tag, noted)| {
            let noted = noted.get();
            let ends_at = Time::from_ns(noted >> 16 << FLIGHT_SHIFT);
            let flight = Flight { tag: tag as u32, ends_at, ctx: CtxId(noted as u16) };
            (noted != 0).then_some(flight)
        })
    }

    /// Whether somebody rests here; the caller then owes a run. Of several who ask, one is told.
    /// To be called after a full fence that follows what the sleeper waits for (pair T1).
    pub(crate) fn take_restart(&self) -> bool {
        if !self.restart.load(Relaxed) || !self.restart.swap(false, AcqRel) {
            return false;
        }
        // M2: the mark is cleared before the dispatch list is looked at; its pair is M1.
        fence(SeqCst);
        true
    }

    /// Whether requests wait in the dispatch list, as far as can be seen without the lock.
    pub(crate) fn has_dispatch(&self) -> bool {
        self.dispatch_len.load(Acquire) != 0
    }

    /// Takes the first request of the dispatch list.
    pub(crate) fn pop_dispatch(&self) -> Option<Request> {
        let mut dispatch = self.dispatch.lock();
        let request = dispatch.pop_front();
        self.dispatch_len.store(dispatch.len(), Release);
        request
    }

    /// Adds requests behind the others.
    pub(crate) fn push_dispatch(&self, request: Request) {
        let mut dispatch = self.dispatch.lock();
        dispatch.push_back(request);
        self.dispatch_len.store(dispatch.len(), Release);
    }

    /// Puts requests before the others, in their order.
    pub(crate) fn push_dispatch_front(&self, requests: impl DoubleEndedIterator<Item = Request>) {
        let mut dispatch = self.dispatch.lock();
        for request in requests.rev() {
            dispatch.push_front(request);
        }
        self.dispatch_len.store(dispatch.len(), Release);
    }

    /// Called when a refused request is in the dispatch list and rests on a completion or on the
    /// driver's kick. Answers whether that may have come already, and the hardware queue must be
    /// run again at once.
    ///
    /// M1: the fence orders "request in the dispatch list" before "look at the mark"; its pair M2
    /// is in [`HardwareQueue::take_restart`], between "mark cleared" and "look at the dispatch
    /// list". If the mark was not set when the device was asked, the restarter may have passed
    /// by unseen; it is set now, and the device is asked once more.
    pub(crate) fn must_rerun(&self, rests_on_completion: bool) -> bool {
        fence(SeqCst);
        if !self.restart.load(Relaxed) {
            self.restart.fetch_or(true, Release);
            return true;
        }
        // Every completion puts its tag back before it looks at the mark. With no tag out, nobody
        // is left who would: the last completion came between the device's answer and now.
        rests_on_completion && self.tags.is_idle()
    }

    /// Looks at the requests in the dispatch list, in their order.
    pub(crate) fn each_dispatch(&self, look: impl FnMut(&Request)) {
        self.dispatch.lock().iter().for_each(look);
    }

    /// The driver tags.
    pub(crate) fn tags(&self) -> &Sbitmap {
        &self.tags
    }

    /// The number of requests in the dispatch list.
    pub(crate) fn dispatch_len(&self) -> usize {
        self.dispatch_len.load(Acquire)
    }
}
