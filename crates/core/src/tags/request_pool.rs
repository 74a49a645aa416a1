//! Scheduler tags, and the memory of the requests that they stand for.

use std::sync::Arc;

use crossbeam_utils::CachePadded;

use super::sbitmap::{Sbitmap, Tag};
use crate::lost::Lost;
use crate::request::{Body, Request};
use crate::sync::UnsafeCell;

/// All the requests that a queue can hold (`nr_requests`), made once.
#[derive(Debug)]
pub(crate) struct RequestPool {
    tags: Sbitmap,
    /// The memory at rest. Who holds a scheduler tag owns the cell of that number, alone.
    cells: Box<[Cell]>,
}

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
        let cell = |tag| CachePadded::new(UnsafeCell::new(Some(Body::new(tag, Arc::clone(lost)))));
        RequestPool { tags: Sbitmap::new(nr_requests), cells: (0..nr_requests).map(cell).collect() }
    }

    /// The memory of a request that is free, or nothing if all are out. As with [`Sbitmap::get`], a
    /// failure rests on plain loads.
    pub(crate) fn get(&self, hint: &mut u32) -> Option<Box<Body>> {
        let tag = self.tags.get(hint)?;
        let cell = &self.cells[tag.into_index() as usize];
        // SAFETY: the tag was free and is ours now, so the cell is too.
        let body = cell.with_mut(|body| unsafe { (*body).take() });
        Some(body.expect("the memory of a free tag is in its cell"))
    }

    /// Takes back a request that has ended.
    pub(crate) fn put(&self, request: Request) {
        let body = request.into_body();
        assert!(body.grant.is_none(), "a request ended that still holds its grant");
        let tag = body.sched_tag;
        // SAFETY: the request bears the tag, so it is out, and its holder, which alone may touch
        // the cell, is the caller.
        self.cells[tag as usize].with_mut(|cell| unsafe { *cell = Some(body) });
        self.tags.put(Tag::from_index(tag));
    }

    /// The tags, for counting.
    pub(crate) fn tags(&self) -> &Sbitmap {
        &self.tags
    }
}
