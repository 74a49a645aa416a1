//! Races, made to happen: one thread's turn falls into the middle of another's.
//!
//! The layer calls out at two places that matter, to the driver and to the scheduler. What another
//! thread does just then is done here by a turn within the turn.

use std::time::Duration;

use blkmq_core::{BudgetMode, CtxId, HctxId, Op, Status, Time, Wish};

use crate::device::{Answer, Busy, Meanwhile, Ring};
use crate::fifo::Fifo;
use crate::order::{Order, Placed};
use crate::world::{Setup, World};

const MS: Duration = Duration::from_millis(1);
/// The cookie of what is submitted meanwhile.
const COOKIE: u64 = 1 << 40;

/// Has submitter `ctx` order something in a turn of its own, when the answer is called.
fn submission(world: &mut World, ctx: usize, order: Order) -> Meanwhile {
    let mut placed = Placed::new(ctx, order, COOKIE);
    let bio = placed.bio(COOKIE);
    world.placed.insert(COOKIE, placed);
    world.events += 1;
    in_a_turn(world, ctx, move |turn| turn.submit(bio).expect("there is room"))
}

fn in_a_turn(
    world: &World,
    ctx: usize,
    work: impl FnOnce(&mut blkmq_core::Turn<'_, crate::device::Device, crate::env::Env>)
    + Send
    + 'static,
) -> Meanwhile {
    let queue = std::sync::Arc::clone(&world.queue);
    let now = world.now();
    Box::new(move || {
        let mut cpu = queue.cpu(CtxId(ctx as u16), Ring { id: ctx });
        let mut turn = queue.turn(&mut cpu, now);
        work(&mut turn);
        drop(turn);
        assert!(!cpu.has_done(), "what ends here has to be another's");
    })
}

/// The founding race. One thread holds the only unit and is told by the scheduler to wait;
/// meanwhile another, with a request that only it can send, fails to get the unit and leaves.
fn founding_race(mode: BudgetMode) -> World {
    let fifo = Fifo::default();
    let scheduler = Some(Box::new(fifo.clone()) as Box<dyn blkmq_core::Scheduler>);
    let setup =
        Setup { nr_ctx: 2, nr_hctx: 2, budget: Some(1), mode, scheduler, ..Setup::default() };
    let mut world = World::new(setup);
    fifo.state().not_before = Time::ZERO + 9 * MS;
    fifo.state().meanwhile = Some(submission(&mut world, 1, Order::flush()));
    world.submit(0, &[Order::read(1)]);
    world.quiesce();
    world
}

#[test]
fn the_founding_race_is_lost_without_a_cure() {
    let world = founding_race(BudgetMode::None);
    assert_eq!((world.held().dispatch, world.held().budget), (1, 0), "stranded, and nobody comes");
    assert!(world.asked().wishes.iter().all(|wish| wish.1 == Wish::SchedulerIdle));
}

#[test]
fn the_founding_race_is_won_by_the_hand_off() {
    let mut world = founding_race(BudgetMode::Handoff);
    assert_eq!(world.device().issues[0].op, Op::Flush);
    assert_eq!(world.now(), Time::ZERO);
    world.rest();
}

#[test]
fn the_founding_race_is_won_by_the_delay() {
    let mut world = founding_race(BudgetMode::Delayed);
    assert_eq!(world.issued(), []);
    while world.issued().is_empty() {
        assert!(world.fire_timer());
        world.quiesce();
    }
    assert_eq!(world.device().issues[0].op, Op::Flush);
    assert_eq!(world.now(), Time::ZERO + blkmq_core::BUDGET_DELAY);
    world.rest();
}

#[test]
fn who_holds_the_scheduler_works_for_who_finds_it_held() {
    let fifo = Fifo::default();
    let scheduler = Some(Box::new(fifo.clone()) as Box<dyn blkmq_core::Scheduler>);
    let mut world = World::new(Setup { nr_ctx: 2, nr_hctx: 2, scheduler, ..Setup::default() });
    fifo.state().meanwhile = Some(submission(&mut world, 1, Order::read(2)));
    world.submit(0, &[Order::read(1)]);
    assert_eq!(world.issued(), [1, 2], "both in the holder's turn");
    assert_eq!(world.device().issues[1].hctx, HctxId(0));
    world.rest();
}

#[test]
fn a_holder_whose_device_is_busy_has_another_look() {
    let fifo = Fifo::default();
    let scheduler = Some(Box::new(fifo.clone()) as Box<dyn blkmq_core::Scheduler>);
    let setup = Setup { nr_ctx: 2, nr_hctx: 2, nr_tags: 1, scheduler, ..Setup::default() };
    let mut world = World::new(setup);
    fifo.state().meanwhile = Some(submission(&mut world, 1, Order::read(3)));
    world.submit(0, &[Order::read(1), Order::read(2)]);
    world.quiesce();
    assert_eq!(world.issued(), [1, 2], "the other hardware queue has a tag");
    world.rest();
}

#[test]
fn a_timer_that_finds_the_scheduler_held_is_told_it_all_the_same() {
    let fifo = Fifo::default();
    let scheduler = Some(Box::new(fifo.clone()) as Box<dyn blkmq_core::Scheduler>);
    let mut world = World::new(Setup { nr_ctx: 2, nr_hctx: 2, scheduler, ..Setup::default() });
    let timer = in_a_turn(&world, 1, |turn| turn.timer(Wish::SchedulerIdle));
    fifo.state().meanwhile = Some(timer);
    world.submit(0, &[Order::read(1)]);
    world.quiesce();
    assert_eq!(fifo.state().timers.len(), 1, "the time it named has come");
    world.rest();
}

#[test]
fn a_completion_that_passes_by_before_the_request_rests_is_noticed() {
    for marked_before in [false, true] {
        let mut world = World::new(Setup { nr_ctx: 3, ..Setup::default() });
        world.device().slots = Some(1);
        world.device().when_full = Busy::Completion;
        world.submit(1, &[Order::read(1)]);
        if marked_before {
            world.submit(0, &[Order::read(2)]);
        }
        // The device says that a completion will do it, and it does, but too early.
        let rq = world.device().finish_apart(0, Status::Ok);
        let completion = in_a_turn(&world, 2, move |turn| turn.complete(rq, Status::Ok));
        world.device().meanwhile = Some(completion);
        world.device().script.push_back(Answer::BusyCompletionAnyway);
        world.submit(0, &[Order::read(3)]);
        assert_eq!(world.issued().len(), 2, "asked again in the same turn");
        world.rest();
    }
}

#[test]
fn a_tag_that_comes_back_while_another_fails_to_get_it_is_not_lost() {
    let mut world = World::new(Setup { nr_ctx: 2, nr_tags: 1, ..Setup::default() });
    // The holder of the only tag is in the driver while another comes and goes; then it fails.
    world.device().meanwhile = Some(submission(&mut world, 1, Order::read(2)));
    world.device().script.push_back(Answer::Fail(Status::IoErr));
    world.submit(0, &[Order::read(1)]);
    world.quiesce();
    assert_eq!(world.issued(), [2]);
    world.rest();
}
