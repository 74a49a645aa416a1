//! The contract of a scheduler, held by the layer towards a stranger's.

use std::time::Duration;

use blkmq_core::{CtxId, HctxId, Op, Status, Time, Wish};

use crate::fifo::Fifo;
use crate::order::Order;
use crate::world::{Setup, World};

const MS: Duration = Duration::from_millis(1);

fn world(fifo: &Fifo, setup: Setup) -> World {
    World::new(Setup { scheduler: Some(Box::new(fifo.clone())), ..setup })
}

#[test]
fn a_scheduler_that_idles_is_asked_again_at_its_time() {
    let fifo = Fifo::default();
    let at = Time::ZERO + 9 * MS;
    fifo.state().not_before = at;
    let mut world = world(&fifo, Setup::default());
    world.submit(0, &[Order::read(1), Order::read(2)]);
    world.quiesce();
    assert_eq!(world.issued(), []);
    assert_eq!(world.held().in_flight, 0, "a scheduler that idles keeps no tag");
    assert_eq!(world.asked().all_wishes, [(CtxId(0), at, Wish::SchedulerIdle)]);
    assert_eq!(fifo.state().asked, 1, "nobody asks before the time");
    world.fire_timer();
    assert_eq!((world.now(), world.issued()), (at, vec![1, 2]));
    assert_eq!(fifo.state().timers, [at]);
    world.rest();
}

#[test]
fn a_timer_of_another_kind_is_not_the_schedulers() {
    let fifo = Fifo::default();
    let mut world = world(&fifo, Setup::default());
    world.turn(0, |turn| turn.timer(Wish::DriverRetry));
    world.turn(0, |turn| turn.timer(Wish::BudgetRerun));
    assert_eq!(fifo.state().timers, []);
    world.rest();
}

#[test]
fn a_scheduler_that_waits_for_a_completion_gets_its_run() {
    for budget in [None, Some(1), Some(4)] {
        let fifo = Fifo::default();
        fifo.state().in_flight_max = 1;
        let mut world = world(&fifo, Setup { budget, ..Setup::default() });
        world.submit(0, &[Order::read(3), Order::read(1), Order::read(2)]);
        assert_eq!(world.issued(), [3]);
        world.finish_at(3);
        assert_eq!(world.issued(), [3, 1], "in the turn of the completion");
        world.finish_at(1);
        world.rest();
        assert_eq!(world.issued(), [3, 1, 2]);
        assert_eq!(world.asked().all_wishes, [], "no timer was needed");
        assert_eq!(fifo.state().completed, 3);
    }
}

#[test]
fn a_completion_elsewhere_runs_a_scheduler_that_waits_for_it() {
    let fifo = Fifo::default();
    fifo.state().in_flight_max = 1;
    let mut world = world(&fifo, Setup { nr_ctx: 2, nr_hctx: 2, ..Setup::default() });
    world.submit(0, &[Order::read(1), Order::read(2)]);
    let rq = world.device().finish_apart(0, Status::Ok);
    world.turn(1, |turn| turn.complete(rq, Status::Ok));
    world.quiesce();
    assert_eq!(world.issued(), [1, 2]);
    assert_eq!(world.device().issues[1].hctx, HctxId(1), "it rides the ring of its dispatcher");
    world.rest();
}

#[test]
fn while_a_scheduler_idles_its_unit_goes_to_who_has_work_of_his_own() {
    let fifo = Fifo::default();
    let setup = Setup { nr_ctx: 2, nr_hctx: 2, budget: Some(1), ..Setup::default() };
    let mut world = world(&fifo, setup);
    world.submit(0, &[Order::read(1)]);
    fifo.state().not_before = Time::ZERO + 9 * MS;
    world.submit(0, &[Order::read(2)]);
    world.submit(1, &[Order::flush()]);
    assert_eq!(world.issued(), [1], "both wait for the unit");
    world.finish_at(1);
    world.quiesce();
    assert_eq!(world.device().issues.last().unwrap().op, Op::Flush);
    assert_eq!(world.now(), Time::ZERO, "no time had to pass");
    world.rest();
    assert_eq!(world.issued(), [1, 0, 2]);
}

