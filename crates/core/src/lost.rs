//! Requests that somebody dropped. They are ended with an error instead of being stranded.

use crate::request::Request;
use crate::sync::{Acquire, AtomicUsize, Mutex, Relaxed, Release};

/// Where dropped requests wait to be ended.
pub(crate) struct Lost {
    /// `None` once the queue has gone. A request keeps this alive, so it must not stay in here.
    requests: Mutex<Option<Vec<Request>>>,
    waiting: AtomicUsize,
    defects: AtomicUsize,
    /// Sees to it that a turn is taken, in which [`Lost::take`] is called.
    kick: Box<dyn Fn() + Send + Sync>,
}

impl Lost {
    pub(crate) fn new(kick: Box<dyn Fn() + Send + Sync>) -> Self {
        Lost {
            requests: Mutex::new(Some(Vec::new())),
            waiting: AtomicUsize::new(0),
            defects: AtomicUsize::new(0),
            kick,
        }
    }

    /// Takes in a request that was dropped. This is a defect of whoever dropped it, so the list may
    /// allocate: it is no part of a request's path.
    pub(crate) fn found(&self, request: Request) {
        self.defects.fetch_add(1, Relaxed);
        let mut requests = self.requests.lock();
        let Some(waiting) = &mut *requests else {
            // What was merged with it is dropped with it, and comes here too.
            drop(requests);
            drop(request.into_body());
            return;
        };
        waiting.push(request);
        self.waiting.store(waiting.len(), Release);
        drop(requests);
        (self.kick)();
    }

    /// Hands out what was dropped, to be ended.
    pub(crate) fn take(&self) -> Vec<Request> {
        if self.waiting.load(Acquire) == 0 {
            return Vec::new();
        }
        let mut requests = self.requests.lock();
        self.waiting.store(0, Release);
        requests.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The queue goes: nobody is left to end what was dropped, or will be.
    pub(crate) fn close(&self) {
        let requests = self.requests.lock().take();
        for request in requests.into_iter().flatten() {
            drop(request.into_body());
        }
    }

    /// How many requests were dropped, ever.
    pub(crate) fn defects(&self) -> usize {
        self.defects.load(Relaxed)
    }
}

impl std::fmt::Debug for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lost").field("defects", &self.defects()).finish_non_exhaustive()
    }
}
