//! A disk as one worker sees it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use blkmq_core::{Bio, Cpu, Done, Memory, Queue, Refused, Time, Wish};
use blkmq_drivers::{Device, Extent};

use crate::mailbox::DiskEnv;
use crate::ranges::RangeLock;

/// What a worker wants of its next turn at a disk.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// To be submitted, in this order.
    pub(crate) pending: VecDeque<Bio>,
    /// The last submission would have blocked; there will be a message when to try again.
    pub(crate) is_blocked: bool,
    /// A kick has come, or requests have come free.
    pub(crate) is_kicked: bool,
    /// Wishes whose time has come.
    pub(crate) wishes: Vec<Wish>,
}

impl Work {
    /// Whether a turn has to be taken.
    pub(crate) fn is_due(&self) -> bool {
        self.is_kicked || !self.wishes.is_empty() || (!self.pending.is_empty() && !self.is_blocked)
    }
}

/// One worker's side of a disk, whatever its driver.
pub(crate) trait Port: Send {
    /// Takes a turn. What has ended of this worker's is added to `done`.
    fn turn(&mut self, now: Time, work: &mut Work, done: &mut Vec<Done>);

    /// Whether a turn would find something finished.
    fn has_finished(&self) -> bool;

    /// What becomes readable when something has finished.
    fn poll_fd(&self) -> Option<BorrowedFd<'_>>;

    /// Whether a read fills the memory it was lent.
    fn fills_reads(&self) -> bool;

    /// The disk's range lock, if it has logical blocks that may be asked for in part.
    fn ranges(&self) -> Option<Arc<RangeLock>>;

    /// The map of the disk; see [`Device::extents`].
    fn extents(&self, offset_bytes: u64, len_bytes: u64, max: usize) -> io::Result<Vec<Extent>>;

    /// Has at hand what will be read soon; see [`Device::prefetch`].
    fn prefetch(&self, offset_bytes: u64, len_bytes: u64);
}

/// The port of a disk with driver `D`.
pub(crate) struct DevicePort<D: Device> {
    pub(crate) queue: Arc<Queue<D, DiskEnv>>,
    pub(crate) cpu: Cpu<D>,
    pub(crate) ranges: Option<Arc<RangeLock>>,
}

impl<D: Device> Port for DevicePort<D> {
    fn turn(&mut self, now: Time, work: &mut Work, done: &mut Vec<Done>) {
        let mut turn = self.queue.turn(&mut self.cpu, now);
        if std::mem::take(&mut work.is_kicked) {
            turn.run();
        }
        for why in work.wishes.drain(..) {
            turn.timer(why);
        }
        turn.reap();
        work.is_blocked = false;
        while let Some(bio) = work.pending.pop_front() {
            match turn.submit(bio) {
                Ok(()) => {}
                Err(Refused::WouldBlock(bio)) => {
                    work.pending.push_front(bio);
                    work.is_blocked = true;
                    break;
                }
                Err(Refused::Invalid(bio, status)) => {
                    done.push(Done {
                        cookie: bio.cookie,
                        status,
                        issued_at: now,
                        submitted_at: now,
                        memory: Memory::Returned,
                    });
                }
            }
        }
        drop(turn);
        done.extend(self.cpu.take_done());
        if self.cpu.take_woken() {
            work.is_blocked = false;
            work.is_kicked = true;
        }
    }

    fn has_finished(&self) -> bool {
        self.queue.driver().has_finished(self.cpu.ring())
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        self.queue.driver().poll_fd(self.cpu.ring())
    }

    fn fills_reads(&self) -> bool {
        self.queue.driver().fills_reads()
    }

    fn ranges(&self) -> Option<Arc<RangeLock>> {
        self.ranges.clone()
    }

    fn extents(&self, offset_bytes: u64, len_bytes: u64, max: usize) -> io::Result<Vec<Extent>> {
        self.queue.driver().extents(offset_bytes, len_bytes, max)
    }

    fn prefetch(&self, offset_bytes: u64, len_bytes: u64) {
        self.queue.driver().prefetch(offset_bytes, len_bytes);
    }
}
