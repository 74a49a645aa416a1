//! What a worker serves: one client each, without ever blocking.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use blkmq_core::{Flags, Op, Priority, Status, Time};

use crate::buffer::Buffer;
use crate::cx::Cx;

/// One client of the server, in the hands of the worker that owns it.
///
/// Every function is called by that worker's thread, and none may block. Requests are submitted
/// through [`Cx::submit`] and come back through [`Service::done`], in any order.
pub trait Service: Send {
    /// The descriptor to wait on. The same one for as long as the service lives.
    fn fd(&self) -> BorrowedFd<'_>;

    /// What to wait for on the descriptor. Asked after each round of calls.
    fn interest(&self) -> Interest;

    /// The descriptor is ready for something that [`Service::interest`] named, or has hung up,
    /// which counts as ready for everything.
    fn ready(&mut self, cx: &mut Cx<'_>, ready: Interest);

    /// A request has ended.
    fn done(&mut self, cx: &mut Cx<'_>, done: IoDone);

    /// The end of a round in which any other function was called: what can be sent is sent now, so
    /// that a batch of replies costs one system call.
    fn flush(&mut self, cx: &mut Cx<'_>);

    /// Memory may have come free since [`Cx::buffer`] last gave none to this service, and it is its
    /// turn: what it does not ask for now the next one gets.
    fn retry(&mut self, cx: &mut Cx<'_>);

    /// Whether it still waits for the memory that it did not get. Asked after each round of calls;
    /// who has got some elsewhere, or wants none any more, holds up nobody behind him.
    fn is_hungry(&self) -> bool {
        true
    }

    /// Others have waited for memory for a while. Who keeps some without using it lets go of it.
    fn squeeze(&mut self, cx: &mut Cx<'_>) {
        let _ = cx;
    }

    /// The time set with [`Cx::set_deadline`] has come.
    fn deadline(&mut self, cx: &mut Cx<'_>);

    /// The server stops: take in nothing new, finish what was accepted, then be finished.
    fn stop(&mut self, cx: &mut Cx<'_>);

    /// Whether the client has gone and nothing of his is in flight. The service is dropped then.
    fn is_finished(&self) -> bool;
}

/// Ready for what, or interested in what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// To be read from.
    pub readable: bool,
    /// To be written to.
    pub writable: bool,
    /// To be given up: the other side has closed. Who is interested in nothing at all does not hear
    /// of it.
    pub hang_up: bool,
}

/// One I/O on a volume.
#[derive(Debug)]
pub struct Io {
    /// What is to be done.
    pub op: Op,
    /// How.
    pub flags: Flags,
    /// How urgently; `None` for as urgently as the volume's requests are.
    pub prio: Option<Priority>,
    /// Where it begins, in bytes from the volume's beginning.
    pub offset_bytes: u64,
    /// Its length. Zero for a flush.
    pub len_bytes: u64,
    /// The memory, for reads and writes: of this length at least.
    pub buffer: Option<Buffer>,
    /// The service's own mark, which comes back.
    pub mark: u64,
}

/// How an I/O ended.
#[derive(Debug)]
pub struct IoDone {
    /// The mark it bore.
    pub mark: u64,
    /// How it ended.
    pub status: Status,
    /// Its memory, which is the service's again.
    pub buffer: Option<Buffer>,
    /// How long it took, from submission to completion.
    pub latency: Duration,
    /// When it was submitted.
    pub submitted_at: Time,
}
