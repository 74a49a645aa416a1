//! The world around a queue in a scenario: a device that finishes when it is asked, and an
//! environment that writes down what is wished for.

use std::sync::Arc;
use std::sync::atomic::AtomicU64 as Unexplored;
use std::sync::atomic::Ordering as Order;

use super::core::{
    Bio, Config, Cpu, CtxId, Done, Driver, Env, Flags, InFlight, Limits, Op, Priority,
    Queue, QueueRq, Refused, Segments, Status, VolumeId, Time, Wish,
};
use super::stage::{LateTimers, step};
use super::sync::atomic::{AtomicBool, Ordering};

/// How many timers may fire in one schedule: many more than any scenario has reasons for.
const TIMERS_MAX: usize = 32;

/// How many turns may be taken after the threads have ended.
const TURNS_MAX: usize = 64;

/// A device that takes whatever the layer lets through. What it has finished waits in the ring, as
/// behind an interrupt, until the thread reaps.
#[derive(Debug)]
pub(crate) struct Device;

impl Driver for Device {
    type Ring = Vec<InFlight>;

    fn limits(&self) -> Limits {
        Limits {
            capacity_sectors: 1 << 20,
            logical_block_sectors: 1,
            max_sectors: 8,
            max_segments: 1,
            max_discard_sectors: 8,
            max_write_zeroes_sectors: 8,
            read_only: false,
            ..Limits::default()
        }
    }

    fn queue_rq(&self, ring: &mut Self::Ring, rq: InFlight) -> QueueRq {
        step(format!("request at sector {} goes to the device", rq.sector()));
        ring.push(rq);
        QueueRq::Queued
    }

    fn commit_rqs(&self, _ring: &mut Self::Ring) {}

    fn reap(&self, ring: &mut Self::Ring, done: &mut Vec<(InFlight, Status)>) {
        for rq in ring.drain(..) {
            step(format!("request at sector {} is finished", rq.sector()));
            done.push((rq, Status::Ok));
        }
    }
}

/// An environment that writes down. Kicks are explored, as they order threads in the real runtime
/// too; timers and counts are not.
#[derive(Debug)]
pub(crate) struct World {
    /// One for each thread.
    kicks: Box<[AtomicBool]>,
    timers: LateTimers<(CtxId, Wish)>,
    done: Unexplored,
    submitted: Unexplored,
}

impl Env for World {
    fn kick(&self, ctx: CtxId) {
        step(format!("kicks thread {}", ctx.0));
        self.kicks[usize::from(ctx.0)].swap(true, Ordering::AcqRel);
    }

    fn run_at(&self, ctx: CtxId, _at: Time, why: Wish) {
        step(format!("wishes for a later turn of thread {}: {why:?}", ctx.0));
        self.timers.arm((ctx, why));
    }

    fn deliver(&self, _ctx: CtxId, done: Done) {
        assert_eq!(done.status, Status::Ok, "the device knows no errors");
        self.done.fetch_add(1, Order::Relaxed);
    }
}

/// A queue in its world.
pub(crate) struct Set {
    /// The queue.
    pub(crate) queue: Queue<Device, World>,
    /// Its environment.
    pub(crate) world: Arc<World>,
}

impl Set {
    /// Makes the queue.
    pub(crate) fn new(config: Config) -> Arc<Set> {
        let world = Arc::new(World {
            kicks: (0..config.nr_ctx).map(|_| AtomicBool::new(false)).collect(),
            timers: LateTimers::new(TIMERS_MAX),
            done: Unexplored::new(0),
            submitted: Unexplored::new(0),
        });
        Arc::new(Set { queue: Queue::new(Device, Arc::clone(&world), config), world })
    }

    /// A thread's side of the queue.
    pub(crate) fn cpu(&self, ctx: u16) -> Cpu<Device> {
        self.queue.cpu(CtxId(ctx), Vec::new())
    }

