//! The device budget: how many requests the device takes at a time, over all hardware queues.
//!
//! This is the room of the race that the project began with. A thread takes the last unit and finds
//! no request. Before it puts the unit back, another thread with a request fails to get it and
//! leaves, trusting the holder to kick. The holder puts the unit back and leaves as well.
//!
//! The cure is the hand-off. Who fails to get a unit marks its hardware queue, and tries once more;
//! who puts units back looks at the marks. Both sides publish before they look, with a full fence
//! between, so at least one of them sees the other (pair B1: [`Budget::get`] and
//! [`Budget::pass_on`]). A marked hardware queue is not only kicked: its units travel with the
//! kick, so that a thread that gives back and takes in one turn cannot starve the one that waits.
//! What a kicked run does not need it puts back, and so passes on.

use std::time::Duration;

use crate::bitmap::Bitmap;
use crate::ids::HctxId;
use crate::sync::{AcqRel, AtomicU32, Counter, Omission, Relaxed, Release, SeqCst, fence};
use crossbeam_utils::CachePadded;

/// How long mode `delayed` waits before everybody looks again (Linux's `BLK_MQ_BUDGET_DELAY`).
pub const BUDGET_DELAY: Duration = Duration::from_millis(3);

/// What becomes of a unit that was taken and put back without a request having been sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BudgetMode {
    /// One hardware queue that waits for it is given it, and kicked. Our default.
    #[default]
    Handoff,
    /// Every hardware queue is run again 3 ms later: Linux's cure since commit a0823421a4d7.
    Delayed,
    /// Nothing: Linux before that commit. Stalls; kept for the lab, which must catch it.
    None,
}

/// Units of a budget. They exist once; whoever has them owes them back.
#[derive(Debug, Default, PartialEq, Eq)]
#[must_use = "the units in here are owed back"]
pub(crate) struct Tokens(u32);

/// One unit of a budget.
#[derive(Debug)]
pub(crate) struct Token(());

impl Tokens {
    /// How many there are.
    #[inline]
    pub(crate) fn count(&self) -> u32 {
        self.0
    }

