//! Changes while the queue stands: another scheduler, another number of requests.
//!
//! A submits and B completes while the queue is changed. The change is made when nothing is there
//! that belongs to what goes.

use std::sync::Arc;

use super::core::{Change, Config, Deadline, DeadlineConfig, Omission};
use super::stage::{JoinHandle, go_on_as, spawn, step};
use super::world::Set;
use crate::Params;

const OWED: &str = "who made the change";

/// From scheduler `none` to mq-deadline.
pub(crate) fn scheduler(_: &Params) {
    let deadline = || Box::new(Deadline::new(DeadlineConfig::default(), 2));
    let set = run(|| Change::Scheduler(Some(deadline())), true);
    assert_eq!(set.queue.scheduler(), "mq-deadline");
}

/// From two requests to one.
pub(crate) fn nr_requests(_: &Params) {
    let set = run(|| Change::NrRequests(1), true);
    assert_eq!(set.queue.nr_requests(), 1);
}

/// As [`nr_requests`] without B, and turns that are under way are not waited for.
pub(crate) fn at_once(_: &Params) {
    Omission::TurnsUnderWay.make();
    run(|| Change::NrRequests(1), false);
}

fn run(change: impl FnOnce() -> Change, has_b: bool) -> Arc<Set> {
    let set = Set::new(Config {
        nr_ctx: 2,
        nr_requests: 2,
        nr_tags: 2,
        timeout: None,
        ..Config::default()
    });
    let (mut a, mut b) = (set.cpu(0), set.cpu(1));
    let mut threads = Vec::new();
    if has_b {
        set.submit(&mut b, 0);
        let set = Arc::clone(&set);
        threads.push(spawn("B", move || {
            set.settle(&mut b);
            b
        }));
    }
    threads.push({
        let set = Arc::clone(&set);
        spawn("A", move || {
            set.submit(&mut a, 1);
            set.settle(&mut a);
            set.answer(&mut a);
            a
        })
    });
    go_on_as("C");
    step("begins a change");
    let mut changing = set.queue.change(change());
    set.wait_until("who waits for the change", || changing.poll(&set.queue));
    step("the change is made");
    let join = |thread: JoinHandle<_>| thread.join().expect("a panic ends the schedule");
    let mut cpus: Vec<_> = threads.into_iter().map(join).collect();
    if !has_b {
        cpus.push(set.cpu(1));
    }
    go_on_as("main");
    set.end(cpus, OWED);
    set
}
