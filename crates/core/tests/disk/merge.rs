//! Requests that lie side by side go as one, and end each for itself.

use blkmq_core::{Class, Config, Flags, Limits, Op, Status};

use crate::bench::{Bench, limits};
use crate::order::Order;

fn bench() -> Bench {
    Bench::new(limits(), Config { volumes: vec![blkmq_core::TenantId(0); 2], ..Config::default() })
}

/// What the disk took, as first sector and length.
fn taken(bench: &Bench) -> Vec<(u64, u64)> {
    let taken = &bench.disk().taken;
    taken.iter().map(|one| (one.sectors.start, one.sectors.end - one.sectors.start)).collect()
}

#[test]
fn neighbours_in_one_turn_go_as_one_and_each_ends() {
    for op in [Op::Read, Op::Write, Op::Discard, Op::WriteZeroes] {
        let mut bench = bench();
        bench.submit(0, &[Order::new(op, 4, 2), Order::new(op, 6, 3), Order::new(op, 2, 2)]);
        assert_eq!(taken(&bench), [(2, 7)], "{op:?}");
        bench.rest();
        assert_eq!(bench.done.len(), 3, "{op:?}");
        // The memory of the merged request serves others as if nothing had been.
        bench.submit(0, &[Order::new(op, 4, 2)]);
        bench.rest();
        assert_eq!(bench.done.len(), 4, "{op:?}");
    }
}

#[test]
fn what_waits_in_a_software_queue_is_merged_with_what_comes() {
    let mut bench = Bench::new(limits(), Config { nr_tags: 1, ..Config::default() });
    bench.submit(0, &[Order::write(100, 1)]);
    for sector in [10, 20, 11, 21, 9] {
        bench.submit(0, &[Order::write(sector, 1)]);
    }
    bench.rest();
    assert_eq!(taken(&bench), [(100, 1), (9, 3), (20, 2)]);
    assert_eq!(bench.queue.figures_of_disk().kinds[1].merges, 3);
}

#[test]
fn what_differs_is_not_merged() {
    let write = Order::write(8, 1);
    let class = Order { class: Class::RealTime, ..write.clone() };
    for other in [
        write.clone().volume(1),
        write.clone().flags(Flags::FUA),
        write.clone().flags(Flags::NOMERGE),
        write.clone().flags(Flags::SYNC),
        write.clone().flags(Flags::PREFLUSH),
        class,
        Order::read(8, 1),
        Order::new(Op::WriteZeroes, 8, 1),
        Order::write(9, 1),
    ] {
        let mut bench = bench();
        bench.submit(0, &[Order::write(7, 1), other.clone()]);
        bench.rest();
        let data = bench.disk().taken.iter().filter(|one| one.op != Op::Flush).count();
        assert_eq!((data, bench.done.len()), (2, 2), "{other:?}");
    }
}

#[test]
fn a_merged_request_is_no_longer_than_the_disk_takes() {
    let mut by_length = bench();
    by_length.submit(0, &[Order::write(0, 10), Order::write(10, 6), Order::write(16, 1)]);
    assert_eq!(taken(&by_length), [(0, 16), (16, 1)]);
    by_length.rest();
    let pieces = Limits { max_segments: 4, ..limits() };
    let mut by_memory = Bench::new(pieces, Config::default());
    let cut = |sector| Order::write(sector, 1).cuts(&[256]);
    by_memory.submit(0, &[cut(0), cut(1), cut(2)]);
    assert_eq!(taken(&by_memory), [(0, 2), (2, 1)]);
    by_memory.rest();
    let chunked = Limits { chunk_sectors: 8, ..limits() };
    let mut by_chunk = Bench::new(chunked, Config::default());
    by_chunk.submit(0, &[Order::write(5, 2), Order::write(7, 1), Order::write(8, 1)]);
    assert_eq!(taken(&by_chunk), [(5, 3), (8, 1)]);
    by_chunk.rest();
}

#[test]
fn each_part_of_a_merged_request_that_fails_gets_its_own_answer() {
    for scheduler in [false, true] {
        let deadline = || -> Box<dyn blkmq_core::Scheduler> {
            Box::new(blkmq_core::Deadline::new(blkmq_core::DeadlineConfig::default(), 256))
        };
        let config = Config { scheduler: scheduler.then(deadline), ..Config::default() };
        let mut bench = Bench::new(limits(), config);
        bench.disk().bad.insert(5);
        let orders: Vec<Order> = (2..8).map(|sector| Order::write(sector, 1)).collect();
        bench.submit(0, &orders);
        bench.rest();
        assert_eq!(taken(&bench)[0], (2, 6));
        assert_eq!(bench.disk().taken.len(), 7, "each is tried once more, for itself");
        let failed: Vec<_> = bench.endings().into_iter().filter(|(_, s)| !s.is_ok()).collect();
        assert_eq!(failed, [(5, Status::Medium)]);
        assert_eq!(bench.done.len(), 6);
    }
}
