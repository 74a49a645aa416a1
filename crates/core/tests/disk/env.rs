//! The world around the layer: what it asked for, written down until it is served.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use blkmq_core::{CtxId, Done, Time, Wish};

#[derive(Default)]
pub(crate) struct Env {
    asked: Mutex<Asked>,
}

/// What was asked for and not yet served.
#[derive(Default)]
pub(crate) struct Asked {
    pub(crate) kicks: BTreeSet<CtxId>,
    /// Of several wishes of a thread for the same reason, the earliest.
    pub(crate) wishes: Vec<(CtxId, Wish, Time)>,
    pub(crate) delivered: Vec<(CtxId, Done)>,
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
    /// Takes the wish whose time comes first.
    pub(crate) fn take_wish(&mut self) -> Option<(CtxId, Wish, Time)> {
        let first = (0..self.wishes.len()).min_by_key(|index| self.wishes[*index].2)?;
        Some(self.wishes.swap_remove(first))
    }
}

impl blkmq_core::Env for Env {
    fn kick(&self, ctx: CtxId) {
        self.asked().kicks.insert(ctx);
    }

    fn run_at(&self, ctx: CtxId, at: Time, why: Wish) {
        let mut asked = self.asked();
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
