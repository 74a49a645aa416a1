//! A disk with a volatile cache, bad sectors, a number of slots, and requests that it forgets.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use blkmq_core::{
    Driver, Expired, Flags, HctxId, InFlight, Limits, Op, QueueRq, Restarter, Status, Time,
    TimeoutAnswer,
};

use crate::order::{overlap, values};

/// A ring knows which thread it belongs to.
#[derive(Debug)]
pub(crate) struct Ring(pub(crate) usize);

/// What the disk took, for looking back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) op: Op,
    pub(crate) flags: Flags,
    pub(crate) sectors: Range<u64>,
    pub(crate) nr_segments: usize,
    pub(crate) hctx: HctxId,
    pub(crate) at: Time,
}

/// A request that the disk works on.
#[derive(Debug)]
pub(crate) struct Flying {
    ring: usize,
    pub(crate) rq: InFlight,
    /// It will not end by itself.
    pub(crate) lost: bool,
    /// Of a flush: which versions of the sectors were there when it came.
    covers: Vec<u64>,
}

/// How the disk answers when it is full.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WhenFull {
    Kick,
    Completion,
    RetryAfter(Duration),
}

/// What the disk says when it is asked about a request that is late.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WhenLate {
    WaitFor(Duration),
    /// What a driver says that has no opinion.
    WaitAsLongAgain,
    Abandon,
    Finish,
}

/// What a test sees of the disk and may change.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) now: Time,
    pub(crate) limits: Limits,
    /// What each sector is filled with, and how often it was written.
    pub(crate) store: Vec<u64>,
    pub(crate) version: Vec<u64>,
    /// The version of each sector that would survive a loss of power.
    pub(crate) durable: Vec<u64>,
    pub(crate) bad: BTreeSet<u64>,
    pub(crate) slots: usize,
    pub(crate) when_full: WhenFull,
    pub(crate) when_late: WhenLate,
    pub(crate) in_flight: Vec<Flying>,
    finished: Vec<VecDeque<(InFlight, Status)>>,
    owed: BTreeSet<HctxId>,
    /// What submitters were not made to wait for any longer.
    pub(crate) abandoned: Vec<Range<u64>>,
    pub(crate) flush_status: Status,
    pub(crate) taken: Vec<Taken>,
    pub(crate) expired: Vec<Expired>,
    pub(crate) most_out: usize,
}

pub(crate) struct Disk(Mutex<State>);

