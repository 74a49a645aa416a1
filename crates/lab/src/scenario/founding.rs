//! The founding race, with the threads of the document that the project began with.
//!
//! The device has a budget of one. Request 1 waits in a software queue of hardware queue 0, which
//! has been kicked by a completion: A answers. B runs the same hardware queue, kicked by somebody
//! else. Both see that there is work. B is held up. A takes the unit, sends request 1, completes
//! it, and the unit is free. B goes on, takes the unit, finds no request, and is held up again
//! before it puts the unit back. C submits request 2, on the same hardware queue or on another,
//! cannot have the unit, and leaves. B puts the unit back and leaves too. Who runs request 2?
//!
//! The scenario's first thread plays C, which spares the explorers a thread.

use std::sync::Arc;

use super::core::{BudgetMode, Config, Cpu, Deadline, DeadlineConfig, Maps, Scheduler};
use super::device::Device;
use super::stage::{JoinHandle, finding, go_on_as, spawn};
use super::world::Set;
use crate::Params;

/// One for each thread, so that each finds its own tag where it looks first, and what is explored
/// is the budget.
const NR_REQUESTS: u32 = 3;

const OWED: &str = "B, which put the unit back and looked at nobody";

/// One run of the race.
struct Race {
    budget_mode: BudgetMode,
    /// C has a hardware queue of its own; else it uses that of A and B.
    has_c_its_own: bool,
    /// C too waits for its device and answers kicks while the others run; else its thread ends, and
    /// what is left for it to do comes after the others have ended.
    c_stays: bool,
    scheduler: Option<Box<dyn Scheduler>>,
}

/// Mode `none`, one hardware queue: stalls.
pub(crate) fn none_1(_: &Params) {
    Race::new(BudgetMode::None, false).run();
}

/// Mode `none`, C on a hardware queue of its own: stalls.
pub(crate) fn none_2(_: &Params) {
    Race::new(BudgetMode::None, true).run();
}

/// Mode `delayed`, one hardware queue.
pub(crate) fn delayed_1(_: &Params) {
    Race::new(BudgetMode::Delayed, false).run();
}

/// Mode `delayed`, C on a hardware queue of its own.
pub(crate) fn delayed_2(_: &Params) {
    Race::new(BudgetMode::Delayed, true).run();
}

/// Mode `handoff`, one hardware queue.
pub(crate) fn handoff_1(_: &Params) {
    Race::new(BudgetMode::Handoff, false).run();
}

/// Mode `handoff`, C on a hardware queue of its own.
pub(crate) fn handoff_2(_: &Params) {
    Race::new(BudgetMode::Handoff, true).run();
}

/// Mode `handoff`, one hardware queue, C stays.
pub(crate) fn stays_1(_: &Params) {
    Race { c_stays: true, ..Race::new(BudgetMode::Handoff, false) }.run();
}

/// Mode `handoff`, C on a hardware queue of its own, and it stays.
pub(crate) fn stays_2(_: &Params) {
    Race { c_stays: true, ..Race::new(BudgetMode::Handoff, true) }.run();
}

/// Mode `handoff` with a scheduler, whose requests any hardware queue can send.
pub(crate) fn deadline(_: &Params) {
    let scheduler = Box::new(Deadline::new(DeadlineConfig::default(), NR_REQUESTS));
    Race { scheduler: Some(scheduler), ..Race::new(BudgetMode::Handoff, true) }.run();
}

impl Race {
    fn new(budget_mode: BudgetMode, has_c_its_own: bool) -> Self {
        Race { budget_mode, has_c_its_own, c_stays: false, scheduler: None }
    }

    fn run(self) {
        let set = Set::new(Config {
            nr_ctx: if self.has_c_its_own { 3 } else { 5 },
            maps: Maps::of(2),
            nr_requests: NR_REQUESTS,
            nr_tags: NR_REQUESTS,
            budget: Some(1),
            budget_mode: self.budget_mode,
            scheduler: self.scheduler,
            timeout: None,
            ..Config::default()
        });
        // The even software queues belong to hardware queue 0, the odd ones to hardware queue 1.
        let (mut a, b, mut other) = (set.cpu(0), set.cpu(2), set.cpu(1));
        // Request 0 has the unit, so request 1 waits in its software queue. Then request 0
        // completes, and hardware queue 0 is kicked.
        set.submit(&mut other, 0);
        set.submit(&mut a, 1);
        set.reap(&mut other);
        set.take_kicks();
        let (mut c, others) = if self.has_c_its_own {
            (other, Vec::new())
        } else {
            (set.cpu(4), vec![other, set.cpu(3)])
        };
        let threads = [("A", a), ("B", b)].map(|(name, cpu)| spawn_on(&set, name, cpu));
        go_on_as("C");
        set.submit(&mut c, 2);
        if self.c_stays {
            set.settle(&mut c);
        }
        let threads = threads.map(|thread| thread.join().expect("a panic ends the schedule"));
        go_on_as("main");
        set.end(threads.into_iter().chain([c]).chain(others).collect(), OWED);
        if self.budget_mode == BudgetMode::Handoff && set.timers_fired() > 0 {
            finding("timer-made progress", "a timer fired that nobody asked for", "the hand-off");
        }
    }
}

/// Starts a thread that answers a kick, and then does what its device and further kicks ask for.
fn spawn_on(set: &Arc<Set>, name: &'static str, mut cpu: Cpu<Device>) -> JoinHandle<Cpu<Device>> {
    let set = Arc::clone(set);
    spawn(name, move || {
        set.run(&mut cpu);
        set.settle(&mut cpu);
        cpu
    })
}
