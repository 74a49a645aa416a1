//! One clone of a job at work: what it submits, and what it learns of it.

use std::time::Duration;

use blkmq_core::{Bio, Done, Flags, Op, Priority, SECTOR_SHIFT, Segments, Status, VolumeId};

use super::memory::Memory;
use super::pace::Pace;
use crate::job::Job;
use crate::job::pattern::{Io, Kind, Pattern, Region, longest};
use crate::stats::{KindStats, Stats};

/// A clone of a job, from its start to its last completion. Times are nanoseconds of the bench's
/// clock.
pub(super) struct Load<'a> {
    pattern: Pattern,
    pace: Option<Pace>,
    memory: &'a Memory,
    volume: VolumeId,
    prio: Priority,
    slots: Box<[Slot]>,
    free: Vec<u32>,
    /// Comes next, and is not due yet.
    early: Option<Io>,
    /// Was refused because all requests are out.
    refused: Option<Bio>,
    /// The next I/O may go no earlier.
    ready_ns: u64,
    /// Nothing goes any more from here on.
    end_ns: u64,
    /// What is counted begins here; `u64::MAX` once it has begun.
    ramp_ends_ns: u64,
    measured_from_ns: u64,
    last_done_ns: u64,
    exhausted: bool,
    error: i32,
    stats: Stats,
}

/// The memory of one I/O, and what it is used for.
#[derive(Clone, Copy, Debug)]
struct Slot {
    kind: Kind,
    len_bytes: u32,
    prepared_ns: u64,
}

/// What a load has to be given.
pub(super) struct Order<'a> {
    pub(super) job: &'a Job,
    pub(super) region: Region,
    /// Which random choices it makes.
    pub(super) stream: u64,
    pub(super) volume: VolumeId,
}

impl<'a> Load<'a> {
    /// A clone of a job that begins at `now_ns`, after its delay.
    pub(super) fn new(order: &Order<'_>, memory: &'a Memory, now_ns: u64) -> Self {
        let job = order.job;
        let start_ns = after(now_ns, job.start_delay);
        let ramp_ends_ns = after(start_ns, job.ramp_time);
        let level = job.prio.unwrap_or(Priority::default().level);
        let slot = Slot { kind: Kind::Read, len_bytes: 0, prepared_ns: 0 };
        Load {
            pattern: Pattern::new(job, order.stream, order.region),
            pace: Pace::of(job, start_ns),
            memory,
            volume: order.volume,
            prio: Priority { class: job.prioclass, level },
            slots: vec![slot; job.iodepth as usize].into_boxed_slice(),
            free: (0..job.iodepth).rev().collect(),
            early: None,
            refused: None,
            ready_ns: start_ns,
            end_ns: job.runtime.map_or(u64::MAX, |runtime| after(ramp_ends_ns, runtime)),
            ramp_ends_ns,
            measured_from_ns: start_ns,
            last_done_ns: start_ns,
            exhausted: false,
            error: 0,
            stats: Stats::default(),
        }
    }

    /// The memory that a job needs for its I/Os.
    ///
    /// # Errors
    ///
    /// The system has not so much.
    pub(super) fn memory(job: &Job, seed: u64) -> std::io::Result<Memory> {
        let mut memory = Memory::new(job.iodepth, longest(job))?;
        if job.rw.mix.kinds()[Kind::Write as usize] {
            memory.scramble(seed);
        }
        Ok(memory)
    }

    /// What goes next, if anything may go now.
    // Inlined so that the bio is written once, to where the queue reads it.
    #[inline(always)]
    pub(super) fn next(&mut self, now_ns: u64) -> Option<Bio> {
        if self.refused.is_some() {
            return self.refused.take();
        }
        if now_ns < self.ready_ns || self.exhausted {
            return None;
        }
        let slot = *self.free.last()?;
        let io = match (&self.pace, &self.early) {
            (None, None) => self.pattern.next(),
            _ => self.next_paced(now_ns),
        };
        let Some(io) = io else {
            self.exhausted |= self.early.is_none();
            return None;
        };
        self.free.pop();
        self.slots[slot as usize] =
            Slot { kind: io.kind, len_bytes: io.len_bytes, prepared_ns: now_ns };
        Some(self.bio(&io, slot))
    }

    /// Whether [`Load::next`] would give something.
    #[inline]
    pub(super) fn is_ready(&self, now_ns: u64) -> bool {
        self.refused.is_some()
            || (!self.exhausted && now_ns >= self.ready_ns && !self.free.is_empty())
    }

    /// Takes back what was refused because all requests are out; it goes first when one is free.
    pub(super) fn put_back(&mut self, bio: Bio) {
        self.refused = Some(bio);
    }

    /// Takes back what the device cannot do. The job ends.
    pub(super) fn fail(&mut self, bio: &Bio, status: Status) {
        self.note(status);
        self.free.push(bio.cookie as u32);
    }

