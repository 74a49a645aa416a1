//! What mq-deadline merges, and what becomes of it.

use std::time::Duration;

use blkmq_core::{
    Class, Deadline, DeadlineConfig, Dispatch, Limits, Merge, Op, Request, Run, Scheduler, Time,
};

use crate::device::limits;
use crate::order::Order;
use crate::quarry::{Quarry, completion};
use crate::world::CAPACITY_SECTORS;

const MS: Duration = Duration::from_millis(1);
const NR_REQUESTS: u32 = 64;

/// mq-deadline by itself, asked to merge each request before it is inserted, as the layer does.
struct Desk {
    /// What it holds goes before the queue that made it.
    deadline: Deadline,
    quarry: Quarry,
    limits: Limits,
    now: Time,
}

impl Desk {
    fn new(config: DeadlineConfig) -> Self {
        let limits = Limits { max_segments: 64, ..limits(CAPACITY_SECTORS) };
        let deadline = Deadline::new(config, NR_REQUESTS);
        Desk { deadline, quarry: Quarry::new(NR_REQUESTS), limits, now: Time::ZERO }
    }

    /// Answers whether it was merged.
    fn put(&mut self, order: Order) -> bool {
        let request = self.quarry.dig(order, self.now);
        match self.deadline.merge(request, &self.limits) {
            Merge::Merged => true,
            Merge::No(request) => {
                assert_eq!(self.deadline.insert(request, self.now), Run::Yes);
                false
            }
        }
    }

    fn read(&mut self, sector: u64, nr_sectors: u32) -> bool {
        self.put(Order::new(Op::Read, sector, nr_sectors))
    }

    fn next(&mut self) -> Option<Request> {
        match self.deadline.dispatch(self.now) {
            Dispatch::Request(request) => Some(request),
            Dispatch::Empty => None,
            pause => panic!("{pause:?}"),
        }
    }

    /// Sends and ends all of it: sector, length and number of bios of each.
    fn all(&mut self) -> Vec<(u64, u32, usize)> {
        let mut all = Vec::new();
        while let Some(request) = self.next() {
            let _ = self.deadline.complete(&completion(&request), self.now);
            all.push((request.sector, request.nr_sectors, request.nr_bios()));
        }
        assert!(!self.deadline.has_work());
        assert_eq!(self.shown("queued"), "0 0 0");
        all
    }

    fn shown(&self, name: &str) -> String {
        let shown = self.deadline.debug();
        let found = shown.into_iter().find(|(of, _)| *of == name);
        found.unwrap_or_else(|| panic!("{name} is not shown")).1
    }
}

fn desk() -> Desk {
    Desk::new(DeadlineConfig::default())
}

#[test]
fn what_begins_where_another_ends_goes_with_it() {
    let mut desk = desk();
    assert!(!desk.read(10, 4));
    assert!(desk.read(14, 2));
    assert!(desk.read(16, 1), "where it ends now");
    assert!(!desk.read(14, 2), "where it ended before");
    assert_eq!(desk.all(), [(10, 7, 3), (14, 2, 1)]);
}

#[test]
fn what_ends_where_another_begins_goes_with_it() {
    let mut desk = desk();
    assert!(!desk.read(10, 2));
    assert!(!desk.read(20, 2));
    assert!(!desk.read(30, 2));
    assert!(desk.read(18, 2));
    assert!(desk.read(15, 3));
    assert_eq!(desk.all(), [(10, 2, 1), (15, 7, 3), (30, 2, 1)]);
}

#[test]
fn a_front_merge_changes_the_order() {
    let mut desk = desk();
    assert!(!desk.read(20, 2));
    assert!(!desk.read(16, 1));
    assert!(desk.read(14, 6), "before the one that it overlaps with");
    assert_eq!(desk.all(), [(14, 8, 2), (16, 1, 1)]);
}

