//! The founding race, with the threads of the document that the project began with.
//!
//! The device has a budget of one. Request 1 waits in a software queue of hardware queue 0, which has been
//! kicked by a completion: A answers. B runs the same hardware queue, kicked by somebody else. Both see
//! that there is work. B is held up. A takes the unit, sends request 1, completes it, and the unit is free.
//! B goes on, takes the unit, finds no request, and is held up again before it puts the unit back. C
//! submits request 2, on the same hardware queue or on another, cannot have the unit, and leaves. B puts
//! the unit back and leaves too. Who runs request 2?

use std::sync::Arc;

use super::core::{BudgetMode, Config, Cpu};
use super::stage::{JoinHandle, finding, spawn};
use super::world::{Device, Set};
use crate::Params;

const OWED: &str = "B, which put the unit back and looked at nobody";

/// Mode `none`, one hardware queue: stalls.
pub(crate) fn none_1(_: &Params) {
    founding_race(BudgetMode::None, 0);
}

/// Mode `none`, C on a hardware queue of its own: stalls.
pub(crate) fn none_2(_: &Params) {
    founding_race(BudgetMode::None, 1);
}

/// Mode `delayed`, one hardware queue.
pub(crate) fn delayed_1(_: &Params) {
    founding_race(BudgetMode::Delayed, 0);
}

/// Mode `delayed`, C on a hardware queue of its own.
pub(crate) fn delayed_2(_: &Params) {
    founding_race(BudgetMode::Delayed, 1);
}

/// Mode `handoff`, one hardware queue.
pub(crate) fn handoff_1(_: &Params) {
    founding_race(BudgetMode::Handoff, 0);
}

/// Mode `handoff`, C on a hardware queue of its own.
pub(crate) fn handoff_2(_: &Params) {
    founding_race(BudgetMode::Handoff, 1);
}

fn founding_race(budget_mode: BudgetMode, hctx_of_c: u16) {
    let set = Set::new(Config {
        nr_ctx: 5,
        nr_hw_queues: 2,
        // As many as there are software queues, so that each thread finds its own where it looks first,
        // and what is explored is the budget.
        nr_requests: 5,
        nr_tags: 5,
        budget: Some(1),
        budget_mode,
        scheduler: None,
    });
    // The even software queues belong to hardware queue 0, the odd ones to hardware queue 1.
    let (mut a, b, c) = (set.cpu(0), set.cpu(2), set.cpu(4 - hctx_of_c));
    let mut other = set.cpu(1);
    // Request 0 has the unit, so request 1 waits in its software queue. Then request 0 completes, and
    // hardware queue 0 is kicked.
    set.submit(&mut other, 0);
    set.submit(&mut a, 1);
    set.reap(&mut other);
    set.take_kicks();
    let threads = [
        spawn_on(&set, "A", a, |set, a| set.run(a)),
        spawn_on(&set, "B", b, |set, b| set.run(b)),
        spawn_on(&set, "C", c, |set, c| set.submit(c, 2)),
    ];
    let threads = threads.map(|thread| thread.join().expect("a panic ends the schedule"));
    set.end(threads.into_iter().chain([other]).collect(), OWED);
    if budget_mode == BudgetMode::Handoff && set.timers_fired() > 0 {
        finding("timer-made progress", "a timer fired that nobody asked for", "the hand-off");
    }
}

/// Starts a thread that does `first` and then what its device and its kicks ask for.
fn spawn_on(
    set: &Arc<Set>,
    name: &'static str,
    mut cpu: Cpu<Device>,
    first: fn(&Set, &mut Cpu<Device>),
) -> JoinHandle<Cpu<Device>> {
    let set = Arc::clone(set);
    spawn(name, move || {
        first(&set, &mut cpu);
        set.settle(&mut cpu);
        cpu
    })
}
