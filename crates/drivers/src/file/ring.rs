//! One worker thread's io_uring, and the requests that are in it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use blkmq_core::{InFlight, QueueRq, Status};
use io_uring::{EnterFlags, IoUring};
use tracing::error;

use super::File;
use super::setup::{self, Target};
use super::slot::{Slot, Verdict};
use crate::device::Area;

/// One worker thread's way to a [`File`], which stays locked for as long as a ring of it lives.
///
/// Dropping it waits for what is in flight, because the kernel may still use the memory lent to
/// those requests.
pub struct FileRing {
    uring: IoUring,
    target: Target,
    areas: Vec<Area>,
    slots: Box<[Slot]>,
    /// The tags whose entries wait in the submission queue, the oldest first.
    waiting: VecDeque<u32>,
    /// The tags whose entries the kernel has taken and not answered.
    in_kernel: usize,
    /// The tags of requests that have more to ask; empty between calls.
    again: Vec<u32>,
    /// The tags of requests that could not be submitted, and never will be.
    refused: Vec<u32>,
    /// Nothing is submitted any more.
    broken: bool,
    _lock: Arc<OwnedFd>,
}

impl std::fmt::Debug for FileRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileRing")
            .field("depth", &self.slots.len())
            .field("waiting", &self.waiting)
            .field("in_kernel", &self.in_kernel)
            .field("refused", &self.refused)
            .field("broken", &self.broken)
            .finish_non_exhaustive()
    }
}

impl FileRing {
    pub(super) fn new(fd: BorrowedFd<'_>, lock: Arc<OwnedFd>, depth: u32) -> io::Result<Self> {
        let uring = setup::make(depth)?;
        let target = setup::register_file(&uring, fd);
        let tags = depth as usize;
        Ok(FileRing {
            uring,
            target,
            areas: Vec::new(),
            slots: (0..tags).map(|_| Slot::new()).collect(),
            waiting: VecDeque::with_capacity(tags),
            in_kernel: 0,
            again: Vec::with_capacity(tags),
            refused: Vec::with_capacity(tags),
            broken: false,
            _lock: lock,
        })
    }

    pub(super) fn register_buffers(&mut self, areas: &[Area]) {
        if !areas.is_empty() && setup::register_buffers(&self.uring, areas) {
            self.areas = areas.to_vec();
        }
    }

    pub(super) fn queue(&mut self, file: &File, rq: InFlight) -> QueueRq {
        if self.broken {
            return QueueRq::Failed(rq, Status::IoErr);
        }
        if rq.op().is_passthrough() {
            return QueueRq::Failed(rq, Status::NotSupp);
        }
        let tag = rq.tag();
        match self.slots[tag as usize].begin(file, rq) {
            Ok(()) => {
                self.push(tag);
                QueueRq::Queued
            }
            Err((rq, status)) => QueueRq::Failed(rq, status),
        }
    }

    pub(super) fn commit(&mut self) {
        if !self.waiting.is_empty() {
            self.submit();
        }
    }

    pub(super) fn reap(&mut self, file: &File, mut end: impl FnMut(InFlight, Status)) {
        self.reap_refused(&mut end);
        if self.in_kernel == 0 && self.waiting.is_empty() {
            return;
        }
        if !self.waiting.is_empty() || self.completions_wait_in_kernel() {
            self.submit();
        }
        self.drain(file, &mut end);
        if !self.again.is_empty() {
            while let Some(tag) = self.again.pop() {
                self.push(tag);
            }
            self.submit();
        }
        self.reap_refused(&mut end);
    }

    pub(super) fn has_finished(&self) -> bool {
        if !self.refused.is_empty() || !self.waiting.is_empty() {
            return true;
        }
        // SAFETY: we are borrowed, so nobody drains the queue meanwhile.
        let empty = unsafe { self.uring.completion_shared() }.is_empty();
        !empty || (self.in_kernel > 0 && self.completions_wait_in_kernel())
    }

    /// Puts the entry of an occupied slot into the submission queue.
    fn push(&mut self, tag: u32) {
        let slot = &mut self.slots[tag as usize];
        let entry = slot.entry(self.target, &self.areas).user_data(u64::from(tag));
        // SAFETY: the memory that the entry names was lent to the request until it completes, or is
        // kept by its slot; and the request stays in its slot until the kernel has answered, also
        // if the ring is dropped.
        let pushed = unsafe { self.uring.submission().push(&entry) };
        // A tag has one entry at a time, in the queue or in the kernel.
        pushed.expect("the submission queue has room for an entry of each tag");
        self.waiting.push_back(tag);
    }

