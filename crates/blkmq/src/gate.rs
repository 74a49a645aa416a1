//! How many I/Os of a volume are under way at once, and who waits his turn.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use blkmq_core::Class;

/// Every so many turns, the one goes to who waits longest, whatever his class. So no class is shut
/// out for ever by those above it.
const LONGEST_EVERY: u32 = 16;

const CLASSES: usize = 3;

/// An I/O that may have to wait.
pub(crate) trait Waiter: Send + Sync {
    /// Its turn has come. False if it could not go, has ended, and has not used the turn.
    fn go(self: Arc<Self>) -> bool;

    /// Its turn will not come any more.
    fn close(self: Arc<Self>);
}

/// Lets a bounded number of I/Os through. Who waits goes by class, and within a class in turn.
///
/// The layer sorts what it holds, but it holds so much and not more; in front of it a plain queue
/// would undo what the scheduler is for.
pub(crate) struct Gate {
    limit: u32,
    state: Mutex<State>,
}

struct State {
    is_open: bool,
    under_way: u32,
    next_ticket: u64,
    /// Turns that went to somebody who had waited.
    turns: u32,
    waiting: [BTreeMap<u64, Arc<dyn Waiter>>; CLASSES],
}

/// The place of an I/O that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    class: Class,
    ticket: u64,
}

/// What the gate answers to somebody who comes.
#[derive(Debug)]
pub(crate) enum Entry {
    /// Go; [`Gate::leave`] is owed.
    Go,
    /// Wait; [`Waiter::go`] or [`Waiter::close`] will be called.
    Wait(Place),
    /// The gate is closed.
    Closed,
}

impl Gate {
    /// A gate that lets `limit` I/Os through at a time; at least 1.
    pub(crate) fn new(limit: u32) -> Self {
        assert!(limit > 0, "a gate lets something through");
        let state = State {
            is_open: true,
            under_way: 0,
            next_ticket: 0,
            turns: 0,
            waiting: std::array::from_fn(|_| BTreeMap::new()),
        };
        Gate { limit, state: Mutex::new(state) }
    }

    /// Asks to be let through.
    pub(crate) fn enter(&self, class: Class, who: impl FnOnce() -> Arc<dyn Waiter>) -> Entry {
        let mut state = self.lock();
        if !state.is_open {
            return Entry::Closed;
        }
        if state.under_way < self.limit {
            state.under_way += 1;
            return Entry::Go;
        }
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.waiting[class as usize].insert(ticket, who());
        Entry::Wait(Place { class, ticket })
    }

    /// Somebody who was let through has ended. His turn goes to who is next.
    pub(crate) fn leave(&self) {
        // Not by recursion, because everybody who waits may turn out not to be able to go.
        while let Some(next) = self.next() {
            if next.go() {
                return;
            }
        }
    }

    /// Somebody no longer wants to wait; nothing if he does not wait any more.
    pub(crate) fn cancel(&self, place: Place) {
        let waiter = self.lock().waiting[place.class as usize].remove(&place.ticket);
        // He may own memory whose drop is a stranger's code, so the lock is not held.
        drop(waiter);
    }

