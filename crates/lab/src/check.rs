//! Scenarios, and having them explored.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::child::{self, Ended, ExploreError, Job};
use crate::explorer::{Explorer, Search};
use crate::outcome::{Listed, Outcome};

/// Something that can be explored.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// The name by which it is asked for.
    pub name: &'static str,
    /// What it is about, in a sentence.
    pub about: &'static str,
    /// The row of the corpus of stalls that it stands for.
    pub row: Option<&'static str>,
    /// The commit that mended in Linux what is put back here, and must be found; or our name for a
    /// step of our own that is left out. `None` if nothing is put back, and nothing must be found.
    pub bug: Option<&'static str>,
    /// How loom explores it; `None` if it is too big for loom.
    pub loom: Option<Plan>,
    /// How shuttle explores it; `None` if shuttle could not see what it is about.
    pub shuttle: Option<Plan>,
}

/// How one explorer explores a scenario.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Runs it once, from its beginning to its end, with the oracles looked at. It must do the
    /// same each time the threads run in the same order, and keep nothing from one time to the
    /// next. A panic in it is a finding, even if it would be caught.
    pub run: fn(&Params),
    /// The bounds to explore, the smallest first. A bound covers the smaller ones, so more than
    /// one is of use only to find the least bound at which something is found.
    pub bounds: &'static [u32],
    /// What its author says comes out.
    pub expect: Expect,
    /// For what is too deep to be explored: how many schedules are drawn at random instead, unless
    /// [`Options::rounds`] says otherwise. There are no bounds then.
    pub rounds: Option<u64>,
}

/// What the author of a scenario says comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing is found.
    Clean,
    /// Something of this kind is found, at the largest bound at the latest.
    Finding(&'static str),
}

/// Which scenarios of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All of them.
    All,
    /// Those in which no bug is put back.
    Clean,
    /// Those in which one of these bugs is put back, by commit id; any bug if none is named.
    Bugs(Vec<String>),
    /// Those of these names.
    Named(Vec<String>),
}

/// What a scenario is told when it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Params {
    /// The commit id of the bug that is to be put back.
    pub bug: Option<String>,
    /// Another one for each schedule of a random search, for a scenario to draw from; zero in
    /// other searches, where a scenario does the same each time.
    pub seed: u64,
}

/// What to explore, and how far.
#[derive(Clone, Debug)]
pub struct Options {
    /// Loom and shuttle's bounded search run unless others are named here.
    pub explorers: Vec<Explorer>,
    /// The one bound to explore, instead of the scenarios' own. At most 255, which is loom's
    /// limit.
    pub bound: Option<u8>,
    /// How long each exploration may take.
    pub time_limit: Duration,
    /// How much longer the schedule under way may take, before the process is killed and the
    /// finding is a hang.
    pub grace: Duration,
    /// The seed of the first schedule of a random search; each further one's is one more.
    pub seed: u64,
    /// How many schedules the random search draws.
    pub random_schedules: u64,
    /// How many schedules are drawn of a scenario that is never explored otherwise, instead of the
    /// scenario's own number.
    pub rounds: Option<u64>,
    /// How many explorations run at a time, each in a process with one busy thread.
    pub jobs: usize,
    /// What the scenarios are told.
    pub params: Params,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            explorers: vec![Explorer::Loom, Explorer::Shuttle],
            bound: None,
            time_limit: Duration::from_secs(120),
            grace: Duration::from_secs(15),
            seed: 0,
            random_schedules: 100_000,
            rounds: None,
            jobs: thread::available_parallelism().map_or(1, usize::from),
            params: Params::default(),
        }
    }
}

/// How far things are.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// An exploration is under way; about once a second.
    Progress {
        /// What is explored.
        scenario: &'a str,
        /// By whom.
        explorer: Explorer,
        /// The bound, where there is one.
        bound: Option<u32>,
        /// The schedules run up to now.
        schedules: u64,
    },
    /// An exploration has ended.
    Ended(&'a Outcome),
}

