//! A device that does what a test tells it: when it is busy, what fails, what ends, and when.
//!
//! It holds its driver's side of the contract: `Restarter::Completion` is only answered while a
//! request of the same hardware queue is out, and a kick that was promised is given. It holds the
//! layer to its side as well: tags, the ring of the dispatcher, commits.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use blkmq_core::{
    CtxId, Driver, HctxId, InFlight, Limits, Op, Queue, QueueRq, Restarter, SECTOR_SIZE_BYTES,
    Status, Time,
};

use crate::env::Env;

/// How a busy device has a request tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Busy {
    /// By a completion, if something of the hardware queue is out; else by a kick.
    Completion,
    /// By a kick, once it can take more.
    Kick,
    /// After a while.
    RetryAfter(Duration),
}

/// What the device says to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Take,
    Busy(Busy),
    /// Claims that a completion will restart, though nothing is out.
    BusyCompletionAnyway,
    /// Gives the kick that it owes before it has even answered.
    KickThenBusy,
    Fail(Status),
    /// Forgets the request, which is a defect.
    Drop,
}

/// Something to be done once, in the middle of another thread's turn.
pub(crate) type Meanwhile = Box<dyn FnOnce() + Send>;

/// A ring knows which thread it belongs to.
#[derive(Debug)]
pub(crate) struct Ring {
    pub(crate) id: usize,
}

/// A request that the device took, for looking back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Issue {
    pub(crate) hctx: HctxId,
    pub(crate) op: Op,
    pub(crate) sector: u64,
}

#[derive(Debug)]
pub(crate) struct Flying {
    ring: usize,
    pub(crate) rq: InFlight,
}

/// What a test sees of the device and may change.
pub(crate) struct State {
    pub(crate) now: Time,
    /// How many requests it takes at a time.
    pub(crate) slots: Option<usize>,
    /// It takes nothing at all for the time being.
    pub(crate) stuffed: bool,
    /// What it says when it can take no more.
    pub(crate) when_full: Busy,
    /// What it says to the next requests; afterwards, whatever its slots say.
    pub(crate) script: VecDeque<Answer>,
    /// Done before the next answer: what other threads do while this one is in the driver.
    pub(crate) meanwhile: Option<Meanwhile>,
    /// Marks what it takes as prepared.
    pub(crate) prepares: bool,
    /// Queued on each ring and not committed.
    pending: Vec<Vec<InFlight>>,
    pub(crate) in_flight: Vec<Flying>,
    /// Ended, and not reaped.
    finished: Vec<VecDeque<(InFlight, Status)>>,
    owed: BTreeSet<HctxId>,
    store: Vec<u8>,
    /// Which tags are out.
    tags: BTreeSet<(HctxId, u32)>,
    /// How each request that has ended did, until its submitter was told the same.
    pub(crate) ended: HashMap<(Op, u64), Vec<Status>>,
    pub(crate) asked: usize,
    pub(crate) issues: Vec<Issue>,
    /// How many requests each commit told of, zero if none.
    pub(crate) commits: Vec<usize>,
    /// The times that busy answers named.
    pub(crate) promised: Vec<(CtxId, Time)>,
    /// A flush may fail as other requests may.
    pub(crate) flush_fails: bool,
    pub(crate) most_out: usize,
    pub(crate) most_out_of_hctx: usize,
    /// The queue, to be kicked from within an answer.
    pub(crate) queue: Weak<Queue<Device, Env>>,
}

/// The device.
pub(crate) struct Device {
    limits: Limits,
    state: Mutex<State>,
}

/// The limits of the device unless a test has others.
pub(crate) fn limits(capacity_sectors: u64) -> Limits {
    Limits {
        capacity_sectors,
        logical_block_sectors: 1,
        max_sectors: 64,
        max_segments: 4,
        max_discard_sectors: 64,
        max_write_zeroes_sectors: 64,
        read_only: false,
        write_cache: true,
        fua: true,
        ..Limits::default()
    }
}

