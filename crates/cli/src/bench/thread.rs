//! A thread of the bench: a submitter with its software queue, its hardware queue and its ring.

use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use blkmq_core::{Cpu, Done, Queue, Refused, Time, Turn, Wish};
use blkmq_drivers::Device;

use super::env::{DELIVERED, Inboxes, KICKED, STOPPED, WISHED};
use super::load::Load;
use super::usage;
use crate::stats::{Stats, Usage};

/// What the threads of a group share.
pub(super) struct Group<'a, D: Device> {
    pub(super) queue: &'a Queue<D, Inboxes>,
    pub(super) inboxes: &'a Inboxes,
    pub(super) clock: Clock,
    /// How many requests the queue holds.
    pub(super) nr_requests: u32,
    /// Clones that have not ended. The last one to end stops the group.
    pub(super) active: AtomicU32,
    /// I/Os of all clones, for the display of progress.
    pub(super) ios: AtomicU64,
}

/// What became of a clone.
pub(super) struct Outcome {
    pub(super) stats: Stats,
    pub(super) error: i32,
    pub(super) elapsed: Duration,
}

/// A thread at work. It serves its hardware queue until the group ends, whether or not it has a
/// load of its own: what the scheduler gave to its ring has to come back, whosever it is.
pub(super) struct Thread<'a, D: Device> {
    group: &'a Group<'a, D>,
    cpu: Cpu<D>,
    load: Option<Load<'a>>,
    /// All requests are out; the next attempt waits to be woken.
    blocked: bool,
    /// A free request was announced in a turn of our own; a run passes it on if we do not need it.
    run_owed: bool,
    stopped: bool,
    /// The earliest time wished for, for each of `Wish::ALL`.
    wishes_ns: [u64; Wish::ALL.len()],
    earliest_wish_ns: u64,
    delivered: Vec<Done>,
    usage_before: Usage,
    started_ns: u64,
    ended: Option<Outcome>,
    /// I/Os that have ended and are not yet in the display of progress.
    untold: u64,
}

/// The display of progress is brought up to date so often.
const TELL_EVERY: u64 = 4096;

/// The bench's clock: nanoseconds since the bench began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    /// A clock that begins now.
    pub(super) fn new() -> Self {
        Clock(Instant::now())
    }

    /// The time.
    #[inline]
    pub(super) fn now_ns(self) -> u64 {
        let time = self.0.elapsed();
        time.as_secs() * 1_000_000_000 + u64::from(time.subsec_nanos())
    }
}

impl<'a, D: Device> Thread<'a, D> {
    /// A thread with the software queue and the ring of `cpu`.
    pub(super) fn new(group: &'a Group<'a, D>, cpu: Cpu<D>, load: Option<Load<'a>>) -> Self {
        Thread {
            group,
            cpu,
            load,
            blocked: false,
            run_owed: false,
            stopped: false,
            wishes_ns: [u64::MAX; Wish::ALL.len()],
            earliest_wish_ns: u64::MAX,
            delivered: Vec::with_capacity(group.nr_requests as usize),
            usage_before: Usage::default(),
            started_ns: group.clock.now_ns(),
            ended: None,
            untold: 0,
        }
    }

    /// Works until the group has ended. Answers what became of the load, if there was one.
    ///
    /// # Errors
    ///
    /// Those of poll(2).
    pub(super) fn run(mut self) -> io::Result<Option<Outcome>> {
        // If this thread fails, the others must not wait for it for ever.
        let _stop = StopOnDrop(self.group.inboxes);
        while !self.stopped {
            let now_ns = self.group.clock.now_ns();
            let is_idle = !self.round(now_ns);
            if self.load.as_ref().is_some_and(Load::is_over) {
                self.end_load(now_ns);
            }
            if is_idle {
                self.rest(now_ns)?;
            }
        }
        Ok(self.ended)
    }

