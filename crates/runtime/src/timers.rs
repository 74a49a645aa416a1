//! What a worker has to do at a later time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use blkmq_core::{Time, Wish};

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A disk's queue has wished to be run.
    Wish { disk: usize, why: Wish },
    /// A client's deadline, which was set for `at`.
    Deadline { client: usize, at: Time },
    /// Somebody has waited for memory for a while.
    Squeeze,
}

/// Times in their order. Of the wishes of one disk with one reason the earliest is kept; deadlines
/// are kept all, and the worker knows which of them still counts.
#[derive(Debug)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Time, Key)>>,
    wishes: Vec<[Option<Time>; Wish::ALL.len()]>,
    has_squeeze: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Wish(usize, usize),
    Deadline(usize),
    Squeeze,
}

impl Timers {
    /// For a worker with `disks` disks.
    pub(crate) fn new(disks: usize) -> Self {
        let wishes = vec![[None; Wish::ALL.len()]; disks];
        Timers { heap: BinaryHeap::new(), wishes, has_squeeze: false }
    }

    pub(crate) fn wish(&mut self, disk: usize, at: Time, why: Wish) {
        let reason = Wish::ALL.iter().position(|r| *r == why).expect("every reason is listed");
        let earliest = &mut self.wishes[disk][reason];
        if earliest.is_none_or(|earliest| at < earliest) {
            *earliest = Some(at);
            self.heap.push(Reverse((at, Key::Wish(disk, reason))));
        }
    }

    pub(crate) fn deadline(&mut self, client: usize, at: Time) {
        self.heap.push(Reverse((at, Key::Deadline(client))));
    }

    pub(crate) fn squeeze(&mut self, at: Time) {
        self.has_squeeze = true;
        self.heap.push(Reverse((at, Key::Squeeze)));
    }

    /// Whether a squeeze is to come.
    pub(crate) fn has_squeeze(&self) -> bool {
        self.has_squeeze
    }

    /// When to wake up.
    pub(crate) fn next(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// The next event whose time has come.
    pub(crate) fn fire(&mut self, now: Time) -> Option<Event> {
        loop {
            let Reverse((at, key)) = *self.heap.peek().filter(|Reverse((at, _))| *at <= now)?;
            self.heap.pop();
            match key {
                Key::Squeeze => {
                    self.has_squeeze = false;
                    return Some(Event::Squeeze);
                }
                Key::Deadline(client) => return Some(Event::Deadline { client, at }),
                Key::Wish(disk, reason) => {
                    // An earlier wish may have replaced this one, and have fired.
                    let earliest = &mut self.wishes[disk][reason];
                    if *earliest == Some(at) {
                        *earliest = None;
                        return Some(Event::Wish { disk, why: Wish::ALL[reason] });
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_wish_of_a_reason_fires_once() {
        let mut timers = Timers::new(1);
        for at in [30, 10, 20] {
            timers.wish(0, Time::from_ns(at), Wish::SchedulerIdle);
        }
        timers.wish(0, Time::from_ns(15), Wish::BudgetRerun);
        assert_eq!(timers.fire(Time::from_ns(9)), None);
        let idle = Event::Wish { disk: 0, why: Wish::SchedulerIdle };
        assert_eq!(timers.fire(Time::from_ns(40)), Some(idle));
        let rerun = Event::Wish { disk: 0, why: Wish::BudgetRerun };
        assert_eq!(timers.fire(Time::from_ns(40)), Some(rerun));
        assert_eq!(timers.fire(Time::from_ns(40)), None);
    }

    #[test]
    fn a_deadline_fires_with_the_time_it_was_set_for() {
        let mut timers = Timers::new(0);
        timers.deadline(7, Time::from_ns(5));
        assert_eq!(timers.next(), Some(Time::from_ns(5)));
        let event = Event::Deadline { client: 7, at: Time::from_ns(5) };
        assert_eq!(timers.fire(Time::from_ns(5)), Some(event));
    }
}
