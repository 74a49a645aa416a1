//! The hand-over of budget: units travel with the kick.
//!
//! W waits, on a hardware queue of its own, for the only unit, which A's request has. A reaps and
//! submits in one turn, so what it gives back is at hand for what it wants next. W was first.

use std::sync::Arc;

use super::core::{Config, Maps, Omission, Op, Time, VolumeId};
use super::device::Event;
use super::stage::{finding, go_on_as, spawn, step};
use super::world::{Set, read};
use crate::Params;

const OWED: &str = "A, which gave the unit back and took it again";

/// A and W.
pub(crate) fn two(_: &Params) {
    run(false);
}

/// As [`two`], and a third thread comes for the unit, which may be quicker than W.
pub(crate) fn three(_: &Params) {
    run(true);
}

/// As [`two`], and the unit does not travel: W is only kicked.
pub(crate) fn kick_only(_: &Params) {
    Omission::GivenUnits.make();
    run(false);
}

fn run(has_third: bool) {
    let set = Set::new(Config {
        nr_ctx: if has_third { 3 } else { 2 },
        maps: Maps::of(2),
        nr_requests: 4,
        nr_tags: 4,
        budget: Some(1),
        timeout: None,
        ..Config::default()
    });
    let (mut a, mut w) = (set.cpu(0), set.cpu(1));
    set.submit(&mut a, 0);
    set.submit(&mut w, 1);
    set.take_kicks();
    let a = {
        let set = Arc::clone(&set);
        spawn("A", move || {
            step("reaps sector 0, and submits sector 2 in the same turn");
            let mut turn = set.queue.turn(&mut a, Time::ZERO);
            turn.reap();
            set.put_in(&mut turn, read(2, VolumeId(0)));
            drop(turn);
            set.count(&mut a);
            set.settle(&mut a);
            a
        })
    };
    let third = has_third.then(|| {
        let (set, mut b) = (Arc::clone(&set), set.cpu(2));
        spawn("B", move || {
            set.submit(&mut b, 3);
            set.settle(&mut b);
            b
        })
    });
    go_on_as("W");
    set.settle(&mut w);
    let threads = [Some(a), third].into_iter().flatten();
    let threads = threads.map(|thread| thread.join().expect("a panic ends the schedule"));
    let cpus = threads.chain([w]).collect();
    go_on_as("main");
    set.end(cpus, OWED);
    let log = set.queue.driver().log();
    let place = |sector| log.iter().position(|event| *event == Event::Sent(Op::Read, sector));
    if !has_third && place(2) < place(1) {
        finding("starved", "sector 2 went before sector 1, which had waited for longer", OWED);
    }
    if set.timers_fired() > 0 {
        finding("timer-made progress", "a timer fired that nobody asked for", "the hand-off");
    }
}
