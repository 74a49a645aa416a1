//! A note that is left for whoever holds the scheduler, by one who brings what the holder lacks.
//!
//! A and H share a hardware queue with a scheduler. A's request has the only unit of the budget, or
//! the only tag. H submits, holds the scheduler, fails to get it, and leaves a mark. A's request
//! ends; A takes the mark, which makes it look for work itself, and finds the scheduler held. It
//! leaves a note and goes. So the note is all that is left of the kick that H is owed.

use std::sync::Arc;

use super::core::{Config, Deadline, DeadlineConfig, Maps, Omission};
use super::stage::{go_on_as, spawn};
use super::world::Set;
use crate::Params;

const OWED: &str = "H, which was left a note while it held the scheduler";

/// One unit of the budget.
pub(crate) fn budget(_: &Params) {
    run(Some(1), 2);
}

/// One driver tag.
pub(crate) fn tag(_: &Params) {
    run(None, 1);
}

/// As [`budget`], and the holder hears of the note but does not ask for the unit again.
pub(crate) fn in_vain(_: &Params) {
    Omission::NotedRetry.make();
    run(Some(1), 2);
}

/// As [`tag`], and the holder relies on the mark that it left, though it is taken.
pub(crate) fn stale_mark(_: &Params) {
    Omission::MarkLook.make();
    run(None, 1);
}

fn run(budget: Option<u32>, nr_tags: u32) {
    let nr_requests = 4;
    let set = Set::new(Config {
        nr_ctx: 2,
        maps: Maps::of(1),
        nr_requests,
        nr_tags,
        budget,
        scheduler: Some(Box::new(Deadline::new(DeadlineConfig::default(), nr_requests))),
        timeout: None,
        ..Config::default()
    });
    let (mut a, mut h) = (set.cpu(0), set.cpu(1));
    set.submit(&mut a, 0);
    let a = {
        let set = Arc::clone(&set);
        spawn("A", move || {
            set.settle(&mut a);
            a
        })
    };
    go_on_as("H");
    set.submit(&mut h, 1);
    set.settle(&mut h);
    let a = a.join().expect("a panic ends the schedule");
    go_on_as("main");
    set.end(vec![a, h], OWED);
}
