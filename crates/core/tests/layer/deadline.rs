//! mq-deadline over a device that takes one request at a time.

use std::time::Duration;

use blkmq_core::{
    AttributeError, Class, CtxId, Deadline, DeadlineConfig, Op, Scheduler, Status, Time, Wish,
};

use crate::order::Order;
use crate::world::{Setup, World};

const MS: Duration = Duration::from_millis(1);
const DEFAULT: DeadlineConfig = DeadlineConfig {
    read_expire: Duration::from_millis(500),
    write_expire: Duration::from_secs(5),
    writes_starved: 2,
    fifo_batch: 16,
    front_merges: true,
    async_depth: None,
    prio_aging_expire: Duration::from_secs(10),
};

/// A device with one slot: each request is chosen when the one before has ended.
fn world(config: DeadlineConfig) -> World {
    let scheduler = Some(Box::new(Deadline::new(config, 64)) as Box<dyn Scheduler>);
    World::new(Setup { budget: Some(1), scheduler, ..Setup::default() })
}

fn submit(world: &mut World, op: Op, sectors: &[u64]) {
    let orders: Vec<Order> = sectors.iter().map(|s| Order::new(op, *s, 1)).collect();
    world.submit(0, &orders);
}

fn one_turn(world: &mut World, reads: &[u64], writes: &[u64]) {
    let reads = reads.iter().map(|sector| Order::read(*sector));
    let writes = writes.iter().map(|sector| Order::write(*sector));
    world.submit(0, &reads.chain(writes).collect::<Vec<_>>());
}

#[test]
fn the_defaults_are_those_of_linux() {
    assert_eq!(DeadlineConfig::default(), DEFAULT);
}

#[test]
fn requests_go_in_the_order_of_their_sectors() {
    let mut world = world(DEFAULT);
    submit(&mut world, Op::Read, &[50, 10, 30, 20]);
    world.rest();
    assert_eq!(world.issued(), [10, 20, 30, 50]);
}

#[test]
fn after_the_last_sector_the_oldest_goes_next() {
    let mut world = world(DEFAULT);
    submit(&mut world, Op::Read, &[30]);
    submit(&mut world, Op::Read, &[20, 5, 60]);
    world.rest();
    assert_eq!(world.issued(), [30, 60, 20, 5]);
}

#[test]
fn equal_sectors_go_in_the_order_of_their_coming() {
    let mut world = world(DEFAULT);
    let orders: Vec<Order> = [2, 1, 3].map(|n| Order::new(Op::Read, 7, n)).to_vec();
    world.submit(0, &orders);
    world.rest();
    let lengths: Vec<u32> = world.done.iter().map(|(order, _)| order.nr_sectors).collect();
    // After the first the position is behind them both.
    assert_eq!(lengths, [2, 1, 3]);
}

#[test]
fn a_batch_is_so_long_and_reads_go_before_writes_so_often() {
    let config = DeadlineConfig { fifo_batch: 2, writes_starved: 2, ..DEFAULT };
    let mut world = world(config);
    one_turn(&mut world, &[1, 2, 3, 4, 5, 6, 7, 8], &[101, 102, 103, 104]);
    world.rest();
    // The first two are no choice: it begins as if a batch of reads were running.
    assert_eq!(world.issued(), [1, 2, 3, 4, 5, 6, 101, 102, 7, 8, 103, 104]);
}

#[test]
fn with_no_patience_for_reads_writes_go_first() {
    let config = DeadlineConfig { fifo_batch: 1, writes_starved: 0, ..DEFAULT };
    let mut world = world(config);
    one_turn(&mut world, &[1, 2], &[101, 102]);
    world.rest();
    // The first is no choice: it begins as if a batch of reads were running.
    assert_eq!(world.issued(), [1, 101, 102, 2]);
}

#[test]
fn writes_are_passed_over_as_often_as_is_said() {
    for (writes_starved, expected) in
        [(0, "RWWWRRRRR"), (1, "RRWRWRWRR"), (2, "RRRWRRWRW"), (3, "RRRRWRRWW")]
    {
        let mut world = world(DeadlineConfig { fifo_batch: 1, writes_starved, ..DEFAULT });
        one_turn(&mut world, &[1, 2, 3, 4, 5, 6], &[101, 102, 103]);
        world.rest();
        let kinds = world.issued().into_iter().map(|s| if s < 100 { 'R' } else { 'W' });
        assert_eq!(kinds.collect::<String>(), expected, "writes_starved {writes_starved}");
    }
}

