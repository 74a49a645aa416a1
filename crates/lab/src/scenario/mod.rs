//! The scenarios: what the lab explores.
//!
//! The files beside this one are written once and compiled in each explorer's flavour. They name
//! the layer as `super::core`, so that none of them can reach the native one by mistake.

use crate::{Plan, Scenario};
use at_random::rounds;

crate::flavours! {
    #[path = "abandoned.rs"]
    pub(crate) mod abandoned;
    #[path = "device.rs"]
    pub(crate) mod device;
    #[path = "durable.rs"]
    pub(crate) mod durable;
    #[path = "entry.rs"]
    pub(crate) mod entry;
    #[path = "flush.rs"]
    pub(crate) mod flush;
    #[path = "founding.rs"]
    pub(crate) mod founding;
    #[path = "gate.rs"]
    pub(crate) mod gate;
    #[path = "handover.rs"]
    pub(crate) mod handover;
    #[path = "inbox.rs"]
    pub(crate) mod inbox;
    #[path = "medium.rs"]
    pub(crate) mod medium;
    #[path = "noted.rs"]
    pub(crate) mod noted;
    #[path = "reconfigure.rs"]
    pub(crate) mod reconfigure;
    #[path = "tags.rs"]
    pub(crate) mod tags;
    #[path = "world.rs"]
    pub(crate) mod world;
}

/// What is too deep to be explored, and is drawn at random by shuttle alone.
#[path = "."]
mod at_random {
    use super::under_shuttle::{core, device, medium, stage, world};

    #[path = "rounds.rs"]
    pub(super) mod rounds;
}

/// How often the power is cut at random, unless more is asked for.
const ROUNDS: u64 = 20;

