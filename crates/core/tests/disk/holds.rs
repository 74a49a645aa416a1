//! What held up a request, and for how long: each reason is counted once, and together they are
//! the time that the request took.

use std::time::Duration;

use blkmq_core::{
    Config, Deadline, DeadlineConfig, Figures, Hold, Rate, Rates, TenantConfig, VolumeId,
};

use crate::bench::{Bench, limits};
use crate::disk::WhenFull;
use crate::order::Order;

const MS: Duration = Duration::from_millis(1);

fn config() -> Config {
    Config { nr_requests: 8, nr_tags: 8, timeout: None, ..Config::default() }
}

fn figures(bench: &Bench) -> Figures {
    bench.queue.figures(VolumeId(0))
}

/// How many were held up by a reason, and the longest time.
fn held(bench: &Bench, why: Hold) -> (u64, u64) {
    let times = &figures(bench).holds[why as usize];
    (times.count(), times.percentile_ns(100.0))
}

/// Whether a time of a histogram is `expected`: it is the longest of its bucket.
fn is_about(ns: u64, expected: Duration) -> bool {
    let expected = expected.as_nanos() as u64;
    (expected..=expected + expected / 7).contains(&ns)
}

/// One was held up by `why` for `time`, and none by anything else but the device's own work.
fn expect_only(bench: &Bench, why: Hold, time: Duration) {
    for other in Hold::ALL {
        let (count, longest_ns) = held(bench, other);
        if other == why {
            assert_eq!(count, 1, "{other:?}");
            assert!(is_about(longest_ns, time), "{other:?}: {longest_ns} ns, not {time:?}");
        } else if other != Hold::Device {
            assert_eq!(count, 0, "{other:?}");
        }
    }
}

/// Two reads, of which the first is finished after `time`, and the other then at once.
fn one_after_the_other(bench: &mut Bench, time: Duration) {
    bench.submit(0, &[Order::read(0, 1), Order::read(8, 1)]);
    bench.serve_all();
    assert_eq!(bench.disk().in_flight.len(), 1, "the second waits");
    bench.advance(time);
    bench.rest();
}

#[test]
fn a_short_tag_holds_up() {
    let mut bench = Bench::new(limits(), Config { nr_tags: 1, ..config() });
    one_after_the_other(&mut bench, 3 * MS);
    expect_only(&bench, Hold::Tag, 3 * MS);
}

#[test]
fn a_short_budget_holds_up() {
    let mut bench = Bench::new(limits(), Config { budget: Some(1), ..config() });
    one_after_the_other(&mut bench, 4 * MS);
    expect_only(&bench, Hold::Budget, 4 * MS);
}

#[test]
fn a_short_tag_holds_up_what_a_scheduler_has() {
    let scheduler = Some(Box::new(Deadline::new(DeadlineConfig::default(), 8)) as _);
    let mut bench = Bench::new(limits(), Config { nr_tags: 1, scheduler, ..config() });
    one_after_the_other(&mut bench, 5 * MS);
    expect_only(&bench, Hold::Tag, 5 * MS);
}

#[test]
fn a_queue_that_is_full_holds_up_at_the_door() {
    let mut bench = Bench::new(limits(), Config { nr_requests: 1, ..config() });
    one_after_the_other(&mut bench, 6 * MS);
    expect_only(&bench, Hold::Admission, 6 * MS);
}

#[test]
fn a_limit_holds_up() {
    let mut bench = Bench::new(limits(), Config { tenants: vec![limited()], ..config() });
    bench.submit(0, &[Order::read(0, 1), Order::read(8, 1)]);
    bench.rest();
    // The first uses up 100 ms, of which 20 may be in advance.
    expect_only(&bench, Hold::Limit, 80 * MS);
}

/// Ten a second.
fn limited() -> TenantConfig {
    let iops = Some(Rate { per_second: 10, burst: Duration::ZERO });
    TenantConfig { limits: Rates { iops, ..Rates::default() }, ..TenantConfig::default() }
}

#[test]
fn a_scheduler_that_cannot_send_holds_up() {
    let scheduler = Some(Box::new(Deadline::new(DeadlineConfig::default(), 8)) as _);
    let mut bench = Bench::new(limits(), Config { scheduler, ..config() });
    bench.queue.quiesce();
    bench.submit(0, &[Order::read(0, 1)]);
    bench.serve_all();
    bench.advance(7 * MS);
    bench.queue.unquiesce();
    bench.rest();
    expect_only(&bench, Hold::Scheduler, 7 * MS);
}

#[test]
fn a_busy_device_holds_up_and_its_own_work_counts() {
    let mut bench = Bench::new(limits(), config());
    (bench.disk().slots, bench.disk().when_full) = (1, WhenFull::Completion);
    one_after_the_other(&mut bench, 9 * MS);
    // The first was worked on for so long, the second was refused for so long, and its own work
    // took no time.
    let (count, longest_ns) = held(&bench, Hold::Device);
    assert_eq!(count, 3);
    assert!(is_about(longest_ns, 9 * MS), "{longest_ns}");
    for other in Hold::ALL.into_iter().filter(|other| *other != Hold::Device) {
        assert_eq!(held(&bench, other).0, 0, "{other:?}");
    }
}

/// A request that meets one reason after the other: each is counted with its own time, and they
/// are all of the time that it took.
#[test]
fn reasons_follow_each_other() {
    let tenants = vec![limited()];
    let shape = Config { tenants, nr_requests: 2, nr_tags: 2, budget: Some(1), ..config() };
    let mut bench = Bench::new(limits(), shape);
    // The limit lets the second come in at 80 ms, and the third at 180 ms.
    bench.submit(0, &[Order::read(0, 1), Order::read(8, 1), Order::read(16, 1)]);
    assert!(bench.fire());
    bench.serve_all();
    assert!(bench.fire());
    bench.serve_all();
    assert_eq!(bench.disk().in_flight.len(), 1);
    // Two hold all there is; the third waits at the door for 20 ms, and then 30 ms for the budget.
    bench.advance(20 * MS);
    assert!(bench.finish(|_| 0));
    bench.serve_all();
    bench.advance(30 * MS);
    assert!(bench.finish(|_| 0));
    bench.serve_all();
    bench.advance(40 * MS);
    bench.rest();
    let sum = |why: Hold| figures(&bench).holds[why as usize].clone();
    assert!(is_about(sum(Hold::Limit).percentile_ns(50.0), 80 * MS));
    assert!(is_about(sum(Hold::Limit).percentile_ns(100.0), 180 * MS));
    assert_eq!(held(&bench, Hold::Limit).0, 2);
    let (count, longest_ns) = held(&bench, Hold::Admission);
    assert!(count == 1 && is_about(longest_ns, 20 * MS), "{count}, {longest_ns} ns");
    // The second waited from its entry at 80 ms until 200 ms.
    assert!(is_about(sum(Hold::Budget).percentile_ns(50.0), 30 * MS));
    assert!(is_about(sum(Hold::Budget).percentile_ns(100.0), 120 * MS));
    assert_eq!(held(&bench, Hold::Budget).0, 2);
    assert_eq!(held(&bench, Hold::Tag).0 + held(&bench, Hold::Scheduler).0, 0);
    // 200 ms for the first, 230 ms for the second, 270 ms for the third.
    let times = figures(&bench).kinds[0];
    assert_eq!((times.ios, times.time_ns), (3, (700 * MS).as_nanos() as u64));
    assert!(is_about(sum(Hold::Device).percentile_ns(100.0), 200 * MS));
}