#[test]
fn one_answer_of_the_scheduler_serves_all_who_wait_for_it() {
    let fifo = Fifo::default();
    let setup = Setup { nr_ctx: 4, nr_hctx: 3, budget: Some(1), ..Setup::default() };
    let mut world = world(&fifo, setup);
    world.submit(0, &[Order::read(1)]);
    for ctx in 1..4 {
        world.submit(ctx, &[Order::read(10 * ctx as u64)]);
    }
    fifo.state().not_before = Time::ZERO + 9 * MS;
    let asked = fifo.state().asked;
    world.finish_at(1);
    world.quiesce();
    let asked = fifo.state().asked - asked;
    assert_eq!(asked, 1, "it has said when");
    world.rest();
}

#[test]
fn a_request_that_has_to_go_again_passes_through_the_scheduler_once_more() {
    let fifo = Fifo::default();
    let mut world = world(&fifo, Setup { budget: Some(1), ..Setup::default() });
    world.submit(0, &[Order::read(1), Order::read(2)]);
    world.requeue_anywhere();
    assert_eq!(world.issued(), [1, 1], "before the others");
    world.rest();
    let state = fifo.state();
    assert_eq!((state.inserted, state.requeued, state.completed), (2, 1, 2));
    assert_eq!(state.in_flight, 0);
}

#[test]
fn a_prepared_request_goes_again_as_it_is() {
    let fifo = Fifo::default();
    let mut world = world(&fifo, Setup { budget: Some(1), ..Setup::default() });
    world.device().prepares = true;
    world.submit(0, &[Order::read(1), Order::read(2)]);
    world.requeue_anywhere();
    assert_eq!(world.issued(), [1, 1], "before the others");
    world.rest();
    let state = fifo.state();
    assert_eq!((state.inserted, state.requeued, state.completed), (2, 0, 2));
    assert_eq!(state.in_flight, 0);
}

#[test]
fn what_one_request_was_prepared_for_is_not_the_next_ones() {
    let fifo = Fifo::default();
    let mut world = world(&fifo, Setup { nr_requests: 1, ..Setup::default() });
    world.device().prepares = true;
    world.submit(0, &[Order::read(1)]);
    world.finish_at(1);
    world.device().prepares = false;
    world.submit(0, &[Order::read(2)]);
    world.requeue_anywhere();
    world.rest();
    assert_eq!(fifo.state().requeued, 1, "in the same memory, but not prepared");
}

#[test]
fn without_a_scheduler_a_request_goes_again_before_others() {
    let mut world = World::new(Setup { nr_tags: 1, ..Setup::default() });
    world.submit(0, &[Order::write(1), Order::write(2)]);
    world.requeue_anywhere();
    world.rest();
    assert_eq!(world.issued(), [1, 1, 2]);
}

#[test]
fn a_request_that_the_driver_drops_ends_in_an_error_and_counts() {
    let fifo = Fifo::default();
    let setup = Setup { nr_requests: 2, nr_tags: 1, budget: Some(1), ..Setup::default() };
    let mut world = world(&fifo, setup);
    world.submit(0, &[Order::read(1), Order::read(2)]);
    let lost = world.lose_one();
    assert_eq!(world.queue.defects(), 0);
    drop(lost);
    assert_eq!(world.queue.defects(), 1);
    world.rest();
    assert_eq!(world.endings(), [(1, Status::IoErr), (2, Status::Ok)]);
    assert_eq!(fifo.state().completed, 2, "the scheduler is told of it");
}

#[test]
fn a_request_that_is_dropped_while_it_is_queued_ends_in_an_error() {
    let mut world = World::new(Setup { nr_ctx: 2, nr_hctx: 2, nr_tags: 1, ..Setup::default() });
    world.device().script.push_back(crate::device::Answer::Drop);
    world.submit(1, &[Order::read(1), Order::read(2)]);
    world.rest();
    assert_eq!(world.endings(), [(1, Status::IoErr), (2, Status::Ok)]);
    assert_eq!(world.queue.defects(), 1);
}

#[test]
fn a_request_that_the_scheduler_drops_ends_in_an_error() {
    let fifo = Fifo::default();
    let mut world = world(&fifo, Setup::default());
    fifo.state().drops_next = true;
    world.device().ended.insert((Op::Read, 1), vec![Status::IoErr]);
    world.submit(0, &[Order::read(1), Order::read(2)]);
    world.rest();
    assert_eq!(world.endings(), [(1, Status::IoErr), (2, Status::Ok)]);
    assert_eq!(world.queue.defects(), 1);
    assert_eq!(fifo.state().completed, 1, "what was never dispatched does not complete");
}
