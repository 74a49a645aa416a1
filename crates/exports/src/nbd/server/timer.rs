//! A connection's one deadline, cheap to move.

use blkmq_core::Time;
use blkmq_runtime::Cx;

/// Deadlines are moved to the next multiple of this, in nanoseconds: those of many clients that
/// came one after the other then come together, and wake the worker up once.
const GRAIN_NS: u64 = 100_000_000;

/// When a client's time is over.
///
/// The worker's timer is only touched to bring it forward: a deadline that moved into the future,
/// as it does with every request that arrives in pieces, is noticed when the old one comes.
#[derive(Debug, Default)]
pub(super) struct Timer {
    wanted: Option<Time>,
    armed: Option<Time>,
}

impl Timer {
    /// Moves the deadline.
    pub(super) fn set(&mut self, cx: &mut Cx<'_>, at: Time) {
        let at = Time::from_ns(at.as_ns().next_multiple_of(GRAIN_NS));
        self.wanted = Some(at);
        if self.armed.is_none_or(|armed| at < armed) {
            self.armed = Some(at);
            cx.set_deadline(Some(at));
        }
    }

    /// Sets a deadline unless there is one.
    pub(super) fn start(&mut self, cx: &mut Cx<'_>, at: Time) {
        if self.wanted.is_none() {
            self.set(cx, at);
        }
    }

    /// Brings the deadline forward, if it is not earlier already.
    pub(super) fn hasten(&mut self, cx: &mut Cx<'_>, at: Time) {
        if self.wanted.is_none_or(|wanted| at < wanted) {
            self.set(cx, at);
        }
    }

    /// There is no deadline any more.
    pub(super) fn clear(&mut self) {
        self.wanted = None;
    }

    /// The worker's timer has fired. Whether the deadline has come with it.
    pub(super) fn fired(&mut self, cx: &mut Cx<'_>) -> bool {
        self.armed = None;
        match self.wanted {
            Some(at) if at <= cx.now() => {
                self.wanted = None;
                true
            }
            Some(at) => {
                self.set(cx, at);
                false
            }
            None => false,
        }
    }
}
