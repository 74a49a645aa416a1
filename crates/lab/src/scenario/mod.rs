//! The scenarios: what the lab explores.
//!
//! The files beside this one are written once and compiled in each explorer's flavour. They name
//! the layer as `super::core`, so that none of them can reach the native one by mistake.

use crate::{Plan, Scenario};

crate::flavours! {
    #[path = "founding.rs"]
    pub(crate) mod founding;
    #[path = "inbox.rs"]
    pub(crate) mod inbox;
    #[path = "world.rs"]
    pub(crate) mod world;
}

use under_loom::{founding as by_loom, inbox as inbox_by_loom};
use under_shuttle::{founding as by_shuttle, inbox as inbox_by_shuttle};

/// Every scenario of the project.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "founding-none-1",
        about: "The founding race on one hardware queue, budget mode none: must be found",
        row: Some("A1"),
        bug: Some("a0823421a4d7"),
        loom: Some(Plan::finds("stall", by_loom::none_1, &[3])),
        shuttle: Some(Plan::finds("stall", by_shuttle::none_1, &[3])),
    },
    Scenario {
        name: "founding-none-2",
        about: "The founding race on two hardware queues, budget mode none: must be found",
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
        about: "The founding race on two hardware queues, mode delayed: Linux's cure",
        row: Some("A1"),
        bug: None,
        loom: Some(Plan::clean(by_loom::delayed_2, &[3])),
        shuttle: Some(Plan::clean(by_shuttle::delayed_2, &[3])),
    },
    Scenario {
        name: "founding-handoff-1",
        about: "The founding race on one hardware queue, mode handoff: no timer is needed",
        row: Some("A1"),
        bug: None,
        loom: Some(Plan::clean(by_loom::handoff_1, &[3])),
        shuttle: Some(Plan::clean(by_shuttle::handoff_1, &[3])),
    },
    Scenario {
        name: "founding-handoff-2",
        about: "The founding race on two hardware queues, mode handoff: no timer is needed",
        row: Some("A1"),
        bug: None,
        loom: Some(Plan::clean(by_loom::handoff_2, &[3])),
        shuttle: Some(Plan::clean(by_shuttle::handoff_2, &[3])),
    },
    Scenario {
        name: "founding-stays-1",
        about: "As founding-handoff-1, and C reaps and answers kicks while the others run",
        row: Some("A1"),
        bug: None,
        loom: Some(Plan::clean(by_loom::stays_1, &[1])),
        shuttle: Some(Plan::clean(by_shuttle::stays_1, &[3])),
    },
    Scenario {
        name: "founding-stays-2",
        about: "As founding-handoff-2, and C reaps and answers kicks while the others run",
        row: Some("A1"),
        bug: None,
        loom: Some(Plan::clean(by_loom::stays_2, &[3])),
        shuttle: Some(Plan::clean(by_shuttle::stays_2, &[3])),
    },
    Scenario {
        name: "founding-deadline",
        about: "The founding race with scheduler mq-deadline on two hardware queues, mode handoff",
        row: Some("A1"),
        bug: None,
        loom: Some(Plan::clean(by_loom::deadline, &[2])),
        shuttle: Some(Plan::clean(by_shuttle::deadline, &[3])),
    },
    Scenario {
        name: "inbox",
        about: "Two threads send to one that sleeps once while it has no message",
        row: None,
        bug: None,
        loom: Some(Plan::clean(inbox_by_loom::one_sleep, &[4])),
        shuttle: Some(Plan::clean(inbox_by_shuttle::one_sleep, &[4])),
    },
];
