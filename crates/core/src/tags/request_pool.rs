//! Scheduler tags, and the memory of the requests that they stand for.

use std::sync::Arc;

use crossbeam_utils::CachePadded;

use super::sbitmap::{Sbitmap, Tag};
use crate::lost::Lost;
use crate::request::Body;
use crate::sync::{Counter, UnsafeCell};
use crate::time::Time;

/// All the requests that a queue can hold (`nr_requests`), made once.
#[derive(Debug)]
pub(crate) struct RequestPool {
    tags: Sbitmap,
    /// The memory at rest. Who holds a scheduler tag owns the cell of that number, alone.
    cells: Box<[Cell]>,
    /// One more than the time since which each request has waited; zero if it does not. For those
    /// who look from outside.
    waiting_since: Box<[Counter]>,
}

/// The memory of several requests, out of its places.
pub(crate) type Bodies = Vec<Box<Body>>;

/// The place of one request's memory: empty while the request is out.
type Cell = CachePadded<UnsafeCell<Option<Box<Body>>>>;

// SAFETY: a cell is only touched by the holder of its tag, and a tag is out once; taking and giving
// back the tag are an acquire and a release of the same word (M4), so the accesses are ordered.
// loom checks exactly this, through its own cell.
unsafe impl Sync for RequestPool {}
// SAFETY: a body is plain data; what it lends is `Send`.
unsafe impl Send for RequestPool {}

impl RequestPool {
    pub(crate) fn new(nr_requests: u32, lost: &Arc<Lost>) -> Self {
        let body = |tag| Box::new(Body::new(tag, Arc::clone(lost)));
        let cell = |tag| CachePadded::new(UnsafeCell::new(Some(body(tag))));
        RequestPool {
            tags: Sbitmap::new(nr_requests),
            cells: (0..nr_requests).map(cell).collect(),
            waiting_since: (0..nr_requests).map(|_| Counter::default()).collect(),
        }
    }

    /// The memory that a tag stands for. The tag is in it from now on.
    #[inline]
    pub(crate) fn body(&self, tag: Tag) -> Box<Body> {
        let cell = &self.cells[tag.into_index() as usize];
        // SAFETY: the caller gave us the tag, so it is out and the cell is ours.
        let body = cell.with_mut(|body| unsafe { (*body).take() });
        body.expect("the memory of a free tag is in its cell")
    }

    /// The memory of up to `max` requests, added to `stash`; see [`Sbitmap::get_run`].
    pub(crate) fn take_run(&self, hint: &mut u32, max: u32, stash: &mut Bodies) {
        let mut run = self.tags.get_run(hint, max).unwrap_or_default();
        while let Some(tag) = run.pop() {
            stash.push(self.body(tag));
        }
    }

    /// Puts the memory of requests that have ended to rest, and gives their tags back.
    pub(crate) fn put_all(&self, stash: &mut Bodies) {
        self.tags.put_all(stash.drain(..).map(|body| self.rest(body)));
    }

    /// Puts the memory of a request that has ended to rest, and answers the tag it stands for.
    #[inline]
    fn rest(&self, body: Box<Body>) -> Tag {
        assert!(body.grant.is_none(), "a request ended that still holds its grant");
        let tag = body.sched_tag;
        // SAFETY: the request bears the tag, so it is out, and its holder, which alone may touch
        // the cell, is the caller.
        self.cells[tag as usize].with_mut(|cell| unsafe { *cell = Some(body) });
        Tag::from_index(tag)
    }

    /// The tags.
    #[inline]
    pub(crate) fn tags(&self) -> &Sbitmap {
        &self.tags
    }

    /// Notes that a request waits in a list of the layer's, or in the scheduler, from now on.
    pub(crate) fn note_waiting(&self, sched_tag: u32, now: Time) {
        if let Some(since) = self.waiting_since.get(sched_tag as usize) {
            since.set(now.as_ns() + 1);
        }
    }

    /// Notes that it waits no longer. What goes straight to the device never waits.
    pub(crate) fn note_gone(&self, sched_tag: u32) {
        if let Some(since) = self.waiting_since.get(sched_tag as usize) {
            since.set(0);
        }
    }

    /// The requests that wait, by their scheduler tags, and since when.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = (u32, Time)> {
        self.waiting_since.iter().enumerate().filter_map(|(tag, since)| {
            let since = since.get().checked_sub(1)?;
            Some((tag as u32, Time::from_ns(since)))
        })
    }
}
