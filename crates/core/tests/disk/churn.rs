//! Random queues over random disks, with everything that a queue can do and everything that can be
//! changed of it, until all is at rest again. The bytes that decide are random, or a fuzzer's.

mod draw;

use std::collections::VecDeque;
use std::time::Duration;

use blkmq_core::{
    Change, Config, Deadline, DeadlineConfig, Flags, GroupId, HctxId, Limits, Maps, Op, Queue,
    Rate, Rates, Scheduler, TenantConfig, TenantId,
};
use blkmq_fuzz::Target;

use crate::bench::Bench;
use crate::disk::{WhenFull, WhenLate};
use crate::order::{Order, overlap};

const VOLUMES: u32 = 4;
const TENANTS: u32 = 3;

#[derive(Clone, Debug)]
struct Shape {
    nr_ctx: u16,
    maps: (u16, u16, u16),
    nr_requests: u32,
    nr_tags: u32,
    budget: Option<u32>,
    entry_max: u32,
    deadline: bool,
    timeout: bool,
    limits: Limits,
    bad: Vec<u64>,
    slots: usize,
}

/// What is ordered; where is drawn later, from what nobody uses.
#[derive(Clone, Debug)]
struct Wanted {
    order: Order,
    follows: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Submit(usize, Vec<Wanted>),
    Finish(usize),
    Serve(Vec<usize>),
    Fire,
    Advance(u64),
    Lose(usize),
    Return(usize),
    WhenLate(WhenLate),
    Slots(usize, WhenFull),
    Quiesce(bool),
    Freeze(bool),
    Stop(u16, bool),
    Change(Wish),
    Weight(u32, u32),
    Limit(u32, Option<u64>),
    GroupLimit(Option<u64>),
    Timeout(Option<u64>),
    AsyncDepth(u32),
}

/// A change that is yet to be made.
#[derive(Clone, Debug)]
enum Wish {
    None,
    Deadline,
    NrRequests(u32),
    NrHwQueues(u16),
    Capacity(u64),
}

fn deadline(nr_requests: u32) -> Box<dyn Scheduler> {
    Box::new(Deadline::new(DeadlineConfig::default(), nr_requests))
}

fn rates(iops: Option<u64>) -> Rates {
    let rate = |per_second| Rate { per_second, burst: Duration::from_millis(20) };
    Rates { iops: iops.map(rate), bps: iops.map(|iops| rate(iops * 4096)), ..Rates::default() }
}

fn build(shape: &Shape) -> Bench {
    let (default, read, poll) = shape.maps;
    let tenant = |tenant: u32| TenantConfig {
        weight: 100 * (tenant + 1),
        group: (tenant > 0).then_some(GroupId(0)),
        ..TenantConfig::default()
    };
    let config = Config {
        nr_ctx: shape.nr_ctx,
        maps: Maps { default, read, poll },
        nr_requests: shape.nr_requests,
        nr_tags: shape.nr_tags,
        budget: shape.budget,
        scheduler: shape.deadline.then(|| deadline(shape.nr_requests)),
        tenants: (0..TENANTS).map(tenant).collect(),
        groups: vec![Rates::default()],
        volumes: (0..VOLUMES).map(|volume| TenantId(volume % TENANTS)).collect(),
        entry_max: shape.entry_max,
        timeout: shape.timeout.then_some(Duration::from_secs(1)),
        ..Config::default()
    };
    let bench = Bench::new(shape.limits, config);
    bench.disk().bad = shape.bad.iter().copied().collect();
    bench.disk().slots = shape.slots;
    bench
}

/// Places what is wanted where nobody is at work; what finds no such place is left out.
fn orders(bench: &Bench, wanted: &[Wanted]) -> Vec<Order> {
    let mut orders: Vec<Order> = Vec::new();
    for Wanted { order, follows } in wanted {
        let mut order = order.clone();
        let last = orders.last().map(|last| last.sectors().end);
        match last {
            Some(last) if *follows => order.sector = last,
            _ => {}
        }
        if !matches!(order.op, Op::Write | Op::WriteZeroes) {
            order.flags -= Flags::FUA | Flags::PREFLUSH;
        }
        if order.op == Op::Flush || order.op.is_passthrough() {
            (order.sector, order.nr_sectors) = (0, 0);
        }
        let sectors = order.sectors();
        let taken = orders.iter().any(|other| overlap(&other.sectors(), &sectors));
        if !taken && !bench.is_busy(&sectors) {
            orders.push(order);
        }
    }
    orders
}

/// What has to be taken back at the end.
#[derive(Default)]
struct Held {
    quiesced: u32,
    frozen: u32,
}

