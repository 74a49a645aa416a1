//! The requests that a scheduler holds, by scheduler tag: lists of them in the order of their
//! coming, and where each of them ends.
//!
//! What is inlined by force here and in `sorted.rs` lies on the path of every request and is called
//! from one place there; the calls would cost some twenty instructions.

use crate::request::Request;
use crate::time::Time;

const NONE: u32 = u32::MAX;

/// A place for each request of the queue, linked into [`Fifo`]s and, by the sector that it ends at,
/// into a hash table. Nothing is allocated after the start.
#[derive(Debug)]
pub(super) struct Held {
    places: Box<[Place]>,
    /// The first of each bucket of the hash table; a power of two of them.
    buckets: Box<[u32]>,
    /// The bits of a hash value that are no part of a bucket's number.
    shift: u32,
}

/// All that is looked at when a request comes or goes, in one cache line.
#[derive(Debug)]
#[repr(align(64))]
struct Place {
    request: Option<Request>,
    came_at: Time,
    /// The key under which it is in the hash table: the sector after its last.
    end: u64,
    fifo: Links,
    bucket: Links,
}

#[derive(Clone, Copy, Debug)]
struct Links {
    prev: u32,
    next: u32,
}

const UNLINKED: Links = Links { prev: NONE, next: NONE };

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
    #[inline]
    pub(super) fn first(&self) -> Option<u32> {
        (self.head != NONE).then_some(self.head)
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.head == NONE
    }
}

impl Held {
    /// Places for `nr_requests` requests.
    pub(super) fn new(nr_requests: u32) -> Self {
        let place = |_| Place {
            request: None,
            came_at: Time::ZERO,
            end: 0,
            fifo: UNLINKED,
            bucket: UNLINKED,
        };
        let nr_buckets = (2 * nr_requests as usize).next_power_of_two();
        Held {
            places: (0..nr_requests).map(place).collect(),
            buckets: vec![NONE; nr_buckets].into_boxed_slice(),
            shift: u64::BITS - nr_buckets.trailing_zeros(),
        }
    }

    /// Adds a request at the end of a list.
    #[inline(always)]
    pub(super) fn push(&mut self, fifo: &mut Fifo, request: Request, came_at: Time) {
        let tag = request.sched_tag();
        let end = request.end_sector();
        let place = &mut self.places[tag as usize];
        let before = place.request.replace(request);
        assert!(before.is_none(), "a tag is held once");
        place.came_at = came_at;
        self.link(fifo, tag, NONE);
        self.hash(tag, end);
    }

    /// Takes a request out of its list.
    #[inline(always)]
    pub(super) fn remove(&mut self, fifo: &mut Fifo, tag: u32) -> Request {
        self.unhash(tag);
        self.unlink(fifo, tag);
        self.places[tag as usize].request.take().expect("what is removed is held")
    }

    /// When a held request came; of a merged one, when the first of its parts did.
    #[inline]
    pub(super) fn came_at(&self, tag: u32) -> Time {
        self.places[tag as usize].came_at
    }

    pub(super) fn get(&self, tag: u32) -> &Request {
        self.places[tag as usize].request.as_ref().expect("the request is held")
    }

    pub(super) fn get_mut(&mut self, tag: u32) -> &mut Request {
        self.places[tag as usize].request.as_mut().expect("the request is held")
    }

    /// A request that ends at `sector` and is fit, the one that came to do so last first. No more
    /// than `tries` are tried.
    #[inline(always)]
    pub(super) fn ending_at(
        &self,
        sector: u64,
        tries: usize,
        is_fit: impl FnMut(&Request) -> bool,
    ) -> Option<u32> {
        match self.buckets[self.bucket_of(sector)] {
            NONE => None,
            first => self.first_fit(first, sector, tries, is_fit),
        }
    }

    /// The same, from `tag` on in the list of a bucket.
    fn first_fit(
        &self,
        mut tag: u32,
        sector: u64,
        mut tries: usize,
        mut is_fit: impl FnMut(&Request) -> bool,
    ) -> Option<u32> {
        while tag != NONE && tries > 0 {
            let place = &self.places[tag as usize];
            if place.end == sector {
                let request = place.request.as_ref().expect("what is hashed is held");
                if is_fit(request) {
                    return Some(tag);
                }
                tries -= 1;
            }
            tag = place.bucket.next;
        }
        None
    }

    /// The request has grown, and may end elsewhere.
    pub(super) fn has_grown(&mut self, tag: u32) {
        let end = self.get(tag).end_sector();
        if end != self.places[tag as usize].end {
            self.unhash(tag);
            self.hash(tag, end);
        }
    }

    /// The request is to count as having come at `came_at` if that is earlier. Its place in its
    /// list stays.
    pub(super) fn came_earlier(&mut self, tag: u32, came_at: Time) {
        let place = &mut self.places[tag as usize];
        place.came_at = place.came_at.min(came_at);
    }

    /// Moves a request to the place before another one in the list that both are in.
    pub(super) fn move_before(&mut self, fifo: &mut Fifo, tag: u32, other: u32) {
        assert!(tag != other, "two requests");
        self.unlink(fifo, tag);
        self.link(fifo, tag, other);
    }

    /// The tags of a list, in its order.
    pub(super) fn iter(&self, fifo: &Fifo) -> impl Iterator<Item = u32> {
        std::iter::successors(fifo.first(), move |tag| {
            let next = self.places[*tag as usize].fifo.next;
            (next != NONE).then_some(next)
        })
    }

    /// Links a request into a list before `next`, or at its end.
    #[inline(always)]
    fn link(&mut self, fifo: &mut Fifo, tag: u32, next: u32) {
        let before = match next {
            NONE => &mut fifo.tail,
            _ => &mut self.places[next as usize].fifo.prev,
        };
        let prev = std::mem::replace(before, tag);
        match prev {
            NONE => fifo.head = tag,
            _ => self.places[prev as usize].fifo.next = tag,
        }
        self.places[tag as usize].fifo = Links { prev, next };
    }

    #[inline(always)]
    fn unlink(&mut self, fifo: &mut Fifo, tag: u32) {
        let Links { prev, next } = self.places[tag as usize].fifo;
        match prev {
            NONE => fifo.head = next,
            _ => self.places[prev as usize].fifo.next = next,
        }
        match next {
            NONE => fifo.tail = prev,
            _ => self.places[next as usize].fifo.prev = prev,
        }
    }

    #[inline]
    fn bucket_of(&self, end: u64) -> usize {
        // Fibonacci hashing: the upper bits of the product depend on all bits of the key.
        (end.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize
    }

    #[inline(always)]
    fn hash(&mut self, tag: u32, end: u64) {
        let bucket = self.bucket_of(end);
        let next = std::mem::replace(&mut self.buckets[bucket], tag);
        let place = &mut self.places[tag as usize];
        place.end = end;
        place.bucket = Links { prev: NONE, next };
        if next != NONE {
            self.places[next as usize].bucket.prev = tag;
        }
    }

    #[inline(always)]
    fn unhash(&mut self, tag: u32) {
        let place = &self.places[tag as usize];
        let (end, Links { prev, next }) = (place.end, place.bucket);
        match prev {
            NONE => {
                let bucket = self.bucket_of(end);
                let first = std::mem::replace(&mut self.buckets[bucket], next);
                assert!(first == tag, "the first of its bucket");
            }
            _ => self.places[prev as usize].bucket.next = next,
        }
        if next != NONE {
            self.places[next as usize].bucket.prev = prev;
        }
    }
}
