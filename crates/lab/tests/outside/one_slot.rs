//! A driver from outside the project: a device with one slot, which nobody told the layer about.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize as Unexplored;

use blkmq_lab::Params;

use super::core::{
    Bio, Config, Cpu, CtxId, Done, Driver, Env, Flags, HctxId, InFlight, Limits, Op, Priority,
    Queue, QueueRq, Restarter, Segments, Status, Time, VolumeId, Wish,
};
use super::stage::{finding, spawn, step};
use super::sync::atomic::{AtomicBool, Ordering};

/// The slot is free once its request is finished, so that completion sees to who was refused.
pub(crate) fn free_at_once(_: &Params) {
    two_submitters(Slot::FreeAtOnce);
}

/// The slot has to cool down first, and then the driver kicks, as it promised.
pub(crate) fn cooling(_: &Params) {
    two_submitters(Slot::Cooling { is_kick_forgotten: false });
}

/// The same, but the driver forgets to kick.
pub(crate) fn kick_forgotten(_: &Params) {
    two_submitters(Slot::Cooling { is_kick_forgotten: true });
}

#[derive(Clone, Copy, PartialEq)]
enum Slot {
    FreeAtOnce,
    Cooling { is_kick_forgotten: bool },
}

struct OneSlot {
    is_taken: AtomicBool,
    slot: Slot,
}

impl Driver for OneSlot {
    type Ring = Vec<InFlight>;

    fn limits(&self) -> Limits {
        Limits {
            capacity_sectors: 16,
            logical_block_sectors: 1,
            max_sectors: 1,
            max_segments: 1,
            max_discard_sectors: 1,
            max_write_zeroes_sectors: 0,
            read_only: false,
            ..Limits::default()
        }
    }

    fn queue_rq(&self, ring: &mut Self::Ring, rq: InFlight) -> QueueRq {
        if self.is_taken.swap(true, Ordering::AcqRel) {
            step(format!("sector {} is refused", rq.sector()));
            let restarter = match self.slot {
                Slot::FreeAtOnce => Restarter::Completion,
                Slot::Cooling { .. } => Restarter::Kick,
            };
            return QueueRq::Busy(rq, restarter);
        }
        step(format!("sector {} takes the slot", rq.sector()));
        ring.push(rq);
        QueueRq::Queued
    }

    fn commit_rqs(&self, _: &mut Self::Ring) {}

    fn reap(&self, ring: &mut Self::Ring, mut end: impl FnMut(InFlight, Status)) {
        for rq in ring.drain(..) {
            step(format!("sector {} is finished", rq.sector()));
            if self.slot == Slot::FreeAtOnce {
                self.is_taken.swap(false, Ordering::AcqRel);
            }
            end(rq, Status::Ok);
        }
    }
}

/// Notes kicks and counts what ends.
struct World {
    is_kicked: AtomicBool,
    done: Unexplored,
}

impl World {
    fn count(&self, done: Done) {
        assert_eq!(done.status, Status::Ok);
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}

impl Env for World {
    fn kick(&self, _: CtxId) {
        self.is_kicked.swap(true, Ordering::AcqRel);
    }

    fn run_at(&self, _: CtxId, _: Time, why: Wish) {
        unreachable!("nobody has a reason for {why:?}");
    }

    fn deliver(&self, _: CtxId, done: Done) {
        self.count(done);
    }
}

type Set = (Queue<OneSlot, World>, Arc<World>);

/// Two threads discard a sector each, through one hardware queue with tags for both.
fn two_submitters(slot: Slot) {
    let world = Arc::new(World { is_kicked: AtomicBool::new(false), done: Unexplored::new(0) });
    let config =
        Config { nr_ctx: 2, nr_requests: 2, nr_tags: 2, timeout: None, ..Config::default() };
    let driver = OneSlot { is_taken: AtomicBool::new(false), slot };
    let set: Arc<Set> = Arc::new((Queue::new(driver, Arc::clone(&world), config), world));
    let threads = [("A", 0), ("B", 1)].map(|(name, number)| {
        let set = Arc::clone(&set);
        let mut cpu = set.0.cpu(CtxId(number), Vec::new());
        spawn(name, move || {
            submit(&set, &mut cpu, u64::from(number));
            settle(&set, &mut cpu);
            cpu
        })
    });
    let cpus = threads.map(|thread| thread.join().expect("a panic ends the schedule"));
    let (queue, world) = &*set;
    if let Slot::Cooling { is_kick_forgotten } = slot {
        step("the slot has cooled down");
        queue.driver().is_taken.swap(false, Ordering::AcqRel);
        if !is_kick_forgotten {
            queue.kick(HctxId(0));
        }
    }
    for mut cpu in cpus {
        settle(&set, &mut cpu);
    }
    let done = world.done.load(Ordering::Relaxed);
    if done < 2 {
        finding("stall", format!("{} requests, {:?}", 2 - done, queue.held()), "the driver");
    }
}

fn submit((queue, _): &Set, cpu: &mut Cpu<OneSlot>, sector: u64) {
    step(format!("submit sector {sector}"));
    let bio = Bio {
        op: Op::Discard,
        flags: Flags::NOMERGE,
        prio: Priority::default(),
        volume: VolumeId(0),
        sector,
        nr_sectors: 1,
        segments: Segments::new(),
        cookie: sector,
    };
    queue.turn(cpu, Time::ZERO).submit(bio).expect("there are requests enough");
}

/// Reaps, and answers kicks, until there is nothing of either.
fn settle((queue, world): &Set, cpu: &mut Cpu<OneSlot>) {
    loop {
        while !cpu.ring().is_empty() {
            queue.turn(cpu, Time::ZERO).reap();
        }
        cpu.take_done().for_each(|done| world.count(done));
        if !world.is_kicked.swap(false, Ordering::AcqRel) {
            return;
        }
        step("answers a kick");
        queue.turn(cpu, Time::ZERO).run();
    }
}
