//! A worker: one thread that owns clients, a side of each disk, and memory, and runs to completion.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use blkmq_core::{Done, Memory, Status, Time};
use slab::Slab;
use tracing::error;

use crate::buffer::{BufferPool, Share};
use crate::clock::Clock;
use crate::cx::{Cx, Disk, Hands, Hungry, Owner, SCRATCH_BYTES};
use crate::mailbox::{Mailbox, Message};
use crate::poller::{Poller, Source};
use crate::port::{Port, Work};
use crate::service::{Interest, IoDone, Service};
use crate::timers::{Event, Timers};
use crate::unaligned::bounce_bytes;
use crate::volume::Placed;

/// How many turns a round takes at each disk at most, before the sockets are looked at again.
const TURNS_MAX: usize = 8;

/// How often clients are asked whether they keep memory from others, while somebody waits for some.
const SQUEEZE_PAUSE: Duration = Duration::from_millis(250);

/// What a worker tells the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// It has been stopped, and nothing is in flight any more.
    Quiet,
    /// Its flush has ended; whether all went well.
    Flushed(bool),
}

/// A worker. `Worker::run` is its thread.
pub(crate) struct Worker {
    hands: Hands,
    clients: Slab<Client>,
    /// Clients of which a function was called in this round.
    touched: Vec<usize>,
    ready: Vec<(Source, Interest)>,
    mail: Vec<Message>,
    done: Vec<Done>,
    /// Somebody who waited for memory waits no longer.
    has_sated: bool,
    report: Sender<Report>,
    stop: Stop,
}

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    No,
    /// Clients finish what was accepted.
    Finishing,
    /// The engine knows that all is quiet.
    Quiet,
    /// So many flushes are in flight; whether those that ended went well.
    Flushing {
        left: usize,
        is_well: bool,
    },
    Exit,
}

/// A client, and what the worker knows of it.
struct Client {
    /// `None` while one of its functions runs.
    service: Option<Box<dyn Service>>,
    /// What the poller waits for; `None` once the descriptor was taken out of it.
    interest: Option<Interest>,
    deadline: Option<Time>,
    is_touched: bool,
}

