//! A device in memory that finishes nothing until it is told to.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use blkmq_core::{Driver, InFlight, Limits, Op, QueueRq, Status};
use blkmq_drivers::{Device, Extent, Memory, MemoryRing};
use rustix::event::{EventfdFlags, eventfd};

/// A gate that is closed at first. Clones are the same gate.
#[derive(Clone, Default)]
pub(crate) struct Gate {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    is_open: AtomicBool,
    arrived: AtomicUsize,
    flushed: AtomicUsize,
    events: Mutex<Vec<OwnedFd>>,
}

/// The device behind a gate.
pub(crate) struct Gated {
    memory: Memory,
    gate: Gate,
    /// Whether a request of this kind fails.
    fails: fn(Op) -> bool,
}

/// What waits at the gate.
pub(crate) struct GatedRing {
    waiting: Vec<InFlight>,
    memory: MemoryRing,
    event: OwnedFd,
}

impl Gate {
    /// Lets everything through from now on.
    pub(crate) fn open(&self) {
        self.shared.is_open.store(true, Ordering::SeqCst);
        for event in self.shared.events.lock().unwrap().iter() {
            rustix::io::write(event, &1_u64.to_ne_bytes()).unwrap();
        }
    }

    /// Waits until so many requests have come to the device.
    pub(crate) fn await_arrival(&self, count: usize) {
        await_that(|| self.shared.arrived.load(Ordering::SeqCst) >= count);
    }

    /// How many requests have come to the device.
    pub(crate) fn arrived(&self) -> usize {
        self.shared.arrived.load(Ordering::SeqCst)
    }

    /// How many of them were flushes.
    pub(crate) fn flushed(&self) -> usize {
        self.shared.flushed.load(Ordering::SeqCst)
    }
}

/// Waits until `condition` holds.
pub(crate) fn await_that(mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "what was waited for never came");
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl Gated {
    pub(crate) fn new(size_bytes: u64, gate: Gate) -> Self {
        Gated { memory: Memory::new(size_bytes), gate, fails: |_| false }
    }

    pub(crate) fn broken(size_bytes: u64, gate: Gate) -> Self {
        Gated { fails: |_| true, ..Gated::new(size_bytes, gate) }
    }

    /// Of `memory`, with some kinds of requests that fail.
    pub(crate) fn failing(memory: Memory, gate: Gate, fails: fn(Op) -> bool) -> Self {
        Gated { memory, gate, fails }
    }

    /// The gate it is behind.
    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }
}

impl Driver for Gated {
    type Ring = GatedRing;

    fn limits(&self) -> Limits {
        // With a cache, so that flushes reach it.
        Limits { write_cache: true, fua: true, ..self.memory.limits() }
    }

    fn queue_rq(&self, ring: &mut GatedRing, rq: InFlight) -> QueueRq {
        if rq.op() == Op::Flush {
            self.gate.shared.flushed.fetch_add(1, Ordering::SeqCst);
        }
        self.gate.shared.arrived.fetch_add(1, Ordering::SeqCst);
        if (self.fails)(rq.op()) {
            return QueueRq::Failed(rq, Status::IoErr);
        }
        ring.waiting.push(rq);
        QueueRq::Queued
    }

    fn commit_rqs(&self, _ring: &mut GatedRing) {}

    fn reap(&self, ring: &mut GatedRing, end: impl FnMut(InFlight, Status)) {
        if !self.gate.shared.is_open.load(Ordering::SeqCst) {
            return;
        }
        let _ = rustix::io::read(&ring.event, &mut [0; 8]);
        for rq in ring.waiting.drain(..) {
            self.memory.queue_rq(&mut ring.memory, rq);
        }
        self.memory.reap(&mut ring.memory, end);
    }
}

impl Device for Gated {
    fn ring(&self, depth: u32) -> io::Result<GatedRing> {
        let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        self.gate.shared.events.lock().unwrap().push(event.try_clone()?);
        Ok(GatedRing { waiting: Vec::new(), memory: self.memory.ring(depth)?, event })
    }

    fn poll_fd<'a>(&self, ring: &'a GatedRing) -> Option<BorrowedFd<'a>> {
        Some(ring.event.as_fd())
    }

    fn has_finished(&self, ring: &GatedRing) -> bool {
        let is_open = self.gate.shared.is_open.load(Ordering::SeqCst);
        is_open && (!ring.waiting.is_empty() || self.memory.has_finished(&ring.memory))
    }

    fn extents(&self, offset_bytes: u64, len_bytes: u64, max: usize) -> io::Result<Vec<Extent>> {
        self.memory.extents(offset_bytes, len_bytes, max)
    }
}