/// Why a check could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// There is no such scenario.
    #[error("there is no scenario '{name}'; there are: {known}")]
    UnknownScenario {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// There is no such bug.
    #[error("there is no scenario that puts the bug '{id}' back; there are: {known}")]
    UnknownBug {
        /// What was asked for.
        id: String,
        /// What there is.
        known: String,
    },
    /// None of the scenarios can be explored by any of the explorers.
    #[error("none of {scenarios} is meant for {explorers}; name another explorer or scenario")]
    NothingToDo {
        /// What was asked for.
        scenarios: String,
        /// Who was asked for.
        explorers: String,
    },
    /// A process did not do its part.
    #[error(transparent)]
    Explore(#[from] ExploreError),
}

impl Plan {
    /// A plan that finds nothing within `bounds`.
    pub const fn clean(run: fn(&Params), bounds: &'static [u32]) -> Self {
        Plan { run, bounds, expect: Expect::Clean, rounds: None }
    }

    /// A plan that finds something of this `kind`, at the largest of `bounds` at the latest.
    pub const fn finds(kind: &'static str, run: fn(&Params), bounds: &'static [u32]) -> Self {
        Plan { run, bounds, expect: Expect::Finding(kind), rounds: None }
    }

    /// The same, but so many schedules are drawn at random: it is too deep to be explored.
    pub const fn in_rounds(self, rounds: u64) -> Self {
        Plan { bounds: &[], rounds: Some(rounds), ..self }
    }
}

impl Plan {
    /// Who really explores it if `asked` is asked to.
    fn explorer(&self, asked: Explorer) -> Explorer {
        if self.rounds.is_some() { Explorer::ShuttleRandom } else { asked }
    }
}

impl Scenario {
    /// The plan for `explorer`.
    pub(crate) fn plan(&self, explorer: Explorer) -> Option<&Plan> {
        match explorer {
            Explorer::Loom => self.loom.as_ref(),
            Explorer::Shuttle | Explorer::ShuttleRandom => self.shuttle.as_ref(),
        }
    }
}

/// Explores the scenarios of `registry` that `selection` names.
///
/// Each exploration runs in a process of its own, which is this program started again: its `main`
/// has to begin with [`crate::main_if_child`]. The outcomes stand in the order of the registry. The
/// bounds of a plan are explored one after the other, up to the first at which something is found.
///
/// # Errors
///
/// If a name is wrong, if there is nothing to do, or if a process could not be started. A finding
/// is no error.
pub fn check(
    registry: &[Scenario],
    selection: &Selection,
    options: &Options,
    on_event: &(dyn Fn(&Event<'_>) + Sync),
) -> Result<Vec<Outcome>, CheckError> {
    let scenarios = select(registry, selection)?;
    let mut todo = VecDeque::new();
    for scenario in &scenarios {
        for &explorer in &options.explorers {
            if let Some(plan) = scenario.plan(explorer) {
                let explorer = plan.explorer(explorer);
                let is_new = |task: &Task<'_>| {
                    (task.scenario.name, task.explorer) != (scenario.name, explorer)
                };
                if todo.iter().all(is_new) {
                    todo.push_back(Task { place: todo.len(), scenario, explorer, plan });
                }
            }
        }
    }
    if todo.is_empty() {
        return Err(nothing_to_do(&scenarios, &options.explorers));
    }
    let workers = options.jobs.clamp(1, todo.len());
    let todo = Mutex::new(todo);
    let next = || todo.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(task) = next() {
                    let outcomes = task.explore(options, on_event);
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    done.push((task.place, outcomes));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(place, _)| *place);
    let mut all = Vec::new();
    for (_, outcomes) in done {
        all.extend(outcomes?);
    }
    Ok(all)
}

/// What [`check`] would explore.
///
/// # Errors
///
/// If a name is wrong.
pub fn list(registry: &[Scenario], selection: &Selection) -> Result<Vec<Listed>, CheckError> {
    let mut all = Vec::new();
    for scenario in select(registry, selection)? {
        for explorer in [Explorer::Loom, Explorer::Shuttle] {
            let Some(plan) = scenario.plan(explorer) else { continue };
            let kind = match plan.expect {
                Expect::Clean => None,
                Expect::Finding(kind) => Some(kind),
            };
            all.push(Listed {
                scenario: scenario.name,
                about: scenario.about,
                bug: scenario.bug,
                row: scenario.row,
                explorer: plan.explorer(explorer),
                bound: plan.bounds.iter().copied().max(),
                rounds: plan.rounds,
                found: kind.is_some(),
                kind,
            });
        }
    }
    Ok(all)
}

fn select<'a>(
    registry: &'a [Scenario],
    selection: &Selection,
) -> Result<Vec<&'a Scenario>, CheckError> {
    let unknown = |asked: &'_ [String], known: &[&str]| {
        let wrong = asked.iter().find(|one| !known.contains(&one.as_str()));
        wrong.map(|one| (one.clone(), known.join(", ")))
    };
    match selection {
        Selection::All => Ok(registry.iter().collect()),
        Selection::Clean => Ok(registry.iter().filter(|s| s.bug.is_none()).collect()),
        Selection::Bugs(ids) => {
            let mut known: Vec<&str> = registry.iter().filter_map(|s| s.bug).collect();
            known.sort_unstable();
            known.dedup();
            if let Some((id, known)) = unknown(ids, &known) {
                return Err(CheckError::UnknownBug { id, known });
            }
            let is_asked = |id: &str| ids.is_empty() || ids.iter().any(|asked| asked == id);
            Ok(registry.iter().filter(|s| s.bug.is_some_and(is_asked)).collect())
        }
        Selection::Named(names) => {
            let known: Vec<&str> = registry.iter().map(|s| s.name).collect();
            if let Some((name, known)) = unknown(names, &known) {
                return Err(CheckError::UnknownScenario { name, known });
            }
            Ok(registry.iter().filter(|s| names.iter().any(|name| name == s.name)).collect())
        }
    }
}

