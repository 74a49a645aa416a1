//! shuttle: sequentially consistent, any number of threads, under our search or a random one.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

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
    run(Bounded::new(preemptions_max), move || scenario(&params), meter)
}

/// Runs `schedules_max` schedules, or fewer if the time is up before. The first is drawn from
/// `seed`, and each further one from the number after it, so any of them can be run by itself.
pub(crate) fn explore_random(
    scenario: fn(&Params),
    params: Params,
    seed: u64,
    schedules_max: u64,
    meter: Meter,
) {
    let draws = Draws { seed, left: schedules_max, current: None };
    // Only counts; no other memory is ordered by it.
    let begun = AtomicU64::new(0);
    let params_of_next = move || {
        let seed = seed.wrapping_add(begun.fetch_add(1, Ordering::Relaxed));
        Params { seed, ..params.clone() }
    };
    run(draws, move || scenario(&params_of_next()), meter);
}

/// Answers whether it was the scheduler that ended it, and not the clock.
fn run(
    scheduler: impl Scheduler + 'static,
    scenario: impl Fn() + Send + Sync + 'static,
    meter: Meter,
) -> bool {
    let mut config = Config::new();
    config.failure_persistence = FailurePersistence::None;
    config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
    config.silence_warnings = true;
    config.stack_size = STACK_SIZE_BYTES;
    let exhausted = Rc::new(Cell::new(false));
    let metered = Metered { inner: scheduler, meter, exhausted: Rc::clone(&exhausted) };
    Runner::new(metered, config).run(scenario);
    exhausted.get()
}

/// Random schedules, each with a seed of its own.
struct Draws {
    seed: u64,
    left: u64,
    current: Option<RandomScheduler>,
}

impl Scheduler for Draws {
    fn new_execution(&mut self) -> Option<Schedule> {
        self.left = self.left.checked_sub(1)?;
        let mut drawn = RandomScheduler::new_from_seed(self.seed, 1);
        self.seed = self.seed.wrapping_add(1);
        let schedule = drawn.new_execution();
        self.current = Some(drawn);
        schedule
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        is_yielding: bool,
    ) -> Option<TaskId> {
        let drawn = self.current.as_mut().expect("an execution has begun");
        drawn.next_task(runnable, current, is_yielding)
    }

    fn next_u64(&mut self) -> u64 {
        self.current.as_mut().expect("an execution has begun").next_u64()
    }
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
