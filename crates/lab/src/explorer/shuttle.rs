//! shuttle: sequentially consistent, any number of threads, under our search or a random one.

use std::cell::Cell;
use std::rc::Rc;

use ::shuttle::scheduler::{RandomScheduler, Schedule, Scheduler, Task, TaskId};
use ::shuttle::{Config, FailurePersistence, MaxSteps, Runner};

use super::STEPS_MAX;
use super::bounded::Bounded;
use super::meter::Meter;
use crate::check::Params;

/// What a thread of a scenario may use of stack; shuttle's own default is tight for a debug build.
const STACK_SIZE_BYTES: usize = 256 << 10;

/// Explores everything with at most `preemptions_max` preemptions. Answers whether nothing is left.
pub(crate) fn explore_bounded(
    scenario: fn(&Params),
    params: Params,
    preemptions_max: u32,
    meter: Meter,
) -> bool {
    run(Bounded::new(preemptions_max), scenario, params, meter)
}

/// Runs `schedules_max` schedules drawn from `seed`, or fewer if the time is up before.
pub(crate) fn explore_random(
    scenario: fn(&Params),
    params: Params,
    seed: u64,
    schedules_max: u64,
    meter: Meter,
) {
    let iterations = usize::try_from(schedules_max).unwrap_or(usize::MAX);
    run(RandomScheduler::new_from_seed(seed, iterations), scenario, params, meter);
}

/// Answers whether it was the scheduler that ended it, and not the clock.
fn run(
    scheduler: impl Scheduler + 'static,
    scenario: fn(&Params),
    params: Params,
    meter: Meter,
) -> bool {
    let mut config = Config::new();
    config.failure_persistence = FailurePersistence::None;
    config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
    config.silence_warnings = true;
    config.stack_size = STACK_SIZE_BYTES;
    let exhausted = Rc::new(Cell::new(false));
    let metered = Metered { inner: scheduler, meter, exhausted: Rc::clone(&exhausted) };
    Runner::new(metered, config).run(move || scenario(&params));
    exhausted.get()
}

/// Ends a search when its time is up, and tells that from the search's own end.
struct Metered<S> {
    inner: S,
    meter: Meter,
    exhausted: Rc<Cell<bool>>,
}

impl<S: Scheduler> Scheduler for Metered<S> {
    fn new_execution(&mut self) -> Option<Schedule> {
        let Some(schedule) = self.inner.new_execution() else {
            self.exhausted.set(true);
            return None;
        };
        self.meter.begin_schedule().then_some(schedule)
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        is_yielding: bool,
    ) -> Option<TaskId> {
        self.inner.next_task(runnable, current, is_yielding)
    }

    fn next_u64(&mut self) -> u64 {
        self.inner.next_u64()
    }
}
