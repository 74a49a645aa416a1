//! What an exploration has shown.

use serde::{Deserialize, Serialize};

use crate::explorer::Explorer;
use crate::finding::Finding;

/// The result of one exploration, by the names that `blkmq check --output-format json` prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The scenario.
    pub scenario: String,
    /// The commit id of the bug that was put back, if one was.
    pub bug: Option<String>,
    /// The row of the corpus of stalls that the scenario stands for, if it does.
    pub row: Option<String>,
    /// Who explored.
    pub explorer: Explorer,
    /// The most preemptions a schedule had; `None` for a random search, which has no bound.
    pub bound: Option<u32>,
    /// The seed of a random search: of its first schedule, or of the one that was found, which is
    /// then the first one of a search that begins with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Whether every schedule within the bound was run. False too where a finding ended the
    /// search.
    pub exhausted: bool,
    /// The schedules run; the last of them is the one that was found, if one was.
    pub schedules: u64,
    /// How long it took, in seconds of wall-clock time.
    pub seconds: f64,
    /// Whether a schedule ended badly.
    pub found: bool,
    /// What was wrong with it: "stall", "timer-made progress", "double completion", ...
    pub kind: Option<String>,
    /// Whether this is what the scenario's author says comes out.
    pub expected: bool,
    /// The schedule that ended badly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finding: Option<Finding>,
}

/// One exploration that could be run, by the names that `blkmq check --list --output-format json`
/// prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Listed {
    /// The scenario.
    pub scenario: &'static str,
    /// What it is about, in a sentence.
    pub about: &'static str,
    /// The commit id of a bug; there is none without `--bug`.
    pub bug: Option<&'static str>,
    /// The row of the corpus of stalls that the scenario stands for.
    pub row: Option<&'static str>,
    /// Who explores.
    pub explorer: Explorer,
    /// The largest bound that is explored unless another is asked for; `None` if it is drawn at
    /// random.
    pub bound: Option<u32>,
    /// How many schedules are drawn at random, unless another number is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rounds: Option<u64>,
    /// Whether its author says that something will be found.
    pub found: bool,
    /// What will be found.
    pub kind: Option<&'static str>,
}
