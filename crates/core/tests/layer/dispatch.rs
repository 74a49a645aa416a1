//! The way to the device: batches, bounds, and what goes before what.

use blkmq_core::{BudgetMode, Class, Deadline, DeadlineConfig, Op, Scheduler};

use crate::device::{Answer, Busy};
use crate::order::Order;
use crate::world::{Setup, World};

fn deadline() -> Option<Box<dyn Scheduler>> {
    Some(Box::new(Deadline::new(DeadlineConfig::default(), 64)))
}

fn reads(sectors: &[u64]) -> Vec<Order> {
    sectors.iter().map(|sector| Order::read(*sector)).collect()
}

#[test]
fn a_plug_goes_as_one_batch_with_one_commit() {
    for scheduler in [None, deadline()] {
        let mut world = World::new(Setup { scheduler, ..Setup::default() });
        world.submit(0, &reads(&[1, 2, 3, 4, 5]));
        assert_eq!(world.issued(), [1, 2, 3, 4, 5]);
        assert_eq!(world.device().commits, [5]);
        world.rest();
        assert_eq!(world.device().commits, [5], "there was nothing more to tell");
    }
}

#[test]
fn one_reap_ends_all_that_is_finished() {
    let mut world = World::new(Setup { nr_requests: 300, nr_tags: 300, ..Setup::default() });
    let sectors: Vec<u64> = (0..300).collect();
    world.submit(0, &reads(&sectors));
    assert_eq!(world.finish(300), 300);
    world.turn(0, |turn| turn.reap());
    assert_eq!(world.held().requests, 0, "who sleeps after a reap leaves nothing behind");
    world.rest();
}

#[test]
fn what_is_taken_before_a_busy_answer_is_committed() {
    let mut world = World::new(Setup::default());
    world.device().script.extend([Answer::Take, Answer::Busy(Busy::Completion)]);
    world.device().slots = Some(1);
    world.submit(0, &reads(&[1, 2]));
    assert_eq!(world.device().commits, [1]);
    world.rest();
}

#[test]
fn the_budget_is_used_up_and_never_exceeded() {
    for (mode, scheduler) in [
        (BudgetMode::Handoff, None),
        (BudgetMode::Handoff, deadline()),
        (BudgetMode::Delayed, None),
    ] {
        let setup =
            Setup { nr_ctx: 2, nr_hctx: 2, budget: Some(3), mode, scheduler, ..Setup::default() };
        let mut world = World::new(setup);
        world.submit(0, &reads(&[1, 2, 3, 4, 5]));
        world.submit(1, &reads(&[11, 12, 13, 14, 15]));
        assert_eq!(world.held().budget, 3);
        world.rest();
        assert_eq!(world.device().most_out, 3);
        assert_eq!(world.device().issues.len(), 10);
    }
}

#[test]
fn the_tags_of_each_hardware_queue_are_used_up_and_never_exceeded() {
    let mut world = World::new(Setup { nr_ctx: 2, nr_hctx: 2, nr_tags: 3, ..Setup::default() });
    world.submit(0, &reads(&[1, 2, 3, 4, 5]));
    world.submit(1, &reads(&[11, 12, 13, 14, 15]));
    assert_eq!(world.held().in_flight, 6);
    world.rest();
    assert_eq!(world.device().most_out_of_hctx, 3);
}

#[test]
fn more_budget_than_tags_is_no_reason_to_go_round_in_circles() {
    for scheduler in [None, deadline()] {
        let setup = Setup { nr_tags: 1, budget: Some(2), scheduler, ..Setup::default() };
        let mut world = World::new(setup);
        world.submit(0, &reads(&[1, 2]));
        world.quiesce();
        assert!(world.cpus[0].counters().passes <= 3, "{:?}", world.cpus[0].counters());
        assert_eq!(world.issued(), [1]);
        world.rest();
    }
}

#[test]
fn a_tag_that_comes_back_in_the_turn_that_missed_it_is_used() {
    // The first request gets the only tag, the second misses it, and then the first fails at once.
    let setup = Setup { nr_tags: 1, budget: Some(2), scheduler: deadline(), ..Setup::default() };
    let mut world = World::new(setup);
    world.device().script.push_back(Answer::Fail(blkmq_core::Status::IoErr));
    world.submit(0, &reads(&[1, 2]));
    assert_eq!(world.issued(), [2]);
    world.rest();
}

#[test]
fn a_unit_that_comes_back_goes_to_another_hardware_queue() {
    let setup = Setup { nr_ctx: 2, nr_hctx: 2, budget: Some(1), ..Setup::default() };
    let mut world = World::new(setup);
    world.submit(0, &reads(&[1]));
    world.submit(1, &reads(&[11]));
    world.finish_at(1);
    world.quiesce();
    assert_eq!(world.issued(), [1, 11]);
    assert_eq!(world.asked().nr_kicks, 1, "one unit, one kick");
    world.rest();
}