#[test]
fn a_front_merge_may_lead_behind_the_position() {
    let mut desk = desk();
    desk.read(50, 1);
    assert_eq!(desk.all(), [(50, 1, 1)]);
    desk.read(70, 1);
    desk.read(60, 1);
    assert!(desk.read(45, 15));
    assert_eq!(desk.all(), [(70, 1, 1), (45, 16, 2)]);
}

#[test]
fn what_fills_a_hole_joins_both_sides() {
    let mut desk = desk();
    desk.read(18, 4);
    desk.read(10, 4);
    assert_eq!(desk.shown("read1_fifo_list"), "2");
    assert!(desk.read(14, 4));
    assert_eq!(desk.shown("read1_fifo_list"), "1");
    assert_eq!((desk.shown("inserted"), desk.shown("merged")), ("0 3 0".into(), "0 2 0".into()));
    assert_eq!(desk.all(), [(10, 12, 3)]);
    assert!(!desk.read(22, 1), "nothing of it is found any more");
    assert!(!desk.read(9, 1));
}

#[test]
fn only_what_waits_is_merged_with() {
    let mut desk = desk();
    desk.read(10, 4);
    let sent = desk.next().unwrap();
    assert!(!desk.read(14, 4), "the first is in flight");
    assert_eq!(desk.deadline.requeue(sent, desk.now), Run::Yes);
    assert_eq!(
        (desk.shown("dispatch"), desk.shown("owned_by_driver")),
        ("1".into(), "0 0 0".into())
    );
    assert!(!desk.read(14, 1), "the first waits to go again");
    assert!(!desk.read(9, 1));
    assert_eq!(desk.all(), [(10, 4, 1), (14, 4, 1), (14, 1, 1), (9, 1, 1)]);
}

#[test]
fn only_the_same_kind_is_merged() {
    let one = Order::new(Op::Write, 10, 2);
    for other in [
        Order { op: Op::Read, ..one },
        Order { op: Op::Discard, ..one },
        Order { class: Class::Idle, ..one },
        Order { tenant: 1, ..one },
    ] {
        for sector in [8, 12] {
            let mut desk = desk();
            assert!(!desk.put(one));
            assert!(!desk.put(Order { sector, ..other }), "{other:?} at {sector}");
        }
    }
}

#[test]
fn others_in_the_same_place_do_not_hide_the_right_one() {
    for at in [8, 14] {
        let mut desk = desk();
        desk.read(10, 4);
        for tenant in 1..4 {
            desk.put(Order { tenant, ..Order::new(Op::Read, 10, 4) });
        }
        assert!(desk.read(at, if at == 8 { 2 } else { 1 }));
    }
    let mut desk = desk();
    desk.read(10, 4);
    desk.put(Order::new(Op::Write, 10, 4));
    assert!(desk.read(14, 1));
}

#[test]
fn nothing_grows_beyond_what_the_device_takes() {
    let wide = || desk().limits;
    for (limits, fits) in [
        (Limits { max_sectors: 8, ..wide() }, true),
        (Limits { max_sectors: 7, ..wide() }, false),
        (Limits { max_segments: 4, ..wide() }, true),
        (Limits { max_segments: 3, ..wide() }, false),
        (Limits { chunk_sectors: 14, ..wide() }, true),
        (Limits { chunk_sectors: 12, ..wide() }, false),
    ] {
        for sectors in [[6, 10], [10, 6]] {
            let mut desk = Desk { limits, ..desk() };
            desk.read(sectors[0], 4);
            assert_eq!(desk.read(sectors[1], 4), fits, "{limits:?} {sectors:?}");
        }
    }
}

#[test]
fn who_joins_both_sides_keeps_to_the_limits() {
    let mut desk = desk();
    desk.limits.max_sectors = 11;
    desk.read(10, 4);
    desk.read(18, 4);
    assert!(desk.read(14, 4));
    assert_eq!(desk.all(), [(10, 8, 2), (18, 4, 1)]);
}

#[test]
fn without_front_merges_only_the_back_is_merged_with() {
    let mut desk = desk();
    desk.deadline.set("front_merges", "0").unwrap();
    desk.read(10, 4);
    assert!(!desk.read(8, 2));
    assert!(desk.read(14, 2));
    desk.deadline.set("front_merges", "1").unwrap();
    assert!(desk.read(6, 2));
    assert_eq!(desk.all(), [(6, 4, 2), (10, 6, 2)]);
}

