//! Bios that are longer than the disk takes go in pieces, and end as one.

use blkmq_core::{Config, Flags, Limits, Memory, Op, Status};

use crate::bench::{Bench, limits};
use crate::order::Order;

fn lengths(bench: &Bench) -> Vec<u64> {
    bench.disk().taken.iter().map(|one| one.sectors.end - one.sectors.start).collect()
}

#[test]
fn a_long_bio_goes_in_pieces_and_ends_once() {
    for (op, expected) in [
        (Op::Read, vec![16, 16, 8]),
        (Op::Write, vec![16, 16, 8]),
        (Op::Discard, vec![32, 8]),
        (Op::WriteZeroes, vec![32, 8]),
    ] {
        let mut bench = Bench::new(limits(), Config::default());
        bench.submit(0, &[Order::new(op, 3, 40)]);
        bench.rest();
        assert_eq!(lengths(&bench), expected, "{op:?}");
        assert_eq!(bench.endings(), [(3, Status::Ok)]);
    }
}

#[test]
fn a_bio_in_many_pieces_of_memory_is_cut_at_a_sector() {
    let limits = Limits { max_segments: 2, ..limits() };
    let mut bench = Bench::new(limits, Config::default());
    bench.submit(0, &[Order::write(0, 6).cuts(&[700, 324])]);
    bench.rest();
    assert_eq!(lengths(&bench), [2, 2, 2]);
    // Not one sector fits into two pieces of memory.
    bench.submit(0, &[Order::write(0, 1).cuts(&[100])]);
    assert_eq!(bench.refused[0].1, Status::Inval);
}

#[test]
fn no_piece_crosses_a_boundary_of_the_disk() {
    let limits = Limits { chunk_sectors: 8, ..limits() };
    let mut bench = Bench::new(limits, Config::default());
    bench.submit(0, &[Order::write(6, 12)]);
    bench.rest();
    assert_eq!(lengths(&bench), [2, 8, 2]);
}

#[test]
fn more_pieces_than_the_queue_holds_come_in_one_after_the_other() {
    for entry_max in [0, 8] {
        for nr_requests in 1..4 {
            let config = Config { nr_requests, entry_max, ..Config::default() };
            let mut bench = Bench::new(limits(), config);
            bench.submit(0, &[Order::write(0, 160), Order::read(160, 200)]);
            assert_eq!(bench.queue.held().requests, nr_requests);
            bench.rest();
            assert_eq!(bench.done.len(), 2);
            assert_eq!(bench.queue.figures_of_disk().kinds[1].ios, 10, "each piece counts");
        }
    }
}

#[test]
fn the_first_error_of_a_piece_is_that_of_the_whole() {
    let mut bench = Bench::new(limits(), Config { nr_requests: 1, ..Config::default() });
    bench.disk().bad.insert(20);
    bench.submit(0, &[Order::write(0, 64)]);
    bench.rest();
    assert_eq!(bench.endings(), [(0, Status::Medium)]);
    assert_eq!(lengths(&bench), [16; 4], "the others go on their way all the same");
}

#[test]
fn what_would_have_to_be_cut_does_not_go_if_it_must_not_wait() {
    let mut bench = Bench::new(limits(), Config::default());
    bench.submit(0, &[Order::write(0, 17).flags(Flags::NOWAIT)]);
    bench.submit(0, &[Order::write(0, 16).flags(Flags::NOWAIT)]);
    assert_eq!(bench.refused[0].1, Status::Again);
    bench.rest();
    assert_eq!(bench.done.len(), 1);
}

#[test]
fn a_whole_of_which_a_piece_is_late_is_told_of_once_and_once_more() {
    let timeout = Some(std::time::Duration::from_secs(1));
    let mut bench = Bench::new(limits(), Config { timeout, ..Config::default() });
    bench.submit(0, &[Order::read(0, 48)]);
    bench.disk().in_flight[1].lost = true;
    bench.finish_all();
    assert!(bench.done.is_empty(), "a piece is still out");
    while bench.done.is_empty() {
        assert!(bench.fire());
    }
    assert_eq!((bench.done[0].1.status, bench.done[0].1.memory), (Status::Timeout, Memory::Lent));
    assert!(bench.late.is_empty());
    bench.rest();
    assert_eq!(bench.late.len(), 1);
}