    /// Hands the kernel what waits in the submission queue, and has it post the completions that it
    /// has put off. What it has no room for at the moment stays in the queue.
    fn submit(&mut self) {
        if self.broken {
            return self.enter_without_submitting(0).unwrap_or_else(|e| self.give_up(&e));
        }
        loop {
            match self.uring.submit() {
                Ok(taken) => {
                    self.waiting.drain(..taken);
                    self.in_kernel += taken;
                    if taken == 0 || self.waiting.is_empty() {
                        return;
                    }
                }
                Err(e) => match e.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::EAGAIN | libc::EBUSY | libc::ENOMEM) => return,
                    _ => return self.give_up(&e),
                },
            }
        }
    }

    /// Ends what waits for submission: the kernel will not have it, today or later.
    fn give_up(&mut self, e: &io::Error) {
        if !self.broken {
            let count = self.waiting.len();
            error!(error = %e, count, "an io_uring refuses requests: they end in I/O errors");
        }
        self.broken = true;
        self.refused.extend(self.waiting.drain(..));
    }

    /// Enters the kernel, which works on what it has, until `want` completions have come. Once the
    /// ring is broken, or dropped, the submission queue holds entries that must never be submitted.
    fn enter_without_submitting(&mut self, want: u32) -> io::Result<()> {
        let flags = EnterFlags::GETEVENTS.bits();
        // SAFETY: nothing is submitted and no argument is handed over.
        let entered =
            unsafe { self.uring.submitter().enter::<libc::sigset_t>(0, want, flags, None) };
        match entered {
            Ok(_) => Ok(()),
            Err(e) => match e.raw_os_error() {
                Some(libc::EINTR | libc::EAGAIN | libc::EBUSY) => Ok(()),
                _ => Err(e),
            },
        }
    }

    /// Whether the kernel holds completions that it posts only when it is entered.
    fn completions_wait_in_kernel(&self) -> bool {
        // SAFETY: we are borrowed, so nobody pushes to the queue meanwhile.
        let submission = unsafe { self.uring.submission_shared() };
        submission.taskrun() || submission.cq_overflow()
    }

    /// Takes in the answers that lie in the completion queue.
    fn drain(&mut self, file: &File, end: &mut impl FnMut(InFlight, Status)) {
        for completion in self.uring.completion() {
            self.in_kernel -= 1;
            // We wrote it, and it was a tag.
            let tag = completion.user_data() as u32;
            let slot = &mut self.slots[tag as usize];
            match slot.answered(file, completion.result()) {
                Verdict::Again => self.again.push(tag),
                Verdict::Done(status) => {
                    let rq = slot.end().expect("an answer belongs to a request");
                    end(rq, status);
                }
            }
        }
    }

    fn reap_refused(&mut self, end: &mut impl FnMut(InFlight, Status)) {
        while let Some(tag) = self.refused.pop() {
            let rq = self.slots[tag as usize].end().expect("a refused request is in its slot");
            end(rq, Status::IoErr);
        }
    }

    /// Drops the requests whose answers lie in the completion queue.
    fn discard_completions(&mut self) {
        for completion in self.uring.completion() {
            self.in_kernel -= 1;
            drop(self.slots[completion.user_data() as usize].end());
        }
    }

    /// Leaves what is in the kernel there for ever, as the kernel does not let it be waited for.
    /// The memory lent to it must stay lent.
    fn abandon(&mut self, e: &io::Error) {
        let count = self.in_kernel;
        error!(error = %e, count, "requests in flight are lost with their io_uring");
        for (tag, slot) in self.slots.iter_mut().enumerate() {
            let tag = tag as u32;
            if !self.waiting.contains(&tag) && !self.refused.contains(&tag) {
                slot.forget();
            }
        }
    }
}

impl AsFd for FileRing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.uring.as_fd()
    }
}

impl Drop for FileRing {
    fn drop(&mut self) {
        self.discard_completions();
        while self.in_kernel > 0 {
            let entered = self.enter_without_submitting(1);
            self.discard_completions();
            if let Err(e) = entered
                && self.in_kernel > 0
            {
                return self.abandon(&e);
            }
        }
        // The kernel takes its time to clear away an io_uring, and the file should not be busy
        // until then. If this fails, it is, and nothing else is lost.
        let _ = self.uring.submitter().unregister_files();
    }
}
