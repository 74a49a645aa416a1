//! One request on its way through the kernel: what is asked, and what an answer means.

use std::fmt;
use std::sync::atomic::Ordering;

use blkmq_core::{Flags, InFlight, Op, Segment, Status};
use io_uring::{opcode, squeue, types};

use super::bounce::{self, Bounce};
use super::setup::Target;
use super::{Abilities, File, MAX_SEGMENTS};
use crate::device::Area;

/// The place of the request with one driver tag.
#[derive(Debug)]
pub(super) struct Slot {
    rq: Option<InFlight>,
    step: Step,
    /// How much of the step is behind us, in steps that the kernel may do in parts.
    done_bytes: u64,
    vectors: Vectors,
    bounce: Option<Bounce>,
}

/// What the kernel is asked to do next for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Read or write.
    Transfer,
    /// Give the range back.
    Punch,
    /// Zero the range, and keep it allocated.
    ZeroRange,
    /// Write zeroes.
    Fill,
    /// Make durable.
    Sync,
}

/// What an answer of the kernel means for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There is more to ask.
    Again,
    /// It has ended.
    Done(Status),
}

/// A list of pieces of memory, as the kernel wants it. It lives here, and keeps its memory, so that
/// it stays in place until the kernel has read it.
struct Vectors(Vec<libc::iovec>);

// SAFETY: the list holds addresses that stand for memory lent to the request in the same slot,
// which may be used from whichever thread the request travels to.
unsafe impl Send for Vectors {}

impl fmt::Debug for Vectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} vectors", self.0.len())
    }
}

impl Slot {
    /// An empty slot.
    pub(super) fn new() -> Self {
        let vectors = Vectors(Vec::with_capacity(usize::from(MAX_SEGMENTS)));
        Slot { rq: None, step: Step::Sync, done_bytes: 0, vectors, bounce: None }
    }

    /// Takes a request. It comes back, with the reason, if there is no memory for what it needs, or
    /// no way to do it that it allows.
    pub(super) fn begin(&mut self, file: &File, rq: InFlight) -> Result<(), (InFlight, Status)> {
        assert!(self.rq.is_none(), "a driver tag has one request at a time");
        self.done_bytes = 0;
        let Some(step) = first_step(file, &rq) else { return Err((rq, Status::NotSupp)) };
        self.step = step;
        let fits = |segment: &Segment| file.alignment.takes(segment.addr(), segment.len_bytes());
        if self.step == Step::Transfer && !rq.segments().iter().all(fits) {
            let Ok(mut bounce) = Bounce::new(rq.len_bytes()) else {
                return Err((rq, Status::IoErr));
            };
            if rq.op() == Op::Write {
                bounce.copy_from(rq.segments());
            }
            self.bounce = Some(bounce);
        }
        self.rq = Some(rq);
        Ok(())
    }

    /// The request, which leaves the slot.
    pub(super) fn end(&mut self) -> Option<InFlight> {
        self.bounce = None;
        self.rq.take()
    }

    /// Leaves the request, and the memory the kernel may still use for it, to nobody.
    pub(super) fn forget(&mut self) {
        std::mem::forget(self.bounce.take());
        std::mem::forget(self.rq.take());
    }

    /// What to ask the kernel next. The memory that the entry names stays in place until the answer
    /// has been taken in by [`Slot::answered`], or the request has left.
    pub(super) fn entry(&mut self, target: Target, areas: &[Area]) -> squeue::Entry {
        let rq = self.rq.as_ref().expect("an occupied slot is asked for its entry");
        let fd = target.fd;
        let offset = rq.offset_bytes() + self.done_bytes;
        let fallocate = |mode: i32| {
            opcode::Fallocate::new(fd, rq.len_bytes()).offset(offset).mode(mode).build()
        };
        let entry = match self.step {
            Step::Sync => opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build(),
            Step::Punch => fallocate(libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE),
            Step::ZeroRange => fallocate(libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE),
            Step::Fill => {
                let rest = rq.len_bytes() - self.done_bytes;
                self.vectors.zeroes(rest);
                opcode::Writev::new(fd, self.vectors.addr(), self.vectors.count())
                    .offset(offset)
                    .rw_flags(durability(rq))
                    .build()
            }
            Step::Transfer => self.transfer(fd, areas),
        };
        entry.flags(target.flags)
    }

    fn transfer(&mut self, fd: types::Fd, areas: &[Area]) -> squeue::Entry {
        let rq = self.rq.as_ref().expect("an occupied slot is asked for its entry");
        let offset = rq.offset_bytes() + self.done_bytes;
        let read = rq.op() == Op::Read;
        let (addr, len, area) = match (&mut self.bounce, rq.segments()) {
            (Some(bounce), _) => (bounce.addr(), rq.len_bytes() as u32, None),
            (None, [one]) => (one.addr(), one.len_bytes(), area_of(one, areas)),
            (None, many) => {
                self.vectors.rest_of(many, self.done_bytes);
                let (list, count) = (self.vectors.addr(), self.vectors.count());
                return if read {
                    opcode::Readv::new(fd, list, count).offset(offset).build()
                } else {
                    let flags = durability(rq);
                    opcode::Writev::new(fd, list, count).offset(offset).rw_flags(flags).build()
                };
            }
        };
        // Less than a request's length, which is far below 4 GiB.
        let done = self.done_bytes as u32;
        let (addr, len) = (addr.wrapping_add(done as usize), len - done);
        let flags = durability(rq);
        match (read, area) {
            (true, Some(i)) => opcode::ReadFixed::new(fd, addr, len, i).offset(offset).build(),
            (true, None) => opcode::Read::new(fd, addr, len).offset(offset).build(),
            (false, Some(i)) => {
                opcode::WriteFixed::new(fd, addr, len, i).offset(offset).rw_flags(flags).build()
            }
            (false, None) => {
                opcode::Write::new(fd, addr, len).offset(offset).rw_flags(flags).build()
            }
        }
    }

