//! The hardware queue (hctx): one way to the device, with its own driver tags.

use std::collections::VecDeque;

use crate::bitmap::Bitmap;
use crate::request::Request;
use crate::sync::{
    AcqRel, Acquire, AtomicBool, AtomicUsize, Mutex, Relaxed, Release, SeqCst, fence,
};
use crate::tags::{Sbitmap, Tag};

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
}

impl HardwareQueue {
    pub(crate) fn new(nr_tags: u32, nr_requests: usize, nr_ctx: usize) -> Self {
        HardwareQueue {
            dispatch: Mutex::new(VecDeque::with_capacity(nr_requests)),
            dispatch_len: AtomicUsize::new(0),
            restart: AtomicBool::new(false),
            ctx_map: Bitmap::new(nr_ctx),
            tags: Sbitmap::new(nr_tags),
        }
    }

    /// A driver tag; or nothing, and then whoever puts one back runs this hardware queue.
    pub(crate) fn get_tag(&self, hint: &mut u32) -> Option<Tag> {
        if let Some(tag) = self.tags.get(hint) {
            return Some(tag);
        }
        // A read-modify-write, so that whoever takes the mark sees what everybody published who set
        // it.
        self.restart.fetch_or(true, Release);
        // Pair T1, the waiter's side: the mark is published before the tags are looked at again.
        // The other side is the fence between `put_tag` and `take_restart`.
        fence(SeqCst);
        self.tags.get(hint)
    }

    /// A driver tag, or nothing. Leaves no mark: the caller must not rest on a failure.
    pub(crate) fn try_get_tag(&self, hint: &mut u32) -> Option<Tag> {
        self.tags.get(hint)
    }

    /// Puts a driver tag back. The caller owes a full fence and [`HardwareQueue::take_restart`].
    pub(crate) fn put_tag(&self, tag: Tag) {
        self.tags.put(tag);
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

    /// The driver tags, for counting.
    pub(crate) fn tags(&self) -> &Sbitmap {
        &self.tags
    }

    /// The number of requests in the dispatch list.
    pub(crate) fn dispatch_len(&self) -> usize {
        self.dispatch_len.load(Acquire)
    }
}
