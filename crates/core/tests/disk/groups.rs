//! Tenants with limits, alone and in a group.

use std::time::Duration;

use blkmq_core::{Config, Flags, GroupId, Hold, Limits, Rate, Rates, TenantConfig, TenantId, Time};

use crate::bench::{Bench, limits};
use crate::order::Order;

const SECOND: Duration = Duration::from_secs(1);
/// What may come at once after a pause, at 1000 a second: 20 ms' worth.
const BURST: usize = 20;

fn rate(per_second: u64) -> Option<Rate> {
    Some(Rate { per_second, burst: Duration::ZERO })
}

fn iops(per_second: u64) -> Rates {
    Rates { iops: rate(per_second), ..Rates::default() }
}

/// Tenant 0 is on its own, 1 and 2 are in a group; each has a volume of its number.
fn bench(group: Rates, of_tenant_1: Rates) -> Bench {
    let tenant = |limits, group| TenantConfig { limits, group, ..TenantConfig::default() };
    let group_0 = Some(GroupId(0));
    Bench::new(
        Limits { capacity_sectors: 4096, ..limits() },
        Config {
            tenants: vec![
                tenant(Rates::default(), None),
                tenant(of_tenant_1, group_0),
                tenant(Rates::default(), group_0),
            ],
            groups: vec![group],
            volumes: vec![TenantId(0), TenantId(1), TenantId(2)],
            entry_max: 10_000,
            timeout: None,
            ..Config::default()
        },
    )
}

/// How many reads of each tenant's volume are done after so long, of `count` each that all wait
/// from the beginning, in turns.
fn done_after(bench: &mut Bench, count: usize, time: Duration) -> [usize; 3] {
    let of = |nth: usize| {
        let order = Order::read(nth as u64, 1).volume((nth % 3) as u32);
        order.flags(Flags::NOMERGE)
    };
    let orders: Vec<Order> = (0..3 * count).map(of).collect();
    bench.submit(0, &orders);
    bench.finish_all();
    let end = bench.now() + time;
    while bench.env.asked().wishes.iter().any(|(.., at)| *at <= end) {
        assert!(bench.fire());
        bench.finish_all();
    }
    [0, 1, 2].map(|volume| bench.done.iter().filter(|(order, _)| order.volume == volume).count())
}

#[test]
fn a_group_shares_its_limit_and_nobody_else_does() {
    let mut bench = bench(iops(1000), Rates::default());
    let [alone, one, other] = done_after(&mut bench, 1000, SECOND);
    assert_eq!(alone, 1000, "at once");
    assert!((1000..=1000 + BURST + 1).contains(&(one + other)), "{one} and {other}");
    // The members get in by turns.
    assert!(one.abs_diff(other) <= BURST, "{one} and {other}");
}

#[test]
fn the_stricter_of_two_limits_holds_and_the_rest_is_the_others() {
    let mut bench = bench(iops(1000), iops(100));
    let [_, held_down, other] = done_after(&mut bench, 1000, SECOND);
    assert!((100..=103).contains(&held_down), "{held_down}");
    assert!((1000..=1000 + BURST + 1).contains(&(held_down + other)), "{held_down} and {other}");
    // Two limits, and each I/O that waited did so once.
    let figures = bench.queue.figures_of_tenant(TenantId(1));
    let waited = figures.holds[Hold::Limit as usize].count() as usize;
    assert!((held_down - 3..=held_down).contains(&waited), "{waited} of {held_down}");
}

#[test]
fn a_groups_limit_counts_bytes_of_its_own_direction() {
    // A thousand sectors a second, for writes alone.
    let group = Rates { write_bps: rate(512_000), ..Rates::default() };
    let mut bench = bench(group, Rates::default());
    assert_eq!(done_after(&mut bench, 500, Duration::ZERO), [500; 3], "reads are free");
    let write = |nth: u64| Order::write(nth * 16, 10).volume(1 + (nth % 2) as u32);
    let orders: Vec<Order> = (0..200).map(write).collect();
    bench.done.clear();
    bench.submit(0, &orders);
    bench.finish_all();
    let end = Time::ZERO + SECOND;
    while bench.env.asked().wishes.iter().any(|(.., at)| *at <= end) {
        assert!(bench.fire());
        bench.finish_all();
    }
    // A hundred of ten sectors, and what may come at once.
    let done = bench.done.len();
    assert!((100..=100 + BURST / 10 + 2).contains(&done), "{done}");
}

#[test]
fn a_groups_limit_that_is_lifted_lets_all_of_it_go_at_once() {
    let mut bench = bench(iops(10), Rates::default());
    let [_, one, other] = done_after(&mut bench, 50, SECOND);
    assert!((10..=12).contains(&(one + other)), "{one} and {other}");
    bench.queue.set_group_limits(GroupId(0), &Rates::default());
    let now = bench.now();
    bench.finish_all();
    assert_eq!((bench.done.len(), bench.now()), (150, now));
    bench.rest();
}
