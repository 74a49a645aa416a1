//! The world around the queue while a bench runs: an inbox for each thread, which it looks into
//! between turns and sleeps on when nothing is to do.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use blkmq_core::{CtxId, Done, Env, Time, Wish};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

/// The inboxes of all threads. Thread `h` serves hardware queue `h`, so there are at least as many
/// threads as hardware queues.
pub(super) struct Inboxes(Box<[Inbox]>);

/// What others want of a thread. Each has lines of memory of its own.
#[repr(align(128))]
pub(super) struct Inbox {
    bits: AtomicU32,
    /// The earliest time wished for, for each reason in `Wish::ALL`; `u64::MAX` if there is none.
    wishes_ns: [AtomicU64; Wish::ALL.len()],
    delivered: Mutex<Vec<Done>>,
    bell: OwnedFd,
}

/// The owner sleeps, or is about to: who posts something rings the bell.
const SLEEPS: u32 = 1;
/// The hardware queue was kicked.
pub(super) const KICKED: u32 = 1 << 1;
/// Requests have ended in another thread's turn.
pub(super) const DELIVERED: u32 = 1 << 3;
/// A time was wished for.
pub(super) const WISHED: u32 = 1 << 4;
/// All jobs of the group have ended.
pub(super) const STOPPED: u32 = 1 << 5;

impl Inboxes {
    /// Inboxes for so many threads, with room for so many deliveries each.
    pub(super) fn new(threads: u16, nr_requests: u32) -> io::Result<Self> {
        let inbox = |_| {
            Ok(Inbox {
                bits: AtomicU32::new(0),
                wishes_ns: [const { AtomicU64::new(u64::MAX) }; Wish::ALL.len()],
                delivered: Mutex::new(Vec::with_capacity(nr_requests as usize)),
                bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            })
        };
        (0..threads).map(inbox).collect::<io::Result<_>>().map(Inboxes)
    }

    /// The inbox of a thread.
    pub(super) fn of(&self, ctx: CtxId) -> &Inbox {
        &self.0[usize::from(ctx.0)]
    }

    /// Ends the group: every thread leaves.
    pub(super) fn stop(&self) {
        self.0.iter().for_each(|inbox| inbox.post(STOPPED));
    }

    /// Forgets what was posted to threads that have left.
    pub(super) fn reset(&self) {
        for inbox in &self.0 {
            inbox.bits.store(0, Ordering::Relaxed);
        }
    }
}

impl Env for Inboxes {
    fn kick(&self, ctx: CtxId) {
        self.of(ctx).post(KICKED);
    }

    fn run_at(&self, ctx: CtxId, at: Time, why: Wish) {
        let inbox = self.of(ctx);
        let nth = Wish::ALL.iter().position(|wish| *wish == why).expect("every wish is listed");
        inbox.wishes_ns[nth].fetch_min(at.as_ns(), Ordering::Relaxed);
        inbox.post(WISHED);
    }

    fn deliver(&self, ctx: CtxId, done: Done) {
        let inbox = self.of(ctx);
        inbox.delivered.lock().unwrap_or_else(PoisonError::into_inner).push(done);
        inbox.post(DELIVERED);
    }
}

impl Inbox {
    fn post(&self, bit: u32) {
        // What is posted is published before the bit; `take` and `sleep` acquire it.
        let before = self.bits.fetch_or(bit, Ordering::AcqRel);
        if before & SLEEPS != 0 && before & bit == 0 {
            // The counter of the bell cannot overflow, since its owner sets it back when it wakes.
            let rung = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
            assert!(matches!(rung, Ok(_) | Err(Errno::AGAIN)), "an eventfd can be written");
        }
    }

    /// What was posted since the last time.
    #[inline]
    pub(super) fn take(&self) -> u32 {
        if self.bits.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        self.bits.swap(0, Ordering::AcqRel)
    }

