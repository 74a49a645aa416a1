//! The software queue (ctx): where one submitter publishes what it cannot send on at once.

use std::collections::VecDeque;

use crate::elevator::Completion;
use crate::limits::Limits;
use crate::request::Request;
use crate::sync::Mutex;

/// How many of the last requests a new one may be merged with, as in Linux.
const LOOK_BACK: usize = 8;

/// One submitter's lists, one for each kind of hardware queue. Only the submitter adds; whoever
/// serves a list takes.
#[derive(Debug)]
pub(crate) struct SoftwareQueue {
    published: [Mutex<Published>; 3],
}

/// What a submitter has published.
#[derive(Debug, Default)]
pub(crate) struct Published {
    /// Requests in the order of their submission.
    pub(crate) requests: VecDeque<Request>,
    /// What the scheduler has to be told of, which its holder does.
    pub(crate) completions: Vec<Completion>,
    /// A time that the scheduler named has come, and it has not been told.
    pub(crate) timer_came: bool,
}

impl SoftwareQueue {
    /// A first list that holds `nr_requests` without growing; there are no more in the queue.
    pub(crate) fn new(nr_requests: usize) -> Self {
        let published = Published {
            requests: VecDeque::with_capacity(nr_requests),
            completions: Vec::with_capacity(nr_requests),
            timer_came: false,
        };
        SoftwareQueue { published: [Mutex::new(published), Mutex::default(), Mutex::default()] }
    }

    /// Works on the list of the submitter's lane number `lane` under its lock.
    pub(crate) fn with<R>(&self, lane: usize, work: impl FnOnce(&mut Published) -> R) -> R {
        work(&mut self.published[lane].lock())
    }
}

impl Published {
    /// Whether nothing is published.
    pub(crate) fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.completions.is_empty()
    }

    /// Adds a request, merged with one of the last if they lie side by side. Answers whether it was
    /// merged.
    pub(crate) fn add(&mut self, request: Request, limits: &Limits) -> bool {
        for last in self.requests.iter_mut().rev().take(LOOK_BACK) {
            if let Some(side) = last.merge_side(&request, limits) {
                last.merge(request, side);
                return true;
            }
        }
        self.requests.push_back(request);
        false
    }
}