    /// Takes one out.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<Token> {
        self.0 = self.0.checked_sub(1)?;
        Some(Token(()))
    }

    /// Puts one in.
    #[inline]
    pub(crate) fn add(&mut self, token: Token) {
        let Token(()) = token;
        self.0 += 1;
    }

    /// Puts others in.
    pub(crate) fn join(&mut self, others: Tokens) {
        self.0 += others.0;
    }
}

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
    /// Which of them have less than a fair share, a bit for each hardware queue, or for several if
    /// there are more than 64: those at work give way to them. A counter, because no progress rests
    /// on it: who is not given way to has units, and they come back.
    short: CachePadded<Counter>,
    /// Units on their way to a hardware queue that waited, and was kicked.
    given: Box<[CachePadded<AtomicU32>]>,
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
    /// A budget of `limit` units for a queue with at most `nr_hctx` hardware queues.
    pub(crate) fn new(limit: u32, mode: BudgetMode, nr_hctx: usize) -> Self {
        assert!(limit > 0, "a budget of nothing would hold every request for ever");
        Budget {
            mode,
            limit,
            used: CachePadded::new(AtomicU32::new(0)),
            waiting: CachePadded::new(Bitmap::new(nr_hctx + 1)),
            short: CachePadded::default(),
            given: (0..nr_hctx).map(|_| CachePadded::new(AtomicU32::new(0))).collect(),
        }
    }

    pub(crate) fn mode(&self) -> BudgetMode {
        self.mode
    }

    /// How many units to take at once for `wanted` requests. Linux takes them one by one, and so do
    /// the modes that do as Linux does: what is taken and not used would not be handed on there.
    #[inline]
    pub(crate) fn at_once(&self, wanted: u32) -> u32 {
        if self.mode == BudgetMode::Handoff { wanted } else { wanted.min(1) }
    }

    /// Up to `max` units, perhaps none. Leaves no mark: the caller must not rest on a failure.
    pub(crate) fn try_get(&self, max: u32) -> Tokens {
        let mut used = self.used.load(Relaxed);
        while used < self.limit && max > 0 {
            let count = max.min(self.limit - used);
            match self.used.compare_exchange(used, used + count, AcqRel, Relaxed) {
                Ok(_) => return Tokens(count),
                Err(now) => used = now,
            }
        }
        Tokens(0)
    }

    /// Up to `max` units; or none, and then `who` is marked and will be kicked once a unit is free.
    /// `held` says how many units it has already.
    ///
    /// A mark stays when the second try succeeds: another thread may rest on the same one. The kick
    /// it brings finds nothing to do and is passed on.
    pub(crate) fn get(&self, who: Waiter, max: u32, held: u32) -> Tokens {
        let tokens = self.try_get(max);
        if tokens.count() > 0 {
            return tokens;
        }
        let index = self.index(who);
        // Set even if it seems to be: whoever takes a mark may be a thread of the same hardware
        // queue, which then has looked for itself and kicks nobody.
        self.waiting.set(index);
        if let Waiter::Hctx(hctx) = who
            && self.is_short(held)
        {
            self.short.set_bit(short_bit(hctx));
        }
        // Pair B1, the waiter's side: the mark is published before the budget is looked at again.
        fence(SeqCst);
        self.try_get(max)
    }

    /// Whether `held` units are less than a fair share for one of those who wait; somebody who does
    /// not wait has the rest.
    fn is_short(&self, held: u32) -> bool {
        let sharers = self.waiting.count().max(2);
        held < (self.limit / sharers).max(1)
    }

    /// The units that came with a kick to `hctx`.
    pub(crate) fn take_given(&self, hctx: HctxId) -> Tokens {
        let given = &self.given[usize::from(hctx.0)];
        if given.load(Relaxed) == 0 {
            return Tokens(0);
        }
        Tokens(given.swap(0, AcqRel))
    }

    /// Puts units back. The caller owes a [`Budget::pass_on`] before its turn ends, unless the
    /// device is busy and has named who will restart it.
    pub(crate) fn put(&self, tokens: &mut Tokens) {
        let Tokens(count) = std::mem::take(tokens);
        if count == 0 {
            return;
        }
        let before = self.used.fetch_sub(count, Release);
        assert!(before >= count, "a unit was put back twice");
        assert!(before <= self.limit, "more units were out than there are");
    }

    /// Whether anybody waits, as far as can be seen without a fence.
    #[inline]
    pub(crate) fn has_waiters(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether somebody waits to whom those at work give way, as far as can be seen without a
    /// fence.
    #[inline]
    pub(crate) fn must_give_way(&self) -> bool {
        match self.mode {
            BudgetMode::Handoff => self.short.get() != 0,
            BudgetMode::Delayed | BudgetMode::None => self.has_waiters(),
        }
    }

    /// Whether this hardware queue waits, as far as can be seen without a fence.
    #[inline]
    pub(crate) fn is_waiting(&self, hctx: HctxId) -> bool {
        self.mode == BudgetMode::Handoff && self.waiting.contains(usize::from(hctx.0))
    }

    /// Shares the free units among those who are marked: each gets its units and is answered to
    /// `kick`. The caller has executed a full fence since it last put a unit back (pair B1, the
    /// holder's side).
    ///
    /// `from` is where the search for marks begins, so that every hardware queue comes round. Of
    /// many free units some stay, for whoever is at work.
    pub(crate) fn pass_on(&self, from: HctxId, mut kick: impl FnMut(Waiter)) {
        let Some(mut index) = self.waiting.next_from(usize::from(from.0) + 1) else { return };
        let free = self.limit - self.used.load(Relaxed).min(self.limit);
        let hands_over = self.mode == BudgetMode::Handoff;
        // The kernel's completion runs all hardware queues of a device that anybody waits for.
        let mut left = if hands_over || free == 0 { free } else { u32::MAX };
        let share = if free > 1 { (free / (self.waiting.count() + 1)).max(1) } else { 1 };
        while left > 0 {
            if self.waiting.take(index) {
                let who = self.waiter(index);
                if let Waiter::Hctx(hctx) = who {
                    self.short.clear_bit(short_bit(hctx));
                }
                left -= if hands_over { self.give(who, share).max(1).min(left) } else { 1 };
                kick(who);
            }
            if left > 0 {
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
        if self.waiting.contains(self.given.len()) {
            self.waiting.clear(self.given.len());
        }
    }

    /// Forgets who waits, and takes back what is on its way to somebody who did. For a queue that
    /// is frozen, where nobody does: hardware queues may go, and what was on its way with them.
    pub(crate) fn recall(&self) {
        for (index, given) in self.given.iter().enumerate() {
            self.waiting.clear(index);
            self.put(&mut Tokens(given.swap(0, AcqRel)));
        }
        self.short.set(0);
    }

    /// Units handed out at the moment.
    pub(crate) fn used(&self) -> u32 {
        self.used.load(Relaxed)
    }

    /// How many units there are.
    pub(crate) fn limit(&self) -> u32 {
        self.limit
    }

    /// Who waits at the moment.
    pub(crate) fn waiters(&self) -> impl Iterator<Item = Waiter> {
        let marked = (0..=self.given.len()).filter(|index| self.waiting.contains(*index));
        marked.map(|index| self.waiter(index))
    }

    /// Sets units aside for a hardware queue; answers how many. Whose requests any hardware queue
    /// can take needs none: whoever is at work takes them.
    fn give(&self, who: Waiter, count: u32) -> u32 {
        let Waiter::Hctx(hctx) = who else { return 1 };
        if Omission::GivenUnits.is_made() {
            return 1;
        }
        let Tokens(got) = self.try_get(count);
        if got > 0 {
            self.given[usize::from(hctx.0)].fetch_add(got, AcqRel);
        }
        got
    }

    fn index(&self, who: Waiter) -> usize {
        match who {
            Waiter::Hctx(hctx) => usize::from(hctx.0),
            Waiter::Scheduler => self.given.len(),
        }
    }

    fn waiter(&self, index: usize) -> Waiter {
        if index == self.given.len() {
            Waiter::Scheduler
        } else {
            Waiter::Hctx(HctxId(u16::try_from(index).expect("hardware queues are numbered in u16")))
        }
    }
}

fn short_bit(hctx: HctxId) -> u32 {
    u32::from(hctx.0) % u64::BITS
}
