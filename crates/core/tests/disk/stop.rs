//! Hardware queues that are stopped, while their number changes.

use blkmq_core::{Change, Config, HctxId, Maps};

use crate::bench::{Bench, limits};
use crate::order::Order;

fn bench(nr_ctx: u16, maps: Maps) -> Bench {
    Bench::new(limits(), Config { nr_ctx, maps, timeout: None, ..Config::default() })
}

/// Changes the number of default hardware queues, while there is nothing on its way.
fn change(bench: &mut Bench, nr: u16) {
    bench.change(Change::NrHwQueues(nr));
    bench.serve_all();
    assert_eq!(bench.queue.maps().default, nr);
}

#[test]
fn one_that_went_comes_back_started() {
    let mut bench = bench(2, Maps::of(2));
    bench.queue.stop_hw_queue(HctxId(1));
    change(&mut bench, 1);
    change(&mut bench, 2);
    bench.submit(1, &[Order::read(0, 1)]);
    assert_eq!(bench.disk().taken.len(), 1);
    assert_eq!(bench.disk().taken[0].hctx, HctxId(1));
    bench.rest();
}

#[test]
fn one_that_stays_is_stopped_until_it_is_started() {
    let mut bench = bench(2, Maps::of(2));
    bench.queue.stop_hw_queue(HctxId(0));
    change(&mut bench, 1);
    change(&mut bench, 2);
    bench.submit(0, &[Order::read(0, 1)]);
    bench.submit(1, &[Order::read(8, 1)]);
    bench.serve_all();
    assert_eq!(bench.disk().taken.len(), 1, "the other thread's alone");
    bench.queue.start_hw_queue(HctxId(0));
    bench.rest();
    assert_eq!(bench.done.len(), 2);
}

#[test]
fn one_of_another_kind_is_stopped_under_its_new_number() {
    let mut bench = bench(3, Maps { default: 3, read: 1, poll: 0 });
    bench.queue.stop_hw_queue(HctxId(3));
    change(&mut bench, 1);
    bench.submit(1, &[Order::read(0, 1)]);
    bench.submit(1, &[Order::write(8, 1)]);
    bench.finish_all();
    assert_eq!(bench.done.len(), 1, "the read waits");
    change_while_one_waits(&mut bench, 2);
    bench.rest();
    assert_eq!(bench.done.len(), 2);
    assert_eq!(bench.disk().taken[1].hctx, HctxId(1));
}

/// A change waits for what is on its way, and that for the hardware queue to be started: number 1
/// is that for reads now.
fn change_while_one_waits(bench: &mut Bench, nr: u16) {
    bench.change(Change::NrHwQueues(nr));
    bench.finish_all();
    assert_eq!(bench.queue.maps().default, 1);
    bench.queue.start_hw_queue(HctxId(1));
    bench.finish_all();
    assert_eq!(bench.queue.maps().default, nr);
    assert!(bench.queue.dump(bench.now()).hardware.iter().all(|hctx| !hctx.is_stopped));
}
