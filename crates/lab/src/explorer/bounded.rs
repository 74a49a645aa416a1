//! A depth-first search through every schedule with at most so many preemptions.
//!
//! shuttle asks at every step who goes on. The search keeps the choices it had on the way to where
//! it is; for the next schedule it takes the last choice that has an alternative left, and takes
//! that. Running on is always tried first, so the first schedules are the simplest ones.

use ::shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};

/// The search; a scheduler for shuttle.
#[derive(Debug)]
pub(crate) struct Bounded {
    search: Search,
    /// The runnable tasks of the step at hand; kept for its memory.
    runnable: Vec<usize>,
}

impl Bounded {
    pub(crate) fn new(preemptions_max: u32) -> Self {
        Bounded { search: Search::new(preemptions_max), runnable: Vec::new() }
    }
}

impl Scheduler for Bounded {
    fn new_execution(&mut self) -> Option<Schedule> {
        self.search.advance().then(|| Schedule::new(0))
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        is_yielding: bool,
    ) -> Option<TaskId> {
        self.runnable.clear();
        self.runnable.extend(runnable.iter().map(|task| usize::from(task.id())));
        let current = current.map(usize::from);
        Some(TaskId::from(self.search.choose(&self.runnable, current, is_yielding)))
    }

    fn next_u64(&mut self) -> u64 {
        panic!("a scenario that draws random numbers cannot be explored exhaustively");
    }
}

/// The search proper, which knows tasks by number.
#[derive(Debug)]
struct Search {
    preemptions_max: u32,
    /// Where there was a choice, from the first step to the last.
    levels: Vec<Level>,
    /// The choices of all levels, one level's behind the other's.
    choices: Vec<Choice>,
    /// How many levels the schedule under way has passed.
    depth: usize,
    /// The preemptions of the schedule under way.
    preemptions: u32,
    /// How often each task has yielded in the schedule under way.
    yields: Vec<u32>,
    has_begun: bool,
}

#[derive(Debug)]
struct Level {
    first_choice: usize,
    taken: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Choice {
    task: usize,
    preemptions: u32,
}

impl Search {
    fn new(preemptions_max: u32) -> Self {
        Search {
            preemptions_max,
            levels: Vec::new(),
            choices: Vec::new(),
            depth: 0,
            preemptions: 0,
            yields: Vec::new(),
            has_begun: false,
        }
    }

    /// Goes to the next schedule; false if there is none.
    fn advance(&mut self) -> bool {
        self.depth = 0;
        self.preemptions = 0;
        self.yields.clear();
        if !self.has_begun {
            self.has_begun = true;
            return true;
        }
        while let Some(level) = self.levels.last_mut() {
            if level.taken + 1 < self.choices.len() {
                level.taken += 1;
                return true;
            }
            // The choices of the last level are the last ones, so their end is the level's end.
            self.choices.truncate(level.first_choice);
            self.levels.pop();
        }
        false
    }

    /// Says which of the `runnable` tasks takes the next step.
    fn choose(&mut self, runnable: &[usize], current: Option<usize>, is_yielding: bool) -> usize {
        if is_yielding {
            self.count_yield(current.expect("it is a task that yields"));
        }
        if let [only] = *runnable {
            return only;
        }
        let can_stay = current.filter(|task| !is_yielding && runnable.contains(task));
        if let Some(task) = can_stay
            && self.preemptions == self.preemptions_max
        {
            return task;
        }
        if self.depth == self.levels.len() {
            let first_choice = self.choices.len();
            match can_stay {
                Some(task) => self.push_preemptions(runnable, task),
                None => self.push_free(runnable, current.filter(|_| is_yielding)),
            }
            self.levels.push(Level { first_choice, taken: first_choice });
        }
        let choice = self.choices[self.levels[self.depth].taken];
        assert!(
            runnable.contains(&choice.task),
            "task {} could run here before and cannot now: is the scenario fully deterministic?",
            choice.task
        );
        self.depth += 1;
        self.preemptions += choice.preemptions;
        choice.task
    }

    /// The choices where `current` could go on: it does, or another goes first, which costs.
    fn push_preemptions(&mut self, runnable: &[usize], current: usize) {
        self.choices.push(Choice { task: current, preemptions: 0 });
        let others = runnable.iter().filter(|task| **task != current);
        self.choices.extend(others.map(|&task| Choice { task, preemptions: 1 }));
    }