#[test]
fn a_batch_runs_on_though_the_other_direction_waits() {
    let mut world = world(DeadlineConfig { fifo_batch: 3, ..DEFAULT });
    submit(&mut world, Op::Write, &[101]);
    one_turn(&mut world, &[1, 2], &[102, 103, 104]);
    world.rest();
    assert_eq!(world.issued(), [101, 102, 103, 1, 2, 104]);
}

#[test]
fn what_has_expired_goes_first_when_a_batch_begins() {
    for (op, expire) in [(Op::Read, 500 * MS), (Op::Write, 5000 * MS)] {
        for (waited, expected) in [(expire - MS, [5, 10, 20, 90]), (expire, [5, 90, 10, 20])] {
            let mut world = world(DeadlineConfig { fifo_batch: 1, ..DEFAULT });
            submit(&mut world, op, &[5]);
            submit(&mut world, op, &[90, 10, 20]);
            world.advance(waited);
            world.finish_at(5);
            let second = expected[1];
            assert_eq!(world.issued(), [5, second], "{op:?} after {waited:?}");
            if second == 10 {
                world.rest();
                assert_eq!(world.issued(), expected);
            }
        }
    }
}

#[test]
fn expiry_does_not_break_a_batch() {
    let mut world = world(DeadlineConfig { fifo_batch: 3, ..DEFAULT });
    submit(&mut world, Op::Read, &[15]);
    submit(&mut world, Op::Read, &[2, 20, 30, 40]);
    world.advance(501 * MS);
    world.rest();
    assert_eq!(world.issued(), [15, 20, 30, 2, 40]);
}

#[test]
fn discards_and_zeroes_count_as_writes() {
    let mut world = world(DEFAULT);
    submit(&mut world, Op::Read, &[5]);
    world.submit(
        0,
        &[Order::new(Op::Discard, 30, 1), Order::new(Op::WriteZeroes, 20, 1), Order::write(10)],
    );
    submit(&mut world, Op::Read, &[40]);
    world.rest();
    assert_eq!(world.issued(), [5, 40, 10, 20, 30]);
}

fn classes() -> [Order; 3] {
    [
        Order::read(1).class(Class::Idle),
        Order::read(2).class(Class::BestEffort),
        Order::read(3).class(Class::RealTime),
    ]
}

#[test]
fn the_higher_class_goes_first() {
    let mut world = world(DEFAULT);
    world.submit(0, &classes());
    world.rest();
    assert_eq!(world.issued(), [3, 2, 1]);
}

#[test]
fn a_lower_class_waits_while_a_higher_one_is_in_flight() {
    let scheduler = Some(Box::new(Deadline::new(DEFAULT, 64)) as Box<dyn Scheduler>);
    // There is room for all of them.
    let mut world = World::new(Setup { scheduler, ..Setup::default() });
    world.submit(0, &classes());
    world.quiesce();
    assert_eq!(world.issued(), [3]);
    world.finish_at(3);
    assert_eq!(world.issued(), [3, 2], "in the turn of the completion");
    world.finish_at(2);
    assert_eq!(world.issued(), [3, 2, 1]);
    assert!(world.asked().all_wishes.iter().all(|wish| wish.2 == Wish::SchedulerIdle));
    world.rest();
}

#[test]
fn a_failed_request_of_a_higher_class_lets_the_lower_go() {
    let scheduler = Some(Box::new(Deadline::new(DEFAULT, 64)) as Box<dyn Scheduler>);
    let mut world = World::new(Setup { scheduler, ..Setup::default() });
    world.device().script.push_back(crate::device::Answer::Fail(Status::IoErr));
    world.submit(0, &classes());
    world.quiesce();
    assert_eq!(world.issued(), [2]);
    world.requeue_anywhere();
    assert_eq!(world.issued(), [2, 2], "it counts as in flight all the while");
    world.rest();
    assert_eq!(world.issued(), [2, 2, 1]);
}