fn nothing_to_do(scenarios: &[&Scenario], explorers: &[Explorer]) -> CheckError {
    let scenarios: Vec<&str> = scenarios.iter().map(|scenario| scenario.name).collect();
    let explorers: Vec<String> = explorers.iter().map(Explorer::to_string).collect();
    CheckError::NothingToDo { scenarios: scenarios.join(", "), explorers: explorers.join(", ") }
}

/// One scenario for one explorer.
struct Task<'a> {
    place: usize,
    scenario: &'a Scenario,
    explorer: Explorer,
    plan: &'a Plan,
}

impl Task<'_> {
    fn explore(
        &self,
        options: &Options,
        on_event: &(dyn Fn(&Event<'_>) + Sync),
    ) -> Result<Vec<Outcome>, ExploreError> {
        let searches = self.searches(options);
        let mut outcomes = Vec::new();
        for (i, &search) in searches.iter().enumerate() {
            let job = Job {
                scenario: self.scenario.name.to_owned(),
                search,
                params: options.params.clone(),
                limit: options.time_limit,
                grace: options.grace,
            };
            let ended = child::explore(&job, &|schedules| {
                on_event(&Event::Progress {
                    scenario: self.scenario.name,
                    explorer: self.explorer,
                    bound: search.bound(),
                    schedules,
                });
            })?;
            let outcome = self.outcome(&job, ended, i + 1 == searches.len());
            on_event(&Event::Ended(&outcome));
            let found = outcome.found;
            outcomes.push(outcome);
            if found {
                break;
            }
        }
        Ok(outcomes)
    }

    fn searches(&self, options: &Options) -> Vec<Search> {
        let own = options.bound.map(|bound| [u32::from(bound)]);
        let bounds = own.as_ref().map_or(self.plan.bounds, |bound| bound);
        let with_bounds = |search: fn(u32) -> Search| bounds.iter().copied().map(search).collect();
        match self.explorer {
            Explorer::Loom => with_bounds(|preemptions_max| Search::Loom { preemptions_max }),
            Explorer::Shuttle => with_bounds(|preemptions_max| Search::Shuttle { preemptions_max }),
            Explorer::ShuttleRandom => {
                let rounds = self.plan.rounds.map(|own| options.rounds.unwrap_or(own));
                let schedules_max = rounds.unwrap_or(options.random_schedules);
                vec![Search::ShuttleRandom { seed: options.seed, schedules_max }]
            }
        }
    }

    fn outcome(&self, job: &Job, ended: Ended, is_last: bool) -> Outcome {
        let kind = ended.finding.as_ref().map(|finding| finding.kind.clone());
        let expected = match (self.plan.expect, kind.as_deref()) {
            // "Clean" is a claim about every schedule. A search that was cut short has not shown
            // it; a random one never claims it.
            (Expect::Clean, kind) => {
                let is_random = self.explorer == Explorer::ShuttleRandom;
                kind.is_none() && (ended.exhausted || is_random)
            }
            (Expect::Finding(_), None) => !is_last,
            (Expect::Finding(want), Some(kind)) => want == kind,
        };
        Outcome {
            scenario: self.scenario.name.to_owned(),
            bug: self.scenario.bug.map(str::to_owned),
            row: self.scenario.row.map(str::to_owned),
            explorer: self.explorer,
            bound: job.search.bound(),
            // The last schedule is the one that was found, and its seed repeats it.
            seed: job.search.seed().map(|first| match ended.finding {
                Some(_) => first.wrapping_add(ended.schedules.saturating_sub(1)),
                None => first,
            }),
            exhausted: ended.exhausted,
            schedules: ended.schedules,
            seconds: ended.seconds,
            found: kind.is_some(),
            kind,
            expected,
            finding: ended.finding,
        }
    }
}
