//! Busy answers, and who has the request tried again.

use std::time::Duration;

use blkmq_core::{CtxId, Time, Wish};

use crate::device::{Answer, Busy};
use crate::order::Order;
use crate::world::{Setup, World};

const MS: Duration = Duration::from_millis(1);

#[test]
fn a_time_that_the_device_named_is_wished_for_exactly() {
    let mut world = World::new(Setup::default());
    world.advance(5 * MS);
    world.device().script.push_back(Answer::Busy(Busy::RetryAfter(7 * MS)));
    world.submit(0, &[Order::read(1)]);
    world.quiesce();
    assert_eq!(world.nr_asked(), 1, "nobody asks before the time");
    let at = Time::ZERO + 12 * MS;
    assert_eq!(world.asked().all_wishes, [(CtxId(0), at, Wish::DriverRetry)]);
    world.fire_timer();
    assert_eq!((world.now(), world.issued()), (at, vec![1]));
    world.rest();
    assert_eq!(world.done[0].1.issued_at, at);
}

#[test]
fn a_completion_restarts_what_rests_on_it() {
    let mut world = World::new(Setup::default());
    world.device().slots = Some(1);
    world.device().when_full = Busy::Completion;
    world.submit(0, &[Order::read(1), Order::read(2)]);
    world.quiesce();
    let asked = world.nr_asked();
    assert!(asked <= 3, "asked once more, for the completion may have been missed: {asked}");
    world.finish_at(1);
    assert_eq!(world.issued(), [1, 2], "in the turn of the completion");
    assert_eq!(world.asked().nr_kicks, 0);
    world.rest();
}

#[test]
fn a_completion_in_another_hardware_queues_turn_restarts_as_well() {
    let mut world = World::new(Setup { nr_ctx: 2, nr_hctx: 2, ..Setup::default() });
    world.device().slots = Some(1);
    world.device().when_full = Busy::Completion;
    world.submit(0, &[Order::read(1), Order::read(2)]);
    let rq = world.device().finish_apart(0, blkmq_core::Status::Ok);
    world.turn(1, |turn| turn.complete(rq, blkmq_core::Status::Ok));
    assert_eq!(world.asked().nr_kicks, 1);
    world.quiesce();
    assert_eq!(world.issued(), [1, 2]);
    world.rest();
}

#[test]
fn a_completion_that_cannot_come_is_not_waited_for() {
    for times in [1, 3, 40] {
        let mut world = World::new(Setup::default());
        world.device().script.extend(vec![Answer::BusyCompletionAnyway; times]);
        world.submit(0, &[Order::read(1)]);
        assert!(world.nr_asked() <= 8, "a turn asks so often and not oftener");
        world.quiesce();
        assert_eq!(world.issued(), [1], "asked until it was taken");
        assert_eq!(world.nr_asked(), times + 1);
        assert!(world.asked().nr_kicks <= 1 + times as u64 / 8);
        world.finish(1);
        world.quiesce();
        assert_eq!(world.done.len(), 1);
    }
}

#[test]
fn a_kick_that_the_driver_owes_restarts() {
    let mut world = World::new(Setup { nr_ctx: 2, nr_hctx: 2, ..Setup::default() });
    world.device().stuffed = true;
    world.submit(1, &[Order::read(1), Order::read(2)]);
    world.quiesce();
    let asked = world.nr_asked();
    assert!(asked <= 2, "{asked}");
    assert_eq!(world.issued(), []);
    world.device().stuffed = false;
    world.quiesce();
    assert_eq!(world.issued(), [1, 2]);
    assert_eq!(world.asked().all_wishes, []);
    world.rest();
}

#[test]
fn a_kick_that_comes_before_the_request_waits_for_it_is_noticed() {
    let mut world = World::new(Setup::default());
    world.device().script.push_back(Answer::KickThenBusy);
    world.submit(0, &[Order::read(1)]);
    assert_eq!((world.nr_asked(), world.issued()), (2, vec![1]), "in the same turn");
    world.rest();
}

#[test]
fn a_kick_that_comes_too_early_is_noticed_where_a_mark_was_left_before() {
    let mut world = World::new(Setup::default());
    let busy = Answer::Busy(Busy::Kick);
    world.device().script.extend([busy, busy]);
    world.device().stuffed = true;
    world.submit(0, &[Order::read(1)]);
    assert_eq!((world.nr_asked(), world.issued()), (2, vec![]), "it rests, with its mark");
    world.device().stuffed = false;
    world.device().script.push_back(Answer::KickThenBusy);
    world.submit(0, &[Order::read(2)]);
    assert_eq!(world.issued(), [1, 2], "in the same turn");
    world.rest();
}

#[test]
fn a_busy_device_does_not_hand_on_its_restarter_does() {
    let mut world =
        World::new(Setup { nr_ctx: 2, nr_hctx: 2, budget: Some(1), ..Setup::default() });
    world.submit(0, &[Order::read(1)]);
    world.submit(1, &[Order::read(11)]);
    world.device().script.push_back(Answer::Busy(Busy::RetryAfter(MS)));
    // The unit goes to who waits for it, and the other waits in turn.
    world.finish_at(1);
    world.submit(0, &[Order::read(2)]);
    assert_eq!((world.held().budget, world.asked().nr_kicks), (1, 1));
    world.quiesce();
    assert_eq!(world.held().budget, 0);
    assert_eq!(world.asked().nr_kicks, 1, "the device has just said that it takes nothing");
    // The run that the device asked for finds another who has waited longer for the unit.
    world.fire_timer();
    world.quiesce();
    assert_eq!(world.issued(), [1, 2]);
    world.finish_at(2);
    world.quiesce();
    assert_eq!(world.issued(), [1, 2, 11]);
    world.rest();
}
