//! The world around a queue in a scenario: an environment that writes down what is wished for, and
//! the turns of the threads.

use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64 as Unexplored;
use std::sync::atomic::Ordering as Order;

use super::core::{
    Bio, Config, Cpu, CtxId, Done, Env, Flags, Memory, Op, Priority, Queue, Refused, Segments,
    Status, Time, Turn, VolumeId, Wish,
};
use super::device::Device;
use super::medium::Medium;
use super::stage::{LateTimers, finding, if_blocked, step};
use super::sync::atomic::{AtomicBool, Ordering};
use super::sync::{Condvar, Mutex};

/// How many timers may fire in one schedule: many more than any scenario has reasons for.
const TIMERS_MAX: usize = 32;

/// How many turns may be taken after the threads have ended.
const TURNS_MAX: usize = 64;

/// When timers fire.
const TIMER_AT: Time = Time::from_ns(3_000_000);

/// An environment that writes down. Kicks are explored, as they order threads in the real runtime
/// too; timers and counts are not.
#[derive(Debug)]
pub(crate) struct World {
    /// One for each thread.
    kicks: Box<[AtomicBool]>,
    timers: LateTimers<(CtxId, Wish)>,
    /// What was told to the submitters, in its order. No explored lock.
    told: std::sync::Mutex<Vec<Done>>,
    submitted: Unexplored,
    /// What is promised of the device's data, if anybody looks.
    medium: Option<Arc<Medium>>,
    /// How often a quiesce or a freeze may have become complete.
    settled: Mutex<u64>,
    settled_more: Condvar,
}

