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
    #[path = "tags.rs"]
    pub(crate) mod tags;
    #[path = "world.rs"]
    pub(crate) mod world;
}

use under_loom::{founding as by_loom, inbox as inbox_by_loom, tags as tags_by_loom};
use under_shuttle::{founding as by_shuttle, inbox as inbox_by_shuttle, tags as tags_by_shuttle};

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
    Scenario {
        name: "tags-one",
        about: "Two queues share two tags: one puts one back while the other comes for it",
        row: Some("B6"),
        bug: None,
        loom: Some(Plan::clean(tags_by_loom::one, &[5])),
        shuttle: Some(Plan::clean(tags_by_shuttle::one, &[4])),
    },
    Scenario {
        name: "tags-no-fence",
        about: "As tags-one, no fence between waiting and the second try: must be found",
        row: Some("B6"),
        bug: Some("5266caaf5660"),
        loom: Some(Plan::finds("stall", tags_by_loom::no_fence, &[3])),
        // What is left out matters where the machine reorders, and shuttle's does not.
        shuttle: Some(Plan::clean(tags_by_shuttle::no_fence, &[3])),
    },
    Scenario {
        name: "tags-one-for-two",
        about: "Three queues share one tag: one puts it back while two come for it",
        row: Some("B6"),
        bug: None,
        loom: Some(Plan::clean(tags_by_loom::one_for_two, &[1])),
        shuttle: Some(Plan::clean(tags_by_shuttle::one_for_two, &[3])),
    },
    Scenario {
        name: "tags-pass-on",
        about: "Two wait for one tag, and the first that is kicked does not want it any more",
        row: Some("B7"),
        bug: None,
        loom: Some(Plan::clean(tags_by_loom::pass_on, &[5])),
        shuttle: Some(Plan::clean(tags_by_shuttle::pass_on, &[4])),
    },
    Scenario {
        name: "tags-no-pass-on",
        about: "As tags-pass-on, who was kicked in vain tells nobody: must be found",
        row: Some("B7"),
        bug: Some("e6fc46498784"),
        loom: Some(Plan::finds("stall", tags_by_loom::no_pass_on, &[3])),
        shuttle: Some(Plan::finds("stall", tags_by_shuttle::no_pass_on, &[3])),
    },
    Scenario {
        name: "tags-batch",
        about: "Two wait, two tags come back, and a kick is worth two tags while one is under way",
        row: Some("B15"),
        bug: None,
        loom: Some(Plan::clean(tags_by_loom::batch, &[5])),
        shuttle: Some(Plan::clean(tags_by_shuttle::batch, &[5])),
    },
    Scenario {
        name: "tags-shares",
        about: "A queue comes for more than its share while the two others become idle",
        row: Some("B16"),
        bug: None,
        loom: Some(Plan::clean(tags_by_loom::shares, &[3])),
        shuttle: Some(Plan::clean(tags_by_shuttle::shares, &[3])),
    },
];
