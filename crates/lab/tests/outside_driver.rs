//! A driver in a crate of its own enters both explorers, with the layer's own sources around it.

use blkmq_lab::{Options, Plan, Scenario, Selection, Table, check, main_if_child, progress};

blkmq_lab::flavours! {
    #[path = "outside/one_slot.rs"]
    pub(crate) mod one_slot;
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "one-slot",
        about: "A device that refuses while its one slot is taken",
        row: None,
        bug: None,
        loom: Some(Plan::clean(under_loom::one_slot::free_at_once, &[3])),
        shuttle: Some(Plan::clean(under_shuttle::one_slot::free_at_once, &[3])),
    },
    Scenario {
        name: "one-slot-cooling",
        about: "The same, but the slot is free only later, and the driver kicks",
        row: None,
        bug: None,
        loom: Some(Plan::clean(under_loom::one_slot::cooling, &[3])),
        shuttle: Some(Plan::clean(under_shuttle::one_slot::cooling, &[3])),
    },
    Scenario {
        name: "one-slot-kick-forgotten",
        about: "The same, but the driver forgets the kick",
        row: None,
        bug: None,
        loom: Some(Plan::finds("stall", under_loom::one_slot::kick_forgotten, &[3])),
        shuttle: Some(Plan::finds("stall", under_shuttle::one_slot::kick_forgotten, &[3])),
    },
];

fn main() {
    main_if_child(SCENARIOS);
    let outcomes = check(SCENARIOS, &Selection::All, &Options::default(), &|_| ());
    let outcomes = outcomes.expect("the scenarios can be explored");
    for outcome in &outcomes {
        println!("{}", progress::line(outcome));
        if let Some(finding) = &outcome.finding {
            println!("{}", Table(finding));
        }
    }
    assert_eq!(outcomes.len(), 6);
    for outcome in &outcomes {
        assert!(outcome.expected, "{outcome:#?}");
        assert!(outcome.found || outcome.exhausted, "{outcome:#?}");
    }
}
