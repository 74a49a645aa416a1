//! Points in time, as the environment counts them.

use std::ops::Add;
use std::time::Duration;

/// A point in time: nanoseconds since an epoch that the environment chooses.
///
/// The layer reads no clock. Whoever calls it brings the time along, so that the real clock,
/// virtual time and an explorer drive the same code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The environment's epoch.
    pub const ZERO: Time = Time(0);

    /// The time `ns` nanoseconds after the epoch.
    pub const fn from_ns(ns: u64) -> Self {
        Time(ns)
    }

    /// Nanoseconds since the epoch.
    pub const fn as_ns(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub const fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    /// Saturates at the end of time (584 years), which stands for "never".
    fn add(self, rhs: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}