    /// Moves the requests that have ended in other threads' turns into `done`, which is empty.
    pub(super) fn take_delivered(&self, done: &mut Vec<Done>) {
        assert!(done.is_empty(), "what was delivered before has been taken");
        std::mem::swap(&mut *self.delivered.lock().unwrap_or_else(PoisonError::into_inner), done);
    }

    /// The earliest time wished for with reason `Wish::ALL[nth]` since the last time it was asked
    /// for.
    pub(super) fn take_wish(&self, nth: usize) -> u64 {
        self.wishes_ns[nth].swap(u64::MAX, Ordering::Relaxed)
    }

    /// Sleeps until something is posted, the device has finished something, or `timeout` is over.
    ///
    /// # Errors
    ///
    /// Those of poll(2).
    pub(super) fn sleep(
        &self,
        device: Option<BorrowedFd<'_>>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        // Both sides change one word, so either the bit is seen here or `SLEEPS` is seen there.
        if self.bits.fetch_or(SLEEPS, Ordering::AcqRel) == 0 {
            let timeout = timeout.map(|timeout| Timespec {
                // Longer than a year is as good as for ever.
                tv_sec: timeout.as_secs().min(31_536_000) as i64,
                tv_nsec: timeout.subsec_nanos().into(),
            });
            let device = device.unwrap_or(self.bell.as_fd());
            let mut fds = [
                PollFd::new(&self.bell, PollFlags::IN),
                PollFd::from_borrowed_fd(device, PollFlags::IN),
            ];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let mut count = [0; 8];
            match rustix::io::read(&self.bell, &mut count) {
                Ok(_) | Err(Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.bits.fetch_and(!SLEEPS, Ordering::AcqRel);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use blkmq_core::{Memory, Status};

    use super::*;

    fn done() -> Done {
        let (at, memory) = (Time::ZERO, Memory::Returned);
        Done { cookie: 0, status: Status::Ok, issued_at: at, submitted_at: at, memory }
    }

    #[test]
    fn what_is_posted_wakes_a_sleeper_and_is_kept_for_one_awake() {
        let inboxes = Inboxes::new(2, 4).unwrap();
        inboxes.kick(CtxId(1));
        inboxes.deliver(CtxId(1), done());
        let start = Instant::now();
        inboxes.of(CtxId(1)).sleep(None, Some(Duration::from_secs(20))).unwrap();
        assert_eq!(inboxes.of(CtxId(1)).take(), KICKED | DELIVERED);
        assert_eq!(inboxes.of(CtxId(0)).take(), 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(20));
                inboxes.stop();
            });
            inboxes.of(CtxId(0)).sleep(None, Some(Duration::from_secs(20))).unwrap();
        });
        assert_eq!(inboxes.of(CtxId(0)).take(), STOPPED);
        assert!(start.elapsed() < Duration::from_secs(10), "it was woken and did not time out");
    }

    #[test]
    fn a_sleep_ends_at_its_timeout() {
        let inboxes = Inboxes::new(1, 4).unwrap();
        inboxes.of(CtxId(0)).sleep(None, Some(Duration::from_millis(5))).unwrap();
        assert_eq!(inboxes.of(CtxId(0)).take(), 0);
    }

    #[test]
    fn the_earliest_wish_is_kept_for_each_reason() {
        let inboxes = Inboxes::new(1, 4).unwrap();
        for at in [50, 30, 40] {
            inboxes.run_at(CtxId(0), Time::from_ns(at), Wish::DriverRetry);
        }
        inboxes.run_at(CtxId(0), Time::from_ns(10), Wish::BudgetRerun);
        let inbox = inboxes.of(CtxId(0));
        assert_eq!(inbox.take(), WISHED);
        assert_eq!([0, 1, 2].map(|nth| inbox.take_wish(nth)), [u64::MAX, 30, 10]);
        assert_eq!([0, 1, 2].map(|nth| inbox.take_wish(nth)), [u64::MAX; 3]);
    }
}
