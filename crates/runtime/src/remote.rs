//! I/O from threads that are no workers: how an embedder's come in, and how they are answered.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use blkmq_core::{Flags, Op, Priority, Segments, Status};

use crate::cx::{Hands, Owner, Pending, Wanted};
use crate::mailbox::{Mailbox, Message};
use crate::volume::VolumeId;

/// Who asked for an I/O from outside.
pub trait Caller: Send + Sync {
    /// The I/O has ended. Called once, by a worker's thread, which serves others meanwhile: it may
    /// neither block nor panic. Until then the worker keeps the caller, and so the memory that it
    /// owns.
    fn done(self: Arc<Self>, status: Status);
}

/// One I/O on a volume, from any thread.
pub struct RemoteIo {
    /// What is to be done.
    pub op: Op,
    /// How.
    pub flags: Flags,
    /// How urgently; `None` for as urgently as the volume's requests are.
    pub prio: Option<Priority>,
    /// Where it begins, in bytes from the volume's beginning.
    pub offset_bytes: u64,
    /// Its length, in bytes. Zero for a flush.
    pub len_bytes: u64,
    /// The memory, for reads and writes: of this length. What was promised when the segments were
    /// made has to hold until [`Caller::done`] is called, or the caller is let go.
    pub segments: Segments,
    /// Whom to tell.
    pub caller: Arc<dyn Caller>,
}

/// The engine takes in nothing any more. The I/O comes back.
#[derive(Debug)]
pub struct Closed(pub RemoteIo);

/// The way into an engine from any thread. Cheap to clone; it does not keep the engine running.
#[derive(Clone)]
pub struct Handle {
    doors: Arc<Doors>,
}

/// A door for each worker, and its mailbox.
///
/// A message goes through the door under its shared lock, and the door is shut under its exclusive
/// lock before the worker is told to stop. So no I/O reaches a worker that has stopped, and none is
/// left unanswered in the mailbox of one that has ended.
pub(crate) struct Doors {
    is_open: Box<[RwLock<bool>]>,
    mailboxes: Arc<[Mailbox]>,
}

impl Handle {
    pub(crate) fn new(doors: Arc<Doors>) -> Self {
        Handle { doors }
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.doors.mailboxes.len()
    }

    /// Hands an I/O to a worker. [`Caller::done`] says how it ended, be it that the volume cannot
    /// do it. Nothing bounds how many are handed over: the caller does.
    ///
    /// # Errors
    ///
    /// If the engine stops; then nobody is told.
    ///
    /// # Panics
    ///
    /// If there is no such worker. If there is no such volume, the worker does.
    pub fn submit(&self, worker: usize, volume: VolumeId, io: RemoteIo) -> Result<(), Closed> {
        // A panic cannot leave a flag half changed.
        let is_open = self.doors.is_open[worker].read().unwrap_or_else(PoisonError::into_inner);
        if !*is_open {
            return Err(Closed(io));
        }
        self.doors.mailboxes[worker].send(Message::Remote { volume, io });
        Ok(())
    }
}

impl Doors {
    pub(crate) fn new(mailboxes: &Arc<[Mailbox]>) -> Self {
        let is_open = mailboxes.iter().map(|_| RwLock::new(true)).collect();
        Doors { is_open, mailboxes: Arc::clone(mailboxes) }
    }

    /// Lets nothing in any more. What came in before lies in the mailboxes.
    pub(crate) fn shut(&self) {
        for is_open in &self.is_open {
            *is_open.write().unwrap_or_else(PoisonError::into_inner) = false;
        }
    }
}

impl Hands {
    /// Takes in an I/O from outside.
    pub(crate) fn submit_remote(&mut self, volume: VolumeId, io: RemoteIo) {
        let RemoteIo { op, flags, prio, offset_bytes, len_bytes, segments, caller } = io;
        let owner = Owner::Caller(caller);
        let pending = Pending { owner, mark: 0, buffer: None, hold: None };
        let wanted = Wanted { op, flags, prio, offset_bytes, len_bytes };
        self.submit(volume, wanted, segments, pending);
    }
}

impl fmt::Debug for RemoteIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteIo")
            .field("op", &self.op)
            .field("offset_bytes", &self.offset_bytes)
            .field("len_bytes", &self.len_bytes)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("workers", &self.workers()).finish_non_exhaustive()
    }
}