/// The first of two expires at 10 ms, the second at 11 ms, and by position the second is next.
#[test]
fn a_merged_request_is_as_old_as_its_oldest_part() {
    let config = DeadlineConfig { fifo_batch: 1, read_expire: 10 * MS, ..Default::default() };
    for (now, expected) in [(9, [1, 10]), (10, [10, 1])] {
        let mut desk = Desk::new(config);
        // The first dispatch is of the running batch, whatever has expired.
        desk.read(0, 1);
        let _ = desk.all();
        desk.read(18, 4);
        desk.now = Time::ZERO + MS;
        desk.read(1, 1);
        desk.now = Time::ZERO + 5 * MS;
        desk.read(10, 4);
        assert!(desk.read(14, 4));
        desk.now = Time::ZERO + now * MS;
        let sectors: Vec<u64> = desk.all().into_iter().map(|(sector, ..)| sector).collect();
        assert_eq!(sectors, expected, "after {now} ms");
    }
}

#[test]
fn a_younger_part_makes_nothing_younger() {
    let config = DeadlineConfig { fifo_batch: 1, read_expire: 10 * MS, ..Default::default() };
    for front in [false, true] {
        let mut desk = Desk::new(config);
        desk.read(0, 1);
        let _ = desk.all();
        desk.read(20, 4);
        desk.now = Time::ZERO + 5 * MS;
        desk.read(1, 1);
        assert!(if front { desk.read(19, 1) } else { desk.read(24, 1) });
        desk.now = Time::ZERO + 10 * MS;
        assert_eq!(desk.next().unwrap().nr_sectors, 5);
        desk.deadline.set("read_expire", "1000").unwrap();
        assert_eq!(desk.next().unwrap().sector, 1);
    }
}

#[test]
fn it_shows_what_it_holds() {
    let mut desk = desk();
    desk.read(40, 1);
    desk.read(30, 1);
    desk.put(Order::write(7));
    desk.put(Order::write(9).class(Class::Idle));
    assert_eq!(desk.next().unwrap().sector, 30);
    for (name, value) in [
        ("read0_fifo_list", "0"),
        ("read0_next_rq", "none"),
        ("read1_fifo_list", "1"),
        ("read1_next_rq", "40"),
        ("write1_fifo_list", "1"),
        ("write1_next_rq", "7"),
        ("write2_fifo_list", "1"),
        ("batching", "1"),
        ("starved", "0"),
        ("async_depth", "48"),
        ("dispatch", "0"),
        ("owned_by_driver", "0 1 0"),
        ("queued", "0 3 1"),
        ("inserted", "0 3 1"),
        ("merged", "0 0 0"),
        ("dispatched", "0 1 0"),
        ("completed", "0 0 0"),
    ] {
        assert_eq!(desk.shown(name), value, "{name}");
    }
}

#[test]
fn async_requests_are_held_down_to_a_depth() {
    for (nr_requests, depth) in [(1, 1), (2, 1), (4, 3), (64, 48), (u32::MAX, 3_221_225_471)] {
        let small = Deadline::new(DeadlineConfig::default(), 4);
        assert_eq!(small.async_depth(nr_requests), Some(depth), "of {nr_requests}");
    }
    let mut desk = desk();
    for wrong in ["0", "65", "-1", "many"] {
        let error = desk.deadline.set("async_depth", wrong).unwrap_err();
        assert!(error.to_string().contains("1 to nr_requests"), "{error}");
        assert_eq!(desk.deadline.async_depth(64), Some(48));
    }
    for right in ["1", "17", "64"] {
        desk.deadline.set("async_depth", right).unwrap();
        assert_eq!(desk.deadline.async_depth(64), right.parse().ok());
    }
    assert_eq!(desk.deadline.async_depth(8), Some(8), "never more than there are");
}
