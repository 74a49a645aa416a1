//! Each exploration runs in a process of its own.
//!
//! A scenario that fails may take its process with it: loom's deadlock panics while its threads
//! unwind, which aborts, and a scenario may spin or overrun its stack. So the program starts itself
//! again for each exploration and says through the environment what to explore; the child answers
//! in lines of JSON on its standard output. The last line is the result. A finding is reported by
//! the child's panic hook, which then ends the process, before anything unwinds.

mod parent;
mod report;

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::check::{Params, Scenario};
use crate::explorer::{Search, meter};
use crate::finding::Finding;

pub(crate) use parent::{ExploreError, explore};

/// The environment variable that tells a process that it is a child, and of what to explore.
const JOB_VARIABLE: &str = "BLKMQ_LAB_JOB";

/// What a child is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) scenario: String,
    pub(crate) search: Search,
    pub(crate) params: Params,
    pub(crate) limit: Duration,
    /// How long after its limit a child may need for the schedule it is at.
    pub(crate) grace: Duration,
}

/// A line from a child.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "lab", rename_all = "kebab-case")]
enum Line {
    /// The first line: the job is understood.
    Started,
    /// Still at it.
    Progress { schedules: u64 },
    /// The last line.
    Ended(Ended),
}

/// How an exploration ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) exhausted: bool,
    pub(crate) schedules: u64,
    pub(crate) seconds: f64,
    pub(crate) finding: Option<Finding>,
}

/// Explores and exits, if this process was started by [`crate::check()`] to do that; returns at
/// once if not.
///
/// Every program that calls [`crate::check()`] has to call this first thing in `main`, with the
/// same scenarios.
pub fn main_if_child(registry: &[Scenario]) {
    let Ok(job) = std::env::var(JOB_VARIABLE) else { return };
    let code = match run(registry, &job) {
        Ok(()) => 0,
        Err(reason) => {
            eprintln!("{reason}");
            2
        }
    };
    std::process::exit(code);
}

fn run(registry: &[Scenario], job: &str) -> Result<(), String> {
    let job: Job = serde_json::from_str(job)
        .map_err(|error| format!("{JOB_VARIABLE} holds no job, unset it: {error}"))?;
    let explorer = job.search.explorer();
    let plan = registry
        .iter()
        .find(|scenario| scenario.name == job.scenario)
        .and_then(|scenario| scenario.plan(explorer))
        .ok_or_else(|| format!("there is no scenario '{}' for {explorer}", job.scenario))?;
    let started_at = Instant::now();
    report::start(started_at);
    let exhausted = job.search.run(plan.run, job.params, job.limit);
    report::end(&Ended {
        exhausted,
        schedules: meter::schedules(),
        seconds: started_at.elapsed().as_secs_f64(),
        finding: None,
    });
    Ok(())
}
