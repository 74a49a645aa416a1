//! A queue with one thread, driven as a runtime drives it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use blkmq_core::{
    Bio, Config, Cpu, CtxId, Done, Env, Flags, Op, Priority, Queue, Refused, Segment, Segments,
    Status, Time, VolumeId, Wish,
};
use blkmq_drivers::{Device, connect_kicks};
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;

/// A world in which one thread does everything, and writes down what is asked of it.
#[derive(Default)]
pub(crate) struct World {
    kicks: Mutex<u32>,
}

impl World {
    /// How many kicks were given since the last time.
    pub(crate) fn take_kicks(&self) -> u32 {
        std::mem::take(&mut *self.kicks.lock().unwrap())
    }
}

impl Env for World {
    fn kick(&self, _ctx: CtxId) {
        *self.kicks.lock().unwrap() += 1;
    }

    fn run_at(&self, _ctx: CtxId, _at: Time, why: Wish) {
        panic!("no timer is needed here, but one was asked for: {why:?}");
    }

    fn deliver(&self, _ctx: CtxId, done: Done) {
        panic!("there is no other thread to deliver {done:?}");
    }
}

pub(crate) struct Rig<D: Device> {
    pub(crate) queue: Arc<Queue<D, World>>,
    pub(crate) cpu: Option<Cpu<D>>,
    epoll: std::os::fd::OwnedFd,
    world: Arc<World>,
    outstanding: usize,
}

impl<D: Device> Rig<D> {
    pub(crate) fn new(device: D, depth: u32) -> Self {
        let ring = device.ring(depth).unwrap();
        Rig::with_ring(device, ring, depth)
    }

    pub(crate) fn with_ring(device: D, ring: D::Ring, depth: u32) -> Self {
        let world = Arc::new(World::default());
        let config =
            Config { nr_requests: depth, nr_tags: depth, timeout: None, ..Config::default() };
        let queue = Arc::new(Queue::new(device, Arc::clone(&world), config));
        connect_kicks(&queue);
        let cpu = queue.cpu(CtxId(0), ring);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        if let Some(fd) = queue.driver().poll_fd(cpu.ring()) {
            let data = EventData::new_u64(0);
            epoll::add(&epoll, fd, data, EventFlags::IN).unwrap();
        }
        Rig { queue, cpu: Some(cpu), epoll, world, outstanding: 0 }
    }

    pub(crate) fn device(&self) -> &D {
        self.queue.driver()
    }

    /// Submits all in one turn.
    pub(crate) fn submit(&mut self, bios: impl IntoIterator<Item = Bio>) {
        let mut turn = self.queue.turn(self.cpu.as_mut().unwrap(), Time::ZERO);
        for bio in bios {
            turn.submit(bio).unwrap();
            self.outstanding += 1;
        }
    }

    /// Why a bio is not taken in.
    pub(crate) fn refusal(&mut self, bio: Bio) -> Status {
        let mut turn = self.queue.turn(self.cpu.as_mut().unwrap(), Time::ZERO);
        match turn.submit(bio) {
            Err(Refused::Invalid(_, status)) => status,
            other => panic!("expected a refusal, not {other:?}"),
        }
    }

    /// Waits for all that was submitted, sleeping only as the device allows.
    pub(crate) fn wait(&mut self) -> Vec<Done> {
        let mut done = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(60);
        while done.len() < self.outstanding {
            assert!(Instant::now() < deadline, "{} of {}", done.len(), self.outstanding);
            let cpu = self.cpu.as_ref().unwrap();
            let kicked = self.world.take_kicks() > 0;
            if !kicked && !cpu.has_done() && !self.queue.driver().has_finished(cpu.ring()) {
                self.sleep();
            }
            let cpu = self.cpu.as_mut().unwrap();
            let mut turn = self.queue.turn(cpu, Time::ZERO);
            turn.reap();
            turn.run();
            drop(turn);
            done.extend(cpu.take_done());
        }
        assert_eq!(done.len(), self.outstanding);
        self.outstanding = 0;
        let held = self.queue.held();
        assert_eq!((held.requests, held.in_flight, held.dispatch), (0, 0, 0));
        done
    }

    /// Does one thing.
    pub(crate) fn run(&mut self, bio: Bio) -> Status {
        self.submit([bio]);
        self.wait()[0].status
    }

    /// Whether the device says that there is something to reap, within the time.
    pub(crate) fn becomes_readable(&self, timeout: Duration) -> bool {
        let timeout = Timespec::try_from(timeout).unwrap();
        let mut events = [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }];
        loop {
            match epoll::wait(&self.epoll, &mut events[..], Some(&timeout)) {
                Ok(count) => return count > 0,
                Err(Errno::INTR) => {}
                Err(errno) => panic!("{errno}"),
            }
        }
    }

    fn sleep(&self) {
        let readable = self.becomes_readable(Duration::from_secs(30));
        assert!(readable, "a completion that nobody is told of");
    }
}

/// A bio of whole sectors.
pub(crate) fn bio(op: Op, flags: Flags, sector: u64, nr_sectors: u32, memory: &[Segment]) -> Bio {
    Bio {
        op,
        flags,
        prio: Priority::default(),
        volume: VolumeId(0),
        sector,
        nr_sectors,
        segments: Segments::from_slice(memory),
        cookie: sector,
    }
}

pub(crate) fn flush() -> Bio {
    bio(Op::Flush, Flags::empty(), 0, 0, &[])
}