impl Disk {
    pub(crate) fn new(limits: Limits, nr_rings: usize) -> Self {
        let sectors = limits.capacity_sectors as usize;
        Disk(Mutex::new(State {
            now: Time::ZERO,
            limits,
            store: vec![0; sectors],
            version: vec![0; sectors],
            durable: vec![0; sectors],
            bad: BTreeSet::new(),
            slots: usize::MAX,
            when_full: WhenFull::Kick,
            when_late: WhenLate::Abandon,
            in_flight: Vec::new(),
            finished: (0..nr_rings).map(|_| VecDeque::new()).collect(),
            owed: BTreeSet::new(),
            abandoned: Vec::new(),
            flush_status: Status::Ok,
            taken: Vec::new(),
            expired: Vec::new(),
            most_out: 0,
        }))
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // A test that fails may hold this, and is to fail for its own reason.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Driver for Disk {
    type Ring = Ring;

    fn limits(&self) -> Limits {
        self.state().limits
    }

    fn queue_rq(&self, ring: &mut Ring, rq: InFlight) -> QueueRq {
        let mut state = self.state();
        if state.in_flight.len() >= state.slots {
            let restarter = state.refuse(rq.hctx());
            return QueueRq::Busy(rq, restarter);
        }
        state.take(ring.0, rq);
        QueueRq::Queued
    }

    fn commit_rqs(&self, _: &mut Ring) {}

    fn reap(&self, ring: &mut Ring, mut end: impl FnMut(InFlight, Status)) {
        let mut state = self.state();
        while let Some((rq, status)) = state.finished[ring.0].pop_front() {
            end(rq, status);
        }
    }

    fn timeout(&self, ring: &mut Ring, expired: Expired) -> TimeoutAnswer {
        let mut state = self.state();
        state.expired.push(expired);
        let is_it =
            |flying: &Flying| (flying.rq.hctx(), flying.rq.tag()) == (expired.hctx, expired.tag);
        let index = state.in_flight.iter().position(is_it).expect("what is late is in flight");
        assert_eq!(state.in_flight[index].ring, ring.0, "asked on the ring that it went out on");
        let Flying { rq, lost, .. } = &state.in_flight[index];
        if rq.op() == Op::Flush && !lost {
            // After a flush that is given up nothing is written any more.
            return TimeoutAnswer::WaitUntil(expired.now + Duration::from_secs(1));
        }
        match state.when_late {
            WhenLate::WaitFor(time) => TimeoutAnswer::WaitUntil(expired.now + time),
            WhenLate::WaitAsLongAgain => expired.wait_as_long_again(),
            WhenLate::Finish => {
                state.finish(index);
                TimeoutAnswer::Done
            }
            WhenLate::Abandon => {
                let flying = &mut state.in_flight[index];
                flying.lost = true;
                let (is_flush, sectors) = (flying.rq.op() == Op::Flush, sectors(&flying.rq));
                let answer = flying.rq.abandon();
                if !is_flush {
                    state.abandoned.push(sectors);
                }
                TimeoutAnswer::Abandon(answer)
            }
        }
    }
}

impl State {
    fn refuse(&mut self, hctx: HctxId) -> Restarter {
        match self.when_full {
            WhenFull::Completion if self.in_flight.iter().any(|f| f.rq.hctx() == hctx) => {
                Restarter::Completion
            }
            WhenFull::Completion | WhenFull::Kick => {
                self.owed.insert(hctx);
                Restarter::Kick
            }
            WhenFull::RetryAfter(time) => Restarter::RetryAt(self.now + time),
        }
    }

    fn take(&mut self, ring: usize, rq: InFlight) {
        let sectors = sectors(&rq);
        self.check(&rq, &sectors);
        for other in &self.in_flight {
            let same_tag = (other.rq.hctx(), other.rq.tag()) == (rq.hctx(), rq.tag());
            assert!(!same_tag, "a tag is out once");
            assert!(
                rq.op().is_passthrough() || !overlap(&crate::disk::sectors(&other.rq), &sectors),
                "the same sectors twice: {rq:?} and {other:?}"
            );
        }
        self.taken.push(Taken {
            op: rq.op(),
            flags: rq.flags(),
            sectors,
            nr_segments: rq.segments().len(),
            hctx: rq.hctx(),
            at: self.now,
        });
        let is_flush = rq.op() == Op::Flush;
        let flush_is_out = self.in_flight.iter().any(|flying| flying.rq.op() == Op::Flush);
        assert!(!is_flush || !flush_is_out, "one flush is in flight at a time");
        let covers = if is_flush { self.version.clone() } else { Vec::new() };
        self.in_flight.push(Flying { ring, rq, lost: false, covers });
        self.most_out = self.most_out.max(self.in_flight.len());
    }

    /// The layer holds itself to what the disk can take.
    fn check(&self, rq: &InFlight, sectors: &Range<u64>) {
        let limits = &self.limits;
        if rq.op().is_passthrough() || rq.op() == Op::Flush {
            return;
        }
        let block = u64::from(limits.logical_block_sectors);
        assert!(sectors.end <= limits.capacity_sectors, "past the end: {rq:?}");
        assert!(sectors.start.is_multiple_of(block) && sectors.end.is_multiple_of(block));
        assert!(!sectors.is_empty());
        assert!(rq.nr_sectors() <= limits.longest(rq.op()), "too long: {rq:?}");
        if rq.op().has_data() {
            assert!(rq.segments().len() <= usize::from(limits.max_segments), "{rq:?}");
            let bytes: u64 = rq.segments().iter().map(|s| u64::from(s.len_bytes())).sum();
            assert_eq!(bytes, rq.len_bytes(), "memory for each sector");
        }
        let chunk = u64::from(limits.chunk_sectors);
        let crosses = chunk != 0 && sectors.start / chunk != (sectors.end - 1) / chunk;
        assert!(!crosses, "across a boundary: {rq:?}");
        assert!(!rq.flags().contains(Flags::PREFLUSH), "the layer flushes by itself");
        let fua = rq.flags().contains(Flags::FUA);
        assert!(!fua || (limits.fua && limits.write_cache), "the disk has no FUA");
    }