    /// Notes that `count` I/Os went in one batch.
    #[inline]
    pub(super) fn went(&mut self, count: usize) {
        self.stats.submitted.record_batch(count);
        self.stats.depth.record_depth(self.in_flight(), count);
    }

    /// Notes that one of its I/Os has ended.
    #[inline(always)]
    pub(super) fn finish(&mut self, done: &Done, now_ns: u64) {
        let index = done.cookie as usize;
        let slot = self.slots[index];
        self.free.push(index as u32);
        if self.ready_ns == u64::MAX {
            // The next one waits for those in flight, and this may have been the last of them.
            self.ready_ns = now_ns;
        }
        if !done.status.is_ok() {
            self.note(done.status);
            return;
        }
        let submitted_ns = done.submitted_at.as_ns();
        let submission_ns = submitted_ns.saturating_sub(slot.prepared_ns);
        let completion_ns = now_ns.saturating_sub(submitted_ns);
        match slot.kind {
            Kind::Sync => self.stats.sync.record(submission_ns + completion_ns),
            kind => {
                let stats = &mut self.stats.kinds[kind as usize];
                stats.record(slot.len_bytes, submission_ns, completion_ns);
            }
        }
    }

    /// Notes the end of a batch of completions, and what the time says. Answers true when the ramp
    /// has just ended and what is counted begins.
    #[inline]
    pub(super) fn settle(&mut self, finished: usize, now_ns: u64) -> bool {
        if finished > 0 {
            self.stats.kinds.iter_mut().for_each(KindStats::settle);
            self.stats.completed.record_batch(finished);
            self.last_done_ns = now_ns;
        }
        if now_ns >= self.end_ns {
            self.exhausted = true;
        }
        let ramp_ended = now_ns >= self.ramp_ends_ns;
        if ramp_ended {
            self.stats.reset();
            self.measured_from_ns = self.ramp_ends_ns;
            self.ramp_ends_ns = u64::MAX;
        }
        ramp_ended
    }

    /// Whether nothing goes any more and everything has come back.
    pub(super) fn is_over(&self) -> bool {
        self.exhausted && self.refused.is_none() && self.in_flight() == 0
    }

    /// When it has to be asked again at the latest.
    pub(super) fn wakes_ns(&self) -> u64 {
        let ready_ns =
            if self.free.is_empty() || self.exhausted { u64::MAX } else { self.ready_ns };
        let end_ns = if self.exhausted { u64::MAX } else { self.end_ns };
        ready_ns.min(end_ns).min(self.ramp_ends_ns)
    }

    /// What was counted, and the error number of the first failure.
    pub(super) fn into_results(mut self) -> (Stats, i32) {
        let runtime_ns = self.last_done_ns.saturating_sub(self.measured_from_ns);
        self.stats.runtime = Duration::from_nanos(runtime_ns);
        self.stats.total_runtime = self.stats.runtime;
        (self.stats, self.error)
    }

    #[inline]
    fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The next I/O of the pattern, unless it is not due yet; then it is kept as early.
    #[cold]
    fn next_paced(&mut self, now_ns: u64) -> Option<Io> {
        let io = self.early.take().or_else(|| self.pattern.next())?;
        let in_flight = self.in_flight();
        let Some(pace) = &mut self.pace else { return Some(io) };
        let ready_ns = pace.ready_ns(&io, in_flight, now_ns);
        if ready_ns <= now_ns {
            pace.went(&io);
            return Some(io);
        }
        self.ready_ns = ready_ns;
        self.early = Some(io);
        None
    }

    #[inline(always)]
    fn bio(&self, io: &Io, slot: u32) -> Bio {
        let mut segments = Segments::new();
        let op = match io.kind {
            Kind::Read => Op::Read,
            Kind::Write => Op::Write,
            Kind::Trim => Op::Discard,
            Kind::Sync => Op::Flush,
        };
        if op.has_data() {
            // SAFETY: the slot was free, so no request with its memory is on its way, and the
            // memory outlives the threads in which requests travel.
            segments.push(unsafe { self.memory.segment(slot, io.len_bytes) });
        }
        Bio {
            op,
            // A job waits for its I/Os, as one with direct I/O does.
            flags: Flags::SYNC,
            prio: self.prio,
            volume: self.volume,
            sector: io.offset_bytes >> SECTOR_SHIFT,
            nr_sectors: io.len_bytes >> SECTOR_SHIFT,
            segments,
            cookie: slot.into(),
        }
    }

    #[cold]
    fn note(&mut self, status: Status) {
        self.exhausted = true;
        if self.error == 0 {
            self.error = status.errno();
        }
    }
}

fn after(time_ns: u64, duration: Duration) -> u64 {
    time_ns.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}
