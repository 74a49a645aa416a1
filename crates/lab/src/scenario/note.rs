//! The note in the scheduler's lock: who finds it held relies on the holder, who may be blocked by
//! what the other has just put back.

use std::sync::Arc;

use super::core::{Config, Deadline, DeadlineConfig, Omission};
use super::stage::{go_on_as, spawn};
use super::world::Set;
use crate::Params;

const OWED: &str = "who held the scheduler when the note was left";
const NR_REQUESTS: u32 = 2;

/// A has the one driver tag and puts it back, while B comes for it with a request.
pub(crate) fn tag(_: &Params) {
    run(Config { nr_tags: 1, ..config() });
}

/// As [`tag`], with the one unit of budget.
pub(crate) fn budget(_: &Params) {
    run(Config { budget: Some(1), ..config() });
}

/// As [`tag`], and the holder does not look again for the note.
pub(crate) fn tag_no_look(params: &Params) {
    Omission::NoteLook.make();
    tag(params);
}

/// As [`budget`], and the holder does not look again for the note.
pub(crate) fn budget_no_look(params: &Params) {
    Omission::NoteLook.make();
    budget(params);
}

/// As [`tag`], and the holder takes it that its mark is there still.
pub(crate) fn tag_stale_mark(params: &Params) {
    Omission::MarkLook.make();
    tag(params);
}

/// Two threads with one hardware queue.
fn config() -> Config {
    Config {
        nr_ctx: 2,
        nr_requests: NR_REQUESTS,
        nr_tags: NR_REQUESTS,
        scheduler: Some(Box::new(Deadline::new(DeadlineConfig::default(), NR_REQUESTS))),
        timeout: None,
        ..Config::default()
    }
}

fn run(config: Config) {
    let set = Set::new(config);
    let (mut a, mut b) = (set.cpu(0), set.cpu(1));
    set.submit(&mut a, 0);
    let a = {
        let set = Arc::clone(&set);
        spawn("A", move || {
            set.settle(&mut a);
            a
        })
    };
    go_on_as("B");
    set.submit(&mut b, 1);
    set.settle(&mut b);
    let a = a.join().expect("a panic ends the schedule");
    go_on_as("main");
    set.end(vec![a, b], OWED);
}
