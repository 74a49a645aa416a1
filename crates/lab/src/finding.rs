//! What an explorer found: the schedule that ended badly, and what is wrong with its end.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A schedule that ended badly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What is wrong, in a word or two: "stall", "double completion", or one of [`Kind`]'s names.
    pub kind: String,
    /// What the scenario or the explorer said.
    pub message: String,
    /// `file:line` of who said it.
    pub at: Option<String>,
    /// What is stuck, if the scenario's oracle said.
    pub stuck: Option<String>,
    /// Who owed the kick, if the scenario's oracle said.
    pub owed: Option<String>,
    /// How many steps came before the first of `steps`.
    pub steps_lost: usize,
    /// What the threads did, in the order in which they did it.
    pub steps: Vec<Step>,
}

/// One thing that one thread did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The name of the thread.
    pub lane: String,
    /// What it did.
    pub text: String,
    /// `file:line` of where.
    pub at: String,
}

/// The kinds that need no oracle, because the explorers see them by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Every thread waits for another.
    Deadlock,
    /// A schedule that does not end.
    Livelock,
    /// Two accesses to the same memory that nothing orders.
    DataRace,
    /// Something was not given back when the schedule ended.
    Leak,
    /// The scenario did something else when it was run again in the same order.
    Nondeterminism,
    /// An assertion, or any other panic.
    Panic,
    /// The process that explored died.
    Crash,
    /// The process that explored no longer came to the end of a schedule.
    Hang,
}

impl Kind {
    /// Knows the explorers' own complaints by their words, as they have no type.
    pub(crate) fn of_message(message: &str) -> Kind {
        let says = |words: &str| message.contains(words);
        if message.starts_with("deadlock") {
            Kind::Deadlock
        } else if says("exceeded maximum number of branches") || says("exceeded max_steps bound") {
            Kind::Livelock
        } else if says("Causality violation") {
            Kind::DataRace
        } else if says(" leaked.") {
            Kind::Leak
        } else if says("fully deterministic") {
            Kind::Nondeterminism
        } else {
            Kind::Panic
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Deadlock => "deadlock",
            Kind::Livelock => "livelock",
            Kind::DataRace => "data race",
            Kind::Leak => "leak",
            Kind::Nondeterminism => "nondeterminism",
            Kind::Panic => "panic",
            Kind::Crash => "crash",
            Kind::Hang => "hang",
        })
    }
}

impl Finding {
    /// A finding of which nothing but its end is known.
    pub(crate) fn without_steps(kind: Kind, message: String) -> Self {
        Finding {
            kind: kind.to_string(),
            message,
            at: None,
            stuck: None,
            owed: None,
            steps_lost: 0,
            steps: Vec::new(),
        }
    }
}
