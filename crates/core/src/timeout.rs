//! Requests that are in flight for too long.
//!
//! One turn is wished for when something is issued, for the moment when its time will be over; what
//! is issued before then needs no other. In that turn the thread looks at what is in flight on its
//! own ring, and asks the driver about what is late. In flight the driver owns the request, so the
//! layer can only ask: done, wait, or give the submitter an answer now. In the last case tag,
//! budget and memory are in quarantine until the device gives them back.

use crate::driver::{Driver, Env, Expired, TimeoutAnswer, Wish};
use crate::hardware::Flight;
use crate::ids::HctxId;
use crate::request::{Abandoned, Memory};
use crate::status::Status;
use crate::time::Time;
use crate::turn::Turn;

/// When a request's time is over that is not asked about again.
pub(crate) const NEVER: Time = Time::from_ns(u64::MAX);

impl<D: Driver, E: Env> Turn<'_, D, E> {
    /// A wish for the turn in which what was issued in this one would be late, unless an earlier
    /// one is out.
    #[inline]
    pub(crate) fn wish_for_timeouts(&mut self) {
        let timeout_ns = self.queue.timeout_ns();
        let at = Time::from_ns(self.now.as_ns().saturating_add(timeout_ns));
        if at < self.cpu.timeout_wish {
            self.wish_for_timeouts_at(at);
        }
    }

    /// Asks the driver about everything of this thread's whose time is over.
    #[cold]
    pub(crate) fn look_at_timeouts(&mut self) {
        self.cpu.timeout_wish = NEVER;
        // What has ended in the meantime is not late.
        self.reap();
        let mut next = NEVER;
        for lane in 0..self.cpu.lanes.len() {
            let id = self.cpu.lanes[lane].hctx;
            let own = |flight: &Flight| flight.ctx == self.cpu.ctx && flight.ends();
            let flights: Vec<Flight> = self.queue.hctx(id).flights().filter(own).collect();
            for flight in flights {
                let ends_at = if flight.ends_at <= self.now {
                    self.ask_about(id, flight)
                } else {
                    flight.ends_at
                };
                next = next.min(ends_at);
            }
        }
        if next != NEVER {
            self.wish_for_timeouts_at(next);
        }
    }

    /// Asks the driver about a request that is late. Answers when it has to be asked again.
    fn ask_about(&mut self, hctx: HctxId, flight: Flight) -> Time {
        self.cpu.counters.expired += 1;
        let timeout = self.queue.timeout();
        let expired = Expired { hctx, tag: flight.tag, now: self.now, timeout };
        let ring = self.ring.as_deref_mut().expect("the turn has its ring back");
        let ends_at = match self.queue.driver.timeout(ring, expired) {
            // Its completion is at hand.
            TimeoutAnswer::Done => return NEVER,
            TimeoutAnswer::WaitUntil(at) => {
                assert!(at > self.now, "a driver has us wait until a time to come");
                at
            }
            TimeoutAnswer::Abandon(abandoned) => {
                self.answer_abandoned(abandoned);
                NEVER
            }
        };
        self.queue.hctx(hctx).take_off(flight.tag, Flight::mark(ends_at, self.cpu.ctx));
        ends_at
    }

    fn answer_abandoned(&mut self, abandoned: Abandoned) {
        self.queue.abandoned.add_shared(1);
        if abandoned.is_flush {
            return self.give_up_flush();
        }
        for answer in abandoned.answers {
            self.end_bio(answer, Status::Timeout, Memory::Lent);
        }
    }

    #[cold]
    fn wish_for_timeouts_at(&mut self, at: Time) {
        self.cpu.timeout_wish = at;
        self.queue.env.run_at(self.cpu.ctx, at, Wish::Timeout);
    }
}