impl Device {
    pub(crate) fn new(limits: Limits, nr_rings: usize) -> Self {
        let state = State {
            now: Time::ZERO,
            slots: None,
            stuffed: false,
            when_full: Busy::Kick,
            script: VecDeque::new(),
            meanwhile: None,
            prepares: false,
            pending: (0..nr_rings).map(|_| Vec::new()).collect(),
            in_flight: Vec::new(),
            finished: (0..nr_rings).map(|_| VecDeque::new()).collect(),
            owed: BTreeSet::new(),
            store: vec![0; (limits.capacity_sectors * SECTOR_SIZE_BYTES) as usize],
            tags: BTreeSet::new(),
            ended: HashMap::new(),
            asked: 0,
            issues: Vec::new(),
            commits: Vec::new(),
            promised: Vec::new(),
            flush_fails: false,
            most_out: 0,
            most_out_of_hctx: 0,
            queue: Weak::new(),
        };
        Device { limits, state: Mutex::new(state) }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // A test that fails may hold this, and is to fail for its own reason.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Driver for Device {
    type Ring = Ring;

    fn limits(&self) -> Limits {
        self.limits
    }

    fn queue_rq(&self, ring: &mut Ring, rq: InFlight) -> QueueRq {
        let (answer, queue, meanwhile) = {
            let mut state = self.state();
            state.asked += 1;
            (state.answer(), state.queue.clone(), state.meanwhile.take())
        };
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
        let hctx = rq.hctx();
        if answer == Answer::KickThenBusy {
            queue.upgrade().expect("the queue that asks is there").kick(hctx);
        }
        let mut state = self.state();
        // After a flush that failed nothing would be written any more; `flush.rs` is about that.
        let fails = matches!(answer, Answer::Fail(_) | Answer::Drop);
        let answer = if fails && rq.op() == Op::Flush { Answer::Take } else { answer };
        match answer {
            Answer::Take => state.take(ring, rq),
            Answer::Busy(busy) => {
                let restarter = state.refuse(ring, hctx, busy);
                QueueRq::Busy(rq, restarter)
            }
            Answer::BusyCompletionAnyway => QueueRq::Busy(rq, Restarter::Completion),
            Answer::KickThenBusy => QueueRq::Busy(rq, Restarter::Kick),
            Answer::Fail(status) => {
                state.note_end(&rq, status);
                QueueRq::Failed(rq, status)
            }
            Answer::Drop => {
                state.note_end(&rq, Status::IoErr);
                QueueRq::Queued
            }
        }
    }

    fn commit_rqs(&self, ring: &mut Ring) {
        let mut state = self.state();
        let pending = std::mem::take(&mut state.pending[ring.id]);
        state.commits.push(pending.len());
        let flying = pending.into_iter().map(|rq| Flying { ring: ring.id, rq });
        state.in_flight.extend(flying);
    }

    fn reap(&self, ring: &mut Ring, mut end: impl FnMut(InFlight, Status)) {
        let mut state = self.state();
        while let Some((rq, status)) = state.finished[ring.id].pop_front() {
            state.tags.remove(&(rq.hctx(), rq.tag()));
            end(rq, status);
        }
    }
}

impl State {
    fn answer(&mut self) -> Answer {
        if let Some(answer) = self.script.pop_front() {
            return answer;
        }
        if self.can_take() { Answer::Take } else { Answer::Busy(self.when_full) }
    }

    fn can_take(&self) -> bool {
        let pending: usize = self.pending.iter().map(Vec::len).sum();
        !self.stuffed && self.slots.is_none_or(|slots| self.in_flight.len() + pending < slots)
    }

    fn take(&mut self, ring: &Ring, mut rq: InFlight) -> QueueRq {
        assert!(self.tags.insert((rq.hctx(), rq.tag())), "tag {} is out twice", rq.tag());
        let of_hctx = self.tags.iter().filter(|(hctx, _)| *hctx == rq.hctx()).count();
        self.most_out = self.most_out.max(self.tags.len());
        self.most_out_of_hctx = self.most_out_of_hctx.max(of_hctx);
        self.issues.push(Issue { hctx: rq.hctx(), op: rq.op(), sector: rq.sector() });
        if self.prepares {
            rq.mark_prepared();
        }
        self.pending[ring.id].push(rq);
        QueueRq::Queued
    }

