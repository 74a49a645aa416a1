//! Counts the schedules of the exploration in this process and keeps its time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::trace;

/// A static, so that the panic hook and the thread that reports progress see it. There is one
/// exploration a process.
static SCHEDULES: AtomicU64 = AtomicU64::new(0);

/// When an exploration has to end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meter {
    started_at: Instant,
    limit: Duration,
}

impl Meter {
    pub(crate) fn start(limit: Duration) -> Self {
        SCHEDULES.store(0, Ordering::Relaxed);
        trace::start();
        Meter { started_at: Instant::now(), limit }
    }

    /// Begins another schedule, unless the time is up.
    pub(crate) fn begin_schedule(&self) -> bool {
        if self.started_at.elapsed() >= self.limit {
            return false;
        }
        SCHEDULES.fetch_add(1, Ordering::Relaxed);
        trace::begin_schedule();
        true
    }
}

/// The schedules begun.
pub(crate) fn schedules() -> u64 {
    SCHEDULES.load(Ordering::Relaxed)
}
