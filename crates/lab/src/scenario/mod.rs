//! The scenarios: what the lab explores.
//!
//! The files beside this one are written once and compiled in each explorer's flavour. They name the
//! layer as `super::core`, so that none of them can reach the native one by mistake.

use crate::{Plan, Scenario};

crate::flavours! {
    #[path = "founding.rs"]
    pub(crate) mod founding;
    #[path = "world.rs"]
    pub(crate) mod world;
}

use under_loom::founding as by_loom;
use under_shuttle::founding as by_shuttle;

/// Every scenario of the project.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "founding-none-1",
        about: "The founding race on one hardware queue, budget mode none: the bug, which must be found",
        row: Some("A1"),
        bug: Some("a0823421a4d7"),
        loom: Some(Plan::finds("stall", by_loom::none_1, &[3])),
        shuttle: Some(Plan::finds("stall", by_shuttle::none_1, &[3])),
    },
    Scenario {
        name: "founding-none-2",
        about: "The founding race on two hardware queues, budget mode none: the bug, which must be found",
        row: Some("A1"),
        bug: Some("a0823421a4d7"),
        loom: Some(Plan::finds("stall", by_loom::none_2, &[3])),
        shuttle: Some(Plan::finds("stall", by_shuttle::none_2, &[3])),
    },
    Scenario {
        name: "founding-delayed-1",
        about: "The founding race on one hardware queue, budget mode delayed: Linux's cure",
        row: Some("A1"),
        bug: None,
        loom: Some(Plan::clean(by_loom::delayed_1, &[3])),
        shuttle: Some(Plan::clean(by_shuttle::delayed_1, &[3])),
    },
    Scenario {
        name: "founding-delayed-2",
        about: "The founding race on two hardware queues, budget mode delayed: Linux's cure",
        row: Some("A1"),
        bug: None,
        loom: Some(Plan::clean(by_loom::delayed_2, &[3])),
        shuttle: Some(Plan::clean(by_shuttle::delayed_2, &[3])),
    },
    Scenario {
        name: "founding-handoff-1",
        about: "The founding race on one hardware queue, budget mode handoff: no timer may be needed",
        row: Some("A1"),
        bug: None,
        loom: Some(Plan::clean(by_loom::handoff_1, &[3])),
        shuttle: Some(Plan::clean(by_shuttle::handoff_1, &[3])),
    },
    Scenario {
        name: "founding-handoff-2",
        about: "The founding race on two hardware queues, budget mode handoff: no timer may be needed",
        row: Some("A1"),
        bug: None,
        loom: Some(Plan::clean(by_loom::handoff_2, &[3])),
        shuttle: Some(Plan::clean(by_shuttle::handoff_2, &[3])),
    },
];
