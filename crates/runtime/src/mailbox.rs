//! How workers reach each other: messages, and an event that ends a worker's sleep.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use blkmq_core::{CtxId, Done, Env, Inbox, Time, WakeUp, Wish};
use rustix::event::{EventfdFlags, eventfd};

use crate::remote::RemoteIo;
use crate::service::Service;
use crate::volume::VolumeId;

/// What a worker is told by others.
pub(crate) enum Message {
    /// A turn is wanted of it at this disk.
    Kick { disk: usize },
    /// A turn is wanted of it at this disk at a time.
    Wish { disk: usize, at: Time, why: Wish },
    /// A request of its has ended in another worker's turn.
    Done { done: Done },
    /// A claim that a request of its has waited for is granted.
    Granted { request: usize },
    /// A new client is its to serve.
    Adopt(Box<dyn Service>),
    /// An I/O from outside.
    Remote { volume: VolumeId, io: RemoteIo },
    /// Take in nothing new, finish what was accepted, and say so.
    Stop,
    /// Make durable what this worker's disks have written, and say so.
    Flush,
    /// End.
    Exit,
}

/// One worker's mailbox.
pub(crate) struct Mailbox {
    inbox: Inbox<Message>,
    event: OwnedFd,
    /// How many services the worker has, or will have once it has read this.
    services: AtomicUsize,
}

/// Hands a service to the worker that has the fewest. So no worker ever has more than its part of
/// the most that there may be, however they come and go.
pub(crate) fn adopt(mailboxes: &[Mailbox], service: Box<dyn Service>) {
    // Nothing else is told by the count, so no order with other memory is needed. Two who adopt at
    // once may choose the same worker, which a few services more do no harm to.
    let services = |mailbox: &&Mailbox| mailbox.services.load(Ordering::Relaxed);
    let mailbox = mailboxes.iter().min_by_key(services).expect("there is a worker");
    mailbox.services.fetch_add(1, Ordering::Relaxed);
    mailbox.send(Message::Adopt(service));
}

impl Mailbox {
    pub(crate) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Mailbox { inbox: Inbox::new(), event, services: AtomicUsize::new(0) })
    }

    /// Leaves a message, and wakes the worker if it sleeps.
    pub(crate) fn send(&self, message: Message) {
        if self.inbox.send(message) == WakeUp::Owed {
            // The counter cannot overflow: it is written once for each sleep, and read after each.
            // The event's only other error would be a closed descriptor, which we own.
            let written = rustix::io::write(&self.event, &1u64.to_ne_bytes());
            assert!(written.is_ok(), "an event can be signalled: {written:?}");
        }
    }

    /// Called by the worker when a service of its has gone.
    pub(crate) fn service_gone(&self) {
        self.services.fetch_sub(1, Ordering::Relaxed);
    }

    /// The messages, for the worker itself.
    pub(crate) fn inbox(&self) -> &Inbox<Message> {
        &self.inbox
    }

    /// What becomes readable when the worker is to wake up.
    pub(crate) fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// Called by the worker when the event was signalled.
    pub(crate) fn clear_event(&self) {
        // It was signalled, so there is something to read; if another wake-up has read it, all the
        // better.
        let _ = rustix::io::read(&self.event, &mut [0u8; 8]);
    }
}

/// The environment of one disk's queue: worker `i` is the thread of software queue `i`.
pub(crate) struct DiskEnv {
    pub(crate) disk: usize,
    pub(crate) mailboxes: Arc<[Mailbox]>,
    pub(crate) settled: Arc<Settled>,
}

/// Where whoever changes a queue waits until a quiesce or a freeze may have become complete.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    /// How often that may have been so.
    times: Mutex<u64>,
    changed: Condvar,
}

impl Settled {
    /// How often it may have been so until now.
    pub(crate) fn times(&self) -> u64 {
        *self.lock()
    }

    /// Waits until it may have been so more than `times` times.
    pub(crate) fn wait_beyond(&self, times: u64) {
        let now = self.lock();
        let waited = self.changed.wait_while(now, |now| *now <= times);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn note(&self) {
        *self.lock() += 1;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        // A number is never half changed.
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Env for DiskEnv {
    fn kick(&self, ctx: CtxId) {
        self.mailboxes[usize::from(ctx.0)].send(Message::Kick { disk: self.disk });
    }

    fn run_at(&self, ctx: CtxId, at: Time, why: Wish) {
        let message = Message::Wish { disk: self.disk, at, why };
        self.mailboxes[usize::from(ctx.0)].send(message);
    }

    fn deliver(&self, ctx: CtxId, done: Done) {
        self.mailboxes[usize::from(ctx.0)].send(Message::Done { done });
    }

    fn settled(&self) {
        self.settled.note();
    }
}
