//! Real threads: submitters that sleep when they have nothing to do, and rely on being woken.
//!
//! There is no timer here at all. Whatever progress is made, a turn, a kick, a wake or a delivery
//! made it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

use blkmq_core::{
    Bio, BudgetMode, Config, Cpu, CtxId, Deadline, DeadlineConfig, Done, Driver, Env, Flags,
    HctxId, InFlight, Inbox, Limits, Maps, Op, Priority, Queue, QueueRq, Refused, Restarter,
    Scheduler, Segments, Status, Time, Turn, VolumeId, WakeUp, Wish,
};

const NR_THREADS: u16 = 4;
const NR_HCTX: u16 = 2;
const REQUESTS_EACH: u64 = 20_000;
const DEPTH: u64 = 8;
/// Nothing in here takes nearly as long; who sleeps so long was forgotten.
const FORGOTTEN: Duration = Duration::from_secs(10);

#[derive(Debug)]
enum Message {
    Kick,
    Done(Done),
    /// Another thread has found a request of ours in the device.
    Ended(InFlight),
}

/// The inboxes of the threads, and how to wake them.
struct Mail {
    inboxes: Vec<Inbox<Message>>,
    threads: Vec<OnceLock<Thread>>,
}

impl Mail {
    fn new() -> Self {
        Mail {
            inboxes: (0..NR_THREADS).map(|_| Inbox::new()).collect(),
            threads: (0..NR_THREADS).map(|_| OnceLock::new()).collect(),
        }
    }

    fn send(&self, to: u16, message: Message) {
        if self.inboxes[usize::from(to)].send(message) == WakeUp::Owed {
            self.threads[usize::from(to)].get().expect("who sleeps has begun").unpark();
        }
    }
}

impl Env for Mail {
    fn kick(&self, ctx: CtxId) {
        self.send(ctx.0, Message::Kick);
    }

    fn run_at(&self, ctx: CtxId, at: Time, why: Wish) {
        panic!("nobody has reason to wish for a timer: {ctx:?} {at:?} {why:?}");
    }

    fn deliver(&self, ctx: CtxId, done: Done) {
        self.send(ctx.0, Message::Done(done));
    }
}

/// A device that ends a request when it is next looked at: one in four by mail to another thread,
/// and the rest on the ring it came by. It has some slots, and is busy beyond.
struct Echo {
    mail: Arc<Mail>,
    used: AtomicU32,
    most_used: AtomicU32,
    slots: u32,
    waiting: Mutex<[bool; NR_HCTX as usize]>,
    queue: OnceLock<std::sync::Weak<Queue<Echo, Mail>>>,
}

struct Ring {
    thread: u16,
    taken: Vec<InFlight>,
    committed: usize,
}

impl Echo {
    fn free_slot(&self) {
        self.used.fetch_sub(1, Ordering::SeqCst);
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap());
        let queue = self.queue.get().and_then(std::sync::Weak::upgrade);
        let queue = queue.expect("a queue with requests is there");
        for hctx in (0..NR_HCTX).filter(|hctx| waiting[usize::from(*hctx)]) {
            queue.kick(HctxId(hctx));
        }
    }

    fn take_slot(&self, hctx: HctxId) -> bool {
        let mut waiting = self.waiting.lock().unwrap();
        let used = self.used.load(Ordering::SeqCst);
        if used >= self.slots {
            waiting[usize::from(hctx.0)] = true;
            // Either the slot that comes free sees who waits, or it is seen here.
            return self.used.load(Ordering::SeqCst) < self.slots && self.count_slot();
        }
        self.count_slot()
    }

    fn count_slot(&self) -> bool {
        let used = self.used.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_used.fetch_max(used, Ordering::SeqCst);
        true
    }
}

impl Driver for Echo {
    type Ring = Ring;

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

    fn queue_rq(&self, ring: &mut Ring, rq: InFlight) -> QueueRq {
        if !self.take_slot(rq.hctx()) {
            return QueueRq::Busy(rq, Restarter::Kick);
        }
        ring.taken.push(rq);
        QueueRq::Queued
    }

    fn commit_rqs(&self, ring: &mut Ring) {
        ring.committed = ring.taken.len();
    }

    fn reap(&self, ring: &mut Ring, mut end: impl FnMut(InFlight, Status)) {
        while ring.committed > 0 {
            ring.committed -= 1;
            let rq = ring.taken.remove(0);
            self.free_slot();
            if rq.sector().is_multiple_of(4) {
                self.mail.send((ring.thread + 1) % NR_THREADS, Message::Ended(rq));
            } else {
                end(rq, Status::Ok);
            }
        }
    }
}

/// One submitter.
struct Submitter<'a> {
    queue: &'a Queue<Echo, Mail>,
    mail: &'a Mail,
    cpu: Cpu<Echo>,
    /// How many threads are not done.
    left: &'a AtomicU32,
    came: Vec<bool>,
    submitted: u64,
    completed: u64,
    blocked: bool,
    /// Woken in a turn of its own, and owing another.
    woken: bool,
    clock: Instant,
}

