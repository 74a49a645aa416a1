//! The device of the scenarios, and what it makes sure of while it is given requests.

use std::sync::{Arc, Mutex, PoisonError};

use blkmq_models::Random;

use super::core::{Driver, Expired, InFlight, Limits, Op, QueueRq, Status, TimeoutAnswer};
use super::medium::Medium;
use super::stage::{finding, step};
use super::sync::atomic::{AtomicBool, Ordering};

/// A device that takes whatever the layer lets through. What it has finished waits in the ring, as
/// behind an interrupt, until the thread reaps.
#[derive(Debug, Default)]
pub(crate) struct Device {
    /// What is written is durable after a flush only.
    has_cache: bool,
    /// With a cache: it makes a write with FUA durable by itself.
    has_fua: bool,
    /// Where its data go; `None` if nobody looks at them.
    medium: Option<Arc<Medium>>,
    /// Which of its requests end first; `None` if they end in the order of their coming, and all
    /// at once. No explored lock.
    order: Option<Mutex<Random>>,
    /// It finishes nothing before somebody sets this; `None` if it finishes at once.
    may_finish: Option<AtomicBool>,
    /// Whether it may not be given anything; `None` if it always may. Explored, as the explorers
    /// have to see that it matters what comes first.
    closed: Option<AtomicBool>,
    /// What has happened, in its order. No explored lock, as it is not meant to order the threads.
    log: Mutex<Vec<Event>>,
}

/// What happens at the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Sent(Op, u64),
    Finished(Op, u64),
}

impl Device {
    /// One with a volatile cache.
    pub(crate) fn with_cache() -> Self {
        Device { has_cache: true, ..Device::default() }
    }

    /// One with a volatile cache whose data are looked at; with FUA or without. With a seed its
    /// requests end in any order, some at a time.
    pub(crate) fn on(medium: &Arc<Medium>, has_fua: bool, order: Option<u64>) -> Self {
        Device {
            has_cache: true,
            has_fua,
            medium: Some(Arc::clone(medium)),
            order: order.map(|seed| Mutex::new(Random::new(seed))),
            ..Device::default()
        }
    }

    /// Where its data go.
    pub(crate) fn medium(&self) -> Option<&Arc<Medium>> {
        self.medium.as_ref()
    }

    /// One that finishes nothing before [`Device::finish`] is called.
    pub(crate) fn slow() -> Self {
        Device { may_finish: Some(AtomicBool::new(false)), ..Device::default() }
    }

    /// Lets a slow device finish what it has, and all that comes.
    pub(crate) fn finish(&self) {
        let may_finish = self.may_finish.as_ref().expect("the device is a slow one");
        may_finish.store(true, Ordering::Release);
    }

    /// One of which [`Device::set_closed`] can be asked.
    pub(crate) fn with_door() -> Self {
        Device { closed: Some(AtomicBool::new(false)), ..Device::default() }
    }

    /// From now on nothing may come, or again something.
    pub(crate) fn set_closed(&self, is_closed: bool) {
        let closed = self.closed.as_ref().expect("the device has a door");
        closed.store(is_closed, Ordering::Release);
    }

    /// What has happened up to now.
    pub(crate) fn log(&self) -> Vec<Event> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it has something for who reaps this ring.
    pub(crate) fn has_finished(&self, ring: &[InFlight]) -> bool {
        !ring.is_empty() && self.finishes()
    }

    fn finishes(&self) -> bool {
        self.may_finish.as_ref().is_none_or(|may| may.load(Ordering::Acquire))
    }

    /// The requests of a ring that end now, taken out of it; at least one if there are any.
    fn take_finished(&self, ring: &mut Vec<InFlight>) -> Vec<InFlight> {
        let Some(order) = &self.order else { return std::mem::take(ring) };
        let mut random = order.lock().unwrap_or_else(PoisonError::into_inner);
        let mut finished = Vec::new();
        while !ring.is_empty() && (finished.is_empty() || random.below(2) == 0) {
            let place = usize::try_from(random.below(ring.len() as u64)).expect("a place in it");
            finished.push(ring.swap_remove(place));
        }
        finished
    }

    fn note(&self, event: Event) {
        step(format!("{event:?}"));
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }

    /// How many flushes are in flight.
    fn flushes(&self) -> usize {
        let log = self.log();
        let sent = log.iter().filter(|event| matches!(event, Event::Sent(Op::Flush, _))).count();
        let ended = log.iter().filter(|event| matches!(event, Event::Finished(Op::Flush, _)));
        sent - ended.count()
    }
}

impl Driver for Device {
    type Ring = Vec<InFlight>;

    fn limits(&self) -> Limits {
        Limits {
            capacity_sectors: self.medium().map_or(1 << 20, |medium| medium.capacity_sectors()),
            logical_block_sectors: 1,
            max_sectors: if self.medium.is_some() { 4 } else { 8 },
            max_segments: if self.medium.is_some() { 2 } else { 1 },
            max_discard_sectors: 8,
            max_write_zeroes_sectors: 8,
            write_cache: self.has_cache,
            fua: self.has_fua,
            ..Limits::default()
        }
    }

    fn queue_rq(&self, ring: &mut Self::Ring, rq: InFlight) -> QueueRq {
        if self.closed.as_ref().is_some_and(|closed| closed.load(Ordering::Acquire)) {
            let stuck = format!("sector {} goes to the device", rq.sector());
            finding("let through", stuck, "the turn that sent it");
        }
        self.note(Event::Sent(rq.op(), rq.sector()));
        if self.flushes() > 1 {
            finding("two flushes", "a second flush goes out", "the flush machine");
        }
        if let Some(medium) = &self.medium {
            medium.begin(&rq);
        }
        ring.push(rq);
        QueueRq::Queued
    }

    fn commit_rqs(&self, _ring: &mut Self::Ring) {}

    fn reap(&self, ring: &mut Self::Ring, mut end: impl FnMut(InFlight, Status)) {
        if !self.finishes() {
            return;
        }
        for rq in self.take_finished(ring) {
            if let Some(medium) = &self.medium {
                medium.end(&rq);
            }
            self.note(Event::Finished(rq.op(), rq.sector()));
            end(rq, Status::Ok);
        }
    }

    fn timeout(&self, ring: &mut Self::Ring, expired: Expired) -> TimeoutAnswer {
        if self.finishes() {
            step("says that the late request has ended");
            return TimeoutAnswer::Done;
        }
        step("gives the late request up");
        let late = ring.iter_mut().find(|rq| rq.tag() == expired.tag);
        TimeoutAnswer::Abandon(late.expect("what is late is in flight").abandon())
    }
}
