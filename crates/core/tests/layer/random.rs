//! Random queues, random loads and random devices, each run until it rests.
//!
//! What interleaves here are whole turns; the interleavings within a turn are the explorers' part.

use std::time::Duration;

use blkmq_core::{BudgetMode, Class, Deadline, DeadlineConfig, Op, Scheduler, Status};
use proptest::prelude::*;

use crate::device::{Answer, Busy};
use crate::order::Order;
use crate::world::{CAPACITY_SECTORS, Setup, World};

/// Two orders never touch the same piece of the device at the same time.
const PIECE_SECTORS: u64 = 8;

#[derive(Clone, Debug)]
struct Shape {
    nr_ctx: u16,
    nr_hctx: u16,
    nr_requests: u32,
    nr_tags: u32,
    budget: Option<u32>,
    mode: BudgetMode,
    deadline: bool,
    slots: Option<usize>,
    when_full: Busy,
    seed: u64,
}

#[derive(Clone, Debug)]
struct Wanted {
    op: Op,
    nr_sectors: u32,
    class: Class,
    tenant: u32,
}

#[derive(Clone, Debug)]
enum Step {
    Submit(u16, Vec<Wanted>),
    Finish(usize),
    CompleteAnywhere(bool),
    Requeue,
    Prepare(bool),
    Lose,
    Stuff(bool),
    WhenFull(Busy),
    Answer(Answer),
    Serve(usize),
    Advance(u64),
    FireTimer,
}

fn busy() -> impl Strategy<Value = Busy> {
    prop_oneof![
        Just(Busy::Completion),
        Just(Busy::Kick),
        (1..20u64).prop_map(|ms| Busy::RetryAfter(Duration::from_millis(ms))),
    ]
}

fn shape() -> impl Strategy<Value = Shape> {
    let sizes = (1..=4u16, 1..=3u16, 1..=64u32, 1..=32u32);
    let budget = proptest::option::of(1..=8u32);
    let mode = prop_oneof![3 => Just(BudgetMode::Handoff), 1 => Just(BudgetMode::Delayed)];
    let slots = proptest::option::of(1..=8usize);
    let rest = (budget, mode, any::<bool>(), slots, busy(), any::<u64>());
    (sizes, rest).prop_map(|(sizes, (budget, mode, deadline, slots, when_full, seed))| {
        let (nr_ctx, nr_hctx, nr_requests, nr_tags) = sizes;
        Shape {
            nr_ctx,
            nr_hctx,
            nr_requests,
            nr_tags,
            budget,
            mode,
            deadline,
            slots,
            when_full,
            seed,
        }
    })
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let op = prop_oneof![
        4 => Just(Op::Read),
        4 => Just(Op::Write),
        1 => Just(Op::Flush),
        1 => Just(Op::Discard),
        1 => Just(Op::WriteZeroes),
    ];
    let class = prop_oneof![
        1 => Just(Class::RealTime),
        3 => Just(Class::BestEffort),
        1 => Just(Class::Idle),
    ];
    let nr_sectors = 1..=PIECE_SECTORS as u32;
    (op, nr_sectors, class, 0..4u32).prop_map(|(op, nr_sectors, class, tenant)| Wanted {
        op,
        nr_sectors,
        class,
        tenant,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let submit = (any::<u16>(), proptest::collection::vec(wanted(), 1..8));
    let answer = prop_oneof![
        busy().prop_map(Answer::Busy),
        Just(Answer::KickThenBusy),
        Just(Answer::Fail(Status::NoSpc)),
        Just(Answer::Drop),
    ];
    prop_oneof![
        8 => submit.prop_map(|(ctx, orders)| Step::Submit(ctx, orders)),
        4 => (1..6usize).prop_map(Step::Finish),
        2 => any::<bool>().prop_map(Step::CompleteAnywhere),
        2 => Just(Step::Requeue),
        1 => any::<bool>().prop_map(Step::Prepare),
        1 => Just(Step::Lose),
        1 => any::<bool>().prop_map(Step::Stuff),
        1 => busy().prop_map(Step::WhenFull),
        2 => answer.prop_map(Step::Answer),
        8 => (1..6usize).prop_map(Step::Serve),
        1 => (0..6000u64).prop_map(Step::Advance),
        1 => Just(Step::FireTimer),
    ]
}

fn build(shape: &Shape) -> World {
    let scheduler = || -> Box<dyn Scheduler> {
        Box::new(Deadline::new(DeadlineConfig::default(), shape.nr_requests))
    };
    let world = World::new(Setup {
        nr_ctx: shape.nr_ctx,
        nr_hctx: shape.nr_hctx,
        nr_requests: shape.nr_requests,
        nr_tags: shape.nr_tags,
        budget: shape.budget,
        mode: shape.mode,
        scheduler: shape.deadline.then(scheduler),
        seed: shape.seed,
        ..Setup::default()
    });
    world.device().slots = shape.slots;
    world.device().when_full = shape.when_full;
    world
}

/// Finds places on the device that nobody uses at the moment. Where there is none, a flush is
/// ordered.
fn orders(world: &mut World, wanted: &[Wanted]) -> Vec<Order> {
    let mut orders: Vec<Order> = Vec::new();
    for Wanted { op, nr_sectors, class, tenant } in wanted {
        let piece = world.rng().below((CAPACITY_SECTORS / PIECE_SECTORS) as usize) as u64;
        let place = Order::new(*op, piece * PIECE_SECTORS, *nr_sectors);
        let taken = world.is_busy(&place) || orders.iter().any(|o| o.sector == place.sector);
        let order = if *op == Op::Flush || taken { Order::flush() } else { place };
        orders.push(Order { class: *class, tenant: *tenant, ..order });
    }
    orders
}

fn take(world: &mut World, step: &Step) {
    match step {
        Step::Submit(ctx, wanted) => {
            let orders = orders(world, wanted);
            let ctx = usize::from(*ctx) % world.cpus.len();
            world.submit(ctx, &orders);
        }
        Step::Finish(n) => drop(world.finish(*n)),
        Step::CompleteAnywhere(ok) => {
            world.complete_anywhere(if *ok { Status::Ok } else { Status::IoErr });
        }
        Step::Requeue => world.requeue_anywhere(),
        Step::Prepare(prepares) => world.device().prepares = *prepares,
        Step::Lose => drop(world.lose_one()),
        Step::Stuff(stuffed) => world.device().stuffed = *stuffed,
        Step::WhenFull(busy) => world.device().when_full = *busy,
        Step::Answer(answer) => world.device().script.push_back(*answer),
        Step::Serve(n) => {
            for _ in 0..*n {
                world.serve_one();
            }
        }
        Step::Advance(ms) => world.advance(Duration::from_millis(*ms)),
        Step::FireTimer => drop(world.fire_timer()),
    }
}

proptest! {
    /// Whatever the queue, the load and the device: everything ends, once and rightly, and the
    /// layer does not go round in circles.
    #[test]
    fn everything_ends_once(shape in shape(), script in proptest::collection::vec(step(), 1..100)) {
        let mut world = build(&shape);
        for step in &script {
            take(&mut world, step);
        }
        world.device().stuffed = false;
        world.device().script.clear();
        world.rest();
    }
}