    /// The choices where the current task blocks, has ended, or (`yielding`) gives way.
    ///
    /// Who has just yielded is left out: to run it again before anything has changed leads nowhere
    /// new. Among the others, those that have yielded least are free. Without this rule two tasks
    /// that spin could yield to each other for ever while the third, which they wait for, never
    /// runs.
    fn push_free(&mut self, runnable: &[usize], yielding: Option<usize>) {
        let others = || runnable.iter().copied().filter(|task| Some(*task) != yielding);
        let fewest = match yielding {
            Some(_) => others().map(|task| self.yields_of(task)).min(),
            None => None,
        };
        let first_choice = self.choices.len();
        for task in others() {
            let preemptions = u32::from(fewest.is_some_and(|least| self.yields_of(task) > least));
            if self.preemptions + preemptions <= self.preemptions_max {
                self.choices.push(Choice { task, preemptions });
            }
        }
        self.choices[first_choice..].sort_by_key(|choice| choice.preemptions);
    }

    fn count_yield(&mut self, task: usize) {
        if self.yields.len() <= task {
            self.yields.resize(task + 1, 0);
        }
        self.yields[task] += 1;
    }

    fn yields_of(&self, task: usize) -> u32 {
        self.yields.get(task).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs tasks of so many steps each, which never wait for each other, in every order.
    fn schedules_of(steps: &[usize], preemptions_max: u32) -> Vec<Vec<usize>> {
        let mut search = Search::new(preemptions_max);
        let mut schedules = Vec::new();
        while search.advance() {
            let mut left = steps.to_vec();
            let mut schedule = Vec::new();
            let mut current = None;
            loop {
                let runnable: Vec<usize> = (0..left.len()).filter(|&t| left[t] > 0).collect();
                if runnable.is_empty() {
                    break;
                }
                let task = search.choose(&runnable, current, false);
                left[task] -= 1;
                schedule.push(task);
                current = Some(task);
            }
            schedules.push(schedule);
        }
        schedules
    }

    fn preemptions_of(schedule: &[usize]) -> usize {
        let switches_early = |i: &usize| {
            schedule[*i] != schedule[i + 1] && schedule[i + 1..].contains(&schedule[*i])
        };
        (0..schedule.len() - 1).filter(switches_early).count()
    }

    #[test]
    fn every_schedule_within_the_bound_is_run_once() {
        // Without a bound there are 6! / (2! 2! 2!) orders of three tasks of two steps.
        let all = schedules_of(&[2, 2, 2], 6);
        assert_eq!(all.len(), 90);
        for bound in 0..4 {
            let mut within = schedules_of(&[2, 2, 2], bound);
            let run = within.len();
            within.sort();
            within.dedup();
            assert_eq!(within.len(), run, "none twice");
            let mut want: Vec<_> = all.clone();
            want.retain(|schedule| preemptions_of(schedule) <= bound as usize);
            want.sort();
            assert_eq!(within, want, "bound {bound}");
        }
        assert_eq!(schedules_of(&[2, 2, 2], 0).len(), 6, "one after the other, in every order");
    }

    #[test]
    fn who_yields_gives_way_to_who_yielded_least() {
        let mut search = Search::new(0);
        assert!(search.advance());
        // Tasks 0 and 1 spin; task 2 is who they wait for, and must get its turn.
        let mut current = search.choose(&[0, 1, 2], None, false);
        let mut turns = vec![current];
        while current != 2 {
            current = search.choose(&[0, 1, 2], Some(current), true);
            turns.push(current);
        }
        assert_eq!(turns, [0, 1, 2]);
    }

    #[test]
    fn who_yields_does_not_run_on_if_another_can() {
        let mut search = Search::new(5);
        let mut schedules = Vec::new();
        while search.advance() {
            let first = search.choose(&[0, 1], None, false);
            schedules.push([first, search.choose(&[0, 1], Some(first), true)]);
        }
        assert_eq!(schedules, [[0, 1], [1, 0]]);
        assert_eq!(Search::new(5).choose(&[3], Some(3), true), 3, "alone it runs on");
    }

    #[test]
    #[should_panic(expected = "fully deterministic")]
    fn another_course_of_events_is_noticed() {
        let mut search = Search::new(1);
        assert!(search.advance());
        search.choose(&[0, 1], None, false);
        assert!(search.advance());
        search.choose(&[0, 2], None, false);
    }
}
