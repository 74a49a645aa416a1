//! Who holds a request that waits: the watchdog's question.

use std::time::Duration;

use blkmq_core::{Config, Restarter, Time};

use crate::bench::{Bench, limits};
use crate::disk::WhenFull;
use crate::order::Order;

const PATIENCE: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(3);

/// A disk that is busy, and a read that waits for it.
fn busy(when_full: WhenFull) -> Bench {
    let mut bench = Bench::new(limits(), Config { timeout: None, ..Config::default() });
    (bench.disk().slots, bench.disk().when_full) = (0, when_full);
    bench.submit(0, &[Order::read(0, 1)]);
    bench.serve_all();
    bench
}

fn is_overdue(bench: &Bench) -> bool {
    bench.queue.overdue(bench.now(), PATIENCE).is_some()
}

fn rests_on(bench: &Bench) -> Option<Restarter> {
    bench.queue.dump(bench.now()).hardware[0].rests_on
}

#[test]
fn a_busy_disk_that_owes_a_kick_is_named_until_it_has_kicked() {
    let mut bench = busy(WhenFull::Kick);
    bench.advance(LONG);
    assert_eq!((rests_on(&bench), is_overdue(&bench)), (Some(Restarter::Kick), false));
    bench.disk().slots = 1;
    let owed = bench.disk().take_owed();
    owed.into_iter().for_each(|hctx| bench.queue.kick(hctx));
    // It has, and nobody has taken a turn for it: that is a defect of whoever runs the turns.
    assert_eq!((rests_on(&bench), is_overdue(&bench)), (None, true));
    bench.serve_all();
    assert_eq!((rests_on(&bench), is_overdue(&bench)), (None, false));
    bench.rest();
}

#[test]
fn a_busy_disk_that_named_a_time_is_named_until_then() {
    let mut bench = busy(WhenFull::RetryAfter(LONG));
    let at = Time::ZERO + LONG;
    bench.advance(2 * PATIENCE);
    assert_eq!((rests_on(&bench), is_overdue(&bench)), (Some(Restarter::RetryAt(at)), false));
    bench.advance(2 * PATIENCE);
    assert!(is_overdue(&bench), "the time has passed, and nobody has taken a turn");
    bench.disk().slots = 1;
    bench.rest();
}

#[test]
fn a_busy_disk_that_has_others_in_work_is_named() {
    let mut bench = Bench::new(limits(), Config { timeout: None, ..Config::default() });
    (bench.disk().slots, bench.disk().when_full) = (1, WhenFull::Completion);
    bench.submit(0, &[Order::read(0, 1), Order::read(8, 1)]);
    bench.serve_all();
    bench.advance(LONG);
    assert_eq!((rests_on(&bench), is_overdue(&bench)), (Some(Restarter::Completion), false));
    bench.rest();
    assert_eq!(rests_on(&bench), None);
}