    /// Lets nobody through any more, and tells those who wait.
    pub(crate) fn close(&self) {
        let waiting = {
            let mut state = self.lock();
            state.is_open = false;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().flat_map(BTreeMap::into_values).for_each(Waiter::close);
    }

    /// Takes out who is next; if there is nobody the turn is given up.
    fn next(&self) -> Option<Arc<dyn Waiter>> {
        let mut state = self.lock();
        assert!(state.under_way > 0, "who leaves has entered");
        let first = |waiting: &BTreeMap<u64, _>| waiting.keys().next().copied();
        let heads = state.waiting.iter().map(first).enumerate();
        let heads = heads.filter_map(|(class, ticket)| Some((class, ticket?)));
        let chosen = if state.turns % LONGEST_EVERY == LONGEST_EVERY - 1 {
            heads.min_by_key(|(_, ticket)| *ticket)
        } else {
            heads.min_by_key(|(class, _)| *class)
        };
        let Some((class, ticket)) = chosen else {
            state.under_way -= 1;
            return None;
        };
        state.turns = state.turns.wrapping_add(1);
        state.waiting[class].remove(&ticket)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No stranger's code runs under the lock, and each change is whole by itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    struct Guest {
        name: u32,
        can_go: bool,
        said: Sender<(u32, &'static str)>,
    }

    impl Waiter for Guest {
        fn go(self: Arc<Self>) -> bool {
            self.said.send((self.name, "go")).unwrap();
            self.can_go
        }

        fn close(self: Arc<Self>) {
            self.said.send((self.name, "close")).unwrap();
        }
    }

    struct Party {
        gate: Gate,
        said: Sender<(u32, &'static str)>,
        heard: Receiver<(u32, &'static str)>,
    }

    impl Party {
        fn new(limit: u32) -> Self {
            let (said, heard) = channel();
            Party { gate: Gate::new(limit), said, heard }
        }

        fn comes(&self, name: u32, class: Class, can_go: bool) -> Entry {
            let said = self.said.clone();
            self.gate.enter(class, || Arc::new(Guest { name, can_go, said }))
        }

        fn heard(&self) -> Vec<(u32, &'static str)> {
            self.heard.try_iter().collect()
        }
    }

    #[test]
    fn who_waits_goes_by_class_and_then_in_turn() {
        let party = Party::new(1);
        assert!(matches!(party.comes(0, Class::Idle, true), Entry::Go));
        for (name, class) in [
            (1, Class::Idle),
            (2, Class::BestEffort),
            (3, Class::RealTime),
            (4, Class::RealTime),
            (5, Class::BestEffort),
        ] {
            assert!(matches!(party.comes(name, class, true), Entry::Wait(_)));
        }
        (0..6).for_each(|_| party.gate.leave());
        assert_eq!(party.heard(), [3, 4, 2, 5, 1].map(|name| (name, "go")));
        assert!(matches!(party.comes(6, Class::Idle, true), Entry::Go), "the last turn came back");
        assert!(matches!(party.comes(7, Class::Idle, true), Entry::Wait(_)), "and it is one");
    }

    #[test]
    fn the_lowest_class_is_not_shut_out() {
        let party = Party::new(1);
        assert!(matches!(party.comes(0, Class::RealTime, true), Entry::Go));
        assert!(matches!(party.comes(1, Class::Idle, true), Entry::Wait(_)));
        for name in 2..40 {
            assert!(matches!(party.comes(name, Class::RealTime, true), Entry::Wait(_)));
            party.gate.leave();
        }
        let heard = party.heard();
        let place = heard.iter().position(|(name, _)| *name == 1).expect("it goes in the end");
        assert_eq!(place as u32, LONGEST_EVERY - 1);
    }

    #[test]
    fn who_cannot_go_passes_his_turn_on() {
        let party = Party::new(1);
        assert!(matches!(party.comes(0, Class::Idle, true), Entry::Go));
        for name in 1..4 {
            assert!(matches!(party.comes(name, Class::Idle, name == 3), Entry::Wait(_)));
        }
        party.gate.leave();
        assert_eq!(party.heard(), [1, 2, 3].map(|name| (name, "go")));
    }

    #[test]
    fn who_does_not_want_to_wait_is_forgotten_and_a_closed_gate_tells_the_others() {
        let party = Party::new(2);
        assert!(matches!(party.comes(0, Class::Idle, true), Entry::Go));
        assert!(matches!(party.comes(1, Class::Idle, true), Entry::Go));
        let Entry::Wait(place) = party.comes(2, Class::Idle, true) else { panic!("it is full") };
        assert!(matches!(party.comes(3, Class::RealTime, true), Entry::Wait(_)));
        party.gate.cancel(place);
        party.gate.cancel(place);
        party.gate.close();
        assert_eq!(party.heard(), [(3, "close")]);
        assert!(matches!(party.comes(4, Class::RealTime, true), Entry::Closed));
        party.gate.leave();
        party.gate.leave();
        assert_eq!(party.heard(), []);
    }
}
