//! The software queue (ctx): where one submitter publishes what it cannot send on at once.

use std::collections::VecDeque;

use crate::elevator::Completion;
use crate::request::Request;
use crate::sync::Mutex;

/// One submitter's list. Only the submitter adds; whoever serves it takes.
#[derive(Debug)]
pub(crate) struct SoftwareQueue {
    published: Mutex<Published>,
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
    /// A list that holds `nr_requests` without growing; there are no more in the queue.
    pub(crate) fn new(nr_requests: usize) -> Self {
        let published = Published {
            requests: VecDeque::with_capacity(nr_requests),
            completions: Vec::with_capacity(nr_requests),
            timer_came: false,
        };
        SoftwareQueue { published: Mutex::new(published) }
    }

    /// Works on the list under its lock.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut Published) -> R) -> R {
        work(&mut self.published.lock())
    }
}

impl Published {
    /// Whether nothing is published.
    pub(crate) fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.completions.is_empty()
    }
}