    /// Kicks that the disk owes and can give.
    pub(crate) fn take_owed(&mut self) -> BTreeSet<HctxId> {
        let has_room = self.in_flight.len() < self.slots;
        if has_room { std::mem::take(&mut self.owed) } else { BTreeSet::new() }
    }

    pub(crate) fn has_owed(&self) -> bool {
        self.in_flight.len() < self.slots && !self.owed.is_empty()
    }

    pub(crate) fn has_finished(&self, ring: usize) -> bool {
        !self.finished[ring].is_empty()
    }

    /// The requests that will end by themselves.
    pub(crate) fn at_work(&self) -> Vec<usize> {
        (0..self.in_flight.len()).filter(|index| !self.in_flight[*index].lost).collect()
    }

    /// Ends a request; it is to be reaped on the ring it came by.
    pub(crate) fn finish(&mut self, index: usize) {
        let Flying { ring, rq, covers, .. } = self.in_flight.remove(index);
        let status = self.execute(&rq, &covers);
        self.finished[ring].push_back((rq, status));
    }

    fn execute(&mut self, rq: &InFlight, covers: &[u64]) -> Status {
        if rq.op() == Op::Flush {
            for (durable, covered) in self.durable.iter_mut().zip(covers) {
                *durable = (*durable).max(*covered);
            }
            return self.flush_status;
        }
        let range = sectors(rq);
        if rq.op().is_passthrough() {
            return Status::Ok;
        }
        if self.bad.range(range.clone()).next().is_some() {
            return Status::Medium;
        }
        let places = range.start as usize..range.end as usize;
        match rq.op() {
            Op::Read => self.fill(rq, places),
            Op::Write => self.store[places.clone()].copy_from_slice(&values(&bytes_of(rq))),
            _ => self.store[places.clone()].fill(0),
        }
        if rq.op() != Op::Read {
            self.note_written(rq, range);
        }
        Status::Ok
    }

    fn note_written(&mut self, rq: &InFlight, range: Range<u64>) {
        let is_durable = !self.limits.write_cache || rq.flags().contains(Flags::FUA);
        for sector in range.start as usize..range.end as usize {
            self.version[sector] += 1;
            if is_durable {
                self.durable[sector] = self.version[sector];
            }
        }
    }

    fn fill(&self, rq: &InFlight, places: Range<usize>) {
        let sector = |value: &u64| value.to_le_bytes().repeat(64);
        let bytes: Vec<u8> = self.store[places].iter().flat_map(sector).collect();
        let mut at = 0;
        for segment in rq.segments() {
            let len = segment.len_bytes() as usize;
            // SAFETY: whoever made the segment keeps its memory alive and does not touch it until
            // the request is completed, which it is not while the disk has the handle.
            let memory = unsafe { std::slice::from_raw_parts_mut(segment.addr(), len) };
            memory.copy_from_slice(&bytes[at..at + len]);
            at += len;
        }
    }
}

fn sectors(rq: &InFlight) -> Range<u64> {
    rq.sector()..rq.sector() + u64::from(rq.nr_sectors())
}

fn bytes_of(rq: &InFlight) -> Vec<u8> {
    let mut bytes = Vec::new();
    for segment in rq.segments() {
        // SAFETY: as in `fill`; the submitter does not change what it writes meanwhile.
        let memory =
            unsafe { std::slice::from_raw_parts(segment.addr(), segment.len_bytes() as usize) };
        bytes.extend_from_slice(memory);
    }
    bytes
}
