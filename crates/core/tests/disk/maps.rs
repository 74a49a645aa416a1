//! Hardware queues for reads and for what is polled for, beside those for everything.

use blkmq_core::{Config, Deadline, DeadlineConfig, Flags, HctxId, Maps, Op, Scheduler};

use crate::bench::{Bench, limits};
use crate::order::Order;

const NR_CTX: u16 = 4;

fn bench(maps: Maps, scheduler: Option<Box<dyn Scheduler>>) -> Bench {
    let config = Config { nr_ctx: NR_CTX, maps, scheduler, timeout: None, ..Config::default() };
    Bench::new(limits(), config)
}

/// By which hardware queue an order of a submitter's goes to the disk.
fn way(bench: &mut Bench, ctx: usize, order: Order) -> u16 {
    let before = bench.disk().taken.len();
    bench.submit(ctx, &[order]);
    let taken: Vec<HctxId> = bench.disk().taken[before..].iter().map(|one| one.hctx).collect();
    assert_eq!(taken.len(), 1);
    bench.rest();
    taken[0].0
}

fn ways(bench: &mut Bench, ctx: usize) -> [u16; 7] {
    let polled = Flags::POLLED;
    [
        Order::write(0, 1),
        Order::read(0, 1),
        Order::read(0, 1).flags(polled),
        Order::write(0, 1).flags(polled),
        Order::new(Op::Discard, 0, 1),
        Order::new(Op::WriteZeroes, 0, 1),
        Order::flush(),
    ]
    .map(|order| way(bench, ctx, order))
}

#[test]
fn each_kind_goes_by_its_own_and_submitters_share_them_in_turns() {
    let mut bench = bench(Maps { default: 2, read: 3, poll: 1 }, None);
    assert_eq!(ways(&mut bench, 0), [0, 2, 5, 5, 0, 0, 0]);
    assert_eq!(ways(&mut bench, 1), [1, 3, 5, 5, 1, 1, 1]);
    assert_eq!(ways(&mut bench, 2), [0, 4, 5, 5, 0, 0, 0]);
    assert_eq!(ways(&mut bench, 3), [1, 2, 5, 5, 1, 1, 1]);
}

#[test]
fn a_kind_without_queues_goes_by_the_default_ones() {
    let mut none = bench(Maps::of(3), None);
    assert_eq!(ways(&mut none, 2), [2; 7]);
    let mut no_poll = bench(Maps { default: 1, read: 2, poll: 0 }, None);
    // A read that is polled for is no ordinary read.
    assert_eq!(ways(&mut no_poll, 1), [0, 2, 0, 0, 0, 0, 0]);
    let mut no_read = bench(Maps { default: 1, read: 0, poll: 2 }, None);
    assert_eq!(ways(&mut no_read, 1), [0, 0, 2, 2, 0, 0, 0]);
}

#[test]
fn what_a_scheduler_sends_goes_by_the_default_ones() {
    let deadline = Box::new(Deadline::new(DeadlineConfig::default(), 256));
    let mut bench = bench(Maps { default: 2, read: 2, poll: 1 }, Some(deadline));
    assert_eq!(ways(&mut bench, 1)[..6], [1; 6]);
}

#[test]
fn kinds_do_not_take_each_others_tags() {
    let maps = Maps { default: 1, read: 1, poll: 0 };
    let config = Config { maps, nr_tags: 1, timeout: None, ..Config::default() };
    let mut bench = Bench::new(limits(), config);
    bench.submit(0, &[Order::write(0, 1), Order::write(8, 1)]);
    bench.submit(0, &[Order::read(16, 1), Order::read(24, 1)]);
    let out: Vec<Op> = bench.disk().in_flight.iter().map(|flying| flying.rq.op()).collect();
    assert_eq!(out, [Op::Write, Op::Read], "one of each");
    bench.rest();
}
