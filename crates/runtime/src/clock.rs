//! The real clock.

use std::time::Instant;

use blkmq_core::Time;

/// Monotonic time since the clock was made. Its copies agree.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    epoch: Instant,
}

impl Clock {
    /// A clock that begins now.
    pub fn new() -> Self {
        Clock { epoch: Instant::now() }
    }

    /// What time it is.
    pub fn now(&self) -> Time {
        Time::from_ns(u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