    fn refuse(&mut self, ring: &Ring, hctx: HctxId, busy: Busy) -> Restarter {
        match busy {
            Busy::Completion if self.tags.iter().any(|(of, _)| *of == hctx) => {
                Restarter::Completion
            }
            Busy::Completion | Busy::Kick => {
                self.owed.insert(hctx);
                Restarter::Kick
            }
            Busy::RetryAfter(delay) => {
                let at = self.now + delay;
                self.promised.push((CtxId(ring.id as u16), at));
                Restarter::RetryAt(at)
            }
        }
    }

    fn note_end(&mut self, rq: &InFlight, status: Status) {
        if rq.op() == Op::Flush {
            // One flush may stand for many, so it cannot be held against them one by one.
            return;
        }
        self.ended.entry((rq.op(), rq.sector())).or_default().push(status);
    }

    /// The kicks that the device can give by now, and owes.
    pub(crate) fn take_owed(&mut self) -> BTreeSet<HctxId> {
        if self.can_take() { std::mem::take(&mut self.owed) } else { BTreeSet::new() }
    }

    pub(crate) fn has_owed(&self) -> bool {
        self.can_take() && !self.owed.is_empty()
    }

    pub(crate) fn has_finished(&self, ring: usize) -> bool {
        !self.finished[ring].is_empty()
    }

    /// Ends a request; it is to be reaped on the ring it came by.
    pub(crate) fn finish(&mut self, index: usize, status: Status) {
        let status = self.status_of(index, status);
        let Flying { ring, rq } = self.in_flight.remove(index);
        self.end(&rq, status);
        self.finished[ring].push_back((rq, status));
    }

    /// Ends a request that will be completed in another way than by reaping.
    pub(crate) fn finish_apart(&mut self, index: usize, status: Status) -> InFlight {
        let rq = self.take_back(index);
        self.end(&rq, status);
        rq
    }

    /// Gives up a request that is to be tried again.
    pub(crate) fn take_back(&mut self, index: usize) -> InFlight {
        let Flying { rq, .. } = self.in_flight.remove(index);
        self.tags.remove(&(rq.hctx(), rq.tag()));
        rq
    }

    fn is_flush(&self, index: usize) -> bool {
        self.in_flight[index].rq.op() == Op::Flush
    }

    /// The status with which a request may be ended that is to end with `status`.
    pub(crate) fn status_of(&self, index: usize, status: Status) -> Status {
        if self.is_flush(index) && !self.flush_fails { Status::Ok } else { status }
    }

    /// Forgets a request, which is a defect.
    pub(crate) fn lose(&mut self, index: usize) -> InFlight {
        let rq = self.take_back(index);
        self.note_end(&rq, Status::IoErr);
        rq
    }

    /// The request in flight that begins at `sector`.
    pub(crate) fn index_of(&self, sector: u64) -> usize {
        let found = self.in_flight.iter().position(|flying| flying.rq.sector() == sector);
        found.unwrap_or_else(|| panic!("nothing in flight at sector {sector}"))
    }

    fn end(&mut self, rq: &InFlight, status: Status) {
        self.note_end(rq, status);
        if status.is_ok() {
            self.execute(rq);
        }
    }

    fn execute(&mut self, rq: &InFlight) {
        let place = rq.offset_bytes() as usize..(rq.offset_bytes() + rq.len_bytes()) as usize;
        if matches!(rq.op(), Op::Discard | Op::WriteZeroes) {
            self.store[place].fill(0);
            return;
        }
        let mut at = place.start;
        for segment in rq.segments() {
            let len = segment.len_bytes() as usize;
            let stored = &mut self.store[at..at + len];
            // SAFETY: whoever made the segment keeps its memory alive and does not touch it until
            // the request is completed, which it is not while the device has the handle.
            let memory = unsafe { std::slice::from_raw_parts_mut(segment.addr(), len) };
            match rq.op() {
                Op::Read => memory.copy_from_slice(stored),
                _ => stored.copy_from_slice(memory),
            }
            at += len;
        }
    }
}