fn take(bench: &mut Bench, held: &mut Held, step: &Step) {
    bench.happened();
    let nr_ctx = bench.cpus.len();
    match step {
        Step::Submit(ctx, wanted) => {
            let orders = orders(bench, wanted);
            bench.submit(ctx % nr_ctx, &orders);
        }
        Step::Finish(which) => drop(bench.finish(|n| which % n)),
        Step::Serve(picks) => {
            for pick in picks {
                bench.serve(|n| pick % n);
            }
        }
        Step::Fire => drop(bench.fire()),
        Step::Advance(ms) => bench.advance(Duration::from_millis(*ms)),
        Step::Lose(which) => lose(bench, *which),
        Step::Return(which) => {
            let mut disk = bench.disk();
            let lost: VecDeque<usize> =
                (0..disk.in_flight.len()).filter(|index| disk.in_flight[*index].lost).collect();
            if !lost.is_empty() {
                disk.finish(lost[which % lost.len()]);
            }
        }
        Step::WhenLate(what) => bench.disk().when_late = *what,
        Step::Slots(slots, full) => {
            let mut disk = bench.disk();
            (disk.slots, disk.when_full) = (*slots, *full);
        }
        _ => reconfigure(bench, held, step),
    }
    bench.look();
}

/// Flushes are not lost here: after one nothing is written any more. `flush.rs` is about that.
fn lose(bench: &Bench, which: usize) {
    let mut disk = bench.disk();
    let n = disk.in_flight.len();
    if n > 0 && disk.in_flight[which % n].rq.op().has_data() {
        disk.in_flight[which % n].lost = true;
    }
}

fn reconfigure(bench: &mut Bench, held: &mut Held, step: &Step) {
    let queue = std::sync::Arc::clone(&bench.queue);
    match step {
        Step::Quiesce(true) => {
            held.quiesced += 1;
            queue.quiesce();
        }
        Step::Quiesce(false) if held.quiesced > 0 => {
            held.quiesced -= 1;
            queue.unquiesce();
        }
        Step::Freeze(true) => {
            held.frozen += 1;
            queue.freeze();
        }
        Step::Freeze(false) if held.frozen > 0 => {
            held.frozen -= 1;
            queue.unfreeze();
        }
        Step::Stop(hctx, stop) if *hctx < queue.maps().count() => {
            let change = if *stop { Queue::stop_hw_queue } else { Queue::start_hw_queue };
            change(&queue, HctxId(*hctx));
        }
        Step::Weight(tenant, weight) => queue.set_weight(TenantId(*tenant), *weight),
        Step::Limit(tenant, iops) => queue.set_limits(TenantId(*tenant), &rates(*iops)),
        Step::GroupLimit(iops) => queue.set_group_limits(GroupId(0), &rates(*iops)),
        Step::Timeout(ms) => queue.set_timeout(ms.map(Duration::from_millis)),
        Step::AsyncDepth(depth) => {
            let set = queue.set_attribute("async_depth", &depth.to_string());
            assert!(set.is_some(), "nobody works on the scheduler between turns");
        }
        Step::Change(wish) => bench.change(match wish {
            Wish::None => Change::Scheduler(None),
            Wish::Deadline => Change::Scheduler(Some(deadline(queue.nr_requests()))),
            Wish::NrRequests(nr) => Change::NrRequests(*nr),
            Wish::NrHwQueues(nr) => Change::NrHwQueues(*nr),
            Wish::Capacity(sectors) => Change::CapacitySectors(*sectors),
        }),
        _ => {}
    }
}

/// Takes back what keeps the queue from coming to rest.
fn let_go(bench: &mut Bench, held: &Held) {
    (0..held.quiesced).for_each(|_| bench.queue.unquiesce());
    (0..held.frozen).for_each(|_| bench.queue.unfreeze());
    bench.look();
    for hctx in 0..bench.queue.maps().count() {
        bench.queue.start_hw_queue(HctxId(hctx));
    }
    let mut disk = bench.disk();
    disk.slots = usize::MAX;
    disk.when_late = WhenLate::Abandon;
}

/// Whatever is ordered and whatever happens meanwhile: everything ends once, as it should, and
/// nothing stays behind.
fn everything_ends(bytes: &[u8]) {
    let (shape, script) = draw::script(bytes);
    if blkmq_fuzz::is_repeated() {
        println!("{shape:#?}\n{script:#?}");
    }
    let mut bench = build(&shape);
    let mut held = Held::default();
    for step in &script {
        take(&mut bench, &mut held, step);
    }
    let_go(&mut bench, &held);
    bench.rest();
}

#[test]
fn everything_comes_to_its_end() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/layer");
    Target { folder, cases: 400, len_max: 2048 }.run(everything_ends);
}
