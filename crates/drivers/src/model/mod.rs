//! A device that is a model of one, in real time.

mod ring;
mod timer;

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use blkmq_core::{Driver, Expired, HctxId, InFlight, Limits, QueueRq, Status, TimeoutAnswer};
use blkmq_models::{Slots, SlotsConfig};

use crate::device::{Device, Extent, Kick, check_range};
use crate::memory::Memory;
use crate::null::Null;
use ring::Timed;

/// What a model of a device is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelOptions {
    /// The size in bytes; it is rounded down to whole sectors.
    pub size_bytes: u64,
    /// How it behaves in time, and what goes wrong.
    pub slots: SlotsConfig,
    /// Whether it keeps what is written, in memory. If not, a read leaves the memory lent to it as
    /// it was.
    pub store: bool,
    /// What the layer is told of its write cache. Nothing is ever lost in it.
    pub cache: ModelCache,
}

/// What a modelled device says of its write cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ModelCache {
    /// It has none: flushes end in the layer, and never reach it.
    None,
    /// It has one, and no FUA of its own: the layer has a flush follow each such write.
    Volatile,
    /// It has one, and takes FUA writes as such.
    #[default]
    Fua,
}

/// A device that takes as long as a model says, fails as it says, and holds its data in memory.
///
/// Data are moved when a request ends. Its rings share the slots of the model, so there is a lock
/// among them; a model without service times and faults has neither lock nor clock.
pub struct Model {
    size_bytes: u64,
    memory: Option<Memory>,
    cache: ModelCache,
    /// Every request ends as it begins.
    is_instant: bool,
    shared: Arc<Shared>,
}

/// What one thread needs to talk to the model. Dropping it takes its requests away from the model.
#[derive(Debug)]
pub struct ModelRing {
    /// Ended, and waiting to be reaped, where requests end as they begin.
    finished: Vec<(InFlight, Status)>,
    /// `None` where requests end as they begin.
    timed: Option<Timed>,
}

/// What all rings share.
struct Shared {
    state: Mutex<State>,
    kick: OnceLock<Kick>,
    epoch: Instant,
}

/// The machine, each queue of which is a ring, and the hardware queue that each ring serves.
#[derive(Debug)]
struct State {
    slots: Slots,
    hctx: Vec<HctxId>,
}

impl Model {
    /// A device that behaves as `options` say.
    ///
    /// # Panics
    ///
    /// If it has no slot.
    pub fn new(options: ModelOptions) -> Self {
        let ModelOptions { size_bytes, slots, store, cache } = options;
        Model {
            size_bytes,
            memory: store.then(|| Memory::new(size_bytes)),
            cache,
            is_instant: slots.is_instant(),
            shared: Arc::new(Shared {
                state: Mutex::new(State { slots: Slots::new(slots), hctx: Vec::new() }),
                kick: OnceLock::new(),
                epoch: Instant::now(),
            }),
        }
    }

    /// Moves the data of a request that has ended well.
    fn serve(&self, rq: &InFlight) -> Status {
        self.memory.as_ref().map_or(Status::Ok, |memory| memory.serve(rq))
    }
}

impl Shared {
    // A panic cannot leave the machine half changed in a way that is worse than losing a request,
    // so a poisoned lock is taken as it is.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Driver for Model {
    type Ring = ModelRing;

    fn limits(&self) -> Limits {
        let limits = match &self.memory {
            Some(memory) => memory.limits(),
            None => Null::new(self.size_bytes).limits(),
        };
        let write_cache = self.cache != ModelCache::None;
        Limits { write_cache, fua: self.cache == ModelCache::Fua, ..limits }
    }

    #[inline]
    fn queue_rq(&self, ring: &mut ModelRing, rq: InFlight) -> QueueRq {
        match &mut ring.timed {
            Some(timed) => timed.start(rq),
            None => {
                let status = self.serve(&rq);
                ring.finished.push((rq, status));
                QueueRq::Queued
            }
        }
    }

    fn commit_rqs(&self, ring: &mut ModelRing) {
        if let Some(timed) = &mut ring.timed {
            timed.arm();
        }
    }

    #[inline]
    fn reap(&self, ring: &mut ModelRing, mut end: impl FnMut(InFlight, Status)) {
        match &mut ring.timed {
            Some(timed) => timed.reap(|rq, outcome| {
                let status = if outcome.is_ok() { self.serve(&rq) } else { outcome };
                end(rq, status);
            }),
            None => ring.finished.drain(..).for_each(|(rq, status)| end(rq, status)),
        }
    }

    /// What is only slow is waited for. What the model has lost is given up, since nobody knows
    /// whether it will turn up again.
    fn timeout(&self, ring: &mut ModelRing, expired: Expired) -> TimeoutAnswer {
        match &mut ring.timed {
            Some(timed) => timed.late(expired),
            // It ended as it began, and waits to be reaped.
            None => TimeoutAnswer::Done,
        }
    }
}

impl Device for Model {
    fn ring(&self, depth: u32) -> io::Result<ModelRing> {
        let depth = depth as usize;
        Ok(match self.is_instant {
            true => ModelRing { finished: Vec::with_capacity(depth), timed: None },
            false => {
                let timed = Timed::new(Arc::clone(&self.shared), depth)?;
                ModelRing { finished: Vec::new(), timed: Some(timed) }
            }
        })
    }

    fn set_kick(&self, kick: Kick) {
        let first = self.shared.kick.set(kick).is_ok();
        assert!(first, "a device has one queue above it");
    }

    fn poll_fd<'a>(&self, ring: &'a ModelRing) -> Option<BorrowedFd<'a>> {
        ring.timed.as_ref().map(Timed::poll_fd)
    }

    fn has_finished(&self, ring: &ModelRing) -> bool {
        match &ring.timed {
            Some(timed) => timed.has_finished(),
            None => !ring.finished.is_empty(),
        }
    }

    fn extents(&self, offset_bytes: u64, len_bytes: u64, max: usize) -> io::Result<Vec<Extent>> {
        match &self.memory {
            Some(memory) => memory.extents(offset_bytes, len_bytes, max),
            None => {
                check_range(self.size_bytes(), offset_bytes, len_bytes)?;
                Null::new(self.size_bytes).extents(offset_bytes, len_bytes, max)
            }
        }
    }

    fn fills_reads(&self) -> bool {
        self.memory.is_some()
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("state", &self.shared.state()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}
