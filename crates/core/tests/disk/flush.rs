//! The flush machine: what has to be durable before a write and after it.

use blkmq_core::{Config, Flags, Limits, Memory, Op, Status, TenantId};

use crate::bench::{Bench, limits};
use crate::order::Order;

fn bench(limits: Limits) -> Bench {
    let config = Config { volumes: vec![TenantId(0); 2], ..Config::default() };
    Bench::new(limits, config)
}

fn ops(bench: &Bench) -> Vec<Op> {
    bench.disk().taken.iter().map(|one| one.op).collect()
}

#[test]
fn who_comes_while_a_flush_is_in_flight_shares_the_next() {
    let mut bench = bench(limits());
    bench.submit(0, &[Order::flush()]);
    for _ in 0..5 {
        bench.submit(0, &[Order::flush(), Order::flush().volume(1)]);
    }
    let dump = bench.queue.dump(bench.now()).flush;
    assert_eq!((dump.in_flight, dump.covered, dump.waiting, dump.failed), (true, 1, 10, false));
    bench.finish(|_| 0);
    bench.serve_all();
    assert_eq!(bench.done.len(), 1, "the one in flight does not cover who came later");
    bench.finish(|_| 0);
    bench.serve_all();
    assert_eq!((bench.done.len(), ops(&bench)), (11, vec![Op::Flush; 2]));
    bench.rest();
}

#[test]
fn a_preflush_goes_before_the_data_and_fua_is_the_disks_own() {
    let mut bench = bench(limits());
    bench.submit(0, &[Order::write(0, 1)]);
    bench.finish_all();
    bench.submit(0, &[Order::write(1, 1).flags(Flags::PREFLUSH | Flags::FUA)]);
    assert_eq!(ops(&bench), [Op::Write, Op::Flush]);
    bench.finish(|_| 0);
    bench.serve_all();
    assert_eq!(bench.disk().durable[0], 1);
    assert_eq!(ops(&bench), [Op::Write, Op::Flush, Op::Write]);
    assert_eq!(bench.disk().taken[2].flags, Flags::FUA);
    bench.rest();
    assert_eq!(ops(&bench).len(), 3);
}

#[test]
fn fua_is_made_of_a_flush_that_follows_where_the_disk_has_none() {
    for (flags, expected) in [
        (Flags::FUA, vec![Op::Write, Op::Flush]),
        (Flags::PREFLUSH, vec![Op::Flush, Op::Write]),
        (Flags::FUA | Flags::PREFLUSH, vec![Op::Flush, Op::Write, Op::Flush]),
    ] {
        let mut bench = bench(Limits { fua: false, ..limits() });
        bench.submit(0, &[Order::write(5, 2).flags(flags)]);
        bench.rest();
        assert_eq!(ops(&bench), expected, "{flags:?}");
        assert!(bench.disk().taken.iter().all(|one| !one.flags.contains(Flags::FUA)));
        assert_eq!(bench.endings(), [(5, Status::Ok)]);
    }
}

#[test]
fn what_is_written_to_a_disk_without_cache_is_durable() {
    let mut bench = bench(Limits { write_cache: false, fua: false, ..limits() });
    let both = Flags::FUA | Flags::PREFLUSH;
    bench.submit(0, &[Order::flush(), Order::write(5, 2).flags(both)]);
    assert_eq!((bench.done.len(), ops(&bench)), (1, vec![Op::Write]));
    bench.rest();
}

#[test]
fn data_that_fail_are_not_followed_by_a_flush() {
    let mut bench = bench(Limits { fua: false, ..limits() });
    bench.disk().bad.insert(5);
    bench.submit(0, &[Order::write(5, 2).flags(Flags::FUA)]);
    bench.rest();
    assert_eq!((bench.endings(), ops(&bench)), (vec![(5, Status::Medium)], vec![Op::Write]));
}

#[test]
fn after_a_flush_that_failed_nothing_is_written_or_durable_any_more() {
    // One request of ordinary writes may be in the queue at a time, so that others wait.
    let config = Config { nr_requests: 4, ..Config::default() };
    let mut bench = Bench::new(limits(), config);
    bench.disk().flush_status = Status::IoErr;
    bench.submit(0, &[Order::flush()]);
    // These wait for the next flush, and those to get in at all.
    let preflush = Order::write(1, 1).flags(Flags::PREFLUSH);
    bench.submit(0, &[Order::flush(), preflush, Order::read(2, 1)]);
    bench.submit(0, &[Order::write(3, 1), Order::flush(), Order::write(10, 40)]);
    bench.submit(0, &[Order::read(4, 1), Order::new(Op::Discard, 5, 1)]);
    bench.finish_all();
    let status_of = |sector| bench.endings().iter().find(|end| end.0 == sector).unwrap().1;
    assert_eq!(
        [1, 3, 10, 5].map(status_of),
        [Status::IoErr, Status::ReadOnly, Status::ReadOnly, Status::ReadOnly]
    );
    assert_eq!([2, 4].map(status_of), [Status::Ok; 2], "reads go on");
    let flushes = bench.done.iter().filter(|(order, _)| order.op == Op::Flush);
    assert!(flushes.map(|(_, done)| done.status).all(|status| status == Status::IoErr));
    assert!(!ops(&bench).contains(&Op::Write) && bench.queue.dump(bench.now()).flush.failed);
    // It may say what it likes: what was lost is lost.
    bench.submit(0, &[Order::flush(), Order::write(6, 1)]);
    assert_eq!(bench.refused[0].1, Status::ReadOnly);
    bench.rest();
    assert_eq!(bench.done.last().unwrap().1.status, Status::IoErr);
    assert_eq!(ops(&bench).iter().filter(|op| **op == Op::Flush).count(), 1);
}

#[test]
fn a_flush_that_is_late_lets_go_of_all_who_wait_and_counts_as_failed() {
    let mut bench = bench(limits());
    bench.submit(0, &[Order::flush(), Order::flush()]);
    bench.disk().in_flight[0].lost = true;
    bench.submit(0, &[Order::write(1, 1).flags(Flags::PREFLUSH)]);
    while bench.done.is_empty() {
        assert!(bench.fire());
    }
    let memory = bench.done.iter().map(|(_, done)| (done.status, done.memory));
    assert_eq!(memory.collect::<Vec<_>>(), [(Status::Timeout, Memory::Returned); 3]);
    let dump = bench.queue.dump(bench.now());
    assert_eq!((dump.abandoned, dump.requests, dump.flush.failed), (1, 0, true));
    bench.submit(0, &[Order::flush()]);
    assert_eq!(bench.done.last().unwrap().1.status, Status::IoErr);
    bench.disk().flush_status = Status::Ok;
    bench.disk().finish(0);
    bench.serve_all();
    bench.submit(0, &[Order::flush()]);
    assert_eq!(bench.done.last().unwrap().1.status, Status::IoErr);
    assert_eq!(bench.queue.held().in_flight, 0);
}