/// Every scenario of the project.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "founding-none-1",
        about: "The founding race on one hardware queue, budget mode none: must be found",
        row: Some("A1"),
        bug: Some("a0823421a4d7"),
        loom: Some(Plan::finds("stall", under_loom::founding::none_1, &[2])),
        shuttle: Some(Plan::finds("stall", under_shuttle::founding::none_1, &[3])),
    },
    Scenario {
        name: "founding-none-2",
        about: "The founding race on two hardware queues, budget mode none: must be found",
        row: Some("A1"),
        bug: Some("a0823421a4d7"),
        loom: Some(Plan::finds("stall", under_loom::founding::none_2, &[3])),
        shuttle: Some(Plan::finds("stall", under_shuttle::founding::none_2, &[3])),
    },
    Scenario {
        name: "founding-delayed-1",
        about: "The founding race on one hardware queue, budget mode delayed: Linux's cure",
        row: Some("A1"),
        bug: None,
        loom: Some(Plan::clean(under_loom::founding::delayed_1, &[2])),
        shuttle: Some(Plan::clean(under_shuttle::founding::delayed_1, &[2])),
    },
    Scenario {
        name: "founding-delayed-2",
        about: "The founding race on two hardware queues, mode delayed: Linux's cure",
        row: Some("A1"),
        bug: None,
        loom: Some(Plan::clean(under_loom::founding::delayed_2, &[3])),
        shuttle: Some(Plan::clean(under_shuttle::founding::delayed_2, &[3])),
    },
    Scenario {
        name: "founding-handoff-1",
        about: "The founding race on one hardware queue, mode handoff: no timer is needed",
        row: Some("A1"),
        bug: None,
        loom: Some(Plan::clean(under_loom::founding::handoff_1, &[2])),
        shuttle: Some(Plan::clean(under_shuttle::founding::handoff_1, &[3])),
    },
    Scenario {
        name: "founding-handoff-2",
        about: "The founding race on two hardware queues, mode handoff: no timer is needed",
        row: Some("A1"),
        bug: None,
        loom: Some(Plan::clean(under_loom::founding::handoff_2, &[3])),
        shuttle: Some(Plan::clean(under_shuttle::founding::handoff_2, &[3])),
    },
    Scenario {
        name: "founding-stays-1",
        about: "As founding-handoff-1, and C reaps and answers kicks while the others run",
        row: Some("A1"),
        bug: None,
        loom: Some(Plan::clean(under_loom::founding::stays_1, &[0])),
        shuttle: Some(Plan::clean(under_shuttle::founding::stays_1, &[2])),
    },
    Scenario {
        name: "founding-stays-2",
        about: "As founding-handoff-2, and C reaps and answers kicks while the others run",
        row: Some("A1"),
        bug: None,
        loom: Some(Plan::clean(under_loom::founding::stays_2, &[2])),
        shuttle: Some(Plan::clean(under_shuttle::founding::stays_2, &[2])),
    },
    Scenario {
        name: "founding-deadline",
        about: "The founding race with scheduler mq-deadline on two hardware queues, mode handoff",
        row: Some("A1"),
        bug: None,
        loom: Some(Plan::clean(under_loom::founding::deadline, &[2])),
        shuttle: Some(Plan::clean(under_shuttle::founding::deadline, &[3])),
    },
    Scenario {
        name: "inbox",
        about: "Two threads send to one that sleeps once while it has no message",
        row: None,
        bug: None,
        loom: Some(Plan::clean(under_loom::inbox::one_sleep, &[4])),
        shuttle: Some(Plan::clean(under_shuttle::inbox::one_sleep, &[4])),
    },
    Scenario {
        name: "tags-one",
        about: "Two queues share two tags: one puts one back while the other comes for it",
        row: Some("B6"),
        bug: None,
        loom: Some(Plan::clean(under_loom::tags::one, &[5])),
        shuttle: Some(Plan::clean(under_shuttle::tags::one, &[4])),
    },
    Scenario {
        name: "tags-no-fence",
        about: "As tags-one, no fence between waiting and the second try: must be found",
        row: Some("B6"),
        bug: Some("5266caaf5660"),
        loom: Some(Plan::finds("stall", under_loom::tags::no_fence, &[3])),
        // What is left out matters where the machine reorders, and shuttle's does not.
        shuttle: Some(Plan::clean(under_shuttle::tags::no_fence, &[3])),
    },
    Scenario {
        name: "tags-one-for-two",
        about: "Three queues share one tag: one puts it back while two come for it",
        row: Some("B6"),
        bug: None,
        loom: Some(Plan::clean(under_loom::tags::one_for_two, &[1])),
        shuttle: Some(Plan::clean(under_shuttle::tags::one_for_two, &[3])),
    },
    Scenario {
        name: "tags-pass-on",
        about: "Two wait for one tag, and the first that is kicked does not want it any more",
        row: Some("B7"),
        bug: None,
        loom: Some(Plan::clean(under_loom::tags::pass_on, &[5])),
        shuttle: Some(Plan::clean(under_shuttle::tags::pass_on, &[4])),
    },
    Scenario {
        name: "tags-no-pass-on",
        about: "As tags-pass-on, who was kicked in vain tells nobody: must be found",
        row: Some("B7"),
        bug: Some("e6fc46498784"),
        loom: Some(Plan::finds("stall", under_loom::tags::no_pass_on, &[3])),
        shuttle: Some(Plan::finds("stall", under_shuttle::tags::no_pass_on, &[3])),
    },
    Scenario {
        name: "tags-batch",
        about: "Two wait, two tags come back, and a kick is worth two tags while one is under way",
        row: Some("B15"),
        bug: None,
        loom: Some(Plan::clean(under_loom::tags::batch, &[5])),
        shuttle: Some(Plan::clean(under_shuttle::tags::batch, &[5])),
    },
    Scenario {
        name: "tags-shares",
        about: "A queue comes for more than its share while the two others become idle",
        row: Some("B16"),
        bug: None,
        loom: Some(Plan::clean(under_loom::tags::shares, &[3])),
        shuttle: Some(Plan::clean(under_shuttle::tags::shares, &[3])),
    },
    Scenario {
        name: "handover-two",
        about: "A unit of budget goes to who waits, though the holder wants it again",
        row: None,
        bug: None,
        loom: Some(Plan::clean(under_loom::handover::two, &[5])),
        shuttle: Some(Plan::clean(under_shuttle::handover::two, &[4])),
    },
    Scenario {
        name: "handover-three",
        about: "As handover-two, and a third thread comes for the unit",
        row: None,
        bug: None,
        loom: Some(Plan::clean(under_loom::handover::three, &[2])),
        shuttle: Some(Plan::clean(under_shuttle::handover::three, &[2])),
    },
    Scenario {
        name: "handover-kick-only",
        about: "As handover-two, who waits is kicked and given nothing: must be found",
        row: None,
        bug: Some("given-units"),
        loom: Some(Plan::finds("starved", under_loom::handover::kick_only, &[2])),
        shuttle: Some(Plan::finds("starved", under_shuttle::handover::kick_only, &[2])),
    },
    Scenario {
        name: "noted-budget",
        about: "Who holds the scheduler is short of a unit, which comes back with a note",
        row: None,
        bug: None,
        loom: Some(Plan::clean(under_loom::noted::budget, &[3])),
        shuttle: Some(Plan::clean(under_shuttle::noted::budget, &[3])),
    },
    Scenario {
        name: "noted-tag",
        about: "Who holds the scheduler is short of a tag, which comes back with a note",
        row: None,
        bug: None,
        loom: Some(Plan::clean(under_loom::noted::tag, &[3])),
        shuttle: Some(Plan::clean(under_shuttle::noted::tag, &[3])),
    },
    Scenario {
        name: "noted-in-vain",
        about: "As noted-budget, the holder does not ask for the unit again: must be found",
        row: None,
        bug: Some("noted-retry"),
        loom: Some(Plan::finds("stall", under_loom::noted::in_vain, &[3])),
        shuttle: Some(Plan::finds("stall", under_shuttle::noted::in_vain, &[3])),
    },
    Scenario {
        name: "noted-stale-mark",
        about: "As noted-tag, the holder relies on a mark that was taken: must be found",
        row: None,
        bug: Some("mark-look"),
        loom: Some(Plan::finds("stall", under_loom::noted::stale_mark, &[3])),
        shuttle: Some(Plan::finds("stall", under_shuttle::noted::stale_mark, &[3])),
    },
    Scenario {
        name: "gate-quiesce",
        about: "Once a quiesce holds nothing goes to the driver, and who waits is told",
        row: None,
        bug: None,
        loom: Some(Plan::clean(under_loom::gate::quiesce, &[3])),
        shuttle: Some(Plan::clean(under_shuttle::gate::quiesce, &[3])),
    },
    Scenario {
        name: "gate-quiesce-at-once",
        about: "As gate-quiesce, turns under way are not waited for: must be found",
        row: None,
        bug: Some("turns-under-way"),
        loom: Some(Plan::finds("let through", under_loom::gate::quiesce_at_once, &[3])),
        shuttle: Some(Plan::finds("let through", under_shuttle::gate::quiesce_at_once, &[3])),
    },
    Scenario {
        name: "gate-quiesce-untold",
        about: "As gate-quiesce, who waits is not told: must be found",
        row: None,
        bug: Some("settled"),
        loom: Some(Plan::finds("stall", under_loom::gate::quiesce_untold, &[3])),
        shuttle: Some(Plan::finds("stall", under_shuttle::gate::quiesce_untold, &[3])),
    },
    Scenario {
        name: "gate-freeze",
        about: "Once a freeze holds no request is there, and who waits is told",
        row: None,
        bug: None,
        loom: Some(Plan::clean(under_loom::gate::freeze, &[3])),
        shuttle: Some(Plan::clean(under_shuttle::gate::freeze, &[3])),
    },
    Scenario {
        name: "gate-freeze-at-once",
        about: "As gate-freeze, turns under way are not waited for: must be found",
        row: None,
        bug: Some("turns-under-way"),
        loom: Some(Plan::finds("stall", under_loom::gate::freeze_at_once, &[3])),
        shuttle: Some(Plan::finds("stall", under_shuttle::gate::freeze_at_once, &[3])),
    },
    Scenario {
        name: "gate-freeze-untold",
        about: "As gate-freeze, who waits is not told: must be found",
        row: None,
        bug: Some("settled"),
        loom: Some(Plan::finds("stall", under_loom::gate::freeze_untold, &[3])),
        shuttle: Some(Plan::finds("stall", under_shuttle::gate::freeze_untold, &[3])),
    },
    Scenario {
        name: "entry-one",
        about: "Two tenants come for the one request of a queue",
        row: None,
        bug: None,
        loom: Some(Plan::clean(under_loom::entry::one_request, &[2])),
        shuttle: Some(Plan::clean(under_shuttle::entry::one_request, &[3])),
    },
    Scenario {
        name: "entry-two",
        about: "A tenant wants both requests of a queue, one of which is kept for another",
        row: None,
        bug: None,
        loom: Some(Plan::clean(under_loom::entry::two_requests, &[1])),
        shuttle: Some(Plan::clean(under_shuttle::entry::two_requests, &[2])),
    },
    Scenario {
        name: "entry-no-second-look",
        about: "As entry-one, who waits does not look again: must be found",
        row: None,
        bug: Some("entry-look"),
        loom: Some(Plan::finds("stall", under_loom::entry::no_second_look, &[3])),
        shuttle: Some(Plan::finds("stall", under_shuttle::entry::no_second_look, &[3])),
    },
    Scenario {
        name: "change-scheduler",
        about: "From none to mq-deadline while one submits and one completes",
        row: None,
        bug: None,
        loom: Some(Plan::clean(under_loom::reconfigure::scheduler, &[1])),
        shuttle: Some(Plan::clean(under_shuttle::reconfigure::scheduler, &[2])),
    },
    Scenario {
        name: "change-nr-requests",
        about: "Another number of requests while one submits and one completes",
        row: None,
        bug: None,
        loom: Some(Plan::clean(under_loom::reconfigure::nr_requests, &[1])),
        shuttle: Some(Plan::clean(under_shuttle::reconfigure::nr_requests, &[2])),
    },
    Scenario {
        name: "change-at-once",
        about: "A change of nr_requests that does not wait for turns under way: must be found",
        row: None,
        bug: Some("turns-under-way"),
        loom: Some(Plan::finds("stall", under_loom::reconfigure::at_once, &[3])),
        shuttle: Some(Plan::finds("stall", under_shuttle::reconfigure::at_once, &[3])),
    },
    Scenario {
        name: "flush-two-writes",
        about: "Two write durably at once: one flush in flight, which covers what it must",
        row: None,
        bug: None,
        loom: Some(Plan::clean(under_loom::flush::two_writes, &[4])),
        shuttle: Some(Plan::clean(under_shuttle::flush::two_writes, &[3])),
    },
    Scenario {
        name: "flush-and-write",
        about: "One writes durably and one flushes at once",
        row: None,
        bug: None,
        loom: Some(Plan::clean(under_loom::flush::write_and_flush, &[3])),
        shuttle: Some(Plan::clean(under_shuttle::flush::write_and_flush, &[3])),
    },
    Scenario {
        name: "flush-joins-too-late",
        about: "As flush-two-writes, a flush in flight covers who comes: must be found",
        row: None,
        bug: Some("next-flush"),
        loom: Some(Plan::finds("not durable", under_loom::flush::joins_too_late, &[3])),
        shuttle: Some(Plan::finds("not durable", under_shuttle::flush::joins_too_late, &[3])),
    },
    Scenario {
        name: "durable-flush",
        about: "Power lost at any step, one writes with FUA and one flushes, on a disk without FUA",
        row: None,
        bug: None,
        loom: Some(Plan::clean(under_loom::durable::flush, &[4])),
        shuttle: Some(Plan::clean(under_shuttle::durable::flush, &[3])),
    },
    Scenario {
        name: "durable-fua",
        about: "As durable-flush, on a disk with FUA",
        row: None,
        bug: None,
        loom: Some(Plan::clean(under_loom::durable::fua, &[4])),
        shuttle: Some(Plan::clean(under_shuttle::durable::fua, &[3])),
    },
    Scenario {
        name: "durable-preflush",
        about: "As durable-flush, one flushes and one writes with PREFLUSH and FUA",
        row: None,
        bug: None,
        loom: Some(Plan::clean(under_loom::durable::preflush, &[4])),
        shuttle: Some(Plan::clean(under_shuttle::durable::preflush, &[3])),
    },
    Scenario {
        name: "durable-disk-no-flush",
        about: "As durable-flush, the disk does nothing for a flush: must be found",
        row: None,
        bug: Some("disk-no-flush"),
        loom: Some(Plan::finds("not durable", under_loom::durable::disk_does_nothing, &[4])),
        shuttle: Some(Plan::finds("not durable", under_shuttle::durable::disk_does_nothing, &[3])),
    },
    Scenario {
        name: "durable-disk-no-fua",
        about: "As durable-fua, the disk ignores FUA: must be found",
        row: None,
        bug: Some("disk-no-fua"),
        loom: Some(Plan::finds("not durable", under_loom::durable::disk_ignores_fua, &[4])),
        shuttle: Some(Plan::finds("not durable", under_shuttle::durable::disk_ignores_fua, &[3])),
    },
    Scenario {
        name: "durable-disk-early",
        about: "As durable-flush, the disk's flush is over before it is done: must be found",
        row: None,
        bug: Some("disk-early"),
        loom: Some(Plan::finds("not durable", under_loom::durable::disk_ends_early, &[4])),
        shuttle: Some(Plan::finds("not durable", under_shuttle::durable::disk_ends_early, &[3])),
    },
    Scenario {
        name: "durable-layer-no-flush",
        about: "As durable-flush, the layer sends no flush: must be found",
        row: None,
        bug: Some("layer-no-flush"),
        loom: Some(Plan::finds("not durable", under_loom::durable::layer_does_nothing, &[4])),
        shuttle: Some(Plan::finds("not durable", under_shuttle::durable::layer_does_nothing, &[3])),
    },
    Scenario {
        name: "durable-layer-no-fua",
        about: "As durable-flush, the layer ignores FUA: must be found",
        row: None,
        bug: Some("layer-no-fua"),
        loom: Some(Plan::finds("not durable", under_loom::durable::layer_ignores_fua, &[4])),
        shuttle: Some(Plan::finds("not durable", under_shuttle::durable::layer_ignores_fua, &[3])),
    },
    Scenario {
        name: "durable-layer-early",
        about: "As durable-flush, the layer replies before a flush has ended: must be found",
        row: None,
        bug: Some("layer-early"),
        loom: Some(Plan::finds("not durable", under_loom::durable::layer_ends_early, &[4])),
        shuttle: Some(Plan::finds("not durable", under_shuttle::durable::layer_ends_early, &[3])),
    },
    Scenario {
        name: "durable-joins-too-late",
        about: "As durable-preflush, a flush in flight covers who comes: must be found",
        row: None,
        bug: Some("next-flush"),
        loom: Some(Plan::finds("not durable", under_loom::durable::joins_too_late, &[4])),
        shuttle: Some(Plan::finds("not durable", under_shuttle::durable::joins_too_late, &[3])),
    },
    Scenario {
        name: "durable-rounds",
        about: "Power lost under a random load of up to four threads, again and again",
        row: None,
        bug: None,
        loom: None,
        shuttle: Some(Plan::clean(rounds::kept, &[]).in_rounds(ROUNDS)),
    },
    Scenario {
        name: "durable-rounds-disk-no-flush",
        about: "As durable-rounds, the disk does nothing for a flush: must be found",
        row: None,
        bug: Some("disk-no-flush"),
        loom: None,
        shuttle: Some(Plan::finds("not durable", rounds::disk_does_nothing, &[]).in_rounds(ROUNDS)),
    },
    Scenario {
        name: "durable-rounds-disk-no-fua",
        about: "As durable-rounds, the disk ignores FUA: must be found",
        row: None,
        bug: Some("disk-no-fua"),
        loom: None,
        shuttle: Some(Plan::finds("not durable", rounds::disk_ignores_fua, &[]).in_rounds(ROUNDS)),
    },
    Scenario {
        name: "durable-rounds-disk-early",
        about: "As durable-rounds, the disk's flush is over before it is done: must be found",
        row: None,
        bug: Some("disk-early"),
        loom: None,
        shuttle: Some(Plan::finds("not durable", rounds::disk_ends_early, &[]).in_rounds(ROUNDS)),
    },
    Scenario {
        name: "durable-rounds-layer-no-flush",
        about: "As durable-rounds, the layer sends no flush: must be found",
        row: None,
        bug: Some("layer-no-flush"),
        loom: None,
        shuttle: Some(
            Plan::finds("not durable", rounds::layer_does_nothing, &[]).in_rounds(ROUNDS),
        ),
    },
    Scenario {
        name: "durable-rounds-layer-no-fua",
        about: "As durable-rounds, the layer ignores FUA: must be found",
        row: None,
        bug: Some("layer-no-fua"),
        loom: None,
        shuttle: Some(Plan::finds("not durable", rounds::layer_ignores_fua, &[]).in_rounds(ROUNDS)),
    },
    Scenario {
        name: "durable-rounds-layer-early",
        about: "As durable-rounds, the layer replies before a flush has ended: must be found",
        row: None,
        bug: Some("layer-early"),
        loom: None,
        shuttle: Some(Plan::finds("not durable", rounds::layer_ends_early, &[]).in_rounds(ROUNDS)),
    },
    Scenario {
        name: "abandoned",
        about: "A request is given up while its completion comes",
        row: None,
        bug: None,
        loom: Some(Plan::clean(under_loom::abandoned::one, &[3])),
        shuttle: Some(Plan::clean(under_shuttle::abandoned::one, &[3])),
    },
    Scenario {
        name: "abandoned-forgotten",
        about: "As abandoned, that its submitter was told is forgotten: must be found",
        row: None,
        bug: Some("answered-before"),
        loom: Some(Plan::finds("double completion", under_loom::abandoned::forgotten, &[2])),
        shuttle: Some(Plan::finds("double completion", under_shuttle::abandoned::forgotten, &[2])),
    },
];
