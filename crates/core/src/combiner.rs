//! A lock that nobody waits for: who finds it held leaves a note, and the holder works for both.
//!
//! The holder looks for notes at the moment it lets go, in the same read-modify-write. So the pair
//! "leave a note, then try the lock" against "let go, then look for notes" is one word, and cannot
//! miss each other.

use crate::sync::{AcqRel, Acquire, AtomicU32, Relaxed, Release, UnsafeCell};

const FREE: u32 = 0;
const HELD: u32 = 1;
/// Somebody found it held and left: what he published has to be looked at before it becomes free.
const NOTED: u32 = 2;

/// A value that one thread at a time works on, for all who want it worked on.
#[derive(Debug)]
pub(crate) struct Combiner<T> {
    state: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: the value is only reached through a `Holder`, of which there is one at a time; taking and
// letting go are an acquire and a release of `state`.
unsafe impl<T: Send> Sync for Combiner<T> {}

/// The right to work on the value. Must be given up through [`Holder::leave`] or
/// [`Holder::hand_over`].
pub(crate) struct Holder<'a, T> {
    combiner: &'a Combiner<T>,
}

/// What [`Holder::leave`] came to.
pub(crate) enum Leave<'a, T> {
    /// It is free now.
    Left,
    /// Somebody had left a note: look again at what is published.
    Noted(Holder<'a, T>),
}

impl<T> Combiner<T> {
    pub(crate) fn new(value: T) -> Self {
        Combiner { state: AtomicU32::new(FREE), value: UnsafeCell::new(value) }
    }

    /// Takes the lock if it is free.
    pub(crate) fn try_enter(&self) -> Option<Holder<'_, T>> {
        let taken = self.state.compare_exchange(FREE, HELD, Acquire, Relaxed);
        taken.ok().map(|_| Holder { combiner: self })
    }

    /// Takes the lock, or leaves a note for the holder. What the caller published before is then
    /// seen by the holder before the lock becomes free.
    pub(crate) fn enter_or_note(&self) -> Option<Holder<'_, T>> {
        let before = self.state.fetch_or(HELD | NOTED, AcqRel);
        (before & HELD == 0).then_some(Holder { combiner: self })
    }
}

impl<'a, T> Holder<'a, T> {
    /// Works on the value.
    pub(crate) fn with<R>(&mut self, work: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: there is one holder at a time, and it is borrowed mutably while the work is done.
        self.combiner.value.with_mut(|value| work(unsafe { &mut *value }))
    }

    /// Lets go, unless a note has been left.
    pub(crate) fn leave(self) -> Leave<'a, T> {
        let state = &self.combiner.state;
        if state.compare_exchange(HELD, FREE, Release, Relaxed).is_ok() {
            return Leave::Left;
        }
        let before = state.swap(HELD, AcqRel);
        assert_eq!(before, HELD | NOTED, "a held lock changes only by a note");
        Leave::Noted(self)
    }

    /// Lets go although a note may have been left. The caller owes another entry.
    pub(crate) fn hand_over(self) {
        let before = self.combiner.state.swap(FREE, Release);
        assert!(before & HELD != 0, "the lock was held");
    }
}
