//! The world around the layer as a test sees it: what the layer asked for, written down.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use blkmq_core::{CtxId, Done, Time, Wish};

/// Writes down what the layer asks for; the test's loop serves it.
#[derive(Default)]
pub(crate) struct Env {
    asked: Mutex<Asked>,
}

/// What was asked for and not yet served, and what was ever asked for.
#[derive(Default)]
pub(crate) struct Asked {
    pub(crate) kicks: BTreeSet<CtxId>,
    /// Of several wishes of a thread for the same reason, the earliest.
    pub(crate) wishes: Vec<(CtxId, Wish, Time)>,
    pub(crate) delivered: Vec<(CtxId, Done)>,
    pub(crate) all_wishes: Vec<(CtxId, Time, Wish)>,
    pub(crate) nr_kicks: u64,
    /// How often a quiesce or a freeze was said to be settled.
    pub(crate) settled: u64,
}

impl Env {
    pub(crate) fn asked(&self) -> MutexGuard<'_, Asked> {
        // A test that fails may hold this, and what it drops then still kicks.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asked {
    /// How often a wish for this reason was uttered.
    pub(crate) fn nr_wishes(&self, why: Wish) -> usize {
        self.all_wishes.iter().filter(|wish| wish.2 == why).count()
    }

    /// Takes the wish whose time comes first.
    pub(crate) fn take_wish(&mut self) -> Option<(CtxId, Wish, Time)> {
        let first = (0..self.wishes.len()).min_by_key(|index| self.wishes[*index].2)?;
        Some(self.wishes.swap_remove(first))
    }
}

impl blkmq_core::Env for Env {
    fn kick(&self, ctx: CtxId) {
        let mut asked = self.asked();
        asked.kicks.insert(ctx);
        asked.nr_kicks += 1;
    }

    fn run_at(&self, ctx: CtxId, at: Time, why: Wish) {
        let mut asked = self.asked();
        asked.all_wishes.push((ctx, at, why));
        match asked.wishes.iter_mut().find(|(of, reason, _)| (*of, *reason) == (ctx, why)) {
            Some((.., earliest)) => *earliest = at.min(*earliest),
            None => asked.wishes.push((ctx, why, at)),
        }
    }

    fn deliver(&self, ctx: CtxId, done: Done) {
        self.asked().delivered.push((ctx, done));
    }

    fn settled(&self) {
        self.asked().settled += 1;
    }
}