impl World {
    fn tell(&self, done: Done) {
        step(format!("bio {} has ended: {:?} {:?}", done.cookie, done.status, done.memory));
        if let Some(medium) = &self.medium
            && done.status.is_ok()
        {
            medium.tell(done.cookie);
        }
        self.told.lock().unwrap_or_else(PoisonError::into_inner).push(done);
    }
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
        self.tell(done);
    }

    fn settled(&self) {
        step("says that something may have settled");
        *self.settled.lock().expect("no schedule goes on after a panic") += 1;
        self.settled_more.notify_all();
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
    /// Makes the queue, with a device that finishes at once and has no cache.
    pub(crate) fn new(config: Config) -> Arc<Set> {
        Set::with(Device::default(), config)
    }

    /// Makes the queue of a device.
    pub(crate) fn with(device: Device, config: Config) -> Arc<Set> {
        let world = Arc::new(World {
            kicks: (0..config.nr_ctx).map(|_| AtomicBool::new(false)).collect(),
            timers: LateTimers::new(TIMERS_MAX),
            told: std::sync::Mutex::default(),
            submitted: Unexplored::new(0),
            medium: device.medium().cloned(),
            settled: Mutex::new(0),
            settled_more: Condvar::new(),
        });
        Arc::new(Set { queue: Queue::new(device, Arc::clone(&world), config), world })
    }

    /// A thread's side of the queue.
    pub(crate) fn cpu(&self, ctx: u16) -> Cpu<Device> {
        self.queue.cpu(CtxId(ctx), Vec::new())
    }

    /// A turn in which a read of `sector` is submitted.
    pub(crate) fn submit(&self, cpu: &mut Cpu<Device>, sector: u64) {
        step(format!("submits a request at sector {sector} and runs hctx {}", cpu.hctx().0));
        let bio = read(sector, VolumeId(0));
        self.submit_bio(cpu, bio);
    }

    /// A turn in which a bio is submitted. Its place says in the end which one it was.
    pub(crate) fn submit_bio(&self, cpu: &mut Cpu<Device>, bio: Bio) {
        self.put_in(&mut self.queue.turn(cpu, Time::ZERO), bio);
        self.count(cpu);
    }

    /// Submits a bio in a turn.
    pub(crate) fn put_in(&self, turn: &mut Turn<'_, Device, World>, bio: Bio) {
        self.world.submitted.fetch_add(1, Order::Relaxed);
        match turn.submit(bio) {
            Ok(()) => {}
            Err(Refused::WouldBlock(_) | Refused::Invalid(..)) => {
                unreachable!("as many may wait as submit, and they submit what the device can do")
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

    /// As [`Set::settle`], and no kick that has come is overlooked.
    pub(crate) fn answer(&self, cpu: &mut Cpu<Device>) {
        while self.world.kicks[usize::from(cpu.ctx().0)].swap(false, Ordering::AcqRel) {
            self.run(cpu);
            self.drain(cpu);
        }
    }

    /// Turns until the thread's device has finished what it can.
    pub(crate) fn drain(&self, cpu: &mut Cpu<Device>) {
        while self.queue.driver().has_finished(cpu.ring()) {
            self.reap(cpu);
        }
    }

    /// Waits for what [`Env::settled`] is to tell of. Nobody looks again on his own.
    pub(crate) fn wait_until(&self, what: &'static str, mut holds: impl FnMut() -> bool) {
        if_blocked("stall", what, "the turn that ended, and did not say that it was waited for");
        loop {
            // Asked before the look, so that what settles in between ends the wait.
            let times = *self.world.settled.lock().expect("no schedule goes on after a panic");
            if holds() {
                return;
            }
            let mut now = self.world.settled.lock().expect("no schedule goes on after a panic");
            while *now == times {
                now = self.world.settled_more.wait(now).expect("no schedule goes on after a panic");
            }
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
                self.queue.turn(cpu, TIMER_AT).timer(why);
            } else if !kicked {
                break;
            }
            if turn > TURNS_MAX {
                finding("livelock", "the queue never comes to rest", owed);
            }
        }
        self.judge(owed);
    }

    /// How many timers have fired.
    pub(crate) fn timers_fired(&self) -> usize {
        self.world.timers.fired()
    }

    /// What was told to the submitters up to now, in its order.
    pub(crate) fn told(&self) -> Vec<Done> {
        self.world.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes note of what has ended in the thread's turns.
    pub(crate) fn count(&self, cpu: &mut Cpu<Device>) {
        cpu.take_done().for_each(|done| self.world.tell(done));
    }

    /// The oracles at rest: no request is left, and everything that was out is back.
    fn judge(&self, owed: &'static str) {
        let submitted = self.world.submitted.load(Order::Relaxed);
        let told = self.told();
        let done = told.iter().filter(|done| done.memory != Memory::ReturnedLate).count() as u64;
        let held = self.queue.held();
        if done < submitted {
            let stuck =
                format!("{} of {submitted} requests wait for ever ({held:?})", submitted - done);
            finding("stall", stuck, owed);
        }
        if done > submitted {
            finding("double completion", format!("{done} of {submitted} ended"), owed);
        }
        let lent = told.iter().filter(|done| done.memory == Memory::Lent).count();
        let late = told.iter().filter(|done| done.memory == Memory::ReturnedLate).count();
        if lent != late {
            finding("lost memory", format!("{lent} were lent, {late} came back"), owed);
        }
        for done in told.iter().filter(|done| done.memory == Memory::Returned) {
            assert_eq!(done.status, Status::Ok, "the device knows no errors");
        }
        if held.requests != 0 || held.in_flight != 0 || held.budget != 0 || held.dispatch != 0 {
            finding("leak", format!("at rest the queue holds {held:?}"), owed);
        }
    }
}

/// A read of one sector.
pub(crate) fn read(sector: u64, volume: VolumeId) -> Bio {
    one_sector(Op::Read, Flags::NOMERGE, sector, volume)
}

/// A bio of one sector, or of none if it is a flush.
pub(crate) fn one_sector(op: Op, flags: Flags, sector: u64, volume: VolumeId) -> Bio {
    let mut segments = Segments::new();
    if op.has_data() {
        // SAFETY: nothing reads or writes through this segment: `Device` only moves the request.
        segments.push(unsafe { super::core::Segment::new(std::ptr::null_mut(), 512, None) });
    }
    let nr_sectors = u32::from(op != Op::Flush);
    let (prio, cookie) = (Priority::default(), sector);
    let sector = if op == Op::Flush { 0 } else { sector };
    Bio { op, flags, prio, volume, sector, nr_sectors, segments, cookie }
}
