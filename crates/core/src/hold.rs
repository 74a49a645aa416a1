//! What holds requests up, as time in which each reason kept the queue from sending.
//!
//! Nobody keeps a clock for each request that waits. The queue adds up how long it was short of
//! budget and of tags; a request notes the two sums when it begins to wait, and what they have
//! grown by when it goes is its own share. The rest of its wait is the scheduler's, or the
//! device's.

use crate::stats::Hold;
use crate::sync::Counter;
use crate::time::Time;

/// How long the queue was held up in all, by each reason, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holds {
    pub(crate) budget_ns: u64,
    pub(crate) tag_ns: u64,
}

/// The sums, and since when each reason holds the queue up, if it does.
#[derive(Debug, Default)]
pub(crate) struct HoldClock {
    budget_ns: Counter,
    tag_ns: Counter,
    /// One more than the time since which budget is short; zero if it is not.
    budget_since: Counter,
    tag_since: Counter,
}

impl HoldClock {
    /// The queue is short of budget, or of tags.
    pub(crate) fn begin(&self, why: Hold, now: Time) {
        let (_, since) = self.of(why);
        if since.get() == 0 {
            since.exchange(0, now.as_ns() + 1);
        }
    }

    /// There was some again.
    #[inline]
    pub(crate) fn end(&self, now: Time) {
        if self.budget_since.get() != 0 {
            self.stop(Hold::Budget, now);
        }
        if self.tag_since.get() != 0 {
            self.stop(Hold::Tag, now);
        }
    }

    /// The sums, as of now.
    pub(crate) fn read(&self, now: Time) -> Holds {
        let sum = |why| {
            let (sum, since) = self.of(why);
            sum.get() + since.get().checked_sub(1).map_or(0, |since| elapsed(since, now))
        };
        Holds { budget_ns: sum(Hold::Budget), tag_ns: sum(Hold::Tag) }
    }

    #[cold]
    fn stop(&self, why: Hold, now: Time) {
        let (sum, since) = self.of(why);
        let before = since.get();
        if before != 0 && since.exchange(before, 0) {
            sum.add_shared(elapsed(before - 1, now));
        }
    }

    fn of(&self, why: Hold) -> (&Counter, &Counter) {
        match why {
            Hold::Budget => (&self.budget_ns, &self.budget_since),
            Hold::Tag => (&self.tag_ns, &self.tag_since),
            Hold::Limit | Hold::Admission | Hold::Scheduler | Hold::Device => {
                unreachable!("the queue is held up by budget and tags alone")
            }
        }
    }
}

impl Holds {
    /// How a wait of `wait_ns` that ends now divides among budget, tags and the rest.
    pub(crate) fn divide(self, now: Holds, wait_ns: u64) -> (u64, u64, u64) {
        let budget_ns = now.budget_ns.saturating_sub(self.budget_ns).min(wait_ns);
        let tag_ns = now.tag_ns.saturating_sub(self.tag_ns).min(wait_ns - budget_ns);
        (budget_ns, tag_ns, wait_ns - budget_ns - tag_ns)
    }
}

fn elapsed(since_ns: u64, now: Time) -> u64 {
    now.as_ns().saturating_sub(since_ns)
}