    /// Looks into the inbox, and takes one turn: what has ended is told to the load, which submits
    /// as much as may go. Answers whether there was anything to do.
    #[inline]
    fn round(&mut self, now_ns: u64) -> bool {
        let inbox = self.group.inboxes.of(self.cpu.ctx());
        let posted = inbox.take();
        let due = self.earliest_wish_ns <= now_ns;
        if posted & DELIVERED != 0 {
            inbox.take_delivered(&mut self.delivered);
        }
        let mut turn = self.group.queue.turn(&mut self.cpu, Time::from_ns(now_ns));
        turn.reap();
        if posted & KICKED != 0 || self.run_owed {
            turn.run();
        }
        if due {
            fulfil(&mut turn, &mut self.wishes_ns, now_ns);
        }
        let (mut finished, mut went) = (0, 0);
        if let Some(load) = &mut self.load {
            for done in turn.take_done() {
                load.finish(&done, now_ns);
                finished += 1;
            }
            if !self.delivered.is_empty() {
                finished += finish_delivered(load, &mut self.delivered, now_ns);
            }
            if load.settle(finished, now_ns) {
                self.usage_before = usage::of_this_thread();
            }
            if !self.blocked && load.is_ready(now_ns) {
                (went, self.blocked) = submit(&mut turn, load, now_ns);
            }
        }
        drop(turn);
        if due || posted & WISHED != 0 {
            self.take_wishes();
        }
        self.run_owed = self.cpu.take_woken();
        self.blocked &= !self.run_owed;
        self.stopped = posted & STOPPED != 0;
        self.untold += finished as u64;
        if self.untold >= TELL_EVERY {
            self.tell_progress();
        }
        posted != 0 || due || finished + went > 0 || self.run_owed
    }

    /// There is nothing to do: sleeps, unless something turns up.
    fn rest(&mut self, now_ns: u64) -> io::Result<()> {
        self.tell_progress();
        let device = self.group.queue.driver();
        self.run_owed |= self.cpu.take_woken();
        if self.run_owed || self.cpu.has_done() || device.has_finished(self.cpu.ring()) {
            self.blocked &= !self.run_owed;
            return Ok(());
        }
        let load_ns = self.load.as_ref().map_or(u64::MAX, Load::wakes_ns);
        let until_ns = load_ns.min(self.earliest_wish_ns);
        let timeout = match until_ns {
            u64::MAX => None,
            _ => Some(Duration::from_nanos(until_ns.saturating_sub(now_ns))),
        };
        let inbox = self.group.inboxes.of(self.cpu.ctx());
        if self.cpu.must_poll() {
            return Ok(());
        }
        inbox.sleep(device.poll_fd(self.cpu.ring()), timeout)
    }

    fn tell_progress(&mut self) {
        self.group.ios.fetch_add(std::mem::take(&mut self.untold), Ordering::Relaxed);
    }

    fn end_load(&mut self, now_ns: u64) {
        let load = self.load.take().expect("the caller has looked");
        let (mut stats, error) = load.into_results();
        stats.usage = usage::of_this_thread().since(&self.usage_before);
        let elapsed = Duration::from_nanos(now_ns - self.started_ns);
        self.ended = Some(Outcome { stats, error, elapsed });
        if self.group.active.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.group.inboxes.stop();
        }
    }

    fn take_wishes(&mut self) {
        let inbox = self.group.inboxes.of(self.cpu.ctx());
        for (nth, at_ns) in self.wishes_ns.iter_mut().enumerate() {
            *at_ns = (*at_ns).min(inbox.take_wish(nth));
        }
        self.earliest_wish_ns = self.wishes_ns.iter().copied().min().unwrap_or(u64::MAX);
    }
}

/// Submits as much of a load as may go. Answers how much went, and whether more is refused for now.
#[inline]
fn submit<D: Device>(
    turn: &mut Turn<'_, D, Inboxes>,
    load: &mut Load<'_>,
    now_ns: u64,
) -> (usize, bool) {
    let (mut count, mut is_blocked) = (0, false);
    while let Some(bio) = load.next(now_ns) {
        match turn.submit(bio) {
            Ok(()) => count += 1,
            Err(Refused::WouldBlock(bio)) => {
                load.put_back(bio);
                is_blocked = true;
                break;
            }
            Err(Refused::Invalid(bio, status)) => {
                load.fail(&bio, status);
                break;
            }
        }
    }
    if count > 0 {
        load.went(count);
    }
    (count, is_blocked)
}

/// Fulfils the wishes whose time has come.
#[cold]
fn fulfil<D: Device>(
    turn: &mut Turn<'_, D, Inboxes>,
    wishes_ns: &mut [u64; Wish::ALL.len()],
    now_ns: u64,
) {
    for (wish, at_ns) in Wish::ALL.iter().zip(wishes_ns) {
        if *at_ns <= now_ns {
            *at_ns = u64::MAX;
            turn.timer(*wish);
        }
    }
}

/// Tells the load what has ended in other threads' turns. Answers how many.
// Apart, so that the commoner loop stays small.
#[inline(never)]
fn finish_delivered(load: &mut Load<'_>, delivered: &mut Vec<Done>, now_ns: u64) -> usize {
    let count = delivered.len();
    delivered.drain(..).for_each(|done| load.finish(&done, now_ns));
    count
}

/// Ends the group when it is dropped.
struct StopOnDrop<'a>(&'a Inboxes);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}