impl Submitter<'_> {
    fn run(mut self) {
        let mut messages = Vec::new();
        let me = usize::from(self.cpu.ctx().0);
        self.mail.threads[me].set(std::thread::current()).expect("a thread begins once");
        while self.left.load(Ordering::SeqCst) > 0 {
            self.mail.inboxes[me].take(&mut messages);
            self.turn(&mut messages);
            let busy = self.cpu.ring().committed > 0 || self.can_submit() || self.is_woken();
            if !busy && self.mail.inboxes[me].prepare_to_sleep() {
                self.sleep();
                self.mail.inboxes[me].wake_up();
            }
        }
        // Who sleeps while the last thread ends has to see that it did.
        for thread in self.mail.threads.iter().filter_map(OnceLock::get) {
            thread.unpark();
        }
    }

    fn sleep(&self) {
        if self.left.load(Ordering::SeqCst) == 0 {
            return;
        }
        let since = Instant::now();
        std::thread::park_timeout(FORGOTTEN);
        assert!(since.elapsed() < FORGOTTEN, "stalled with {:?}", self.queue.held());
    }

    fn is_woken(&mut self) -> bool {
        self.woken |= self.cpu.take_woken();
        self.blocked &= !self.woken;
        self.woken
    }

    fn can_submit(&self) -> bool {
        !self.blocked && self.submitted < REQUESTS_EACH && self.submitted - self.completed < DEPTH
    }

    fn turn(&mut self, messages: &mut Vec<Message>) {
        let now = Time::from_ns(self.clock.elapsed().as_nanos() as u64);
        let mut done = Vec::new();
        let queue = self.queue;
        let can = if self.can_submit() { DEPTH - (self.submitted - self.completed) } else { 0 };
        let can = can.min(REQUESTS_EACH - self.submitted);
        let mut turn = queue.turn(&mut self.cpu, now);
        if std::mem::take(&mut self.woken) {
            turn.run();
        }
        for message in messages.drain(..) {
            match message {
                Message::Kick => turn.run(),
                Message::Done(ended) => done.push(ended),
                Message::Ended(rq) => turn.complete(rq, Status::Ok),
            }
        }
        turn.reap();
        for _ in 0..can {
            if !submit(&mut turn, self.submitted) {
                self.blocked = true;
                break;
            }
            self.submitted += 1;
        }
        drop(turn);
        done.extend(self.cpu.take_done());
        for ended in done {
            self.ended(ended);
        }
    }

    fn ended(&mut self, done: Done) {
        assert_eq!(done.status, Status::Ok);
        let came = &mut self.came[done.cookie as usize];
        assert!(!*came, "request {} came back twice", done.cookie);
        *came = true;
        self.completed += 1;
        if self.completed == REQUESTS_EACH {
            self.left.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

fn submit(turn: &mut Turn<'_, Echo, Mail>, number: u64) -> bool {
    let bio = Bio {
        op: Op::Discard,
        flags: Flags::empty(),
        prio: Priority::default(),
        volume: VolumeId(0),
        sector: number.wrapping_mul(7919) % (1 << 19),
        nr_sectors: 1,
        segments: Segments::new(),
        cookie: number,
    };
    match turn.submit(bio) {
        Ok(()) => true,
        Err(Refused::WouldBlock(_)) => false,
        Err(Refused::Invalid(bio, status)) => panic!("{bio:?}: {status:?}"),
    }
}

fn stress(budget: u32, slots: u32, nr_tags: u32, scheduler: Option<Box<dyn Scheduler>>) {
    // With bios refused at once, and with bios that wait in the layer.
    let entry_max = if slots.is_multiple_of(2) { 0 } else { 64 };
    let mail = Arc::new(Mail::new());
    let device = Echo {
        mail: Arc::clone(&mail),
        used: AtomicU32::new(0),
        most_used: AtomicU32::new(0),
        slots,
        waiting: Mutex::default(),
        queue: OnceLock::new(),
    };
    let config = Config {
        nr_ctx: NR_THREADS,
        maps: Maps::of(NR_HCTX),
        nr_requests: 16,
        nr_tags,
        budget: Some(budget),
        budget_mode: BudgetMode::Handoff,
        scheduler,
        entry_max,
        timeout: None,
        ..Config::default()
    };
    let queue = Arc::new(Queue::new(device, Arc::clone(&mail), config));
    queue.driver().queue.set(Arc::downgrade(&queue)).expect("it is set once");
    let left = AtomicU32::new(u32::from(NR_THREADS));
    std::thread::scope(|scope| {
        for thread in 0..NR_THREADS {
            let ring = Ring { thread, taken: Vec::new(), committed: 0 };
            let submitter = Submitter {
                queue: &queue,
                mail: &mail,
                cpu: queue.cpu(CtxId(thread), ring),
                left: &left,
                came: vec![false; REQUESTS_EACH as usize],
                submitted: 0,
                completed: 0,
                blocked: false,
                woken: false,
                clock: Instant::now(),
            };
            scope.spawn(|| submitter.run());
        }
    });
    assert!(queue.driver().most_used.load(Ordering::SeqCst) <= budget);
    assert_eq!((queue.held().requests, queue.held().budget, queue.defects()), (0, 0, 0));
}

fn deadline() -> Option<Box<dyn Scheduler>> {
    Some(Box::new(Deadline::new(DeadlineConfig::default(), 16)))
}

#[test]
fn a_budget_of_one_serves_all_threads() {
    stress(1, 8, 4, None);
}

#[test]
fn a_budget_of_one_serves_all_threads_with_a_scheduler() {
    stress(1, 8, 4, deadline());
}

#[test]
fn a_budget_of_two_serves_all_threads() {
    stress(2, 8, 1, None);
}

#[test]
fn a_budget_of_two_serves_all_threads_with_a_scheduler() {
    stress(2, 8, 1, deadline());
}

#[test]
fn a_device_with_fewer_slots_than_budget_serves_all_threads() {
    stress(4, 1, 4, None);
    stress(4, 1, 4, deadline());
}