#[test]
fn who_was_held_back_for_too_long_goes_all_the_same() {
    let scheduler = Some(Box::new(Deadline::new(DEFAULT, 64)) as Box<dyn Scheduler>);
    let mut world = World::new(Setup { scheduler, ..Setup::default() });
    world.advance(3 * MS);
    world.submit(0, &classes());
    let at = Time::ZERO + 10_003 * MS;
    assert_eq!(world.asked().all_wishes, [(CtxId(0), at, Wish::SchedulerIdle)]);
    world.fire_timer();
    assert_eq!(world.now(), at);
    assert_eq!(world.issued(), [3, 2, 1], "the first is still in flight");
    world.rest();
}

#[test]
fn the_levels_below_age_each_by_themselves() {
    let prio_aging_expire = 100 * MS;
    // When the best-effort and the idle request come, and who goes when.
    for (best_effort, idle, expected) in
        [(0, 0, [(100, vec![3, 2, 1])]), (10, 5, [(105, vec![3, 1])]), (5, 10, [(105, vec![3, 2])])]
    {
        let config = DeadlineConfig { prio_aging_expire, ..DEFAULT };
        let scheduler = Some(Box::new(Deadline::new(config, 64)) as Box<dyn Scheduler>);
        let mut world = World::new(Setup { scheduler, ..Setup::default() });
        let [of_idle, of_best_effort, of_real_time] = classes();
        world.submit(0, &[of_real_time]);
        let mut coming = [(best_effort, of_best_effort), (idle, of_idle)];
        coming.sort_by_key(|(at, _)| *at);
        let mut now = 0;
        for (at, order) in coming {
            world.advance((at - now) * MS);
            now = at;
            world.submit(0, &[order]);
        }
        for (at, issued) in expected {
            world.fire_timer();
            assert_eq!((world.now(), world.issued()), (Time::ZERO + at * MS, issued));
        }
        world.rest();
    }
}

#[test]
fn an_aged_request_does_not_wait_for_a_younger_one_of_its_level() {
    let config = DeadlineConfig { prio_aging_expire: 100 * MS, ..DEFAULT };
    let scheduler = Some(Box::new(Deadline::new(config, 64)) as Box<dyn Scheduler>);
    let mut world = World::new(Setup { scheduler, ..Setup::default() });
    world.submit(0, &[Order::read(3).class(Class::RealTime), Order::read(90)]);
    world.advance(50 * MS);
    // By position it would be the next.
    world.submit(0, &[Order::read(10)]);
    world.fire_timer();
    assert_eq!((world.now(), world.issued()), (Time::ZERO + 100 * MS, vec![3, 90]));
    world.rest();
}

#[test]
fn attributes_are_set_and_read_by_their_names() {
    let mut deadline = Deadline::new(DEFAULT, 64);
    assert_eq!(deadline.name(), "mq-deadline");
    let values = [
        ("read_expire", "100", "500"),
        ("write_expire", "200", "5000"),
        ("writes_starved", "3", "2"),
        ("fifo_batch", "4", "16"),
        ("front_merges", "0", "1"),
        ("async_depth", "64", "48"),
        ("prio_aging_expire", "0", "10000"),
    ];
    let before = values.map(|(name, _, default)| (name, default.to_string()));
    assert_eq!(deadline.attributes(), before);
    for (name, value, _) in values {
        deadline.set(name, value).unwrap();
    }
    let after = values.map(|(name, value, _)| (name, value.to_string()));
    assert_eq!(deadline.attributes(), after);
    for wrong in ["", "-1", "1.5", "ten", "99999999999"] {
        let error = deadline.set("fifo_batch", wrong).unwrap_err();
        assert!(matches!(error, AttributeError::Invalid(_)), "{wrong}: {error}");
    }
    let error = deadline.set("slice_idle", "1").unwrap_err();
    assert!(error.to_string().contains("read_expire"), "it names the right ones: {error}");
    assert_eq!(deadline.attributes(), after, "a wrong one changes nothing");
}

#[test]
fn an_attribute_that_was_set_counts() {
    let mut deadline = Deadline::new(DEFAULT, 64);
    deadline.set("fifo_batch", "1\n").unwrap();
    deadline.set("read_expire", "7").unwrap();
    let scheduler = Some(Box::new(deadline) as Box<dyn Scheduler>);
    let mut world = World::new(Setup { budget: Some(1), scheduler, ..Setup::default() });
    submit(&mut world, Op::Read, &[5]);
    submit(&mut world, Op::Read, &[90, 10]);
    world.advance(7 * MS);
    world.rest();
    assert_eq!(world.issued(), [5, 90, 10]);
}