    /// A turn in which a read of `sector` is submitted.
    pub(crate) fn submit(&self, cpu: &mut Cpu<Device>, sector: u64) {
        step(format!("submits a request at sector {sector} and runs hctx {}", cpu.hctx().0));
        // The device touches no memory, but a read has to name some.
        let mut segments = Segments::new();
        // SAFETY: nothing reads or writes through this segment: `Device` only moves the request.
        segments.push(unsafe { super::core::Segment::new(std::ptr::null_mut(), 512, None) });
        let bio = Bio {
            op: Op::Read,
            flags: Flags::NOMERGE,
            prio: Priority::default(),
            volume: VolumeId(0),
            sector,
            nr_sectors: 1,
            segments,
            cookie: sector,
        };
        self.world.submitted.fetch_add(1, Order::Relaxed);
        match self.queue.turn(cpu, Time::ZERO).submit(bio) {
            Ok(()) => {}
            Err(Refused::WouldBlock(_) | Refused::Invalid(..)) => {
                unreachable!(
                    "the scenarios have requests enough, and submit what the device can do"
                )
            }
        }
    }

    /// A turn for a kick.
    pub(crate) fn run(&self, cpu: &mut Cpu<Device>) {
        step(format!("runs hctx {}", cpu.hctx().0));
        self.queue.turn(cpu, Time::ZERO).run();
    }

    /// A turn in which what the thread's device has finished is ended.
    pub(crate) fn reap(&self, cpu: &mut Cpu<Device>) {
        self.queue.turn(cpu, Time::ZERO).reap();
        self.count(cpu);
    }

    /// Takes the kicks that the setup has brought, for the scenario's threads to answer.
    pub(crate) fn take_kicks(&self) {
        for kick in &self.world.kicks {
            kick.store(false, Ordering::Relaxed);
        }
    }

    /// Turns until the thread's device has finished everything and nobody has kicked it. What is
    /// kicked later is somebody else's to run.
    pub(crate) fn settle(&self, cpu: &mut Cpu<Device>) {
        let kick = &self.world.kicks[usize::from(cpu.ctx().0)];
        loop {
            self.drain(cpu);
            if !kick.load(Ordering::Relaxed) {
                return;
            }
            if kick.swap(false, Ordering::AcqRel) {
                self.run(cpu);
            }
        }
    }

    /// Turns until the thread's device has finished everything.
    pub(crate) fn drain(&self, cpu: &mut Cpu<Device>) {
        while !cpu.ring().is_empty() {
            self.reap(cpu);
        }
    }

    /// The scenario's end: every kick is answered, then every timer, until nothing is left to
    /// happen. Then nothing may be left undone.
    pub(crate) fn end(&self, mut cpus: Vec<Cpu<Device>>, owed: &'static str) {
        for turn in 0.. {
            for cpu in &mut cpus {
                self.settle(cpu);
            }
            let kicked = self.world.kicks.iter().any(|kick| kick.load(Ordering::Relaxed));
            let timer = if kicked { None } else { self.world.timers.fire() };
            if let Some((ctx, why)) = timer {
                let cpu = cpus.iter_mut().find(|cpu| cpu.ctx() == ctx);
                let cpu = cpu.expect("every submitter has a thread");
                step(format!("the timer {why:?} has thread {} take a turn", ctx.0));
                self.queue.turn(cpu, Time::from_ns(3_000_000)).timer(why);
            } else if !kicked {
                break;
            }
            if turn > TURNS_MAX {
                super::stage::finding("livelock", "the queue never comes to rest", owed);
            }
        }
        self.judge(owed);
    }

    /// How many timers have fired.
    pub(crate) fn timers_fired(&self) -> usize {
        self.world.timers.fired()
    }

    fn count(&self, cpu: &mut Cpu<Device>) {
        for done in cpu.take_done() {
            assert_eq!(done.status, Status::Ok, "the device knows no errors");
            self.world.done.fetch_add(1, Order::Relaxed);
        }
    }

    /// The oracles at rest: no request is left, and everything that was out is back.
    fn judge(&self, owed: &'static str) {
        let submitted = self.world.submitted.load(Order::Relaxed);
        let done = self.world.done.load(Order::Relaxed);
        let held = self.queue.held();
        if done < submitted {
            let stuck =
                format!("{} of {submitted} requests wait for ever ({held:?})", submitted - done);
            super::stage::finding("stall", stuck, owed);
        }
        if done > submitted {
            super::stage::finding(
                "double completion",
                format!("{done} of {submitted} ended"),
                owed,
            );
        }
        if held.requests != 0 || held.in_flight != 0 || held.budget != 0 || held.dispatch != 0 {
            super::stage::finding("leak", format!("at rest the queue holds {held:?}"), owed);
        }
    }
}
