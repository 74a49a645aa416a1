//! The requests that a scheduler holds, by scheduler tag, and lists of them in the order of their
//! coming.

use crate::request::Request;
use crate::time::Time;

const NONE: u32 = u32::MAX;

/// A place for each request of the queue, linked into [`Fifo`]s. Nothing is allocated after the
/// start.
#[derive(Debug)]
pub(super) struct Held {
    places: Box<[Place]>,
}

#[derive(Debug)]
struct Place {
    request: Option<Request>,
    came_at: Time,
    prev: u32,
    next: u32,
}

/// A list of held requests in the order of their coming.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fifo {
    head: u32,
    tail: u32,
}

impl Default for Fifo {
    fn default() -> Self {
        Fifo { head: NONE, tail: NONE }
    }
}

impl Fifo {
    /// The tag of the request that came first.
    pub(super) fn first(&self) -> Option<u32> {
        (self.head != NONE).then_some(self.head)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.head == NONE
    }
}

impl Held {
    /// Places for `nr_requests` requests.
    pub(super) fn new(nr_requests: u32) -> Self {
        let place = |_| Place { request: None, came_at: Time::ZERO, prev: NONE, next: NONE };
        Held { places: (0..nr_requests).map(place).collect() }
    }

    /// Adds a request at the end of a list.
    pub(super) fn push(&mut self, fifo: &mut Fifo, request: Request, came_at: Time) {
        let tag = request.sched_tag();
        let prev = fifo.tail;
        let place = &mut self.places[tag as usize];
        assert!(place.request.is_none(), "a tag is held once");
        *place = Place { request: Some(request), came_at, prev, next: NONE };
        match prev {
            NONE => fifo.head = tag,
            _ => self.places[prev as usize].next = tag,
        }
        fifo.tail = tag;
    }

    /// Takes a request out of its list.
    pub(super) fn remove(&mut self, fifo: &mut Fifo, tag: u32) -> Request {
        let place = &mut self.places[tag as usize];
        let request = place.request.take().expect("what is removed is held");
        let (prev, next) = (place.prev, place.next);
        match prev {
            NONE => fifo.head = next,
            _ => self.places[prev as usize].next = next,
        }
        match next {
            NONE => fifo.tail = prev,
            _ => self.places[next as usize].prev = prev,
        }
        request
    }

    /// When a held request came.
    pub(super) fn came_at(&self, tag: u32) -> Time {
        self.places[tag as usize].came_at
    }
}
