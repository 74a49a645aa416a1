//! Who may do what at the queue: quiesce, freeze, and that what was made anew is seen.
//!
//! Each thread has a word, its gate. The thread marks it when a turn begins and clears it when the
//! turn ends; whoever controls the queue sets bits in it. Both are read-modify-writes of the same
//! word, so one of them comes first: either the turn sees what was asked, or it is seen to be under
//! way and unaware, and then it says so when it ends. No fence is needed for that.

use crossbeam_utils::CachePadded;

use crate::ids::CtxId;
use crate::sync::{AcqRel, Acquire, AtomicU32, Mutex, Omission};

/// A turn is under way.
const IN_TURN: u32 = 1;
/// That turn began before what was asked last.
const UNAWARE: u32 = 2;
/// Nothing may be sent to the driver.
const QUIESCED: u32 = 4;
/// No bio may get a scheduler tag.
const FROZEN: u32 = 8;
/// Something of the queue was made anew.
const STALE: u32 = 16;

/// The gates of all threads, and how often each thing was asked for.
#[derive(Debug)]
pub(crate) struct Control {
    gates: Box<[CachePadded<AtomicU32>]>,
    depths: Mutex<Depths>,
}

#[derive(Debug, Default)]
struct Depths {
    quiesce: u32,
    freeze: u32,
}

/// What a turn may do, as it stands at its beginning.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass(u32);

impl Pass {
    /// Whether it must not send anything.
    #[inline]
    pub(crate) fn is_quiesced(self) -> bool {
        self.0 & QUIESCED != 0
    }

    /// Whether it must not give out scheduler tags.
    #[inline]
    pub(crate) fn is_frozen(self) -> bool {
        self.0 & FROZEN != 0
    }

    /// Whether the thread has to look at the queue anew first.
    #[inline]
    pub(crate) fn is_stale(self) -> bool {
        self.0 & STALE != 0
    }

    /// Whether nothing out of the ordinary was asked.
    #[cfg(test)]
    fn is_plain(self) -> bool {
        self.0 & (QUIESCED | FROZEN | STALE) == 0
    }
}

impl Control {
    pub(crate) fn new(nr_ctx: usize) -> Self {
        let gate = |_| CachePadded::new(AtomicU32::new(0));
        Control { gates: (0..nr_ctx).map(gate).collect(), depths: Mutex::default() }
    }

    /// A turn of a thread begins.
    #[inline]
    pub(crate) fn enter(&self, ctx: CtxId) -> Pass {
        let before = self.gates[usize::from(ctx.0)].fetch_or(IN_TURN, AcqRel);
        assert!(before & IN_TURN == 0, "a thread takes one turn at a time");
        Pass(before)
    }

    /// The thread has looked at the queue anew. Called within a turn, before it looks.
    pub(crate) fn refreshed(&self, ctx: CtxId) {
        self.gates[usize::from(ctx.0)].fetch_and(!STALE, AcqRel);
    }

    /// A turn of a thread ends. Answers whether somebody waits for this very turn to be over.
    #[inline]
    pub(crate) fn leave(&self, ctx: CtxId) -> bool {
        let before = self.gates[usize::from(ctx.0)].fetch_and(!(IN_TURN | UNAWARE), AcqRel);
        assert!(before & IN_TURN != 0, "a turn that ends has begun");
        before & UNAWARE != 0
    }

    /// Asks for nothing to be sent, once more.
    pub(crate) fn quiesce(&self) {
        let mut depths = self.depths.lock();
        depths.quiesce += 1;
        self.ask(QUIESCED);
    }

    /// Takes back one [`Control::quiesce`]. Answers whether it was the last.
    pub(crate) fn unquiesce(&self) -> bool {
        let mut depths = self.depths.lock();
        depths.quiesce = depths.quiesce.checked_sub(1).expect("a quiesce is taken back once");
        if depths.quiesce == 0 {
            self.allow(QUIESCED);
        }
        depths.quiesce == 0
    }

    /// Asks for no tags to be given out, once more.
    pub(crate) fn freeze(&self) {
        let mut depths = self.depths.lock();
        depths.freeze += 1;
        self.ask(FROZEN);
    }

    /// Takes back one [`Control::freeze`]. Answers whether it was the last.
    pub(crate) fn unfreeze(&self) -> bool {
        let mut depths = self.depths.lock();
        depths.freeze = depths.freeze.checked_sub(1).expect("a freeze is taken back once");
        if depths.freeze == 0 {
            self.allow(FROZEN);
        }
        depths.freeze == 0
    }

    /// Has every thread look at the queue anew at its next turn.
    pub(crate) fn make_stale(&self) {
        for gate in &self.gates {
            gate.fetch_or(STALE, AcqRel);
        }
    }

    /// Whether a quiesce is asked for, and every turn that began before has ended.
    pub(crate) fn is_quiesced(&self) -> bool {
        self.depths.lock().quiesce > 0 && self.all_aware()
    }

    /// Whether a freeze is asked for, and every turn that began before has ended.
    pub(crate) fn is_freezing_everywhere(&self) -> bool {
        self.depths.lock().freeze > 0 && self.all_aware()
    }

    /// How often a quiesce and a freeze were asked for and not taken back.
    pub(crate) fn depths(&self) -> (u32, u32) {
        let depths = self.depths.lock();
        (depths.quiesce, depths.freeze)
    }

    fn all_aware(&self) -> bool {
        self.gates.iter().all(|gate| gate.load(Acquire) & UNAWARE == 0)
    }

    /// Sets a bit in every gate, and marks the turns that have not seen it.
    fn ask(&self, what: u32) {
        for gate in &self.gates {
            let mut now = gate.load(Acquire);
            loop {
                let is_seen = now & IN_TURN == 0 || Omission::TurnsUnderWay.is_made();
                let unaware = if is_seen { 0 } else { UNAWARE };
                match gate.compare_exchange(now, now | what | unaware, AcqRel, Acquire) {
                    Ok(_) => break,
                    Err(changed) => now = changed,
                }
            }
        }
    }

    fn allow(&self, what: u32) {
        for gate in &self.gates {
            gate.fetch_and(!what, AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_that_began_before_is_waited_for_and_a_later_one_is_not() {
        let control = Control::new(2);
        let (zero, one) = (CtxId(0), CtxId(1));
        assert!(control.enter(zero).is_plain());
        control.quiesce();
        assert!(!control.is_quiesced());
        assert!(control.enter(one).is_quiesced());
        assert!(control.leave(zero), "somebody waits for this turn");
        assert!(control.is_quiesced());
        assert!(!control.leave(one));
        control.quiesce();
        assert!(control.is_quiesced());
        assert!(!control.unquiesce());
        assert!(control.is_quiesced());
        assert!(control.unquiesce());
        assert!(!control.is_quiesced());
        assert!(control.enter(one).is_plain());
    }

    #[test]
    fn what_was_made_anew_is_told_once() {
        let control = Control::new(1);
        control.make_stale();
        assert!(control.enter(CtxId(0)).is_stale());
        control.refreshed(CtxId(0));
        assert!(!control.leave(CtxId(0)));
        assert!(control.enter(CtxId(0)).is_plain());
    }
}
