//! A request is given up while its completion comes.
//!
//! The device has one tag. A's request is late, and A asks the device about it while the device
//! finishes it. Whatever comes first, its submitter is told once how it ended; and if that was
//! before the end, once more when its memory is its own again. B's request, which waits for the
//! tag, goes out after the late one has come back.

use std::sync::Arc;
use std::time::Duration;

use super::core::{Config, CtxId, Env, Omission, Op, Time, Wish};
use super::device::{Device, Event};
use super::stage::{finding, go_on_as, spawn, step};
use super::world::Set;
use crate::Params;

const OWED: &str = "the turn in which the late request came back";

/// As it is.
pub(crate) fn one(_: &Params) {
    run();
}

/// It is forgotten that the submitter was told.
pub(crate) fn forgotten(_: &Params) {
    Omission::AnsweredBefore.make();
    run();
}

fn run() {
    let timeout = Some(Duration::from_millis(1));
    let config = Config { nr_ctx: 2, nr_requests: 2, nr_tags: 1, timeout, ..Config::default() };
    let set = Set::with(Device::slow(), config);
    let (mut a, mut b) = (set.cpu(0), set.cpu(1));
    set.submit(&mut a, 0);
    let interrupt = {
        let set = Arc::clone(&set);
        spawn("D", move || {
            step("finishes");
            set.queue.driver().finish();
            set.world.kick(CtxId(0));
        })
    };
    let b = {
        let set = Arc::clone(&set);
        spawn("B", move || {
            set.submit(&mut b, 1);
            set.settle(&mut b);
            b
        })
    };
    go_on_as("A");
    step("looks at what is late");
    set.queue.turn(&mut a, Time::from_ns(2_000_000)).timer(Wish::Timeout);
    set.count(&mut a);
    set.settle(&mut a);
    interrupt.join().expect("a panic ends the schedule");
    let b = b.join().expect("a panic ends the schedule");
    go_on_as("main");
    set.end(vec![a, b], OWED);
    let log = set.queue.driver().log();
    let place = |event| log.iter().position(|other| *other == event);
    if place(Event::Sent(Op::Read, 1)) < place(Event::Finished(Op::Read, 0)) {
        finding("reused", "the tag of the late request went to another", OWED);
    }
}
