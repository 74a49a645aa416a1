//! Requests that the disk does not answer in time.

use std::time::Duration;

use blkmq_core::{Config, Memory, Status, Time};

use crate::bench::{Bench, limits};
use crate::disk::WhenLate;
use crate::order::Order;

const SECOND: Duration = Duration::from_secs(1);

fn bench(timeout: Duration) -> Bench {
    let timeout = Some(timeout);
    let config =
        Config { timeout, nr_requests: 4, nr_tags: 4, budget: Some(4), ..Config::default() };
    Bench::new(limits(), config)
}

/// Whether a time is `expected`, as exactly as times in flight are kept.
fn is_about(time: Time, expected: Time) -> bool {
    time >= expected && time.since(expected) <= Duration::from_micros(2)
}

#[test]
fn the_disk_is_asked_once_the_time_is_over_and_not_before() {
    let mut bench = bench(SECOND);
    bench.advance(SECOND / 4);
    bench.submit(0, &[Order::read(0, 1)]);
    bench.advance(SECOND / 4);
    bench.submit(0, &[Order::read(2, 1)]);
    bench.disk().when_late = WhenLate::WaitFor(SECOND);
    while bench.disk().expired.len() < 2 {
        assert!(bench.fire());
    }
    let asked: Vec<Time> = bench.disk().expired.iter().map(|expired| expired.now).collect();
    assert!(is_about(asked[0], Time::ZERO + SECOND + SECOND / 4), "{asked:?}");
    assert!(is_about(asked[1], Time::ZERO + SECOND + SECOND / 2), "{asked:?}");
    let disk = bench.disk();
    let is_late = |rq: &blkmq_core::InFlight| rq.tag() == disk.expired[0].tag;
    let late = disk.in_flight.iter().find(|flying| is_late(&flying.rq));
    let issued_at = late.expect("what is late is in flight").rq.issued_at();
    drop(disk);
    assert_eq!(issued_at, Time::ZERO + SECOND / 4);
    bench.rest();
    assert_eq!(bench.endings(), [(0, Status::Ok), (2, Status::Ok)]);
}

#[test]
fn who_is_waited_for_longer_keeps_nobody_else_from_being_asked_about() {
    let mut bench = bench(SECOND);
    bench.submit(0, &[Order::read(0, 1)]);
    bench.disk().when_late = WhenLate::WaitFor(3600 * SECOND);
    while bench.disk().expired.is_empty() {
        assert!(bench.fire());
    }
    bench.submit(0, &[Order::read(2, 1)]);
    while bench.disk().expired.len() < 2 {
        assert!(bench.fire());
    }
    let asked = bench.disk().expired[1].now;
    assert!(is_about(asked, Time::ZERO + 2 * SECOND), "the second was issued then: {asked:?}");
    bench.rest();
}

#[test]
fn a_shorter_time_holds_for_what_is_issued_from_then_on() {
    let mut bench = bench(30 * SECOND);
    bench.submit(0, &[Order::read(0, 1)]);
    bench.queue.set_timeout(Some(SECOND));
    bench.submit(0, &[Order::read(2, 1)]);
    bench.disk().when_late = WhenLate::WaitFor(100 * SECOND);
    while bench.disk().expired.is_empty() {
        assert!(bench.fire());
    }
    let asked = bench.disk().expired[0].now;
    assert!(is_about(asked, Time::ZERO + SECOND), "{asked:?}");
    bench.rest();
}

#[test]
fn a_disk_of_no_opinion_is_asked_again_after_the_time_that_holds_then() {
    let mut bench = bench(SECOND);
    bench.submit(0, &[Order::read(0, 1)]);
    bench.disk().when_late = WhenLate::WaitAsLongAgain;
    let ask = |bench: &mut Bench, times: usize| {
        while bench.disk().expired.len() < times {
            assert!(bench.fire());
        }
        bench.disk().expired[times - 1].now
    };
    let first = ask(&mut bench, 1);
    assert!(is_about(first, Time::ZERO + SECOND));
    bench.queue.set_timeout(Some(10 * SECOND));
    let second = ask(&mut bench, 2);
    assert!(is_about(second, first + SECOND), "that was the answer");
    let third = ask(&mut bench, 3);
    assert!(is_about(third, second + 10 * SECOND));
    bench.queue.set_timeout(None);
    assert!(is_about(ask(&mut bench, 4), third + 10 * SECOND));
    assert!(!bench.fire(), "it may be in flight for ever");
    bench.rest();
}

#[test]
fn what_has_ended_after_all_ends_as_it_did() {
    let mut bench = bench(SECOND);
    bench.submit(0, &[Order::read(0, 1)]);
    bench.disk().when_late = WhenLate::Finish;
    while bench.disk().expired.is_empty() {
        assert!(bench.fire());
    }
    bench.rest();
    assert_eq!(bench.endings(), [(0, Status::Ok)]);
}

#[test]
fn what_is_given_up_holds_what_it_has_until_it_comes_back() {
    let mut bench = bench(SECOND);
    bench.advance(SECOND);
    // Two of them are merged.
    bench.submit(0, &[Order::write(0, 1), Order::write(1, 1), Order::read(8, 1)]);
    bench.disk().in_flight[0].lost = true;
    bench.finish_all();
    while bench.done.len() < 3 {
        assert!(bench.fire());
    }
    for (order, done) in &bench.done[1..] {
        assert_eq!((done.status, done.memory), (Status::Timeout, Memory::Lent), "{order:?}");
        assert_eq!(done.issued_at, Time::ZERO + SECOND);
    }
    let held = bench.queue.held();
    assert_eq!((held.requests, held.in_flight, held.budget), (2, 1, 1), "in quarantine");
    assert_eq!(bench.queue.dump(bench.now()).abandoned, 1);
    assert_eq!(bench.queue.figures_of_disk().kinds[1].errors, 2);
    bench.queue.freeze();
    bench.serve_all();
    assert!(!bench.queue.is_frozen(), "the disk may still write to it");
    bench.disk().finish(0);
    bench.serve_all();
    assert!(bench.queue.is_frozen());
    bench.queue.unfreeze();
    assert_eq!(bench.late.len(), 2);
    // The memory of those that were given up serves others as if nothing had been.
    bench.submit(0, &[Order::read(100, 100)]);
    bench.rest();
    assert_eq!(bench.endings()[3..], [(100, Status::Ok)]);
}

#[test]
fn nobody_is_asked_about_what_never_is_late() {
    let mut bench = Bench::new(limits(), Config { timeout: None, ..Config::default() });
    bench.submit(0, &[Order::read(0, 1)]);
    assert!(!bench.fire());
    bench.rest();
}
