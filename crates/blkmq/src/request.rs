//! A request in the making: how it is to be done, and who waits for it.

use std::future::{Future, IntoFuture};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use blkmq_core::{Class, Flags, Priority};

use crate::flight::{Io, is_worker};
use crate::kind::{Durable, Kind, WriteZeroes};
use crate::options::priority;
use crate::volume::Volume;

/// An I/O that has not begun. `.await` it, [`wait`](Request::wait) for it, or
/// [`submit`](Request::submit) it.
#[derive(Debug)]
#[must_use = "an I/O does nothing unless it is awaited, waited for, or submitted"]
pub struct Request<K> {
    pub(crate) volume: Volume,
    pub(crate) flags: Flags,
    pub(crate) prio: Priority,
    pub(crate) offset_bytes: u64,
    pub(crate) kind: K,
}

impl<K: Kind> Request<K> {
    pub(crate) fn new(volume: &Volume, offset_bytes: u64, kind: K) -> Self {
        Request {
            volume: volume.clone(),
            flags: Flags::empty(),
            prio: volume.address.prio,
            offset_bytes,
            kind,
        }
    }

    /// Gives it another priority than the volume's: a class, and within it a level from 0, the most
    /// urgent, to 7. What that does is the scheduler's to say; scheduler `none` pays no heed.
    ///
    /// # Panics
    ///
    /// If `level` is more than 7.
    pub fn priority(mut self, class: Class, level: u8) -> Self {
        self.prio = priority(class, level);
        self
    }

    /// Has it begin now, not only when it is awaited. So one task can have many under way.
    pub fn submit(self) -> Io<K> {
        let mut io = Io::new(self);
        io.begin();
        io
    }

    /// Has it begin, and blocks the calling thread until it has ended.
    ///
    /// # Panics
    ///
    /// On a thread of the engine (wakers are called there, and memory freed), which would wait for
    /// itself.
    pub fn wait(self) -> K::Output {
        Io::new(self).wait()
    }
}

impl<K: Durable> Request<K> {
    /// Forced unit access: it is durable when it ends.
    pub fn fua(mut self) -> Self {
        self.flags |= Flags::FUA;
        self
    }
}

impl Request<WriteZeroes> {
    /// The range stays allocated, so that later writes to it find their room.
    pub fn keep_allocated(mut self) -> Self {
        self.flags |= Flags::NOUNMAP;
        self
    }
}

impl<K: Kind> IntoFuture for Request<K> {
    type Output = K::Output;
    type IntoFuture = Io<K>;

    fn into_future(self) -> Io<K> {
        Io::new(self)
    }
}

impl<K: Kind> Io<K> {
    /// Blocks the calling thread until it has ended.
    ///
    /// # Panics
    ///
    /// As [`Request::wait`] does.
    pub fn wait(self) -> K::Output {
        assert!(!is_worker(), "a thread of the engine would wait for itself");
        let waker = Waker::from(Arc::new(Parked(thread::current())));
        let mut cx = Context::from_waker(&waker);
        let mut io = pin!(self);
        loop {
            match io.as_mut().poll(&mut cx) {
                Poll::Ready(output) => return output,
                Poll::Pending => thread::park(),
            }
        }
    }
}

/// A thread that waits.
struct Parked(Thread);

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