#[test]
fn a_kick_that_finds_nothing_to_do_is_passed_on() {
    // The first two hardware queues wait for the unit, and the first has its request sent by the
    // time its kick is served: its mark was out of date.
    let setup = Setup { nr_ctx: 4, nr_hctx: 3, budget: Some(1), ..Setup::default() };
    let mut world = World::new(setup);
    world.submit(2, &reads(&[21]));
    world.submit(0, &reads(&[1]));
    world.submit(1, &reads(&[11]));
    world.finish_at(21);
    // The kick is for hardware queue 0. Before it is served, its other thread sends the request.
    assert!(world.asked().kicks.contains(&blkmq_core::CtxId(0)));
    world.turn(3, |turn| turn.run());
    world.device().script.clear();
    world.finish_at(1);
    world.quiesce();
    assert_eq!(world.issued(), [21, 1, 11]);
    world.rest();
}

#[test]
fn a_mark_of_the_scheduler_that_is_out_of_date_does_not_swallow_a_unit() {
    let setup =
        Setup { nr_ctx: 2, nr_hctx: 2, budget: Some(1), scheduler: deadline(), ..Setup::default() };
    let mut world = World::new(setup);
    // The second is held back by the first, and the scheduler waits for the unit.
    world.submit(1, &[Order::read(11).class(Class::RealTime), Order::read(12)]);
    // Its completion has the second sent; nobody needs the mark any more, but it stays.
    world.finish_at(11);
    // A flush passes by the scheduler and waits for the unit, in its own hardware queue.
    world.submit(0, &[Order::flush()]);
    world.finish_at(12);
    world.quiesce();
    assert_eq!(world.device().issues.last().unwrap().op, Op::Flush);
    world.rest();
}

#[test]
fn what_the_device_refused_goes_before_others() {
    let mut world = World::new(Setup { nr_ctx: 2, ..Setup::default() });
    world.device().stuffed = true;
    world.submit(0, &reads(&[1, 2, 3]));
    world.submit(1, &reads(&[11]));
    assert_eq!(world.held().dispatch, 1);
    world.device().stuffed = false;
    world.quiesce();
    let issued = world.issued();
    assert_eq!(issued[0], 1);
    let place = |sector| issued.iter().position(|s| *s == sector);
    assert!(place(2) < place(3), "each submitter's requests keep their order: {issued:?}");
    world.rest();
}

#[test]
fn a_batch_that_bounces_in_the_middle_keeps_its_order() {
    let mut world = World::new(Setup { scheduler: deadline(), ..Setup::default() });
    // Asked once more, for the restarter may have passed by, and busy again.
    let busy = Answer::Busy(Busy::Kick);
    world.device().script.extend([Answer::Take, busy, busy]);
    world.device().stuffed = true;
    world.submit(0, &reads(&[10, 20, 30, 40]));
    assert_eq!((world.issued().as_slice(), world.held().dispatch), ([10].as_slice(), 3));
    assert_eq!(world.held().in_flight, 1, "what bounced has given its tag back");
    // This one would go first if it were for the scheduler to say.
    world.submit(0, &reads(&[15]));
    world.device().stuffed = false;
    world.quiesce();
    assert_eq!(world.issued(), [10, 20, 30, 40, 15]);
    world.rest();
}

#[test]
fn each_submitter_comes_round() {
    let mut world = World::new(Setup { nr_ctx: 3, nr_tags: 1, ..Setup::default() });
    for ctx in 0..3 {
        let first = 100 * ctx as u64;
        world.submit(ctx, &reads(&[first, first + 1, first + 2]));
    }
    world.rest();
    let ctxs: Vec<u64> = world.issued().iter().map(|sector| sector / 100).collect();
    // The first went at once, before the others had come.
    assert_eq!(ctxs, [0, 0, 1, 2, 0, 1, 2, 1, 2]);
}

#[test]
fn a_flush_passes_by_the_scheduler() {
    let setup = Setup { budget: Some(1), scheduler: deadline(), ..Setup::default() };
    let mut world = World::new(setup);
    world.submit(0, &[Order::read(10), Order::read(20), Order::flush()]);
    assert_eq!(world.device().issues[0].op, Op::Flush);
    world.rest();
    assert_eq!(world.done.len(), 3);
}

#[test]
fn what_fails_at_once_gives_back_what_it_held() {
    for scheduler in [None, deadline()] {
        let setup =
            Setup { nr_requests: 2, nr_tags: 1, budget: Some(1), scheduler, ..Setup::default() };
        let mut world = World::new(setup);
        world.device().script.push_back(Answer::Fail(blkmq_core::Status::NoSpc));
        world.submit(0, &reads(&[1, 2, 3]));
        world.rest();
        use blkmq_core::Status::{NoSpc, Ok};
        assert_eq!(world.endings(), [(1, NoSpc), (2, Ok), (3, Ok)]);
    }
}