impl Worker {
    pub(crate) fn new(
        index: usize,
        clock: Clock,
        ports: Vec<Box<dyn Port>>,
        volumes: Arc<[Placed]>,
        mailboxes: Arc<[Mailbox]>,
        pool: BufferPool,
        report: Sender<Report>,
    ) -> io::Result<Self> {
        let poller = Poller::new()?;
        let readable = Interest { readable: true, ..Interest::default() };
        poller.add(mailboxes[index].event(), Source::Mailbox, readable)?;
        for (disk, port) in ports.iter().enumerate() {
            if let Some(fd) = port.poll_fd() {
                poller.add(fd, Source::Disk(disk), readable)?;
            }
        }
        let disk = |port: Box<dyn Port>| {
            let ranges = port.ranges();
            Disk { port, work: Work::default(), ranges }
        };
        let disks: Vec<Disk> = ports.into_iter().map(disk).collect();
        let bounce_bytes = bounce_bytes(disks.iter().filter_map(|disk| disk.ranges.as_deref()));
        let hands = Hands {
            index,
            clock,
            now: clock.now(),
            timers: Timers::new(disks.len()),
            disks,
            volumes,
            mailboxes,
            poller,
            requests: Slab::new(),
            ended: Vec::new(),
            without_bounce: VecDeque::new(),
            reserve: bounce_bytes.map(|bytes| pool.get(bytes).expect("the pool is whole")),
            bounce_bytes,
            hungry: Hungry::default(),
            again: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES],
            pool,
        };
        Ok(Worker {
            hands,
            clients: Slab::new(),
            touched: Vec::new(),
            ready: Vec::new(),
            mail: Vec::new(),
            done: Vec::new(),
            has_sated: false,
            report,
            stop: Stop::No,
        })
    }

    /// Works until it is told to end.
    ///
    /// # Errors
    ///
    /// If the poller fails, although it and its descriptors are ours and open.
    pub(crate) fn run(mut self) -> io::Result<()> {
        while self.stop != Stop::Exit {
            self.wait()?;
            self.hands.now = self.hands.clock.now();
            self.read_mail();
            self.fire_timers();
            self.serve_ready();
            self.take_turns();
            self.finish_round();
            self.go_on();
            self.feed_hungry();
            self.report_quiet();
        }
        Ok(())
    }

    /// Sleeps, if there is nothing to do.
    fn wait(&mut self) -> io::Result<()> {
        let mailboxes = Arc::clone(&self.hands.mailboxes);
        let inbox = mailboxes[self.hands.index].inbox();
        let is_busy = !self.touched.is_empty() || self.hands.is_due();
        let may_sleep = !is_busy && inbox.prepare_to_sleep();
        let timeout = if may_sleep {
            self.hands.timers.next().map(|at| at.since(self.hands.clock.now()))
        } else {
            Some(Duration::ZERO)
        };
        let waited = self.hands.poller.wait(timeout, &mut self.ready);
        if may_sleep {
            inbox.wake_up();
        }
        waited
    }

    fn read_mail(&mut self) {
        let mut mail = std::mem::take(&mut self.mail);
        self.hands.mailboxes[self.hands.index].inbox().take(&mut mail);
        for message in mail.drain(..) {
            match message {
                Message::Kick { disk } => self.hands.disks[disk].work.is_kicked = true,
                Message::Wish { disk, at, why } => self.hands.timers.wish(disk, at, why),
                Message::Done { done } => self.done.push(done),
                Message::Granted { request } => self.hands.granted(request),
                Message::Adopt(service) => self.adopt(service),
                Message::Remote { volume, io } => self.hands.submit_remote(volume, io),
                Message::Stop => self.begin_stop(),
                Message::Flush => self.begin_flush(),
                Message::Exit => self.stop = Stop::Exit,
            }
        }
        self.mail = mail;
    }

    fn fire_timers(&mut self) {
        while let Some(event) = self.hands.timers.fire(self.hands.now) {
            match event {
                Event::Squeeze => self.squeeze(),
                Event::Wish { disk, why } => self.hands.disks[disk].work.wishes.push(why),
                Event::Deadline { client, at } => {
                    let is_current =
                        self.clients.get(client).is_some_and(|c| c.deadline == Some(at));
                    if is_current {
                        self.clients[client].deadline = None;
                        self.call(client, |service, cx| service.deadline(cx));
                    }
                }
            }
        }
    }

    fn serve_ready(&mut self) {
        let mut ready = std::mem::take(&mut self.ready);
        for (source, interest) in ready.drain(..) {
            match source {
                Source::Mailbox => self.hands.mailboxes[self.hands.index].clear_event(),
                // The turn at the disk reaps in any case.
                Source::Disk(disk) => self.hands.disks[disk].work.is_kicked = true,
                Source::Service(client) => {
                    if self.clients.contains(client) {
                        self.call(client, |service, cx| service.ready(cx, interest));
                    }
                }
            }
        }
        self.ready = ready;
    }

    /// Takes turns at the disks while they have something for us.
    fn take_turns(&mut self) {
        self.deliver();
        for _ in 0..TURNS_MAX {
            if !self.hands.is_due() {
                return;
            }
            let now = self.hands.now;
            for disk in &mut self.hands.disks {
                if disk.is_due() {
                    disk.port.turn(now, &mut disk.work, &mut self.done);
                }
            }
            self.deliver();
        }
    }

    /// Gives what has ended to whom it belongs.
    fn deliver(&mut self) {
        let mut all = std::mem::take(&mut self.done);
        all.append(&mut self.hands.ended);
        for done in all.drain(..) {
            if done.memory == Memory::Lent && !self.answer_early(&done) {
                continue;
            }
            let pending = self.hands.requests.remove(done.cookie as usize);
            self.hands.let_go(pending.hold);
            let client = match pending.owner {
                Owner::Client(client) => client,
                Owner::Caller(caller) => {
                    caller.done(done.status);
                    continue;
                }
                Owner::Answered => continue,
                Owner::Worker => {
                    self.flush_ended(done.status);
                    continue;
                }
                Owner::Part(request) => {
                    self.hands.part_ended(request, done.status);
                    continue;
                }
            };
            let done = IoDone {
                mark: pending.mark,
                status: done.status,
                buffer: pending.buffer,
                latency: self.hands.now.since(done.submitted_at),
                submitted_at: done.submitted_at,
            };
            self.call(client, |service, cx| service.done(cx, done));
        }
        self.done = all;
    }

    /// A request was given up while the device still has its memory. A client is told so at once,
    /// and what the request held stays until the memory has come back. Others wait for that, since
    /// what they do next is with the same memory. Answers whether the request has come to its end.
    fn answer_early(&mut self, done: &Done) -> bool {
        let pending = &mut self.hands.requests[done.cookie as usize];
        let Owner::Client(client) = pending.owner else {
            return matches!(pending.owner, Owner::Worker);
        };
        pending.owner = Owner::Answered;
        let done = IoDone {
            mark: pending.mark,
            status: done.status,
            buffer: None,
            latency: self.hands.now.since(done.submitted_at),
            submitted_at: done.submitted_at,
        };
        self.call(client, |service, cx| service.done(cx, done));
        false
    }

    /// If memory has come back, those who wait for it try again, in their order. What they do is
    /// finished in the next round, which comes without sleep.
    fn feed_hungry(&mut self) {
        let is_anybody = !self.hands.hungry.is_empty();
        if is_anybody && !self.hands.timers.has_squeeze() {
            let at = self.hands.now + SQUEEZE_PAUSE;
            self.hands.timers.squeeze(at);
        }
        let is_waited_for = is_anybody || !self.hands.without_bounce.is_empty();
        let is_worth_while = self.hands.pool.take_freed() | std::mem::take(&mut self.has_sated);
        if !is_waited_for || !is_worth_while {
            return;
        }
        // They hold memory already, so they go before those who would take more.
        self.hands.feed_unaligned();
        self.feed(Share::Short);
        self.feed(Share::Long);
    }

    /// Has those who wait for a share try again, one buffer each, until there is none for one.
    fn feed(&mut self, share: Share) {
        for _ in 0..self.hands.hungry.line(share).len() {
            let Some(client) = self.hands.hungry.begin_turn(share) else { return };
            if self.clients.contains(client) {
                self.call(client, |service, cx| service.retry(cx));
            }
            if self.hands.hungry.end_turn() {
                return;
            }
        }
        // There may be something left for those who have joined the line again.
        self.has_sated |= !self.hands.hungry.line(share).is_empty();
    }

    /// Has every client look whether it keeps memory from others, while somebody waits for some.
    fn squeeze(&mut self) {
        if self.hands.hungry.is_empty() {
            return;
        }
        let clients: Vec<usize> = self.clients.iter().map(|(client, _)| client).collect();
        for client in clients {
            self.call(client, |service, cx| service.squeeze(cx));
        }
    }

    /// Those who wanted another round have it in the next one.
    fn go_on(&mut self) {
        let mut again = std::mem::take(&mut self.hands.again);
        for client in again.drain(..) {
            if self.clients.contains(client) {
                self.touch(client);
            }
        }
        self.hands.again = again;
    }

    /// Sends what was gathered, waits for what is wanted, and lets go who is finished.
    fn finish_round(&mut self) {
        let mut touched = std::mem::take(&mut self.touched);
        for client in touched.drain(..) {
            self.call_untouched(client, |service, cx| service.flush(cx));
            self.clients[client].is_touched = false;
            self.update(client);
        }
        self.touched = touched;
    }

    /// Takes a client out of those who wait for memory. They may have waited for him alone.
    fn sate(&mut self, client: usize) {
        if !self.hands.hungry.is_empty() {
            self.has_sated |= self.hands.hungry.remove(client);
        }
    }

    /// Brings the poller in line with what a client wants, and drops the client if it is finished.
    fn update(&mut self, client: usize) {
        let service = self.clients[client].service.as_ref().expect("no function of its runs");
        let is_finished = service.is_finished();
        if is_finished || !service.is_hungry() {
            self.sate(client);
        }
        let slot = &mut self.clients[client];
        let service = slot.service.as_ref().expect("no function of its runs");
        if is_finished {
            let interest = slot.interest.take();
            if interest.is_some() {
                self.let_go(client);
            }
            self.clients.remove(client);
            self.hands.mailboxes[self.hands.index].service_gone();
            return;
        }
        let wanted = service.interest();
        if slot.interest == Some(wanted) {
            return;
        }
        let source = Source::Service(client);
        // A hang-up is reported whether it is waited for or not. So a client that waits for nothing
        // is taken out of the poller, or it would be reported for ever.
        let is_nothing = wanted == Interest::default();
        let poller = &self.hands.poller;
        let changed = match (slot.interest, is_nothing) {
            (Some(_), true) => poller.remove(service.fd()),
            (None, true) => Ok(()),
            (Some(_), false) => poller.change(service.fd(), source, wanted),
            (None, false) => poller.add(service.fd(), source, wanted),
        };
        slot.interest = (!is_nothing).then_some(wanted);
        if let Err(error) = changed {
            error!(%error, "a client's socket cannot be waited for; nothing more is heard of it");
        }
    }

    fn let_go(&self, client: usize) {
        let service = self.clients[client].service.as_ref().expect("no function of its runs");
        if let Err(error) = self.hands.poller.remove(service.fd()) {
            error!(%error, "a client's socket was not being waited for");
        }
    }

    fn adopt(&mut self, service: Box<dyn Service>) {
        let client = self.clients.insert(Client {
            service: Some(service),
            interest: None,
            deadline: None,
            is_touched: false,
        });
        if self.stop == Stop::No {
            self.touch(client);
        } else {
            self.call(client, |service, cx| service.stop(cx));
        }
    }

    /// Calls one of a client's functions. The round will end with its `flush`.
    fn call(&mut self, client: usize, f: impl FnOnce(&mut dyn Service, &mut Cx<'_>)) {
        self.touch(client);
        self.call_untouched(client, f);
    }

    fn touch(&mut self, client: usize) {
        if !std::mem::replace(&mut self.clients[client].is_touched, true) {
            self.touched.push(client);
        }
    }

    fn call_untouched(&mut self, client: usize, f: impl FnOnce(&mut dyn Service, &mut Cx<'_>)) {
        let slot = &mut self.clients[client];
        let service = slot.service.as_mut().expect("a client's functions do not call each other");
        let mut cx = Cx { hands: &mut self.hands, client, deadline: &mut slot.deadline };
        f(service.as_mut(), &mut cx);
    }

    fn begin_stop(&mut self) {
        self.stop = Stop::Finishing;
        let clients: Vec<usize> = self.clients.iter().map(|(client, _)| client).collect();
        for client in clients {
            self.call(client, |service, cx| service.stop(cx));
        }
    }

    fn report_quiet(&mut self) {
        let is_quiet = self.clients.is_empty() && self.hands.requests.is_empty();
        if self.stop == Stop::Finishing && is_quiet {
            self.stop = Stop::Quiet;
            self.tell(Report::Quiet);
        }
    }

    fn begin_flush(&mut self) {
        let disks = self.hands.disks.len();
        self.stop = Stop::Flushing { left: disks, is_well: true };
        for disk in 0..disks {
            self.hands.submit_flush(disk);
        }
        if disks == 0 {
            self.tell(Report::Flushed(true));
        }
    }

    fn flush_ended(&mut self, status: Status) {
        let Stop::Flushing { left, is_well } = self.stop else {
            unreachable!("a worker flushes of its own at the end alone");
        };
        let (left, is_well) = (left - 1, is_well && status.is_ok());
        self.stop = Stop::Flushing { left, is_well };
        if left == 0 {
            self.tell(Report::Flushed(is_well));
        }
    }

    fn tell(&self, report: Report) {
        // An engine that no longer listens has given up waiting, and ends the process.
        let _ = self.report.send(report);
    }
}
