//! The device budget: how many requests the device takes at a time, over all hardware queues.
//!
//! This is the room of the race that the project began with. A thread takes the last unit and finds
//! no request. Before it puts the unit back, another thread with a request fails to get it and
//! leaves, trusting the holder to kick. The holder puts the unit back and leaves as well.
//!
//! The cure is the hand-off. Who fails to get a unit marks its hardware queue, and tries once more;
//! who puts one back looks at the marks, and kicks one marked hardware queue for each free unit.
//! Both sides publish before they look, with a full fence between, so at least one of them sees the
//! other (pair B1: [`Budget::get`] and [`Budget::pass_on`]).

use std::time::Duration;

use crate::bitmap::Bitmap;
use crate::ids::HctxId;
use crate::sync::{AcqRel, AtomicU32, Relaxed, Release, SeqCst, fence};
use crossbeam_utils::CachePadded;

/// How long mode `delayed` waits before everybody looks again (Linux's `BLK_MQ_BUDGET_DELAY`).
pub const BUDGET_DELAY: Duration = Duration::from_millis(3);

/// What becomes of a unit that was taken and put back without a request having been sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BudgetMode {
    /// One hardware queue that waits for it is kicked. Our default.
    #[default]
    Handoff,
    /// Every hardware queue is run again 3 ms later: Linux's cure since commit a0823421a4d7.
    Delayed,
    /// Nothing: Linux before that commit. Stalls; kept for the lab, which must catch it.
    None,
}

/// One unit of a budget. It exists once; whoever has it owes it back.
#[derive(Debug)]
pub(crate) struct Token(());

/// The budget of one device.
#[derive(Debug)]
pub(crate) struct Budget {
    mode: BudgetMode,
    limit: u32,
    /// Units handed out.
    used: CachePadded<AtomicU32>,
    /// Who waits: a bit for each hardware queue that has requests of its own (in its dispatch list
    /// or its software queues), and one more for the scheduler, whose requests any hardware queue
    /// can take.
    waiting: CachePadded<Bitmap>,
    nr_hctx: usize,
}

/// Who asks for a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiter {
    /// A hardware queue, for requests that only it can send.
    Hctx(HctxId),
    /// Whoever holds the scheduler, for a request of the scheduler's.
    Scheduler,
}

impl Budget {
    /// A budget of `limit` units for a queue with `nr_hctx` hardware queues.
    pub(crate) fn new(limit: u32, mode: BudgetMode, nr_hctx: usize) -> Self {
        assert!(limit > 0, "a budget of nothing would hold every request for ever");
        Budget {
            mode,
            limit,
            used: CachePadded::new(AtomicU32::new(0)),
            waiting: CachePadded::new(Bitmap::new(nr_hctx + 1)),
            nr_hctx,
        }
    }

    pub(crate) fn mode(&self) -> BudgetMode {
        self.mode
    }

    /// A unit, or nothing. Leaves no mark: the caller must not rest on a failure.
    pub(crate) fn try_get(&self) -> Option<Token> {
        let mut used = self.used.load(Relaxed);
        while used < self.limit {
            match self.used.compare_exchange(used, used + 1, AcqRel, Relaxed) {
                Ok(_) => return Some(Token(())),
                Err(now) => used = now,
            }
        }
        None
    }

    /// A unit; or nothing, and then `who` is marked and will be kicked once a unit is free.
    ///
    /// A mark stays when the second try succeeds: another thread may rest on the same one. The kick
    /// it brings finds nothing to do and is passed on.
    pub(crate) fn get(&self, who: Waiter) -> Option<Token> {
        if let Some(token) = self.try_get() {
            return Some(token);
        }
        self.waiting.set(self.index(who));
        // Pair B1, the waiter's side: the mark is published before the budget is looked at again.
        fence(SeqCst);
        self.try_get()
    }

    /// Puts a unit back. The caller owes a [`Budget::pass_on`] before its turn ends, unless the
    /// device is busy and has named who will restart it.
    pub(crate) fn put(&self, token: Token) {
        let Token(()) = token;
        let before = self.used.fetch_sub(1, Release);
        assert!(before > 0, "a unit was put back twice");
        assert!(before <= self.limit, "more units were out than there are");
    }

    /// Takes one mark for each free unit and answers each to `kick`. The caller has executed a full
    /// fence since it last put a unit back (pair B1, the holder's side).
    ///
    /// `from` is where the search for marks begins, so that every hardware queue comes round.
    pub(crate) fn pass_on(&self, from: HctxId, mut kick: impl FnMut(Waiter)) {
        let Some(mut index) = self.waiting.next_from(usize::from(from.0) + 1) else { return };
        let mut free = self.limit - self.used.load(Relaxed).min(self.limit);
        if self.mode != BudgetMode::Handoff {
            // The kernel's completion runs all hardware queues of a device that anybody waits for.
            free = if free == 0 { 0 } else { u32::MAX };
        }
        while free > 0 {
            if self.waiting.take(index) {
                kick(self.waiter(index));
                free -= 1;
            }
            if free > 0 {
                let Some(next) = self.waiting.next_from(index + 1) else { return };
                index = next;
            }
        }
    }

    /// Forgets the scheduler's mark: it has just said, to a holder of a unit, that it has nothing
    /// to send now, and it will say when it has. That one answer serves everybody who waits for it.
    ///
    /// Only the holder of the scheduler may call this; only holders set the mark.
    pub(crate) fn answered(&self) {
        if self.waiting.contains(self.nr_hctx) {
            self.waiting.clear(self.nr_hctx);
        }
    }

    /// Units handed out at the moment.
    pub(crate) fn used(&self) -> u32 {
        self.used.load(Relaxed)
    }

    fn index(&self, who: Waiter) -> usize {
        match who {
            Waiter::Hctx(hctx) => usize::from(hctx.0),
            Waiter::Scheduler => self.nr_hctx,
        }
    }

    fn waiter(&self, index: usize) -> Waiter {
        if index == self.nr_hctx {
            Waiter::Scheduler
        } else {
            Waiter::Hctx(HctxId(u16::try_from(index).expect("hardware queues are numbered in u16")))
        }
    }
}