    /// Takes in what the kernel answered to the last entry.
    pub(super) fn answered(&mut self, file: &File, result: i32) -> Verdict {
        let rq = self.rq.as_ref().expect("an answer belongs to a request");
        match (-result, self.step) {
            (libc::EINTR | libc::EAGAIN, _) => Verdict::Again,
            (libc::EOPNOTSUPP, Step::Punch) if rq.op() == Op::WriteZeroes => {
                Abilities::refused(&file.abilities.punch, "punching holes");
                self.zero_otherwise(file)
            }
            (libc::EOPNOTSUPP, Step::ZeroRange) => {
                Abilities::refused(&file.abilities.zero_range, "zeroing ranges");
                self.zero_otherwise(file)
            }
            (errno @ 1.., _) => Verdict::Done(Status::from_errno(errno)),
            (_, Step::Transfer | Step::Fill) => self.moved(file, result as u64),
            (_, Step::Punch | Step::ZeroRange) if rq.flags().contains(Flags::FUA) => {
                self.step = Step::Sync;
                Verdict::Again
            }
            (_, Step::Punch | Step::ZeroRange | Step::Sync) => Verdict::Done(Status::Ok),
        }
    }

    /// Goes on to the next best way, if the request allows it.
    fn zero_otherwise(&mut self, file: &File) -> Verdict {
        let rq = self.rq.as_ref().expect("an answer belongs to a request");
        match zeroing_step(file, rq) {
            Some(step) => {
                self.step = step;
                Verdict::Again
            }
            None => Verdict::Done(Status::NotSupp),
        }
    }

    /// Takes in that the kernel has moved `bytes` bytes.
    fn moved(&mut self, file: &File, bytes: u64) -> Verdict {
        let rq = self.rq.as_ref().expect("an answer belongs to a request");
        let block_bytes = u64::from(file.alignment.block_bytes);
        let before = self.done_bytes;
        // Direct I/O goes on at the border of a block only. (A request is whole blocks.)
        self.done_bytes = (before + bytes) / block_bytes * block_bytes;
        if self.done_bytes < rq.len_bytes() {
            // No progress is the end of the file, which has been cut short behind our back.
            let stuck = self.done_bytes == before;
            return if stuck { Verdict::Done(Status::IoErr) } else { Verdict::Again };
        }
        if let (Op::Read, Some(bounce)) = (rq.op(), &mut self.bounce) {
            bounce.copy_to(rq.segments());
        }
        Verdict::Done(Status::Ok)
    }
}

impl Vectors {
    fn addr(&self) -> *const libc::iovec {
        self.0.as_ptr()
    }

    fn count(&self) -> u32 {
        // At most `MAX_SEGMENTS`.
        self.0.len() as u32
    }

    /// What is left of `segments` behind the first `skip` bytes.
    fn rest_of(&mut self, segments: &[Segment], mut skip: u64) {
        self.0.clear();
        for segment in segments {
            let len = u64::from(segment.len_bytes());
            if skip < len {
                let addr = segment.addr().wrapping_add(skip as usize);
                let iov_len = (len - skip) as usize;
                self.0.push(libc::iovec { iov_base: addr.cast(), iov_len });
            }
            skip = skip.saturating_sub(len);
        }
    }

    /// As many zeroes as the list holds, at most `len_bytes`.
    fn zeroes(&mut self, mut len_bytes: u64) {
        self.0.clear();
        let zeroes = bounce::zeroes();
        while len_bytes > 0 && self.0.len() < usize::from(MAX_SEGMENTS) {
            let piece = len_bytes.min(zeroes.len() as u64);
            let iov_base = zeroes.as_ptr().cast_mut().cast();
            self.0.push(libc::iovec { iov_base, iov_len: piece as usize });
            len_bytes -= piece;
        }
    }
}

fn first_step(file: &File, rq: &InFlight) -> Option<Step> {
    match rq.op() {
        Op::Read | Op::Write => Some(Step::Transfer),
        Op::Flush => Some(Step::Sync),
        Op::Discard => Some(Step::Punch),
        Op::WriteZeroes => zeroing_step(file, rq),
        Op::DrvIn | Op::DrvOut => unreachable!("a file has no commands of its own"),
    }
}

/// The best way to zero a range that the storage has not refused yet, if the request allows it.
fn zeroing_step(file: &File, rq: &InFlight) -> Option<Step> {
    let may_unmap = !rq.flags().contains(Flags::NOUNMAP);
    if may_unmap && file.abilities.punch.load(Ordering::Relaxed) {
        Some(Step::Punch)
    } else if file.abilities.zero_range.load(Ordering::Relaxed) {
        Some(Step::ZeroRange)
    } else {
        (!rq.flags().contains(Flags::NOFALLBACK)).then_some(Step::Fill)
    }
}

/// The flags of a write.
fn durability(rq: &InFlight) -> i32 {
    if rq.flags().contains(Flags::FUA) { libc::RWF_DSYNC } else { 0 }
}

/// The registered area that a piece of memory lies in, if it says so and does.
fn area_of(segment: &Segment, areas: &[Area]) -> Option<u16> {
    let index = segment.buffer()?.0;
    let area = areas.get(usize::from(index))?;
    area.contains(segment.addr(), u64::from(segment.len_bytes())).then_some(index)
}
