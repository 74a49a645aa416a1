//! A timer that a thread can sleep on.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// A descriptor that is readable from a given time on, until another time is given.
#[derive(Debug)]
pub(super) struct Timer {
    fd: OwnedFd,
    /// `u64::MAX` for never.
    set_for_ns: u64,
}

impl Timer {
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Timer { fd, set_for_ns: u64::MAX })
    }

    /// The time that it is set for; `u64::MAX` for never.
    pub(super) fn set_for_ns(&self) -> u64 {
        self.set_for_ns
    }

    /// Sees to it that it is readable at `at_ns` (`u64::MAX` for never). If it is set for a time
    /// before, which is not yet over, it is left so: one wake-up in vain costs no more than setting
    /// it, and more often than not there is none.
    pub(super) fn set(&mut self, now_ns: u64, at_ns: u64) {
        let is_soon_enough = self.set_for_ns <= at_ns && self.set_for_ns > now_ns;
        if is_soon_enough || self.set_for_ns == at_ns {
            return;
        }
        let left_ns = match at_ns {
            // A timer that is set for nothing is switched off.
            u64::MAX => 0,
            _ => at_ns.saturating_sub(now_ns).max(1),
        };
        let time = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec {
                tv_sec: (left_ns / 1_000_000_000) as i64,
                tv_nsec: (left_ns % 1_000_000_000) as i64,
            },
        };
        let set = timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &time);
        assert!(set.is_ok(), "a timer of ours can be set: {set:?}");
        self.set_for_ns = at_ns;
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
